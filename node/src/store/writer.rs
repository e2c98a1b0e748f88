//! The writer of one disk: the only one who changes its log.
//!
//! What waits is laid out at the log's end as one batch, written, flushed, told to the index, and answered. While
//! one batch is flushed the next is written: both halves run side by side, with one batch between them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use env::{AlignedBuf, Disk, DiskFile, Kv, Priority, StorageError, StorageErrorKind, Write};
use futures_util::future::join;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::compact::Victim;
use super::index::{Changes, Location, Position, SegmentState};
use super::record::{
    Body, PAGE_BYTES, Place, Realm, Record, SegmentHeader, SegmentId, ShardMeta, Tombstone,
    encode_tombstones, segment_file, tombstones_bytes,
};
use super::scan::read_header;
use super::{Inner, ended};
use crate::store::StoreError;

const PAGE: u64 = PAGE_BYTES as u64;
/// One batch, but for a record of any size.
const BATCH_BYTES: u64 = 8 << 20;
const BATCH_RECORDS: usize = 256;
/// Records up to this length are written together, up to that one.
const SMALL_BYTES: usize = 64 << 10;
const JOINED_BYTES_MAX: usize = 1 << 20;
/// Written and not flushed, at most: a batch that is flushed, one that waits, one that is written, and the record that
/// each may be too long.
pub(super) const UNFLUSHED_BYTES_MAX: u64 = 3 * (BATCH_BYTES + (5 << 20));
/// The index is flushed after so many bytes, or records, of the log.
const CHECKPOINT_BYTES: u64 = 64 << 20;
const CHECKPOINT_RECORDS: u64 = 4096;

/// What the writer is asked for.
pub(super) enum Request {
    Append(Append),
    Compact(oneshot::Sender<Result<bool, StoreError>>),
}

/// A record that is to be written.
pub(super) struct Append {
    pub(super) what: What,
    pub(super) priority: Priority,
    /// Told when it is durable, or why it is not.
    pub(super) reply: Option<oneshot::Sender<Result<(), StoreError>>>,
}

/// What a record is to say.
pub(super) enum What {
    /// A shard, in a buffer with room for the page; a new one has not been born yet.
    Shard(Box<ShardMeta>, AlignedBuf),
    /// Deletions; new ones have no sequence yet.
    Tombstones(Vec<Tombstone>),
}

impl Append {
    fn bytes(&self) -> u64 {
        match &self.what {
            What::Shard(_, buf) => buf.capacity() as u64,
            What::Tombstones(tombstones) => PAGE + tombstones_bytes(tombstones.len()) as u64,
        }
    }

    /// Segments that must stay free if this needs a new one: deletions make room, and so do copies. Copies are what
    /// compaction is made of, and never wait for it.
    fn spare(&self) -> u64 {
        match &self.what {
            What::Shard(meta, _) if meta.born == 0 => 2,
            What::Tombstones(tombstones) if tombstones.iter().any(|new| new.sequence == 0) => 1,
            What::Shard(..) | What::Tombstones(_) => 0,
        }
    }

    fn answer(self, result: Result<(), StoreError>) {
        if let Some(reply) = self.reply {
            // Whoever asked may be gone.
            reply.send(result).ok();
        }
    }
}

/// Where the log ends.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    pub(super) segment: SegmentId,
    pub(super) incarnation: u64,
    /// The next record begins here.
    pub(super) end: u64,
    /// The sequence of the last record.
    pub(super) last: u64,
    /// That of the next one.
    pub(super) next: u64,
    /// Damage that was found on the way here.
    pub(super) damaged_records: u64,
}

/// What the index has to learn of a record once it is durable.
enum Effect {
    Shard(Box<ShardMeta>, Location),
    Tombstones(Vec<Tombstone>),
    /// The log goes on there.
    Seal(SegmentId, u64),
}

/// What becomes of a batch once it is durable.
struct Pending {
    effects: Vec<Effect>,
    replies: Vec<oneshot::Sender<Result<(), StoreError>>>,
    bytes: u64,
}

impl Pending {
    fn answer(self, result: &Result<(), StoreError>) {
        // Whoever asked may be gone.
        for reply in self.replies {
            reply.send(result.clone()).ok();
        }
    }
}

/// A batch that is written and not flushed.
struct Batch<F> {
    file: F,
    /// Where the log ends after it.
    position: Position,
    pending: Pending,
}

enum Written<F> {
    Batch(Batch<F>),
    /// Told when all that was written before is durable and in the index.
    Barrier(oneshot::Sender<()>),
}

