//! What is known of an object.

use std::collections::BTreeMap;
use std::fmt;

use proto::limits::{CONTENT_TYPE_BYTES_MAX, USER_METADATA_BYTES_MAX};
use proto::{InvalidInput, ObjectKey, Timestamp, Version, wire};

/// An object without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: ObjectKey,
    /// Its version; versions of a key only grow.
    pub version: Version,
    /// Its bytes.
    pub size: u64,
    /// CRC-32C of its bytes.
    pub crc32c: u32,
    /// Cluster time of its commit.
    pub modified: Timestamp,
    /// As given at the put; empty when not.
    pub content_type: String,
    /// As given at the put.
    pub user_metadata: BTreeMap<String, String>,
}

impl ObjectInfo {
    pub(crate) fn parse(wire: wire::Object) -> Result<Self, InvalidInput> {
        Ok(Self {
            key: ObjectKey::parse(wire.key)?,
            version: Version(wire.version),
            size: wire.size,
            crc32c: wire.crc32c,
            modified: Timestamp::from_millis(wire.modified_ms),
            content_type: wire.content_type,
            user_metadata: wire.user_metadata,
        })
    }
}

/// An object and where its bytes lie, for people who look.
#[derive(Clone, Debug)]
pub struct ObjectStat {
    /// The object.
    pub info: ObjectInfo,
    /// What may be lost now.
    pub tolerates: Tolerance,
    /// True when the bytes lie in the metadata record; then there are no extents.
    pub is_inline: bool,
    /// Its extents, in order.
    pub extents: Vec<wire::Extent>,
    /// One for each group of the extents, as the metadata service knows them now.
    pub placements: Vec<wire::Placement>,
}

/// What must hold for a put or delete to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// No object is under the key.
    IfAbsent,
    /// This version is under the key.
    IfVersion(Version),
}

impl Precondition {
    pub(crate) fn to_wire(self) -> Option<wire::Precondition> {
        use wire::precondition::Condition;
        let condition = match self {
            Self::None => return None,
            Self::IfAbsent => Condition::IfAbsent(true),
            Self::IfVersion(version) => Condition::IfVersion(version.0),
        };
        Some(wire::Precondition { condition: Some(condition) })
    }
}

/// How many disks, nodes or racks may be lost at the same time without losing a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tolerance {
    /// Any so many disks.
    pub disks: u32,
    /// Any so many nodes.
    pub nodes: u32,
    /// Any so many racks.
    pub racks: u32,
}

impl From<wire::Tolerance> for Tolerance {
    fn from(wire: wire::Tolerance) -> Self {
        Self { disks: wire.disks, nodes: wire.nodes, racks: wire.racks }
    }
}

/// `2 disks, 1 rack`.
impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count| if count == 1 { "" } else { "s" };
        let Self { disks, racks, .. } = self;
        write!(f, "{disks} disk{}, {racks} rack{}", plural(*disks), plural(*racks))
    }
}

/// A put is done: durable and visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The version that the put made.
    pub version: Version,
    /// Bytes of the object.
    pub size: u64,
    /// CRC-32C of the object.
    pub crc32c: u32,
    /// Cluster time of the commit.
    pub modified: Timestamp,
    /// What may be lost now.
    pub tolerates: Tolerance,
    /// Some of it lies in groups that break the profile's failure domain, until its domains are back.
    pub below_policy: bool,
    /// Shards that some slots still miss, over all extents; the nodes fill them first.
    pub slots_missing: usize,
}

/// `tolerates: 2 disks, 1 rack`.
impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tolerates: {}", self.tolerates)?;
        if self.below_policy {
            f.write_str(" (below the profile's policy until its failure domains are back)")?;
        }
        match self.slots_missing {
            0 => Ok(()),
            1 => f.write_str(" (1 slot still to be filled)"),
            more => write!(f, " ({more} slots still to be filled)"),
        }
    }
}

/// Checks what goes with an object, before anything is sent.
pub(crate) fn check_metadata(
    content_type: &str,
    user_metadata: &BTreeMap<String, String>,
) -> Result<(), InvalidInput> {
    if content_type.len() > CONTENT_TYPE_BYTES_MAX {
        return Err(InvalidInput::new(format!(
            "the content type has {} bytes; at most {CONTENT_TYPE_BYTES_MAX} are allowed",
            content_type.len()
        )));
    }
    let bytes: usize = user_metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > USER_METADATA_BYTES_MAX {
        return Err(InvalidInput::new(format!(
            "the user metadata have {bytes} bytes; at most {USER_METADATA_BYTES_MAX} are allowed"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receipts read as the promise says it.
    #[test]
    fn receipts_read_well() {
        let receipt = Receipt {
            version: Version(7),
            size: 1,
            crc32c: 0,
            modified: Timestamp::ZERO,
            tolerates: Tolerance { disks: 2, nodes: 2, racks: 1 },
            below_policy: false,
            slots_missing: 0,
        };
        assert_eq!(receipt.to_string(), "tolerates: 2 disks, 1 rack");
        let low =
            Receipt { tolerates: Tolerance { disks: 1, nodes: 1, racks: 0 }, slots_missing: 1, ..receipt };
        assert_eq!(low.to_string(), "tolerates: 1 disk, 0 racks (1 slot still to be filled)");
    }

    /// The limits are exact.
    #[test]
    fn metadata_are_checked() {
        let of = |bytes: usize| BTreeMap::from([("k".to_owned(), "v".repeat(bytes - 1))]);
        assert!(check_metadata("", &of(USER_METADATA_BYTES_MAX)).is_ok());
        assert!(check_metadata("", &of(USER_METADATA_BYTES_MAX + 1)).is_err());
        assert!(check_metadata(&"t".repeat(CONTENT_TYPE_BYTES_MAX), &BTreeMap::new()).is_ok());
        assert!(check_metadata(&"t".repeat(CONTENT_TYPE_BYTES_MAX + 1), &BTreeMap::new()).is_err());
    }
}
