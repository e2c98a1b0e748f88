//! Walking along the records of a segment.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use env::{AlignedBuf, DiskFile, Priority, Read, StorageError, StorageErrorKind};

use super::record::{PAGE_BYTES, Place, Realm, Record, RecordProblem, SegmentHeader, SegmentId};
use crate::store::StoreError;

const PAGE: u64 = PAGE_BYTES as u64;
/// Read at once where records are small.
const CHUNK_BYTES: u64 = 512 << 10;
/// Chunks that are on their way while one is looked at.
const CHUNKS_AHEAD: usize = 3;
/// Records of this size are hopped over.
const LARGE_BYTES: u64 = 64 << 10;
/// Reads of the same bytes, until they count as damaged.
const ATTEMPTS: u32 = 6;
/// Parts of a file that are tried to see whether it can be read at all.
const PROBES: u64 = 8;

/// A walk along one segment, in one incarnation.
pub(super) struct Scan<F> {
    file: F,
    realm: Realm,
    segment: SegmentId,
    incarnation: u64,
    segment_bytes: u64,
    priority: Priority,
    /// What was read at once, and from where.
    chunk: Option<(u64, AlignedBuf)>,
    chunk_bytes: u64,
    /// What comes behind it, on its way while the chunk is looked at. Nobody waits for the lock.
    ahead: Mutex<VecDeque<Ahead>>,
}

/// A read that is under way, and of which bytes.
struct Ahead {
    offset: u64,
    end: u64,
    read: Pin<Box<dyn Future<Output = Answer> + Send>>,
}

/// What was read, or why it is damaged; an error when neither can be said.
type Answer = Result<Result<AlignedBuf, String>, StoreError>;

/// What lies at a place.
pub(super) enum There {
    Record(Record),
    /// None of this log, or none any more.
    Nothing,
    /// Written by a later version of this software.
    Newer(String),
}

impl<F: DiskFile> Scan<F> {
    pub(super) fn new(
        file: F,
        realm: Realm,
        (segment, incarnation): (SegmentId, u64),
        segment_bytes: u64,
        priority: Priority,
    ) -> Self {
        let chunk_bytes = CHUNK_BYTES;
        let ahead = Mutex::new(VecDeque::new());
        Self { file, realm, segment, incarnation, segment_bytes, priority, chunk: None, chunk_bytes, ahead }
    }

    /// The record at this offset.
    ///
    /// # Errors
    ///
    /// `Busy`, `Failed`; a damaged page holds nothing.
    pub(super) async fn record_at(&mut self, offset: u64) -> Result<There, StoreError> {
        if offset < PAGE || offset.saturating_add(PAGE) > self.segment_bytes {
            return Ok(There::Nothing);
        }
        let place = Place { segment: self.segment, incarnation: self.incarnation, offset };
        let realm = self.realm;
        let Ok(page) = self.page(offset).await? else { return Ok(There::Nothing) };
        Ok(match Record::decode(&realm, &place, page) {
            Ok(record) if record.end() > self.segment_bytes => There::Nothing,
            Ok(record) => {
                self.chunk_bytes = if record.bytes() > LARGE_BYTES { PAGE } else { CHUNK_BYTES };
                There::Record(record)
            }
            Err(problem) if problem.is_newer() => There::Newer(problem.to_string()),
            Err(_) => There::Nothing,
        })
    }

    /// What decoding gives at a place that need not be in this scan's incarnation.
    ///
    /// # Errors
    ///
    /// `Busy`, `Failed`.
    pub(super) async fn decode_at(
        &mut self,
        place: &Place,
    ) -> Result<Result<Record, RecordProblem>, StoreError> {
        self.chunk_bytes = CHUNK_BYTES;
        let realm = self.realm;
        let page = self.page(place.offset).await?;
        Ok(Record::decode(&realm, place, page.unwrap_or_default()))
    }

    /// The first record from `from` up to `to` that is `wanted`.
    ///
    /// # Errors
    ///
    /// `Busy`, `Failed`.
    pub(super) async fn find(
        &mut self,
        from: u64,
        to: u64,
        mut wanted: impl FnMut(&Record) -> bool,
    ) -> Result<Option<Record>, StoreError> {
        self.chunk_bytes = CHUNK_BYTES;
        let mut offset = from;
        while offset < to.min(self.segment_bytes) {
            if let There::Record(record) = self.record_at(offset).await?
                && wanted(&record)
            {
                return Ok(Some(record));
            }
            self.chunk_bytes = CHUNK_BYTES;
            offset += PAGE;
        }
        Ok(None)
    }

    /// A whole record, its page included; none when it is damaged.
    ///
    /// # Errors
    ///
    /// `Busy`, `Failed`.
    pub(super) async fn whole(&self, record: &Record) -> Result<Option<AlignedBuf>, StoreError> {
        let bytes = usize::try_from(record.bytes()).unwrap_or(usize::MAX);
        let buf = self.read(record.place.offset, bytes).await?;
        Ok(buf.ok().filter(|buf| buf.len() == bytes))
    }

