//! What callers hand over to the thread of a disk.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use env::Priority;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use rustix::io::{self, Errno};
use tokio::sync::oneshot;

use crate::disk::engine::Trouble;
use crate::disk::file::OsFile;
use crate::disk::transfer::Transfer;

/// Transfers that may wait or be under way at one disk.
const TRANSFERS_MAX: usize = 4096;
/// Their bytes: what a hard disk does in about a second.
const BYTES_MAX: usize = 256 << 20;

/// How each transfer of a batch ended: its place in the batch, and its result.
pub(in super::super) type Ended = Vec<(usize, Transfer, Result<(), Trouble>)>;

/// Transfers that are answered together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) file: OsFile,
    pub(super) priority: Priority,
    pub(super) transfers: Vec<Transfer>,
    pub(super) reply: oneshot::Sender<Result<Ended, Trouble>>,
    pub(super) since: Instant,
}

/// A file to be flushed.
#[derive(Debug)]
pub(super) struct Flush {
    pub(super) file: OsFile,
    /// Gone when the caller was told that the disk is stuck.
    pub(super) reply: Option<oneshot::Sender<Result<(), Trouble>>>,
    pub(super) since: Instant,
}

/// What the thread has to do.
#[derive(Debug, Default)]
pub(super) struct Todo {
    pub(super) batches: Vec<Batch>,
    pub(super) flushes: Vec<Flush>,
    /// Files that nobody has any more.
    pub(super) closed: Vec<u64>,
}

impl Todo {
    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.flushes.is_empty() && self.closed.is_empty()
    }
}

/// What callers and the thread share.
#[derive(Debug)]
struct State {
    todo: Todo,
    /// Nobody will hand over anything more.
    ends: bool,
    /// Looks again before it sleeps.
    is_awake: bool,
    transfers: usize,
    bytes: usize,
    stuck_seconds: Option<u64>,
}

/// What the thread is told with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) may_sleep: bool,
    /// Nobody will hand over anything more.
    pub(super) ends: bool,
}

/// The inbox of one disk's thread.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    bell: OwnedFd,
}

impl Inbox {
    /// # Errors
    ///
    /// The kernel's, when there is no event descriptor to be had.
    pub(super) fn new() -> Result<Self, Errno> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC)?;
        let state = State {
            todo: Todo::default(),
            ends: false,
            is_awake: true,
            transfers: 0,
            bytes: 0,
            stuck_seconds: None,
        };
        Ok(Self { state: Mutex::new(state), bell })
    }

    /// What the thread waits for while it sleeps: 8 bytes can be read when there is something to do.
    pub(super) fn bell(&self) -> &OwnedFd {
        &self.bell
    }

    /// Hands over a batch.
    ///
    /// # Errors
    ///
    /// `Busy`, `Stuck`, `Ended`: none of it is done.
    pub(super) fn push(&self, batch: Batch) -> Result<(), Trouble> {
        let bytes: usize = batch.transfers.iter().map(Transfer::bytes).sum();
        let mut state = self.lock();
        state.check()?;
        let is_idle = state.transfers == 0;
        // One batch is always taken, however large: refused for ever, it would be of no use.
        if !is_idle
            && (state.transfers + batch.transfers.len() > TRANSFERS_MAX || state.bytes + bytes > BYTES_MAX)
        {
            return Err(Trouble::Busy);
        }
        state.transfers += batch.transfers.len();
        state.bytes += bytes;
        state.todo.batches.push(batch);
        self.ring(state);
        Ok(())
    }

    /// Hands over a flush.
    ///
    /// # Errors
    ///
    /// `Stuck`, `Ended`.
    pub(super) fn push_flush(&self, flush: Flush) -> Result<(), Trouble> {
        let mut state = self.lock();
        state.check()?;
        state.todo.flushes.push(flush);
        self.ring(state);
        Ok(())
    }

    /// A file is used no more.
    pub(super) fn close_file(&self, id: u64) {
        let mut state = self.lock();
        state.todo.closed.push(id);
        self.ring(state);
    }

    /// Nothing more will come.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ends = true;
        self.ring(state);
    }

    /// Exchanges what there is to do for the empty `todo`, whose room is used again. When there was nothing the
    /// thread may sleep: from then on the bell rings.
    pub(super) fn take(&self, todo: &mut Todo) -> Taken {
        let mut state = self.lock();
        std::mem::swap(&mut state.todo, todo);
        let may_sleep = todo.is_empty();
        state.is_awake = !may_sleep;
        Taken { may_sleep, ends: state.ends }
    }

    /// Transfers have ended.
    pub(super) fn settle(&self, transfers: usize, bytes: usize) {
        let mut state = self.lock();
        state.transfers = state.transfers.saturating_sub(transfers);
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// From now on everything is refused, or with `None` nothing for this reason.
    pub(super) fn set_stuck(&self, seconds: Option<u64>) {
        self.lock().stuck_seconds = seconds;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread if it sleeps.
    fn ring(&self, mut state: MutexGuard<'_, State>) {
        let was_awake = std::mem::replace(&mut state.is_awake, true);
        drop(state);
        if !was_awake {
            self.ring_bell();
        }
    }

    /// Whoever watches the bell wakes.
    pub(super) fn ring_bell(&self) {
        // The counter cannot overflow: the thread reads it before it sleeps again.
        let _ = io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl State {
    fn check(&self) -> Result<(), Trouble> {
        match self.stuck_seconds {
            _ if self.ends => Err(Trouble::Ended),
            Some(seconds) => Err(Trouble::Stuck(seconds)),
            None => Ok(()),
        }
    }
}
