//! Room that deletions left comes back: what lives in a segment is copied to the log's end, and the segment is freed.
//!
//! One segment is left at a time, and wholly, before another is begun; what was being left at a crash is left first.
//! So of every shard there is at most one older copy, in the segment that is being left, and a tombstone is of no
//! more use once the segment that it names has been freed.
//!
//! A segment is free only after everything that was copied from it is durable and the index has been flushed: nothing
//! in the index, however old it is found after a crash, points into a segment that was freed since.
//!
//! What cannot be read is not copied: the index forgets it, and whoever compares this disk with the metadata misses it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use codec::verify_blocks;
use env::{AlignedBuf, Disk, Kv, Priority};
use proto::ShardName;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::index::{Changes, SegmentRow, SegmentState};
use super::record::{
    Body, PAGE_BYTES, Record, SegmentHeader, SegmentId, TOMBSTONES_MAX, Tombstone, decode_tombstones,
    tombstones_bytes,
};
use super::scan::{Scan, There, newer, read_header};
use super::writer::{Append, What, Writer, write_header};
use super::{Inner, ended};
use crate::store::StoreError;

const PAGE: u64 = PAGE_BYTES as u64;
/// Copied at a time.
const STEP_BYTES: u64 = 1 << 20;
/// One segment in so many is free, or compaction is due; never fewer than [`FREE_MIN`].
const FREE_SHARE: u64 = 32;
const FREE_MIN: u64 = 4;
/// A segment is worth it when so many parts of it, of [`PARTS`], are dead.
const DEAD_PARTS_MIN: u64 = 1;
const PARTS: u64 = 16;
/// Shards that the index forgets at a time.
const FORGET_BATCH: usize = 1024;

/// The segment that is being left.
pub(super) struct Victim<F> {
    segment: SegmentId,
    incarnation: u64,
    scan: Scan<F>,
    /// What is behind it has been copied.
    offset: u64,
}

/// What one look at the victim gives.
#[derive(Default)]
struct Found {
    shards: Vec<What>,
    deletions: Vec<Tombstone>,
    bytes: u64,
    /// Shards that cannot be read.
    lost: Vec<ShardName>,
    is_end: bool,
}

impl Found {
    /// Deletions that are still needed. Those of many records become one: so a segment of nothing else becomes shorter.
    fn keep(&mut self, needed: Vec<Tombstone>) {
        if needed.is_empty() {
            return;
        }
        let before = tombstones_bytes(self.deletions.len());
        self.deletions.extend(needed);
        let more = tombstones_bytes(self.deletions.len()).saturating_sub(before);
        self.bytes = self.bytes.saturating_add(more as u64);
    }

    /// All that has to be written again.
    fn into_copies(self) -> Vec<What> {
        let deletions = self.deletions.chunks(TOMBSTONES_MAX).map(|some| What::Tombstones(some.to_vec()));
        self.shards.into_iter().chain(deletions).collect()
    }
}

enum Step {
    Nothing,
    Moved,
    Freed,
}

impl<D: Disk, K: Kv> Writer<D, K> {
    /// Room is scarce, and there is dead space to be had.
    pub(super) fn is_compaction_due(&self) -> bool {
        if self.is_stalled || self.inner.failure.get().is_some() {
            return false;
        }
        let wanted = (self.inner.room().segments_max() / FREE_SHARE).max(FREE_MIN);
        self.victim.is_some() || (self.free_segments() < wanted && self.candidate().is_some())
    }

    /// Leaves segments until about so many bytes were looked at.
    pub(super) async fn compact_some(&mut self, bytes: u64) {
        let mut left = bytes.max(STEP_BYTES);
        while left > 0 && self.is_compaction_due() {
            if let Err(error) = self.step().await {
                debug!(disk = %self.inner.realm.disk, %error, "compaction waits for the next request");
                self.is_stalled = true;
            }
            left = left.saturating_sub(STEP_BYTES);
        }
    }

    /// Leaves one segment wholly, if one is worth it.
    pub(super) async fn compact_one(&mut self) -> Result<bool, StoreError> {
        loop {
            match self.step().await? {
                Step::Nothing => return Ok(false),
                Step::Moved => {}
                Step::Freed => return Ok(true),
            }
        }
    }

