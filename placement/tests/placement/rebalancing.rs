//! Evening out: legal at each step, few bytes, near the mean, and an end.

use std::collections::{BTreeMap, BTreeSet};

use placement::{
    ClusterMap, Disk, Duty, FailureDomain, Goal, Group, Health, Plan, PlannedMove, Profile, Rebalance, Room,
    SLOTS_PER_DISK, SlotState, StuckBy, apply_move, check_group, create_groups, create_substitutes,
    groups_wanted, slot_rebuilt,
};
use proptest::prelude::*;
use proto::{DiskId, GroupId, ProfileId};

use crate::common::{Plan as Layout, *};

type Bytes = BTreeMap<GroupId, u64>;

fn ask<T>(
    map: &ClusterMap,
    bytes: &Bytes,
    barred: &BTreeSet<DiskId>,
    then: impl Fn(Rebalance<'_>) -> T,
) -> T {
    let bytes = |group: GroupId| bytes[&group];
    then(Rebalance { map, bytes: &bytes, barred, goal: Goal::default() })
}

fn plan(map: &ClusterMap, bytes: &Bytes) -> Plan {
    ask(map, bytes, &BTreeSet::new(), |ask| ask.plan())
}

/// As many groups as a cluster of this size gets.
fn form(map: &mut ClusterMap, profile: &Profile) {
    map.put_profile(profile.clone()).unwrap();
    let count = groups_wanted(map, profile, SLOTS_PER_DISK);
    let groups = create_groups(map, profile, count, GroupId(1)).unwrap();
    put_all(map, &groups);
}

/// Nodes and disks of `after` that `map` does not have yet.
fn join(map: &mut ClusterMap, after: &Layout) {
    let (nodes, disks) = rows(after, 1);
    nodes
        .into_iter()
        .filter(|node| !map.nodes().contains_key(&node.id))
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|node| map.put_node(node));
    let new: Vec<Disk> = disks.into_iter().filter(|disk| !map.disks().contains_key(&disk.id)).collect();
    new.into_iter().for_each(|disk| map.put_disk(disk).unwrap());
}

/// Bytes by group so that the usable disks are filled to `permille`, in the proportions `weights`.
fn fill(map: &ClusterMap, permille: u64, weights: impl Fn(u32) -> u64) -> Bytes {
    let capacity: u64 = map.disks().values().map(|disk| disk.capacity_bytes).sum();
    let total: u64 = map.groups().values().map(|group| weights(group.id.0) * group.slots.len() as u64).sum();
    let unit = capacity / 1000 * permille / total.max(1);
    map.groups().keys().map(|group| (*group, weights(group.0) * unit)).collect()
}

fn used(map: &ClusterMap, bytes: &Bytes) -> BTreeMap<DiskId, u64> {
    let mut used: BTreeMap<DiskId, u64> =
        map.disks().values().filter(|disk| map.is_usable(disk)).map(|disk| (disk.id, 0)).collect();
    for group in map.groups().values() {
        for slot in &group.slots {
            if let Some(used) = used.get_mut(&slot.disk) {
                *used += bytes[&group.id];
            }
        }
    }
    used
}

/// Of each usable disk, its distance from the mean, in thousandths of its capacity.
fn distances(map: &ClusterMap, bytes: &Bytes) -> BTreeMap<DiskId, i64> {
    let used = used(map, bytes);
    let capacity = |disk: &DiskId| i128::from(map.disks()[disk].capacity_bytes);
    let total: i128 = used.values().map(|used| i128::from(*used)).sum();
    let all: i128 = used.keys().map(capacity).sum();
    let mean = total * 1_000_000 / all.max(1);
    used.iter()
        .map(|(disk, used)| {
            (*disk, i64::try_from((i128::from(*used) * 1_000_000 / capacity(disk) - mean) / 1000).unwrap())
        })
        .collect()
}

/// Sum of squared distances from the mean, weighed by capacity.
fn potential(map: &ClusterMap, bytes: &Bytes) -> f64 {
    let used = used(map, bytes);
    let capacity = |disk: &DiskId| map.disks()[disk].capacity_bytes as f64;
    let mean = used.values().map(|used| *used as f64).sum::<f64>() / used.keys().map(capacity).sum::<f64>();
    used.iter().map(|(disk, used)| (*used as f64 - mean * capacity(disk)).powi(2) / capacity(disk)).sum()
}

