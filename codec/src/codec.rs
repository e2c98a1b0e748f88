//! Encoding a stripe, and restoring shards from others.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proto::{Remedy, SlotIndex};

use crate::field::{COLUMN_BYTES, Row, combine, lagrange_row};
use crate::geometry::Geometry;
use crate::layout::slot_index;
use crate::mask::SlotMask;

/// The code of one profile. Cloning is cheap; it keeps no state between calls.
#[derive(Clone, Debug)]
pub struct Codec {
    geometry: Geometry,
    /// For each parity slot, the coefficients of the data slots.
    parity_rows: Arc<[Row]>,
}

/// A stripe's shards, by slot: `k` of data, then `m` of parity, all of one length.
///
/// Data shards share the stripe's buffer, parity shards one other; a buffer lives until the last of
/// its shards is dropped.
#[derive(Clone, Debug)]
pub struct EncodedStripe {
    shards: Vec<Bytes>,
    stripe_bytes: usize,
}

/// Why shards could not be made. [`Self::remedy`] tells what may help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A stripe is empty, or longer than a full one.
    #[error("a stripe of {bytes} bytes: expected 1 to {max}")]
    StripeLength {
        /// Bytes given.
        bytes: usize,
        /// Bytes of a full stripe.
        max: usize,
    },
    /// Not one place for each slot.
    #[error("{found} shards of a stripe, expected {expected}")]
    ShardCount {
        /// Places given.
        found: usize,
        /// `k + m`.
        expected: usize,
    },
    /// A shard is empty, or not as long as the first one that is present.
    #[error("the shard of slot {slot} has {found} bytes, expected {expected}")]
    ShardLength {
        /// The slot.
        slot: SlotIndex,
        /// Its length.
        found: usize,
        /// The length of the first shard that is present, or 1 when that is empty.
        expected: usize,
    },
    /// Fewer than `k` shards are present.
    #[error("{present} shards of a stripe are present, {needed} are needed")]
    TooFewShards {
        /// Shards given.
        present: usize,
        /// `k`.
        needed: usize,
    },
    /// A slot is wanted that the stripe does not have.
    #[error("slot {slot} is wanted of a stripe of {slots} slots")]
    NoSuchSlot {
        /// The slot.
        slot: SlotIndex,
        /// `k + m`.
        slots: usize,
    },
}

impl CodecError {
    /// What the caller may do.
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::TooFewShards { .. } | Self::ShardLength { .. } => Remedy::GoElsewhere,
            Self::StripeLength { .. } | Self::ShardCount { .. } | Self::NoSuchSlot { .. } => {
                Remedy::FixRequest
            }
        }
    }
}

impl EncodedStripe {
    /// The shards, by slot.
    pub fn shards(&self) -> &[Bytes] {
        &self.shards
    }

    /// The shards, by slot.
    pub fn into_shards(self) -> Vec<Bytes> {
        self.shards
    }

    /// Length of each shard.
    pub fn shard_bytes(&self) -> usize {
        self.shards.first().map_or(0, Bytes::len)
    }

    /// Bytes of the object in this stripe.
    pub const fn stripe_bytes(&self) -> usize {
        self.stripe_bytes
    }
}

impl Codec {
    /// The code for `geometry`.
    pub fn new(geometry: Geometry) -> Self {
        let data: Vec<u8> = (0..geometry.k()).map(|slot| slot_index(slot).0).collect();
        let parity = geometry.k()..geometry.slots();
        let parity_rows = parity.map(|slot| lagrange_row(&data, slot_index(slot).0)).collect();
        Self { geometry, parity_rows }
    }

    /// The profile's numbers.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Makes the shards of a stripe of `stripe.len()` bytes of the object.
    ///
    /// A full stripe is not copied: data shards are slices of it. Of a shorter one the shard that
    /// holds its end is copied to be filled up with zeros. Collect a stripe in a
    /// [`BytesMut`] and freeze it, or let a [`Cutter`](crate::Cutter) do that.
    ///
    /// # Errors
    ///
    /// [`CodecError::StripeLength`] when the stripe is empty or longer than a full one.
    pub fn encode(&self, stripe: Bytes) -> Result<EncodedStripe, CodecError> {
        self.encode_into(stripe, BytesMut::new())
    }

