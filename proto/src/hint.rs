//! What a shard says of its object: enough to find the object again with all metadata lost.
//!
//! Written by clients and kept by nodes, which do not read it. It is as trustworthy as the tenant whose shard it is:
//! whoever reads it compares the tenant that it names with the shard's [`TenantTag`](crate::TenantTag).
//!
//! The longest names and key fit, so that nothing is ever shortened.

use bytes::Bytes;
use prost::Message;

use crate::error::InvalidInput;
use crate::id::ExtentId;
use crate::limits::{
    BLOCK_BYTES, HINT_BYTES_MAX, OBJECT_BYTES_MAX, SHARD_BYTES_MAX, SHARD_BYTES_MIN, SLOTS_MAX,
};
use crate::name::{BucketName, ObjectKey, TenantName};
use crate::wire;

/// The matrix of the code: data shards are the data, parity as in `reed-solomon-erasure`. Another code gets another
/// number.
pub const MATRIX: u32 = 1;

/// What the shards of one stripe say of their object. Once parsed, its numbers do not contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHint {
    /// Whose it is.
    pub tenant: TenantName,
    /// In which bucket.
    pub bucket: BucketName,
    /// Under which key.
    pub key: ObjectKey,
    /// The put that wrote it: the id of the first extent that it began.
    pub put: ExtentId,
    /// Which of the put's extents, in the order in which they were begun, from 0.
    pub extent: u32,
    /// Bytes of the object before the extent; whole stripes.
    pub extent_offset: u64,
    /// Bytes of the object in this stripe; fewer than a full stripe has in the object's last alone.
    pub stripe_bytes: u32,
    /// Bytes of the whole object, as the writer was told; not to be relied on.
    pub object_bytes: Option<u64>,
    /// Data shards of the stripe.
    pub k: u32,
    /// Parity shards of the stripe.
    pub m: u32,
    /// Bytes of a shard of a full stripe.
    pub shard_bytes: u32,
    /// Which matrix the code has, for example [`MATRIX`].
    pub matrix: u32,
}

impl ObjectHint {
    /// As it is kept with a shard; at most [`HINT_BYTES_MAX`] bytes.
    pub fn encode(&self) -> Bytes {
        let message = wire::ObjectHint {
            tenant: self.tenant.to_string(),
            bucket: self.bucket.to_string(),
            key: self.key.as_bytes().clone(),
            put: self.put.to_wire(),
            extent: self.extent,
            extent_offset: self.extent_offset,
            stripe_bytes: self.stripe_bytes,
            object_bytes: self.object_bytes,
            k: self.k,
            m: self.m,
            shard_bytes: self.shard_bytes,
            matrix: self.matrix,
        };
        message.encode_to_vec().into()
    }

    /// From what was kept with a shard.
    ///
    /// # Errors
    ///
    /// When it is no hint, or its numbers contradict each other or the limits.
    pub fn decode(bytes: Bytes) -> Result<Self, InvalidInput> {
        if bytes.len() > HINT_BYTES_MAX {
            return Err(InvalidInput::new(format!("a hint of {} bytes", bytes.len())));
        }
        let message = wire::ObjectHint::decode(bytes)
            .map_err(|error| InvalidInput::new(format!("the hint cannot be read: {error}")))?;
        let hint = Self {
            tenant: message.tenant.parse()?,
            bucket: message.bucket.parse()?,
            key: ObjectKey::parse(message.key)?,
            put: ExtentId::from_wire(&message.put)?,
            extent: message.extent,
            extent_offset: message.extent_offset,
            stripe_bytes: message.stripe_bytes,
            object_bytes: message.object_bytes,
            k: message.k,
            m: message.m,
            shard_bytes: message.shard_bytes,
            matrix: message.matrix,
        };
        hint.check()?;
        Ok(hint)
    }

    /// Bytes of the object in a full stripe.
    pub fn full_stripe_bytes(&self) -> u64 {
        u64::from(self.k) * u64::from(self.shard_bytes)
    }

