//! How long shards take lately, and so how long to wait before asking others.

use std::time::Duration;

/// Reads that are remembered.
const RECENT: usize = 64;
/// Wait while nothing is known.
const HEDGE_UNKNOWN: Duration = Duration::from_millis(250);
/// Shortest wait.
const HEDGE_MIN: Duration = Duration::from_millis(50);
/// Longest wait.
const HEDGE_MAX: Duration = Duration::from_secs(1);
/// The wait, in medians.
const HEDGE_MEDIANS: u32 = 3;

/// The latest read times.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    recent: Vec<Duration>,
    next: usize,
}

impl Latencies {
    /// A shard took so long.
    pub(crate) fn add(&mut self, took: Duration) {
        if self.recent.len() < RECENT {
            self.recent.push(took);
        } else {
            self.recent[self.next] = took;
        }
        self.next = (self.next + 1) % RECENT;
    }

    /// How long to wait for a shard before others are asked too: three times the median.
    pub(crate) fn hedge_delay(&self) -> Duration {
        if self.recent.is_empty() {
            return HEDGE_UNKNOWN;
        }
        let mut sorted = [Duration::ZERO; RECENT];
        let sorted = &mut sorted[..self.recent.len()];
        sorted.copy_from_slice(&self.recent);
        let middle = sorted.len() / 2;
        let (_, median, _) = sorted.select_nth_unstable(middle);
        median.saturating_mul(HEDGE_MEDIANS).clamp(HEDGE_MIN, HEDGE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wait follows what is usual, within its bounds, and forgets what is long past.
    #[test]
    fn the_wait_follows_the_median() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.hedge_delay(), HEDGE_UNKNOWN);
        latencies.add(Duration::from_millis(1));
        assert_eq!(latencies.hedge_delay(), HEDGE_MIN);
        for _ in 0..RECENT {
            latencies.add(Duration::from_millis(40));
        }
        latencies.add(Duration::from_secs(30));
        assert_eq!(latencies.hedge_delay(), Duration::from_millis(120));
        for _ in 0..RECENT {
            latencies.add(Duration::from_secs(30));
        }
        assert_eq!(latencies.hedge_delay(), HEDGE_MAX);
    }
}
