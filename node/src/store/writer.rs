//! The writer of one disk: the only one who changes its log.
//!
//! What waits is laid out at the log's end as one batch, written, and flushed. Meanwhile the next batches are on their
//! way already. In their order the index is told of them, and then they are answered.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use env::{AlignedBuf, Disk, DiskFile, Kv, Priority, StorageError, StorageErrorKind, Write};
use futures_util::StreamExt;
use futures_util::future::{join, poll_immediate};
use futures_util::stream::FuturesOrdered;
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
const JOINED_BYTES_MAX: usize = 512 << 10;
/// Batches that are on their way to the disk at the same time.
const BATCHES_MAX: usize = 2;
/// Written and not flushed, at most: all of these, and the record that each may be too long.
pub(super) const UNFLUSHED_BYTES_MAX: u64 = BATCHES_MAX as u64 * (BATCH_BYTES + (5 << 20));
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

/// A batch that has been written and flushed, or not.
struct Ended {
    result: Result<(), StorageError>,
    /// Where the log ends after it.
    position: Position,
    pending: Pending,
}

/// Lays out and writes.
pub(super) struct Writer<D: Disk, K: Kv> {
    pub(super) inner: Arc<Inner<D, K>>,
    requests: mpsc::Receiver<Request>,
    /// Told when the log goes on in another segment.
    begun: mpsc::Sender<SegmentId>,
    /// On their way to the disk, in the order of the log.
    under_way: FuturesOrdered<Pin<Box<dyn Future<Output = Ended> + Send>>>,
    /// Told when the index should be flushed.
    checkpoint: mpsc::Sender<()>,
    /// Bytes and records that the index has learned of since.
    learned: (u64, u64),
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
    let (checkpoint, checkpoints) = mpsc::channel(1);
    let (begun, segments_begun) = mpsc::channel(1);
    let writer = Writer {
        inner: inner.clone(),
        requests,
        begun,
        under_way: FuturesOrdered::new(),
        checkpoint,
        learned: (0, 0),
        tail,
        victim: None,
        sealed: BTreeMap::new(),
        is_stalled: false,
    };
    let aside = join(checkpoint_all(inner.clone(), checkpoints), make_ahead(inner, segments_begun));
    join(writer.write_all(), aside).await;
}

