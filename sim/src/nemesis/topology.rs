//! Can the slots of lost disks find legal places, and will anybody look for them?

use std::collections::BTreeSet;

use placement::{
    ClusterMap, Duty, Group, Health, Legalize, SlotState, apply_move, create_groups, legalize, relocate,
    slot_rebuilt,
};
use proto::{DiskId, GroupId, SlotIndex};

/// No group has this id.
const NEW_GROUP: GroupId = GroupId(u32::MAX - 1);

/// Does the metadata service take so many lost disks in use, besides `up` others, for an outage, and
/// moves nothing?
pub(super) fn is_held_back(down: usize, up: usize, share_max_percent: u8) -> bool {
    down.saturating_mul(100) > down.saturating_add(up).saturating_mul(share_max_percent.into())
}

/// Will every group come to legal places, and each profile find some for a new group, when the disks `dead`
/// stay away, those that are out of service are left, and all others serve? `up` disks
/// serve then; those that have not registered yet are no place, and count. All dead ones count as being
/// in use: slots may still come to one that nobody has missed yet.
pub(super) fn settles(map: &ClusterMap, dead: &BTreeSet<DiskId>, up: usize, share_max_percent: u8) -> bool {
    let retired = map.disks().values().filter(|disk| disk.duty == Duty::Retired && !dead.contains(&disk.id));
    if is_held_back(dead.len(), up.saturating_sub(retired.count()), share_max_percent) {
        return false;
    }
    let Some(mut map) = healed(map, dead) else { return false };
    let has_places = |profile| create_groups(&map, profile, 1, NEW_GROUP).is_ok();
    if !map.profiles().values().all(has_places) {
        return false;
    }
    let groups: Vec<Group> = map.groups().values().cloned().collect();
    groups.into_iter().all(|group| settle_group(&mut map, group).is_some())
}

/// The map once all faults have ended.
fn healed(map: &ClusterMap, dead: &BTreeSet<DiskId>) -> Option<ClusterMap> {
    let mut healed = map.clone();
    for node in map.nodes().values() {
        healed.put_node(placement::Node { health: Health::Up, ..node.clone() });
    }
    for disk in map.disks().values() {
        let health = if dead.contains(&disk.id) { Health::Down } else { Health::Up };
        healed.put_disk(placement::Disk { health, ..disk.clone() }).ok()?;
    }
    Some(healed)
}

/// Moves slots until the group is whole in legal places; none when that cannot be.
fn settle_group(map: &mut ClusterMap, mut group: Group) -> Option<()> {
    // Each slot moves at most back to its source, off a dead disk, and to a legal place.
    for _ in 0..group.slots.len().saturating_mul(3) + 1 {
        group = rebuilt(map, group)?;
        map.put_group(group.clone()).ok()?;
        let away = (0_u8..).zip(&group.slots).find(|(_, slot)| is_to_be_left(map, slot.disk));
        let to = match away {
            Some((slot, _)) => relocate(map, &group, SlotIndex(slot)).ok()?,
            None => match legalize(map, &group) {
                Legalize::Legal => return Some(()),
                Legalize::Move(to) => to,
                Legalize::Stuck { .. } => return None,
            },
        };
        group = apply_move(map, &group, to.slot, to.to).ok()?;
    }
    None
}

fn is_to_be_left(map: &ClusterMap, disk: DiskId) -> bool {
    map.disk_health(disk) == Health::Down || map.disk_duty(disk) != Duty::InService
}

/// Everything that is being made on a disk that serves is made.
fn rebuilt(map: &ClusterMap, mut group: Group) -> Option<Group> {
    for slot in (0..u8::try_from(group.slots.len()).ok()?).map(SlotIndex) {
        let place = group.slot(slot).ok()?;
        if place.state != SlotState::Whole && map.disk_health(place.disk) != Health::Down {
            group = slot_rebuilt(&group, slot).ok()?;
        }
    }
    Some(group)
}

#[cfg(test)]
mod tests {
    use placement::{Disk, FailureDomain, Node, Profile, ProfileSettings};
    use proto::{DiskUuid, Incarnation, Label, NodeId, ProfileId};

    use super::*;

