//! Randomness's suite.

use std::collections::BTreeSet;

use crate::rng::Rng;

/// Checks [`Rng`].
///
/// # Panics
///
/// When a clause does not hold, or once in 2^64 runs.
pub fn rng<R: Rng>(rng: &R) {
    fills_every_byte(rng);
    let other = rng.clone();
    let drawn: BTreeSet<u128> = (0..1000).flat_map(|_| [rng.u128(), other.u128()]).collect();
    assert_eq!(drawn.len(), 2000, "the stream repeats itself, or clones do not share it");
    let ones: u32 = (0..1000).map(|_| rng.u64().count_ones()).sum();
    assert!((31_000..33_000).contains(&ones), "of 64000 bits {ones} are set");
    assert_eq!((rng.below(0), rng.below(1)), (0, 0));
    let seen: BTreeSet<u64> = (0..1000).map(|_| rng.below(7)).collect();
    assert_eq!(seen, (0..7).collect(), "below(7) is not all of 0 to 6");
}

/// Every byte of a buffer, of any length and however large, changes sooner or later.
fn fills_every_byte<R: Rng>(rng: &R) {
    for len in [0, 1, 7, 8, 255, 257, 70_000] {
        let mut seen = vec![0_u8; len];
        let mut bytes = vec![0_u8; len];
        for _ in 0..16 {
            rng.fill(&mut bytes);
            seen.iter_mut().zip(&bytes).for_each(|(seen, byte)| *seen |= byte);
        }
        assert!(seen.iter().all(|byte| *byte != 0), "a buffer of {len} bytes was not filled whole");
    }
}
