use std::collections::BTreeSet;

use placement::{
    ClusterMap, FailureDomain, Group, Health, Node, apply_move, create_groups, explain, relocate,
    to_placement,
};
use proptest::prelude::*;
use proto::{DiskId, Epoch, GroupId, NodeId, SlotIndex, wire};

use crate::common::*;

fn cluster() -> ClusterMap {
    let mut map = map(&even(3, 2, 2), 1);
    let rs = profile(1, 4, 2, FailureDomain::Rack);
    map.put_profile(rs.clone()).unwrap();
    let groups = create_groups(&map, &rs, 30, GroupId(1)).unwrap();
    put_all(&mut map, &groups);
    map
}

proptest! {
    /// The indexes agree with a walk over all groups, after any sequence of moves and changes of health.
    #[test]
    fn indexes_agree_with_a_walk(steps in prop::collection::vec((1..=30u32, 0..6u8, 1..=12u32, any_health(), 1..=6u32), 0..60)) {
        let mut map = cluster();
        for (group, slot, disk, health, node) in steps {
            set_health(&mut map, DiskId(disk), health);
            let node = Node { health: if node == 1 { health } else { Health::Up }, ..map.nodes()[&NodeId(node)].clone() };
            map.put_node(node);
            let group = rebuilt(&map.groups()[&GroupId(group)]);
            if let Ok(step) = relocate(&map, &group, SlotIndex(slot)) {
                let after = apply_move(&map, &group, step.slot, step.to).unwrap();
                map.put_group(after).unwrap();
            }
        }
        for disk in map.disks().keys() {
            let slots = map.groups().values().flat_map(|g| &g.slots).filter(|s| s.disk == *disk).count();
            prop_assert_eq!(map.slots_on(*disk), slots as u64);
            let on: BTreeSet<_> = map.groups_on(*disk).map(|g| g.id).collect();
            let walk: BTreeSet<_> = map.groups().values().filter(|g| g.disks().any(|d| d == *disk)).map(|g| g.id).collect();
            prop_assert_eq!(on, walk);
        }
        // A map made from the rows chooses as the one that grew: its indexes are the same.
        let fresh = ClusterMap::try_from(wire::Map::from(&map)).unwrap();
        let rs = map.profiles()[&proto::ProfileId(1)].clone();
        prop_assert_eq!(create_groups(&fresh, &rs, 5, GroupId(99)), create_groups(&map, &rs, 5, GroupId(99)));
        let pick = |map: &ClusterMap| placement::pick_for_write(map, rs.id(), &Default::default(), 99, 7);
        prop_assert_eq!(pick(&fresh), pick(&map));
        prop_assert_eq!(wire::Map::from(&fresh), wire::Map::from(&map));
    }

    /// No message makes parsing or any answer panic.
    #[test]
    fn hostile_rows_never_panic(
        nodes in prop::collection::vec((0..3u32, 0..5i32), 0..4),
        disks in prop::collection::vec((0..6u32, 0..3u32, any::<u64>(), 0..5i32, 0..6i32), 0..8),
        code in (0..5u32, 0..5u32, 0..6i32),
        groups in prop::collection::vec((any::<u32>(), 0..4u64, prop::collection::vec((0..6u32, 0..4i32, 0..4u64, 0..6u32), 0..5)), 0..4),
    ) {
        let mut map = ClusterMap::new();
        for (id, health) in nodes {
            let row = wire::Node { id, site: "s".into(), rack: format!("r{id}"), address: "a:1".into(), health, incarnation: 0 };
            if let Ok(node) = row.try_into() { map.put_node(node); }
        }
        for (id, node, capacity_bytes, health, duty) in disks {
            let uuid = vec![u8::try_from(id).unwrap(); 16].into();
            let row = wire::Disk { id, uuid, node, name: "d".into(), capacity_bytes, health, duty, ..Default::default() };
            if let Ok(disk) = row.try_into() { let _ = map.put_disk(disk); }
        }
        let row = wire::Profile { id: 1, name: "p".into(), k: code.0, m: code.1, shard_bytes: 65_536, failure_domain: code.2, ..Default::default() };
        let Ok(profile) = placement::Profile::try_from(row) else { return Ok(()) };
        map.put_profile(profile.clone()).unwrap();
        let _ = create_groups(&map, &profile, 3, GroupId(0));
        for (id, epoch, slots) in groups {
            let slots = slots.into_iter().map(|(disk, state, since_epoch, source_disk)| wire::Slot { disk, state, since_epoch, source_disk, task: source_disk });
            let row = wire::Group { id, profile: 1, epoch, slots: slots.collect(), below_policy: false };
            let Ok(group) = Group::try_from(row) else { continue };
            let _ = map.put_group(group.clone());
            let _ = (placement::legalize(&map, &group), explain(&map, &group), to_placement(&map, &group));
            for slot in 0..6 {
                let _ = relocate(&map, &group, SlotIndex(slot));
                for disk in 0..6 { let _ = apply_move(&map, &group, SlotIndex(slot), DiskId(disk)); }
            }
            let _ = placement::tolerance(&map, &profile, &group.slots, u32::MAX);
        }
    }
}

