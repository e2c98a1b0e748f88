//! The storage node.

mod block;
mod budget;
mod coalesce;
mod keyed;
pub mod store;
pub mod superblock;
#[cfg(test)]
mod testing;

pub use block::BlockProblem;
