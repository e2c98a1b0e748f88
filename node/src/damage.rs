//! Shards that were found lost, until the metadata service knows.

use std::collections::BTreeMap;
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

/// How a shard was found. Damage weighs more: it is counted against the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Loss {
    /// It is not there.
    Absent,
    /// It is there, and not as it was written.
    Damaged,
}

/// A bounded set of them.
#[derive(Debug, Default)]
pub(crate) struct LostQueue(Mutex<BTreeMap<Lost, Loss>>);

impl LostQueue {
    /// Remembers a shard; whether there was room for it.
    pub(crate) fn push(&self, disk: DiskId, shard: &ShardName, loss: Loss) -> bool {
        let ShardName { group, extent, slot, .. } = *shard;
        self.put_back([(Lost { disk, group, extent, slot }, loss)])
    }

    /// Takes at most `limit` out.
    pub(crate) fn take(&self, limit: usize) -> Vec<(Lost, Loss)> {
        let mut all = self.all();
        std::iter::from_fn(|| all.pop_first()).take(limit).collect()
    }

    /// Remembers them again; whether there was room for all.
    pub(crate) fn put_back(&self, lost: impl IntoIterator<Item = (Lost, Loss)>) -> bool {
        let mut all = self.all();
        let mut room = true;
        for (lost, loss) in lost {
            if all.len() < LOST_MAX || all.contains_key(&lost) {
                let known = all.entry(lost).or_insert(loss);
                *known = loss.max(*known);
            } else {
                room = false;
            }
        }
        room
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Lost, Loss>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proto::StripeIndex;

    use super::*;

    fn shard(extent: u128, stripe: u32) -> ShardName {
        ShardName {
            group: GroupId(1),
            extent: ExtentId(extent),
            stripe: StripeIndex(stripe),
            slot: SlotIndex(0),
        }
    }

    /// The same extent is kept once, and the queue is bounded.
    #[test]
    fn is_bounded() {
        let queue = LostQueue::default();
        let push = |extent, stripe| queue.push(DiskId(1), &shard(extent, stripe), Loss::Absent);
        for extent in 0..LOST_MAX as u128 {
            assert!(push(extent, 0) && push(extent, 1));
        }
        assert!(!push(u128::MAX, 0));
        assert_eq!(queue.take(10).len(), 10);
        assert_eq!(queue.take(usize::MAX).len(), LOST_MAX - 10);
    }

    /// An extent with a damaged shard counts as damaged, whatever else is found of it, and in whatever order.
    #[test]
    fn damage_weighs_more() {
        use Loss::{Absent, Damaged};
        for (losses, expected) in
            [([Absent, Damaged], Damaged), ([Damaged, Absent], Damaged), ([Absent, Absent], Absent)]
        {
            let queue = LostQueue::default();
            assert!(losses.into_iter().all(|loss| queue.push(DiskId(1), &shard(1, 0), loss)));
            let taken = queue.take(2);
            assert_eq!(taken.iter().map(|(_, loss)| *loss).collect::<Vec<_>>(), [expected]);
            queue.put_back(taken);
            assert_eq!(queue.take(2).len(), 1);
        }
    }
}
