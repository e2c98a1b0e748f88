//! Moving a slot to another disk, and what its former disks keep until the new one is whole.

use std::collections::BTreeSet;

use env::{KvRead, StorageError};
use placement::{ClusterMap, Group, Health, Slot, SlotState, apply_move, to_placement};
use proto::{Detail, DiskId, Epoch, ErrorCode, Failure, GroupId, SlotIndex, wire};
use wire::outcome::Outcome as Answer;

use crate::state::error::{Error, broken, invalid};
use crate::state::query::wrong_map;
use crate::state::tx::row;
use crate::state::{Machine, Tx, tables as t};

impl Machine {
    pub(super) fn move_slot<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        to: wire::MoveSlot,
    ) -> Result<Answer, Error> {
        let slot = wire::slot_index(to.slot)?;
        let group = GroupId(to.group);
        let before = self.map.groups().get(&group);
        let before = before.ok_or_else(|| invalid(format!("there is no group {group}")))?.clone();
        if before.epoch != Epoch(to.epoch) {
            let sentence =
                format!("group {group} is in epoch {}, not {}: look at it again", before.epoch, to.epoch);
            let failure = Failure::new(ErrorCode::StaleEpoch, sentence);
            return Err(failure.with(Detail::Epoch(before.epoch)).into());
        }
        let target = DiskId(to.to_disk);
        let leftovers = leftovers(tx, group)?;
        if leftovers.slots.iter().any(|left| left.disk == target.0) {
            let sentence = format!(
                "disk {target} still has to drop what it kept of group {group}: choose another disk, or wait"
            );
            return Err(invalid(sentence));
        }
        let mut after = apply_move(&self.map, &before, slot, target)?;
        let place = usize::from(slot.0);
        if let (Some(was), Some(is)) = (before.slots.get(place), after.slots.get_mut(place)) {
            is.task = self.task_of_move(was, target, to.task);
        }
        let abandoned = abandoned(&before, &after, slot);
        self.put_group(tx, after).map_err(broken)?;
        self.abandon(tx, group, slot, &abandoned)?;
        self.map_changed();
        Ok(Answer::Done(true))
    }

    /// Adds what these disks keep of the slot to the garbage. It is not given out for dropping while the
    /// slot is rebuilding: until then a disk that comes back may be the last to have a shard.
    pub(super) fn abandon<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        group: GroupId,
        slot: SlotIndex,
        disks: &[DiskId],
    ) -> Result<(), StorageError> {
        let mut row = leftovers(tx, group)?;
        let before = row.slots.clone();
        for disk in disks {
            let left = wire::GarbageSlot { slot: u32::from(slot.0), disk: disk.0 };
            if !row.slots.contains(&left) {
                row.slots.push(left);
            }
        }
        if row.slots.len() == before.len() {
            return Ok(());
        }
        if before.is_empty() {
            row.deleted_ms = tx.now.as_millis();
            self.totals.garbage_extents = self.totals.garbage_extents.saturating_add(1);
        }
        self.work.garbage(group, &before, &row.slots);
        tx.put(t::GARBAGE, t::extent_key(group, t::WHOLE_SLOT), &row);
        Ok(())
    }
}

/// What disks keep of slots that moved away from them.
fn leftovers<K: KvRead>(tx: &Tx<'_, K>, group: GroupId) -> Result<wire::GarbageRow, StorageError> {
    Ok(tx.row(t::GARBAGE, &t::extent_key(group, t::WHOLE_SLOT))?.unwrap_or_default())
}

/// Disks that still keep what the group has left there: they get no slot of it before that is dropped.
pub(crate) fn leftover_disks(kv: &impl KvRead, group: GroupId) -> Result<BTreeSet<DiskId>, StorageError> {
    let found: Option<wire::GarbageRow> = row(kv, t::GARBAGE, &t::extent_key(group, t::WHOLE_SLOT))?;
    Ok(found.into_iter().flat_map(|row| row.slots).map(|slot| DiskId(slot.disk)).collect())
}

/// Where the group lies, for those who look for shards: slots that are being made name the disks, too, that had
/// them before and have not dropped what they kept, as far as these are not down.
pub(crate) fn to_placement_with_kept(
    map: &ClusterMap,
    kv: &impl KvRead,
    group: &Group,
) -> Result<wire::Placement, Error> {
    let mut placement = to_placement(map, group).map_err(wrong_map)?;
    if group.slots.iter().all(|slot| slot.state == SlotState::Whole) {
        return Ok(placement);
    }
    let found: Option<wire::GarbageRow> = row(kv, t::GARBAGE, &t::extent_key(group.id, t::WHOLE_SLOT))?;
    // The last one to go there has the most.
    for left in found.into_iter().flat_map(|row| row.slots).rev() {
        let rebuilding = wire::SlotState::Rebuilding.into();
        let place = usize::try_from(left.slot).ok().and_then(|slot| placement.places.get_mut(slot));
        let Some(place) = place.filter(|place| place.state == rebuilding) else { continue };
        let disk = DiskId(left.disk);
        let node = map.disks().get(&disk).and_then(|disk| map.nodes().get(&disk.node));
        if map.disk_health(disk) != Health::Down
            && let Some(node) = node
        {
            let address = node.address.clone();
            place.kept.push(wire::KeptAt { disk: left.disk, node: node.id.0, address });
        }
    }
    Ok(placement)
}

/// Disks that had something of the slot and have no part in it any more.
fn abandoned(before: &Group, after: &Group, slot: SlotIndex) -> Vec<DiskId> {
    let disks = |group: &Group| -> Vec<DiskId> {
        let slot = group.slots.get(usize::from(slot.0));
        slot.into_iter().flat_map(|slot: &Slot| std::iter::once(slot.disk).chain(slot.source())).collect()
    };
    let kept = disks(after);
    disks(before).into_iter().filter(|disk| !kept.contains(disk)).collect()
}
