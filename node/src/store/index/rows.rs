//! The rows of the index as they stand in the store. Nothing here does I/O, and nothing panics whatever
//! the bytes are.
//!
//! ```text
//! table "shards"    where each shard lies
//!   key    group u32 | extent 16 bytes | stripe u32 | slot u8        25 bytes, all big endian: the order of
//!                                                                    keys is the order of names
//!   value  0         4           8        12      20            24         32     40
//!          +---------+-----------+--------+-------+-------------+----------+------+
//!          | segment | at page   | pages  | epoch | shard bytes | sequence | born |
//!          | u32     | u32       | u32    | u64   | u32         | u64      | u64  |
//!          +---------+-----------+--------+-------+-------------+----------+------+
//!
//! table "segments"  what each segment holds
//!   key    segment u32, big endian
//!   value  0             8       9            17            25
//!          +-------------+-------+------------+-------------+
//!          | incarnation | state | live bytes | live shards |        state: 0 free, 1 in the log,
//!          | u64         | u8    | u64        | u64         |               2 leaving
//!          +-------------+-------+------------+-------------+
//!
//! table "log"       what the index is of, and how far it has come
//!   "format"    u32: 1
//!   "disk"      cluster 16 bytes | disk 16 bytes | salt u64 | segment bytes u64        48 bytes
//!   "position"  segment u32 | incarnation u64 | end u64 | sequence u64                 28 bytes
//! ```
//!
//! Numbers of values are little endian, ids of 16 bytes big endian. A number of pages counts 4096 bytes; a
//! record's include its header. There is no checksum: the store below has its own, and the log the truth.

use env::Table;
use proto::limits::{SHARD_ALIGN_BYTES, SHARD_BYTES_MAX, SLOTS_MAX};
use proto::{ClusterId, DiskUuid, Epoch, ExtentId, GroupId, ShardName, SlotIndex, StripeIndex};

use super::problem::IndexProblem;
use crate::store::record::{PAGE_BYTES, Realm, SEQUENCE_MAX, SegmentId};

pub(super) const SHARDS: Table = "shards";
pub(super) const SEGMENTS: Table = "segments";
pub(super) const LOG: Table = "log";

pub(super) const FORMAT_KEY: &[u8] = b"format";
pub(super) const DISK_KEY: &[u8] = b"disk";
pub(super) const POSITION_KEY: &[u8] = b"position";

/// The format that this software writes, and the only one that it reads.
pub(super) const FORMAT: u32 = 1;

const PAGE: u64 = PAGE_BYTES as u64;
const SHARD_KEY_BYTES: usize = 25;
/// Every segment has its header, and room for the smallest record and a seal.
const SEGMENT_BYTES_MIN: u64 = 4 * PAGE;
const SEGMENT_BYTES_MAX: u64 = u32::MAX as u64 * PAGE;

/// Where a shard lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The segment.
    pub(crate) segment: SegmentId,
    /// Of its record, from the segment's start.
    pub(crate) offset: u64,
    /// Of its record, header included.
    pub(crate) bytes: u64,
    /// Of its group when it was written.
    pub(crate) epoch: Epoch,
    /// Its own length.
    pub(crate) shard_bytes: u32,
    /// Of its record.
    pub(crate) sequence: u64,
    /// The sequence under which it was first written.
    pub(crate) born: u64,
}

impl Location {
    pub(super) fn encode(&self, segment_bytes: u64) -> Result<Vec<u8>, IndexProblem> {
        self.check(segment_bytes)?;
        let mut value = Vec::with_capacity(40);
        value.extend_from_slice(&self.segment.0.to_le_bytes());
        value.extend_from_slice(&pages("offset", self.offset)?.to_le_bytes());
        value.extend_from_slice(&pages("bytes", self.bytes)?.to_le_bytes());
        value.extend_from_slice(&self.epoch.0.to_le_bytes());
        value.extend_from_slice(&self.shard_bytes.to_le_bytes());
        value.extend_from_slice(&self.sequence.to_le_bytes());
        value.extend_from_slice(&self.born.to_le_bytes());
        Ok(value)
    }

