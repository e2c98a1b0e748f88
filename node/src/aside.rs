//! Shards that could not be made again: how often in a row, and why.
//!
//! One that fails keeps nothing from going on. After [`FAILURES_MAX`] failures people hear of it; it is tried again all
//! the same, with the pauses of the [`board`](crate::board).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::{DiskId, ExtentId, Failure, GroupId, ShardName, SlotIndex, wire};
use tracing::warn;

/// Failures in a row after which a shard is set aside.
pub(crate) const FAILURES_MAX: u32 = 3;
/// Failing shards that are remembered; of others only the next attempt tells.
const FAILING_MAX: usize = 4096;
/// Shards set aside of one disk that are reported by name.
const TOLD_MAX: usize = 16;

/// Shards that fail.
#[derive(Debug, Default)]
pub(crate) struct Aside(Mutex<BTreeMap<(DiskId, ShardName), Failing>>);

#[derive(Debug)]
struct Failing {
    failures: u32,
    reason: String,
}

impl Aside {
    /// The shard could not be made.
    pub(crate) fn failed(&self, disk: DiskId, shard: ShardName, failure: &Failure) {
        let mut all = self.all();
        if all.len() >= FAILING_MAX && !all.contains_key(&(disk, shard)) {
            return;
        }
        let failing = all.entry((disk, shard)).or_insert(Failing { failures: 0, reason: String::new() });
        failing.failures = failing.failures.saturating_add(1);
        failing.reason = failure.to_string();
        if failing.failures == FAILURES_MAX {
            warn!(%disk, %shard, error = failing.reason, "shard is set aside: it cannot be made again for now");
        }
    }

    /// The shard is whole.
    pub(crate) fn made(&self, disk: DiskId, shard: &ShardName) {
        self.all().remove(&(disk, *shard));
    }

    /// Nothing of the extent, or of the whole slot, has to be made on the disk any more.
    pub(crate) fn forget(&self, disk: DiskId, group: GroupId, slot: SlotIndex, extent: Option<ExtentId>) {
        let is_other = |shard: &ShardName| {
            shard.group != group || shard.slot != slot || extent.is_some_and(|extent| shard.extent != extent)
        };
        self.all().retain(|(on, shard), _| *on != disk || is_other(shard));
    }

    /// Forgets what nobody wants to be made any more.
    pub(crate) fn retain(&self, is_wanted: impl Fn(DiskId, &ShardName) -> bool) {
        self.all().retain(|(disk, shard), _| is_wanted(*disk, shard));
    }

    /// What is set aside of a disk: the first of them, and how many there are.
    pub(crate) fn report(&self, disk: DiskId) -> (Vec<wire::SetAside>, u32) {
        let all = self.all();
        let aside = all.iter().filter(|((on, _), failing)| *on == disk && failing.failures >= FAILURES_MAX);
        let told = aside.clone().take(TOLD_MAX).map(|((_, shard), failing)| wire::SetAside {
            shard: Some((*shard).into()),
            failures: failing.failures,
            reason: failing.reason.clone(),
        });
        (told.collect(), u32::try_from(aside.count()).unwrap_or(u32::MAX))
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<(DiskId, ShardName), Failing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proto::{ErrorCode, StripeIndex};

    use super::*;

    fn shard(extent: u128, slot: u8) -> ShardName {
        let (stripe, slot) = (StripeIndex(0), SlotIndex(slot));
        ShardName { group: GroupId(1), extent: ExtentId(extent), stripe, slot }
    }

    /// A shard is told of from its third failure in a row on, with the last reason, until it is made or nobody
    /// needs it.
    #[test]
    fn three_failures_set_aside() {
        let (aside, disk) = (Aside::default(), DiskId(1));
        let fail = |shard, text: &str| aside.failed(disk, shard, &Failure::new(ErrorCode::Unavailable, text));
        for text in ["a", "b"] {
            fail(shard(1, 0), text);
        }
        assert_eq!(aside.report(disk).1, 0);
        fail(shard(1, 0), "c");
        let (told, total) = aside.report(disk);
        assert_eq!((told[0].failures, told[0].reason.as_str(), total), (3, "c (unavailable)", 1));
        assert_eq!(aside.report(DiskId(2)).1, 0);
        aside.made(disk, &shard(1, 0));
        assert_eq!(aside.report(disk).1, 0);
        for _ in 0..3 {
            [shard(1, 0), shard(2, 0), shard(3, 1)].into_iter().for_each(|shard| fail(shard, "x"));
        }
        aside.forget(disk, GroupId(1), SlotIndex(0), Some(ExtentId(2)));
        assert_eq!(aside.report(disk).1, 2);
        aside.forget(disk, GroupId(1), SlotIndex(0), None);
        assert_eq!(aside.report(disk).1, 1);
    }

    /// However many fail, memory and reports have a bound.
    #[test]
    fn is_bounded() {
        let (aside, disk) = (Aside::default(), DiskId(1));
        for extent in 0..5_000 {
            for _ in 0..3 {
                aside.failed(disk, shard(extent, 0), &Failure::new(ErrorCode::Unavailable, "x"));
            }
        }
        let (told, total) = aside.report(disk);
        assert_eq!((told.len(), total), (TOLD_MAX, 4096));
    }
}
