//! Random streams, all from one seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// SplitMix64's increment.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finalizer (Steele, Lea, Flood 2014): every bit of `word` changes about half of all bits.
pub fn mix(word: u64) -> u64 {
    let mut mixed = word;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A stream of random numbers (SplitMix64). Clones share it.
///
/// Streams are forked by name, so that what one part of a simulation draws does not change what
/// another part sees.
#[derive(Clone, Debug)]
pub struct Stream(Arc<AtomicU64>);

impl Stream {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(mix(seed))))
    }

    /// A stream of its own. It depends on this stream's seed and position, and on the name.
    #[must_use]
    pub fn fork(&self, name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self::new(self.0.load(Ordering::Relaxed) ^ mix(hash))
    }

    /// 64 random bits.
    pub fn u64(&self) -> u64 {
        mix(self.0.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA))
    }

    /// From 0 to `bound - 1`; 0 when `bound` is 0.
    pub fn below(&self, bound: u64) -> u64 {
        // The high half of a 64 × 64 bit product is below `bound`.
        #[allow(clippy::cast_possible_truncation)]
        let high = ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64;
        high
    }

    /// From `low` to `high`, both inclusive.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// An index below `len`.
    pub fn index(&self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// True `ppm` times in a million.
    pub fn chance(&self, ppm: u32) -> bool {
        self.below(1_000_000) < u64::from(ppm)
    }

    /// One of `items`; none when there are none.
    pub fn pick<'a, T>(&self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.index(items.len()))
    }

    /// A random order.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }

    /// A length that is often short and sometimes long: its magnitude is uniform between those of
    /// `low` and `high`.
    pub fn skewed(&self, low: u64, high: u64) -> u64 {
        let magnitude = |number: u64| u64::from(64 - number.leading_zeros());
        let bits = self.between(magnitude(low), magnitude(high));
        let top = if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
        self.between(low, high.min(top.max(low)))
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

impl env::Rng for Stream {
    fn fill(&self, bytes: &mut [u8]) {
        Self::fill(self, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contract of randomness holds.
    #[test]
    fn conformance() {
        env::conformance::rng(&Stream::new(1));
    }

    /// Forks differ from one another and from their origin, and repeat.
    #[test]
    fn forks() {
        let origin = Stream::new(7);
        let (a, b, again) = (origin.fork("a"), origin.fork("b"), origin.fork("a"));
        let first = a.u64();
        assert_eq!(first, again.u64());
        assert!(first != b.u64() && first != origin.u64());
    }

    /// Skewed lengths keep within their bounds and reach both magnitudes.
    #[test]
    fn skewed_lengths() {
        let stream = Stream::new(3);
        let drawn: Vec<u64> = (0..1000).map(|_| stream.skewed(10, 100_000)).collect();
        assert!(drawn.iter().all(|length| (10..=100_000).contains(length)));
        assert!(drawn.iter().any(|length| *length < 20) && drawn.iter().any(|length| *length > 50_000));
    }
}
