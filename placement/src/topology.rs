//! Nodes and disks: what can fail, and how it is.

use proto::{DiskId, DiskUuid, Incarnation, InvalidInput, Label, NodeId, Timestamp, wire};
use serde::Serialize;

/// Longest address of a node, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// Longest reason why a disk is not up, in bytes.
pub const REASON_BYTES_MAX: usize = 1024;

/// How a node or a disk is. Ordered from well to unwell, so that the worse of two is their maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Answers and works.
    Up,
    /// Silent for a moment: clients avoid it, nothing is rebuilt.
    Suspect,
    /// Silent for long, or failed: what it holds counts as lost until it returns.
    Down,
}

impl Health {
    /// From the number in a message.
    ///
    /// # Errors
    ///
    /// When it is unspecified or unknown.
    pub fn from_wire(number: i32) -> Result<Self, InvalidInput> {
        match wire::Health::try_from(number) {
            Ok(wire::Health::Up) => Ok(Self::Up),
            Ok(wire::Health::Suspect) => Ok(Self::Suspect),
            Ok(wire::Health::Down) => Ok(Self::Down),
            Ok(wire::Health::Unspecified) | Err(_) => {
                Err(InvalidInput::new(format!("health {number} is unknown: expected 1, 2 or 3")))
            }
        }
    }

    /// The number in a message.
    pub fn to_wire(self) -> i32 {
        i32::from(match self {
            Self::Up => wire::Health::Up,
            Self::Suspect => wire::Health::Suspect,
            Self::Down => wire::Health::Down,
        })
    }

    /// A word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a disk is meant for, beside how it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duty {
    /// Takes slots.
    #[default]
    InService,
    /// Takes no slot, and its slots move away; still read and written.
    Draining,
    /// As draining, but first in line, and nothing new is written there.
    Failed,
    /// Has no slot and never gets one.
    Retired,
}

impl Duty {
    /// From the number in a message.
    ///
    /// # Errors
    ///
    /// When it is unknown.
    pub fn from_wire(number: i32) -> Result<Self, InvalidInput> {
        match wire::Duty::try_from(number) {
            Ok(wire::Duty::Unspecified) => Ok(Self::InService),
            Ok(wire::Duty::Draining) => Ok(Self::Draining),
            Ok(wire::Duty::Failed) => Ok(Self::Failed),
            Ok(wire::Duty::Retired) => Ok(Self::Retired),
            Err(_) => Err(InvalidInput::new(format!("duty {number} is unknown: expected 0 to 3"))),
        }
    }

    /// The number in a message.
    pub fn to_wire(self) -> i32 {
        i32::from(match self {
            Self::InService => wire::Duty::Unspecified,
            Self::Draining => wire::Duty::Draining,
            Self::Failed => wire::Duty::Failed,
            Self::Retired => wire::Duty::Retired,
        })
    }

    /// Words for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::InService => "in service",
            Self::Draining => "draining",
            Self::Failed => "failed",
            Self::Retired => "retired",
        }
    }

    /// Does nothing new go there, not even to slots that it has?
    pub fn is_given_up(self) -> bool {
        self >= Self::Failed
    }
}

impl std::fmt::Display for Duty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A storage node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// The site that it stands in.
    pub site: Label,
    /// The rack, named within its site: `a/r1` and `b/r1` are two racks.
    pub rack: Label,
    /// `host:port` of the shard service.
    pub address: String,
    /// How it is.
    pub health: Health,
    /// Raised at each start of the daemon.
    pub incarnation: Incarnation,
}

impl TryFrom<wire::Node> for Node {
    type Error = InvalidInput;

    fn try_from(wire: wire::Node) -> Result<Self, InvalidInput> {
        let id = NodeId(wire.id);
        let bad = |rule: String| InvalidInput::new(format!("node {id}: {rule}"));
        if wire.address.is_empty() || wire.address.len() > ADDRESS_BYTES_MAX {
            return Err(bad(format!(
                "the address has {} bytes; expected 1 to {ADDRESS_BYTES_MAX}",
                wire.address.len()
            )));
        }
        Ok(Self {
            id,
            site: wire.site.parse().map_err(|e| bad(format!("site: {e}")))?,
            rack: wire.rack.parse().map_err(|e| bad(format!("rack: {e}")))?,
            address: wire.address,
            health: Health::from_wire(wire.health).map_err(|e| bad(e.to_string()))?,
            incarnation: Incarnation(wire.incarnation),
        })
    }
}

impl From<&Node> for wire::Node {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.0,
            site: node.site.to_string(),
            rack: node.rack.to_string(),
            address: node.address.clone(),
            health: node.health.to_wire(),
            incarnation: node.incarnation.0,
        }
    }
}

/// A disk of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its id; never 0, which stands for none in messages.
    pub id: DiskId,
    /// The identity in its superblock.
    pub uuid: DiskUuid,
    /// The node that it is attached to.
    pub node: NodeId,
    /// The operator's name of it.
    pub name: Label,
    /// Its size: slots are given out in proportion. A disk of size 0 gets none.
    pub capacity_bytes: u64,
    /// How it is, by itself; [`ClusterMap::disk_health`](crate::ClusterMap::disk_health) also looks at
    /// its node.
    pub health: Health,
    /// Why it is not up; else empty.
    pub reason: String,
    /// What it is meant for.
    pub duty: Duty,
    /// Why it is not in service; else empty.
    pub duty_reason: String,
    /// Extents of which shards were found damaged on it since `damaged_since`.
    pub damaged_shards: u32,
    /// Cluster time at which the count began.
    pub damaged_since: Timestamp,
}

impl TryFrom<wire::Disk> for Disk {
    type Error = InvalidInput;

    fn try_from(wire: wire::Disk) -> Result<Self, InvalidInput> {
        let id = DiskId(wire.id);
        let bad = |rule: String| InvalidInput::new(format!("disk {id}: {rule}"));
        if id.0 == 0 {
            return Err(bad("0 stands for no disk and cannot be an id".into()));
        }
        if wire.reason.len().max(wire.duty_reason.len()) > REASON_BYTES_MAX {
            return Err(bad(format!("the reason has more than {REASON_BYTES_MAX} bytes")));
        }
        Ok(Self {
            id,
            uuid: DiskUuid::from_wire(&wire.uuid).map_err(|e| bad(e.to_string()))?,
            node: NodeId(wire.node),
            name: wire.name.parse().map_err(|e| bad(format!("name: {e}")))?,
            capacity_bytes: wire.capacity_bytes,
            health: Health::from_wire(wire.health).map_err(|e| bad(e.to_string()))?,
            reason: wire.reason,
            duty: Duty::from_wire(wire.duty).map_err(|e| bad(e.to_string()))?,
            duty_reason: wire.duty_reason,
            damaged_shards: wire.damaged_shards,
            damaged_since: Timestamp::from_millis(wire.damaged_since_ms),
        })
    }
}

impl From<&Disk> for wire::Disk {
    fn from(disk: &Disk) -> Self {
        Self {
            id: disk.id.0,
            uuid: disk.uuid.to_wire(),
            node: disk.node.0,
            name: disk.name.to_string(),
            capacity_bytes: disk.capacity_bytes,
            health: disk.health.to_wire(),
            reason: disk.reason.clone(),
            duty: disk.duty.to_wire(),
            duty_reason: disk.duty_reason.clone(),
            damaged_shards: disk.damaged_shards,
            damaged_since_ms: disk.damaged_since.as_millis(),
        }
    }
}