    pub(super) fn decode(value: &[u8], segment_bytes: u64) -> Result<Self, IndexProblem> {
        let mut fields = Fields::new(SHARDS, value);
        let location = Self {
            segment: SegmentId(fields.u32()?),
            offset: u64::from(fields.u32()?) * PAGE,
            bytes: u64::from(fields.u32()?) * PAGE,
            epoch: Epoch(fields.u64()?),
            shard_bytes: fields.u32()?,
            sequence: fields.u64()?,
            born: fields.u64()?,
        };
        fields.end()?;
        location.check(segment_bytes)?;
        Ok(location)
    }

    /// That it is a whole record of a shard, within a segment and behind its header.
    pub(super) fn check(&self, segment_bytes: u64) -> Result<(), IndexProblem> {
        let wrong = |field, found| Err(IndexProblem::row(SHARDS, field, found));
        let shard_bytes = u64::from(self.shard_bytes);
        let record_bytes = PAGE + shard_bytes.next_multiple_of(PAGE);
        let end = self.offset.checked_add(self.bytes);
        if shard_bytes == 0
            || shard_bytes > SHARD_BYTES_MAX as u64
            || !shard_bytes.is_multiple_of(SHARD_ALIGN_BYTES as u64)
        {
            wrong("shard_bytes", shard_bytes)
        } else if self.bytes != record_bytes {
            wrong("bytes", self.bytes)
        } else if self.offset < PAGE
            || !self.offset.is_multiple_of(PAGE)
            || end.is_none_or(|end| end > segment_bytes)
        {
            wrong("offset", self.offset)
        } else if self.sequence == 0 {
            wrong("sequence", 0)
        } else if self.born == 0 || self.born > self.sequence {
            wrong("born", self.born)
        } else {
            Ok(())
        }
    }
}

/// What a segment is to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentState {
    /// Nothing in it counts; it can be written from its start.
    Free,
    /// Part of the log.
    InLog,
    /// Part of the log, and what lives in it is being copied elsewhere.
    Leaving,
}

impl SegmentState {
    fn to_byte(self) -> u8 {
        match self {
            Self::Free => 0,
            Self::InLog => 1,
            Self::Leaving => 2,
        }
    }

    fn from_byte(byte: u8) -> Result<Self, IndexProblem> {
        match byte {
            0 => Ok(Self::Free),
            1 => Ok(Self::InLog),
            2 => Ok(Self::Leaving),
            _ => Err(IndexProblem::row(SEGMENTS, "state", byte)),
        }
    }
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRow {
    /// As in the segment's header.
    pub(crate) incarnation: u64,
    /// Whether it is part of the log.
    pub(crate) state: SegmentState,
    /// Of the records in it to which a row of a shard points.
    pub(crate) live_bytes: u64,
    /// Rows of shards that point into it.
    pub(crate) live_shards: u64,
}

impl SegmentRow {
    pub(super) fn encode(&self, segment_bytes: u64) -> Result<Vec<u8>, IndexProblem> {
        self.check(segment_bytes)?;
        let mut value = Vec::with_capacity(25);
        value.extend_from_slice(&self.incarnation.to_le_bytes());
        value.push(self.state.to_byte());
        value.extend_from_slice(&self.live_bytes.to_le_bytes());
        value.extend_from_slice(&self.live_shards.to_le_bytes());
        Ok(value)
    }

    pub(super) fn decode(value: &[u8], segment_bytes: u64) -> Result<Self, IndexProblem> {
        let mut fields = Fields::new(SEGMENTS, value);
        let incarnation = fields.u64()?;
        let state = SegmentState::from_byte(u8::from_le_bytes(fields.array()?))?;
        let row = Self { incarnation, state, live_bytes: fields.u64()?, live_shards: fields.u64()? };
        fields.end()?;
        row.check(segment_bytes)?;
        Ok(row)
    }

