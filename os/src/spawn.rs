//! Tasks, on tokio.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;

use env::{Spawn, Task};
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::fatal;

/// Tasks of the tokio runtime of whoever spawns them.
///
/// A task that panics ends the process: it may have left half a change behind in memory, and only a
/// restart from what is durable is sure to be rid of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsSpawn;

impl OsSpawn {
    /// Tasks of the tokio runtime of whoever spawns them.
    pub fn new() -> Self {
        Self
    }
}

impl Spawn for OsSpawn {
    type Task = OsTask;

    /// # Panics
    ///
    /// Outside of a tokio runtime.
    fn spawn<F>(&self, name: &'static str, work: F) -> OsTask
    where
        F: Future<Output = ()> + Send + 'static,
    {
        OsTask(tokio::spawn(guarded(name, work).instrument(tracing::info_span!("task", name))))
    }
}

/// Runs `work`, and ends the process if it panics.
async fn guarded<F: Future<Output = ()>>(name: &'static str, work: F) {
    let mut work = pin!(work);
    poll_fn(|context| {
        // Nothing looks at `work` after a panic: the process is over.
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        polled.unwrap_or_else(|panic| end(name, panic.as_ref()))
    })
    .await;
}

fn end(name: &'static str, panic: &(dyn Any + Send)) -> ! {
    fatal::end(&format!("task {name} panicked: {}", fatal::panic_message(panic)))
}

/// A running task.
#[derive(Debug)]
pub struct OsTask(JoinHandle<()>);

impl Task for OsTask {
    fn abort(&self) {
        self.0.abort();
    }

    async fn join(self) {
        // An error says that it was aborted: it has ended, which is all that was asked.
        let _ = self.0.await;
    }
}
