//! Group commit: one task makes writes durable, as many as have gathered, with one flush.

use std::io;
use std::sync::Arc;

use env::{Kv, Spawn};
use openraft::storage::IOFlushed;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::handle::{Handle, io_error};
use super::types::TypeConfig;

/// Writes that may wait for a flush.
const QUEUE_MAX: usize = 4096;
/// Bytes that may wait for a flush, in units of 1 KiB.
const QUEUE_KIB_MAX: u32 = 64 * 1024;

/// Makes writes durable. Clones feed the same task; it ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Flusher {
    queue: mpsc::Sender<Written>,
    room: Arc<Semaphore>,
}

/// Something that was written and waits for its flush.
struct Written {
    whom: Waiter,
    _room: OwnedSemaphorePermit,
}

enum Waiter {
    Raft(IOFlushed<TypeConfig>),
    Caller(oneshot::Sender<io::Result<()>>),
}

impl Waiter {
    fn tell(self, result: io::Result<()>) {
        match self {
            Self::Raft(callback) => callback.io_completed(result),
            // A caller that is gone does not want to know.
            Self::Caller(sender) => drop(sender.send(result)),
        }
    }
}

impl Flusher {
    /// Starts the task.
    pub(crate) fn start<K: Kv>(spawn: &impl Spawn, kv: Handle<K>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        spawn.spawn("raft-flush", run(kv, waiting));
        Self { queue, room: Arc::new(Semaphore::new(QUEUE_KIB_MAX as usize)) }
    }

    /// Room for a write of so many bytes; waits while too much is unflushed.
    pub(crate) async fn room(&self, bytes: usize) -> io::Result<Room> {
        let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).clamp(1, QUEUE_KIB_MAX);
        self.room.clone().acquire_many_owned(kib).await.map(Room).map_err(|_| stopped())
    }

    /// Calls back when all that was written before this is durable, or cannot be.
    pub(crate) async fn notify(&self, callback: IOFlushed<TypeConfig>, room: Room) -> io::Result<()> {
        self.submit(Waiter::Raft(callback), room).await
    }

    /// Returns when all that was written before this is durable.
    pub(crate) async fn wait(&self, room: Room) -> io::Result<()> {
        let (sender, done) = oneshot::channel();
        self.submit(Waiter::Caller(sender), room).await?;
        done.await.map_err(|_| stopped())?
    }

    async fn submit(&self, whom: Waiter, room: Room) -> io::Result<()> {
        let written = Written { whom, _room: room.0 };
        match self.queue.send(written).await {
            Ok(()) => Ok(()),
            Err(refused) => {
                refused.0.whom.tell(Err(stopped()));
                Err(stopped())
            }
        }
    }
}

/// A place in the queue, in bytes.
pub(crate) struct Room(OwnedSemaphorePermit);

fn stopped() -> io::Error {
    io::Error::other("the log's writer has stopped after an error")
}

async fn run<K: Kv>(kv: Handle<K>, mut waiting: mpsc::Receiver<Written>) {
    let mut group = Vec::new();
    while waiting.recv_many(&mut group, QUEUE_MAX).await > 0 {
        let result = kv.flush().await.map_err(io_error);
        let failure = result.err();
        for written in group.drain(..) {
            written.whom.tell(match &failure {
                None => Ok(()),
                Some(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
        if failure.is_some() {
            // Nothing since the last flush may be relied on: whoever asks next is refused.
            return;
        }
    }
}
