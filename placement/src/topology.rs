//! Nodes and disks: what can fail, and how it is.

use proto::{DiskId, DiskUuid, Incarnation, InvalidInput, Label, NodeId, wire};
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
}

impl TryFrom<wire::Disk> for Disk {
    type Error = InvalidInput;

    fn try_from(wire: wire::Disk) -> Result<Self, InvalidInput> {
        let id = DiskId(wire.id);
        let bad = |rule: String| InvalidInput::new(format!("disk {id}: {rule}"));
        if id.0 == 0 {
            return Err(bad("0 stands for no disk and cannot be an id".into()));
        }
        if wire.reason.len() > REASON_BYTES_MAX {
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
        }
    }
}
