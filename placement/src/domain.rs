//! Failure domains: the kinds, and the names of single ones.

use std::fmt;

use proto::{DiskId, InvalidInput, Label, NodeId, wire};
use serde::Serialize;

use crate::topology::{Disk, Node};

/// A kind of failure domain, innermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureDomain {
    /// One disk.
    Disk,
    /// All disks of a node.
    Node,
    /// All nodes of a rack.
    Rack,
    /// All racks of a site.
    Site,
}

impl FailureDomain {
    /// From the number in a message.
    ///
    /// # Errors
    ///
    /// When it is unspecified or unknown.
    pub fn from_wire(number: i32) -> Result<Self, InvalidInput> {
        match wire::Domain::try_from(number) {
            Ok(wire::Domain::Disk) => Ok(Self::Disk),
            Ok(wire::Domain::Node) => Ok(Self::Node),
            Ok(wire::Domain::Rack) => Ok(Self::Rack),
            Ok(wire::Domain::Site) => Ok(Self::Site),
            Ok(wire::Domain::Unspecified) | Err(_) => Err(InvalidInput::new(format!(
                "failure domain {number} is unknown: expected 1 (disk), 2 (node), 3 (rack) or 4 (site)"
            ))),
        }
    }

    /// The number in a message.
    pub fn to_wire(self) -> i32 {
        i32::from(match self {
            Self::Disk => wire::Domain::Disk,
            Self::Node => wire::Domain::Node,
            Self::Rack => wire::Domain::Rack,
            Self::Site => wire::Domain::Site,
        })
    }

    /// The kind just inside this one; a disk has none.
    pub fn inner(self) -> Option<Self> {
        match self {
            Self::Disk => None,
            Self::Node => Some(Self::Disk),
            Self::Rack => Some(Self::Node),
            Self::Site => Some(Self::Rack),
        }
    }

    /// A word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Node => "node",
            Self::Rack => "rack",
            Self::Site => "site",
        }
    }

    /// `1 rack`, `2 racks`.
    pub(crate) fn count(self, n: usize) -> String {
        format!("{n} {}{}", self.name(), if n == 1 { "" } else { "s" })
    }
}

impl fmt::Display for FailureDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One failure domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Domain {
    /// A disk.
    Disk(DiskId),
    /// A node.
    Node(NodeId),
    /// A rack of a site.
    Rack {
        /// The site.
        site: Label,
        /// The rack in it.
        rack: Label,
    },
    /// A site.
    Site(Label),
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(disk) => write!(f, "disk {disk}"),
            Self::Node(node) => write!(f, "node {node}"),
            Self::Rack { site, rack } => write!(f, "rack {site}/{rack}"),
            Self::Site(site) => write!(f, "site {site}"),
        }
    }
}

/// A [`Domain`] that borrows its labels, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DomainRef<'a> {
    Disk(DiskId),
    Node(NodeId),
    Rack(&'a Label, &'a Label),
    Site(&'a Label),
}

impl<'a> DomainRef<'a> {
    /// The domain of `kind` that `disk` of `node` lies in.
    pub(crate) fn of(kind: FailureDomain, disk: &Disk, node: &'a Node) -> Self {
        match kind {
            FailureDomain::Disk => Self::Disk(disk.id),
            FailureDomain::Node => Self::Node(node.id),
            FailureDomain::Rack => Self::Rack(&node.site, &node.rack),
            FailureDomain::Site => Self::Site(&node.site),
        }
    }

    pub(crate) fn to_domain(self) -> Domain {
        match self {
            Self::Disk(disk) => Domain::Disk(disk),
            Self::Node(node) => Domain::Node(node),
            Self::Rack(site, rack) => Domain::Rack { site: site.clone(), rack: rack.clone() },
            Self::Site(site) => Domain::Site(site.clone()),
        }
    }
}
