use std::collections::BTreeSet;

use placement::{
    Domain, FailureDomain, Health, Slot, SlotState, Tolerance, create_groups, create_substitutes, may_lose,
    tolerance, tolerance_of_written,
};
use proptest::prelude::*;
use proto::{DiskId, Epoch, GroupId};

use crate::common::*;

/// The largest `n` such that every set of `n` of the domains can be lost: tries all subsets.
fn brute_force(k: usize, shards: &[Domain]) -> u32 {
    let domains: Vec<&Domain> = shards.iter().collect::<BTreeSet<_>>().into_iter().collect();
    let mut best = u32::try_from(domains.len()).unwrap();
    for lost in 0u32..1 << domains.len() {
        let gone =
            |domain: &Domain| domains.iter().position(|d| *d == domain).is_some_and(|at| lost >> at & 1 == 1);
        if shards.iter().filter(|shard| !gone(shard)).count() < k {
            best = best.min(lost.count_ones().saturating_sub(1));
        }
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// As a search over all subsets of domains finds, for groups with lost, missing and moving slots.
    #[test]
    fn as_brute_force_finds(
        plan in any_plan(), sites in 1..=2usize, profile in any_profile(), missing in 0..64u32,
        states in prop::collection::vec((0..6u8, 1..=3u64, any_health()), 10),
    ) {
        let healthy: Vec<Vec<Vec<DiskPlan>>> =
            plan.iter().map(|r| r.iter().map(|n| n.iter().map(|d| (d.0.max(1), Health::Up)).collect()).collect()).collect();
        let mut map = map(&healthy, sites);
        let Ok(groups) = create_substitutes(&map, &profile, 1, GroupId(3)) else { return Ok(()) };
        map.put_profile(profile.clone()).unwrap();
        let mut group = groups[0].clone();
        let used: BTreeSet<DiskId> = group.disks().collect();
        let mut spare: Vec<DiskId> = map.disks().keys().copied().filter(|d| !used.contains(d)).collect();
        let mut shards = Vec::new();
        for (place, (state, since, health)) in states.iter().enumerate().take(profile.slots()) {
            let slot = &mut group.slots[place];
            slot.since_epoch = Epoch(*since);
            set_health(&mut map, slot.disk, *health);
            let holder = match state {
                0 => { slot.state = SlotState::Rebuilding { source: None }; None }
                1 if !spare.is_empty() => {
                    let source = spare.pop();
                    slot.state = SlotState::Rebuilding { source };
                    source
                }
                _ => Some(slot.disk),
            };
            let gone = missing >> place & 1 == 1;
            if let Some(disk) = holder && !gone && map.disk_health(disk) != Health::Down { shards.push(disk); }
        }
        let found = tolerance(&map, &profile, &group.slots, missing);
        let domains = |kind| shards.iter().map(|d| map.domain_of(kind, *d).unwrap()).collect::<Vec<_>>();
        let of = |kind| brute_force(profile.k(), &domains(kind));
        prop_assert_eq!(found.readable, shards.len() >= profile.k());
        if found.readable {
            prop_assert_eq!(found.disks, of(FailureDomain::Disk));
            prop_assert_eq!(found.nodes, of(FailureDomain::Node));
            prop_assert_eq!(found.racks, of(FailureDomain::Rack));
            prop_assert!(found.disks >= found.nodes && found.nodes >= found.racks);
        } else {
            prop_assert_eq!(found, Tolerance { disks: 0, nodes: 0, racks: 0, readable: false });
        }
        if missing == 0 {
            for kind in [FailureDomain::Disk, FailureDomain::Node, FailureDomain::Rack, FailureDomain::Site] {
                for domain in domains(kind) {
                    let left = domains(kind).iter().filter(|d| **d != domain).count();
                    prop_assert_eq!(may_lose(&map, &group, &domain), left >= profile.k());
                }
            }
        }
    }
}

/// The promise of D1: a legal group withstands the loss of any one domain of the profile's kind.
#[test]
fn a_legal_group_withstands_a_domain() {
    let mut map = map(&even(3, 4, 1), 1);
    let rs = profile(1, 4, 2, FailureDomain::Rack);
    map.put_profile(rs.clone()).unwrap();
    for group in create_groups(&map, &rs, 50, GroupId(1)).unwrap() {
        let now = tolerance(&map, &rs, &group.slots, 0);
        assert_eq!(now, Tolerance { disks: 2, nodes: 2, racks: 1, readable: true });
        let rack = map.domain_of(FailureDomain::Rack, group.slots[0].disk).unwrap();
        assert!(may_lose(&map, &group, &rack));
    }
}

/// What was written since a slot moved counts on its new disk; what is older, at the source.
#[test]
fn the_epoch_of_writing_counts() {
    let map = map(&even(1, 4, 1), 1);
    let code = profile(1, 2, 1, FailureDomain::Node);
    let slot = |disk, state, since| Slot { disk: DiskId(disk), state, since_epoch: Epoch(since), task: None };
    let slots = [
        slot(1, SlotState::Whole, 1),
        slot(2, SlotState::Whole, 1),
        slot(3, SlotState::Rebuilding { source: None }, 5),
    ];
    assert_eq!(tolerance(&map, &code, &slots, 0).disks, 0);
    assert_eq!(tolerance_of_written(&map, &code, &slots, 0, Epoch(4)).disks, 0);
    assert_eq!(tolerance_of_written(&map, &code, &slots, 0, Epoch(5)).disks, 1);
    assert_eq!(tolerance_of_written(&map, &code, &slots, 0b100, Epoch(5)).disks, 0);
    assert!(!tolerance(&map, &code, &slots, 0b001).readable);
    let both = tolerance(&map, &code, &slots, 0).min_of(Tolerance::UNLIMITED);
    assert_eq!(both, tolerance(&map, &code, &slots, 0));
}
