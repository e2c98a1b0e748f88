//! The thread of a disk, and its ring.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use env::Priority;
use io_uring::squeue::Entry;
use io_uring::{IoUring, Probe, opcode, types};
use rustix::io::Errno;
use slab::Slab;
use tokio::sync::oneshot;

use super::inbox::{Batch, Ended, Flush, Inbox, Todo};
use super::shares::{PLACES_MAX, Shares};
use crate::disk::engine::Trouble;
use crate::disk::file::OsFile;
use crate::disk::transfer::{Next, Transfer, Way};
use crate::fatal;

/// Flushes of different files at the same time.
const FLUSHES_MAX: usize = 16;
/// Files that are registered with the ring; others are used by their descriptor.
const FILES_MAX: u32 = 256;
/// What goes to the disk at once of a transfer that must not be in the way of a more urgent one: a client waits behind a
/// few of them. The rest of the time whole transfers go, which disks that seek need.
const PIECE_BYTES: u32 = 128 << 10;
/// The kernel takes no more at a time.
const WHOLE_BYTES: u32 = 1 << 30;
/// How often the thread looks whether the disk still answers.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Marks the ring's entries for the bell.
const BELL: u64 = u64::MAX;
/// Marks the ring's entries for flushes; the file's id is beside it.
const FLUSH: u64 = 1 << 63;
/// Where the batch begins in the mark of a transfer; its place in the batch is below.
const BATCH_SHIFT: u32 = 32;

/// A batch that is being done.
struct Work {
    file: OsFile,
    priority: Priority,
    /// Taken out when it has ended.
    transfers: Vec<Option<Transfer>>,
    ended: Ended,
    left: usize,
    bytes: usize,
    /// Gone when the caller was told that the disk is stuck.
    reply: Option<oneshot::Sender<Result<Ended, Trouble>>>,
    since: Instant,
}

/// A transfer: key of its batch, place in it.
type Place = (usize, usize);

/// Flushes of one file.
#[derive(Default)]
struct Flushing {
    under_way: Vec<Flush>,
    waiting: Vec<Flush>,
}

pub(super) struct Worker {
    ring: IoUring,
    inbox: Arc<Inbox>,
    works: Slab<Work>,
    shares: Shares<Place>,
    flushing: BTreeMap<u64, Flushing>,
    flushes: usize,
    registered: BTreeMap<u64, u32>,
    free: Vec<u32>,
    /// Where the kernel writes what it reads from the bell.
    rung: Box<[u8; 8]>,
    bell_is_watched: bool,
    looked: Instant,
    is_stuck: bool,
    patience: Duration,
}

/// How the ring names a file.
enum Target {
    /// By its place in the table of registered files.
    Slot(types::Fixed),
    /// By its descriptor.
    File(types::Fd),
}

/// How the kernel gives a transfer's place back; a batch has fewer than 2^32 transfers, and memory fewer than
/// 2^31 batches.
fn mark_of((key, index): Place) -> u64 {
    ((key as u64) << BATCH_SHIFT) | index as u64
}

fn place_of(mark: u64) -> Place {
    let part = |bits: u64| usize::try_from(bits).unwrap_or(usize::MAX);
    (part(mark >> BATCH_SHIFT), part(mark & u64::from(u32::MAX)))
}

/// A ring whose completions are worked off when the thread asks, where the kernel has that (6.1); else a
/// plain one.
fn build() -> std::io::Result<IoUring> {
    let entries = u32::try_from(PLACES_MAX + FLUSHES_MAX + 1).unwrap_or(u32::MAX);
    let best = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries);
    best.or_else(|_| IoUring::builder().build(entries))
}

