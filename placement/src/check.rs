//! The validator: one for every use. Whoever chooses, moves, simulates or explains asks here.

use std::collections::BTreeMap;

use proto::{DiskId, SlotIndex};
use serde::Serialize;

use crate::domain::{Domain, DomainRef, FailureDomain};
use crate::group::{Slot, slot_index};
use crate::map::ClusterMap;
use crate::profile::Profile;

/// A rule that a group breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Violation {
    /// Not `k + m` slots.
    #[error("has {found} slots, the profile wants {expected}")]
    SlotCount {
        /// `k + m`.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A disk that the map does not know.
    #[error("slot {slot} is on disk {disk}, which is unknown")]
    UnknownDisk {
        /// The slot.
        slot: SlotIndex,
        /// Its disk.
        disk: DiskId,
    },
    /// Several slots on one disk.
    #[error("slots {slots:?} are all on disk {disk}")]
    SameDisk {
        /// The disk.
        disk: DiskId,
        /// Its slots.
        slots: Vec<SlotIndex>,
    },
    /// More than `m` slots in one failure domain.
    #[error("slots {slots:?} are in {domain}, at most {at_most} may be")]
    DomainOverfull {
        /// The domain.
        domain: Domain,
        /// Its slots.
        slots: Vec<SlotIndex>,
        /// The profile's `m`.
        at_most: usize,
    },
}

impl Violation {
    /// The slots of which at least one must move.
    pub fn slots(&self) -> &[SlotIndex] {
        match self {
            Self::SlotCount { .. } => &[],
            Self::UnknownDisk { slot, .. } => std::slice::from_ref(slot),
            Self::SameDisk { slots, .. } | Self::DomainOverfull { slots, .. } => slots,
        }
    }

    /// How many moves it takes at least.
    fn excess(&self) -> usize {
        match self {
            Self::SlotCount { expected, found } => expected.abs_diff(*found),
            Self::UnknownDisk { .. } => 1,
            Self::SameDisk { slots, .. } => slots.len().saturating_sub(1),
            Self::DomainOverfull { slots, at_most, .. } => slots.len().saturating_sub(*at_most),
        }
    }
}

/// Whether `slots` keep the policy of `profile`: exactly `k + m` slots, on different disks that the map
/// knows, at most `m` of them in one failure domain. Health is not looked at: a group on disks that are
/// down is legal.
///
/// # Errors
///
/// Every rule that is broken, in a fixed order.
pub fn check_group(map: &ClusterMap, profile: &Profile, slots: &[Slot]) -> Result<(), Vec<Violation>> {
    let disks: Vec<DiskId> = slots.iter().map(|slot| slot.disk).collect();
    check_disks(map, profile, &disks)
}

/// [`check_group`] for a list of disks.
pub(crate) fn check_disks(
    map: &ClusterMap,
    profile: &Profile,
    disks: &[DiskId],
) -> Result<(), Vec<Violation>> {
    let mut violations = Vec::new();
    if disks.len() != profile.slots() {
        violations.push(Violation::SlotCount { expected: profile.slots(), found: disks.len() });
    }
    let kind = profile.failure_domain();
    let mut by_disk: BTreeMap<DiskId, Vec<SlotIndex>> = BTreeMap::new();
    let mut by_domain: BTreeMap<DomainRef<'_>, Vec<SlotIndex>> = BTreeMap::new();
    for (place, disk) in disks.iter().enumerate() {
        let slot = slot_index(place);
        match map.domain_ref(kind, *disk) {
            None => violations.push(Violation::UnknownDisk { slot, disk: *disk }),
            Some(domain) => {
                by_disk.entry(*disk).or_default().push(slot);
                by_domain.entry(domain).or_default().push(slot);
            }
        }
    }
    let same = by_disk.into_iter().filter(|(_, slots)| slots.len() > 1);
    violations.extend(same.map(|(disk, slots)| Violation::SameDisk { disk, slots }));
    let at_most = profile.m();
    // Two slots on one disk are too many for `FailureDomain::Disk`, and have been named.
    let full = by_domain.into_iter().filter(|(_, slots)| slots.len() > at_most && kind > FailureDomain::Disk);
    violations.extend(full.map(|(domain, slots)| Violation::DomainOverfull {
        domain: domain.to_domain(),
        slots,
        at_most,
    }));
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

/// How far `disks` are from legal, in moves; 0 when they are.
pub(crate) fn excess(map: &ClusterMap, profile: &Profile, disks: &[DiskId]) -> usize {
    check_disks(map, profile, disks).map_or_else(|broken| broken.iter().map(Violation::excess).sum(), |()| 0)
}
