//! The host that openraft's own suites start for themselves: threads and timers of tokio. Servers
//! never run on it.

use std::time::Duration;

use env::Monotonic;
use futures_util::future::BoxFuture;
use openraft::{AsyncRuntime, Instant};
use openraft_rt_tokio::{TokioInstant, TokioRuntime};

use super::runtime::Host;

/// The tokio runtime of whoever asks. Its clock starts when it is made.
pub(crate) struct Standalone {
    start: TokioInstant,
}

impl Standalone {
    pub(crate) fn new() -> Self {
        Self { start: TokioInstant::now() }
    }
}

impl Host for Standalone {
    fn spawn(&self, work: BoxFuture<'static, ()>) {
        drop(TokioRuntime::spawn(work));
    }

    fn now(&self) -> Monotonic {
        Monotonic::new(self.start.elapsed())
    }

    fn sleep_until(&self, deadline: Monotonic) -> BoxFuture<'static, ()> {
        let left = deadline.since(self.now());
        // A timer of zero may be ready at once and would let nobody else run.
        Box::pin(TokioRuntime::sleep(left.max(Duration::from_millis(1))))
    }
}
