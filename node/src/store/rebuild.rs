//! The index from nothing but the segments.
//!
//! Segments come in any order, so of several copies of a shard the newest counts, and deletions are carried out at the
//! end. What no later record proves to be durable is looked at like the end of the log in [`replay`](super::replay).

use std::collections::{BTreeMap, BTreeSet};

use env::{Disk, DiskFile, Kv, Priority, StorageError};
use proto::ShardName;
use tracing::{info, warn};

use super::compact::tombstones;
use super::index::{Changes, Location, Position, SegmentState};
use super::record::{Body, Foreign, PAGE_BYTES, Place, Record, RecordProblem, SegmentId};
use super::recover::{Parts, index_failed};
use super::replay::{SEQUENCES_UNSEEN, location, newest_within, write_again};
use super::scan::{Scan, There, newer, read_header};
use super::seen::Seen;
use super::writer::Tail;
use crate::store::StoreError;

const PAGE: u64 = PAGE_BYTES as u64;
/// Of a record of a shard.
const SMALLEST_BYTES: u64 = 2 * PAGE;
/// Records that are applied at once.
const RECORDS_MAX: usize = 512;

struct Rebuild<'a, 'b, D: Disk, K: Kv> {
    parts: &'a Parts<'b, D, K>,
    /// Incarnations, as the headers say.
    incarnations: BTreeMap<SegmentId, u64>,
    /// Shards that may have a row; of the others nothing has to be looked up.
    seen: Seen,
    /// Read, and not known to be durable; by sequence.
    waiting: BTreeMap<u64, (Record, D::File)>,
    /// Deleted under this sequence, or the greatest of several.
    dead: BTreeMap<ShardName, u64>,
    /// Records before which something is missing in their segment.
    after_gaps: BTreeSet<u64>,
    /// Segments without a record that counts.
    empty: BTreeSet<SegmentId>,
    /// Segments with one.
    counting: BTreeSet<SegmentId>,
    /// Segments that are being left.
    leaving: BTreeMap<SegmentId, u64>,
    durable_to: u64,
    newest: u64,
    /// The end of the log, as far as it is known.
    done: Position,
    damaged_records: u64,
}

/// Fills the empty index; none when no segment has ever been written to.
///
/// # Errors
///
/// `Busy`, `Failed`.
pub(super) async fn rebuild<D: Disk, K: Kv>(parts: &Parts<'_, D, K>) -> Result<Option<Tail>, StoreError> {
    let done = Position { segment: SegmentId(0), incarnation: 0, end: PAGE, sequence: 0 };
    let shards_max = parts.there.len() as u64 * (parts.segment_bytes / SMALLEST_BYTES);
    let mut rebuild = Rebuild {
        parts,
        incarnations: BTreeMap::new(),
        seen: Seen::new(shards_max),
        waiting: BTreeMap::new(),
        dead: BTreeMap::new(),
        after_gaps: BTreeSet::new(),
        empty: BTreeSet::new(),
        counting: BTreeSet::new(),
        leaving: BTreeMap::new(),
        durable_to: 0,
        newest: 0,
        done,
        damaged_records: 0,
    };
    let mut files = Vec::new();
    for segment in &parts.there {
        let file = parts.open(*segment).await.map_err(|error| StoreError::failed(&error))?;
        if let Some(incarnation) = rebuild.incarnation(&file, *segment).await? {
            rebuild.incarnations.insert(*segment, incarnation);
            let mut changes = Changes::new();
            changes.set_segment(*segment, incarnation, SegmentState::InLog);
            parts.apply(changes)?;
            files.push((*segment, incarnation, file));
        }
    }
    if files.is_empty() {
        return Ok(None);
    }
    for (segment, incarnation, file) in &files {
        rebuild.segment(file, (*segment, *incarnation)).await?;
    }
    rebuild.finish(files.into_iter().map(|(_, _, file)| file).collect()).await.map(Some)
}