    /// As [`Self::encode`], with the parity in `parity_buffer`, whose old bytes are lost: for callers
    /// that keep buffers to use them again. It grows when it is too small; at `k = 1` it is dropped.
    ///
    /// # Errors
    ///
    /// As [`Self::encode`].
    pub fn encode_into(&self, stripe: Bytes, parity_buffer: BytesMut) -> Result<EncodedStripe, CodecError> {
        let (stripe_bytes, max) = (stripe.len(), self.geometry.stripe_bytes());
        if stripe_bytes == 0 || stripe_bytes > max {
            return Err(CodecError::StripeLength { bytes: stripe_bytes, max });
        }
        let shard_bytes = self.geometry.shard_bytes_for(stripe_bytes);
        let mut shards = data_shards(&stripe, self.geometry.k(), shard_bytes);
        if self.geometry.k() == 1 {
            shards.resize(self.geometry.slots(), shards[0].clone());
        } else {
            let data: Vec<&[u8]> = shards.iter().map(|shard| &shard[..]).collect();
            let parity = combined(&self.parity_rows, &data, shard_bytes, parity_buffer);
            shards.extend(parity);
        }
        Ok(EncodedStripe { shards, stripe_bytes })
    }

    /// Fills the `wanted` places of `shards` that are `None`, data or parity, from `k` that are not.
    ///
    /// `shards` has a place for each slot. Present shards are only read, never copied. What is not
    /// wanted stays as it is. On an error nothing has changed. Of more than `k` present shards the
    /// ones of the lowest slots are used.
    ///
    /// The code works on each byte alone, so the same range of bytes of each shard gives that range of
    /// the wanted ones: a range read fetches the same blocks of `k` shards, not whole shards.
    ///
    /// # Errors
    ///
    /// When there is not one place for each slot, a wanted slot does not exist, present shards are
    /// empty or differ in length, or, if something is to be made, fewer than `k` are present.
    pub fn reconstruct(&self, shards: &mut [Option<Bytes>], wanted: SlotMask) -> Result<(), CodecError> {
        let slots = self.geometry.slots();
        self.check_count(shards.len())?;
        if let Some(slot) = wanted.difference(SlotMask::first(slots)).iter().next() {
            return Err(CodecError::NoSuchSlot { slot, slots });
        }
        let present: Vec<(SlotIndex, &Bytes)> = (0..slots)
            .map(slot_index)
            .zip(shards.iter())
            .filter_map(|(slot, shard)| shard.as_ref().map(|shard| (slot, shard)))
            .collect();
        check_lengths(&present)?;
        let absent = wanted.difference(present.iter().map(|(slot, _)| *slot).collect());
        if absent.is_empty() {
            return Ok(());
        }
        let made = self.make(&present, absent)?;
        for (slot, shard) in absent.iter().zip(made) {
            shards[usize::from(slot.0)] = Some(shard);
        }
        Ok(())
    }

    /// Whether the parity of a whole stripe, or of the same range of each of its shards, fits its data.
    /// Takes no memory in proportion to the shards.
    ///
    /// # Errors
    ///
    /// When there is not one shard for each slot, or shards are empty or differ in length.
    pub fn verify(&self, shards: &[Bytes]) -> Result<bool, CodecError> {
        self.check_count(shards.len())?;
        let all: Vec<(SlotIndex, &Bytes)> =
            shards.iter().enumerate().map(|(slot, shard)| (slot_index(slot), shard)).collect();
        let shard_bytes = check_lengths(&all)?;
        let (data, parity) = shards.split_at(self.geometry.k());
        if let [only] = data {
            return Ok(parity.iter().all(|copy| copy == only));
        }
        let mut scratch = vec![0; COLUMN_BYTES * parity.len()];
        Ok((0..shard_bytes).step_by(COLUMN_BYTES).all(|start| {
            let column = start..shard_bytes.min(start + COLUMN_BYTES);
            let data: Vec<&[u8]> = data.iter().map(|shard| &shard[column.clone()]).collect();
            let mut computed: Vec<&mut [u8]> =
                scratch.chunks_mut(COLUMN_BYTES).map(|row| &mut row[..column.len()]).collect();
            combine(&self.parity_rows, &data, &mut computed);
            computed.iter().zip(parity).all(|(computed, stored)| **computed == stored[column.clone()])
        }))
    }

