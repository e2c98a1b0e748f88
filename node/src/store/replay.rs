//! What the log has and the index has not: read from the index's position on, up to the log's end.
//!
//! A record follows another when it names it as the one before. Where none does, the log ends, or is damaged: it is
//! damaged if a later record was written when what is missing was durable. Of the last records, of which no later one
//! tells that they are durable, the first that is not whole is the end: nobody was told of it, nor of what follows.

use std::collections::{BTreeMap, BTreeSet};

use env::{Disk, DiskFile, Kv, Priority, StorageError, Write};
use tracing::{info, warn};

use super::compact::{is_whole, tombstones};
use super::index::{Changes, Location, Position, SegmentState};
use super::record::{Body, PAGE_BYTES, Record, RecordProblem, SegmentId, ShardMeta, decode_tombstones};
use super::recover::{Parts, index_failed};
use super::scan::{Scan, There, newer, read_header};
use super::writer::{Tail, UNFLUSHED_BYTES_MAX};
use crate::store::StoreError;

const PAGE: u64 = PAGE_BYTES as u64;
/// Records that may have been written and are not found any more: their sequences are not used again.
pub(super) const SEQUENCES_UNSEEN: u64 = 4096;
/// Changes that are applied at once.
const CHANGES_MAX: usize = 512;

/// Records on their way into the index.
struct Replay<'a, 'b, D: Disk, K: Kv> {
    parts: &'a Parts<'b, D, K>,
    /// Read, and not known to be durable; by sequence.
    waiting: BTreeMap<u64, (Record, D::File)>,
    /// What the index has.
    done: Position,
    changes: Changes,
    /// Everything up to this sequence was durable.
    durable_to: u64,
    /// The greatest sequence that was seen.
    newest: u64,
    /// The last record that was read.
    last: u64,
    damaged_records: u64,
    /// The segments that were read, in the order of the log.
    touched: Vec<(SegmentId, u64, D::File)>,
}

/// Brings the index up to date; none when the log does not go on where it should.
///
/// # Errors
///
/// `Busy`, `Failed`.
pub(super) async fn replay<D: Disk, K: Kv>(
    parts: &Parts<'_, D, K>,
    position: Position,
) -> Result<Option<Tail>, StoreError> {
    let mut replay = Replay {
        parts,
        waiting: BTreeMap::new(),
        done: position,
        changes: Changes::new(),
        durable_to: position.sequence,
        newest: position.sequence,
        last: position.sequence,
        damaged_records: 0,
        touched: Vec::new(),
    };
    let mut at = Some((position.segment, position.incarnation, position.end));
    while let Some((segment, incarnation, end)) = at {
        let Ok(file) = parts.open(segment).await else { return Ok(None) };
        match read_header(&file, &parts.realm, segment).await? {
            Ok(header) if header.incarnation != incarnation => return Ok(None),
            Ok(_) => {}
            // Somebody else's file, perhaps: its records tell.
            Err(RecordProblem::Foreign(_)) => return Ok(None),
            Err(problem) => {
                warn!(disk = %parts.realm.disk, %segment, %problem, "damaged segment header, written again");
                replay.damaged_records += 1;
                let written = parts.write_header(&file, segment, incarnation, 0).await;
                written.map_err(|error| StoreError::failed(&error))?;
            }
        }
        replay.touched.push((segment, incarnation, file.clone()));
        at = replay.segment(file, (segment, incarnation), end).await?;
    }
    replay.finish().await.map(Some)
}

impl<D: Disk, K: Kv> Replay<'_, '_, D, K> {
    /// Reads on in one segment; where the log goes on after it, if it does.
    async fn segment(
        &mut self,
        file: D::File,
        (segment, incarnation): (SegmentId, u64),
        mut end: u64,
    ) -> Result<Option<(SegmentId, u64, u64)>, StoreError> {
        let parts = self.parts;
        let mut scan = Scan::new(
            file.clone(),
            parts.realm,
            (segment, incarnation),
            parts.segment_bytes,
            Priority::Client,
        );
        loop {
            let record = match scan.record_at(end).await? {
                There::Record(record) if record.previous == self.last => record,
                There::Newer(problem) => return Err(newer(segment, &problem)),
                There::Record(_) | There::Nothing => match self.after_gap(&mut scan, end).await? {
                    Some(record) => record,
                    None => return self.after_lost_seal().await,
                },
            };
            end = record.end();
            self.last = record.sequence;
            self.newest = self.newest.max(record.sequence);
            self.durable_to = self.durable_to.max(record.durable_to);
            let next = match record.body {
                Body::Seal { next, next_incarnation } => Some((next, next_incarnation, PAGE)),
                Body::Shard(_) | Body::Tombstones { .. } => None,
            };
            self.waiting.insert(record.sequence, (record, file.clone()));
            self.apply_durable().await?;
            if next.is_some() {
                return Ok(next);
            }
        }
    }