fn begin(map: &mut ClusterMap, planned: &PlannedMove) {
    let group = map.groups()[&planned.group].clone();
    let profile = map.profiles()[&group.profile].clone();
    assert_eq!(group.slot(planned.step.slot).unwrap().disk, planned.step.from);
    let after = apply_move(map, &group, planned.step.slot, planned.step.to).unwrap();
    let was_legal = check_group(map, &profile, &group.slots).is_ok();
    assert!(!was_legal || check_group(map, &profile, &after.slots).is_ok(), "{planned:?}");
    map.put_group(after).unwrap();
}

fn finish(map: &mut ClusterMap, planned: &PlannedMove) {
    let after = slot_rebuilt(&map.groups()[&planned.group], planned.step.slot).unwrap();
    map.put_group(after).unwrap();
}

/// Carries the plan out, move by move.
fn carry_out(map: &mut ClusterMap, plan: &Plan, bytes: &Bytes) {
    let mut moved = BTreeSet::new();
    for planned in &plan.moves {
        assert_eq!(planned.bytes, bytes[&planned.group]);
        assert!(moved.insert((planned.group, planned.step.slot)), "moves twice: {planned:?}");
        begin(map, planned);
        finish(map, planned);
    }
    assert_eq!(plan.bytes, plan.moves.iter().map(|planned| planned.bytes).sum::<u64>());
}

/// As the healer does: asks again and again, while moves are under way and end in some order.
fn carry_out_in_rounds(map: &mut ClusterMap, bytes: &Bytes, seed: u64) -> Vec<PlannedMove> {
    let (mut done, mut under_way) = (Vec::new(), Vec::<PlannedMove>::new());
    for round in 0..100_000u64 {
        let is_free = |_: &Group| true;
        let room = Room { moves: 24usize.saturating_sub(under_way.len()), per_disk: 2, is_free: &is_free };
        let next = ask(map, bytes, &BTreeSet::new(), |ask| ask.next_moves(room));
        let groups: BTreeSet<GroupId> = next.iter().chain(&under_way).map(|planned| planned.group).collect();
        assert_eq!(groups.len(), next.len() + under_way.len(), "two slots of a group at a time");
        next.iter().for_each(|planned| begin(map, planned));
        under_way.extend(next);
        for disk in map.disks().keys() {
            let of = |end: fn(&PlannedMove) -> DiskId| under_way.iter().filter(|p| end(p) == *disk).count();
            assert!(of(|p| p.step.from) <= 2 && of(|p| p.step.to) <= 2);
        }
        if under_way.is_empty() {
            return done;
        }
        let first =
            usize::try_from((seed ^ round.wrapping_mul(0x9e37_79b9)) % under_way.len() as u64).unwrap();
        for planned in under_way.drain(first..).collect::<Vec<_>>() {
            finish(map, &planned);
            done.push(planned);
        }
    }
    panic!("no end");
}

fn assert_within(map: &ClusterMap, bytes: &Bytes, points: i64, case: &str) {
    for (disk, permille) in distances(map, bytes) {
        assert!(permille.abs() <= points * 10, "{case}: disk {disk} is {permille} ‰ from the mean");
    }
}

/// What the issue promises: one node joins N equal ones; at most 1.1 / (N + 1) of the data moves, and each
/// disk ends within three points of the mean. Then nothing is left to do.
#[test]
fn a_node_joins() {
    for (k, m) in [(4, 2), (8, 4)] {
        for nodes in 3..=12 {
            for permille in [20, 500, 850] {
                let case = format!("rs-{k}-{m} on {nodes} nodes at {permille} permille");
                let profile = profile(1, k, m, FailureDomain::Node);
                let mut map = map(&even(1, nodes, 4), 1);
                form(&mut map, &profile);
                let bytes = fill(&map, permille, |_| 1);
                join(&mut map, &even(1, nodes + 1, 4));
                let total: u64 = used(&map, &bytes).values().sum();
                let bound = total / 10 * 11 / (nodes as u64 + 1);

                let mut stepwise = map.clone();
                let plan = plan(&map, &bytes);
                carry_out(&mut map, &plan, &bytes);
                assert!(plan.bytes <= bound, "{case}: {} moved of {total}, {bound} are allowed", plan.bytes);
                assert_eq!(plan.stuck, None, "{case}");
                assert_within(&map, &bytes, 3, &case);
                let again = self::plan(&map, &bytes);
                assert_eq!((again.moves.len(), again.before), (0, plan.after), "{case}");
                assert!(again.before.outside == 0 && plan.before.outside > 0 || permille == 20, "{case}");

                if permille == 500 {
                    let done = carry_out_in_rounds(&mut stepwise, &bytes, nodes as u64);
                    let moved: u64 = done.iter().map(|planned| planned.bytes).sum();
                    assert!(moved <= bound, "{case}: {moved} moved in rounds, {bound} are allowed");
                    assert_within(&stepwise, &bytes, 3, &case);
                }
            }
        }
    }
}

