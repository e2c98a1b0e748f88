//! Tables and keys of the state.
//!
//! Every key begins with the partition, so that the object index can be split later; numbers are big
//! endian, so that byte order is numeric order. Values are the messages of `state.proto` and `map.proto`.
//!
//! ```text
//! table       key                                            value
//! totals      partition u16                                  Totals
//! nodes       partition u16 | node u32                       Node
//! disks       partition u16 | disk u32                       Disk
//! profiles    partition u16 | profile u32                    Profile
//! groups      partition u16 | group u32                      Group
//! tenants     partition u16 | tenant u32                     TenantRow
//! buckets     partition u16 | bucket u32                     BucketRow
//! objects     partition u16 | bucket u32 | key, 1 to 1024 B  ObjectRow
//! extents     partition u16 | group u32  | extent 16 B       ExtentRow
//! incomplete  partition u16 | group u32  | extent 16 B       missing u32, never 0
//! garbage     partition u16 | group u32  | extent 16 B       GarbageRow
//! commands    partition u16 | command 16 B                   CommandRow
//! tasks       partition u16 | task u32                       Task
//! group_bytes partition u16 | group u32                      bytes of objects u64, never 0
//! ```
//!
//! In `garbage`, the extent 0 stands for all that a slot has left on a disk that it moved away from; no
//! extent of an object has that id. `incomplete` repeats the masks of those rows of `extents` that miss
//! a slot, so that they are found without reading all the others.

use bytes::Bytes;
use env::{KeyRange, StorageError, Table};
use proto::{BucketId, CommandId, ExtentId, GroupId, PartitionId};

use crate::state::error::corrupt;

/// Counters, cluster time, cluster id.
pub const TOTALS: Table = "totals";
/// The map's nodes.
pub const NODES: Table = "nodes";
/// The map's disks.
pub const DISKS: Table = "disks";
/// The map's profiles.
pub const PROFILES: Table = "profiles";
/// The map's groups.
pub const GROUPS: Table = "groups";
/// Tenants.
pub const TENANTS: Table = "tenants";
/// Buckets with their counters.
pub const BUCKETS: Table = "buckets";
/// The object index.
pub const OBJECTS: Table = "objects";
/// Where each group's extents belong, and what they miss.
pub const EXTENTS: Table = "extents";
/// Extents that miss a slot.
pub const INCOMPLETE: Table = "incomplete";
/// Shards to be dropped.
pub const GARBAGE: Table = "garbage";
/// Outcomes of commands that may be repeated.
pub const COMMANDS: Table = "commands";

/// What operators and the cluster itself have begun.
pub const TASKS: Table = "tasks";
/// How many bytes of objects each group holds.
pub const GROUP_BYTES: Table = "group_bytes";

/// All tables of the state.
pub const ALL: [Table; 14] = [
    TOTALS,
    NODES,
    DISKS,
    PROFILES,
    GROUPS,
    TENANTS,
    BUCKETS,
    OBJECTS,
    EXTENTS,
    INCOMPLETE,
    GARBAGE,
    COMMANDS,
    TASKS,
    GROUP_BYTES,
];

/// The only partition for now.
pub const PARTITION: PartitionId = PartitionId(0);

/// In the garbage table: everything of a slot.
pub(crate) const WHOLE_SLOT: ExtentId = ExtentId(0);

const PARTITION_BYTES: usize = size_of::<u16>();
const NUMBER_BYTES: usize = PARTITION_BYTES + size_of::<u32>();
const EXTENT_KEY_BYTES: usize = NUMBER_BYTES + size_of::<u128>();

fn key(parts: &[&[u8]]) -> Bytes {
    let mut key = PARTITION.0.to_be_bytes().to_vec();
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key.into()
}

/// Key of the one row of `totals`.
pub fn totals_key() -> Bytes {
    key(&[])
}

/// Key of a row with a number of its own: node, disk, profile, group, tenant, bucket or task.
pub fn number_key(number: u32) -> Bytes {
    key(&[&number.to_be_bytes()])
}

/// Key of an object.
pub fn object_key(bucket: BucketId, object: &[u8]) -> Bytes {
    key(&[&bucket.0.to_be_bytes(), object])
}

/// Key in `extents`, `incomplete` and `garbage`.
pub fn extent_key(group: GroupId, extent: ExtentId) -> Bytes {
    key(&[&group.0.to_be_bytes(), &extent.to_bytes()])
}

/// Key of a command.
pub fn command_key(command: CommandId) -> Bytes {
    key(&[&command.to_bytes()])
}

/// All rows of the partition in a table.
pub fn whole_table() -> KeyRange {
    KeyRange::prefix(&totals_key())
}

/// All rows of a bucket in `objects`, or of a group in the tables of extents.
pub fn rows_of(number: u32) -> KeyRange {
    KeyRange::prefix(&number_key(number))
}

