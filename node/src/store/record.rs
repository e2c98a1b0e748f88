//! A record of a log: its page, which is followed by a payload for some kinds.
//!
//! ```text
//! 0         8         12        16           32          48     56        60     64            72       80
//! +---------+---------+---------+------------+-----------+------+---------+------+-------------+--------+
//! | magic   | version | CRC-32C | cluster id | disk uuid | salt | segment | kind | incarnation | offset |
//! | 8 bytes | u32     | u32     | 16 bytes   | 16 bytes  | u64  | u32     | u32  | u64         | u64    |
//! +---------+---------+---------+------------+-----------+------+---------+------+-------------+--------+
//! 80         88         96           104                         4096
//! +----------+----------+------------+---------------------------+
//! | sequence | previous | durable to | body, by kind, then zeros |
//! | u64      | u64      | u64        |                           |
//! +----------+----------+------------+---------------------------+
//!
//! kind 1, a shard:
//! 104         120     124      128    132       136      140            144     152
//! +-----------+-------+--------+------+---------+--------+--------------+-------+------------+
//! | extent id | group | stripe | slot | profile | matrix | shard length | epoch | tenant tag |
//! | 16 bytes  | u32   | u32    | u32  | u32     | u32    | u32          | u64   | u64        |
//! +-----------+-------+--------+------+---------+--------+--------------+-------+------------+
//! 160    168      172          176                               432                   2480
//! +------+--------+------------+---------------------------------+---------------------+
//! | born | blocks | hint bytes | CRC-32C of each block, 64 × u32 | hint, opaque, zeros |
//! | u64  | u32    | u32        | zeros beyond `blocks`           | beyond `hint bytes` |
//! +------+--------+------------+---------------------------------+---------------------+
//! 2480                  2484    2488                  2496
//! +---------------------+-------+---------------------+
//! | copied from segment | zeros | of this incarnation |        zeros for what is no copy
//! | u32                 | u32   | u64                 |
//! +---------------------+-------+---------------------+
//! 4096                               4096 + shard length rounded up to 4096
//! +----------------------------------+
//! | the shard, then zeros            |
//! +----------------------------------+
//!
//! kind 2, tombstones:                 kind 3, a seal:
//! 104     108                112      104            108     112                120
//! +-------+------------------+        +--------------+-------+------------------+
//! | count | CRC-32C, payload |        | next segment | zeros | next incarnation |
//! | u32   | u32              |        | u32          | 4     | u64              |
//! +-------+------------------+        +--------------+-------+------------------+
//! 4096           4096 + 48 × count rounded up to 4096
//! +--------------+                    no payload
//! | tombstone.rs |
//! +--------------+
//! ```
//!
//! The page's checksum covers where the page belongs, that is realm, segment, incarnation and offset, so that
//! a write that went astray and what an earlier incarnation left are never taken for a record. What places it
//! in the log follows; then the body, in which all that has a fixed length comes before the hint.
//!
//! Every later version has the realm in the same place: it is compared before the version is believed.
//!
//! Promised: what is decoded keeps every rule of its fields, and so does what is encoded. Whether a record
//! fits its segment and the record before it is left to readers of the log, payloads of shards to those of
//! shards.

use bytes::Bytes;
use proto::limits::{BLOCK_BYTES, SHARD_ALIGN_BYTES, SHARD_BYTES_MAX};
use proto::{Epoch, ExtentId, GroupId, ProfileId, ShardName, StripeIndex, TenantTag};

pub(crate) use super::problem::{Foreign, RecordProblem};
pub use super::segment::PAGE_BYTES;
pub(crate) use super::segment::{
    Place, Realm, SEQUENCE_MAX, SegmentHeader, SegmentId, VERSION, parse_segment_file, segment_file,
};
pub(crate) use super::tombstone::{
    TOMBSTONES_MAX, Tombstone, decode_tombstones, encode_tombstones, tombstones_bytes,
};

use super::problem::require;
use super::segment::PAGE;
use super::tombstone::{check_count, parse_slot};
use crate::block::{BlockReader, BlockWriter};

/// Bytes of a hint.
pub(crate) const HINT_BYTES_MAX: usize = 2048;
/// Blocks of the largest shard.
const BLOCKS_MAX: usize = SHARD_BYTES_MAX / BLOCK_BYTES;
const MAGIC: [u8; 8] = *b"CADOLErc";
const BLOCK_CRCS_AT: usize = 176;

const KIND_SHARD: u32 = 1;
const KIND_TOMBSTONES: u32 = 2;
const KIND_SEAL: u32 = 3;