/// Groups that differ a hundredfold, and disks of several sizes: near the mean all the same.
#[test]
fn uneven_groups_and_disks() {
    let sizes = |node: usize| vec![((4 + 4 * (node as u64 % 4)) * TB, Health::Up); 3 + node % 3];
    for (k, m, nodes) in [(4, 2, 8), (8, 4, 10), (2, 1, 5)] {
        for permille in [300, 700] {
            let case = format!("rs-{k}-{m} on {nodes} nodes at {permille} permille");
            let profile = profile(1, k, m, FailureDomain::Node);
            let before: Layout = vec![(0..nodes).map(sizes).collect()];
            let mut map = map(&before, 1);
            form(&mut map, &profile);
            let bytes =
                fill(&map, permille, |group| 1 + u64::from(group.wrapping_mul(2_654_435_761) >> 16) % 100);
            join(&mut map, &vec![(0..nodes + 2).map(sizes).collect()]);
            let mut stepwise = map.clone();
            let plan = plan(&map, &bytes);
            carry_out(&mut map, &plan, &bytes);
            assert_eq!(plan.stuck, None, "{case}: {} -> {}", plan.before, plan.after);
            assert_within(&map, &bytes, 3, &case);
            assert_eq!(self::plan(&map, &bytes).moves, [], "{case}");
            carry_out_in_rounds(&mut stepwise, &bytes, 7);
            assert_within(&stepwise, &bytes, 3, &case);
        }
    }
}

/// Slots without a byte even the number of slots, for nothing; with some bytes, only they do.
#[test]
fn empty_slots_spread() {
    for empty in [1, 2] {
        let profile = profile(1, 4, 2, FailureDomain::Node);
        let mut map = map(&even(1, 9, 3), 1);
        form(&mut map, &profile);
        join(&mut map, &even(1, 10, 3));
        let bytes: Bytes =
            map.groups().keys().map(|group| (*group, u64::from(group.0 % empty) * TB / 1000)).collect();
        let mut stepwise = map.clone();
        let plan = plan(&map, &bytes);
        carry_out(&mut map, &plan, &bytes);
        let moved = plan.moves.iter().filter(|planned| planned.bytes == 0).count();
        assert!(moved > 0 && (empty > 1 || plan.bytes == 0));
        carry_out_in_rounds(&mut stepwise, &bytes, 3);
        for map in [&map, &stepwise] {
            // 90 is the share.
            let slots: Vec<u64> = map.disks().keys().map(|disk| map.slots_on(*disk)).collect();
            assert!(slots.iter().all(|slots| (80..=100).contains(slots)), "{slots:?}");
            assert_within(map, &bytes, 3, "half empty");
        }
    }
}

/// Where the racks bind, a rack evens out what it has, and the plan says what keeps the rest.
#[test]
fn racks_bind() {
    let profile = profile(1, 4, 2, FailureDomain::Rack);
    let mut map = map(&even(3, 2, 4), 1);
    form(&mut map, &profile);
    let bytes = fill(&map, 600, |_| 1);
    // A third node in the third rack.
    let mut after = even(3, 2, 4);
    after[2].push(vec![(12 * TB, Health::Up); 4]);
    join(&mut map, &after);
    let plan = plan(&map, &bytes);
    carry_out(&mut map, &plan, &bytes);
    assert_eq!(plan.stuck.map(|stuck| stuck.why), Some(StuckBy::FailureDomains));
    let distances = distances(&map, &bytes);
    let in_third: Vec<i64> = (17..=28).map(|disk| distances[&DiskId(disk)]).collect();
    let (low, high) = (in_third.iter().min().unwrap(), in_third.iter().max().unwrap());
    assert!(high - low <= 60, "{in_third:?}");
    assert_eq!(self::plan(&map, &bytes).moves, []);
}

