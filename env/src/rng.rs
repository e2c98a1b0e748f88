//! Randomness.

/// A source of random bits, good enough for identifiers that must not be guessed.
///
/// # Contract
///
/// Every host has a stream of its own; clones share it. In the simulator it comes from the seed.
pub trait Rng: Clone + Send + Sync + 'static {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);

    /// 64 random bits.
    fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// 128 random bits.
    fn u128(&self) -> u128 {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }

    /// A number from 0 to `bound - 1`; 0 when `bound` is 0. The bias is below `bound / 2^64`.
    fn below(&self, bound: u64) -> u64 {
        // The high half of a 64 × 64 bit product is below `bound`.
        #[allow(clippy::cast_possible_truncation)]
        let high = ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64;
        high
    }
}
