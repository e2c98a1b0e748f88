//! The answer to "why here?".

use std::cmp::Ordering;
use std::fmt;

use proto::{ByteSize, DiskId, Epoch, GroupId, NodeId, ProfileName, SlotIndex};
use serde::Serialize;

use crate::check::{Violation, check_group};
use crate::domain::{Domain, DomainRef};
use crate::group::{Group, Slot, SlotState, slot_index};
use crate::map::ClusterMap;
use crate::pool::disk_load;
use crate::profile::Profile;
use crate::tolerance::{Tolerance, tolerance};
use crate::topology::Health;

/// A group, and why it lies where it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The group.
    pub group: GroupId,
    /// Its profile.
    pub profile: ProfileName,
    /// Its epoch.
    pub epoch: Epoch,
    /// The rule that it was placed by.
    pub rule: String,
    /// Flagged as below policy.
    pub below_policy: bool,
    /// What it breaks of the rule now.
    pub violations: Vec<Violation>,
    /// What may be lost now.
    pub tolerance: Tolerance,
    /// Its slots.
    pub slots: Vec<SlotExplanation>,
}

/// A slot, and why it lies where it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlotExplanation {
    /// The slot.
    pub slot: SlotIndex,
    /// What its disk holds.
    pub state: SlotState,
    /// Since when the disk has it.
    pub since_epoch: Epoch,
    /// The disk.
    pub disk: DiskId,
    /// Its name on the node.
    pub disk_name: String,
    /// The node.
    pub node: NodeId,
    /// The site.
    pub site: String,
    /// The rack.
    pub rack: String,
    /// The health of disk and node, the worse of both.
    pub health: Health,
    /// The disk's size.
    pub capacity_bytes: u64,
    /// Slots of this profile on the disk.
    pub profile_slots: u64,
    /// Slots of all profiles on the disk.
    pub slots_total: u64,
    /// 1 for the disk that is filled least with slots of this profile, in proportion to its size.
    pub fill_rank: usize,
    /// Of so many disks that are up, this one included.
    pub fill_ranked: usize,
    /// The slot's failure domain, of the profile's kind.
    pub domain: Option<Domain>,
    /// Slots of the group in that domain.
    pub domain_slots: usize,
    /// All of that in a sentence.
    pub why: String,
}

/// Explains `group`; `None` when the map does not know its profile. Walks all disks once for each slot:
/// made for people, not for `apply`.
pub fn explain(map: &ClusterMap, group: &Group) -> Option<Explanation> {
    let profile = map.profiles().get(&group.profile)?;
    let slots = group.slots.iter().enumerate();
    Some(Explanation {
        group: group.id,
        profile: profile.name().clone(),
        epoch: group.epoch,
        rule: rule(profile),
        below_policy: group.below_policy,
        violations: check_group(map, profile, &group.slots).err().unwrap_or_default(),
        tolerance: tolerance(map, profile, &group.slots, 0),
        slots: slots
            .map(|(place, slot)| explain_slot(map, profile, group, slot_index(place), slot))
            .collect(),
    })
}

fn rule(profile: &Profile) -> String {
    let kind = profile.failure_domain();
    format!(
        "{} slots on different disks, at most {} in one {kind}; nodes that the group does not use come \
         first, then the least filled for their size, then a lot",
        profile.slots(),
        if kind == crate::FailureDomain::Disk { 1 } else { profile.m() },
    )
}

fn explain_slot(
    map: &ClusterMap,
    profile: &Profile,
    group: &Group,
    index: SlotIndex,
    slot: &Slot,
) -> SlotExplanation {
    let kind = profile.failure_domain();
    let (disk, node) = map.disk_and_node(slot.disk).unzip();
    let domain = map.domain_ref(kind, slot.disk);
    let beside = group.slots.iter().filter(|other| map.domain_ref(kind, other.disk) == domain).count();
    let (fill_rank, fill_ranked) = fill_rank(map, profile, slot.disk);
    let mut explained = SlotExplanation {
        slot: index,
        state: slot.state,
        since_epoch: slot.since_epoch,
        disk: slot.disk,
        disk_name: disk.map(|disk| disk.name.to_string()).unwrap_or_default(),
        node: node.map_or(NodeId(0), |node| node.id),
        site: node.map(|node| node.site.to_string()).unwrap_or_default(),
        rack: node.map(|node| node.rack.to_string()).unwrap_or_default(),
        health: map.disk_health(slot.disk),
        capacity_bytes: disk.map_or(0, |disk| disk.capacity_bytes),
        profile_slots: map.profile_slots_on(profile.id(), slot.disk),
        slots_total: map.slots_on(slot.disk),
        fill_rank,
        fill_ranked,
        domain: domain.map(DomainRef::to_domain),
        domain_slots: domain.map_or(0, |_| beside),
        why: String::new(),
    };
    explained.why = sentence(&explained, profile);
    explained
}

/// How many disks that are up are filled less than this one, plus 1; and how many there are.
fn fill_rank(map: &ClusterMap, profile: &Profile, disk: DiskId) -> (usize, usize) {
    let own = disk_load(map, profile.id(), disk);
    let others = map.disks().values().filter(|other| other.id != disk && map.is_usable(other));
    let (mut emptier, mut all) = (0, 0);
    for other in others {
        all += 1;
        emptier += usize::from(disk_load(map, profile.id(), other.id).compare(own) == Ordering::Less);
    }
    (emptier + 1, all + 1)
}

fn sentence(slot: &SlotExplanation, profile: &Profile) -> String {
    let Some(domain) = &slot.domain else {
        return format!("disk {} is not in the map", slot.disk);
    };
    let state = match slot.state {
        SlotState::Whole => "whole".to_owned(),
        SlotState::Rebuilding { source: None } => "being rebuilt from the other slots".to_owned(),
        SlotState::Rebuilding { source: Some(source) } => format!("being copied from disk {source}"),
    };
    let limit = match profile.failure_domain() {
        crate::FailureDomain::Disk => String::new(),
        _ => format!("; {domain} has {} of at most {} slots of the group", slot.domain_slots, profile.m()),
    };
    format!(
        "disk {} ({}) on node {} in rack {}/{} is {}, the slot is {state}; the disk has {} slots of {} on \
         {}: number {} of {} from the emptiest{limit}",
        slot.disk,
        slot.disk_name,
        slot.node,
        slot.site,
        slot.rack,
        slot.health,
        slot.profile_slots,
        profile.name(),
        ByteSize(slot.capacity_bytes),
        slot.fill_rank,
        slot.fill_ranked,
    )
}

fn counted(number: u32, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = if self.violations.is_empty() { "keeps its policy" } else { "breaks its policy" };
        writeln!(f, "group {}, profile {}, epoch {}: {policy}", self.group, self.profile, self.epoch)?;
        writeln!(f, "  rule: {}", self.rule)?;
        for violation in &self.violations {
            writeln!(f, "  broken: {violation}")?;
        }
        let Tolerance { disks, nodes, racks, readable } = self.tolerance;
        match readable {
            true => writeln!(
                f,
                "  tolerates now: {}, or {}, or {}",
                counted(disks, "disk"),
                counted(nodes, "node"),
                counted(racks, "rack")
            )?,
            false => writeln!(f, "  not readable now: fewer than k shards are in reach")?,
        }
        for slot in &self.slots {
            writeln!(f, "  slot {}: {}", slot.slot, slot.why)?;
        }
        Ok(())
    }
}