/// Lays out and writes.
pub(super) struct Writer<D: Disk, K: Kv> {
    pub(super) inner: Arc<Inner<D, K>>,
    requests: mpsc::Receiver<Request>,
    written: mpsc::Sender<Written<D::File>>,
    pub(super) tail: Tail,
    pub(super) victim: Option<Victim<D::File>>,
    /// Bytes that lived in each segment when it was sealed, as far as that was since the log was opened.
    pub(super) sealed: BTreeMap<SegmentId, u64>,
    /// Compaction failed, and waits for somebody to ask for something.
    pub(super) is_stalled: bool,
}

/// Writes what is asked for until nobody can ask any more.
pub(super) async fn run<D: Disk, K: Kv>(
    inner: Arc<Inner<D, K>>,
    requests: mpsc::Receiver<Request>,
    tail: Tail,
) {
    let (written, flushed) = mpsc::channel(1);
    let (checkpoint, checkpoints) = mpsc::channel(1);
    let writer = Writer {
        inner: inner.clone(),
        requests,
        written,
        tail,
        victim: None,
        sealed: BTreeMap::new(),
        is_stalled: false,
    };
    let flusher = flush_all(inner.clone(), flushed, checkpoint);
    join(join(writer.write_all(), flusher), checkpoint_all(inner, checkpoints)).await;
}

impl<D: Disk, K: Kv> Writer<D, K> {
    async fn write_all(mut self) {
        loop {
            let mut asked = Vec::new();
            // Compaction that is due goes on while nobody asks; otherwise the disk is left alone.
            match self.requests.try_recv() {
                Ok(request) => asked.push(request),
                Err(mpsc::error::TryRecvError::Disconnected) => return,
                Err(mpsc::error::TryRecvError::Empty) if self.is_compaction_due() => {}
                Err(mpsc::error::TryRecvError::Empty) => match self.requests.recv().await {
                    Some(request) => asked.push(request),
                    None => return,
                },
            }
            self.is_stalled &= asked.is_empty();
            let bytes = self.gather(&mut asked);
            let mut appends = VecDeque::new();
            for request in asked {
                match request {
                    Request::Append(append) => appends.push_back(append),
                    Request::Compact(reply) => {
                        reply.send(self.compact_one().await).ok();
                    }
                }
            }
            self.append_all(appends).await;
            if self.is_compaction_due() {
                // As much as was written, so that dead space is reclaimed at the rate at which it comes.
                self.compact_some(bytes).await;
            }
        }
    }

    /// Takes what waits, up to one batch; its bytes.
    fn gather(&mut self, asked: &mut Vec<Request>) -> u64 {
        let bytes_of = |request: &Request| match request {
            Request::Append(append) => append.bytes(),
            Request::Compact(_) => 0,
        };
        let mut bytes: u64 = asked.iter().map(bytes_of).sum();
        while bytes < BATCH_BYTES
            && asked.len() < BATCH_RECORDS
            && let Ok(request) = self.requests.try_recv()
        {
            bytes = bytes.saturating_add(bytes_of(&request));
            asked.push(request);
        }
        bytes
    }

    /// Writes the records, in order, in batches of one segment each.
    pub(super) async fn append_all(&mut self, mut appends: VecDeque<Append>) {
        while let Some(first) = appends.pop_front() {
            if let Err(error) = self.inner.check_works() {
                first.answer(Err(error));
                continue;
            }
            if !self.fits(self.tail.end, first.bytes())
                && let Err(error) = self.switch(first.bytes(), first.spare()).await
            {
                first.answer(Err(error));
                continue;
            }
            let mut end = self.tail.end.saturating_add(first.bytes());
            let mut batch = vec![first];
            while appends.front().is_some_and(|next| self.fits(end, next.bytes()))
                && let Some(next) = appends.pop_front()
            {
                end = end.saturating_add(next.bytes());
                batch.push(next);
            }
            self.write(batch).await;
        }
    }

    /// Whether a record fits the segment, with its seal.
    fn fits(&self, end: u64, bytes: u64) -> bool {
        end.saturating_add(bytes).saturating_add(PAGE) <= self.inner.segment_bytes
    }

