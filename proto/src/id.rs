//! Identifiers. Each is a type of its own, so that a group can never be taken for a disk.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::InvalidInput;
use crate::time::Timestamp;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($int:ty), $label:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($label, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidInput;

            fn from_str(text: &str) -> Result<Self, InvalidInput> {
                text.parse().map(Self).map_err(|_| {
                    InvalidInput::new(format!(
                        "{text:?} is not a {} id: expected a whole number",
                        $label.trim_end_matches('-')
                    ))
                })
            }
        }
    };
}

number_id!(
    /// A metadata server, and its Raft id. Never used again after removal.
    MetaId(u64), "meta-"
);
number_id!(
    /// A storage node; stands in its certificate.
    NodeId(u32), "node-"
);
number_id!(
    /// A disk, given by the metadata service at registration; 0 is none.
    DiskId(u32), "disk-"
);
number_id!(
    /// A placement group.
    GroupId(u32), "group-"
);
number_id!(
    /// An erasure-code profile.
    ProfileId(u32), "profile-"
);
number_id!(
    /// A tenant.
    TenantId(u32), "tenant-"
);
number_id!(
    /// A bucket, unique over all tenants.
    BucketId(u32), "bucket-"
);
number_id!(
    /// What an operator began and what takes long; never used again.
    TaskId(u32), "task-"
);
number_id!(
    /// A version of an object: grows with every change of the cluster.
    Version(u64), "version-"
);
number_id!(
    /// A group's epoch: raised whenever its slots change.
    Epoch(u64), "epoch-"
);
number_id!(
    /// Place of a stripe in its extent, from 0.
    StripeIndex(u32), "stripe-"
);
number_id!(
    /// Place of a shard in its stripe, from 0: `0..k` are data, `k..k + m` parity.
    SlotIndex(u8), "slot-"
);
number_id!(
    /// Raised at each start of a daemon; tells a process from its predecessor.
    Incarnation(u64), "incarnation-"
);
number_id!(
    /// Part of the metadata key space; all is partition 0 until the object index is split.
    PartitionId(u16), "partition-"
);

macro_rules! wide_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl $name {
            /// Big endian, so that byte order is numeric order.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }

            /// As it stands in a message.
            pub fn to_wire(self) -> bytes::Bytes {
                bytes::Bytes::copy_from_slice(&self.to_bytes())
            }

            /// From a message.
            ///
            /// # Errors
            ///
            /// When there are not exactly 16 bytes.
            pub fn from_wire(bytes: &[u8]) -> Result<Self, InvalidInput> {
                let bytes: [u8; 16] = bytes.try_into().map_err(|_| {
                    InvalidInput::new(format!(
                        concat!(stringify!($name), " has {} bytes, expected 16"),
                        bytes.len()
                    ))
                })?;
                Ok(Self(u128::from_be_bytes(bytes)))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidInput;

            fn from_str(text: &str) -> Result<Self, InvalidInput> {
                let valid = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
                match u128::from_str_radix(text, 16) {
                    Ok(id) if valid => Ok(Self(id)),
                    _ => Err(InvalidInput::new(format!(
                        concat!("{:?} is not a ", stringify!($name), ": expected 32 hexadecimal digits"),
                        text
                    ))),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

wide_id!(
    /// A cluster; made once, at bootstrap.
    ClusterId
);
wide_id!(
    /// A disk's own identity, in its superblock.
    DiskUuid
);
wide_id!(
    /// An extent: 48 bits of cluster time (the start of the grant that it was written under), then
    /// 80 random bits. Nothing is allocated beforehand, and its age can be told from its name.
    ExtentId
);
wide_id!(
    /// One intent to change something: 48 bits of cluster time, then 80 random bits. Repeating a
    /// command under the same id has no second effect.
    CommandId
);

const RANDOM_BITS: u32 = 80;
const TIME_BITS: u32 = 128 - RANDOM_BITS;

fn timed(at: Timestamp, random: u128) -> u128 {
    let time = u128::from(at.as_millis() & ((1 << TIME_BITS) - 1));
    time << RANDOM_BITS | random & ((1 << RANDOM_BITS) - 1)
}

fn time_of(id: u128) -> Timestamp {
    // 48 bits fit.
    #[allow(clippy::cast_possible_truncation)]
    Timestamp::from_millis((id >> RANDOM_BITS) as u64)
}

impl ExtentId {
    /// An extent under a grant that began at `granted`; the low 80 bits of `random` are used.
    pub fn new(granted: Timestamp, random: u128) -> Self {
        Self(timed(granted, random))
    }

    /// The start of the grant.
    pub fn granted(self) -> Timestamp {
        time_of(self.0)
    }
}

impl CommandId {
    /// A command of cluster time `now`; the low 80 bits of `random` are used.
    pub fn new(now: Timestamp, random: u128) -> Self {
        Self(timed(now, random))
    }

    /// The cluster time at which it was made.
    pub fn made(self) -> Timestamp {
        time_of(self.0)
    }
}

/// Names one shard in the whole cluster; ordered by group, then extent, stripe and slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardName {
    /// The placement group of the extent.
    pub group: GroupId,
    /// The extent.
    pub extent: ExtentId,
    /// The stripe within the extent.
    pub stripe: StripeIndex,
    /// The shard within the stripe.
    pub slot: SlotIndex,
}

impl fmt::Display for ShardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.group, self.extent, self.stripe, self.slot)
    }
}

/// Tells a node whose shard it keeps, without a copy of the tenant table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantTag(pub u64);

impl TenantTag {
    /// FNV-1a, 64 bits, of the tenant's name. Names are given by operators, so nobody can choose
    /// one that collides; the tag separates tenants that hold valid certificates of this cluster.
    pub fn of(tenant: &crate::name::TenantName) -> Self {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in tenant.as_str().bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Self(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A timed id gives its time back and keeps the order of time.
    #[test]
    fn timed_ids_are_ordered_by_time() {
        let early = ExtentId::new(Timestamp::from_millis(1_000), u128::MAX);
        let late = ExtentId::new(Timestamp::from_millis(1_001), 0);
        assert!(early < late);
        assert_eq!(early.granted(), Timestamp::from_millis(1_000));
        assert_eq!(late.granted(), Timestamp::from_millis(1_001));
    }

    /// Text forms parse back; anything else is refused.
    #[test]
    fn wide_ids_parse() {
        let id = ClusterId(0x0123_4567_89ab_cdef);
        assert_eq!(id.to_string().parse::<ClusterId>().ok(), Some(id));
        for bad in ["", "12", "+0000000000000000000000000000001", "g0000000000000000000000000000001"] {
            assert!(bad.parse::<ClusterId>().is_err(), "{bad:?} was taken");
        }
    }
}
