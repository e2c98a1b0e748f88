//! Time.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use proto::Timestamp;

/// A point on this host's monotonic clock: time since an arbitrary start that differs from host to
/// host and from process to process. Never sent to a peer and never stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// A point `since_start` after the arbitrary start.
    pub const fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// Time since the arbitrary start.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// Time from `earlier` to this point; zero if it lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This point and `duration`, saturating.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// A bound of time was over before the work was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time was over")
    }
}

impl std::error::Error for Elapsed {}

/// Time on one host.
///
/// # Contract
///
/// - [`now`](Clock::now) never falls, on all clones alike, and moves on while tasks sleep.
/// - [`wall`](Clock::wall) is what the host believes; it may jump either way.
/// - [`sleep`](Clock::sleep) ends no earlier than asked for, and lets other tasks run even when
///   `duration` is zero. Dropping it cancels it.
pub trait Clock: Clone + Send + Sync + 'static {
    /// The monotonic clock.
    fn now(&self) -> Monotonic;

    /// The wall clock.
    fn wall(&self) -> Timestamp;

    /// Waits.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;

    /// Waits until `deadline`; not at all if it has passed.
    fn sleep_until(&self, deadline: Monotonic) -> impl Future<Output = ()> + Send {
        async move {
            let now = self.now();
            if deadline > now {
                self.sleep(deadline.since(now)).await;
            }
        }
    }

    /// Runs `work` for at most `duration`, then drops it.
    ///
    /// # Errors
    ///
    /// [`Elapsed`] when it was dropped. Work that is ready at the deadline wins.
    fn timeout<F>(
        &self,
        duration: Duration,
        work: F,
    ) -> impl Future<Output = Result<F::Output, Elapsed>> + Send
    where
        F: Future + Send,
        F::Output: Send,
    {
        async move {
            let mut work = pin!(work);
            tokio::select! {
                biased;
                output = &mut work => Ok(output),
                () = self.sleep(duration) => Err(Elapsed),
            }
        }
    }
}