    async fn write(&mut self, batch: Vec<Append>) {
        let inner = self.inner.clone();
        let mut tail = self.tail.clone();
        let durable_to = inner.durable_to.load(Ordering::Acquire);
        let (mut writes, mut effects, mut replies) = (Vec::new(), Vec::new(), Vec::new());
        let priority = batch.iter().map(|append| append.priority).min().unwrap_or(Priority::Client);
        for Append { what, reply, .. } in batch {
            let (buf, effect) = lay_out(&inner, &mut tail, durable_to, what);
            writes.push(Write { offset: tail.end - buf.capacity() as u64, buf });
            effects.push(effect);
            replies.extend(reply);
        }
        let bytes = tail.end - self.tail.end;
        let writes = joined(writes);
        self.submit(writes, priority, tail, Pending { effects, replies, bytes }).await;
    }

    /// Writes, and hands over to be flushed. Only what was written moves the log's end.
    async fn submit(&mut self, writes: Vec<Write>, priority: Priority, tail: Tail, pending: Pending) {
        let written = async {
            let file = self.inner.file(self.tail.segment).await?;
            file.write(writes, priority).await?;
            Ok(file)
        };
        match written.await {
            Ok(file) => {
                let position = Position {
                    segment: tail.segment,
                    incarnation: tail.incarnation,
                    end: tail.end,
                    sequence: tail.last,
                };
                self.tail = tail;
                let batch = Batch { file, position, pending };
                // The other half runs as long as this one.
                self.written.send(Written::Batch(batch)).await.ok();
            }
            Err(error) => {
                // A sequence is never used twice, whatever came of it.
                self.tail.next = tail.next;
                let error = self.refused(&error);
                pending.answer(&Err(error));
            }
        }
    }

    /// Nothing was written when the device was busy; anything else leaves the log's end in doubt.
    fn refused(&self, error: &StorageError) -> StoreError {
        match error.kind() {
            StorageErrorKind::Busy => StoreError::failed(error),
            _ => self.inner.fail(&StorageError::new(StorageErrorKind::Io, error.to_string())),
        }
    }

    /// Finds room for a record of so many bytes: in a free segment, if `spare` others stay free.
    ///
    /// The seal that leads there is durable when this returns. So whatever a power loss leaves of the next segment,
    /// it is known to be the next; and what was not flushed always lies in one segment.
    async fn switch(&mut self, bytes: u64, spare: u64) -> Result<(), StoreError> {
        while self.free_segments() <= spare {
            if spare == 0 || !Box::pin(self.compact_one()).await? {
                return Err(StoreError::Full { used_bytes: self.inner.index.used_bytes() });
            }
            // Its copies may have gone on in another segment.
            if self.fits(self.tail.end, bytes) {
                return Ok(());
            }
        }
        let (next, next_incarnation) = self.free_segment().await?;
        let mut tail = self.tail.clone();
        let place = Place { segment: tail.segment, incarnation: tail.incarnation, offset: tail.end };
        let record = Record {
            place,
            sequence: tail.next,
            previous: tail.last,
            durable_to: self.inner.durable_to.load(Ordering::Acquire),
            body: Body::Seal { next, next_incarnation },
        };
        let mut buf = AlignedBuf::zeroed(PAGE_BYTES);
        record.encode(&self.inner.realm, buf.as_mut_slice());
        (tail.last, tail.next) = (tail.next, tail.next + 1);
        (tail.segment, tail.incarnation, tail.end) = (next, next_incarnation, PAGE);
        let (reply, answer) = oneshot::channel();
        let writes = vec![Write { offset: place.offset, buf }];
        let effects = vec![Effect::Seal(next, next_incarnation)];
        let before = self.tail.segment;
        let pending = Pending { effects, replies: vec![reply], bytes: PAGE };
        self.submit(writes, Priority::Client, tail, pending).await;
        answer.await.map_err(|_| ended())??;
        // All of it is in the index, since all before the seal is.
        let live_bytes = self.inner.index.segment(before).map_or(0, |row| row.live_bytes);
        self.sealed.insert(before, live_bytes);
        Ok(())
    }

    /// Segments that can be had: freed ones, and those that the disk has room for.
    pub(super) fn free_segments(&self) -> u64 {
        let rows = self.inner.index.segments();
        let free = rows.values().filter(|row| row.state == SegmentState::Free).count() as u64;
        free + self.inner.room().segments_max().saturating_sub(rows.len() as u64)
    }

    async fn free_segment(&mut self) -> Result<(SegmentId, u64), StoreError> {
        let rows = self.inner.index.segments();
        let free = rows.iter().find(|(id, row)| row.state == SegmentState::Free && **id != self.tail.segment);
        if let Some((id, row)) = free {
            return Ok((*id, self.trusted(*id, row.incarnation).await?));
        }
        let unused = (0..).map(SegmentId).find(|id| !rows.contains_key(id));
        let id = unused.ok_or_else(|| StoreError::Full { used_bytes: self.inner.index.used_bytes() })?;
        create(&*self.inner, id).await.map_err(|error| self.inner.fail(&error))?;
        Ok((id, 1))
    }