    async fn page(&mut self, offset: u64) -> Result<Result<&[u8], String>, StoreError> {
        let is_inside = |(start, chunk): &(u64, AlignedBuf)| {
            *start <= offset && offset + PAGE <= start + chunk.len() as u64
        };
        if !self.chunk.as_ref().is_some_and(is_inside) {
            self.chunk = self.arrived(offset).await?;
        }
        if !self.chunk.as_ref().is_some_and(is_inside) {
            let bytes = self.chunk_bytes.min(self.segment_bytes - offset).max(PAGE);
            let mut read = self.read(offset, usize::try_from(bytes).unwrap_or(PAGE_BYTES)).await?;
            if read.is_err() && bytes > PAGE {
                // One bad sector must not hide the pages beside it.
                read = self.read(offset, PAGE_BYTES).await?;
            }
            match read {
                Ok(chunk) => self.chunk = Some((offset, chunk)),
                Err(problem) => return Ok(Err(problem)),
            }
        }
        self.read_ahead().await;
        let page = self.chunk.as_ref().and_then(|(start, chunk)| {
            let at = usize::try_from(offset - start).ok()?;
            chunk.as_slice().get(at..at + PAGE_BYTES)
        });
        Ok(page.ok_or_else(|| "the file ends early".to_owned()))
    }

    /// What was on its way with this page in it; nothing when it cannot be read as a whole.
    async fn arrived(&mut self, page: u64) -> Result<Option<(u64, AlignedBuf)>, StoreError> {
        let ahead = self.ahead.get_mut().unwrap_or_else(PoisonError::into_inner);
        let has_page = |ahead: &Ahead| ahead.offset <= page && page + PAGE <= ahead.end;
        let Some(Ahead { offset, read, .. }) = ahead.pop_front().filter(has_page) else {
            ahead.clear();
            return Ok(None);
        };
        Ok(read.await?.ok().map(|chunk| (offset, chunk)))
    }

    /// Has the disk read what comes behind the chunk, where records are small.
    async fn read_ahead(&mut self) {
        let ahead = self.ahead.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some((start, chunk)) = &self.chunk else { return };
        if chunk.len() as u64 != CHUNK_BYTES || self.chunk_bytes != CHUNK_BYTES {
            return;
        }
        while ahead.len() < CHUNKS_AHEAD {
            let offset = ahead.back().map_or(start + chunk.len() as u64, |last| last.end);
            let end = self.segment_bytes.min(offset + CHUNK_BYTES);
            let Some(bytes) = end.checked_sub(offset).and_then(|bytes| usize::try_from(bytes).ok()) else {
                return;
            };
            if bytes == 0 {
                return;
            }
            let (file, priority) = (self.file.clone(), self.priority);
            let mut read: Pin<Box<dyn Future<Output = Answer> + Send>> =
                Box::pin(async move { read_surely(&file, offset, bytes, priority).await });
            // It begins with the first poll; should it have ended with it, it would only be begun anew.
            if poll_fn(|context| Poll::Ready(read.as_mut().poll(context))).await.is_ready() {
                return;
            }
            ahead.push_back(Ahead { offset, end, read });
        }
    }

    async fn read(&self, offset: u64, bytes: usize) -> Result<Result<AlignedBuf, String>, StoreError> {
        read_surely(&self.file, offset, bytes, self.priority).await
    }
}

/// Reads what decides what the log consists of: an error that passes must not be taken for damage, after which what
/// lies there would be forgotten. So what cannot be read is tried again, and is damaged only if other parts of the
/// file can be read meanwhile.
///
/// # Errors
///
/// `Busy`; `Failed` when the disk does not seem to be there. That the bytes are damaged is an answer.
async fn read_surely<F: DiskFile>(
    file: &F,
    offset: u64,
    bytes: usize,
    priority: Priority,
) -> Result<Result<AlignedBuf, String>, StoreError> {
    let mut attempts = 0;
    loop {
        let error = match read_once(file, offset, bytes, priority).await {
            Ok(buf) => return Ok(Ok(buf)),
            Err(error) if error.kind() == StorageErrorKind::Busy => return Err(StoreError::failed(&error)),
            Err(error) => error,
        };
        attempts += 1;
        if attempts == ATTEMPTS {
            return Ok(Err(error.to_string()));
        }
        if attempts == ATTEMPTS - 1 && !is_there(file, priority).await {
            return Err(StoreError::Failed(error.to_string()));
        }
    }
}

/// Whether any of some pages of the file can be read.
async fn is_there<F: DiskFile>(file: &F, priority: Priority) -> bool {
    let bytes = file.size().await.unwrap_or_default();
    for part in 0..PROBES {
        let offset = bytes / PROBES / PAGE * PAGE * part;
        if read_once(file, offset, PAGE_BYTES, priority).await.is_ok() {
            return true;
        }
    }
    false
}

async fn read_once<F: DiskFile>(
    file: &F,
    offset: u64,
    bytes: usize,
    priority: Priority,
) -> Result<AlignedBuf, StorageError> {
    let batch = vec![Read { offset, buf: AlignedBuf::uncleared(bytes) }];
    let no_answer = || StorageError::new(StorageErrorKind::Io, "the engine gave no answer to a read");
    file.read(batch, priority).await.pop().unwrap_or_else(|| Err(no_answer()))
}

/// The header of a segment.
///
/// # Errors
///
/// `Busy`; `Failed`, also when a later version wrote it; what else is wrong with the header is an answer.
pub(super) async fn read_header<F: DiskFile>(
    file: &F,
    realm: &Realm,
    segment: SegmentId,
) -> Result<Result<SegmentHeader, RecordProblem>, StoreError> {
    let page = read_surely(file, 0, PAGE_BYTES, Priority::Client).await?;
    let header = SegmentHeader::decode(realm, page.as_ref().map_or(&[], AlignedBuf::as_slice));
    match header.and_then(|header| header.is_of(segment).map(|()| header)) {
        Err(problem) if problem.is_newer() => Err(newer(segment, &problem.to_string())),
        header => Ok(header),
    }
}

/// What a later version wrote is not touched.
pub(super) fn newer(segment: SegmentId, problem: &str) -> StoreError {
    StoreError::Failed(format!("{segment} was written by a later version: {problem}; upgrade this node"))
}
