//! What an operator asks first. Every number is read from the records that the work itself commits to.

use std::collections::BTreeSet;

use env::{KvRead, Order, StorageError};
use placement::{Group, Profile, SlotState, Tolerance, tolerance};
use proto::wire;

use crate::state::error::Error;
use crate::state::{Machine, tables as t};

/// Incomplete extents of one group that are looked at; of a group with more, a slot that any of them misses counts as
/// lost for all.
const INCOMPLETE_MAX: usize = 4096;

/// The part of a status that the state alone can tell.
///
/// Left to the caller: leader, term, applied index, members, when nodes were heard, and the latest report
/// of each disk (`report` has the disk's id only).
///
/// Visits all groups: for people, not for a loop.
///
/// # Errors
///
/// Those of the store.
pub fn get_status(machine: &Machine, kv: &impl KvRead) -> Result<wire::GetStatusReply, Error> {
    let (map, totals) = (machine.map(), machine.totals());
    let nodes =
        map.nodes().values().map(|node| wire::NodeStatus { node: Some(node.into()), heard_ms_ago: None });
    let disks = map.disks().values().map(|disk| wire::DiskStatus {
        disk: Some(disk.into()),
        report: Some(wire::DiskReport { disk: disk.id.0, ..Default::default() }),
        slots: u32::try_from(map.slots_on(disk.id)).unwrap_or(u32::MAX),
    });
    let left = Redundancy::of(machine, kv)?;
    Ok(wire::GetStatusReply {
        cluster_id: totals.cluster_id.clone(),
        map_version: map.version(),
        nodes: nodes.collect(),
        disks: disks.collect(),
        tenants: count(machine.tenants.len()),
        buckets: count(machine.buckets.len()),
        objects: totals.objects,
        object_bytes: totals.object_bytes,
        groups: count(map.groups().len()),
        groups_below_policy: count(machine.work().below_policy().len()),
        slots_rebuilding: count(machine.work().rebuilding()),
        extents_incomplete: totals.extents_incomplete,
        slots_missing: totals.slots_missing,
        garbage_extents: totals.garbage_extents,
        extents: totals.extents,
        groups_by_disks_tolerated: left.groups,
        groups_unreadable: left.groups_unreadable,
        bytes_by_disks_tolerated: left.bytes,
        bytes_unreadable: left.bytes_unreadable,
        bytes_rebuilding: bytes_rebuilding(machine),
        cluster_time_ms: totals.cluster_time_ms,
        ..Default::default()
    })
}

/// What may be lost, with the health of now.
#[derive(Default)]
struct Redundancy {
    /// Groups that may lose 0, 1, 2, … more disks; one that cannot be read now counts at 0.
    groups: Vec<u64>,
    groups_unreadable: u64,
    /// Bytes of objects in those that can be read.
    bytes: Vec<u64>,
    bytes_unreadable: u64,
}

impl Redundancy {
    fn of(machine: &Machine, kv: &impl KvRead) -> Result<Self, StorageError> {
        let mut all = Self::default();
        for group in machine.map().groups().values() {
            let Some(profile) = machine.map().profiles().get(&group.profile) else { continue };
            let left = left_of(machine, kv, profile, group)?;
            all.add(left, machine.group_bytes(group.id));
        }
        Ok(all)
    }

    fn add(&mut self, left: Tolerance, bytes: u64) {
        let disks = usize::try_from(left.disks).unwrap_or_default();
        for counts in [&mut self.groups, &mut self.bytes] {
            counts.resize(counts.len().max(disks.saturating_add(1)), 0);
        }
        if let Some(groups) = self.groups.get_mut(disks) {
            *groups += 1;
        }
        if !left.readable {
            self.groups_unreadable += 1;
            self.bytes_unreadable = self.bytes_unreadable.saturating_add(bytes);
        } else if let Some(sum) = self.bytes.get_mut(disks) {
            *sum = sum.saturating_add(bytes);
        }
    }
}

/// What the extent of the group withstands that withstands least.
fn left_of(
    machine: &Machine,
    kv: &impl KvRead,
    profile: &Profile,
    group: &Group,
) -> Result<Tolerance, StorageError> {
    let of = |missing: u32| tolerance(machine.map(), profile, &group.slots, missing);
    let misses = |(_, slot): &(u32, &placement::Slot)| machine.work().misses(slot.disk, group.id);
    let missed = (0u32..).zip(&group.slots).filter(misses);
    let any = missed.fold(0u32, |mask, (place, _)| mask | 1u32.checked_shl(place).unwrap_or_default());
    if any.count_ones() <= 1 {
        return Ok(of(any));
    }
    let rows = kv.scan(t::INCOMPLETE, &t::rows_of(group.id.0), Order::Ascending, INCOMPLETE_MAX + 1)?;
    if rows.len() > INCOMPLETE_MAX {
        return Ok(of(any));
    }
    let masks = rows.iter().map(|(_, value)| t::mask_of(value)).collect::<Result<BTreeSet<u32>, _>>()?;
    Ok(masks.into_iter().map(of).fold(of(0), Tolerance::min_of))
}

fn bytes_rebuilding(machine: &Machine) -> u64 {
    let slots = |group: &&Group| group.slots.iter().filter(|slot| slot.state != SlotState::Whole).count();
    let groups = machine.map().groups().values();
    let bytes = groups.map(|group| machine.slot_bytes(group.id).saturating_mul(count(slots(&group))));
    bytes.fold(0, u64::saturating_add)
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