    /// The segment with the most dead space; one that is being left before all others.
    ///
    /// None while nothing stands where the log goes on: the seal that leads there may be in any segment, and without it
    /// a rebuild would go on elsewhere, which an index from before the rebuild would never find.
    fn candidate(&self) -> Option<(SegmentId, SegmentRow)> {
        if self.tail.end == PAGE {
            return None;
        }
        let usable = self.inner.segment_bytes.saturating_sub(PAGE);
        // Two that are not half full fit one. Of a fuller one only that is won which died since it was sealed: at its
        // end was no room for what came next, and there may be none wherever it is copied to.
        let full_bytes = |id: &SegmentId| match self.sealed.get(id) {
            Some(live_bytes) if *live_bytes >= usable / 2 => *live_bytes,
            _ => usable,
        };
        let dead = |id: &SegmentId, row: &SegmentRow| match row.state {
            SegmentState::Free => 0,
            SegmentState::InLog => full_bytes(id).saturating_sub(row.live_bytes),
            SegmentState::Leaving => u64::MAX,
        };
        let rows = self.inner.index.segments();
        let others = rows.into_iter().filter(|(id, _)| *id != self.tail.segment);
        let most = others.max_by_key(|(id, row)| (dead(id, row), std::cmp::Reverse(*id)))?;
        (dead(&most.0, &most.1) >= usable / PARTS * DEAD_PARTS_MIN).then_some(most)
    }

    async fn step(&mut self) -> Result<Step, StoreError> {
        self.settle_all().await;
        self.inner.check_works()?;
        let mut victim = match self.victim.take() {
            Some(victim) => victim,
            None => match self.candidate() {
                Some((segment, row)) => self.inner.victim(segment, row.incarnation).await?,
                None => return Ok(Step::Nothing),
            },
        };
        // If this fails the segment is begun anew: what was copied does not live there any more.
        let mut found = self.inner.look(&mut victim).await?;
        let (lost, is_end) = (std::mem::take(&mut found.lost), found.is_end);
        let mut answers = Vec::new();
        let mut appends = VecDeque::new();
        for what in found.into_copies() {
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            appends.push_back(Append { what, priority: Priority::Repair, reply: Some(reply) });
        }
        self.append_all(appends).await;
        self.settle_all().await;
        for answer in answers {
            answer.await.map_err(|_| ended())??;
        }
        self.inner.forget(lost)?;
        if !is_end {
            self.victim = Some(victim);
            return Ok(Step::Moved);
        }
        self.sealed.remove(&victim.segment);
        self.inner.free(victim).await?;
        Ok(Step::Freed)
    }
}

impl<D: Disk, K: Kv> Inner<D, K> {
    async fn victim(&self, segment: SegmentId, incarnation: u64) -> Result<Victim<D::File>, StoreError> {
        let file = self.file(segment).await.map_err(|error| StoreError::failed(&error))?;
        let scan = Scan::new(file, self.realm, (segment, incarnation), self.segment_bytes, Priority::Repair);
        Ok(Victim { segment, incarnation, scan, offset: PAGE })
    }

