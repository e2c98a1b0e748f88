//! Disks that stay away: their slots go to other disks.
//!
//! A slot whose disk is gone is made again from the others, so it moves only while that can succeed: while
//! every extent of the group, if it has any, has `k` shards in reach. Of a group with less, the disks that are away may
//! hold the last shards; the slot waits for them and stays what it was.
//!
//! What an abandoned disk keeps is in the garbage table. It drops that once it is back and the slot is
//! whole elsewhere; a disk that never returns keeps its row, which is in nobody's way: only that disk gets
//! no slot of the group meanwhile.

use std::collections::BTreeSet;

use env::{KvRead, StorageError};
use placement::{Group, Health, Slot, relocate_except, tolerance};
use proto::{DiskId, GroupId, SlotIndex, wire};

use super::{Ailing, barred};
use crate::state::Machine;
use crate::state::take::can_be_made;

/// Slots that one round looks at.
const SLOTS_MAX: usize = 1024;

/// Remembers where the last look ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Replacer {
    after: Option<(DiskId, GroupId)>,
}

/// A slot that may go, and how many domains of each kind its group can still lose.
struct Candidate<'a> {
    group: &'a Group,
    slot: SlotIndex,
    tolerated: (u32, u32, u32),
}

impl Replacer {
    /// At most `room` moves off the disks that are out, at most one for a group; of the slots looked at, those
    /// whose groups have the least tolerance left come first. The next look goes on behind these slots
    /// once nothing more of them can move.
    pub(super) fn next(
        &mut self,
        machine: &Machine,
        kv: &impl KvRead,
        ailing: &Ailing,
        room: usize,
    ) -> Result<Vec<wire::MoveSlot>, StorageError> {
        let out = &ailing.out;
        let mut moves: Vec<wire::MoveSlot> = Vec::new();
        let pairs = self.look_at(machine, out);
        let mut candidates: Vec<Candidate<'_>> = Vec::new();
        for (disk, group) in &pairs {
            candidates.extend(candidate(machine, kv, out, *disk, *group)?);
        }
        candidates.sort_by_key(|candidate| (candidate.tolerated, candidate.group.id, candidate.slot));
        for Candidate { group, slot, .. } in candidates {
            if moves.len() >= room {
                return Ok(moves);
            }
            // A second move would name an epoch that the first has ended.
            if moves.iter().all(|to| to.group != group.id.0) {
                moves.extend(replacement(machine, kv, ailing, group, slot)?);
            }
        }
        self.after = pairs.last().copied();
        Ok(moves)
    }

    /// Disks that are out, with their groups, behind the last ones and around.
    fn look_at(&self, machine: &Machine, out: &BTreeSet<DiskId>) -> Vec<(DiskId, GroupId)> {
        let pairs = || {
            let of_disk = |disk: &DiskId| {
                let disk = *disk;
                machine.map().groups_on(disk).map(move |group| (disk, group.id))
            };
            out.iter().flat_map(of_disk)
        };
        let behind = pairs().filter(|pair| self.after.is_none_or(|after| *pair > after));
        let around = pairs().filter(|pair| self.after.is_some_and(|after| *pair <= after));
        behind.chain(around).take(SLOTS_MAX).collect()
    }
}

fn candidate<'a>(
    machine: &'a Machine,
    kv: &impl KvRead,
    out: &BTreeSet<DiskId>,
    disk: DiskId,
    group: GroupId,
) -> Result<Option<Candidate<'a>>, StorageError> {
    let map = machine.map();
    let Some(group) = map.groups().get(&group) else { return Ok(None) };
    let Some(profile) = map.profiles().get(&group.profile) else { return Ok(None) };
    let place = group.slots.iter().position(|slot| slot.disk == disk);
    let Some(slot) = place.and_then(|place| u8::try_from(place).ok()).map(SlotIndex) else { return Ok(None) };
    let may_go = match group.slot(slot).ok().and_then(Slot::source) {
        // Back to where the older shards are.
        Some(source) if map.disk_health(source) != Health::Down => true,
        // Has them too, and may be back soon.
        Some(source) if !out.contains(&source) => false,
        _ => can_be_made(machine, kv, group)?,
    };
    let left = tolerance(map, profile, &group.slots, 0);
    Ok(may_go.then_some(Candidate { group, slot, tolerated: (left.disks, left.nodes, left.racks) }))
}

fn replacement(
    machine: &Machine,
    kv: &impl KvRead,
    ailing: &Ailing,
    group: &Group,
    slot: SlotIndex,
) -> Result<Option<wire::MoveSlot>, StorageError> {
    let barred = barred(kv, ailing, group)?;
    Ok(relocate_except(machine.map(), group, slot, &barred).ok().map(|to| super::move_slot(group, to)))
}
