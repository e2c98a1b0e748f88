//! Whether disks can be emptied is known before.

use std::collections::{BTreeMap, BTreeSet};

use placement::{
    CannotLeave, ClusterMap, Disk, Duty, FailureDomain, Shortage, apply_move, can_leave, create_groups,
    relocate, slot_rebuilt,
};
use proptest::prelude::*;
use proto::{DiskId, ErrorCode, Failure, GroupId, SlotIndex};

use crate::common::*;

fn ids(disks: impl IntoIterator<Item = u32>) -> BTreeSet<DiskId> {
    disks.into_iter().map(DiskId).collect()
}

/// Bytes on each disk.
fn used(map: &ClusterMap, bytes: u64) -> BTreeMap<DiskId, u64> {
    map.disks().keys().map(|disk| (*disk, map.slots_on(*disk) * bytes)).collect()
}

proptest! {
    /// A yes is kept: once the disks drain, each slot in turn is relocated, and the disks are empty. A no for
    /// the policy is one, too: some slot finds no place.
    #[test]
    fn what_it_says_is_so(plan in any_plan(), profile in any_profile(), picks in prop::collection::btree_set(1..20u32, 1..5)) {
        let mut map = map(&plan, 1);
        map.put_profile(profile.clone()).unwrap();
        let Ok(groups) = create_groups(&map, &profile, 12, GroupId(1)) else { return Ok(()) };
        put_all(&mut map, &groups);
        let disks: BTreeSet<DiskId> = ids(picks).into_iter().filter(|disk| map.disks().contains_key(disk)).collect();
        let slots: u64 = disks.iter().map(|disk| map.slots_on(*disk)).sum();
        let said = can_leave(&map, &disks, &|_| 1, &used(&map, 1), 1000);
        for disk in &disks {
            let row = map.disks()[disk].clone();
            map.put_disk(Disk { duty: Duty::Draining, ..row }).unwrap();
        }
        let mut moved = 0;
        let mut refused = false;
        for disk in &disks {
            for group in map.groups_on(*disk).map(|group| group.id).collect::<Vec<_>>() {
                let group = map.groups()[&group].clone();
                let place = group.slots.iter().position(|slot| slot.disk == *disk).unwrap();
                let slot = SlotIndex(u8::try_from(place).unwrap());
                let Ok(step) = relocate(&map, &group, slot) else { refused = true; continue };
                let after = apply_move(&map, &group, slot, step.to).unwrap();
                map.put_group(slot_rebuilt(&after, slot).unwrap()).unwrap();
                moved += 1;
            }
        }
        match said {
            Ok(plan) => {
                prop_assert!(!refused);
                prop_assert_eq!((plan.slots, plan.bytes, moved), (slots, slots, slots));
            }
            Err(error) => prop_assert!(refused, "{}", error),
        }
    }
}

/// Without a rack there is no place for six slots, two in each; the answer names the rack.
#[test]
fn a_domain_is_missing() {
    let profile = profile(1, 4, 2, FailureDomain::Rack);
    let mut map = map(&even(3, 2, 2), 1);
    map.put_profile(profile.clone()).unwrap();
    let groups = create_groups(&map, &profile, 60, GroupId(1)).unwrap();
    put_all(&mut map, &groups);
    let error = can_leave(&map, &ids(1..=4), &|_| 1, &BTreeMap::new(), 900).unwrap_err();
    let CannotLeave::NoLegalPlace(refused) = &error else { panic!("{error}") };
    assert_eq!(refused.shortage, Shortage::Domains { needed: 3, healthy: 2 });
    assert!(error.to_string().contains("add 1 rack"), "{error}");
    assert_eq!(Failure::from(error).code, ErrorCode::NoLegalPlace);
    // One node of the rack may go, the other taking its slots.
    let plan = can_leave(&map, &ids(1..=2), &|_| 1, &BTreeMap::new(), 900).unwrap();
    assert_eq!((plan.slots, plan.bytes), (60, 60));
}

/// What the others have no space for is named in bytes; with that much more it goes.
#[test]
fn space_is_missing() {
    let profile = profile(1, 2, 1, FailureDomain::Node);
    let mut map = map(&even(1, 4, 1), 1);
    map.put_profile(profile.clone()).unwrap();
    let groups = create_groups(&map, &profile, 40, GroupId(1)).unwrap();
    put_all(&mut map, &groups);
    let slots = map.slots_on(DiskId(1));
    let error = can_leave(&map, &ids([1]), &|_| TB / 4, &used(&map, TB / 4), 700).unwrap_err();
    let CannotLeave::NoRoom { bytes, missing, full_permille: 700 } = error else { panic!("{error}") };
    assert_eq!(bytes, slots * TB / 4);
    // Three disks of 12 TB up to 8.4 TB, in quarters of a TB, hold 99 slots; there are 120.
    assert_eq!(missing, 21 * TB / 4);
    assert!(error.to_string().contains("add disks"), "{error}");
    let plan = can_leave(&map, &ids([1]), &|_| TB / 4, &used(&map, TB / 4), 850).unwrap();
    assert_eq!(plan.bytes, bytes);
    let fullest = plan.fullest.unwrap();
    assert!((830..=850).contains(&fullest.permille), "{fullest:?}");
}

/// A draining disk that is asked again, and one that has nothing.
#[test]
fn nothing_to_move() {
    let map = map(&even(1, 4, 1), 1);
    let plan = can_leave(&map, &ids([1, 99]), &|_| 1, &BTreeMap::new(), 900).unwrap();
    assert_eq!((plan.slots, plan.bytes), (0, 0));
}