    /// That its numbers can be those of one segment; in a free one nothing lives.
    pub(super) fn check(&self, segment_bytes: u64) -> Result<(), IndexProblem> {
        let wrong = |field, found| Err(IndexProblem::row(SEGMENTS, field, found));
        // A record of a shard has a header and at least one page more.
        let least_bytes = self.live_shards.saturating_mul(2 * PAGE);
        if self.incarnation == 0 {
            wrong("incarnation", 0)
        } else if self.live_bytes > segment_bytes.saturating_sub(PAGE)
            || !self.live_bytes.is_multiple_of(PAGE)
            || (self.live_bytes > 0 && self.state == SegmentState::Free)
        {
            wrong("live_bytes", self.live_bytes)
        } else if self.live_bytes < least_bytes || (self.live_shards == 0 && self.live_bytes > 0) {
            wrong("live_shards", self.live_shards)
        } else {
            Ok(())
        }
    }
}

/// Up to where the index has everything that the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The segment of the last record applied.
    pub(crate) segment: SegmentId,
    /// Its incarnation.
    pub(crate) incarnation: u64,
    /// The offset behind that record; behind the segment's header when there is none.
    pub(crate) end: u64,
    /// Of that record; 0 before the first ever.
    pub(crate) sequence: u64,
}

impl Position {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(28);
        value.extend_from_slice(&self.segment.0.to_le_bytes());
        value.extend_from_slice(&self.incarnation.to_le_bytes());
        value.extend_from_slice(&self.end.to_le_bytes());
        value.extend_from_slice(&self.sequence.to_le_bytes());
        value
    }

    /// Not checked yet against the segment that it names: see [`Position::check`].
    pub(super) fn decode(value: &[u8]) -> Result<Self, IndexProblem> {
        let mut fields = Fields::new(LOG, value);
        let position = Self {
            segment: SegmentId(fields.u32()?),
            incarnation: fields.u64()?,
            end: fields.u64()?,
            sequence: fields.u64()?,
        };
        fields.end()?;
        Ok(position)
    }

    /// That it lies in `row`, its segment's, which is in the log in the same incarnation.
    pub(super) fn check(&self, row: Option<&SegmentRow>, segment_bytes: u64) -> Result<(), IndexProblem> {
        let wrong = |field, found| Err(IndexProblem::row(LOG, field, found));
        let Some(row) = row.filter(|row| row.state != SegmentState::Free) else {
            return wrong("segment", self.segment.0.into());
        };
        if row.incarnation != self.incarnation {
            wrong("incarnation", self.incarnation)
        } else if self.end < PAGE || self.end > segment_bytes || !self.end.is_multiple_of(PAGE) {
            wrong("end", self.end)
        } else if self.sequence > SEQUENCE_MAX {
            wrong("sequence", self.sequence)
        } else {
            Ok(())
        }
    }
}

/// The key of a shard.
pub(super) fn shard_key(name: &ShardName) -> Vec<u8> {
    let mut key = extent_key(name.group, name.extent);
    key.extend_from_slice(&name.stripe.0.to_be_bytes());
    key.push(name.slot.0);
    key
}

/// What the keys of an extent's shards begin with, and no others.
pub(super) fn extent_key(group: GroupId, extent: ExtentId) -> Vec<u8> {
    let mut key = Vec::with_capacity(SHARD_KEY_BYTES);
    key.extend_from_slice(&group_key(group));
    key.extend_from_slice(&extent.to_bytes());
    key
}

/// What the keys of a group's shards begin with, and no others.
pub(super) fn group_key(group: GroupId) -> [u8; 4] {
    group.0.to_be_bytes()
}

