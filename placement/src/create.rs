//! New groups: how many, and on which disks.

use std::collections::{BTreeMap, BTreeSet};

use proto::{DiskId, GroupId, NodeId};

use crate::check::check_disks;
use crate::domain::{DomainRef, FailureDomain};
use crate::group::Group;
use crate::hash::{Purpose, rank};
use crate::map::ClusterMap;
use crate::pool::{Pool, Rule};
use crate::profile::Profile;
use crate::reject::{NoLegalPlace, Rejected, Shortage};

/// Slots that an average disk has of a profile: enough that a dead disk is rebuilt by many others at
/// once, few enough that the distinct sets of disks, any of which is lost by `m + 1` failures, stay few.
pub const SLOTS_PER_DISK: u32 = 100;

/// Disks that were chosen, and those that were not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The chosen ones, in the order of the slots.
    pub disks: Vec<DiskId>,
    /// All others, and why.
    pub rejected: Rejected,
}

/// How many groups of `profile` give the average disk `slots_per_disk` slots; at least 1. Disks that are
/// down count too: they will be back.
pub fn groups_wanted(map: &ClusterMap, profile: &Profile, slots_per_disk: u32) -> u32 {
    let disks = map.disks().values().filter(|disk| disk.capacity_bytes > 0).count();
    let slots = u64::try_from(disks).unwrap_or(u64::MAX).saturating_mul(slots_per_disk.into());
    let groups = slots.div_ceil(u64::try_from(profile.slots()).unwrap_or(u64::MAX));
    u32::try_from(groups).unwrap_or(u32::MAX).max(1)
}

/// Forms `count` legal groups with the ids from `first_id` on, in epoch 1. The map is not changed.
///
/// # Errors
///
/// When the healthy disks cannot keep the policy, or the ids run out: no group is formed then.
pub fn create_groups(
    map: &ClusterMap,
    profile: &Profile,
    count: u32,
    first_id: GroupId,
) -> Result<Vec<Group>, NoLegalPlace> {
    let rule = legal_rule(profile);
    if let Some(shortage) = shortage(map, profile, rule.domain) {
        return Err(refuse(map, profile, shortage));
    }
    form(map, profile, count, first_id, rule)
}

/// Forms `count` groups on what is left, when the failure domain cannot be kept: on different disks, on
/// as many nodes as there are, evenly over racks. The limit of `m` slots is kept for the outermost kind
/// of domain for which it can be. They are flagged as below policy, unless they are legal after all.
///
/// # Errors
///
/// When there are fewer than `k + m` healthy disks, or the ids run out.
pub fn create_substitutes(
    map: &ClusterMap,
    profile: &Profile,
    count: u32,
    first_id: GroupId,
) -> Result<Vec<Group>, NoLegalPlace> {
    let mut kind = profile.failure_domain();
    while shortage(map, profile, kind).is_some() {
        let Some(inner) = kind.inner() else {
            return Err(refuse(
                map,
                profile,
                Shortage::Disks { healthy: usable_disks(map, &BTreeSet::new()) },
            ));
        };
        kind = inner;
    }
    form(map, profile, count, first_id, Rule { domain: kind, even_racks: true, ..legal_rule(profile) })
}

/// Chooses the disks that a legal group still needs beside `kept`, and tells why the others were not.
///
/// # Errors
///
/// When there are too few that keep the policy.
pub fn choose_slots(
    map: &ClusterMap,
    profile: &Profile,
    group: GroupId,
    kept: &[DiskId],
) -> Result<Choice, NoLegalPlace> {
    let mut pool = Pool::new(map, profile.id());
    let mut draft = pool.draft(group, kept, &[]);
    let mut disks = Vec::new();
    for _ in kept.len()..profile.slots() {
        let Some(disk) = pool.pick(&mut draft, legal_rule(profile)) else {
            let short = shortage(map, profile, profile.failure_domain())
                .unwrap_or_else(|| Shortage::Slot(crate::group::slot_index(kept.len() + disks.len())));
            let rejected = Rejected::collect(map, profile, kept, &[], &disks);
            return Err(NoLegalPlace::new(profile, short, rejected));
        };
        disks.push(disk);
    }
    sort_slots(group, &mut disks);
    let rejected = Rejected::collect(map, profile, kept, &[], &disks);
    Ok(Choice { disks, rejected })
}