    /// The incarnation of a free segment, which the index may not know: it may be older than it should be.
    async fn trusted(&self, segment: SegmentId, known: u64) -> Result<u64, StoreError> {
        let inner = &*self.inner;
        let file = inner.file(segment).await.map_err(|error| inner.fail(&error))?;
        let found = match read_header(&file, &inner.realm, segment).await? {
            Ok(header) if header.incarnation == known => return Ok(known),
            Ok(header) => header.incarnation,
            Err(_) => 0,
        };
        let (disk, incarnation) = (inner.realm.disk, known.max(found).saturating_add(1));
        warn!(%disk, %segment, known, found, incarnation, "a free segment is not as the index has it");
        let (segment_bytes, durable_to) = (inner.segment_bytes, inner.durable_to.load(Ordering::Acquire));
        let header = SegmentHeader { segment, incarnation, segment_bytes, durable_to };
        write_header(&inner.realm, &file, &header).await.map_err(|error| inner.fail(&error))?;
        Ok(incarnation)
    }

    /// Waits until all that was written is durable and in the index.
    pub(super) async fn barrier(&mut self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.written.send(Written::Barrier(reply)).await.ok();
        answer.await.map_err(|_| ended())?;
        self.inner.check_works()
    }
}

/// Makes a segment. Durable when this returns.
async fn create<D: Disk, K: Kv>(inner: &Inner<D, K>, id: SegmentId) -> Result<(), StorageError> {
    let file = inner.disk.create(&segment_file(id), inner.segment_bytes).await?;
    let durable_to = inner.durable_to.load(Ordering::Acquire);
    let header =
        SegmentHeader { segment: id, incarnation: 1, segment_bytes: inner.segment_bytes, durable_to };
    write_header(&inner.realm, &file, &header).await?;
    inner.disk.flush_names().await
}

/// Writes a segment's header. Durable when this returns.
pub(super) async fn write_header<F: DiskFile>(
    realm: &Realm,
    file: &F,
    header: &SegmentHeader,
) -> Result<(), StorageError> {
    file.write(vec![Write { offset: 0, buf: header.encode(realm) }], Priority::Client).await?;
    file.flush().await
}

/// Small records that follow each other become one write: copying them costs less than a call for each.
fn joined(writes: Vec<Write>) -> Vec<Write> {
    let mut all: Vec<Write> = Vec::with_capacity(writes.len());
    let mut run: Vec<Write> = Vec::new();
    let mut run_bytes = 0;
    for write in writes {
        let bytes = write.buf.capacity();
        if bytes > SMALL_BYTES || run_bytes + bytes > JOINED_BYTES_MAX {
            all.extend(join_run(std::mem::take(&mut run)));
            run_bytes = 0;
        }
        if bytes > SMALL_BYTES {
            all.push(write);
        } else {
            run_bytes += bytes;
            run.push(write);
        }
    }
    all.extend(join_run(run));
    all
}

fn join_run(mut run: Vec<Write>) -> Option<Write> {
    if run.len() < 2 {
        return run.pop();
    }
    let offset = run.first().map(|write| write.offset)?;
    let mut buf = AlignedBuf::zeroed(run.iter().map(|write| write.buf.capacity()).sum());
    let mut room = buf.as_mut_slice();
    for write in run {
        let bytes = write.buf.as_capacity_slice();
        let (place, rest) = room.split_at_mut(bytes.len());
        place.copy_from_slice(bytes);
        room = rest;
    }
    Some(Write { offset, buf })
}

