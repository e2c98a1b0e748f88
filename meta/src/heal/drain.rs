//! Disks that somebody wants empty: their slots go to other disks.
//!
//! Which these are is in the state: the disks of tasks that run. Failed ones come first, and of the slots looked
//! at those whose groups have the least tolerance left. A slot is copied from its disk, which is read and
//! written until the new one is whole; a slot that is still being made on the disk is made there first. Disks that
//! are not up give nothing now: they come back, or they are out and [`replace`](super::replace) has their slots.
//! Only a few slots leave one disk at a time, so that it goes on serving; all disks are left at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use env::{KvRead, StorageError};
use placement::{Group, Health, Slot, SlotState, relocate_except, tolerance};
use proto::{DiskId, GroupId, SlotIndex, wire};
use wire::TaskState;

use super::relieve::leaving;
use super::{Ailing, barred, move_slot};
use crate::state::Machine;

/// Slots of one round that are looked at, over all disks; of one disk so many at least and at most.
const SLOTS_MAX: usize = 2048;
const SLOTS_PER_DISK: RangeInclusive<usize> = 4..=64;
/// Slots of one round for which a place is looked for.
const TRIES_MAX: usize = 64;
/// Slots that leave one disk at a time.
const LEAVING_MAX: usize = 8;

/// Remembers where the last look ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Drainer {
    failed: Cursor,
    draining: Cursor,
}

/// Where on each disk the last look ended from which nothing came.
#[derive(Clone, Debug, Default)]
struct Cursor {
    after: BTreeMap<DiskId, GroupId>,
}

struct Candidate<'a> {
    disk: DiskId,
    group: &'a Group,
    slot: SlotIndex,
    tolerated: (u32, u32, u32),
}

impl Drainer {
    /// At most `room` moves, at most one for a group and none of the groups `taken`.
    pub(super) fn next(
        &mut self,
        machine: &Machine,
        kv: &impl KvRead,
        ailing: &Ailing,
        taken: &BTreeSet<u32>,
        room: usize,
    ) -> Result<Vec<wire::MoveSlot>, StorageError> {
        let running = machine.tasks().active().filter(|task| task.state() == TaskState::Running);
        let disks = running.flat_map(|task| task.disks.iter().copied().map(DiskId));
        let map = machine.map();
        let up = disks.filter(|disk| map.disk_health(*disk) == Health::Up);
        let (failed, draining): (BTreeSet<DiskId>, BTreeSet<DiskId>) =
            up.partition(|disk| map.disk_duty(*disk).is_given_up());
        let mut taken = taken.clone();
        let mut moves = self.failed.next(machine, kv, ailing, &failed, &mut taken, room)?;
        let left = room.saturating_sub(moves.len());
        moves.extend(self.draining.next(machine, kv, ailing, &draining, &mut taken, left)?);
        Ok(moves)
    }
}

impl Cursor {
    fn next(
        &mut self,
        machine: &Machine,
        kv: &impl KvRead,
        ailing: &Ailing,
        disks: &BTreeSet<DiskId>,
        taken: &mut BTreeSet<u32>,
        room: usize,
    ) -> Result<Vec<wire::MoveSlot>, StorageError> {
        self.after.retain(|disk, _| disks.contains(disk));
        let (mut candidates, mut leaves) = (Vec::new(), BTreeMap::new());
        let quota = (SLOTS_MAX / disks.len().max(1)).clamp(*SLOTS_PER_DISK.start(), *SLOTS_PER_DISK.end());
        for disk in disks {
            let under_way = leaving(machine, *disk);
            if under_way < LEAVING_MAX {
                candidates.extend(self.look_at(machine, *disk).take(quota));
                leaves.insert(*disk, under_way);
            }
        }
        let last: BTreeMap<DiskId, GroupId> =
            candidates.iter().map(|candidate| (candidate.disk, candidate.group.id)).collect();
        candidates.sort_by_key(|candidate| (candidate.tolerated, candidate.group.id, candidate.slot));
        let (mut moves, mut tries) = (Vec::new(), 0);
        let mut moved = BTreeSet::new();
        for Candidate { disk, group, slot, .. } in candidates {
            if moves.len() >= room {
                return Ok(moves);
            }
            if tries >= TRIES_MAX {
                break;
            }
            let leaves = leaves.entry(disk).or_default();
            if taken.contains(&group.id.0) || *leaves >= LEAVING_MAX {
                continue;
            }
            tries += 1;
            let barred = barred(kv, ailing, group)?;
            if let Ok(to) = relocate_except(machine.map(), group, slot, &barred) {
                taken.insert(group.id.0);
                moved.insert(disk);
                *leaves += 1;
                moves.push(move_slot(group, to));
            }
        }
        // On to other slots of a disk only when these cannot move now.
        self.after.extend(last.into_iter().filter(|(disk, _)| !moved.contains(disk)));
        Ok(moves)
    }

    /// Slots on the disk behind the last ones, and around.
    fn look_at<'a>(&self, machine: &'a Machine, disk: DiskId) -> impl Iterator<Item = Candidate<'a>> {
        let after = self.after.get(&disk).copied();
        let groups = move || machine.map().groups_on(disk);
        let behind = groups().filter(move |group| after.is_none_or(|after| group.id > after));
        let around = groups().filter(move |group| after.is_some_and(|after| group.id <= after));
        behind.chain(around).filter_map(move |group| candidate(machine, disk, group))
    }
}

fn candidate<'a>(machine: &'a Machine, disk: DiskId, group: &'a Group) -> Option<Candidate<'a>> {
    let map = machine.map();
    let profile = map.profiles().get(&group.profile)?;
    let may_go = |slot: &Slot| slot.disk == disk && slot.state == SlotState::Whole;
    let place = group.slots.iter().position(may_go)?;
    let slot = SlotIndex(u8::try_from(place).ok()?);
    let left = tolerance(map, profile, &group.slots, 0);
    Some(Candidate { disk, group, slot, tolerated: (left.disks, left.nodes, left.racks) })
}