    /// The next record behind a place where there is none; the log may have ended there all the same.
    async fn after_gap(&mut self, scan: &mut Scan<D::File>, end: u64) -> Result<Option<Record>, StoreError> {
        let (last, mut newest) = (self.last, self.newest);
        let is_next = |record: &Record| {
            newest = newest.max(record.sequence);
            record.sequence > last
        };
        let next = scan.find(end, end.saturating_add(UNFLUSHED_BYTES_MAX), is_next).await?;
        self.newest = newest;
        Ok(next)
    }

    /// Where the log goes on if all that is missing of it is a seal: in the segment that the writer would have taken.
    async fn after_lost_seal(&mut self) -> Result<Option<(SegmentId, u64, u64)>, StoreError> {
        let parts = self.parts;
        // What the records that wait here say of segments is not known to the index yet.
        let read: BTreeSet<SegmentId> = self.touched.iter().map(|(segment, _, _)| *segment).collect();
        let rows = parts.index.segments();
        let free = rows.iter().find(|(id, row)| row.state == SegmentState::Free && !read.contains(id));
        let unknown = || parts.there.iter().find(|id| !rows.contains_key(id) && !read.contains(id));
        let Some(segment) = free.map(|(id, _)| id).or_else(unknown).copied() else { return Ok(None) };
        let Ok(file) = parts.open(segment).await else { return Ok(None) };
        let Ok(header) = read_header(&file, &parts.realm, segment).await? else { return Ok(None) };
        let at = (segment, header.incarnation);
        let mut scan = Scan::new(file, parts.realm, at, parts.segment_bytes, Priority::Client);
        let goes_on = |there| matches!(there, There::Record(record) if record.sequence > self.last);
        Ok(goes_on(scan.record_at(PAGE).await?).then_some((segment, header.incarnation, PAGE)))
    }

    /// What is durable goes into the index, whatever lies before it.
    async fn apply_durable(&mut self) -> Result<(), StoreError> {
        while let Some(entry) = self.waiting.first_entry()
            && *entry.key() <= self.durable_to
        {
            let (record, file) = entry.remove();
            if record.previous > self.done.sequence {
                self.damaged(&record, "records before it are damaged");
            }
            self.take(record, &file).await?;
        }
        Ok(())
    }

    fn damaged(&mut self, record: &Record, problem: &str) {
        self.damaged_records += 1;
        let (disk, place, sequence) = (self.parts.realm.disk, record.place, record.sequence);
        warn!(%disk, %place, sequence, problem, "damaged log");
    }

    /// A record goes into the index.
    async fn take(&mut self, record: Record, file: &D::File) -> Result<(), StoreError> {
        let at = (record.place.segment, record.place.incarnation);
        let (mut segment, mut incarnation, mut end) = (at.0, at.1, record.end());
        if self.parts.index.segment(segment).is_none_or(|row| row.state == SegmentState::Free) {
            // The seal that led there may be damaged.
            self.changes.set_segment(segment, incarnation, SegmentState::InLog);
        }
        match &record.body {
            Body::Shard(meta) => {
                if let Some((from, of)) = meta.from
                    && self.parts.index.segment(from).is_some_and(|row| row.incarnation == of)
                {
                    self.changes.set_segment(from, of, SegmentState::Leaving);
                }
                self.changes.put(meta.name, location(&record, meta));
            }
            Body::Tombstones { count, payload_crc } => {
                let parts = self.parts;
                let scan = Scan::new(file.clone(), parts.realm, at, parts.segment_bytes, Priority::Client);
                match tombstones(&scan, &record, *count, *payload_crc).await? {
                    Some(dead) => {
                        self.apply()?;
                        for dead in dead {
                            let there = parts.index.get(&dead.name).map_err(|error| index_failed(&error))?;
                            if there.is_some_and(|there| there.born < dead.sequence) {
                                self.changes.remove(dead.name);
                            }
                        }
                    }
                    None => self.damaged(&record, "its deletions cannot be read"),
                }
            }
            Body::Seal { next, next_incarnation } => {
                self.changes.set_segment(*next, *next_incarnation, SegmentState::InLog);
                (segment, incarnation, end) = (*next, *next_incarnation, PAGE);
            }
        }
        self.done = Position { segment, incarnation, end, sequence: record.sequence };
        if self.changes.len() >= CHANGES_MAX {
            self.apply()?;
        }
        Ok(())
    }