/// A group gets no more slots on one node than it had where the slot came from: nodes stay as even as they
/// were formed, though the policy would allow more.
#[test]
fn nodes_stay_even() {
    for (nodes, per_node) in [(6, 1), (3, 2), (4, 2)] {
        let profile = profile(1, 4, 2, FailureDomain::Disk);
        let mut map = map(&even(1, nodes, 6), 1);
        form(&mut map, &profile);
        let bytes = fill(&map, 500, |group| 1 + u64::from(group % 7));
        join(&mut map, &even(1, nodes + 1, 6));
        let plan = plan(&map, &bytes);
        assert!(!plan.moves.is_empty());
        carry_out(&mut map, &plan, &bytes);
        for group in map.groups().values() {
            let mut on_node: BTreeMap<_, usize> = BTreeMap::new();
            for slot in &group.slots {
                *on_node.entry(map.disks()[&slot.disk].node).or_default() += 1;
            }
            assert!(on_node.values().all(|slots| *slots <= per_node), "{nodes}: {on_node:?}");
        }
    }
}

/// Few large slots cannot be evened, and the plan says so; and a plan that need not move does not.
#[test]
fn large_slots() {
    let profile = profile(1, 1, 1, FailureDomain::Node);
    let mut map = map(&even(1, 3, 1), 1);
    map.put_profile(profile.clone()).unwrap();
    let groups = create_groups(&map, &profile, 2, GroupId(1)).unwrap();
    put_all(&mut map, &groups);
    let bytes: Bytes = map.groups().keys().map(|group| (*group, 3 * TB)).collect();
    let plan = plan(&map, &bytes);
    assert_eq!(plan.moves, [], "{plan:?}");
    assert_eq!(plan.stuck.map(|stuck| stuck.why), Some(StuckBy::SlotSize));
    assert_eq!(plan.before.spread_permille(), 250);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the cluster: each move passes the gate, touches usable disks only and no barred one as its
    /// target, lowers the squares if it has bytes, and the plan made anew is empty.
    #[test]
    fn always_legal(
        plan in any_plan(), sites in 1..=3usize, profile in any_profile(), count in 1..40u32,
        weights in prop::collection::vec(prop_oneof![1 => Just(0u64), 4 => 1..100u64], 40),
        barred in prop::collection::btree_set(1..20u32, 0..4), duties in prop::collection::vec(any::<bool>(), 5), joins in any_plan(),
        seed in any::<u64>(),
    ) {
        let mut map = map(&plan, sites);
        map.put_profile(profile.clone()).unwrap();
        let groups = create_groups(&map, &profile, count, GroupId(1));
        let Ok(groups) = groups.or_else(|_| create_substitutes(&map, &profile, count, GroupId(1))) else { return Ok(()) };
        put_all(&mut map, &groups);
        let mut after = plan;
        after.extend(joins);
        join(&mut map, &after);
        for (disk, draining) in duties.iter().enumerate() {
            if let Some(disk) = map.disks().get(&DiskId(u32::try_from(3 * disk + 1).unwrap())).filter(|_| *draining).cloned() {
                map.put_disk(Disk { duty: Duty::Draining, ..disk }).unwrap();
            }
        }
        let bytes: Bytes = map.groups().keys().map(|group| (*group, weights[group.0 as usize % 40] * TB / 200)).collect();
        let barred: BTreeSet<DiskId> = barred.into_iter().map(DiskId).collect();
        let usable = |map: &ClusterMap, disk: DiskId| map.is_usable(&map.disks()[&disk]);
        let made = ask(&map, &bytes, &barred, |ask| ask.plan());
        let mut moved = BTreeSet::new();
        for planned in &made.moves {
            prop_assert!(usable(&map, planned.step.from) && usable(&map, planned.step.to));
            prop_assert!(!barred.contains(&planned.step.to));
            prop_assert!(moved.insert((planned.group, planned.step.slot)));
            let before = potential(&map, &bytes);
            begin(&mut map, planned);
            prop_assert!(planned.bytes == 0 || potential(&map, &bytes) < before, "{planned:?}");
            finish(&mut map, planned);
        }
        let again = ask(&map, &bytes, &barred, |ask| ask.plan());
        prop_assert_eq!(again.before, made.after);
        prop_assert!(made.stuck.is_some() == (made.after.outside > 0));
        if barred.is_empty() {
            // Slots that moved in the first plan may move in the second; never for long.
            let done = carry_out_in_rounds(&mut map, &bytes, seed);
            prop_assert!(done.len() <= made.moves.len() + 20, "{} after {}", done.len(), made.moves.len());
        }
    }

    /// While slots are under way or disks away, only groups that are well begin.
    #[test]
    fn only_well_groups_begin(sick in 1..12u32, down in 1..16u32) {
        let profile = profile(1, 2, 1, FailureDomain::Node);
        let mut map = map(&even(1, 4, 4), 1);
        form(&mut map, &profile);
        let bytes = fill(&map, 500, |_| 1);
        join(&mut map, &even(1, 5, 4));
        set_health(&mut map, DiskId(down), Health::Down);
        let is_free = |group: &Group| group.id.0 % 12 != sick;
        let next = ask(&map, &bytes, &BTreeSet::new(), |ask| ask.next_moves(Room { moves: 50, per_disk: 9, is_free: &is_free }));
        prop_assert_eq!(next.len(), 36, "nine for each new disk");
        for planned in next {
            let group = &map.groups()[&planned.group];
            prop_assert!(is_free(group) && group.disks().all(|disk| disk.0 != down));
            prop_assert!(group.slots.iter().all(|slot| slot.state == SlotState::Whole));
        }
        let none = ask(&map, &bytes, &BTreeSet::new(), |ask| ask.next_moves(Room { moves: 50, per_disk: 0, is_free: &is_free }));
        prop_assert_eq!(none, []);
    }
}

