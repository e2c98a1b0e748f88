//! The promise as a function: what may be lost at once, given what is lost already.

use std::collections::BTreeMap;

use proto::{DiskId, Epoch, wire};
use serde::Serialize;

use crate::domain::{Domain, DomainRef, FailureDomain};
use crate::group::{Group, Slot, SlotState};
use crate::map::ClusterMap;
use crate::profile::Profile;
use crate::topology::Health;

/// How many disks, or nodes, or racks, any of them, may be lost at the same time such that `k` shards
/// of each stripe remain. Exact for losses of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tolerance {
    /// Disks.
    pub disks: u32,
    /// Nodes.
    pub nodes: u32,
    /// Racks.
    pub racks: u32,
    /// Whether `k` shards are there now; if not, all numbers are 0.
    pub readable: bool,
}

impl Tolerance {
    /// Of data without a shard in any group: nothing that is lost can harm it. The neutral element of
    /// [`min_of`](Self::min_of).
    pub const UNLIMITED: Self = Self { disks: u32::MAX, nodes: u32::MAX, racks: u32::MAX, readable: true };

    /// What both withstand: for an object with extents in several groups.
    #[must_use]
    pub fn min_of(self, other: Self) -> Self {
        Self {
            disks: self.disks.min(other.disks),
            nodes: self.nodes.min(other.nodes),
            racks: self.racks.min(other.racks),
            readable: self.readable && other.readable,
        }
    }
}

impl From<Tolerance> for wire::Tolerance {
    fn from(tolerance: Tolerance) -> Self {
        Self { disks: tolerance.disks, nodes: tolerance.nodes, racks: tolerance.racks }
    }
}

/// What data written some time ago withstands now. Bit `i` of `missing` says that slot `i` misses shards.
///
/// A shard counts as lost when it is missing, when its disk is down or unknown, or when its slot is being
/// rebuilt without a source; while it is being moved, it counts at the source. Suspect disks count as
/// present.
pub fn tolerance(map: &ClusterMap, profile: &Profile, slots: &[Slot], missing: u32) -> Tolerance {
    worst_case(map, profile, &present(map, slots, missing, None))
}

/// What data withstands that was written under `written`, an epoch of the group: a slot whose disk took
/// it in that epoch or before has its shard there, even while older ones are still being rebuilt. This is
/// what a receipt may tell.
pub fn tolerance_of_written(
    map: &ClusterMap,
    profile: &Profile,
    slots: &[Slot],
    missing: u32,
    written: Epoch,
) -> Tolerance {
    worst_case(map, profile, &present(map, slots, missing, Some(written)))
}

/// Whether all that is whole in `group` stays readable when `domain` is lost on top of what is down now.
/// False when it is not readable now, or the map does not know the group's profile.
pub fn may_lose(map: &ClusterMap, group: &Group, domain: &Domain) -> bool {
    let Some(profile) = map.profiles().get(&group.profile) else { return false };
    let kind = match domain {
        Domain::Disk(_) => FailureDomain::Disk,
        Domain::Node(_) => FailureDomain::Node,
        Domain::Rack { .. } => FailureDomain::Rack,
        Domain::Site(_) => FailureDomain::Site,
    };
    let lost = match domain {
        Domain::Disk(disk) => DomainRef::Disk(*disk),
        Domain::Node(node) => DomainRef::Node(*node),
        Domain::Rack { site, rack } => DomainRef::Rack(site, rack),
        Domain::Site(site) => DomainRef::Site(site),
    };
    let present = present(map, &group.slots, 0, None);
    let left = present.iter().filter(|disk| map.domain_ref(kind, **disk) != Some(lost)).count();
    left >= profile.k()
}

/// The disks on which a shard is there, one for each slot that has one.
fn present(map: &ClusterMap, slots: &[Slot], missing: u32, written: Option<Epoch>) -> Vec<DiskId> {
    let recorded = |place: usize| {
        u32::try_from(place)
            .ok()
            .and_then(|place| missing.checked_shr(place))
            .is_some_and(|bits| bits & 1 == 1)
    };
    let holder = |slot: &Slot| match slot.state {
        SlotState::Whole => Some(slot.disk),
        SlotState::Rebuilding { .. } if written.is_some_and(|epoch| slot.since_epoch <= epoch) => {
            Some(slot.disk)
        }
        SlotState::Rebuilding { source } => source,
    };
    let slots = slots.iter().enumerate().filter(|(place, _)| !recorded(*place));
    slots.filter_map(|(_, slot)| holder(slot)).filter(|disk| map.disk_health(*disk) != Health::Down).collect()
}

fn worst_case(map: &ClusterMap, profile: &Profile, present: &[DiskId]) -> Tolerance {
    let readable = present.len() >= profile.k();
    let of = |kind| if readable { losses(map, profile, present, kind) } else { 0 };
    Tolerance {
        disks: of(FailureDomain::Disk),
        nodes: of(FailureDomain::Node),
        racks: of(FailureDomain::Rack),
        readable,
    }
}

/// The worst loss of `n` domains is that of the `n` with the most shards, so the largest go first.
fn losses(map: &ClusterMap, profile: &Profile, present: &[DiskId], kind: FailureDomain) -> u32 {
    let mut shards_in: BTreeMap<DomainRef<'_>, usize> = BTreeMap::new();
    for domain in present.iter().filter_map(|disk| map.domain_ref(kind, *disk)) {
        *shards_in.entry(domain).or_default() += 1;
    }
    let mut largest: Vec<usize> = shards_in.into_values().collect();
    largest.sort_unstable_by(|a, b| b.cmp(a));
    let mut spare = present.len().saturating_sub(profile.k());
    let mut domains = 0;
    for shards in largest {
        match spare.checked_sub(shards) {
            Some(left) => spare = left,
            None => break,
        }
        domains += 1;
    }
    domains
}
