//! Opening a log: from the index's position on, or from all segments.

use std::collections::BTreeSet;

use env::{AlignedBuf, Disk, DiskFile, Kv, Priority, Read, StorageError, StorageErrorKind};
use tracing::{info, warn};

use super::index::{Changes, Index, Position, SegmentRow, SegmentState};
use super::record::{
    PAGE_BYTES, Realm, RecordProblem, SegmentHeader, SegmentId, parse_segment_file, segment_file,
};
use super::scan::read_header;
use super::writer::{Tail, write_header};
use super::{rebuild, replay};
use crate::store::StoreError;

const PAGE: u64 = PAGE_BYTES as u64;
/// Shards that the index forgets at a time.
const FORGET_BATCH: usize = 1024;

/// What a log is made of.
pub(super) struct Parts<'a, D: Disk, K: Kv> {
    pub(super) disk: &'a D,
    pub(super) realm: Realm,
    pub(super) segment_bytes: u64,
    pub(super) index: Index<K>,
    /// The segments of which there are files.
    pub(super) there: BTreeSet<SegmentId>,
}

/// Brings the index up to date, and finds the log's end. What was found is durable when this returns.
///
/// # Errors
///
/// `Busy`, `Failed`.
pub(super) async fn recover<D: Disk, K: Kv>(
    disk: &D,
    kv: K,
    realm: Realm,
    segment_bytes: u64,
) -> Result<(Index<K>, Tail), StoreError> {
    let names = disk.list().await.map_err(|error| StoreError::failed(&error))?;
    // A process that died may have made segments whose names nobody has flushed.
    disk.flush_names().await.map_err(|error| StoreError::failed(&error))?;
    let there: BTreeSet<SegmentId> = names.iter().filter_map(parse_segment_file).collect();
    let (index, position) = match Index::load(kv.clone(), &realm, segment_bytes) {
        Ok(loaded) => (loaded.index, loaded.position),
        Err(problem) => {
            warn!(disk = %realm.disk, %problem, "the index is made anew");
            let index = Index::create(kv, &realm, segment_bytes).map_err(|error| index_failed(&error))?;
            (index, None)
        }
    };
    let mut parts = Parts { disk, realm, segment_bytes, index, there };
    let replayed = match position {
        Some(position) => replay::replay(&parts, position).await?,
        None => None,
    };
    let mut tail = match replayed {
        Some(tail) => tail,
        None if parts.there.is_empty() => parts.begin().await?,
        None => {
            info!(disk = %realm.disk, segments = parts.there.len(), "the index is rebuilt from the segments");
            parts.index.wipe().map_err(|error| index_failed(&error))?;
            match rebuild::rebuild(&parts).await? {
                Some(tail) => tail,
                None => parts.begin().await?,
            }
        }
    };
    parts.reconcile(&mut tail).await?;
    // Which segments are free must be known after the next crash, too.
    parts.index.flush().await.map_err(|error| index_failed(&error))?;
    Ok((parts.index, tail))
}

