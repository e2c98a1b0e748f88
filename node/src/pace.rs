//! How fast shards are made again: no faster than allowed, and told to people.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use env::{Clock, Monotonic};
use proto::DiskId;

/// Longest sleep before the rate is looked at again: it may have been raised.
const LOOK: Duration = Duration::from_secs(1);
/// The rate told to people is that of so many seconds.
const WINDOW_S: u64 = 60;

/// Lets so many bytes per second through. Whoever comes when nothing is owed goes at once, and owes what it takes: so a
/// rate is kept by amounts of any size.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    /// 0 for no limit.
    bytes_per_s: AtomicU64,
    owed: Mutex<Owed>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Owed {
    bytes: u64,
    since: Monotonic,
}

impl Owed {
    /// What time has paid.
    fn pay(&mut self, bytes_per_s: u64, now: Monotonic) {
        let paid = u128::from(bytes_per_s).saturating_mul(now.since(self.since).as_nanos()) / 1_000_000_000;
        if paid > 0 || self.bytes == 0 {
            self.bytes = self.bytes.saturating_sub(u64::try_from(paid).unwrap_or(u64::MAX));
            self.since = now;
        }
    }

    fn left(&self, bytes_per_s: u64) -> Duration {
        let nanos =
            u128::from(self.bytes).saturating_mul(1_000_000_000).div_ceil(u128::from(bytes_per_s.max(1)));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Pacer {
    /// From now on; 0 for no limit.
    pub(crate) fn set(&self, bytes_per_s: u64) {
        self.bytes_per_s.store(bytes_per_s, Ordering::Relaxed);
    }

    /// Waits for its turn to go on with `bytes` bytes. Dropping it takes nothing.
    pub(crate) async fn wait(&self, clock: &impl Clock, bytes: u64) {
        while let Some(pause) = self.try_spend(clock.now(), bytes) {
            clock.sleep(pause.min(LOOK)).await;
        }
    }

    /// Goes on, or says how long that takes at the present rate.
    fn try_spend(&self, now: Monotonic, bytes: u64) -> Option<Duration> {
        let rate = self.bytes_per_s.load(Ordering::Relaxed);
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        if rate == 0 {
            *owed = Owed { bytes: 0, since: now };
            return None;
        }
        owed.pay(rate, now);
        if owed.bytes > 0 {
            return Some(owed.left(rate));
        }
        *owed = Owed { bytes, since: now };
        None
    }
}

/// Bytes that were made on each disk, by second.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<BTreeMap<DiskId, VecDeque<(u64, u64)>>>);

impl Meter {
    /// So many bytes are durable, and were read back.
    pub(crate) fn note(&self, disk: DiskId, bytes: u64, now: Monotonic) {
        let second = now.since_start().as_secs();
        let mut disks = self.disks();
        let seconds = disks.entry(disk).or_default();
        forget(seconds, second);
        match seconds.back_mut() {
            Some((last, sum)) if *last == second => *sum = sum.saturating_add(bytes),
            _ => seconds.push_back((second, bytes)),
        }
    }

    /// Bytes per second of the last minute, or since something was made first within it.
    pub(crate) fn bytes_per_s(&self, disk: DiskId, now: Monotonic) -> u64 {
        let second = now.since_start().as_secs();
        let mut disks = self.disks();
        let Some(seconds) = disks.get_mut(&disk) else { return 0 };
        forget(seconds, second);
        let bytes = seconds.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let since = seconds.front().map_or(second, |(first, _)| *first);
        bytes / second.saturating_sub(since).saturating_add(1)
    }

    fn disks(&self) -> MutexGuard<'_, BTreeMap<DiskId, VecDeque<(u64, u64)>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget(seconds: &mut VecDeque<(u64, u64)>, now: u64) {
    while seconds.front().is_some_and(|(second, _)| second.saturating_add(WINDOW_S) <= now) {
        seconds.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::new(Duration::from_millis(millis))
    }

    /// Over any time no more goes through than the rate allows and one amount; a new rate counts at once, and none
    /// is no limit.
    #[test]
    fn rates_are_kept() {
        let pacer = Pacer::default();
        assert_eq!(pacer.try_spend(at(0), u64::MAX), None);
        pacer.set(1000);
        let mut through = 0;
        for millis in 0..10_000 {
            while pacer.try_spend(at(millis), 300).is_none() {
                through += 300;
            }
        }
        assert!((9_600..=10_300).contains(&through), "{through}");
        assert_eq!(pacer.try_spend(at(20_000), 5_000), None);
        assert_eq!(pacer.try_spend(at(21_000), 1), Some(Duration::from_secs(4)));
        pacer.set(4_000);
        assert_eq!(pacer.try_spend(at(21_500), 1), Some(Duration::from_millis(500)));
        assert_eq!(pacer.try_spend(at(22_000), 1), None);
        pacer.set(0);
        assert_eq!((0..100).find_map(|_| pacer.try_spend(at(22_000), u64::MAX)), None);
    }

    /// What time pays in parts is not lost, however slow the rate and often the look.
    #[test]
    fn slow_rates_get_on() {
        let pacer = Pacer::default();
        pacer.set(3);
        assert_eq!(pacer.try_spend(at(0), 3), None);
        let first = (0..2_000).find(|millis| pacer.try_spend(at(*millis), 1).is_none());
        assert_eq!(first, Some(1_002));
    }

    /// The rate is that of the last minute; what is idle for a minute has none.
    #[test]
    fn the_last_minute_counts() {
        let (meter, disk) = (Meter::default(), DiskId(1));
        assert_eq!(meter.bytes_per_s(disk, at(0)), 0);
        for second in 100..=109 {
            meter.note(disk, 500, at(second * 1000));
            meter.note(disk, 500, at(second * 1000 + 999));
        }
        meter.note(DiskId(2), 1 << 40, at(109_000));
        assert_eq!(meter.bytes_per_s(disk, at(109_999)), 1000);
        assert_eq!(meter.bytes_per_s(disk, at(119_999)), 500);
        assert_eq!(meter.bytes_per_s(disk, at(169_000)), 0);
    }
}
