use std::collections::{BTreeMap, BTreeSet};

use placement::{
    Avoid, ClusterMap, FailureDomain, Health, create_groups, create_substitutes, pick_for_write,
};
use proptest::prelude::*;
use proto::{DiskId, GroupId, ProfileId};

use crate::common::*;

/// Twenty legal groups and ten substitutes that are writable, of two profiles taking turns.
fn cluster() -> ClusterMap {
    let mut map = map(&even(3, 2, 2), 1);
    for id in [1, 2] {
        let rs = profile(id, 3 + id, 2, FailureDomain::Rack);
        map.put_profile(rs.clone()).unwrap();
        if let Ok(groups) = create_groups(&map, &rs, 20, GroupId(id * 5000)) {
            put_all(&mut map, &groups);
        }
    }
    set_rack_health(&mut map, "s0", "r0", Health::Down);
    let rs = map.profiles()[&ProfileId(1)].clone();
    let substitutes = create_substitutes(&map, &rs, 10, GroupId(9000)).unwrap();
    put_all(&mut map, &substitutes);
    set_rack_health(&mut map, "s0", "r0", Health::Up);
    map
}

proptest! {
    /// As many good groups as there are, up to the limit, each once, none to be avoided, legal ones first.
    #[test]
    fn as_a_scan_would_find(
        avoid_groups in prop::collection::btree_set(prop_oneof![5000..5020u32, 9000..9010u32], 0..25),
        avoid_disks in prop::collection::btree_set(1..=12u32, 0..4),
        health in prop::collection::vec((1..=12u32, any_health()), 0..4),
        limit in 0..40usize, spread in any::<u64>(),
    ) {
        let mut map = cluster();
        health.into_iter().for_each(|(disk, health)| set_health(&mut map, DiskId(disk), health));
        let avoid = Avoid {
            groups: avoid_groups.into_iter().map(GroupId).collect(),
            disks: avoid_disks.into_iter().map(DiskId).collect(),
        };
        let picked = pick_for_write(&map, ProfileId(1), &avoid, limit, spread);
        let good: BTreeMap<GroupId, bool> = map.groups().values()
            .filter(|g| g.profile == ProfileId(1) && !avoid.groups.contains(&g.id))
            .filter(|g| g.slots.iter().all(|s| map.disk_health(s.disk) == Health::Up && !avoid.disks.contains(&s.disk)))
            .map(|g| (g.id, g.below_policy)).collect();
        prop_assert_eq!(picked.len(), limit.min(good.len()));
        prop_assert_eq!(picked.iter().collect::<BTreeSet<_>>().len(), picked.len());
        prop_assert!(picked.iter().all(|group| good.contains_key(group)));
        prop_assert!(picked.is_sorted_by_key(|group| good[group]), "a substitute came before a legal group");
        let legal = good.values().filter(|below| !**below).count();
        prop_assert_eq!(picked.iter().filter(|g| !good[*g]).count(), limit.min(legal));
        prop_assert_eq!(pick_for_write(&map, ProfileId(1), &avoid, limit, spread), picked);
    }
}

/// Different writers get different groups, all about equally often.
#[test]
fn writers_spread() {
    let map = cluster();
    let mut first: BTreeMap<GroupId, u32> = BTreeMap::new();
    for spread in 0..4000 {
        let picked = pick_for_write(&map, ProfileId(1), &Avoid::default(), 3, spread);
        *first.entry(picked[0]).or_default() += 1;
    }
    assert_eq!(first.len(), 20);
    assert!(first.values().all(|count| (120..=280).contains(count)), "{first:?}");
}

/// A profile that refuses to stand below policy never gets a substitute.
#[test]
fn refusal_is_kept() {
    let mut map = cluster();
    let mut wire = proto::wire::Profile::from(&map.profiles()[&ProfileId(1)]);
    wire.refuse_below_policy = true;
    map.put_profile(wire.try_into().unwrap()).unwrap();
    let picked = pick_for_write(&map, ProfileId(1), &Avoid::default(), 99, 1);
    assert_eq!(picked.len(), 20);
    assert!(picked.iter().all(|group| !map.groups()[group].below_policy));
    assert!(pick_for_write(&map, ProfileId(77), &Avoid::default(), 99, 1).is_empty());
}