    /// The shards of the slots `absent`, in their order, from the first `k` that are `present`.
    fn make(&self, present: &[(SlotIndex, &Bytes)], absent: SlotMask) -> Result<Vec<Bytes>, CodecError> {
        let needed = self.geometry.k();
        let Some(sources) = present.get(..needed) else {
            return Err(CodecError::TooFewShards { present: present.len(), needed });
        };
        if let [(_, only)] = sources {
            return Ok(vec![Bytes::clone(only); absent.len()]);
        }
        let points: Vec<u8> = sources.iter().map(|(slot, _)| slot.0).collect();
        let rows: Vec<Row> = absent.iter().map(|slot| lagrange_row(&points, slot.0)).collect();
        let inputs: Vec<&[u8]> = sources.iter().map(|(_, shard)| &shard[..]).collect();
        Ok(combined(&rows, &inputs, inputs[0].len(), BytesMut::new()))
    }

    fn check_count(&self, found: usize) -> Result<(), CodecError> {
        let expected = self.geometry.slots();
        if found == expected { Ok(()) } else { Err(CodecError::ShardCount { found, expected }) }
    }
}

/// The stripe in `k` shards; what lies past its end is zeros.
fn data_shards(stripe: &Bytes, k: usize, shard_bytes: usize) -> Vec<Bytes> {
    let mut shards: Vec<Bytes> = (0..stripe.len() / shard_bytes)
        .map(|slot| stripe.slice(slot * shard_bytes..(slot + 1) * shard_bytes))
        .collect();
    if shards.len() < k {
        // The shard with the stripe's end, and one of zeros for all that follow, in one buffer.
        let tail = &stripe[shards.len() * shard_bytes..];
        let mut padded = BytesMut::zeroed(2 * shard_bytes);
        padded[..tail.len()].copy_from_slice(tail);
        let padded = padded.freeze();
        shards.push(padded.slice(..shard_bytes));
        shards.resize(k, padded.slice(shard_bytes..));
    }
    shards
}

/// One output for each row, all in `buffer`.
fn combined(rows: &[Row], inputs: &[&[u8]], shard_bytes: usize, mut buffer: BytesMut) -> Vec<Bytes> {
    if buffer.capacity() == 0 {
        // Fresh zero pages from the allocator cost less than filling.
        buffer = BytesMut::zeroed(rows.len() * shard_bytes);
    } else {
        buffer.resize(rows.len() * shard_bytes, 0);
    }
    let mut outputs: Vec<&mut [u8]> = buffer.chunks_mut(shard_bytes).collect();
    combine(rows, inputs, &mut outputs);
    let buffer = buffer.freeze();
    (0..rows.len()).map(|row| buffer.slice(row * shard_bytes..(row + 1) * shard_bytes)).collect()
}

/// The length that all have; 0 when there are none.
fn check_lengths(shards: &[(SlotIndex, &Bytes)]) -> Result<usize, CodecError> {
    let Some((_, first)) = shards.first() else { return Ok(0) };
    let expected = first.len().max(1);
    match shards.iter().find(|(_, shard)| shard.len() != expected) {
        Some((slot, shard)) => Err(CodecError::ShardLength { slot: *slot, found: shard.len(), expected }),
        None => Ok(expected),
    }
}
