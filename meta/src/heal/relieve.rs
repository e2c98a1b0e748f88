//! Disks without room for what they should make again: slots of theirs go to other disks.
//!
//! A slot that misses shards which its disk has no room for would miss them for ever. It moves to a disk with
//! room: what it has is copied, what it misses is made there, and then the full disk drops what it kept,
//! which makes room for the others. So only a few slots leave a disk at a time. Where no other disk may take
//! the slot it stays, and its node tries on.
//!
//! A slot that is still being made on the disk stays as well: other disks have, or are, what it is made from, and
//! what was written since lies on this disk alone. A node whose disk has no room to make the rest of a slot
//! without a source says what is left out, and with that the slot counts as made and may go.

use std::collections::BTreeSet;

use env::{KvRead, StorageError};
use placement::{Health, SlotState, relocate_except};
use proto::{DiskId, GroupId, SlotIndex, wire};
use tracing::info;

use super::{Ailing, barred, move_slot};
use crate::state::Machine;

/// Slots of one round that are looked at.
const SLOTS_MAX: usize = 64;
/// Slots that leave one disk at a time.
const LEAVING_MAX: usize = 4;

/// Remembers where the last look ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Reliever {
    after: Option<(DiskId, GroupId)>,
}

impl Reliever {
    /// At most `room` moves off disks without room, at most one for a group and none of the groups `taken`.
    pub(super) fn next(
        &mut self,
        machine: &Machine,
        kv: &impl KvRead,
        ailing: &Ailing,
        taken: &BTreeSet<u32>,
        room: usize,
    ) -> Result<Vec<wire::MoveSlot>, StorageError> {
        let mut moves: Vec<(DiskId, wire::MoveSlot)> = Vec::new();
        for pair @ (disk, group) in self.look_at(ailing) {
            if moves.len() >= room {
                break;
            }
            self.after = Some(pair);
            let leaves = moves.iter().filter(|(from, _)| *from == disk).count();
            let is_taken = taken.contains(&group.0) || moves.iter().any(|(_, other)| other.group == group.0);
            if !is_taken && leaves + leaving(machine, disk) < LEAVING_MAX {
                moves.extend(relief(machine, kv, ailing, disk, group)?.map(|to| (disk, to)));
            }
        }
        Ok(moves.into_iter().map(|(_, to)| to).collect())
    }

    /// Slots without room behind the last one, and around.
    fn look_at(&self, ailing: &Ailing) -> Vec<(DiskId, GroupId)> {
        let pairs = || ailing.without_room.iter().copied();
        let behind = pairs().filter(|pair| self.after.is_none_or(|after| *pair > after));
        let around = pairs().filter(|pair| self.after.is_some_and(|after| *pair <= after));
        behind.chain(around).take(SLOTS_MAX).collect()
    }
}

/// Slots that are on their way from the disk to others.
pub(super) fn leaving(machine: &Machine, disk: DiskId) -> usize {
    let groups = machine.map().groups_on(disk);
    groups.filter(|group| group.slots.iter().any(|slot| slot.source() == Some(disk))).count()
}

fn relief(
    machine: &Machine,
    kv: &impl KvRead,
    ailing: &Ailing,
    disk: DiskId,
    group: GroupId,
) -> Result<Option<wire::MoveSlot>, StorageError> {
    let map = machine.map();
    // The report may be older than the map; and off a disk that is down nothing can be copied.
    if !machine.work().misses(disk, group) || map.disk_health(disk) != Health::Up {
        return Ok(None);
    }
    let Some(group) = map.groups().get(&group) else { return Ok(None) };
    let whole = |slot: &placement::Slot| slot.disk == disk && slot.state == SlotState::Whole;
    let place = group.slots.iter().position(whole).and_then(|place| u8::try_from(place).ok());
    let Some(slot) = place.map(SlotIndex) else { return Ok(None) };
    let barred = barred(kv, ailing, group)?;
    let Ok(to) = relocate_except(map, group, slot, &barred) else { return Ok(None) };
    info!(group = %group.id, %slot, %disk, to = %to.to, "slot leaves a disk without room for its repair");
    Ok(Some(move_slot(group, to)))
}