    fn apply(&mut self) -> Result<(), StoreError> {
        let mut changes = std::mem::take(&mut self.changes);
        changes.set_position(self.done);
        self.parts.apply(changes)
    }

    /// The last records, as far as they are whole and without a gap; made durable before the index has them.
    async fn finish(mut self) -> Result<Tail, StoreError> {
        let mut found = Vec::new();
        let mut last = self.done.sequence;
        while let Some((sequence, (record, file))) = self.waiting.pop_first() {
            // After a rebuild, which this index does not know of, the log goes on behind the last record that was found.
            let follows = record.previous == last || record.previous <= self.durable_to;
            if !follows || !write_again(self.parts, &record, &file).await? {
                let (disk, place, cut) = (self.parts.realm.disk, record.place, self.waiting.len() + 1);
                info!(%disk, %place, sequence, cut, "torn records at the end of the log are left out");
                let rest = std::mem::take(&mut self.waiting).into_values();
                for (record, file) in std::iter::once((record, file)).chain(rest) {
                    self.newest = newest_within(self.parts, &record, &file).await?.max(self.newest);
                }
                break;
            }
            last = sequence;
            found.push((record, file));
        }
        for (_, _, file) in &self.touched {
            file.flush().await.map_err(|error: StorageError| StoreError::failed(&error))?;
        }
        for (record, file) in found {
            self.take(record, &file).await?;
        }
        self.apply()?;
        self.free_what_was_cut().await?;
        let Position { segment, incarnation, end, sequence } = self.done;
        let next = self.newest.max(sequence).saturating_add(SEQUENCES_UNSEEN);
        Ok(Tail { segment, incarnation, end, last: sequence, next, damaged_records: self.damaged_records })
    }
}

impl<D: Disk, K: Kv> Replay<'_, '_, D, K> {
    /// Segments behind the log's end may hold records that nobody was told of: they must never count.
    async fn free_what_was_cut(&mut self) -> Result<(), StoreError> {
        let ends_in = self.touched.iter().position(|(segment, _, _)| *segment == self.done.segment);
        for (segment, incarnation, file) in self.touched.split_off(ends_in.map_or(0, |at| at + 1)) {
            let (parts, next) = (self.parts, incarnation.saturating_add(1));
            let written = parts.write_header(&file, segment, next, self.done.sequence).await;
            written.map_err(|error| StoreError::failed(&error))?;
            self.changes.set_segment(segment, next, SegmentState::Free);
        }
        self.apply()
    }
}

/// Where the index has a shard.
pub(super) fn location(record: &Record, meta: &ShardMeta) -> Location {
    Location {
        segment: record.place.segment,
        offset: record.place.offset,
        bytes: record.bytes(),
        epoch: meta.epoch,
        shard_bytes: meta.shard_bytes,
        sequence: record.sequence,
        born: meta.born,
    }
}

/// Writes a record again if all of it is as it was written: after a flush that failed, the kernel may show bytes that
/// the next flush does not make durable.
pub(super) async fn write_again<D: Disk, K: Kv>(
    parts: &Parts<'_, D, K>,
    record: &Record,
    file: &D::File,
) -> Result<bool, StoreError> {
    let at = (record.place.segment, record.place.incarnation);
    let scan = Scan::new(file.clone(), parts.realm, at, parts.segment_bytes, Priority::Client);
    let Some(buf) = scan.whole(record).await? else { return Ok(false) };
    let is_whole = match &record.body {
        Body::Shard(meta) => is_whole(&buf, meta.shard_bytes, &meta.block_crcs),
        Body::Tombstones { count, payload_crc } => {
            let payload = buf.as_slice().get(PAGE_BYTES..).unwrap_or_default();
            decode_tombstones(payload, *count, *payload_crc).is_ok()
        }
        Body::Seal { .. } => true,
    };
    if is_whole {
        let writes = vec![Write { offset: record.place.offset, buf }];
        file.write(writes, Priority::Client).await.map_err(|error| StoreError::failed(&error))?;
    }
    Ok(is_whole)
}

/// The greatest sequence of a record that lies where a torn one says that its payload is: when several processes died
/// one after the other, the last may have written there, and not the record's own page again.
pub(super) async fn newest_within<D: Disk, K: Kv>(
    parts: &Parts<'_, D, K>,
    torn: &Record,
    file: &D::File,
) -> Result<u64, StoreError> {
    let at = (torn.place.segment, torn.place.incarnation);
    let mut scan = Scan::new(file.clone(), parts.realm, at, parts.segment_bytes, Priority::Client);
    let mut newest = 0;
    let look = |record: &Record| {
        newest = newest.max(record.sequence);
        false
    };
    scan.find(torn.place.offset.saturating_add(PAGE), torn.end(), look).await?;
    Ok(newest)
}
