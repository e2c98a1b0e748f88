//! What an operator asks first. Every number is read from the records that the work itself commits to.

use placement::tolerance;
use proto::wire;

use crate::state::Machine;

/// The part of a status that the state alone can tell.
///
/// Left to the caller: leader, term, applied index, members, when nodes were heard, and the latest report
/// of each disk (`report` has the disk's id only).
///
/// Visits all groups: for people, not for a loop.
pub fn get_status(machine: &Machine) -> wire::GetStatusReply {
    let (map, totals) = (machine.map(), machine.totals());
    let nodes =
        map.nodes().values().map(|node| wire::NodeStatus { node: Some(node.into()), heard_ms_ago: None });
    let disks = map.disks().values().map(|disk| wire::DiskStatus {
        disk: Some(disk.into()),
        report: Some(wire::DiskReport { disk: disk.id.0, ..Default::default() }),
        slots: u32::try_from(map.slots_on(disk.id)).unwrap_or(u32::MAX),
    });
    wire::GetStatusReply {
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
        groups_by_disks_tolerated: by_disks_tolerated(machine),
        ..Default::default()
    }
}

/// How many groups may lose 0, 1, 2, … more disks. A group that cannot be read now counts at 0.
fn by_disks_tolerated(machine: &Machine) -> Vec<u64> {
    let map = machine.map();
    let mut groups = Vec::new();
    for group in map.groups().values() {
        let Some(profile) = map.profiles().get(&group.profile) else { continue };
        let disks = usize::try_from(tolerance(map, profile, &group.slots, 0).disks).unwrap_or_default();
        if groups.len() <= disks {
            groups.resize(disks.saturating_add(1), 0u64);
        }
        if let Some(count) = groups.get_mut(disks) {
            *count += 1;
        }
    }
    groups
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