impl Worker {
    /// Starts the thread, and says whether it has a ring that does what is needed.
    ///
    /// # Errors
    ///
    /// Why not, for people.
    pub(super) fn start(inbox: Arc<Inbox>, patience: Duration) -> Result<(), String> {
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let run = move || match Self::new(inbox, patience) {
            Ok(mut worker) => {
                let _ = ready.send(Ok(()));
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| worker.run())) {
                    fatal::end(&format!("the thread of a disk panicked: {}", fatal::panic_message(&*panic)));
                }
            }
            Err(why) => {
                let _ = ready.send(Err(why));
            }
        };
        let thread = std::thread::Builder::new().name("disk".to_owned()).spawn(run);
        thread.map_err(|error| format!("no thread: {error}"))?;
        is_ready.recv().unwrap_or_else(|_| Err("its thread ended".to_owned()))
    }

    fn new(inbox: Arc<Inbox>, patience: Duration) -> Result<Self, String> {
        let ring = build().map_err(|error| format!("the kernel gives no io_uring: {error}"))?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(|error| format!("io_uring: {error}"))?;
        for (code, name) in
            [(opcode::Read::CODE, "read"), (opcode::Write::CODE, "write"), (opcode::Fsync::CODE, "fsync")]
        {
            if !probe.is_supported(code) {
                return Err(format!("the kernel's io_uring has no {name}"));
            }
        }
        // Without room for it in the table of descriptors, or when it is forbidden, we go on without.
        let free = match ring.submitter().register_files_sparse(FILES_MAX) {
            Ok(()) => (0..FILES_MAX).rev().collect(),
            Err(_) => Vec::new(),
        };
        Ok(Self {
            ring,
            inbox,
            works: Slab::new(),
            shares: Shares::new(),
            flushing: BTreeMap::new(),
            flushes: 0,
            registered: BTreeMap::new(),
            free,
            rung: Box::default(),
            bell_is_watched: false,
            looked: Instant::now(),
            is_stuck: false,
            patience,
        })
    }

    fn run(&mut self) {
        let mut todo = Todo::default();
        loop {
            let taken = self.inbox.take(&mut todo);
            self.accept(&mut todo);
            let is_idle = self.works.is_empty() && self.flushing.is_empty();
            if taken.ends && is_idle {
                return self.leave();
            }
            self.submit();
            self.watch_bell();
            self.enter(taken.may_sleep, is_idle);
            self.complete();
            self.look();
        }
    }

    /// Takes back what is left with the kernel: the bell.
    fn leave(&mut self) {
        while self.bell_is_watched {
            self.inbox.ring_bell();
            self.enter(true, true);
            self.complete();
        }
    }

    /// Takes what was handed over.
    fn accept(&mut self, todo: &mut Todo) {
        for batch in todo.batches.drain(..) {
            let Batch { file, priority, transfers, reply, since } = batch;
            let bytes = transfers.iter().map(Transfer::bytes).sum();
            let left = transfers.len();
            let transfers = transfers.into_iter().map(Some).collect();
            let ended = Vec::with_capacity(left);
            let work = Work { file, priority, transfers, ended, left, bytes, reply: Some(reply), since };
            let key = self.works.insert(work);
            (0..left).for_each(|index| self.shares.push(priority, (key, index)));
            if left == 0 {
                self.end(key);
            }
        }
        for flush in todo.flushes.drain(..) {
            self.flushing.entry(flush.file.id()).or_default().waiting.push(flush);
        }
        for id in todo.closed.drain(..) {
            if let Some(slot) = self.registered.remove(&id) {
                // The slot keeps the file open until it is used again, should this fail.
                let _ = self.ring.submitter().register_files_update(slot, &[-1]);
                self.free.push(slot);
            }
        }
    }

    /// Puts into the ring what has a place at the disk.
    fn submit(&mut self) {
        let now = Instant::now();
        while let Some((key, index)) = self.shares.next(now) {
            self.submit_transfer(key, index, now);
        }
        let ready: Vec<u64> = self
            .flushing
            .iter()
            .filter(|(_, flushing)| flushing.under_way.is_empty())
            .map(|(id, _)| *id)
            .take(FLUSHES_MAX.saturating_sub(self.flushes))
            .collect();
        for id in ready {
            self.submit_flush(id);
        }
    }

    fn submit_transfer(&mut self, key: usize, index: usize, now: Instant) {
        let Some(work) = self.works.get_mut(key) else { return };
        let is_wanted = work.reply.as_ref().is_some_and(|reply| !reply.is_closed());
        let Some(transfer) = work.transfers.get_mut(index).and_then(Option::as_mut) else { return };
        let way = transfer.way();
        let (at, rest) = match transfer.rest() {
            Ok(rest) => rest,
            Err(error) => return self.ended(key, index, Err(Trouble::Errno(error))),
        };
        if !is_wanted {
            return self.ended(key, index, Err(Trouble::Ended));
        }
        let file = work.file.clone();
        let piece = if self.shares.is_beside(work.priority, now) { PIECE_BYTES } else { WHOLE_BYTES };
        let bytes = u32::try_from(rest.len()).unwrap_or(piece).min(piece);
        let start = rest.as_mut_ptr();
        let entry = match (way, self.target(&file)) {
            (Way::FromDisk, Target::Slot(slot)) => opcode::Read::new(slot, start, bytes).offset(at).build(),
            (Way::FromDisk, Target::File(fd)) => opcode::Read::new(fd, start, bytes).offset(at).build(),
            (Way::ToDisk, Target::Slot(slot)) => opcode::Write::new(slot, start, bytes).offset(at).build(),
            (Way::ToDisk, Target::File(fd)) => opcode::Write::new(fd, start, bytes).offset(at).build(),
        };
        self.push(entry.user_data(mark_of((key, index))));
    }

    fn submit_flush(&mut self, id: u64) {
        let Some(flushing) = self.flushing.get_mut(&id) else { return };
        flushing.under_way = std::mem::take(&mut flushing.waiting);
        let Some(file) = flushing.under_way.first().map(|flush| flush.file.clone()) else { return };
        let flags = types::FsyncFlags::DATASYNC;
        let entry = match self.target(&file) {
            Target::Slot(slot) => opcode::Fsync::new(slot).flags(flags).build(),
            Target::File(fd) => opcode::Fsync::new(fd).flags(flags).build(),
        };
        self.flushes += 1;
        self.push(entry.user_data(FLUSH | id));
    }

    /// How the ring names a file.
    fn target(&mut self, file: &OsFile) -> Target {
        let fd = file.as_raw_fd();
        if let Some(slot) = self.registered.get(&file.id()) {
            return Target::Slot(types::Fixed(*slot));
        }
        let Some(slot) = self.free.pop() else { return Target::File(types::Fd(fd)) };
        match self.ring.submitter().register_files_update(slot, &[fd]) {
            Ok(_) => {
                self.registered.insert(file.id(), slot);
                Target::Slot(types::Fixed(slot))
            }
            Err(_) => {
                self.free.push(slot);
                Target::File(types::Fd(fd))
            }
        }
    }

    fn watch_bell(&mut self) {
        if !self.bell_is_watched {
            self.bell_is_watched = true;
            let bell: RawFd = self.inbox.bell().as_raw_fd();
            let entry = opcode::Read::new(types::Fd(bell), self.rung.as_mut_ptr(), 8).build();
            self.push(entry.user_data(BELL));
        }
    }

    #[allow(unsafe_code)]
    fn push(&mut self, entry: Entry) {
        loop {
            // SAFETY: the buffer that an entry names, if any, has to stay where it is, untouched, until
            // the entry's completion. That of a transfer is on the heap and belongs to its `Transfer` in
            // `works`, which nobody touches before `called`; that of the bell is `rung`, also on the heap.
            // Both outlive their entries: `run` returns when none is left with the kernel, and a
            // panic in it ends the process.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            if pushed.is_ok() {
                return;
            }
            // Full: the kernel takes what is there.
            let _ = self.ring.submit();
        }
    }

    /// Submits, and waits when there is nothing else to do: for ever when idle, else until it is time to
    /// look at the disk.
    fn enter(&mut self, may_sleep: bool, is_idle: bool) {
        let result = match (may_sleep, is_idle) {
            (false, _) => self.ring.submit(),
            (true, true) => self.ring.submit_and_wait(1),
            (true, false) => {
                let until = types::Timespec::from(LOOK_EVERY);
                let args = types::SubmitArgs::new().timespec(&until);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        if let Err(error) = result {
            let passes = matches!(
                Errno::from_io_error(&error),
                Some(Errno::TIME | Errno::INTR | Errno::AGAIN | Errno::BUSY)
            );
            if !passes {
                fatal::end(&format!("io_uring does not work any more: {error}"));
            }
        }
    }

    /// Looks at what the kernel has done.
    fn complete(&mut self) {
        loop {
            let Some(entry) = self.ring.completion().next() else { return };
            let result = match entry.result() {
                bytes @ 0.. => Ok(bytes.unsigned_abs() as usize),
                error => Err(Errno::from_raw_os_error(error.saturating_neg())),
            };
            match entry.user_data() {
                BELL => self.bell_is_watched = false,
                mark if mark & FLUSH != 0 => self.flushed(mark & !FLUSH, result.map(drop)),
                mark => {
                    let (key, index) = place_of(mark);
                    self.called(key, index, result);
                }
            }
        }
    }

    /// A call for a transfer has ended.
    fn called(&mut self, key: usize, index: usize, result: Result<usize, Errno>) {
        let Some(work) = self.works.get_mut(key) else { return };
        let priority = work.priority;
        let Some(transfer) = work.transfers.get_mut(index).and_then(Option::as_mut) else { return };
        match transfer.called(result) {
            Next::Call => self.shares.piece_left(priority, (key, index), Instant::now()),
            Next::End(result) => self.ended(key, index, result.map_err(Trouble::Errno)),
        }
    }

    /// A transfer has ended, and gives up its place at the disk.
    fn ended(&mut self, key: usize, index: usize, result: Result<(), Trouble>) {
        let Some(work) = self.works.get_mut(key) else { return };
        let Some(transfer) = work.transfers.get_mut(index).and_then(Option::take) else { return };
        self.shares.left(work.priority, Instant::now());
        work.ended.push((index, transfer, result));
        work.left -= 1;
        if work.left == 0 {
            self.end(key);
        }
    }

    fn end(&mut self, key: usize) {
        let Work { file, transfers, ended, bytes, reply, .. } = self.works.remove(key);
        self.inbox.settle(transfers.len(), bytes);
        // Whoever is told may close the disk, and open it again at once.
        drop(file);
        if let Some(reply) = reply {
            let _ = reply.send(Ok(ended));
        }
    }

    /// Now and then: does the disk still answer? Whoever waits too long is told that it does not.
    fn look(&mut self) {
        let now = Instant::now();
        // A stuck disk is looked at each time: its last answer is what ends that.
        if !self.is_stuck && now.duration_since(self.looked) < LOOK_EVERY {
            return;
        }
        self.looked = now;
        let patience = self.patience;
        let flushes = |flushing: &Flushing| {
            flushing.under_way.iter().chain(&flushing.waiting).map(|flush| flush.since).min()
        };
        let works = self.works.iter().map(|(_, work)| work.since);
        let oldest = works.chain(self.flushing.values().filter_map(flushes)).min();
        let longest = oldest.map_or(Duration::ZERO, |since| now.duration_since(since));
        self.is_stuck = longest >= patience;
        // Before anybody is told: whoever comes because of that is refused already.
        self.inbox.set_stuck(self.is_stuck.then_some(longest.as_secs()));
        if !self.is_stuck {
            return;
        }
        let stuck = |since| {
            let waits = now.duration_since(since);
            (waits >= patience).then_some(Trouble::Stuck(waits.as_secs()))
        };
        for (_, work) in &mut self.works {
            if let Some(trouble) = stuck(work.since)
                && let Some(reply) = work.reply.take()
            {
                let _ = reply.send(Err(trouble));
            }
        }
        let flushes = self.flushing.values_mut();
        for flush in flushes.flat_map(|flushing| flushing.under_way.iter_mut().chain(&mut flushing.waiting)) {
            if let Some(trouble) = stuck(flush.since)
                && let Some(reply) = flush.reply.take()
            {
                let _ = reply.send(Err(trouble));
            }
        }
    }

    fn flushed(&mut self, id: u64, result: Result<(), Errno>) {
        self.flushes = self.flushes.saturating_sub(1);
        let Some(flushing) = self.flushing.get_mut(&id) else { return };
        let ended = std::mem::take(&mut flushing.under_way);
        let is_over = flushing.waiting.is_empty();
        if result == Err(Errno::INTR) {
            flushing.waiting.splice(0..0, ended);
            return;
        }
        for Flush { file, reply, .. } in ended {
            if let Err(error) = result {
                file.note_failed_flush(error);
            }
            drop(file);
            if let Some(reply) = reply {
                let _ = reply.send(result.map_err(Trouble::Errno));
            }
        }
        if is_over {
            self.flushing.remove(&id);
        }
    }
}
