use placement::{
    ClusterMap, FailureDomain, Group, Health, Legalize, Slot, SlotState, apply_move, check_group,
    create_groups, create_substitutes, legalize, relocate,
};
use proptest::prelude::*;
use proto::{DiskId, Epoch, GroupId, SlotIndex};

use crate::common::*;

fn weight(map: &ClusterMap, group: &Group) -> usize {
    let profile = &map.profiles()[&group.profile];
    let violations = check_group(map, profile, &group.slots).err().unwrap_or_default();
    violations.iter().map(|violation| violation.slots().len()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// From any set of different disks: if the healthy disks allow a legal group, moves end in one, after
    /// at most `k + m` of them; and no move adds a violation. If not, it says that it is stuck.
    #[test]
    fn legalize_ends_in_a_legal_group(plan in any_plan(), sites in 1..=3usize, profile in any_profile(), order in any::<u64>()) {
        let mut map = map(&plan, sites);
        prop_assume!(map.disks().len() >= profile.slots());
        map.put_profile(profile.clone()).unwrap();
        let mut disks: Vec<DiskId> = map.disks().keys().copied().collect();
        disks.sort_by_key(|disk| u64::from(disk.0).wrapping_mul(order | 1).rotate_left(31));
        let slot = |disk: &DiskId| Slot { disk: *disk, state: SlotState::Whole, since_epoch: Epoch(1), task: None };
        let slots = disks.iter().take(profile.slots()).map(slot).collect();
        let mut group = Group { id: GroupId(5), profile: profile.id(), epoch: Epoch(1), slots, below_policy: true };
        map.put_group(group.clone()).unwrap();

        let mut moves = 0;
        loop {
            match legalize(&map, &group) {
                Legalize::Legal => {
                    prop_assert_eq!(check_group(&map, &profile, &group.slots), Ok(()));
                    prop_assert!(moves == 0 || !group.below_policy);
                    break;
                }
                Legalize::Stuck { violations, .. } => {
                    prop_assert!(!violations.is_empty());
                    prop_assert!(room(&map, &profile) < profile.slots(), "stuck, though there is room");
                    break;
                }
                Legalize::Move(step) => {
                    moves += 1;
                    prop_assert!(moves <= profile.slots());
                    let after = apply_move(&map, &group, step.slot, step.to).unwrap();
                    prop_assert!(weight(&map, &after) < weight(&map, &group));
                    let state = after.slots[usize::from(step.slot.0)].state;
                    let source = (map.disk_health(step.from) != Health::Down).then_some(step.from);
                    prop_assert_eq!(state, SlotState::Rebuilding { source });
                    prop_assert_eq!(after.epoch.0, group.epoch.0 + 1);
                    map.put_group(after.clone()).unwrap();
                    group = rebuilt(&after);
                    map.put_group(group.clone()).unwrap();
                }
            }
        }
    }

    /// A slot leaves a disk that is down for a legal place whenever there is one, and the gate lets it.
    #[test]
    fn relocation_is_legal(plan in any_plan(), profile in any_profile(), slot in any::<u8>()) {
        let mut map = map(&plan, 1);
        map.put_profile(profile.clone()).unwrap();
        let Ok(groups) = create_groups(&map, &profile, 5, GroupId(1)) else { return Ok(()) };
        put_all(&mut map, &groups);
        let slot = SlotIndex(slot % u8::try_from(profile.slots()).unwrap());
        let from = groups[0].slots[usize::from(slot.0)].disk;
        set_health(&mut map, from, Health::Down);
        match relocate(&map, &groups[0], slot) {
            Ok(step) => {
                let after = apply_move(&map, &groups[0], slot, step.to).unwrap();
                prop_assert_eq!(check_group(&map, &profile, &after.slots), Ok(()));
                prop_assert_eq!(after.slots[usize::from(slot.0)].source(), None);
            }
            Err(error) => {
                // Then no disk at all would do.
                prop_assert!(!error.to_string().is_empty());
                for to in map.disks().keys() {
                    prop_assert!(map.disks()[to].capacity_bytes == 0 || apply_move(&map, &groups[0], slot, *to).is_err());
                }
            }
        }
    }
}

fn cluster(racks: usize) -> (ClusterMap, Group) {
    let mut map = map(&even(racks, 2, 3), 1);
    let rs = profile(1, 4, 2, FailureDomain::Rack);
    map.put_profile(rs.clone()).unwrap();
    let groups = create_groups(&map, &rs, 20, GroupId(1)).unwrap();
    put_all(&mut map, &groups);
    let group = groups[0].clone();
    (map, group)
}

/// A slot that is being filled does not move; when its new disk dies it goes back to its source, and
/// nowhere else, as long as that lives; when both are dead it starts anew without a source.
#[test]
fn a_rebuilding_slot_keeps_its_source() {
    let (mut map, group) = cluster(4);
    let slot = SlotIndex(1);
    let step = relocate(&map, &group, slot).unwrap();
    let moving = apply_move(&map, &group, slot, step.to).unwrap();
    map.put_group(moving.clone()).unwrap();
    let other = |map: &ClusterMap| {
        let free = |disk: &&DiskId| apply_move(map, &group, slot, **disk).is_ok() && **disk != step.to;
        *map.disks().keys().find(free).unwrap()
    };
    assert!(
        apply_move(&map, &moving, slot, other(&map)).unwrap_err().to_string().contains("still being filled")
    );
    assert!(relocate(&map, &moving, slot).unwrap_err().to_string().contains("still being filled"));

    set_health(&mut map, step.to, Health::Down);
    assert_eq!(relocate(&map, &moving, slot).unwrap().to, step.from);
    assert!(
        apply_move(&map, &moving, slot, other(&map)).unwrap_err().to_string().contains("move the slot back")
    );
    let back = apply_move(&map, &moving, slot, step.from).unwrap();
    assert_eq!(back.slots[1].state, SlotState::Rebuilding { source: None });
    assert_eq!((back.epoch, back.slots[1].disk), (Epoch(3), step.from));

    set_health(&mut map, step.from, Health::Down);
    let anew = relocate(&map, &moving, slot).unwrap();
    assert_ne!(anew.to, step.from);
    let after = apply_move(&map, &moving, slot, anew.to).unwrap();
    assert_eq!(after.slots[1].state, SlotState::Rebuilding { source: None });
}

/// The gate refuses a move that makes the group worse, and disks that cannot take a slot.
#[test]
fn the_gate_refuses_bad_moves() {
    let (mut map, group) = cluster(3);
    let rack = |map: &ClusterMap, disk| map.domain_of(FailureDomain::Rack, disk).unwrap();
    let home = rack(&map, group.slots[0].disk);
    let used: Vec<DiskId> = group.disks().collect();
    let free = |map: &ClusterMap, here: bool| {
        let fits = |disk: &&DiskId| !used.contains(disk) && (rack(map, **disk) == home) == here;
        *map.disks().keys().find(fits).unwrap()
    };
    let refused = |map: &ClusterMap, to| apply_move(map, &group, SlotIndex(0), to).unwrap_err().to_string();
    assert!(refused(&map, free(&map, false)).contains("make the group worse"));
    assert!(refused(&map, group.slots[1].disk).contains("uses disk"));
    assert!(refused(&map, group.slots[0].disk).contains("uses disk"));
    assert!(refused(&map, DiskId(999)).contains("unknown"));
    let beside = free(&map, true);
    assert!(apply_move(&map, &group, SlotIndex(0), beside).is_ok());
    set_health(&mut map, beside, Health::Suspect);
    assert!(refused(&map, beside).contains("suspect"));
    assert!(apply_move(&map, &group, SlotIndex(6), beside).unwrap_err().to_string().contains("no slot 6"));
}

/// A rack dies, substitutes are formed, one of their disks dies: it is replaced in its own rack, which is
/// no worse. The rack returns: they are moved to legal places, and the flag falls with the last move.
#[test]
fn substitutes_come_home() {
    let (mut map, _) = cluster(3);
    let rs = map.profiles()[&proto::ProfileId(1)].clone();
    set_rack_health(&mut map, "s0", "r1", Health::Down);
    let substitutes = create_substitutes(&map, &rs, 3, GroupId(100)).unwrap();
    put_all(&mut map, &substitutes);
    let lost = substitutes[0].slots[0].disk;
    set_health(&mut map, lost, Health::Down);
    assert!(matches!(legalize(&map, &substitutes[0]), Legalize::Stuck { .. }));
    // Both racks use three of six disks, so the dead one can be replaced.
    let step = relocate(&map, &substitutes[0], SlotIndex(0)).unwrap();
    let rack = |disk| map.domain_of(FailureDomain::Rack, disk);
    assert_eq!(rack(step.to), rack(lost));
    let mended = apply_move(&map, &substitutes[0], SlotIndex(0), step.to).unwrap();
    assert!(mended.below_policy);

    set_rack_health(&mut map, "s0", "r1", Health::Up);
    let mut group = rebuilt(&mended);
    for left in (0..2).rev() {
        let Legalize::Move(step) = legalize(&map, &group) else { panic!("{left} moves are left") };
        group = rebuilt(&apply_move(&map, &group, step.slot, step.to).unwrap());
        map.put_group(group.clone()).unwrap();
        assert_eq!(group.below_policy, left > 0);
    }
    assert_eq!(legalize(&map, &group), Legalize::Legal);
}
