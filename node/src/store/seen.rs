//! Which shards a rebuild has come across, in memory of a bounded size.

use std::hash::{DefaultHasher, Hash, Hasher};

use proto::ShardName;

/// Of each word a name sets so many bits, at most.
const BITS_PER_NAME: u32 = 4;
/// For each name that there can be: four bits set of sixteen.
const NAMES_PER_WORD: u64 = 4;
/// 16 MiB. With more names than they have room for, more seem to have been there.
const WORDS_MAX: u64 = 2 << 20;

/// A Bloom filter of names (B. H. Bloom, Space/time trade-offs in hash coding with allowable errors, 1970), one
/// machine word a name: it never denies a name that was there.
pub(super) struct Seen {
    words: Vec<u64>,
}

impl Seen {
    /// Of none yet; `names` is how many there can be.
    pub(super) fn new(names: u64) -> Self {
        let words = names.div_ceil(NAMES_PER_WORD).clamp(1, WORDS_MAX);
        Self { words: vec![0; usize::try_from(words).unwrap_or(1)] }
    }

    /// Takes note of a name; whether it may have been there before.
    pub(super) fn insert(&mut self, name: &ShardName) -> bool {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let hash = hasher.finish();
        let bits = (0..BITS_PER_NAME).fold(0, |bits, turn| bits | 1 << ((hash >> (6 * turn)) & 63));
        let words = self.words.len() as u64;
        // The upper half chooses the word, bits of the lower one those in it.
        let at = ((hash >> 32) * words) >> 32;
        let Some(word) = usize::try_from(at).ok().and_then(|at| self.words.get_mut(at)) else { return true };
        let was_there = *word & bits == bits;
        *word |= bits;
        was_there
    }
}

#[cfg(test)]
mod tests {
    use proto::{ExtentId, GroupId, SlotIndex, StripeIndex};

    use super::*;

    fn name(number: u32) -> ShardName {
        let (extent, stripe) = (ExtentId(u128::from(number / 256)), StripeIndex(number % 256));
        ShardName { group: GroupId(7), extent, stripe, slot: SlotIndex(1) }
    }

    /// A name that was there is never denied, however small the filter; of others few are taken for known ones.
    #[test]
    fn what_was_there_is_known() {
        for names in [0, 1, 100, 10_000, u64::MAX] {
            let mut seen = Seen::new(names);
            let taken = (0..10_000).filter(|number| seen.insert(&name(*number))).count();
            assert!((0..10_000).all(|number| seen.insert(&name(number))), "room for {names}");
            assert!(names < 10_000 || taken < 200, "{taken} of 10 000 seemed to have been there");
        }
    }
}
