//! Key-value stores: ordered maps with a log of batches, of which a crash keeps a prefix.
//!
//! - [`KvDevice`] is what a host's stores lie on. It outlives the host's processes, carries the faults
//!   and the planted bugs, and shows its content to checkers.
//! - [`SimKvs`] and [`SimKv`] are one process's view of it: the seam.
//!
//! A process that is killed leaves all its batches; a power loss leaves, of each store, a prefix that
//! is not shorter than what the last successful flush covers, drawn from the seed. Stores, tables and
//! checkpoints come, and stores go, durably and in one step, at some moment of the call.
//!
//! After a flush has failed, all flushes fail until the store is opened again, as in `os`: a kernel
//! that has failed to write pages back may call the next attempt a success.

mod device;
mod forensic;
mod kvs;
mod names;
mod store;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use env::Batch;
use env::kv::Change;

pub use self::device::KvDevice;
pub use self::forensic::{DurableKv, ForensicKv, ScratchKv};
pub use self::kvs::{SimKv, SimKvs};

/// Rewrites each batch before it is written: the store's name, the batch, and what to write instead.
pub type KvFilter = Arc<dyn Fn(&str, Batch) -> Batch + Send + Sync>;

/// What a process has just done to a store.
#[derive(Clone, Copy, Debug)]
pub enum KvAct<'a> {
    /// A batch was written: these changes.
    Written(&'a [Change]),
    /// The store was removed.
    Removed,
}

/// Sees what is done to the stores of a host, as soon as it is done: the store's name, and what.
pub type KvWitness = Arc<dyn Fn(&str, KvAct<'_>) + Send + Sync>;

/// How the stores of a host behave. Times are in microseconds, both bounds inclusive; probabilities
/// in millionths of all operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvFaults {
    /// What a flush takes, and what opening, removing, listing and copying take.
    pub flush_us: (u64, u64),
    /// How often such an operation is slow.
    pub slow_ppm: u32,
    /// What it takes more, then.
    pub slow_us: (u64, u64),
    /// How often a flush fails. No later one succeeds until the store is opened again.
    pub flush_error_ppm: u32,
    /// How often a write fails, with nothing written.
    pub write_error_ppm: u32,
}

impl Default for KvFaults {
    /// Small latencies, no errors.
    fn default() -> Self {
        Self { flush_us: (100, 2_000), slow_ppm: 0, slow_us: (0, 0), flush_error_ppm: 0, write_error_ppm: 0 }
    }
}

/// Broken promises, for tests of the checkers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvBugs {
    /// A flush succeeds and makes nothing durable.
    pub flush_lies: bool,
    /// … of stores whose names begin like this.
    pub flush_lies_of: &'static str,
    /// A checkpoint lacks some of the last batches.
    pub checkpoint_lies: bool,
}
