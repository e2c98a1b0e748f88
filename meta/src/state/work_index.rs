//! Which disk has something to do, kept in memory so that no heartbeat walks a table.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use placement::{Group, SlotState};
use proto::{DiskId, GroupId, TaskId, wire};

type Counts = BTreeMap<(DiskId, GroupId), u64>;

/// Counts by disk and group. A group has each disk in one slot at most, so that a pair also names a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WorkIndex {
    /// Entries of garbage rows.
    drops: Counts,
    /// Extents that miss the slot on this disk.
    fills: Counts,
    /// Slots that are rebuilding.
    rebuilds: BTreeSet<(DiskId, GroupId)>,
    below_policy: BTreeSet<GroupId>,
    /// Slots that are rebuilding on a disk because a task moved them there.
    moving: BTreeMap<(TaskId, DiskId), u64>,
}

impl WorkIndex {
    /// A group is new, or is `after` what it was `before`.
    pub(crate) fn put_group(&mut self, before: Option<&Group>, after: &Group) {
        let id = after.id;
        let old = before.map_or(&[][..], |group| &group.slots);
        for slot in old {
            self.rebuilds.remove(&(slot.disk, id));
            slot.task.into_iter().for_each(|task| count(&mut self.moving, (task, slot.disk), false));
        }
        for slot in after.slots.iter().filter(|slot| slot.state != SlotState::Whole) {
            self.rebuilds.insert((slot.disk, id));
        }
        for slot in &after.slots {
            slot.task.into_iter().for_each(|task| count(&mut self.moving, (task, slot.disk), true));
        }
        // What a slot misses goes with it; first all out, then all in, should slots trade disks.
        let missed: Vec<Option<u64>> = old.iter().map(|slot| self.fills.remove(&(slot.disk, id))).collect();
        for (slot, missed) in after.slots.iter().zip(missed) {
            if let Some(missed) = missed {
                self.fills.insert((slot.disk, id), missed);
            }
        }
        if after.below_policy {
            self.below_policy.insert(id);
        } else {
            self.below_policy.remove(&id);
        }
    }

    /// The mask of one of the group's extents changes.
    pub(crate) fn missing(&mut self, group: &Group, before: u32, after: u32) {
        for (bit, slot) in (0u32..).zip(&group.slots) {
            let is_set = |mask: u32| mask.checked_shr(bit).is_some_and(|bits| bits & 1 == 1);
            match (is_set(before), is_set(after)) {
                (false, true) => count(&mut self.fills, (slot.disk, group.id), true),
                (true, false) => count(&mut self.fills, (slot.disk, group.id), false),
                _ => {}
            }
        }
    }

    /// The entries of one of the group's garbage rows change.
    pub(crate) fn garbage(
        &mut self,
        group: GroupId,
        before: &[wire::GarbageSlot],
        after: &[wire::GarbageSlot],
    ) {
        before.iter().for_each(|slot| count(&mut self.drops, (DiskId(slot.disk), group), false));
        after.iter().for_each(|slot| count(&mut self.drops, (DiskId(slot.disk), group), true));
    }

    /// Is there anything for the disk?
    pub(crate) fn has_any(&self, disk: DiskId) -> bool {
        self.drops.range(pairs(disk)).next().is_some()
            || self.fills.range(pairs(disk)).next().is_some()
            || self.rebuilds.range(pairs(disk)).next().is_some()
    }

    /// Groups with garbage on the disk, and how many entries.
    pub(crate) fn drops(&self, disk: DiskId) -> impl Iterator<Item = (GroupId, u64)> {
        self.drops.range(pairs(disk)).map(|((_, group), count)| (*group, *count))
    }

    /// Groups with extents that miss the disk's slot, and how many.
    pub(crate) fn fills(&self, disk: DiskId) -> impl Iterator<Item = (GroupId, u64)> {
        self.fills.range(pairs(disk)).map(|((_, group), count)| (*group, *count))
    }

    /// Groups whose slot on the disk is rebuilding.
    pub(crate) fn rebuilds(&self, disk: DiskId) -> impl Iterator<Item = GroupId> {
        self.rebuilds.range(pairs(disk)).map(|(_, group)| *group)
    }

    /// Does any extent of the group miss the slot on the disk?
    pub(crate) fn misses(&self, disk: DiskId, group: GroupId) -> bool {
        self.fills.contains_key(&(disk, group))
    }

    /// How many slots are rebuilding.
    pub(crate) fn rebuilding(&self) -> usize {
        self.rebuilds.len()
    }

    /// How many slots are rebuilding because the task moved them.
    pub(crate) fn moving(&self, task: TaskId) -> u64 {
        self.moving_to(task).map(|(_, slots)| slots).sum()
    }

    /// The disks that slots of the task are rebuilding on, and how many.
    pub(crate) fn moving_to(&self, task: TaskId) -> impl Iterator<Item = (DiskId, u64)> {
        let disks = (task, DiskId(0))..=(task, DiskId(u32::MAX));
        self.moving.range(disks).map(|((_, disk), slots)| (*disk, *slots))
    }

    /// The groups below policy.
    pub(crate) fn below_policy(&self) -> &BTreeSet<GroupId> {
        &self.below_policy
    }
}

fn pairs(disk: DiskId) -> RangeInclusive<(DiskId, GroupId)> {
    (disk, GroupId(0))..=(disk, GroupId(u32::MAX))
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, pair: K, up: bool) {
    let before = counts.get(&pair).copied().unwrap_or_default();
    match if up { before.saturating_add(1) } else { before.saturating_sub(1) } {
        0 => drop(counts.remove(&pair)),
        after => drop(counts.insert(pair, after)),
    }
}