// Checksums, hint and source end before the page does.
const _: () = assert!(BLOCK_CRCS_AT + BLOCKS_MAX * 4 + HINT_BYTES_MAX + 16 <= PAGE_BYTES);

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Where it begins.
    pub(crate) place: Place,
    /// Its number, from 1, one counter a disk; grows along the log.
    pub(crate) sequence: u64,
    /// The number of the record before it in the log; 0 for the first ever.
    pub(crate) previous: u64,
    /// Every record up to this number was durable when this one was written.
    pub(crate) durable_to: u64,
    /// What it says.
    pub(crate) body: Body,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Here lies a shard: it is the payload.
    Shard(ShardMeta),
    /// Shards are no more: their names are the payload.
    Tombstones {
        /// How many, up to [`TOMBSTONES_MAX`].
        count: u32,
        /// CRC-32C of the whole payload.
        payload_crc: u32,
    },
    /// The segment ends here.
    Seal {
        /// Where the log goes on.
        next: SegmentId,
        /// Of that segment, from 1.
        next_incarnation: u64,
    },
}

/// What stands before a shard's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShardMeta {
    /// Which shard this is.
    pub(crate) name: ShardName,
    /// Of the group when the shard was written.
    pub(crate) epoch: Epoch,
    /// Who may read it.
    pub(crate) tenant_tag: TenantTag,
    /// The code by which its stripe was made.
    pub(crate) profile: ProfileId,
    /// Which matrix the code had.
    pub(crate) matrix: u32,
    /// The sequence under which the shard was first written; a copy made by compaction keeps it.
    pub(crate) born: u64,
    /// Bytes of the shard.
    pub(crate) shard_bytes: u32,
    /// The segment, and its incarnation, from which compaction copied it; none for what was written by somebody.
    pub(crate) from: Option<(SegmentId, u64)>,
    /// What the writer wants to be kept with the shard, up to [`HINT_BYTES_MAX`]; nothing here reads it.
    pub(crate) hint: Bytes,
    /// CRC-32C of each 64 KiB block.
    pub(crate) block_crcs: Vec<u32>,
}

impl Record {
    /// Writes the record's page into the first [`PAGE_BYTES`] bytes of `page`.
    pub(crate) fn encode(&self, realm: &Realm, page: &mut [u8]) {
        let checked = self.check();
        assert!(checked.is_ok(), "record {} at {}: {checked:?}", self.sequence, self.place);
        let mut block = BlockWriter::new(page, MAGIC, VERSION);
        realm.write(&mut block);
        block.u32(self.place.segment.0);
        block.u32(self.body.kind());
        block.u64(self.place.incarnation);
        block.u64(self.place.offset);
        block.u64(self.sequence);
        block.u64(self.previous);
        block.u64(self.durable_to);
        self.body.write(&mut block);
        block.seal();
    }

    /// From the page that was read at `expected`, [`PAGE_BYTES`] bytes.
    ///
    /// # Errors
    ///
    /// When it is no whole record, one of another realm or place, or an impossible one.
    pub(crate) fn decode(realm: &Realm, expected: &Place, page: &[u8]) -> Result<Self, RecordProblem> {
        let mut block = BlockReader::of_any_version(page, MAGIC)?;
        // Before the version: bytes of a shard, which lie about in what was freed, are no record of a later one.
        realm.check(&mut block)?;
        block.check_version(VERSION)?;
        let (segment, kind) = (SegmentId(block.u32()), block.u32());
        let (incarnation, offset) = (block.u64(), block.u64());
        let place = Place { segment, incarnation, offset };
        expected.check(&place)?;
        let (sequence, previous, durable_to) = (block.u64(), block.u64(), block.u64());
        let body = Body::read(kind, &mut block)?;
        let record = Self { place, sequence, previous, durable_to, body };
        record.check()?;
        Ok(record)
    }

    /// Bytes of the payload, whole pages.
    pub(crate) fn payload_bytes(&self) -> u64 {
        match &self.body {
            Body::Shard(shard) => u64::from(shard.shard_bytes).next_multiple_of(PAGE),
            Body::Tombstones { count, .. } => tombstones_bytes(*count as usize) as u64,
            Body::Seal { .. } => 0,
        }
    }

    /// Bytes of the record: its page and its payload.
    pub(crate) fn bytes(&self) -> u64 {
        PAGE + self.payload_bytes()
    }

    /// The offset after it, where the next record of the segment begins.
    pub(crate) fn end(&self) -> u64 {
        self.place.offset + self.bytes()
    }

    /// The rules of the fields, the same before a write and after a read.
    fn check(&self) -> Result<(), RecordProblem> {
        let Self { place, sequence, previous, durable_to, body } = self;
        require(place.incarnation > 0, "incarnation", place.incarnation)?;
        require(place.offset >= PAGE && place.offset.is_multiple_of(PAGE), "offset", place.offset)?;
        require((1..=SEQUENCE_MAX).contains(sequence), "sequence", *sequence)?;
        require(previous < sequence, "previous", *previous)?;
        require(durable_to < sequence, "durable to", *durable_to)?;
        match body {
            Body::Shard(shard) => shard.check(*sequence),
            Body::Tombstones { count, .. } => check_count(*count),
            Body::Seal { next_incarnation, .. } => {
                require(*next_incarnation > 0, "next incarnation", *next_incarnation)
            }
        }
    }
}