/// The map goes over the wire and back unchanged.
#[test]
fn maps_round_trip() {
    let mut map = cluster();
    map.set_version(7);
    set_health(&mut map, DiskId(1), Health::Down);
    let group = map.groups_on(DiskId(1)).next().unwrap().clone();
    let slot = group.slots.iter().position(|s| s.disk == DiskId(1)).unwrap();
    let step = relocate(&map, &group, SlotIndex(u8::try_from(slot).unwrap())).unwrap();
    map.put_group(apply_move(&map, &group, step.slot, step.to).unwrap()).unwrap();
    let wire = wire::Map::from(&map);
    assert_eq!(wire::Map::from(&ClusterMap::try_from(wire.clone()).unwrap()), wire);
    assert_eq!(wire.version, 7);
}

/// Rows that would break the map are refused with the rule, and change nothing.
#[test]
fn bad_rows_are_refused() {
    let map = cluster();
    let group = map.groups()[&GroupId(1)].clone();
    let refuse = |spoil: &dyn Fn(&mut Group), part: &str| {
        let mut bad = group.clone();
        spoil(&mut bad);
        let mut changed = map.clone();
        let error = changed.put_group(bad).expect_err(part).to_string();
        assert!(error.contains(part), "expected {part:?} in {error:?}");
        assert_eq!(wire::Map::from(&changed), wire::Map::from(&map));
    };
    refuse(&|g| g.slots[0].disk = g.slots[1].disk, "two slots on one disk");
    refuse(&|g| g.slots[0].disk = DiskId(99), "disk 99 is unknown");
    refuse(&|g| g.slots.truncate(5), "has 5 slots");
    refuse(&|g| g.profile = proto::ProfileId(9), "profile 9 is unknown");
    refuse(&|g| g.epoch = Epoch(0), "fall from 1 to 0");
    refuse(&|g| g.slots.swap(0, 1), "the epoch is still 1");

    let mut map = map;
    let disk = map.disks()[&DiskId(1)].clone();
    let twin = placement::Disk { id: DiskId(50), ..disk.clone() };
    assert!(map.put_disk(twin).unwrap_err().to_string().contains("same uuid"));
    let lost = placement::Disk { node: NodeId(99), ..disk };
    assert!(map.put_disk(lost).unwrap_err().to_string().contains("node 99 is unknown"));
    assert!(
        map.put_profile(profile(1, 5, 2, FailureDomain::Rack))
            .unwrap_err()
            .to_string()
            .contains("cannot be changed")
    );
    assert!(
        map.put_profile(profile(2, 4, 2, FailureDomain::Rack)).unwrap_err().to_string().contains("same name")
    );
}

/// The message of a group tells where each slot and each source is, and how it is.
#[test]
fn placements_reach_slots_and_sources() {
    let mut map = cluster();
    let group = map.groups()[&GroupId(3)].clone();
    let step = relocate(&map, &group, SlotIndex(2)).unwrap();
    let moved = apply_move(&map, &group, step.slot, step.to).unwrap();
    map.put_group(moved.clone()).unwrap();
    set_health(&mut map, step.from, Health::Suspect);
    let placement = to_placement(&map, &moved).unwrap();
    assert_eq!((placement.epoch, placement.k, placement.m, placement.min_durable), (2, 4, 2, 5));
    let place = &placement.places[2];
    assert_eq!((place.disk, place.source_disk, place.since_epoch), (step.to.0, step.from.0, 2));
    assert_eq!(place.source_health, wire::Health::Suspect as i32);
    assert_eq!(place.source_address, format!("node-{}:7000", place.source_node));
    let rack = &map.nodes()[&NodeId(place.node)].rack;
    assert_eq!(place.rack, format!("s0/{rack}"));
}

/// The explanation names disk, node, rack and counts, and says what is broken.
#[test]
fn explanations_name_the_place() {
    let map = cluster();
    let group = &map.groups()[&GroupId(1)];
    let explained = explain(&map, group).unwrap();
    let text = explained.to_string();
    let disk = group.slots[0].disk;
    for part in [
        "keeps its policy",
        "2 of at most 2 slots",
        &format!("disk {disk} (d{disk}) on node"),
        "2 disks, or 2 nodes, or 1 rack",
    ] {
        assert!(text.contains(part), "expected {part:?} in {text}");
    }
    assert!(explained.slots.iter().all(|slot| slot.fill_rank <= slot.fill_ranked && slot.fill_ranked == 12));
}
