//! How much may be written: room that is there, and what waits for the disk.

use env::{Disk, Kv, Space};
use proto::limits::SHARD_BYTES_MIN;

use super::record::PAGE_BYTES;
use super::{Inner, StoreError, busy};

/// Segments that shards never take: one for compaction, one for deletions, and one that is being left.
const SPARE: u64 = 3;
/// Bytes that wait for the disk, but for one write of any size.
const QUEUED_BYTES_MAX: u64 = 256 << 20;

/// The room of one disk.
#[derive(Debug)]
pub(super) struct Room {
    limit_bytes: Option<u64>,
    segment_bytes: u64,
    /// Of the whole disk.
    disk_bytes: u64,
    /// Segments that the disk had room for when it was asked last, those that are there included.
    segments_possible: u64,
    /// Promised to writes under way.
    reserved_bytes: u64,
    /// The write that did not fit; the disk counts as full until it would.
    refused_bytes: u64,
}

impl Room {
    /// `space` as the disk tells it with so many segments there.
    pub(super) fn new(limit_bytes: Option<u64>, space: Space, segment_bytes: u64, segments: usize) -> Self {
        let mut room = Self {
            limit_bytes,
            segment_bytes,
            disk_bytes: 0,
            segments_possible: 0,
            reserved_bytes: 0,
            refused_bytes: 0,
        };
        room.set_space(space, segments);
        room
    }

    /// The disk may hold other things, too.
    pub(super) fn set_space(&mut self, space: Space, segments: usize) {
        self.disk_bytes = space.capacity_bytes;
        self.segments_possible = (space.available_bytes / self.segment_bytes).saturating_add(segments as u64);
    }

    /// Bytes that the disk may hold: the operator's limit or all of the disk, whichever is less.
    pub(super) fn capacity_bytes(&self) -> u64 {
        self.limit_bytes.unwrap_or(u64::MAX).min(self.disk_bytes)
    }

    /// Segments that the disk may have.
    pub(super) fn segments_max(&self) -> u64 {
        (self.capacity_bytes() / self.segment_bytes).min(self.segments_possible)
    }

    /// Whether `incoming` more bytes fit beside `used` ones. A sixteenth stays free, so that compaction always finds
    /// dead space; so do the spare segments, and what a segment cannot use of its own.
    fn fits(&self, used: u64, incoming: u64) -> bool {
        let usable = self.segment_bytes.saturating_sub(2 * PAGE_BYTES as u64);
        let all = self.segments_max().saturating_sub(SPARE).saturating_mul(usable);
        used.saturating_add(self.reserved_bytes).saturating_add(incoming) <= all - all / 16
    }

    /// Whether an ordinary write, or the one that was refused last, would not fit.
    pub(super) fn is_full(&self, used: u64) -> bool {
        let smallest = (PAGE_BYTES + SHARD_BYTES_MIN) as u64;
        !self.fits(used, smallest.max(self.refused_bytes))
    }
}

/// Room that a write has until it is done.
pub(super) struct Reserved<'a, D: Disk, K: Kv> {
    inner: &'a Inner<D, K>,
    bytes: u64,
}

impl<D: Disk, K: Kv> Inner<D, K> {
    /// Promises room for a record.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Reserved<'_, D, K>, StoreError> {
        let used_bytes = self.index.used_bytes();
        let mut room = self.room();
        if room.reserved_bytes > 0 && room.reserved_bytes.saturating_add(bytes) > QUEUED_BYTES_MAX {
            return Err(busy());
        }
        if !room.fits(used_bytes, bytes) {
            room.refused_bytes = bytes;
            return Err(StoreError::Full { used_bytes });
        }
        room.reserved_bytes = room.reserved_bytes.saturating_add(bytes);
        Ok(Reserved { inner: self, bytes })
    }
}

impl<D: Disk, K: Kv> Drop for Reserved<'_, D, K> {
    fn drop(&mut self) {
        let mut room = self.inner.room();
        room.reserved_bytes = room.reserved_bytes.saturating_sub(self.bytes);
    }
}