    fn check(&self) -> Result<(), InvalidInput> {
        let Self { k, m, shard_bytes, stripe_bytes, extent_offset, .. } = *self;
        let full = self.full_stripe_bytes();
        let slots = u64::from(k) + u64::from(m);
        let rules = [
            ("k and m", k > 0 && m > 0 && slots <= SLOTS_MAX as u64),
            (
                "shard length",
                (SHARD_BYTES_MIN..=SHARD_BYTES_MAX).contains(&(shard_bytes as usize))
                    && (shard_bytes as usize).is_multiple_of(BLOCK_BYTES),
            ),
            ("stripe length", (1..=full).contains(&u64::from(stripe_bytes))),
            ("offset", extent_offset <= OBJECT_BYTES_MAX && full > 0 && extent_offset.is_multiple_of(full)),
        ];
        match rules.iter().find(|(_, holds)| !holds) {
            Some((what, _)) => Err(InvalidInput::new(format!("the {what} of a hint cannot be: {self:?}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::{KEY_BYTES_MAX, NAME_BYTES_MAX};

    fn hint() -> ObjectHint {
        ObjectHint {
            tenant: "dijon".parse().unwrap(),
            bucket: "archives".parse().unwrap(),
            key: "a/b".parse().unwrap(),
            put: ExtentId(7),
            extent: 1,
            extent_offset: 4 * 65_536,
            stripe_bytes: 100,
            object_bytes: Some(262_244),
            k: 4,
            m: 2,
            shard_bytes: 65_536,
            matrix: MATRIX,
        }
    }

    /// The bytes with the shards never change.
    #[test]
    fn golden_bytes() {
        let mut expected = b"\x0a\x05dijon\x12\x08archives\x1a\x03a/b\x22\x10".to_vec();
        expected.extend_from_slice(&ExtentId(7).to_bytes());
        expected.extend_from_slice(b"\x28\x01\x30\x80\x80\x10\x38\x64\x40\xe4\x80\x10");
        expected.extend_from_slice(b"\x48\x04\x50\x02\x58\x80\x80\x04\x60\x01");
        assert_eq!(hint().encode(), expected);
        assert_eq!(ObjectHint::decode(expected.into()), Ok(hint()));
    }

    /// The longest names and numbers fit a shard's header, and come back.
    #[test]
    fn the_longest_fits() {
        let longest = ObjectHint {
            tenant: "t".repeat(NAME_BYTES_MAX).parse().unwrap(),
            bucket: "b".repeat(NAME_BYTES_MAX).parse().unwrap(),
            key: "k".repeat(KEY_BYTES_MAX).parse().unwrap(),
            put: ExtentId(u128::MAX),
            extent: u32::MAX,
            extent_offset: 0,
            object_bytes: Some(u64::MAX),
            matrix: u32::MAX,
            ..hint()
        };
        let bytes = longest.encode();
        assert!(bytes.len() <= HINT_BYTES_MAX, "{} bytes", bytes.len());
        assert_eq!(ObjectHint::decode(bytes), Ok(longest));
    }

    /// Numbers that contradict each other or the limits are refused.
    #[test]
    fn odd_numbers_are_refused() {
        for odd in [
            ObjectHint { k: 0, ..hint() },
            ObjectHint { m: 0, ..hint() },
            ObjectHint { k: u32::MAX, m: u32::MAX, ..hint() },
            ObjectHint { shard_bytes: 65_535, ..hint() },
            ObjectHint { shard_bytes: u32::MAX, ..hint() },
            ObjectHint { stripe_bytes: 0, ..hint() },
            ObjectHint { stripe_bytes: 4 * 65_536 + 1, ..hint() },
            ObjectHint { extent_offset: 65_536, ..hint() },
            ObjectHint { extent_offset: u64::MAX / 262_144 * 262_144, ..hint() },
        ] {
            assert!(ObjectHint::decode(odd.encode()).is_err(), "{odd:?} was taken");
        }
        assert!(ObjectHint::decode(Bytes::from(vec![0; HINT_BYTES_MAX + 1])).is_err());
        assert!(ObjectHint::decode(Bytes::new()).is_err());
    }

    proptest! {
        /// Whatever the bytes, reading them ends, and what it gives comes back the same.
        #[test]
        fn any_bytes_are_survived(
            flips in prop::collection::vec((0..200_usize, any::<u8>()), 0..4), cut in 0..200_usize,
        ) {
            let mut bytes = hint().encode().to_vec();
            for (at, to) in flips {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = to;
                }
            }
            bytes.truncate(cut);
            if let Ok(hint) = ObjectHint::decode(bytes.into()) {
                prop_assert_eq!(ObjectHint::decode(hint.encode()), Ok(hint));
            }
        }
    }
}
