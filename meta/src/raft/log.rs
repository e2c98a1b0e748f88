//! The log: entries, vote and commit mark in the store `raft`.
//!
//! Promises: an entry can be read as soon as `append` returns, and its callback comes when it is
//! durable; a vote is durable when `save_vote` returns; all of it reaches the disk in the order of
//! the calls. Any error ends openraft, and with it the server: a log that lost a write must not
//! answer for it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use env::{Batch, KeyRange, Kv, KvRead, Order, Spawn};
use futures_util::Stream;
use futures_util::stream;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use proto::prost::Message;

use super::encoding;
use super::flusher::Flusher;
use super::handle::{Handle, corrupt, io_error};
use super::root::{LOG, META, Root};
use super::types::{Entry, LogId, TypeConfig, Vote};

const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";

/// Entries read from the store at a time.
const PAGE_ENTRIES: usize = 64;
/// Bytes of entries sent to a follower at a time, unless one entry alone is larger.
const SEND_BYTES_MAX: usize = 1024 * 1024;
const _: () = assert!(SEND_BYTES_MAX * 2 <= proto::limits::HEADER_BYTES_MAX);

/// The log. Clones are the same log.
#[derive(Clone, Debug)]
pub struct LogStore<K> {
    kv: Handle<K>,
    flusher: Flusher,
    ends: Arc<Mutex<Ends>>,
}

/// Where the log begins and ends.
#[derive(Clone, Debug, Default)]
struct Ends {
    purged: Option<LogId>,
    last: Option<LogId>,
}

impl<K: Kv> LogStore<K> {
    /// Finds the ends of the log, and starts the task that flushes it.
    pub(crate) fn open(spawn: &impl Spawn, root: &Root<K>) -> io::Result<Self> {
        let kv = root.kv().clone();
        let purged = read_log_id(&*kv, PURGED)?;
        let last = kv.scan(LOG, &KeyRange::all(), Order::Descending, 1).map_err(io_error)?.pop();
        let last = last.map(|(_, value)| parse(value)).transpose()?.map(|entry| entry.log_id);
        let ends = Ends { last: last.or(purged), purged };
        let flusher = Flusher::start(spawn, kv.clone());
        Ok(Self { kv, flusher, ends: Arc::new(Mutex::new(ends)) })
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        self.kv.write(batch).map_err(io_error)
    }

    /// Up to [`PAGE_ENTRIES`] entries from `start` on, with their sizes.
    fn page(&self, start: u64, end: u64) -> io::Result<Vec<(Entry, usize)>> {
        let range = KeyRange { start: key(start).to_vec(), end: Some(key(end).to_vec()) };
        let rows = self.kv.scan(LOG, &range, Order::Ascending, PAGE_ENTRIES).map_err(io_error)?;
        let mut entries = Vec::with_capacity(rows.len());
        for (index, (row, value)) in (start..).zip(rows) {
            let size = value.len();
            let entry = parse(value)?;
            // The first may be missing, when it was purged; a hole may not.
            let expected = entries.last().map_or(entry.log_id.index, |(before, _): &(Entry, usize)| {
                before.log_id.index.saturating_add(1)
            });
            if row[..] != key(entry.log_id.index) || entry.log_id.index != expected {
                return Err(corrupt(proto::InvalidInput::new(format!(
                    "the log has {} where entry {index} belongs",
                    entry.log_id
                ))));
            }
            entries.push((entry, size));
        }
        Ok(entries)
    }

    fn range(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut next = start;
        while next < end {
            let page = self.page(next, end)?;
            let Some((last, _)) = page.last() else { break };
            next = last.log_id.index.saturating_add(1);
            entries.extend(page.into_iter().map(|(entry, _)| entry));
        }
        Ok(entries)
    }

    /// The bounds of `range` as `start..end`, within the log.
    fn clip(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let ends = self.ends();
        let first = ends.purged.as_ref().map_or(0, |purged| purged.index.saturating_add(1));
        let beyond = ends.last.as_ref().map_or(0, |last| last.index.saturating_add(1));
        (start.max(first), end.min(beyond))
    }
}

fn key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

