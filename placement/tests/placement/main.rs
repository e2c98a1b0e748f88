//! Properties of placement over random topologies, and vectors over a small one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod common;
mod creation;
mod duties;
mod leaving;
mod map_rows;
mod moving;
mod promise;
mod rebalancing;
mod rebalancing_at_scale;
mod vectors;
mod writing;