pub(super) fn parse_shard_key(key: &[u8]) -> Result<ShardName, IndexProblem> {
    let mut fields = Fields::new(SHARDS, key);
    let name = ShardName {
        group: GroupId(u32::from_be_bytes(fields.array()?)),
        extent: ExtentId(u128::from_be_bytes(fields.array()?)),
        stripe: StripeIndex(u32::from_be_bytes(fields.array()?)),
        slot: SlotIndex(u8::from_be_bytes(fields.array()?)),
    };
    fields.end()?;
    check_name(&name)?;
    Ok(name)
}

/// That a shard can have this name.
pub(super) fn check_name(name: &ShardName) -> Result<(), IndexProblem> {
    let valid = usize::from(name.slot.0) < SLOTS_MAX;
    if valid { Ok(()) } else { Err(IndexProblem::row(SHARDS, "slot", name.slot.0)) }
}

pub(super) fn segment_key(segment: SegmentId) -> [u8; 4] {
    segment.0.to_be_bytes()
}

pub(super) fn parse_segment_key(key: &[u8]) -> Result<SegmentId, IndexProblem> {
    let number = key.try_into().map_err(|_| IndexProblem::length(SEGMENTS, key))?;
    Ok(SegmentId(u32::from_be_bytes(number)))
}

/// The row that says which disk the index is of.
pub(super) fn encode_disk(realm: &Realm, segment_bytes: u64) -> Vec<u8> {
    let mut value = Vec::with_capacity(48);
    value.extend_from_slice(&realm.cluster.to_bytes());
    value.extend_from_slice(&realm.disk.to_bytes());
    value.extend_from_slice(&realm.salt.to_le_bytes());
    value.extend_from_slice(&segment_bytes.to_le_bytes());
    value
}

/// That this row is of this disk. The salt is compared and never told.
pub(super) fn check_disk(value: &[u8], realm: &Realm, segment_bytes: u64) -> Result<(), IndexProblem> {
    let mut fields = Fields::new(LOG, value);
    let cluster = ClusterId(u128::from_be_bytes(fields.array()?));
    let disk = DiskUuid(u128::from_be_bytes(fields.array()?));
    let (salt, found_bytes) = (fields.u64()?, fields.u64()?);
    fields.end()?;
    let found = Realm { cluster, disk, salt };
    if (found, found_bytes) == (*realm, segment_bytes) {
        Ok(())
    } else {
        Err(IndexProblem::Foreign { cluster, disk, segment_bytes: found_bytes })
    }
}

pub(super) fn check_format(value: &[u8]) -> Result<(), IndexProblem> {
    let mut fields = Fields::new(LOG, value);
    let found = fields.u32()?;
    fields.end()?;
    if found == FORMAT { Ok(()) } else { Err(IndexProblem::row(LOG, "format", found)) }
}

/// That segments of this size can be told of in these rows.
pub(super) fn check_segment_bytes(segment_bytes: u64) -> Result<(), IndexProblem> {
    let valid = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes)
        && segment_bytes.is_multiple_of(PAGE);
    if valid { Ok(()) } else { Err(IndexProblem::row(LOG, "segment_bytes", segment_bytes)) }
}

fn pages(field: &'static str, bytes: u64) -> Result<u32, IndexProblem> {
    u32::try_from(bytes / PAGE).map_err(|_| IndexProblem::row(SHARDS, field, bytes))
}

/// Takes a key or value apart, field by field.
struct Fields<'a> {
    table: Table,
    all: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(table: Table, all: &'a [u8]) -> Self {
        Self { table, all, rest: all }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], IndexProblem> {
        let (field, rest) =
            self.rest.split_first_chunk().ok_or_else(|| IndexProblem::length(self.table, self.all))?;
        self.rest = rest;
        Ok(*field)
    }

    fn u32(&mut self) -> Result<u32, IndexProblem> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, IndexProblem> {
        self.array().map(u64::from_le_bytes)
    }

    fn end(&self) -> Result<(), IndexProblem> {
        if self.rest.is_empty() { Ok(()) } else { Err(IndexProblem::length(self.table, self.all)) }
    }
}
