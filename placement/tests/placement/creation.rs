use std::collections::{BTreeMap, BTreeSet};

use placement::{
    FailureDomain, Group, Health, SLOTS_PER_DISK, Shortage, check_group, choose_slots, create_groups,
    create_substitutes, groups_wanted,
};
use proptest::prelude::*;
use proto::{DiskId, GroupId};

use crate::common::*;

fn slots_by_disk(groups: &[Group]) -> BTreeMap<DiskId, u64> {
    let mut counts = BTreeMap::new();
    for slot in groups.iter().flat_map(|group| &group.slots) {
        *counts.entry(slot.disk).or_default() += 1;
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Groups exist if and only if the counting argument says so; each passes the validator, lies on
    /// healthy disks and on as many nodes as the domains allow.
    #[test]
    fn legal_groups_if_and_only_if_there_is_room(plan in any_plan(), sites in 1..=3usize, profile in any_profile()) {
        let map = map(&plan, sites);
        let possible = room(&map, &profile) >= profile.slots();
        let groups = match create_groups(&map, &profile, 20, GroupId(1)) {
            Ok(groups) => groups,
            Err(error) => {
                prop_assert!(!possible, "{error}");
                prop_assert!(!error.to_string().is_empty());
                prop_assert_eq!(error.rejected.listed.len(), map.disks().len());
                return Ok(());
            }
        };
        prop_assert!(possible);
        let kind = profile.failure_domain();
        let mut nodes_in: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for disk in map.disks().values().filter(|d| d.capacity_bytes > 0 && map.disk_health(d.id) == Health::Up) {
            let outer = map.domain_of(kind.max(FailureDomain::Node), disk.id).unwrap();
            nodes_in.entry(outer).or_default().insert(disk.node);
        }
        let at_most = if kind == FailureDomain::Disk { 1 } else { profile.m() };
        let nodes_best = nodes_in.values().map(|nodes| nodes.len().min(at_most)).sum::<usize>().min(profile.slots());
        for group in &groups {
            prop_assert_eq!(check_group(&map, &profile, &group.slots), Ok(()));
            prop_assert!(!group.below_policy);
            prop_assert!(group.slots.iter().all(|slot| map.disk_health(slot.disk) == Health::Up));
            let nodes: BTreeSet<_> = group.slots.iter().map(|slot| map.disks()[&slot.disk].node).collect();
            prop_assert_eq!(nodes.len(), nodes_best);
        }
        prop_assert_eq!(&groups, &create_groups(&map, &profile, 20, GroupId(1)).unwrap());
    }

    /// The order in which rows came makes no difference, nor does their being replaced on the way, nor
    /// does forming groups one call at a time.
    #[test]
    fn deterministic(plan in any_plan(), sites in 1..=3usize, profile in any_profile(), order in any::<u64>()) {
        let map = map(&plan, sites);
        let Ok(groups) = create_groups(&map, &profile, 12, GroupId(7)) else { return Ok(()) };
        let (mut nodes, mut disks) = rows(&plan, sites);
        let key = |id: u32| (u64::from(id).wrapping_mul(order | 1), id);
        nodes.sort_by_key(|node| key(node.id.0));
        disks.sort_by_key(|disk| key(disk.id.0));
        let mut shuffled = placement::ClusterMap::new();
        nodes.into_iter().for_each(|node| shuffled.put_node(node));
        for disk in disks {
            shuffled.put_disk(placement::Disk { health: Health::Down, capacity_bytes: 5, ..disk.clone() }).unwrap();
            shuffled.put_disk(disk).unwrap();
        }
        prop_assert_eq!(&create_groups(&shuffled, &profile, 12, GroupId(7)).unwrap(), &groups);
        shuffled.put_profile(profile.clone()).unwrap();
        for group in &groups {
            let one = create_groups(&shuffled, &profile, 1, group.id).unwrap();
            prop_assert_eq!(one.first(), Some(group));
            put_all(&mut shuffled, &one);
        }
    }

    /// Where the domain does not bind, every disk has its share by capacity, give or take 4 slots.
    #[test]
    fn proportional_to_capacity(
        sizes in prop::collection::vec(1000..=4000u64, 30..=60),
        per_node in 1..=3usize,
        domain in prop_oneof![Just(FailureDomain::Disk), Just(FailureDomain::Node)],
        first in 0..1_000_000u32,
    ) {
        // Sizes differ within a node; nodes of equal total would make it too easy, so they are cut as they come.
        let nodes: Vec<Vec<DiskPlan>> = sizes.chunks(per_node).map(|c| c.iter().map(|s| (*s, Health::Up)).collect()).collect();
        let profile = profile(1, 2, 1, domain);
        let map = map(&vec![nodes], 1);
        let largest = map.nodes().keys().map(|n| map.disks_of(*n).map(|d| d.capacity_bytes).sum::<u64>()).max().unwrap();
        let total: u64 = map.disks().values().map(|d| d.capacity_bytes).sum();
        // A node takes one slot of a group at most, so its share may not be more than that.
        prop_assume!(largest * 3 <= total * 9 / 10);
        let groups = create_groups(&map, &profile, 600, GroupId(first)).unwrap();
        let counts = slots_by_disk(&groups);
        for disk in map.disks().values() {
            let share = 1800.0 * disk.capacity_bytes as f64 / total as f64;
            let got = counts.get(&disk.id).copied().unwrap_or_default() as f64;
            prop_assert!((got - share).abs() <= 4.0, "disk {} has {got} slots, its share is {share}", disk.id);
        }
    }

    /// Substitutes exist if and only if there are `k + m` healthy disks; they are flagged exactly when
    /// illegal, and use as many nodes as can be under the limit that they keep.
    #[test]
    fn substitutes_whenever_there_are_disks(plan in any_plan(), sites in 1..=3usize, profile in any_profile()) {
        let map = map(&plan, sites);
        let healthy = healthy_in(&map, FailureDomain::Disk).len();
        match create_substitutes(&map, &profile, 10, GroupId(1)) {
            Err(error) => {
                prop_assert!(healthy < profile.slots(), "{error}");
                prop_assert_eq!(error.shortage, Shortage::Disks { healthy });
            }
            Ok(groups) => {
                prop_assert!(healthy >= profile.slots());
                let legal = room(&map, &profile) >= profile.slots();
                for group in groups {
                    prop_assert_eq!(check_group(&map, &profile, &group.slots).is_ok(), legal);
                    prop_assert_eq!(group.below_policy, !legal);
                    let disks: BTreeSet<_> = group.slots.iter().map(|slot| slot.disk).collect();
                    prop_assert_eq!(disks.len(), profile.slots());
                    prop_assert!(disks.iter().all(|disk| map.disk_health(*disk) == Health::Up));
                }
            }
        }
    }

    /// Choosing what a group still needs completes it legally or fails, and accounts for every disk.
    #[test]
    fn choices_complete_and_account(plan in any_plan(), profile in any_profile(), keep in 0..4usize) {
        let map = map(&plan, 1);
        let Ok(groups) = create_groups(&map, &profile, 1, GroupId(9)) else { return Ok(()) };
        let kept: Vec<DiskId> = groups[0].slots.iter().map(|slot| slot.disk).take(keep).collect();
        let choice = choose_slots(&map, &profile, GroupId(9), &kept).unwrap();
        let slots: Vec<_> = kept.iter().chain(&choice.disks)
            .map(|disk| placement::Slot { disk: *disk, ..groups[0].slots[0] }).collect();
        prop_assert_eq!(check_group(&map, &profile, &slots), Ok(()));
        prop_assert_eq!(choice.rejected.listed.len() + choice.disks.len(), map.disks().len());
    }
}

/// Three racks, twelve equal disks, rs-4-2: each pair of disks of different racks shares a number of
/// groups near the mean, so a failure of three disks seldom meets a group, and repair reads from all.
#[test]
fn disk_sets_are_diverse() {
    for (nodes, disks, tilt) in [(4, 1, 0), (2, 2, 0), (4, 1, 1), (2, 2, 1)] {
        // With a tilt no two disks are of one size, so no two loads are ever equal.
        let mut plan = even(3, nodes, disks);
        for (n, disk) in plan.iter_mut().flatten().flatten().enumerate() {
            disk.0 += tilt * TB / 100 * u64::try_from(n).unwrap();
        }
        let map = map(&plan, 1);
        let groups = create_groups(&map, &profile(1, 4, 2, FailureDomain::Rack), 300, GroupId(1)).unwrap();
        let mut shared: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        for group in &groups {
            let disks = disks_of(group);
            for a in &disks {
                for b in disks.iter().filter(|b| a < b && (*a - 1) / 4 != (**b - 1) / 4) {
                    *shared.entry((*a, *b)).or_default() += 1;
                }
            }
        }
        // 300 groups with 12 pairs across racks each, over 48 pairs: 75 each on average.
        assert_eq!(shared.len(), 48, "{nodes} nodes, tilt {tilt}: some pairs never meet");
        for (pair, count) in &shared {
            assert!((45..=105).contains(count), "{nodes} nodes, tilt {tilt}: {pair:?} share {count} groups");
        }
        let sets: BTreeSet<Vec<u32>> = groups
            .iter()
            .map(|g| {
                let mut d = disks_of(g);
                d.sort_unstable();
                d
            })
            .collect();
        assert!(sets.len() > 50, "{nodes} nodes, tilt {tilt}: only {} distinct sets", sets.len());
    }
}

/// No disk is always data or always parity.
#[test]
fn disks_take_all_roles() {
    let mut plan = even(3, 4, 1);
    plan[0][0][0].0 *= 4;
    let groups =
        create_groups(&map(&plan, 1), &profile(1, 4, 2, FailureDomain::Rack), 300, GroupId(1)).unwrap();
    for disk in 1..=12 {
        let (mut data, mut all) = (0, 0);
        for group in groups.iter().map(disks_of) {
            all += group.iter().filter(|d| **d == disk).count();
            data += group[..4].iter().filter(|d| **d == disk).count();
        }
        assert!(data * 2 > all && data * 10 < all * 9, "disk {disk}: {data} data slots of {all}");
    }
}

/// The sentence tells what to add.
#[test]
fn shortages_tell_what_to_add() {
    let rs = profile(1, 4, 2, FailureDomain::Rack);
    let say = |map: &placement::ClusterMap, profile| {
        create_groups(map, profile, 1, GroupId(1)).unwrap_err().to_string()
    };
    assert_eq!(
        say(&map(&even(2, 2, 3), 1), &rs),
        "profile rs-4-2 wants 6 disks with at most 2 in one rack: that takes at least 3 racks; there are 2 \
         with a healthy disk: add 1 rack (disks considered: 12 possible but not best)"
    );
    let mut three = map(&even(3, 2, 1), 1);
    set_health(&mut three, DiskId(6), Health::Down);
    let text = say(&three, &rs);
    assert!(
        text.contains("have room for 5 of them; add disks to rack s0/r2 (has 1), or add a rack"),
        "{text}"
    );
    let by_disk = profile(1, 4, 2, FailureDomain::Disk);
    let text = say(&map(&even(1, 1, 4), 1), &by_disk);
    assert!(text.contains("profile rs-4-2 wants 6 disks; there are 4 healthy: add 2 disks"), "{text}");
    let text = say(&placement::ClusterMap::new(), &rs);
    assert!(text.contains("add"), "{text}");
}

/// Racks of the same label in two sites are two racks.
#[test]
fn racks_are_named_within_their_site() {
    let rs = profile(1, 2, 1, FailureDomain::Rack);
    // Four racks: r0 and r1 in each of two sites.
    let map = map(&even(4, 1, 1), 2);
    let groups = create_groups(&map, &rs, 50, GroupId(1)).unwrap();
    assert!(groups.iter().any(|group| {
        let racks: BTreeSet<_> =
            group.slots.iter().map(|s| map.nodes()[&map.disks()[&s.disk].node].rack.clone()).collect();
        racks.len() == 2
    }));
}

/// About as many slots a disk as asked for; ids that would overflow are refused.
#[test]
fn counts_and_ids() {
    let map = map(&even(3, 4, 1), 1);
    let rs = profile(1, 4, 2, FailureDomain::Rack);
    assert_eq!(groups_wanted(&map, &rs, SLOTS_PER_DISK), 200);
    assert_eq!(groups_wanted(&placement::ClusterMap::new(), &rs, SLOTS_PER_DISK), 1);
    let refused = create_groups(&map, &rs, 2, GroupId(u32::MAX)).unwrap_err();
    assert_eq!(refused.shortage, Shortage::GroupIds);
}

/// Two racks left of three: substitutes lie evenly over both, each slot on its own node.
#[test]
fn substitutes_spread_over_what_is_left() {
    let mut map = map(&even(3, 4, 2), 1);
    set_rack_health(&mut map, "s0", "r2", Health::Down);
    let rs = profile(1, 4, 2, FailureDomain::Rack);
    assert!(create_groups(&map, &rs, 1, GroupId(1)).is_err());
    for group in create_substitutes(&map, &rs, 50, GroupId(1)).unwrap() {
        let nodes: Vec<u32> = group.slots.iter().map(|s| map.disks()[&s.disk].node.0).collect();
        assert_eq!(nodes.iter().collect::<BTreeSet<_>>().len(), 6);
        assert_eq!(nodes.iter().filter(|node| **node <= 4).count(), 3);
        assert!(group.below_policy);
    }
}
