//! What a disk is meant for decides who gives it slots, and who writes to it.

use placement::{
    Avoid, ClusterMap, Disk, Duty, FailureDomain, Health, apply_move, create_groups, create_substitutes,
    pick_for_write, relocate, slot_rebuilt, to_placement,
};
use proto::{DiskId, GroupId, ProfileId, SlotIndex};

use crate::common::*;

const NOT_IN_SERVICE: [Duty; 3] = [Duty::Draining, Duty::Failed, Duty::Retired];

fn set_duty(map: &mut ClusterMap, disk: u32, duty: Duty) {
    let disk = Disk { duty, ..map.disks()[&DiskId(disk)].clone() };
    map.put_disk(disk).unwrap();
}

/// Four racks of two disks, with groups of 2 + 1.
fn with_groups() -> ClusterMap {
    let mut map = map(&even(4, 1, 2), 1);
    let profile = profile(1, 2, 1, FailureDomain::Rack);
    map.put_profile(profile.clone()).unwrap();
    let groups = create_groups(&map, &profile, 40, GroupId(1)).unwrap();
    put_all(&mut map, &groups);
    map
}

/// No slot goes to a disk that is not in service, by whatever way; and back in service it gets some again.
#[test]
fn only_disks_in_service_get_slots() {
    for duty in NOT_IN_SERVICE {
        let mut map = with_groups();
        let profile = map.profiles()[&ProfileId(1)].clone();
        set_duty(&mut map, 1, duty);
        let is_used =
            |groups: &[placement::Group]| groups.iter().any(|group| group.disks().any(|d| d.0 == 1));
        assert!(!is_used(&create_groups(&map, &profile, 60, GroupId(100)).unwrap()), "{duty}");
        assert!(!is_used(&create_substitutes(&map, &profile, 60, GroupId(100)).unwrap()), "{duty}");
        for group in map.groups().values() {
            for slot in (0..3).map(SlotIndex) {
                assert_ne!(relocate(&map, group, slot).unwrap().to, DiskId(1), "{duty}");
                let refused = apply_move(&map, group, slot, DiskId(1)).unwrap_err().to_string();
                let reasons = [duty.name(), "uses disk"];
                assert!(reasons.iter().any(|reason| refused.contains(reason)), "{duty}: {refused}");
            }
        }
        set_duty(&mut map, 1, Duty::InService);
        assert!(is_used(&create_groups(&map, &profile, 60, GroupId(100)).unwrap()), "{duty}");
    }
}

/// A slot whose new disk is lost goes back to the disk that is drained: that has all its shards.
#[test]
fn back_to_a_disk_that_is_drained() {
    for duty in [Duty::Draining, Duty::Failed] {
        let mut map = with_groups();
        set_duty(&mut map, 1, duty);
        let group = map.groups_on(DiskId(1)).next().unwrap().clone();
        let place = group.slots.iter().position(|slot| slot.disk == DiskId(1)).unwrap();
        let slot = SlotIndex(u8::try_from(place).unwrap());
        let to = relocate(&map, &group, slot).unwrap().to;
        let moved = apply_move(&map, &group, slot, to).unwrap();
        map.put_group(moved.clone()).unwrap();
        set_health(&mut map, to, Health::Down);
        assert_eq!(relocate(&map, &moved, slot).unwrap().to, DiskId(1), "{duty}");
        let back = apply_move(&map, &moved, slot, DiskId(1)).unwrap();
        let whole = slot_rebuilt(&back, slot).unwrap();
        assert_ne!(relocate(&map, &whole, slot).unwrap().to, DiskId(1), "{duty}");
    }
}

/// Writers get groups in service first, then those that are drained, and none with a disk that is given up,
/// which readers see as suspect.
#[test]
fn writers_are_sent_elsewhere() {
    let mut map = with_groups();
    let on = |map: &ClusterMap, disk| map.groups_on(DiskId(disk)).map(|group| group.id).collect::<Vec<_>>();
    let (drained, failed) = (on(&map, 1), on(&map, 2));
    set_duty(&mut map, 1, Duty::Draining);
    set_duty(&mut map, 2, Duty::Failed);
    let all = map.groups().len();
    let picked = pick_for_write(&map, ProfileId(1), &Avoid::default(), all, 7);
    let fit: Vec<_> = map.groups().keys().filter(|group| !failed.contains(group)).copied().collect();
    let mut sorted = picked.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, fit);
    let first_drained = picked.iter().position(|group| drained.contains(group)).unwrap();
    assert!(picked[first_drained..].iter().all(|group| drained.contains(group)));
    for (disk, health) in [(1, Health::Up), (2, Health::Suspect)] {
        let group = map.groups_on(DiskId(disk)).next().unwrap();
        let placement = to_placement(&map, group).unwrap();
        let place = placement.places.iter().find(|place| place.disk == disk).unwrap();
        assert_eq!(place.health, health.to_wire(), "disk {disk}");
    }
    set_duty(&mut map, 1, Duty::InService);
    set_duty(&mut map, 2, Duty::InService);
    assert_eq!(pick_for_write(&map, ProfileId(1), &Avoid::default(), all, 7).len(), all);
}
