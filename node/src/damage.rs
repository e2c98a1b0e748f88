//! Shards that were found lost, until the metadata service knows.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::{DiskId, ExtentId, GroupId, ShardName, SlotIndex};

/// Reports that wait; more are dropped, to be found again.
const LOST_MAX: usize = 4096;

/// An extent that misses a shard in a slot of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lost {
    pub(crate) disk: DiskId,
    pub(crate) group: GroupId,
    pub(crate) extent: ExtentId,
    pub(crate) slot: SlotIndex,
}

/// A bounded set of them.
#[derive(Debug, Default)]
pub(crate) struct LostQueue(Mutex<BTreeSet<Lost>>);

impl LostQueue {
    /// Remembers a shard; whether there was room for it.
    pub(crate) fn push(&self, disk: DiskId, shard: &ShardName) -> bool {
        let ShardName { group, extent, slot, .. } = *shard;
        self.put_back([Lost { disk, group, extent, slot }])
    }

    /// Takes at most `limit` out.
    pub(crate) fn take(&self, limit: usize) -> Vec<Lost> {
        let mut all = self.all();
        std::iter::from_fn(|| all.pop_first()).take(limit).collect()
    }

    /// Remembers them again; whether there was room for all.
    pub(crate) fn put_back(&self, lost: impl IntoIterator<Item = Lost>) -> bool {
        let mut all = self.all();
        let mut room = true;
        for lost in lost {
            if all.len() < LOST_MAX {
                all.insert(lost);
            } else {
                room &= all.contains(&lost);
            }
        }
        room
    }

    fn all(&self) -> MutexGuard<'_, BTreeSet<Lost>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proto::StripeIndex;

    use super::*;

    /// The same extent is kept once, and the queue is bounded.
    #[test]
    fn is_bounded() {
        let queue = LostQueue::default();
        let shard = |extent, stripe| ShardName {
            group: GroupId(1),
            extent: ExtentId(extent),
            stripe: StripeIndex(stripe),
            slot: SlotIndex(0),
        };
        for extent in 0..LOST_MAX as u128 {
            assert!(queue.push(DiskId(1), &shard(extent, 0)) && queue.push(DiskId(1), &shard(extent, 1)));
        }
        assert!(!queue.push(DiskId(1), &shard(u128::MAX, 0)));
        assert_eq!(queue.take(10).len(), 10);
        assert_eq!(queue.take(usize::MAX).len(), LOST_MAX - 10);
    }
}
