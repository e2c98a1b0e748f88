//! Disks that somebody wants empty: their slots go to other disks.
//!
//! Which these are is in the state: the disks of tasks that run. Failed ones come first, and of the slots looked
//! at those whose groups have the least tolerance left. A slot is copied from its disk, which is read and
//! written until the new one is whole; a slot that is still being made on the disk is made there first. Disks that
//! are not up give nothing now: they come back, or they are out and [`replace`](super::replace) has their slots.
//! Only a few slots leave one disk at a time, so that it goes on serving.

use std::collections::BTreeSet;

use env::{KvRead, StorageError};
use placement::{Group, Health, Slot, SlotState, relocate_except, tolerance};
use proto::{DiskId, GroupId, SlotIndex, wire};
use wire::TaskState;

use super::relieve::leaving;
use super::{Ailing, barred, move_slot};
use crate::state::Machine;

/// Slots of one round that are looked at, and for which a place is looked for.
const SLOTS_MAX: usize = 512;
const TRIES_MAX: usize = 64;
/// Slots that leave one disk at a time.
const LEAVING_MAX: usize = 8;

/// Remembers where the last look ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Drainer {
    failed: Cursor,
    draining: Cursor,
}

#[derive(Clone, Debug, Default)]
struct Cursor {
    after: Option<(DiskId, GroupId)>,
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
        let mut moves: Vec<(DiskId, wire::MoveSlot)> = Vec::new();
        let pairs = self.look_at(machine, disks);
        let candidates = pairs.iter().filter_map(|(disk, group)| candidate(machine, *disk, *group));
        let mut candidates: Vec<Candidate<'_>> = candidates.collect();
        candidates.sort_by_key(|candidate| (candidate.tolerated, candidate.group.id, candidate.slot));
        let mut tries = 0;
        for Candidate { disk, group, slot, .. } in candidates {
            if moves.len() >= room || tries >= TRIES_MAX {
                break;
            }
            let leaves = moves.iter().filter(|(from, _)| *from == disk).count();
            if taken.contains(&group.id.0) || leaves + leaving(machine, disk) >= LEAVING_MAX {
                continue;
            }
            tries += 1;
            let barred = barred(kv, ailing, group)?;
            if let Ok(to) = relocate_except(machine.map(), group, slot, &barred) {
                taken.insert(group.id.0);
                moves.push((disk, move_slot(group, to)));
            }
        }
        // On to the others only when these cannot move now.
        if moves.is_empty() && room > 0 {
            self.after = pairs.last().copied();
        }
        Ok(moves.into_iter().map(|(_, to)| to).collect())
    }

    /// Slots on the disks behind the last ones, and around.
    fn look_at(&self, machine: &Machine, disks: &BTreeSet<DiskId>) -> Vec<(DiskId, GroupId)> {
        let pairs = || {
            let of_disk = |disk: &DiskId| {
                let disk = *disk;
                machine.map().groups_on(disk).map(move |group| (disk, group.id))
            };
            disks.iter().flat_map(of_disk)
        };
        let behind = pairs().filter(|pair| self.after.is_none_or(|after| *pair > after));
        let around = pairs().filter(|pair| self.after.is_some_and(|after| *pair <= after));
        behind.chain(around).take(SLOTS_MAX).collect()
    }
}

fn candidate(machine: &Machine, disk: DiskId, group: GroupId) -> Option<Candidate<'_>> {
    let map = machine.map();
    let group = map.groups().get(&group)?;
    let profile = map.profiles().get(&group.profile)?;
    let may_go = |slot: &Slot| slot.disk == disk && slot.state == SlotState::Whole;
    let place = group.slots.iter().position(may_go)?;
    let slot = SlotIndex(u8::try_from(place).ok()?);
    let left = tolerance(map, profile, &group.slots, 0);
    Some(Candidate { disk, group, slot, tolerated: (left.disks, left.nodes, left.racks) })
}