/// The object's key within its bucket.
pub(crate) fn object_of(key: &Bytes) -> Result<Bytes, StorageError> {
    if key.len() <= NUMBER_BYTES {
        return Err(corrupt(format!(
            "a key of objects has {} bytes, expected more than {NUMBER_BYTES}",
            key.len()
        )));
    }
    Ok(key.slice(NUMBER_BYTES..))
}

/// Bucket of a key of `objects`, or group of a key of extents.
pub(crate) fn number_of(key: &[u8]) -> Result<u32, StorageError> {
    key.get(PARTITION_BYTES..NUMBER_BYTES)
        .and_then(|number| number.try_into().ok())
        .map(u32::from_be_bytes)
        .ok_or_else(|| corrupt(format!("a key has {} bytes, expected {NUMBER_BYTES} or more", key.len())))
}

/// Group and extent of a key of `extents`, `incomplete` or `garbage`.
///
/// # Errors
///
/// `Corrupt` when it is none.
pub fn extent_of(key: &[u8]) -> Result<(GroupId, ExtentId), StorageError> {
    let extent = key.get(NUMBER_BYTES..EXTENT_KEY_BYTES).filter(|_| key.len() == EXTENT_KEY_BYTES);
    let extent = extent.and_then(|extent| ExtentId::from_wire(extent).ok());
    let wrong =
        || corrupt(format!("a key of an extent has {} bytes, expected {EXTENT_KEY_BYTES}", key.len()));
    Ok((GroupId(number_of(key)?), extent.ok_or_else(wrong)?))
}

/// The command of a key.
pub(crate) fn command_of(key: &[u8]) -> Result<CommandId, StorageError> {
    let command = key.get(PARTITION_BYTES..).and_then(|command| CommandId::from_wire(command).ok());
    command.ok_or_else(|| corrupt(format!("a key of a command has {} bytes, expected 18", key.len())))
}

/// The value of a row of `incomplete`.
pub(crate) fn mask_value(missing: u32) -> Bytes {
    Bytes::copy_from_slice(&missing.to_be_bytes())
}

/// The mask in a row of `incomplete`.
pub(crate) fn mask_of(value: &[u8]) -> Result<u32, StorageError> {
    value
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| corrupt(format!("a row of incomplete has {} bytes, expected 4", value.len())))
}

/// The value of a row of `group_bytes`.
pub(crate) fn bytes_value(bytes: u64) -> Bytes {
    Bytes::copy_from_slice(&bytes.to_be_bytes())
}

/// The number in a row of `group_bytes`.
pub(crate) fn bytes_of(value: &[u8]) -> Result<u64, StorageError> {
    value
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| corrupt(format!("a row of group_bytes has {} bytes, expected 8", value.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys on disk never change: these bytes are the format.
    #[test]
    fn golden_keys() {
        let extent = ExtentId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
        assert_eq!(&totals_key()[..], b"\0\0");
        assert_eq!(&number_key(0x0a0b_0c0d)[..], b"\0\0\x0a\x0b\x0c\x0d");
        assert_eq!(&object_key(BucketId(7), b"a/b")[..], b"\0\0\0\0\0\x07a/b");
        let bytes = b"\0\0\0\0\x01\x02\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10";
        assert_eq!(&extent_key(GroupId(258), extent)[..], bytes);
        assert_eq!(&command_key(CommandId(1))[..], b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01");
        assert_eq!(&mask_value(5)[..], b"\0\0\0\x05");
        assert_eq!(&bytes_value(258)[..], b"\0\0\0\0\0\0\x01\x02");
        assert_eq!(bytes_of(&bytes_value(u64::MAX)).unwrap(), u64::MAX);
        assert!(bytes_of(b"\0\0\0\x05").is_err());
    }

    /// Keys parse back, and what is no such key is an error.
    #[test]
    fn keys_parse_back() {
        let extent = ExtentId(u128::MAX - 1);
        assert_eq!(extent_of(&extent_key(GroupId(9), extent)).unwrap(), (GroupId(9), extent));
        assert_eq!(command_of(&command_key(CommandId(3))).unwrap(), CommandId(3));
        assert_eq!(&object_of(&object_key(BucketId(1), b"k")).unwrap()[..], b"k");
        assert_eq!(mask_of(&mask_value(9)).unwrap(), 9);
        for bad in [&b""[..], b"\0\0", b"\0\0\0\0\0\x01", &[0; 23]] {
            assert!(extent_of(bad).is_err());
            assert!(command_of(bad).is_err());
        }
        assert!(object_of(&number_key(1)).is_err());
        assert!(mask_of(b"123").is_err());
    }

    /// Rows sort by group, then by extent; a group's range holds its rows alone.
    #[test]
    fn ranges_hold_their_rows() {
        assert!(extent_key(GroupId(1), ExtentId(u128::MAX)) < extent_key(GroupId(2), ExtentId(0)));
        assert!(rows_of(1).contains(&extent_key(GroupId(1), ExtentId(u128::MAX))));
        assert!(!rows_of(1).contains(&extent_key(GroupId(2), ExtentId(0))));
        assert!(whole_table().contains(&number_key(u32::MAX)));
    }
}