impl<D: Disk, K: Kv> Parts<'_, D, K> {
    pub(super) async fn open(&self, segment: SegmentId) -> Result<D::File, StorageError> {
        self.disk.open(&segment_file(segment)).await
    }

    /// Durable when this returns.
    pub(super) async fn write_header(
        &self,
        file: &D::File,
        segment: SegmentId,
        incarnation: u64,
        durable_to: u64,
    ) -> Result<(), StorageError> {
        let header = SegmentHeader { segment, incarnation, segment_bytes: self.segment_bytes, durable_to };
        write_header(&self.realm, file, &header).await
    }

    pub(super) fn apply(&self, changes: Changes) -> Result<(), StoreError> {
        self.index.apply(changes).map_err(|error| index_failed(&error))
    }

    /// The first segment of a new log.
    pub(super) async fn begin(&mut self) -> Result<Tail, StoreError> {
        let segment = (0..).map(SegmentId).find(|id| !self.there.contains(id)).unwrap_or(SegmentId(0));
        let made = async {
            let file = self.disk.create(&segment_file(segment), self.segment_bytes).await?;
            self.write_header(&file, segment, 1, 0).await?;
            self.disk.flush_names().await
        };
        made.await.map_err(|error| StoreError::failed(&error))?;
        self.there.insert(segment);
        let tail = Tail { segment, incarnation: 1, end: PAGE, last: 0, next: 1, damaged_records: 0 };
        let mut changes = Changes::new();
        changes.set_segment(segment, 1, SegmentState::InLog);
        changes.set_position(Position { segment, incarnation: 1, end: PAGE, sequence: 0 });
        self.apply(changes)?;
        Ok(tail)
    }

    /// Makes files and rows fit each other: segments that were made and never used are free, so are those that were
    /// freed and the index does not know it, and of those that are gone nothing is left.
    async fn reconcile(&self, tail: &mut Tail) -> Result<(), StoreError> {
        let rows = self.index.segments();
        for segment in self.there.iter().filter(|segment| !rows.contains_key(segment)) {
            self.adopt(*segment, tail.last).await?;
        }
        // A segment is freed after the index has been flushed: none of its shards lives there any more.
        let is_left = |segment: &SegmentId, row: &SegmentRow| {
            row.state != SegmentState::Free && row.live_shards == 0 && *segment != tail.segment
        };
        for (segment, row) in rows.iter().filter(|(segment, row)| is_left(segment, row)) {
            if let Ok(file) = self.open(*segment).await
                && let Ok(header) = read_header(&file, &self.realm, *segment).await?
                && header.incarnation > row.incarnation
            {
                self.free(*segment, &file, header.incarnation, tail.last).await?;
            }
        }
        for segment in rows.keys().filter(|segment| !self.there.contains(segment)) {
            let lost = self.forget(*segment)?;
            tail.damaged_records = tail.damaged_records.saturating_add(lost);
            warn!(disk = %self.realm.disk, %segment, shards = lost, "a segment is gone, with what was in it");
            if *segment == tail.segment {
                self.make_again(tail).await?;
                continue;
            }
            let mut changes = Changes::new();
            changes.remove_segment(*segment);
            self.apply(changes)?;
        }
        Ok(())
    }

    /// The segment in which the log goes on is gone: it does in an empty one.
    async fn make_again(&self, tail: &mut Tail) -> Result<(), StoreError> {
        let (segment, incarnation) = (tail.segment, tail.incarnation.saturating_add(1));
        let made = async {
            let file = self.disk.create(&segment_file(segment), self.segment_bytes).await?;
            self.write_header(&file, segment, incarnation, tail.last).await?;
            self.disk.flush_names().await
        };
        made.await.map_err(|error| StoreError::failed(&error))?;
        (tail.incarnation, tail.end) = (incarnation, PAGE);
        tail.damaged_records = tail.damaged_records.saturating_add(1);
        let mut changes = Changes::new();
        changes.set_segment(segment, incarnation, SegmentState::InLog);
        changes.set_position(Position { segment, incarnation, end: PAGE, sequence: tail.last });
        self.apply(changes)
    }

    /// What is not this disk's is not deleted: it gets a name that is in nobody's way.
    async fn put_aside(&self, segment: SegmentId, problem: &RecordProblem) -> Result<(), StorageError> {
        let names = self.disk.list().await?;
        let mut aside = (0_u32..).filter_map(|number| format!("foreign-{number}-{segment}").parse().ok());
        let Some(name) = aside.find(|name| !names.contains(name)) else { return Ok(()) };
        warn!(disk = %self.realm.disk, %segment, %problem, %name, "a file that is no segment of this disk is put aside");
        self.disk.rename(&segment_file(segment), &name).await?;
        self.disk.flush_names().await
    }

    /// A segment that the index does not know.
    async fn adopt(&self, segment: SegmentId, last: u64) -> Result<(), StoreError> {
        let file = self.open(segment).await.map_err(|error| StoreError::failed(&error))?;
        let problem = match read_header(&file, &self.realm, segment).await? {
            Ok(header) => return self.free(segment, &file, header.incarnation, last).await,
            Err(problem) => problem,
        };
        let is_empty = is_empty(&file).await?;
        drop(file);
        let gone = match problem {
            // It was being made when the power failed.
            RecordProblem::Block(_) if is_empty => self.remove(segment).await,
            problem => self.put_aside(segment, &problem).await,
        };
        gone.map_err(|error| StoreError::failed(&error))
    }

    /// Frees a segment in which the log may have gone on just before the end, without anybody being told: what it
    /// holds must never count.
    async fn free(
        &self,
        segment: SegmentId,
        file: &D::File,
        known: u64,
        last: u64,
    ) -> Result<(), StoreError> {
        let incarnation = known.saturating_add(1);
        let written = self.write_header(file, segment, incarnation, last).await;
        written.map_err(|error| StoreError::failed(&error))?;
        let mut changes = Changes::new();
        changes.set_segment(segment, incarnation, SegmentState::Free);
        self.apply(changes)
    }

    async fn remove(&self, segment: SegmentId) -> Result<(), StorageError> {
        self.disk.remove(&segment_file(segment)).await?;
        self.disk.flush_names().await
    }

    fn forget(&self, segment: SegmentId) -> Result<u64, StoreError> {
        let mut all = 0_u64;
        loop {
            let lost = self.index.shards_in(segment, FORGET_BATCH).map_err(|error| index_failed(&error))?;
            if lost.is_empty() {
                return Ok(all);
            }
            all = all.saturating_add(lost.len() as u64);
            let mut changes = Changes::new();
            lost.into_iter().for_each(|name| changes.remove(name));
            self.apply(changes)?;
        }
    }
}

/// Whether nothing was ever written behind the header.
async fn is_empty<F: DiskFile>(file: &F) -> Result<bool, StoreError> {
    let batch = vec![Read { offset: PAGE, buf: AlignedBuf::zeroed(PAGE_BYTES) }];
    match file.read(batch, Priority::Client).await.pop() {
        Some(Ok(page)) => Ok(page.as_slice().iter().all(|byte| *byte == 0)),
        Some(Err(error)) if error.kind() == StorageErrorKind::Busy => Err(StoreError::failed(&error)),
        Some(Err(_)) | None => Ok(false),
    }
}

pub(super) fn index_failed(problem: &impl std::fmt::Display) -> StoreError {
    StoreError::Failed(format!("its index: {problem}"))
}
