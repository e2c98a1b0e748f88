//! A tenth of the largest cluster: 150 000 groups of twelve slots on 18 000 disks.

use std::collections::BTreeSet;
use std::time::Instant;

use placement::{ClusterMap, FailureDomain, Goal, Group, Rebalance, Room, can_leave, create_groups};
use proto::{DiskId, GroupId};

use crate::common::*;

/// Prints how long it took; nothing depends on it.
#[allow(clippy::disallowed_methods)]
fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = run();
    eprintln!("{what}: {} ms", begin.elapsed().as_millis());
    result
}

/// Racks of 20 nodes of 18 disks.
fn cluster(racks: usize, sites: usize) -> ClusterMap {
    map(&even(racks, 20, 18), sites)
}

/// A whole rack joins 49: the planner keeps its promises, and prints how long it took.
#[test]
#[ignore = "takes a minute; prints what it measures"]
fn a_rack_joins() {
    let profile = profile(1, 8, 4, FailureDomain::Rack);
    let mut small = cluster(49, 1);
    small.put_profile(profile.clone()).unwrap();
    let groups = timed("create", || create_groups(&small, &profile, 150_000, GroupId(1)).unwrap());
    drop(small);
    let mut map = cluster(50, 1);
    map.put_profile(profile).unwrap();
    put_all(&mut map, &groups);
    // Up to a hundredfold.
    let bytes = |group: GroupId| TB / 1000 * (1 + u64::from(group.0.wrapping_mul(2_654_435_761) >> 16) % 100);
    let barred = BTreeSet::new();
    let ask = Rebalance { map: &map, bytes: &bytes, barred: &barred, goal: Goal::default() };
    let plan = timed("plan", || ask.plan());
    let total: u64 = groups.iter().map(|group| 12 * bytes(group.id)).sum();
    eprintln!(
        "{} moves, {} permille of the bytes; {} -> {}",
        plan.moves.len(),
        plan.bytes / (total / 1000),
        plan.before,
        plan.after
    );
    assert_eq!((plan.stuck, plan.after.outside), (None, 0));
    let is_free = |_: &Group| true;
    let next = timed("next moves", || ask.next_moves(Room { moves: 64, per_disk: 2, is_free: &is_free }));
    assert_eq!(next.len(), 64);
    let node: BTreeSet<DiskId> = (1..=18).map(DiskId).collect();
    let drain = timed("can a node leave", || can_leave(&map, &node, &bytes, &Default::default(), 900));
    eprintln!("{drain:?}");
    assert!(drain.is_ok());
}

/// A rack joins one of three sites, each of which has as many slots of each group as it may: hardly any slot
/// may go where the space is.
#[test]
#[ignore = "takes a minute; prints what it measures"]
fn a_rack_joins_where_sites_bind() {
    let profile = profile(1, 8, 4, FailureDomain::Site);
    let mut small = cluster(48, 3);
    small.put_profile(profile.clone()).unwrap();
    let groups = create_groups(&small, &profile, 150_000, GroupId(1)).unwrap();
    drop(small);
    let mut map = cluster(49, 3);
    map.put_profile(profile).unwrap();
    put_all(&mut map, &groups);
    let bytes = |_: GroupId| TB / 20;
    let barred = BTreeSet::new();
    let ask = Rebalance { map: &map, bytes: &bytes, barred: &barred, goal: Goal::default() };
    let is_free = |_: &Group| true;
    let next = timed("next moves", || ask.next_moves(Room { moves: 64, per_disk: 2, is_free: &is_free }));
    assert_eq!(next.len(), 64);
    let plan = timed("plan", || ask.plan());
    eprintln!("{} moves; {} -> {}", plan.moves.len(), plan.before, plan.after);
    let stuck = plan.stuck.map(|stuck| stuck.why);
    assert!(stuck.is_none_or(|why| why == placement::StuckBy::FailureDomains), "{stuck:?}");
}