impl<D: Disk, K: Kv> Rebuild<'_, '_, D, K> {
    /// The segment's incarnation; none when it has no header and no record.
    async fn incarnation(&mut self, file: &D::File, segment: SegmentId) -> Result<Option<u64>, StoreError> {
        let parts = self.parts;
        let problem = match read_header(file, &parts.realm, segment).await? {
            Ok(header) => {
                self.durable_to = self.durable_to.max(header.durable_to);
                self.newest = self.newest.max(header.durable_to);
                return Ok(Some(header.incarnation));
            }
            Err(problem) => problem,
        };
        // Any record tells it; the last incarnation counts.
        let mut scan =
            Scan::new(file.clone(), parts.realm, (segment, 0), parts.segment_bytes, Priority::Repair);
        let mut found = 0;
        let mut offset = PAGE;
        while offset < parts.segment_bytes {
            if let Err(RecordProblem::Foreign(Foreign::Incarnation { found: of, .. })) =
                scan.decode_at(&Place { segment, incarnation: 0, offset }).await?
            {
                found = found.max(of);
            }
            offset += PAGE;
        }
        if found == 0 {
            return Ok(None);
        }
        self.damaged_records += 1;
        warn!(disk = %parts.realm.disk, %segment, %problem, "damaged segment header, written again");
        let written = parts.write_header(file, segment, found, 0).await;
        written.map_err(|error| StoreError::failed(&error))?;
        Ok(Some(found))
    }

    async fn segment(&mut self, file: &D::File, at: (SegmentId, u64)) -> Result<(), StoreError> {
        let parts = self.parts;
        let mut scan = Scan::new(file.clone(), parts.realm, at, parts.segment_bytes, Priority::Repair);
        let (mut end, mut last) = (PAGE, None);
        loop {
            let record = match scan.record_at(end).await? {
                There::Record(record) if last.is_none_or(|last| record.previous == last) => Some(record),
                There::Newer(problem) => return Err(newer(at.0, &problem)),
                There::Record(_) | There::Nothing => {
                    let is_later = |record: &Record| last.is_none_or(|last| record.sequence > last);
                    let later = scan.find(end, u64::MAX, is_later).await?;
                    self.after_gaps.extend(later.as_ref().map(|record| record.sequence));
                    later
                }
            };
            let Some(record) = record else { break };
            end = record.end();
            last = Some(record.sequence);
            self.newest = self.newest.max(record.sequence);
            self.durable_to = self.durable_to.max(record.durable_to);
            let is_seal = matches!(record.body, Body::Seal { .. });
            self.waiting.insert(record.sequence, (record, file.clone()));
            if self.waiting.len() >= RECORDS_MAX {
                self.apply_durable().await?;
            }
            if is_seal {
                break;
            }
        }
        if last.is_none() {
            self.empty.insert(at.0);
        }
        self.apply_durable().await
    }

    async fn apply_durable(&mut self) -> Result<(), StoreError> {
        let rest = self.waiting.split_off(&self.durable_to.saturating_add(1));
        let durable = std::mem::replace(&mut self.waiting, rest);
        self.take(durable.into_values().collect()).await
    }

    /// Records go into the index, in the order of their sequences.
    async fn take(&mut self, records: Vec<(Record, D::File)>) -> Result<(), StoreError> {
        let (mut changes, mut before) = (Changes::new(), BTreeMap::new());
        for (record, file) in records {
            if self.after_gaps.remove(&record.sequence) {
                self.damaged_records += 1;
                let (disk, place) = (self.parts.realm.disk, record.place);
                warn!(%disk, %place, sequence = record.sequence, "damaged log: records before this one are missing");
            }
            match &record.body {
                Body::Shard(meta) => {
                    if let Some((from, of)) = meta.from
                        && self.incarnations.get(&from) == Some(&of)
                    {
                        self.leaving.insert(from, of);
                    }
                    if self.seen.insert(&meta.name)
                        && changes.location(&meta.name).is_none()
                        && let Some(there) = self.get(&meta.name)?
                    {
                        before.insert(meta.name, there);
                    }
                    let known = changes.location(&meta.name).or(before.get(&meta.name));
                    if known.is_none_or(|known| known.sequence < record.sequence) {
                        changes.put(meta.name, location(&record, meta));
                    }
                }
                Body::Tombstones { count, payload_crc } => {
                    let at = (record.place.segment, record.place.incarnation);
                    let (realm, bytes) = (self.parts.realm, self.parts.segment_bytes);
                    let scan = Scan::new(file.clone(), realm, at, bytes, Priority::Repair);
                    match tombstones(&scan, &record, *count, *payload_crc).await? {
                        Some(dead) => dead.into_iter().for_each(|dead| {
                            let of = self.dead.entry(dead.name).or_insert(dead.sequence);
                            *of = dead.sequence.max(*of);
                        }),
                        None => self.damaged_records += 1,
                    }
                }
                Body::Seal { .. } => {}
            }
            self.counting.insert(record.place.segment);
            self.note_end(&record);
        }
        self.parts.index.apply_over(&before, &changes).map_err(|error| index_failed(&error))
    }

