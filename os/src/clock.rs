//! Time, from the kernel.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use env::{Clock, Monotonic};
use proto::Timestamp;

/// The arbitrary start of the monotonic clock: the first time that this process asked for it. One for
/// all clocks, so that points from any two of them compare.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The machine's clocks. Sleeps need a tokio runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsClock;

impl OsClock {
    /// The machine's clocks.
    pub fn new() -> Self {
        LazyLock::force(&START);
        Self
    }
}

impl Clock for OsClock {
    fn now(&self) -> Monotonic {
        Monotonic::new(START.elapsed())
    }

    fn wall(&self) -> Timestamp {
        // A clock set before 1970 is as wrong as one that stands at 1970.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    async fn sleep(&self, duration: Duration) {
        if duration.is_zero() {
            // A timer of zero may be ready at once and would let nobody else run.
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(duration).await;
        }
    }
}
