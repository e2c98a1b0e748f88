//! Why a disk was not chosen, and why no choice was possible.

use std::collections::BTreeMap;
use std::fmt;

use proto::{DiskId, ErrorCode, Failure, ProfileName, SlotIndex};
use serde::Serialize;

use crate::domain::{Domain, FailureDomain};
use crate::map::ClusterMap;
use crate::profile::Profile;
use crate::topology::{Disk, Duty, Health};

/// Rejections that one answer carries at most; the rest are only counted.
pub const REJECTIONS_MAX: usize = 1000;

/// A disk that did not get a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// The disk.
    pub disk: DiskId,
    /// Why.
    pub reason: Reason,
}

/// Why a disk did not get a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The disk or its node is not up.
    #[error("it is {0}")]
    NotUp(Health),
    /// It takes no slots.
    #[error("it is {0}")]
    NotInService(Duty),
    /// Its size is 0.
    #[error("it has no capacity")]
    NoCapacity,
    /// The group has a slot there.
    #[error("the group has a slot there already")]
    InGroup,
    /// It is being left, or a slot of the group is still being copied from it.
    #[error("a slot of the group is leaving it")]
    Leaving,
    /// Its failure domain has as many slots of the group as it may.
    #[error("{domain} has {slots} slots of the group, as many as it may")]
    DomainFull {
        /// The domain.
        domain: Domain,
        /// The group's slots in it.
        slots: usize,
    },
    /// It could have been chosen; another was.
    #[error("another disk was better: a freer node, less filled, or by lot")]
    NotBest,
}

impl Reason {
    /// Few words, for a summary.
    fn kind(&self) -> &'static str {
        match self {
            Self::NotUp(Health::Down) => "down",
            Self::NotUp(_) => "suspect",
            Self::NotInService(duty) => duty.name(),
            Self::NoCapacity => "without capacity",
            Self::InGroup => "already in the group",
            Self::Leaving => "being left by the group",
            Self::DomainFull { .. } => "in a full failure domain",
            Self::NotBest => "possible but not best",
        }
    }
}

/// Disks that were not chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// By id; at most [`REJECTIONS_MAX`].
    pub listed: Vec<Rejection>,
    /// How many more there are.
    pub unlisted: usize,
    /// How many of all there are of each kind.
    kinds: BTreeMap<&'static str, usize>,
}

impl Rejected {
    /// All disks that cannot take, or did not get, a slot beside `kept`.
    pub(crate) fn collect(
        map: &ClusterMap,
        profile: &Profile,
        kept: &[DiskId],
        leaving: &[DiskId],
        chosen: &[DiskId],
    ) -> Self {
        let kind = profile.failure_domain();
        let mut slots_in: BTreeMap<_, usize> = BTreeMap::new();
        for domain in kept.iter().chain(chosen).filter_map(|disk| map.domain_ref(kind, *disk)) {
            *slots_in.entry(domain).or_default() += 1;
        }
        let reason = |disk: &Disk| {
            let health = map.disk_health(disk.id);
            let domain = map.domain_ref(kind, disk.id);
            let slots = domain.and_then(|domain| slots_in.get(&domain)).copied().unwrap_or_default();
            match domain {
                _ if kept.contains(&disk.id) => Reason::InGroup,
                _ if leaving.contains(&disk.id) => Reason::Leaving,
                _ if disk.duty != Duty::InService => Reason::NotInService(disk.duty),
                _ if health != Health::Up => Reason::NotUp(health),
                _ if disk.capacity_bytes == 0 => Reason::NoCapacity,
                Some(domain) if slots >= profile.m() => {
                    Reason::DomainFull { domain: domain.to_domain(), slots }
                }
                _ => Reason::NotBest,
            }
        };
        let mut rejected = Self::default();
        for disk in map.disks().values().filter(|disk| !chosen.contains(&disk.id)) {
            rejected.push(Rejection { disk: disk.id, reason: reason(disk) });
        }
        rejected
    }

