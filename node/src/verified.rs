//! When each group was last read whole on each disk.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::{DiskId, GroupId, Timestamp};

/// Groups that an audit has read and compared, with the cluster time before the reading. Of this process alone: after
/// a restart nothing is known until it is read again.
#[derive(Debug, Default)]
pub(crate) struct Verified(Mutex<BTreeMap<(DiskId, GroupId), Timestamp>>);

/// What is known of one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Every group was read after this; zero while one was not.
    pub(crate) since: Timestamp,
    /// Groups that were not read.
    pub(crate) unverified: usize,
}

impl Verified {
    /// All that the disk has of the group was read, or is reported, since `began`.
    pub(crate) fn note(&self, disk: DiskId, group: GroupId, began: Timestamp) {
        self.all().insert((disk, group), began);
    }

    /// When the group was read last on the disk; zero for never.
    pub(crate) fn last(&self, disk: DiskId, group: GroupId) -> Timestamp {
        self.all().get(&(disk, group)).copied().unwrap_or(Timestamp::ZERO)
    }

    /// What is known of a disk with slots of these groups. Others that it had before are forgotten.
    pub(crate) fn of(&self, disk: DiskId, groups: &[GroupId]) -> Known {
        let mut all = self.all();
        all.retain(|(on, group), _| *on != disk || groups.binary_search(group).is_ok());
        let times: Vec<Timestamp> =
            groups.iter().filter_map(|group| all.get(&(disk, *group)).copied()).collect();
        let unverified = groups.len().saturating_sub(times.len());
        let earliest = times.into_iter().min().filter(|_| unverified == 0);
        Known { since: earliest.unwrap_or(Timestamp::ZERO), unverified }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<(DiskId, GroupId), Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk is known since its group that was read longest ago; one that was not read makes it unknown, and one
    /// that has moved away does not count.
    #[test]
    fn the_oldest_counts() {
        let (verified, disk) = (Verified::default(), DiskId(1));
        let (at, groups) = (Timestamp::from_millis, [GroupId(1), GroupId(2)]);
        verified.note(disk, GroupId(1), at(5));
        verified.note(DiskId(2), GroupId(2), at(1));
        assert_eq!(verified.of(disk, &groups), Known { since: Timestamp::ZERO, unverified: 1 });
        verified.note(disk, GroupId(2), at(9));
        verified.note(disk, GroupId(3), at(2));
        assert_eq!(verified.of(disk, &groups), Known { since: at(5), unverified: 0 });
        assert_eq!(verified.last(disk, GroupId(3)), Timestamp::ZERO);
        verified.note(disk, GroupId(1), at(20));
        assert_eq!(verified.of(disk, &groups).since, at(9));
        assert_eq!(verified.of(disk, &[]), Known { since: Timestamp::ZERO, unverified: 0 });
    }
}