    fn label(text: &str) -> Label {
        text.parse().unwrap()
    }

    /// Racks of nodes with one disk each, and groups of 2 + 1 over racks.
    fn map(racks: u32, nodes: u32, groups: u32) -> ClusterMap {
        let mut map = ClusterMap::new();
        for node in 0..racks * nodes {
            map.put_node(Node {
                id: NodeId(node + 1),
                site: label("s1"),
                rack: label(&format!("r{}", node % racks)),
                address: "h:1".into(),
                health: Health::Up,
                incarnation: Incarnation(1),
            });
            map.put_disk(Disk {
                id: DiskId(node + 1),
                uuid: DiskUuid(u128::from(node) + 1),
                node: NodeId(node + 1),
                name: label("disk-0"),
                capacity_bytes: 1 << 30,
                health: Health::Up,
                reason: String::new(),
                duty: placement::Duty::InService,
                duty_reason: String::new(),
                damaged_shards: 0,
                damaged_since: proto::Timestamp::ZERO,
            })
            .unwrap();
        }
        let settings = ProfileSettings {
            name: "coded".parse().unwrap(),
            k: 2,
            m: 1,
            shard_bytes: 65_536,
            failure_domain: FailureDomain::Rack,
            small: None,
            min_durable: None,
            refuse_below_policy: false,
        };
        let profile = Profile::parse(ProfileId(1), settings).unwrap();
        map.put_profile(profile.clone()).unwrap();
        for group in create_groups(&map, &profile, groups, GroupId(1)).unwrap() {
            map.put_group(group).unwrap();
        }
        map
    }

    /// A lost disk's slots find places as long as its rack has another disk, or there is another rack.
    #[test]
    fn places_are_found_or_not() {
        let dead = |disks: &[u32]| disks.iter().copied().map(DiskId).collect::<BTreeSet<_>>();
        // racks, nodes of each, dead disks, whether it settles
        let table: [(u32, u32, &[u32], bool); 8] = [
            (3, 2, &[], true),
            (3, 1, &[], true),
            (3, 2, &[1], true),
            (4, 1, &[1], true),
            (3, 1, &[1], false),
            // The whole first rack.
            (3, 4, &[1, 4, 7, 10], false),
            (4, 4, &[1, 5, 9, 13], true),
            // More than a quarter.
            (4, 4, &[1, 2, 3, 4, 5], false),
        ];
        for (racks, nodes, disks, expected) in table {
            let (map, dead) = (map(racks, nodes, 12), dead(disks));
            let settled = settles(&map, &dead, map.disks().len() - dead.len(), 25);
            assert_eq!(settled, expected, "{racks} racks of {nodes}, without {disks:?}");
        }
    }

    /// Disks that are out of service need places for their slots, and are none.
    #[test]
    fn drained_disks_are_left() {
        for (disks, expected) in [(vec![1], true), (vec![1, 4], false), (vec![1, 5], true)] {
            let mut map = map(3, 2, 12);
            for disk in &disks {
                let disk = map.disks()[&DiskId(*disk)].clone();
                map.put_disk(Disk { duty: Duty::Draining, ..disk }).unwrap();
            }
            assert_eq!(settles(&map, &BTreeSet::new(), 6, 25), expected, "without {disks:?}");
        }
    }

    /// Where there is no group yet, one to come needs places all the same.
    #[test]
    fn new_groups_need_places() {
        let map = map(3, 2, 0);
        for (dead, expected) in [(vec![1], true), (vec![1, 4], false)] {
            let dead: BTreeSet<DiskId> = dead.into_iter().map(DiskId).collect();
            assert_eq!(settles(&map, &dead, map.disks().len(), 50), expected, "without {dead:?}");
        }
    }

    /// The share is the one of the metadata service: of all disks but the lost ones that nobody uses.
    #[test]
    fn the_share_that_is_held_back() {
        for (down, up, expected) in
            [(0, 0, false), (0, 9, false), (1, 3, false), (1, 2, true), (2, 6, false), (2, 5, true)]
        {
            assert_eq!(is_held_back(down, up, 25), expected, "{down} down, {up} up");
        }
    }
}