fn parse(value: bytes::Bytes) -> io::Result<Entry> {
    encoding::message("an entry of the log", value).and_then(encoding::parse_entry).map_err(corrupt)
}

fn read_log_id<K: KvRead>(kv: &K, name: &'static [u8]) -> io::Result<Option<LogId>> {
    let Some(stored) = kv.get(META, name).map_err(io_error)? else { return Ok(None) };
    let wire = encoding::message("a log id", stored).map_err(corrupt)?;
    Ok(Some(encoding::parse_log_id(&wire)))
}

impl<K: Kv> RaftLogReader<TypeConfig> for LogStore<K> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = self.clip(&range);
        self.range(start, end)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // Page by page: what a server that was away has to apply need not fit into memory.
        let (start, end) = self.clip(&range);
        let log = self.clone();
        let pages = stream::unfold(Some(start), move |next| {
            let page = next.filter(|next| *next < end).map(|next| log.page(next, end));
            async move {
                match page? {
                    Ok(page) => {
                        let next = page.last()?.0.log_id.index.checked_add(1);
                        let entries = page.into_iter().map(|(entry, _)| Ok(entry)).collect::<Vec<_>>();
                        Some((stream::iter(entries), next))
                    }
                    Err(error) => Some((stream::iter(vec![Err(error)]), None)),
                }
            }
        });
        Box::pin(futures_util::StreamExt::flatten(pages))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let Some(stored) = self.kv.get(META, VOTE).map_err(io_error)? else { return Ok(None) };
        let wire = encoding::message("the vote", stored).map_err(corrupt)?;
        Ok(Some(encoding::parse_vote(&wire)))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let (start, end) = self.clip(&(start..end));
        let mut bytes = 0;
        let page = self.page(start, end)?;
        let fitting = page.into_iter().enumerate().take_while(|(place, (_, size))| {
            bytes += size;
            *place == 0 || bytes <= SEND_BYTES_MAX
        });
        Ok(fitting.map(|(_, (entry, _))| entry).collect())
    }
}

impl<K: Kv> RaftLogStorage<TypeConfig> for LogStore<K> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let ends = self.ends().clone();
        Ok(LogState { last_purged_log_id: ends.purged, last_log_id: ends.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let room = self.flusher.room(0).await?;
        let mut batch = Batch::new();
        batch.put(META, VOTE, encoding::bytes(&encoding::vote(vote)));
        self.write(batch)?;
        self.flusher.wait(room).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut batch = Batch::new();
        match committed {
            Some(id) => batch.put(META, COMMITTED, encoding::bytes(&encoding::log_id(&id))),
            None => batch.delete(META, COMMITTED),
        }
        // Not flushed: an older mark costs a replay, no more.
        self.write(batch)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        read_log_id(&*self.kv, COMMITTED)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = Batch::new();
        let mut last = None;
        let mut bytes = 0;
        for entry in entries {
            let value = encoding::entry(&entry).encode_to_vec();
            bytes += value.len();
            batch.put(LOG, key(entry.log_id.index).to_vec(), value);
            last = Some(entry.log_id);
        }
        let room = self.flusher.room(bytes).await?;
        self.write(batch)?;
        if last.is_some() {
            self.ends().last = last;
        }
        self.flusher.notify(callback, room).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let first_gone = last_log_id.as_ref().map_or(0, |last| last.index.saturating_add(1));
        let mut batch = Batch::new();
        batch.delete_range(LOG, KeyRange { start: key(first_gone).to_vec(), end: None });
        self.write(batch)?;
        let mut ends = self.ends();
        if ends.last > last_log_id {
            ends.last = last_log_id.max(ends.purged);
        }
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let mut batch = Batch::new();
        batch.put(META, PURGED, encoding::bytes(&encoding::log_id(&log_id)));
        let end = log_id.index.checked_add(1).map(|next| key(next).to_vec());
        batch.delete_range(LOG, KeyRange { start: Vec::new(), end });
        self.write(batch)?;
        let mut ends = self.ends();
        if ends.last.as_ref().is_none_or(|last| last.index <= log_id.index) {
            ends.last = Some(log_id);
        }
        ends.purged = Some(log_id);
        Ok(())
    }
}