    /// What of the next records has to be copied.
    async fn look(&self, victim: &mut Victim<D::File>) -> Result<Found, StoreError> {
        let mut found = Found::default();
        while found.bytes < STEP_BYTES {
            let record = match victim.scan.record_at(victim.offset).await? {
                There::Record(record) => record,
                There::Newer(problem) => return Err(newer(victim.segment, &problem)),
                There::Nothing => {
                    let next = victim.scan.find(victim.offset + PAGE, u64::MAX, |_| true).await?;
                    match next {
                        Some(record) => record,
                        None => {
                            found.is_end = true;
                            return Ok(found);
                        }
                    }
                }
            };
            victim.offset = record.end();
            found.bytes = found.bytes.saturating_add(PAGE);
            match &record.body {
                Body::Shard(_) => self.look_at_shard(victim, record, &mut found).await?,
                Body::Tombstones { count, payload_crc } => {
                    let dead = tombstones(&victim.scan, &record, *count, *payload_crc).await?;
                    let dead = dead.unwrap_or_default().into_iter();
                    let needed: Vec<Tombstone> =
                        dead.filter(|dead| self.is_needed(dead, victim.segment)).collect();
                    found.keep(needed);
                }
                Body::Seal { .. } => {
                    found.is_end = true;
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    async fn look_at_shard(
        &self,
        victim: &Victim<D::File>,
        record: Record,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        let whole = (record.place, record.sequence);
        let Body::Shard(meta) = &record.body else { return Ok(()) };
        let at = self.locate(meta.name)?;
        if at.is_none_or(|at| {
            (at.segment, at.offset, at.sequence) != (whole.0.segment, whole.0.offset, whole.1)
        }) {
            return Ok(());
        }
        let buf = victim.scan.whole(&record).await?;
        let Some(buf) = buf.filter(|buf| is_whole(buf, meta.shard_bytes, &meta.block_crcs)) else {
            self.damaged_blocks.fetch_add(1, Ordering::Relaxed);
            let (disk, segment, offset) = (self.realm.disk, victim.segment, whole.0.offset);
            warn!(%disk, shard = %meta.name, %segment, offset, "damaged shard is not copied");
            found.lost.push(meta.name);
            return Ok(());
        };
        let mut meta = meta.clone();
        meta.from = Some((victim.segment, victim.incarnation));
        found.bytes = found.bytes.saturating_add(record.bytes());
        found.shards.push(What::Shard(Box::new(meta), buf));
        Ok(())
    }

    /// Something that it kills may still lie in a segment that stays.
    fn is_needed(&self, dead: &Tombstone, leaving: SegmentId) -> bool {
        let row = self.index.segment(dead.segment);
        dead.segment != leaving && row.is_some_and(|row| row.incarnation == dead.incarnation)
    }

    fn forget(&self, lost: Vec<ShardName>) -> Result<(), StoreError> {
        let mut changes = Changes::new();
        lost.into_iter().for_each(|name| changes.remove(name));
        self.index.apply(changes).map_err(|error| self.index_failed(&error))
    }

    /// Nothing in the segment counts any more. Durable when this returns.
    async fn free(&self, victim: Victim<D::File>) -> Result<(), StoreError> {
        let Victim { segment, incarnation, .. } = victim;
        // Records that could not be found: where a header was damaged.
        loop {
            let lost = self.index.shards_in(segment, FORGET_BATCH);
            let lost = lost.map_err(|error| self.index_failed(&error))?;
            if lost.is_empty() {
                break;
            }
            self.damaged_blocks.fetch_add(lost.len() as u64, Ordering::Relaxed);
            warn!(disk = %self.realm.disk, %segment, shards = lost.len(), "damaged shards are not copied");
            self.forget(lost)?;
        }
        self.index.flush().await.map_err(|error| self.index_failed(&error))?;
        let freed = async {
            let file = self.file(segment).await.map_err(|error| StoreError::failed(&error))?;
            // It may have been freed before a crash after which the index did not know it.
            let on_disk =
                read_header(&file, &self.realm, segment).await?.map_or(0, |header| header.incarnation);
            let next = incarnation.max(on_disk).saturating_add(1);
            let durable_to = self.durable_to.load(Ordering::Acquire);
            let header =
                SegmentHeader { segment, incarnation: next, segment_bytes: self.segment_bytes, durable_to };
            let written = write_header(&self.realm, &file, &header).await;
            written.map_err(|error| self.fail(&error)).map(|()| next)
        };
        let next = freed.await?;
        let mut changes = Changes::new();
        changes.set_segment(segment, next, SegmentState::Free);
        self.index.apply(changes).map_err(|error| self.index_failed(&error))?;
        // Before it is used: if the seal that leads there is damaged, what follows it is looked for in free segments.
        self.index.flush().await.map_err(|error| self.index_failed(&error))?;
        debug!(disk = %self.realm.disk, %segment, "segment freed");
        Ok(())
    }
}

/// Is every block as it was written?
pub(super) fn is_whole(record: &AlignedBuf, shard_bytes: u32, block_crcs: &[u32]) -> bool {
    let payload = record.as_slice().get(PAGE_BYTES..).and_then(|payload| payload.get(..shard_bytes as usize));
    payload.is_some_and(|payload| verify_blocks(payload, 0, block_crcs).is_ok())
}

/// What a record of tombstones names; none when it is damaged.
///
/// # Errors
///
/// `Busy`.
pub(super) async fn tombstones<F: env::DiskFile>(
    scan: &Scan<F>,
    record: &Record,
    count: u32,
    payload_crc: u32,
) -> Result<Option<Vec<Tombstone>>, StoreError> {
    let buf = scan.whole(record).await?;
    let payload = buf.as_ref().and_then(|buf| buf.as_slice().get(PAGE_BYTES..));
    Ok(payload.and_then(|payload| decode_tombstones(payload, count, payload_crc).ok()))
}
