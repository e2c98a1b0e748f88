//! The numbers of a profile that decide how bytes are cut.

use proto::InvalidInput;
use proto::limits::{
    BLOCK_BYTES, EXTENT_BYTES_MAX, SHARD_ALIGN_BYTES, SHARD_BYTES_MAX, SHARD_BYTES_MIN, SLOTS_MAX,
};

use crate::layout::ExtentLayout;

/// `k` data and `m` parity shards of up to `shard_bytes` each. Once made, it obeys every limit.
///
/// `k = 1` is replication: all `1 + m` shards have the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    k: usize,
    m: usize,
    shard_bytes: usize,
}

// The largest stripe fits an extent, so that an extent always holds a whole stripe.
const _: () = assert!((SLOTS_MAX * SHARD_BYTES_MAX) as u64 <= EXTENT_BYTES_MAX);
// The points of the code are elements of GF(2^8).
const _: () = assert!(SLOTS_MAX <= 256);

impl Geometry {
    /// From the numbers of a profile, as they stand in messages.
    ///
    /// # Errors
    ///
    /// Without a data or a parity shard, with more than
    /// [`SLOTS_MAX`] shards together, or when `shard_bytes` is not a multiple of
    /// [`BLOCK_BYTES`] between [`SHARD_BYTES_MIN`] and [`SHARD_BYTES_MAX`].
    pub fn new(k: u32, m: u32, shard_bytes: u32) -> Result<Self, InvalidInput> {
        let (k, m, shard_bytes) = (k as usize, m as usize, shard_bytes as usize);
        if k == 0 {
            return Err(InvalidInput::new("k is 0: a stripe needs at least 1 data shard"));
        }
        if m == 0 {
            return Err(InvalidInput::new("m is 0: a stripe needs at least 1 parity shard"));
        }
        if k.saturating_add(m) > SLOTS_MAX {
            return Err(InvalidInput::new(format!("k + m is {k} + {m}: at most {SLOTS_MAX} shards")));
        }
        let in_range = (SHARD_BYTES_MIN..=SHARD_BYTES_MAX).contains(&shard_bytes);
        if !in_range || !shard_bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(InvalidInput::new(format!(
                "a shard of {shard_bytes} bytes: expected a multiple of {BLOCK_BYTES} from \
                 {SHARD_BYTES_MIN} to {SHARD_BYTES_MAX}"
            )));
        }
        Ok(Self { k, m, shard_bytes })
    }

    /// Data shards of a stripe; any `k` shards give the stripe back.
    pub const fn k(self) -> usize {
        self.k
    }

    /// Parity shards of a stripe: how many may be lost.
    pub const fn m(self) -> usize {
        self.m
    }

    /// All shards of a stripe.
    pub const fn slots(self) -> usize {
        self.k + self.m
    }

    /// Length of each shard of a full stripe.
    pub const fn shard_bytes(self) -> usize {
        self.shard_bytes
    }

    /// Bytes of the object in a full stripe.
    pub const fn stripe_bytes(self) -> usize {
        self.k * self.shard_bytes
    }

    /// Bytes of the object in a full extent: [`EXTENT_BYTES_MAX`] rounded down to whole stripes.
    pub const fn extent_bytes_max(self) -> u64 {
        let stripe = self.stripe_bytes() as u64;
        EXTENT_BYTES_MAX / stripe * stripe
    }

    /// Length of each shard of a stripe with `stripe_bytes` bytes of the object: the smallest multiple
    /// of [`SHARD_ALIGN_BYTES`] of which `k` hold the stripe.
    pub const fn shard_bytes_for(self, stripe_bytes: usize) -> usize {
        stripe_bytes.div_ceil(self.k).next_multiple_of(SHARD_ALIGN_BYTES)
    }

    /// The layout of one extent.
    ///
    /// # Errors
    ///
    /// When it is empty or longer than [`Self::extent_bytes_max`].
    pub fn extent(self, extent_bytes: u64) -> Result<ExtentLayout, InvalidInput> {
        ExtentLayout::new(self, extent_bytes)
    }

    /// The extents of an object of `object_bytes` bytes, in order. None for an empty object.
    pub fn extents(self, object_bytes: u64) -> impl Iterator<Item = ExtentLayout> {
        let max = self.extent_bytes_max();
        (0..object_bytes.div_ceil(max))
            .map(move |extent| ExtentLayout::of_valid(self, max.min(object_bytes - extent * max)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every rule refuses what just breaks it and takes what just obeys it.
    #[test]
    fn limits_are_exact() {
        for (k, m, shard_bytes) in
            [(1, 1, 65_536), (1, 23, 65_536), (23, 1, 65_536), (4, 2, 131_072), (4, 2, 4 << 20)]
        {
            assert!(Geometry::new(k, m, shard_bytes).is_ok(), "{k}+{m} × {shard_bytes} refused");
        }
        for (k, m, shard_bytes) in [
            (0, 1, 65_536),
            (1, 0, 65_536),
            (23, 2, 65_536),
            (u32::MAX, u32::MAX, 65_536),
            (4, 2, 0),
            (4, 2, 65_535),
            (4, 2, 65_600),
            (4, 2, (4 << 20) + 65_536),
            (4, 2, u32::MAX),
        ] {
            assert!(Geometry::new(k, m, shard_bytes).is_err(), "{k}+{m} × {shard_bytes} taken");
        }
    }

    /// Extents hold whole stripes, together the object, and an empty object has none.
    #[test]
    fn extents_cover_the_object() {
        let geometry = Geometry::new(6, 3, 1 << 20).unwrap();
        let max = geometry.extent_bytes_max();
        assert_eq!(max, 170 * 6 * (1 << 20));
        let lengths = |bytes| geometry.extents(bytes).map(|e| e.extent_bytes()).collect::<Vec<_>>();
        assert_eq!(lengths(0), Vec::<u64>::new());
        assert_eq!(lengths(1), [1]);
        assert_eq!(lengths(max), [max]);
        assert_eq!(lengths(2 * max + 5), [max, max, 5]);
    }
}
