//! Suites that every implementation of the traits must pass, the real and the simulated alike.
//!
//! Each checks its trait's contract clause by clause, as far as hosts that do not crash can see
//! it, and panics with the clause that is broken. They take time only from the clock that they test
//! and need no particular executor. What a crash leaves is for the implementations' own tests: a
//! process that is killed for `os`, every fault that there is for the simulator.
//!
//! | suite | clauses |
//! | --- | --- |
//! | [`clock`] | never falls, also across clones; sleeps last; deadlines; time-outs drop their work, and ready work wins |
//! | [`rng`] | fills every byte, any length; does not repeat itself; `below` stays below |
//! | [`spawn`] | runs; a dropped handle leaves the task running; abort drops it; join waits |
//! | [`disks`] | one owner; names; reserved zeros; aligned transfers, batches, ends of files; flushes; space |
//! | [`net`] | two hosts: identities; whole and ordered bytes; independent streams; resets; backpressure; closing |
//! | [`kvs`] | one owner; batches; ranges; scans; checkpoints; reopening; a model under random batches |

// Test code: a panic is how it fails.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod clock;
mod disk;
mod kv;
mod kv_model;
mod net;
mod rng;
mod spawn;

pub use clock::clock;
pub use disk::disks;
pub use kv::kvs;
pub use net::{NetCase, net};
pub use rng::rng;
pub use spawn::spawn;

use std::fmt::Debug;

use crate::storage::{StorageError, StorageErrorKind};

/// Fails unless `result` is an error of this kind.
#[track_caller]
fn refuses<T: Debug>(clause: &str, kind: StorageErrorKind, result: Result<T, StorageError>) {
    match result {
        Err(error) if error.kind() == kind => {}
        other => panic!("{clause}: expected {kind:?}, got {other:?}"),
    }
}

/// Random numbers that are the same everywhere (SplitMix64), so that a failure repeats.
struct Fixed(u64);

impl Fixed {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is small and not 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound as u64)).unwrap()
    }
}
