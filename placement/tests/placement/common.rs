//! Topologies.

use placement::{
    ClusterMap, Disk, FailureDomain, Group, Health, Node, Profile, ProfileSettings, SlotState, slot_rebuilt,
};
use proptest::prelude::*;
use proto::{DiskId, DiskUuid, Incarnation, NodeId, ProfileId, SlotIndex};

pub const TB: u64 = 1_000_000_000_000;

/// Size and health of a disk.
pub type DiskPlan = (u64, Health);
/// Racks, nodes, disks.
pub type Plan = Vec<Vec<Vec<DiskPlan>>>;

/// `racks` × `nodes` × `disks`, all up, of 12 TB.
pub fn even(racks: usize, nodes: usize, disks: usize) -> Plan {
    vec![vec![vec![(12 * TB, Health::Up); disks]; nodes]; racks]
}

/// The nodes and disks of a plan. Racks take turns over `sites`, with the same labels in each.
pub fn rows(plan: &Plan, sites: usize) -> (Vec<Node>, Vec<Disk>) {
    let (mut nodes, mut disks) = (Vec::new(), Vec::new());
    for (r, rack) in plan.iter().enumerate() {
        for sizes in rack {
            let node = NodeId(u32::try_from(nodes.len() + 1).unwrap());
            nodes.push(Node {
                id: node,
                site: format!("s{}", r % sites).parse().unwrap(),
                rack: format!("r{}", r / sites).parse().unwrap(),
                address: format!("node-{node}:7000"),
                health: Health::Up,
                incarnation: Incarnation(1),
            });
            for (capacity_bytes, health) in sizes {
                let id = u32::try_from(disks.len() + 1).unwrap();
                disks.push(Disk {
                    id: DiskId(id),
                    uuid: DiskUuid(id.into()),
                    node,
                    name: format!("d{id}").parse().unwrap(),
                    capacity_bytes: *capacity_bytes,
                    health: *health,
                    reason: String::new(),
                    duty: placement::Duty::InService,
                    duty_reason: String::new(),
                    damaged_shards: 0,
                    damaged_since: proto::Timestamp::ZERO,
                });
            }
        }
    }
    (nodes, disks)
}

pub fn map(plan: &Plan, sites: usize) -> ClusterMap {
    let mut map = ClusterMap::new();
    let (nodes, disks) = rows(plan, sites);
    nodes.into_iter().for_each(|node| map.put_node(node));
    disks.into_iter().for_each(|disk| map.put_disk(disk).unwrap());
    map
}

pub fn profile(id: u32, k: u32, m: u32, failure_domain: FailureDomain) -> Profile {
    let settings = ProfileSettings {
        name: format!("rs-{k}-{m}").parse().unwrap(),
        k,
        m,
        shard_bytes: 1 << 20,
        failure_domain,
        small: None,
        min_durable: None,
        refuse_below_policy: false,
    };
    Profile::parse(ProfileId(id), settings).unwrap()
}

pub fn put_all(map: &mut ClusterMap, groups: &[Group]) {
    groups.iter().for_each(|group| map.put_group(group.clone()).unwrap());
}

pub fn set_health(map: &mut ClusterMap, disk: DiskId, health: Health) {
    let disk = Disk { health, ..map.disks()[&disk].clone() };
    map.put_disk(disk).unwrap();
}

pub fn set_rack_health(map: &mut ClusterMap, site: &str, rack: &str, health: Health) {
    let in_rack = |node: &&Node| node.site.as_str() == site && node.rack.as_str() == rack;
    let nodes: Vec<Node> = map.nodes().values().filter(in_rack).cloned().collect();
    assert!(!nodes.is_empty());
    nodes.into_iter().for_each(|node| map.put_node(Node { health, ..node }));
}

/// Every slot rebuilt.
pub fn rebuilt(group: &Group) -> Group {
    (0..group.slots.len()).fold(group.clone(), |group, slot| {
        slot_rebuilt(&group, SlotIndex(u8::try_from(slot).unwrap())).unwrap()
    })
}

pub fn disks_of(group: &Group) -> Vec<u32> {
    assert!(group.slots.iter().all(|slot| slot.state == SlotState::Whole));
    group.slots.iter().map(|slot| slot.disk.0).collect()
}

pub fn any_health() -> impl Strategy<Value = Health> {
    prop_oneof![8 => Just(Health::Up), 1 => Just(Health::Suspect), 1 => Just(Health::Down)]
}

/// 1 to 6 racks of 1 to 3 nodes of 1 to 4 disks, of 0 to 4 TB.
pub fn any_plan() -> impl Strategy<Value = Plan> {
    let disk = (prop_oneof![1 => Just(0), 12 => (1..=4u64).prop_map(|n| n * TB)], any_health());
    let node = prop::collection::vec(disk, 1..=4);
    prop::collection::vec(prop::collection::vec(node, 1..=3), 1..=6)
}

pub fn any_domain() -> impl Strategy<Value = FailureDomain> {
    prop_oneof![
        Just(FailureDomain::Disk),
        Just(FailureDomain::Node),
        Just(FailureDomain::Rack),
        Just(FailureDomain::Site)
    ]
}

pub fn any_profile() -> impl Strategy<Value = Profile> {
    (1..=6u32, 1..=4u32, any_domain()).prop_map(|(k, m, domain)| profile(1, k, m, domain))
}

/// The healthy disks of each domain of `kind`.
pub fn healthy_in(
    map: &ClusterMap,
    kind: FailureDomain,
) -> std::collections::BTreeMap<placement::Domain, usize> {
    let mut healthy = std::collections::BTreeMap::new();
    for disk in map.disks().values() {
        if map.disk_health(disk.id) == Health::Up && disk.capacity_bytes > 0 {
            *healthy.entry(map.domain_of(kind, disk.id).unwrap()).or_default() += 1;
        }
    }
    healthy
}

/// The counting argument: slots of a group that the healthy disks have room for.
pub fn room(map: &ClusterMap, profile: &Profile) -> usize {
    healthy_in(map, profile.failure_domain()).values().map(|disks| profile.m().min(*disks)).sum()
}
