//! What the shards of an extent say of their object.

use bytes::Bytes;
use codec::Geometry;
use proto::hint::MATRIX;
use proto::{BucketName, ExtentId, ObjectHint, ObjectKey, TenantName};

/// What is known of an object before its first stripe is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    pub(super) tenant: &'a TenantName,
    pub(super) bucket: &'a BucketName,
    pub(super) key: &'a ObjectKey,
    /// The same for all extents.
    pub(super) geometry: Geometry,
    /// Bytes of the object, as far as is known.
    pub(super) object_bytes: Option<u64>,
}

/// The hints of one extent. All stripes but the object's last have the same, which is encoded once.
#[derive(Debug)]
pub(super) struct Hints {
    hint: ObjectHint,
    encoded: Bytes,
}

impl Hints {
    /// Of the extent that the put begins after `begun` others, `before` bytes into the object.
    pub(super) fn new(told: Told<'_>, put: ExtentId, begun: u32, before: u64) -> Self {
        let Told { tenant, bucket, key, geometry, object_bytes } = told;
        let hint = ObjectHint {
            tenant: tenant.clone(),
            bucket: bucket.clone(),
            key: key.clone(),
            put,
            extent: begun,
            extent_offset: before,
            stripe_bytes: narrow(geometry.stripe_bytes()),
            object_bytes,
            k: narrow(geometry.k()),
            m: narrow(geometry.m()),
            shard_bytes: narrow(geometry.shard_bytes()),
            matrix: MATRIX,
        };
        Self { encoded: hint.encode(), hint }
    }

    /// For the shards of a stripe with so many bytes of the object.
    pub(super) fn of_stripe(&mut self, stripe_bytes: usize) -> Bytes {
        let stripe_bytes = narrow(stripe_bytes);
        if self.hint.stripe_bytes != stripe_bytes {
            self.hint.stripe_bytes = stripe_bytes;
            self.encoded = self.hint.encode();
        }
        self.encoded.clone()
    }
}

/// A number of a geometry: far below 2^32.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Full stripes share one hint, and the short one at the end has one of its own that says where the object ends.
    #[test]
    fn full_stripes_share_a_hint() {
        let (tenant, bucket, key) =
            ("dijon".parse().unwrap(), "files".parse().unwrap(), "a".parse().unwrap());
        let geometry = Geometry::new(4, 2, 65_536).unwrap();
        let told =
            Told { tenant: &tenant, bucket: &bucket, key: &key, geometry, object_bytes: Some(600_000) };
        let mut hints = Hints::new(told, ExtentId(9), 1, 262_144);
        let full = hints.of_stripe(262_144);
        assert_eq!(full.as_ptr(), hints.of_stripe(262_144).as_ptr());
        let short = ObjectHint::decode(hints.of_stripe(75_712)).unwrap();
        let full = ObjectHint::decode(full).unwrap();
        assert_eq!((full.stripe_bytes, full.extent, full.extent_offset), (262_144, 1, 262_144));
        assert_eq!((full.put, full.object_bytes, full.k, full.m), (ExtentId(9), Some(600_000), 4, 2));
        assert_eq!(short, ObjectHint { stripe_bytes: 75_712, ..full });
    }
}
