//! The cluster map: choosing, moving and checking places.
