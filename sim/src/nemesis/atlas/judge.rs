//! The decisions of the atlas.

/// A stripe of a committed extent. A bit for each slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stripe {
    /// Shards from which the others can be made: `k`.
    pub(super) needed: usize,
    /// Shards that are there for certain.
    pub(super) there: u32,
    /// Shards, there for certain or not, that would be destroyed.
    pub(super) hit: u32,
}

/// What a fault would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Within what is promised.
    Covered,
    /// More than that, within what the plan allows.
    Beyond,
    /// More than may be.
    TooMuch,
}

/// Is enough left of the stripe? `allowance` more may be lost than is promised.
pub(super) fn judge_stripe(stripe: Stripe, allowance: u32) -> Verdict {
    if stripe.hit == 0 {
        return Verdict::Covered;
    }
    verdict(stripe.needed, stripe.there & !stripe.hit, allowance)
}

/// Is enough left of an extent that may still be committed, when `destroyed` are the slots that lost
/// something of it, now or before? Its commit will name `min_durable` slots or more as durable.
pub(super) fn judge_uncommitted(destroyed: u32, k: usize, min_durable: usize, allowance: u32) -> Verdict {
    let lost = usize::try_from(destroyed.count_ones()).unwrap_or(usize::MAX);
    let spare = min_durable.saturating_sub(k);
    if lost <= spare {
        Verdict::Covered
    } else if lost - spare <= usize::try_from(allowance).unwrap_or(0) {
        Verdict::Beyond
    } else {
        Verdict::TooMuch
    }
}

fn verdict(needed: usize, left: u32, allowance: u32) -> Verdict {
    let left = usize::try_from(left.count_ones()).unwrap_or(0);
    if left >= needed {
        Verdict::Covered
    } else if left.saturating_add(usize::try_from(allowance).unwrap_or(0)) >= needed {
        Verdict::Beyond
    } else {
        Verdict::TooMuch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Beyond, Covered, TooMuch};

    /// Of a committed stripe `k` shards are left for certain, or nothing of it is hit.
    #[test]
    fn committed_stripes() {
        // k, there, hit, allowed in a plan within the promises, and in one that goes beyond
        let table = [
            (4, 0b11_1111, 0b00_0000, Covered, Covered),
            (4, 0b11_1111, 0b00_0001, Covered, Covered),
            (4, 0b11_1111, 0b10_0001, Covered, Covered),
            (4, 0b11_1111, 0b10_0011, TooMuch, Beyond),
            (4, 0b11_1111, 0b11_1100, TooMuch, Beyond),
            (4, 0b11_1111, 0b11_1110, TooMuch, TooMuch),
            // One is lost and not repaired; another one may go.
            (4, 0b01_1111, 0b00_0001, Covered, Covered),
            (4, 0b01_1111, 0b00_0011, TooMuch, Beyond),
            // What is being made again does not count, and to destroy it is no loss.
            (4, 0b00_1111, 0b11_0000, Covered, Covered),
            (4, 0b00_1111, 0b10_0001, TooMuch, Beyond),
            // Fewer than k for certain: nothing of it may go, not even what is uncertain.
            (4, 0b00_0111, 0b10_0000, TooMuch, Beyond),
            (4, 0b00_0111, 0b00_0000, Covered, Covered),
            (4, 0b00_0001, 0b10_0000, TooMuch, TooMuch),
            (1, 0b111, 0b110, Covered, Covered),
            (1, 0b111, 0b111, TooMuch, Beyond),
            (1, 0b001, 0b001, TooMuch, Beyond),
        ];
        for (needed, there, hit, within, beyond) in table {
            let stripe = Stripe { needed, there, hit };
            assert_eq!(judge_stripe(stripe, 0), within, "{stripe:?}");
            assert_eq!(judge_stripe(stripe, 2), beyond, "{stripe:?}, beyond");
        }
    }

    /// Of an extent that may still be committed, `k` of the slots that a commit must name are left.
    #[test]
    fn extents_on_their_way() {
        // k, min_durable, destroyed, within, beyond
        let table = [
            (4, 5, 0b00_0000, Covered, Covered),
            (4, 5, 0b00_0100, Covered, Covered),
            (4, 5, 0b00_0101, TooMuch, Beyond),
            (4, 5, 0b00_0111, TooMuch, Beyond),
            (4, 5, 0b00_1111, TooMuch, TooMuch),
            (4, 6, 0b10_0001, Covered, Covered),
            (4, 6, 0b11_0001, TooMuch, Beyond),
            (4, 4, 0b00_0001, TooMuch, Beyond),
            (1, 2, 0b001, Covered, Covered),
            (1, 2, 0b011, TooMuch, Beyond),
        ];
        for (k, min_durable, destroyed, within, beyond) in table {
            let case = format!("k {k}, min_durable {min_durable}, destroyed {destroyed:#b}");
            assert_eq!(judge_uncommitted(destroyed, k, min_durable, 0), within, "{case}");
            assert_eq!(judge_uncommitted(destroyed, k, min_durable, 2), beyond, "{case}, beyond");
        }
    }

    /// Whatever is allowed one after another leaves `k` shards of a stripe that nobody repairs.
    #[test]
    fn many_small_faults_are_no_large_one() {
        for (needed, slots) in [(4, 6), (2, 3), (1, 3), (3, 5)] {
            let mut there = (1_u32 << slots) - 1;
            for slot in 0..slots {
                if judge_stripe(Stripe { needed, there, hit: 1 << slot }, 0) == Covered {
                    there &= !(1 << slot);
                }
            }
            assert_eq!(there.count_ones(), u32::try_from(needed).unwrap(), "{needed} of {slots}");
        }
    }
}