impl<D: Disk, K: Kv> Writer<D, K> {
    async fn write_all(mut self) {
        loop {
            let mut asked = Vec::new();
            // Compaction that is due goes on while nobody asks; otherwise the disk is left alone.
            match self.requests.try_recv() {
                Ok(request) => asked.push(request),
                Err(mpsc::error::TryRecvError::Empty) if self.is_compaction_due() => {}
                Err(_) => match self.next_request().await {
                    Some(request) => asked.push(request),
                    None => return self.settle_all().await,
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

    /// Waits for the next request; meanwhile batches end.
    async fn next_request(&mut self) -> Option<Request> {
        loop {
            tokio::select! {
                request = self.requests.recv() => return request,
                Some(ended) = self.under_way.next() => self.settle(ended),
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

    /// Has the disk write, and waits until it may be given the next write. Only what the disk took moves the log's end.
    async fn submit(&mut self, writes: Vec<Write>, priority: Priority, tail: Tail, pending: Pending) {
        let file = match self.inner.file(self.tail.segment).await {
            Ok(file) => file,
            Err(error) => return self.refuse(&error, &tail, pending),
        };
        let to = file.clone();
        let mut write = Box::pin(async move { to.write(writes, priority).await });
        // The disk refuses at once if at all; what it took goes on whoever waits.
        let begun = poll_immediate(&mut write).await;
        if let Some(Err(error)) = begun {
            return self.refuse(&error, &tail, pending);
        }
        let position = Position {
            segment: tail.segment,
            incarnation: tail.incarnation,
            end: tail.end,
            sequence: tail.last,
        };
        self.tail = tail;
        self.under_way.push_back(Box::pin(async move {
            let written = match begun {
                Some(written) => written,
                None => write.await,
            };
            let result = match written {
                Ok(()) => file.flush().await,
                error => error,
            };
            Ended { result, position, pending }
        }));
        while self.under_way.len() >= BATCHES_MAX
            && let Some(ended) = self.under_way.next().await
        {
            self.settle(ended);
        }
    }

    /// Tells the index, and answers. After a failure nothing more is acknowledged: it might follow a gap.
    fn settle(&mut self, Ended { result, position, mut pending }: Ended) {
        let inner = &*self.inner;
        let result = result.map_err(|error| inner.fail_in_doubt(&error)).and_then(|()| inner.check_works());
        let effects = std::mem::take(&mut pending.effects);
        self.learned.0 = self.learned.0.saturating_add(pending.bytes);
        self.learned.1 = self.learned.1.saturating_add(effects.len() as u64);
        pending.answer(&result.and_then(|()| inner.learn(position, effects)));
        if self.learned.0 >= CHECKPOINT_BYTES || self.learned.1 >= CHECKPOINT_RECORDS {
            self.learned = (0, 0);
            // One that is under way, or waits, covers much of it.
            self.checkpoint.try_send(()).ok();
        }
    }

    /// Waits until all that was written is durable and in the index, or has failed.
    pub(super) async fn settle_all(&mut self) {
        while let Some(ended) = self.under_way.next().await {
            self.settle(ended);
        }
    }

    /// Nothing was written when the device was busy; anything else leaves the log's end in doubt.
    fn refuse(&mut self, error: &StorageError, tail: &Tail, pending: Pending) {
        // A sequence is never used twice, whatever came of it.
        self.tail.next = tail.next;
        pending.answer(&Err(match error.kind() {
            StorageErrorKind::Busy => StoreError::failed(error),
            _ => self.inner.fail_in_doubt(error),
        }));
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
        self.settle_all().await;
        answer.await.map_err(|_| ended())??;
        // All of it is in the index, since all before the seal is.
        let live_bytes = self.inner.index.segment(before).map_or(0, |row| row.live_bytes);
        self.sealed.insert(before, live_bytes);
        // One that waits will do.
        self.begun.try_send(self.tail.segment).ok();
        Ok(())
    }

    /// Segments that can be had: freed ones, and those that the disk has room for.
    pub(super) fn free_segments(&self) -> u64 {
        let rows = self.inner.index.segments();
        let free = rows.values().filter(|row| row.state == SegmentState::Free).count() as u64;
        free + self.inner.room().segments_max().saturating_sub(rows.len() as u64)
    }

    async fn free_segment(&mut self) -> Result<(SegmentId, u64), StoreError> {
        let made = self.inner.make_if_none_is_free(self.tail.segment).await;
        let (id, incarnation) = made.map_err(|error| self.inner.fail(&error))?;
        Ok((id, self.trusted(id, incarnation).await?))
    }

    /// The incarnation of a free segment, which the index may not know: it may be older than it should be.
    async fn trusted(&mut self, segment: SegmentId, known: u64) -> Result<u64, StoreError> {
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
}

impl<D: Disk, K: Kv> Inner<D, K> {
    /// The free segment in which the log goes on behind `tail`; if there is none, a new one, durable when this returns.
    async fn make_if_none_is_free(&self, tail: SegmentId) -> Result<(SegmentId, u64), StorageError> {
        let _alone = self.making.lock().await;
        let rows = self.index.segments();
        if let Some((id, row)) = rows.iter().find(|(id, row)| row.state == SegmentState::Free && **id != tail)
        {
            return Ok((*id, row.incarnation));
        }
        let unused = (0..).map(SegmentId).find(|id| !rows.contains_key(id));
        let id =
            unused.ok_or_else(|| StorageError::new(StorageErrorKind::Full, "there are too many segments"))?;
        let file = match self.disk.create(&segment_file(id), self.segment_bytes).await {
            // Made before, when what comes now did not succeed.
            Err(error) if error.kind() == StorageErrorKind::AlreadyExists => self.file(id).await?,
            file => file?,
        };
        let (segment_bytes, durable_to) = (self.segment_bytes, self.durable_to.load(Ordering::Acquire));
        let header = SegmentHeader { segment: id, incarnation: 1, segment_bytes, durable_to };
        write_header(&self.realm, &file, &header).await?;
        self.disk.flush_names().await?;
        let mut changes = Changes::new();
        changes.set_segment(id, 1, SegmentState::Free);
        let told = self.index.apply(changes);
        told.map_err(|error| StorageError::new(StorageErrorKind::Io, format!("its index: {error}")))?;
        Ok((id, 1))
    }
}

/// Makes the next segment while one is being filled, so that nobody waits for it.
async fn make_ahead<D: Disk, K: Kv>(inner: Arc<Inner<D, K>>, mut begun: mpsc::Receiver<SegmentId>) {
    while let Some(tail) = begun.recv().await {
        let has_room = (inner.index.segments().len() as u64) < inner.room().segments_max();
        if has_room && let Err(error) = inner.make_if_none_is_free(tail).await {
            // Whoever needs one tries again.
            inner.fail(&error);
        }
    }
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

impl<D: Disk, K: Kv> Inner<D, K> {
    /// Tells the index of a batch that is durable.
    fn learn(&self, position: Position, effects: Vec<Effect>) -> Result<(), StoreError> {
        self.durable_to.store(position.sequence, Ordering::Release);
        let mut changes = Changes::new();
        for effect in effects {
            match effect {
                Effect::Shard(meta, at) => {
                    if meta.born != at.sequence {
                        note_source(self, &mut changes, &meta);
                    }
                    changes.put(meta.name, at);
                }
                Effect::Tombstones(all) => {
                    for dead in all {
                        // What compaction wrote again may have been born anew since.
                        let there = self.index.get(&dead.name).map_err(|error| self.index_failed(&error))?;
                        if there.is_some_and(|there| there.born < dead.sequence) {
                            changes.remove(dead.name);
                        }
                    }
                }
                Effect::Seal(next, incarnation) => {
                    changes.set_segment(next, incarnation, SegmentState::InLog);
                }
            }
        }
        changes.set_position(position);
        self.index.apply(changes).map_err(|error| self.index_failed(&error))
    }
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