/// The rule of a group that keeps the policy.
pub(crate) fn legal_rule(profile: &Profile) -> Rule {
    Rule { domain: profile.failure_domain(), at_most: profile.m(), even_racks: false, beside: None }
}

/// Which disk is which slot: a lot, since data slots are read more than parity, and the emptiest disks
/// are always chosen first.
fn sort_slots(group: GroupId, disks: &mut [DiskId]) {
    disks.sort_by_key(|disk| (rank(Purpose::SlotOrder, group, disk.0), *disk));
}

fn form(
    map: &ClusterMap,
    profile: &Profile,
    count: u32,
    first_id: GroupId,
    rule: Rule,
) -> Result<Vec<Group>, NoLegalPlace> {
    let ids_used_up = || NoLegalPlace::new(profile, Shortage::GroupIds, Rejected::default());
    let end = first_id.0.checked_add(count).ok_or_else(ids_used_up)?;
    let mut pool = Pool::new(map, profile.id());
    (first_id.0..end)
        .map(|id| {
            let id = GroupId(id);
            let mut draft = pool.draft(id, &[], &[]);
            let picked = std::iter::from_fn(|| pool.pick(&mut draft, rule)).take(profile.slots());
            let mut disks: Vec<DiskId> = picked.collect();
            if disks.len() < profile.slots() {
                // The room was counted before; this is out of reach.
                return Err(refuse(map, profile, Shortage::Room { slots: disks.len(), small: Vec::new() }));
            }
            sort_slots(id, &mut disks);
            let below_policy = check_disks(map, profile, &disks).is_err();
            Ok(Group::new(id, profile.id(), &disks, below_policy))
        })
        .collect()
}

fn refuse(map: &ClusterMap, profile: &Profile, shortage: Shortage) -> NoLegalPlace {
    NoLegalPlace::new(profile, shortage, Rejected::collect(map, profile, &[], &[], &[]))
}

fn usable_disks(map: &ClusterMap, without: &BTreeSet<DiskId>) -> usize {
    map.nodes().keys().map(|node| usable_on(map, *node, without)).sum()
}

fn usable_on(map: &ClusterMap, node: NodeId, without: &BTreeSet<DiskId>) -> usize {
    let usable = map.node_use(node).map_or(0, |totals| totals.usable);
    if without.is_empty() || usable == 0 {
        return usable;
    }
    map.disks_of(node).filter(|disk| map.is_usable(disk) && !without.contains(&disk.id)).count()
}

fn shortage(map: &ClusterMap, profile: &Profile, kind: FailureDomain) -> Option<Shortage> {
    shortage_without(map, profile, kind, &BTreeSet::new())
}

/// What is missing for a group with at most `m` slots in one domain of `kind`, were the disks in `without`
/// not there. A domain has room for the lesser of `m` and its healthy disks; a group fits exactly when the
/// sum of that reaches `k + m`, and whichever disk with room is taken first, the rest still fits.
pub(crate) fn shortage_without(
    map: &ClusterMap,
    profile: &Profile,
    kind: FailureDomain,
    without: &BTreeSet<DiskId>,
) -> Option<Shortage> {
    let healthy = usable_disks(map, without);
    if healthy < profile.slots() && (kind == FailureDomain::Disk || healthy == 0) {
        return Some(Shortage::Disks { healthy });
    }
    if kind == FailureDomain::Disk {
        return None;
    }
    let mut usable_in: BTreeMap<DomainRef<'_>, usize> = BTreeMap::new();
    for node in map.nodes().values() {
        let usable = usable_on(map, node.id, without);
        if usable > 0 {
            let domain = match kind {
                FailureDomain::Disk | FailureDomain::Node => DomainRef::Node(node.id),
                FailureDomain::Rack => DomainRef::Rack(&node.site, &node.rack),
                FailureDomain::Site => DomainRef::Site(&node.site),
            };
            *usable_in.entry(domain).or_default() += usable;
        }
    }
    let at_most = profile.m();
    let room: usize = usable_in.values().map(|usable| at_most.min(*usable)).sum();
    let needed = profile.slots().div_ceil(at_most);
    if room >= profile.slots() {
        None
    } else if usable_in.len() < needed {
        Some(Shortage::Domains { needed, healthy: usable_in.len() })
    } else {
        let small = usable_in.into_iter().filter(|(_, usable)| *usable < at_most);
        Some(Shortage::Room {
            slots: room,
            small: small.map(|(domain, usable)| (domain.to_domain(), usable)).collect(),
        })
    }
}