proptest! {
    /// Capacities and bytes as large as they can be told neither stop nor hold it.
    #[test]
    fn absurd_numbers(
        capacities in prop::collection::vec(prop_oneof![Just(u64::MAX), Just(1u64), any::<u64>()], 6),
        sizes in prop::collection::vec(prop_oneof![Just(u64::MAX), Just(0u64), Just(1u64), any::<u64>()], 12),
    ) {
        let profile = profile(1, 2, 1, FailureDomain::Node);
        let mut map = map(&capacities.into_iter().map(|bytes| vec![vec![(bytes, Health::Up)]]).collect(), 1);
        map.put_profile(profile.clone()).unwrap();
        let Ok(groups) = create_groups(&map, &profile, 12, GroupId(0)) else { return Ok(()) };
        put_all(&mut map, &groups);
        let bytes: Bytes = map.groups().keys().map(|group| (*group, sizes[group.0 as usize])).collect();
        for planned in plan(&map, &bytes).moves {
            begin(&mut map, &planned);
            finish(&mut map, &planned);
        }
        let node = BTreeSet::from([DiskId(1)]);
        let used = map.disks().keys().map(|disk| (*disk, u64::MAX)).collect();
        let _ = placement::can_leave(&map, &node, &|group| bytes[&group], &used, u32::MAX);
    }
}

/// A full disk takes nothing, and gives.
#[test]
fn barred_disks_give() {
    let profile = profile(1, 2, 1, FailureDomain::Node);
    let mut map = map(&even(1, 4, 4), 1);
    form(&mut map, &profile);
    let bytes = fill(&map, 800, |_| 1);
    join(&mut map, &even(1, 5, 4));
    let barred = BTreeSet::from([DiskId(1), DiskId(17)]);
    let plan = ask(&map, &bytes, &barred, |ask| ask.plan());
    carry_out(&mut map, &plan, &bytes);
    assert!(plan.moves.iter().any(|planned| planned.step.from == DiskId(1)));
    assert!(plan.moves.iter().all(|planned| !barred.contains(&planned.step.to)));
    let stuck = plan.stuck.unwrap();
    assert_eq!((stuck.disk, stuck.why), (DiskId(17), StuckBy::Barred), "{stuck}");
    assert_eq!(map.profiles()[&ProfileId(1)], profile);
}
