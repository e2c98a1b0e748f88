//! What lies where: the indexes that the map keeps, so that no question walks all groups or all disks.

use std::collections::{BTreeMap, BTreeSet};

use proto::{DiskId, GroupId, ProfileId};

use crate::group::Group;
use crate::group_set::GroupSet;

/// What lies on one disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskUse {
    /// Slots by profile; sources of moves do not count, they are about to be freed.
    pub(crate) slots: BTreeMap<ProfileId, u32>,
    /// Groups with a slot or a source here.
    pub(crate) groups: BTreeSet<GroupId>,
}

/// Totals of a node over its usable disks: those that are up, in service, and have a size.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeUse {
    /// All its disks, usable or not.
    pub(crate) disks: BTreeSet<DiskId>,
    /// How many of them are usable.
    pub(crate) usable: usize,
    /// The sum of their sizes, in bytes.
    pub(crate) capacity: u128,
    /// Slots on them, by profile.
    pub(crate) slots: BTreeMap<ProfileId, u64>,
}

/// The groups of a profile whose every slot is on a disk that is up and not given up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writable {
    /// As the policy wants them.
    pub(crate) legal: GroupSet,
    /// As the policy wants them, but with a slot that is about to leave its disk.
    pub(crate) leaving: GroupSet,
    /// Below policy.
    pub(crate) below: GroupSet,
}

impl Writable {
    /// Files `group` where it belongs now; `leaves`: a slot of it is to leave its disk.
    pub(crate) fn file(&mut self, group: &Group, writable: bool, leaves: bool) {
        self.legal.remove(group.id);
        self.leaving.remove(group.id);
        self.below.remove(group.id);
        match (writable, group.below_policy) {
            (true, false) if leaves => self.leaving.insert(group.id),
            (true, false) => self.legal.insert(group.id),
            (true, true) => self.below.insert(group.id),
            (false, _) => {}
        }
    }
}

/// Adds one to, or takes one from, a count that is dropped at zero.
pub(crate) fn count<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K, up: bool) {
    let value = counts.get(&key).copied().unwrap_or_default();
    match if up { value.saturating_add(1) } else { value.saturating_sub(1) } {
        0 => drop(counts.remove(&key)),
        value => drop(counts.insert(key, value)),
    }
}
