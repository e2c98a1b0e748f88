//! The log of a disk: segments, records, and the index over them.

pub(crate) mod index;
pub(crate) mod record;