    fn push(&mut self, rejection: Rejection) {
        *self.kinds.entry(rejection.reason.kind()).or_default() += 1;
        if self.listed.len() < REJECTIONS_MAX {
            self.listed.push(rejection);
        } else {
            self.unlisted += 1;
        }
    }
}

/// `3 down, 4 in a full failure domain`.
impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kinds.is_empty() {
            return f.write_str("the map has no disk to consider");
        }
        f.write_str("disks considered: ")?;
        for (place, (kind, count)) in self.kinds.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {kind}")?;
        }
        Ok(())
    }
}

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shortage {
    /// Too few domains with a healthy disk.
    Domains {
        /// How many it takes at least.
        needed: usize,
        /// How many there are.
        healthy: usize,
    },
    /// Domains enough, but those that have fewer than `m` healthy disks leave too little room.
    Room {
        /// Slots that a group can have.
        slots: usize,
        /// The domains with fewer than `m` healthy disks, and how many they have.
        small: Vec<(Domain, usize)>,
    },
    /// Too few healthy disks for different ones.
    Disks {
        /// How many there are.
        healthy: usize,
    },
    /// No disk can take over this slot.
    Slot(SlotIndex),
    /// Group ids are used up.
    GroupIds,
}

/// No choice keeps the policy; says what to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NoLegalPlace {
    /// The profile.
    pub profile: ProfileName,
    /// Slots of a group.
    pub slots: usize,
    /// How many of them one domain may have.
    pub at_most: usize,
    /// The kind of domain.
    pub failure_domain: FailureDomain,
    /// What is missing.
    pub shortage: Shortage,
    /// The disks that were considered.
    pub rejected: Box<Rejected>,
}

impl NoLegalPlace {
    pub(crate) fn new(profile: &Profile, shortage: Shortage, rejected: Rejected) -> Self {
        Self {
            profile: profile.name().clone(),
            slots: profile.slots(),
            at_most: profile.m(),
            failure_domain: profile.failure_domain(),
            shortage,
            rejected: Box::new(rejected),
        }
    }

    fn wants(&self) -> String {
        let disks = FailureDomain::Disk.count(self.slots);
        match self.failure_domain {
            FailureDomain::Disk => format!("profile {} wants {disks}", self.profile),
            kind => {
                format!("profile {} wants {disks} with at most {} in one {kind}", self.profile, self.at_most)
            }
        }
    }
}

impl fmt::Display for NoLegalPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, wants) = (self.failure_domain, self.wants());
        match &self.shortage {
            Shortage::Domains { needed, healthy } => write!(
                f,
                "{wants}: that takes at least {}; there {} {healthy} with a healthy disk: add {}",
                kind.count(*needed),
                if *healthy == 1 { "is" } else { "are" },
                kind.count(needed.saturating_sub(*healthy)),
            ),
            Shortage::Room { slots, small } => {
                write!(f, "{wants}: the healthy disks have room for {slots} of them; add disks to")?;
                for (place, (domain, disks)) in small.iter().take(8).enumerate() {
                    let comma = if place == 0 { "" } else { "," };
                    write!(f, "{comma} {domain} (has {disks})")?;
                }
                let more = small.len().saturating_sub(8);
                if more > 0 {
                    write!(f, " and {more} more")?;
                }
                write!(f, ", or add a {kind}")
            }
            Shortage::Disks { healthy } => write!(
                f,
                "{wants}; there {} {healthy} healthy: add {}",
                if *healthy == 1 { "is" } else { "are" },
                FailureDomain::Disk.count(self.slots.saturating_sub(*healthy)),
            ),
            Shortage::Slot(slot) => write!(f, "{wants}: no disk can take over slot {slot}"),
            Shortage::GroupIds => f.write_str("all group ids are used up"),
        }?;
        match self.shortage {
            Shortage::GroupIds => Ok(()),
            _ => write!(f, " ({})", self.rejected),
        }
    }
}

impl std::error::Error for NoLegalPlace {}

impl From<NoLegalPlace> for Failure {
    fn from(error: NoLegalPlace) -> Self {
        Self::new(ErrorCode::NoLegalPlace, error.to_string())
    }
}