    fn get(&self, name: &ShardName) -> Result<Option<Location>, StoreError> {
        self.parts.index.get(name).map_err(|error| index_failed(&error))
    }

    fn note_end(&mut self, record: &Record) {
        if record.sequence <= self.done.sequence {
            return;
        }
        let (segment, incarnation, end) = match record.body {
            Body::Seal { next, next_incarnation } => (next, next_incarnation, PAGE),
            _ => (record.place.segment, record.place.incarnation, record.end()),
        };
        self.done = Position { segment, incarnation, end, sequence: record.sequence };
    }

    /// Segments with nothing but records that nobody was told of: they must never count.
    async fn free_what_was_cut(&mut self, cut: BTreeSet<SegmentId>) -> Result<(), StoreError> {
        for segment in cut {
            if self.counting.contains(&segment) || segment == self.done.segment {
                continue;
            }
            let parts = self.parts;
            let next = self.incarnations.get(&segment).copied().unwrap_or(1).saturating_add(1);
            let file = parts.open(segment).await.map_err(|error| StoreError::failed(&error))?;
            let written = parts.write_header(&file, segment, next, self.done.sequence).await;
            written.map_err(|error| StoreError::failed(&error))?;
            self.incarnations.insert(segment, next);
            self.empty.insert(segment);
        }
        Ok(())
    }

    async fn finish(mut self, files: Vec<D::File>) -> Result<Tail, StoreError> {
        let (mut cut, mut found) = (BTreeSet::new(), Vec::new());
        let mut last = self.done.sequence;
        while let Some((sequence, (record, file))) = self.waiting.pop_first() {
            // What came before it may lie in a segment that was freed since.
            let follows = record.previous == last || record.previous <= self.durable_to;
            if !follows || !write_again(self.parts, &record, &file).await? {
                let (disk, place, count) = (self.parts.realm.disk, record.place, self.waiting.len() + 1);
                info!(%disk, %place, sequence, count, "torn records at the end of the log are left out");
                let rest = std::mem::take(&mut self.waiting).into_values();
                for (record, file) in std::iter::once((record, file)).chain(rest) {
                    self.newest = newest_within(self.parts, &record, &file).await?.max(self.newest);
                    cut.insert(record.place.segment);
                }
                break;
            }
            last = sequence;
            found.push((record, file));
        }
        for file in &files {
            file.flush().await.map_err(|error: StorageError| StoreError::failed(&error))?;
        }
        self.take(found).await?;
        self.free_what_was_cut(cut).await?;
        self.bury()?;
        let last = self.tell_segments()?;
        let Position { segment, incarnation, end, sequence } = last;
        let next = self.newest.max(sequence).saturating_add(SEQUENCES_UNSEEN);
        Ok(Tail { segment, incarnation, end, last: sequence, next, damaged_records: self.damaged_records })
    }

    /// Carries out the deletions.
    fn bury(&mut self) -> Result<(), StoreError> {
        let mut changes = Changes::new();
        for (name, sequence) in std::mem::take(&mut self.dead) {
            if self.get(&name)?.is_some_and(|there| there.born < sequence) {
                changes.remove(name);
            }
            if changes.len() >= RECORDS_MAX {
                self.parts.apply(std::mem::take(&mut changes))?;
            }
        }
        self.parts.apply(changes)
    }

    /// Which segments are being left, and where the log ends.
    fn tell_segments(&mut self) -> Result<Position, StoreError> {
        let mut changes = Changes::new();
        for (segment, incarnation) in &self.leaving {
            changes.set_segment(*segment, *incarnation, SegmentState::Leaving);
        }
        if self.done.incarnation == 0 {
            // No record at all: the log begins in any segment.
            let first = self.incarnations.first_key_value();
            let (segment, incarnation) = first.map_or((SegmentId(0), 1), |(id, of)| (*id, *of));
            self.done = Position { segment, incarnation, end: PAGE, sequence: 0 };
        }
        // A segment that was freed since the last seal that can be read is as good a place to go on.
        let known = self.incarnations.get(&self.done.segment).copied().unwrap_or(1);
        if known > self.done.incarnation {
            (self.done.incarnation, self.done.end) = (known, PAGE);
        }
        for segment in std::mem::take(&mut self.empty) {
            let incarnation = self.incarnations.get(&segment).copied().unwrap_or(1);
            changes.set_segment(segment, incarnation, SegmentState::Free);
        }
        changes.set_segment(self.done.segment, self.done.incarnation, SegmentState::InLog);
        changes.set_position(self.done);
        self.parts.apply(changes)?;
        Ok(self.done)
    }
}
