//! What a store promised at which position of a trace.
//!
//! A change that was acknowledged when so many events had taken place holds at every cut from there on; one that was
//! asked for at a position may have taken place at every cut after that.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::Content;

/// Lengths of shards.
const SHARD_BYTES: [u64; 5] = [64, 4096, 20_032, 70_016, 300_032];

/// Which content a shard has; none when there is no shard.
pub type Version = Option<u64>;

/// A change of one shard.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// What it is after that.
    pub to: Version,
    /// The position when it was asked for.
    pub began: usize,
    /// The position when it was acknowledged.
    pub acked: usize,
}

/// The changes of each shard by number, one after the other.
#[derive(Debug, Default)]
pub struct Promises(Mutex<BTreeMap<u64, Vec<Change>>>);

impl Promises {
    /// One more was kept, so far.
    pub fn add(&self, number: u64, change: Change) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(number).or_default().push(change);
    }

    /// All shards that there ever were.
    pub fn numbers(&self) -> Vec<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// The changes of this shard.
    pub fn of(&self, number: u64) -> Vec<Change> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned().unwrap_or_default()
    }

    /// What this shard may be after a cut.
    pub fn allowed(&self, number: u64, cut: usize) -> Vec<Version> {
        let mut allowed = vec![None];
        for change in self.of(number).iter().take_while(|change| change.began < cut) {
            if change.acked <= cut {
                allowed.clear();
            }
            allowed.push(change.to);
        }
        allowed
    }

    /// Positions at which something was acknowledged, in order.
    pub fn acknowledgements(&self) -> Vec<usize> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut acked: Vec<usize> = all.values().flatten().map(|change| change.acked).collect();
        acked.sort_unstable();
        acked
    }
}

/// The bytes of a shard.
pub fn content(number: u64, version: u64) -> Content {
    let kind = usize::try_from((number + version) % SHARD_BYTES.len() as u64).unwrap_or_default();
    Content::new(number << 32 | version, SHARD_BYTES[kind])
}
