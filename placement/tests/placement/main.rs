//! Properties of placement over random topologies, and vectors over a small one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod common;
mod creation;
mod duties;
mod map_rows;
mod moving;
mod promise;
mod vectors;
mod writing;
