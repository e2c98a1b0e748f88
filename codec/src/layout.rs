//! Where each byte of an extent lies, as functions of the profile's geometry and the extent's length.

use std::ops::Range;

use proto::limits::BLOCK_BYTES;
use proto::{InvalidInput, SlotIndex, StripeIndex};

use crate::geometry::Geometry;

/// One extent, cut into stripes: all full but the last, which holds the rest. Never empty.
///
/// Stripe `s` holds the extent's bytes from `s × stripe_bytes`; data shard `i` of a stripe holds the
/// stripe's bytes from `i × shard length`; block `b` of a shard holds the shard's bytes from
/// `b × 64 KiB`. The last block of a shard may be shorter; the last bytes of a short stripe's shards
/// are zeros that belong to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentLayout {
    geometry: Geometry,
    extent_bytes: u64,
}

/// The part of a range that lies in one stripe. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripePart {
    /// The stripe.
    pub stripe: StripeIndex,
    /// Bytes within the stripe.
    pub range: Range<usize>,
    /// Length of each of the stripe's shards.
    pub shard_bytes: usize,
}

/// The part of a range that lies in one data shard, and the blocks that hold it. Never empty.
///
/// To read it without the shard itself, fetch the same blocks of `k` other shards and
/// [reconstruct](crate::Codec::reconstruct) from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPart {
    /// The data shard.
    pub slot: SlotIndex,
    /// Bytes within the shard.
    pub range: Range<usize>,
    /// First 64 KiB block to fetch.
    pub first_block: u32,
    /// Blocks to fetch, at least 1; the shard's last block may be shorter.
    pub blocks: u32,
    /// What these blocks hold, as bytes within the shard.
    pub fetched: Range<usize>,
}

impl ExtentLayout {
    pub(crate) fn new(geometry: Geometry, extent_bytes: u64) -> Result<Self, InvalidInput> {
        let max = geometry.extent_bytes_max();
        if extent_bytes == 0 || extent_bytes > max {
            return Err(InvalidInput::new(format!("an extent of {extent_bytes} bytes: expected 1 to {max}")));
        }
        Ok(Self { geometry, extent_bytes })
    }

    /// Of a length that is known to obey the rules.
    pub(crate) fn of_valid(geometry: Geometry, extent_bytes: u64) -> Self {
        let max = geometry.extent_bytes_max();
        assert!((1..=max).contains(&extent_bytes), "extent of {extent_bytes} bytes, max {max}");
        Self { geometry, extent_bytes }
    }

    /// The profile's numbers.
    pub const fn geometry(self) -> Geometry {
        self.geometry
    }

    /// Bytes of the object in this extent.
    pub const fn extent_bytes(self) -> u64 {
        self.extent_bytes
    }

    /// Stripes of this extent, at least 1.
    pub fn stripes(self) -> u32 {
        // At most EXTENT_BYTES_MAX / SHARD_BYTES_MIN: 2^14.
        narrow_u32(self.extent_bytes.div_ceil(self.geometry.stripe_bytes() as u64))
    }

    /// Bytes of the object in `stripe`; `None` when the extent has no such stripe.
    pub fn stripe_bytes(self, stripe: StripeIndex) -> Option<usize> {
        let full = self.geometry.stripe_bytes() as u64;
        let rest = self.extent_bytes.saturating_sub(u64::from(stripe.0) * full);
        (rest > 0).then(|| narrow_usize(rest.min(full)))
    }

    /// Length of each shard of `stripe`; `None` when the extent has no such stripe.
    pub fn shard_bytes(self, stripe: StripeIndex) -> Option<usize> {
        self.stripe_bytes(stripe).map(|bytes| self.geometry.shard_bytes_for(bytes))
    }

    /// Bytes that this extent takes in each slot: the lengths of all its shards there.
    pub fn slot_bytes(self) -> u64 {
        let full = self.geometry.stripe_bytes() as u64;
        let rest = narrow_usize(self.extent_bytes % full);
        let full_stripes = self.extent_bytes / full;
        full_stripes * self.geometry.shard_bytes() as u64 + self.geometry.shard_bytes_for(rest) as u64
    }

    /// The parts of the extent's bytes `range`, stripe by stripe, in order; none for an empty range.
    ///
    /// # Errors
    ///
    /// When the range ends before it starts, or after the extent.
    pub fn locate(self, range: Range<u64>) -> Result<impl Iterator<Item = StripePart>, InvalidInput> {
        if range.start > range.end || range.end > self.extent_bytes {
            return Err(InvalidInput::new(format!(
                "range {}..{} of an extent of {} bytes",
                range.start, range.end, self.extent_bytes
            )));
        }
        let full = self.geometry.stripe_bytes() as u64;
        let first = range.start / full;
        let end = if range.is_empty() { first } else { range.end.div_ceil(full) };
        Ok((first..end).map(move |stripe| self.stripe_part(stripe, &range)))
    }

    /// What `range` has in `stripe`; they must touch.
    fn stripe_part(self, stripe: u64, range: &Range<u64>) -> StripePart {
        let full = self.geometry.stripe_bytes() as u64;
        let start = stripe * full;
        let stripe_bytes = narrow_usize(full.min(self.extent_bytes - start));
        StripePart {
            stripe: StripeIndex(narrow_u32(stripe)),
            range: narrow_usize(range.start.saturating_sub(start))
                ..narrow_usize((range.end - start).min(full)),
            shard_bytes: self.geometry.shard_bytes_for(stripe_bytes),
        }
    }
}

impl StripePart {
    /// The data shards that hold this part, and which of their blocks to fetch, in order.
    pub fn shard_parts(&self) -> impl Iterator<Item = ShardPart> {
        let Range { start, end } = self.range;
        let shard_bytes = self.shard_bytes;
        (start / shard_bytes..end.div_ceil(shard_bytes)).map(move |slot| {
            let shard_start = slot * shard_bytes;
            let range = start.saturating_sub(shard_start)..(end - shard_start).min(shard_bytes);
            ShardPart::new(slot, range, shard_bytes)
        })
    }
}

impl ShardPart {
    fn new(slot: usize, range: Range<usize>, shard_bytes: usize) -> Self {
        let first_block = range.start / BLOCK_BYTES;
        let end_block = range.end.div_ceil(BLOCK_BYTES);
        Self {
            slot: slot_index(slot),
            range,
            first_block: narrow_u32(first_block as u64),
            blocks: narrow_u32((end_block - first_block) as u64),
            fetched: first_block * BLOCK_BYTES..shard_bytes.min(end_block * BLOCK_BYTES),
        }
    }

    /// Where the wanted bytes lie in the fetched blocks.
    pub fn range_in_fetched(&self) -> Range<usize> {
        self.range.start - self.fetched.start..self.range.end - self.fetched.start
    }
}

/// A place among at most `SLOTS_MAX`.
#[allow(clippy::cast_possible_truncation)]
pub(crate) const fn slot_index(slot: usize) -> SlotIndex {
    assert!(slot < proto::limits::SLOTS_MAX, "slot out of range");
    SlotIndex(slot as u8)
}

/// A length or offset within one stripe, far below 2^32.
#[allow(clippy::cast_possible_truncation)]
const fn narrow_usize(bytes: u64) -> usize {
    assert!(bytes <= u32::MAX as u64, "longer than any stripe");
    bytes as usize
}

/// A number of stripes or blocks of one extent, far below 2^32.
#[allow(clippy::cast_possible_truncation)]
const fn narrow_u32(count: u64) -> u32 {
    assert!(count <= u32::MAX as u64, "more than any extent has");
    count as u32
}
