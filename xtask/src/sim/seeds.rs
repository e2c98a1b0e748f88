//! Which seeds a campaign runs.

use std::ops::Range;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::Context;

/// Fresh seeds begin below this, so that they stay readable and exact in JSON.
const FRESH_BITS: u32 = 40;

/// A range of seeds as it is typed: `A..B`, without B.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeedRange(pub(crate) Range<u64>);

impl FromStr for SeedRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not a range of seeds: write A..B, where B is greater and not run");
        let (first, end) = text.split_once("..").ok_or_else(wrong)?;
        let parse = |number: &str| number.parse::<u64>().map_err(|_| wrong());
        let range = parse(first)?..parse(end)?;
        if range.is_empty() { Err(wrong()) } else { Ok(Self(range)) }
    }
}

/// Seeds in their order, until there are enough or time is over.
#[derive(Clone, Debug)]
pub(crate) struct Seeds {
    first: u64,
    next: u64,
    end: Option<u64>,
    deadline: Option<Instant>,
}

impl Seeds {
    /// `count` seeds from `first` on; without end if none.
    pub(crate) fn new(first: u64, count: Option<u64>) -> Self {
        Self { first, next: first, end: count.map(|count| first.saturating_add(count)), deadline: None }
    }

    /// The same, and none after `time` has passed.
    pub(crate) fn within(self, time: Duration) -> Self {
        Self { deadline: Some(Instant::now() + time), ..self }
    }

    /// How many there are, if that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        self.end.map(|end| end - self.first)
    }
}

impl Iterator for Seeds {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let enough = self.end.is_some_and(|end| self.next >= end);
        if enough || self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return None;
        }
        let seed = self.next;
        self.next = seed.checked_add(1)?;
        Some(seed)
    }
}

/// The first of seeds that nobody has run yet, most likely.
///
/// # Errors
///
/// When the system gives no random numbers.
pub(crate) fn fresh() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    got.context("the system gives no random numbers: name the seeds with --seeds A..B")?;
    Ok(u64::from_le_bytes(bytes) >> (u64::BITS - FRESH_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranges are half open; what is empty or no range is refused.
    #[test]
    fn ranges_are_parsed() {
        assert_eq!("5..8".parse(), Ok(SeedRange(5..8)));
        for wrong in ["", "5", "5..", "..5", "5..5", "8..5", "5..=8", "a..b", "-1..3"] {
            assert!(wrong.parse::<SeedRange>().is_err(), "{wrong:?}");
        }
    }

    /// Each seed comes once and in order; time that is over ends an endless row.
    #[test]
    fn seeds_end() {
        assert_eq!(Seeds::new(5, Some(3)).collect::<Vec<_>>(), [5, 6, 7]);
        assert_eq!(Seeds::new(5, Some(3)).length(), Some(3));
        assert_eq!(Seeds::new(5, None).within(Duration::ZERO).next(), None);
        assert_eq!(Seeds::new(5, None).within(Duration::from_secs(1_000)).next(), Some(5));
        assert_eq!(Seeds::new(u64::MAX - 1, None).length(), None);
        assert_eq!(Seeds::new(u64::MAX - 1, None).collect::<Vec<_>>(), [u64::MAX - 1]);
    }
}