impl Body {
    fn kind(&self) -> u32 {
        match self {
            Self::Shard(_) => KIND_SHARD,
            Self::Tombstones { .. } => KIND_TOMBSTONES,
            Self::Seal { .. } => KIND_SEAL,
        }
    }

    fn write(&self, block: &mut BlockWriter<'_>) {
        match self {
            Self::Shard(shard) => shard.write(block),
            Self::Tombstones { count, payload_crc } => {
                block.u32(*count);
                block.u32(*payload_crc);
            }
            Self::Seal { next, next_incarnation } => {
                block.u32(next.0);
                block.u32(0);
                block.u64(*next_incarnation);
            }
        }
    }

    fn read(kind: u32, block: &mut BlockReader<'_>) -> Result<Self, RecordProblem> {
        match kind {
            KIND_SHARD => ShardMeta::read(block).map(Self::Shard),
            KIND_TOMBSTONES => Ok(Self::Tombstones { count: block.u32(), payload_crc: block.u32() }),
            KIND_SEAL => {
                let next = SegmentId(block.u32());
                let _zeros = block.u32();
                Ok(Self::Seal { next, next_incarnation: block.u64() })
            }
            _ => Err(RecordProblem::Field { field: "kind", found: u64::from(kind) }),
        }
    }
}

impl ShardMeta {
    fn write(&self, block: &mut BlockWriter<'_>) {
        block.bytes(&self.name.extent.to_bytes());
        block.u32(self.name.group.0);
        block.u32(self.name.stripe.0);
        block.u32(u32::from(self.name.slot.0));
        block.u32(self.profile.0);
        block.u32(self.matrix);
        block.u32(self.shard_bytes);
        block.u64(self.epoch.0);
        block.u64(self.tenant_tag.0);
        block.u64(self.born);
        // Both are checked to be far smaller.
        block.u32(u32::try_from(self.block_crcs.len()).unwrap_or(u32::MAX));
        block.u32(u32::try_from(self.hint.len()).unwrap_or(u32::MAX));
        for index in 0..BLOCKS_MAX {
            block.u32(self.block_crcs.get(index).copied().unwrap_or(0));
        }
        block.bytes(&self.hint);
        block.skip(HINT_BYTES_MAX - self.hint.len());
        let (segment, incarnation) = self.from.unwrap_or((SegmentId(0), 0));
        block.u32(segment.0);
        block.u32(0);
        block.u64(incarnation);
    }

    fn read(block: &mut BlockReader<'_>) -> Result<Self, RecordProblem> {
        let extent = ExtentId(block.u128());
        let (group, stripe) = (GroupId(block.u32()), StripeIndex(block.u32()));
        let name = ShardName { group, extent, stripe, slot: parse_slot(block.u32())? };
        let (profile, matrix, shard_bytes) = (ProfileId(block.u32()), block.u32(), block.u32());
        let (epoch, tenant_tag, born) = (Epoch(block.u64()), TenantTag(block.u64()), block.u64());
        let (blocks, hint_bytes) = (block.u32(), block.u32());
        check_length(shard_bytes)?;
        require(blocks as usize == blocks_of(shard_bytes), "blocks", u64::from(blocks))?;
        require(hint_bytes as usize <= HINT_BYTES_MAX, "hint length", u64::from(hint_bytes))?;
        let mut block_crcs: Vec<u32> = (0..BLOCKS_MAX).map(|_| block.u32()).collect();
        block_crcs.truncate(blocks as usize);
        let hint: [u8; HINT_BYTES_MAX] = block.array();
        let hint = Bytes::copy_from_slice(&hint[..hint_bytes as usize]);
        let (segment, _zeros, incarnation) = (SegmentId(block.u32()), block.u32(), block.u64());
        let from = (incarnation > 0).then_some((segment, incarnation));
        Ok(Self { name, epoch, tenant_tag, profile, matrix, born, shard_bytes, from, hint, block_crcs })
    }

    fn check(&self, sequence: u64) -> Result<(), RecordProblem> {
        parse_slot(u32::from(self.name.slot.0))?;
        check_length(self.shard_bytes)?;
        let blocks = self.block_crcs.len();
        require(blocks == blocks_of(self.shard_bytes), "blocks", blocks as u64)?;
        require(self.hint.len() <= HINT_BYTES_MAX, "hint length", self.hint.len() as u64)?;
        require(self.from.is_none_or(|(_, incarnation)| incarnation > 0), "from incarnation", 0)?;
        require((1..=sequence).contains(&self.born), "born", self.born)
    }
}

/// The rule of every shard's length.
fn check_length(shard_bytes: u32) -> Result<(), RecordProblem> {
    let bytes = shard_bytes as usize;
    let right = (1..=SHARD_BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(SHARD_ALIGN_BYTES);
    require(right, "shard length", u64::from(shard_bytes))
}

/// 64 KiB blocks of a shard.
fn blocks_of(shard_bytes: u32) -> usize {
    (shard_bytes as usize).div_ceil(BLOCK_BYTES)
}

#[cfg(test)]
mod tests;