/// Gives a record its place at the log's end.
fn lay_out<D: Disk, K: Kv>(
    inner: &Inner<D, K>,
    tail: &mut Tail,
    durable_to: u64,
    what: What,
) -> (AlignedBuf, Effect) {
    let place = Place { segment: tail.segment, incarnation: tail.incarnation, offset: tail.end };
    let sequence = tail.next;
    let (body, mut buf, effect) = match what {
        What::Shard(mut meta, buf) => {
            if meta.born == 0 {
                meta.born = sequence;
            }
            let at = Location {
                segment: place.segment,
                offset: place.offset,
                bytes: buf.capacity() as u64,
                epoch: meta.epoch,
                shard_bytes: meta.shard_bytes,
                sequence,
                born: meta.born,
            };
            (Body::Shard(ShardMeta::clone(&meta)), buf, Effect::Shard(meta, at))
        }
        What::Tombstones(mut tombstones) => {
            for tombstone in tombstones.iter_mut().filter(|tombstone| tombstone.sequence == 0) {
                tombstone.sequence = sequence;
                // Compaction may have moved it since it was asked for.
                if let Ok(Some(at)) = inner.index.get(&tombstone.name)
                    && let Some(row) = inner.index.segment(at.segment)
                {
                    (tombstone.segment, tombstone.incarnation) = (at.segment, row.incarnation);
                }
            }
            let mut buf = AlignedBuf::zeroed(PAGE_BYTES + tombstones_bytes(tombstones.len()));
            let payload = buf.as_mut_slice().get_mut(PAGE_BYTES..).unwrap_or_default();
            let payload_crc = encode_tombstones(&tombstones, payload);
            let count = u32::try_from(tombstones.len()).unwrap_or(u32::MAX);
            (Body::Tombstones { count, payload_crc }, buf, Effect::Tombstones(tombstones))
        }
    };
    let record = Record { place, sequence, previous: tail.last, durable_to, body };
    record.encode(&inner.realm, buf.as_mut_slice());
    (tail.last, tail.next) = (sequence, sequence + 1);
    tail.end += buf.capacity() as u64;
    (buf, effect)
}

/// Flushes, tells the index, and answers.
async fn flush_all<D: Disk, K: Kv>(
    inner: Arc<Inner<D, K>>,
    mut written: mpsc::Receiver<Written<D::File>>,
    checkpoint: mpsc::Sender<()>,
) {
    let (mut bytes, mut records) = (0_u64, 0_u64);
    while let Some(written) = written.recv().await {
        let batch = match written {
            Written::Batch(batch) => batch,
            Written::Barrier(reply) => {
                reply.send(()).ok();
                continue;
            }
        };
        let Batch { file, position, mut pending } = batch;
        bytes = bytes.saturating_add(pending.bytes);
        records = records.saturating_add(pending.effects.len() as u64);
        let effects = std::mem::take(&mut pending.effects);
        let result = settle(&inner, &file, position, effects).await;
        pending.answer(&result);
        if bytes >= CHECKPOINT_BYTES || records >= CHECKPOINT_RECORDS {
            (bytes, records) = (0, 0);
            // One that is under way, or waits, covers much of it.
            checkpoint.try_send(()).ok();
        }
    }
}

async fn settle<D: Disk, K: Kv>(
    inner: &Inner<D, K>,
    file: &D::File,
    position: Position,
    effects: Vec<Effect>,
) -> Result<(), StoreError> {
    // After a failure nothing more is acknowledged: it might follow a gap.
    inner.check_works()?;
    file.flush()
        .await
        .map_err(|error| inner.fail(&StorageError::new(StorageErrorKind::Io, error.to_string())))?;
    inner.durable_to.store(position.sequence, Ordering::Release);
    let mut changes = Changes::new();
    for effect in effects {
        match effect {
            Effect::Shard(meta, at) => {
                if meta.born != at.sequence {
                    note_source(inner, &mut changes, &meta);
                }
                changes.put(meta.name, at);
            }
            Effect::Tombstones(all) => {
                for dead in all {
                    // What compaction wrote again may have been born anew since.
                    let there = inner.index.get(&dead.name).map_err(|error| inner.index_failed(&error))?;
                    if there.is_some_and(|there| there.born < dead.sequence) {
                        changes.remove(dead.name);
                    }
                }
            }
            Effect::Seal(next, incarnation) => changes.set_segment(next, incarnation, SegmentState::InLog),
        }
    }
    changes.set_position(position);
    inner.index.apply(changes).map_err(|error| inner.index_failed(&error))
}

/// A copy says which segment is being left.
fn note_source<D: Disk, K: Kv>(inner: &Inner<D, K>, changes: &mut Changes, meta: &ShardMeta) {
    if let Some((segment, incarnation)) = meta.from
        && inner.index.segment(segment).is_some_and(|row| row.incarnation == incarnation)
    {
        changes.set_segment(segment, incarnation, SegmentState::Leaving);
    }
}

/// Flushes the index now and then, so that little of the log has to be replayed after a crash.
async fn checkpoint_all<D: Disk, K: Kv>(inner: Arc<Inner<D, K>>, mut due: mpsc::Receiver<()>) {
    while due.recv().await.is_some() {
        if let Err(error) = inner.index.flush().await {
            inner.index_failed(&error);
        }
    }
}
