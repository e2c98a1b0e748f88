//! The bytes of a value, made from its id.
//!
//! Word `i` (little endian) of value `v` is `mix(v + (i + 1) * GAMMA)`, the generator SplitMix64
//! (Steele, Lea, Flood 2014) begun at `v`. Each step of it can be undone, so any whole word at a known
//! offset gives back the id, and two neighbours that agree leave no doubt. Hence every 16 bytes hold
//! the value's id, the first 16 among them, and wrong bytes can be told apart: another value, the right
//! value at another offset, zeros, or garbage.

use std::fmt;

use bytes::Bytes;

const WORD_BYTES: u64 = 8;
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX_1: u64 = 0xbf58_476d_1ce4_e5b9;
const MIX_2: u64 = 0x94d0_49bb_1331_11eb;
const UNMIX_1: u64 = inverse(MIX_1);
const UNMIX_2: u64 = inverse(MIX_2);
const UNGAMMA: u64 = inverse(GAMMA);

/// Bytes compared at once, a multiple of a word.
const COMPARED_BYTES: usize = 4096;

/// What is put once, under one key: no two puts of a ledger share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u64);

impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "value-{}", self.0)
    }
}

/// Gives the bytes of a value in order, in pieces as long as the caller likes.
#[derive(Clone, Debug)]
pub struct Content {
    value: ValueId,
    size: u64,
    offset: u64,
}

impl Content {
    /// All `size` bytes of `value`.
    pub fn new(value: ValueId, size: u64) -> Self {
        Self { value, size, offset: 0 }
    }

    /// The next bytes, at most `max`; none at the end, or when `max` is 0.
    pub fn next_piece(&mut self, max: usize) -> Option<Bytes> {
        let left = self.size.saturating_sub(self.offset);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(max);
        if length == 0 {
            return None;
        }
        let mut piece = vec![0; length];
        fill(self.value, self.offset, &mut piece);
        self.offset = self.offset.saturating_add(bytes_of(length));
        Some(piece.into())
    }
}

/// All `size` bytes of `value`, to be read piece by piece.
pub fn content(value: ValueId, size: u64) -> Content {
    Content::new(value, size)
}

/// Fills `bytes` with those of `value` from `offset` on.
pub fn fill(value: ValueId, offset: u64, bytes: &mut [u8]) {
    let within = usize::try_from(offset % WORD_BYTES).unwrap_or_default();
    let mut index = offset / WORD_BYTES;
    let mut rest = bytes;
    if within > 0 {
        let word = word(value, index).to_le_bytes();
        let length = rest.len().min(word.len() - within);
        let (head, tail) = rest.split_at_mut(length);
        head.copy_from_slice(&word[within..within + length]);
        rest = tail;
        index = index.wrapping_add(1);
    }
    let mut state = value.0.wrapping_add(index.wrapping_mul(GAMMA));
    let (body, tail) = rest.as_chunks_mut::<8>();
    for chunk in body {
        state = state.wrapping_add(GAMMA);
        *chunk = mix(state).to_le_bytes();
    }
    let last = mix(state.wrapping_add(GAMMA)).to_le_bytes();
    let length = tail.len();
    tail.copy_from_slice(&last[..length]);
}

/// Are `found` the bytes of `value`, of `size` bytes, from `offset` on? Fewer than asked for are the
/// caller's to notice.
///
/// # Errors
///
/// The first place that is wrong.
pub fn verify(value: ValueId, size: u64, offset: u64, found: &[u8]) -> Result<(), Mismatch> {
    if offset.saturating_add(bytes_of(found.len())) > size {
        return Err(Mismatch { value, offset: size.max(offset), wrong: Wrong::BeyondTheEnd });
    }
    let mut expected = [0; COMPARED_BYTES];
    let mut at = offset;
    for piece in found.chunks(COMPARED_BYTES) {
        let expected = &mut expected[..piece.len()];
        fill(value, at, expected);
        if expected != piece {
            return Err(mismatch(value, size, offset, found, at, expected));
        }
        at = at.saturating_add(bytes_of(piece.len()));
    }
    Ok(())
}

/// Whose bytes these are, lying from `offset` on: read from the first two whole words. None when they
/// are not two words of one value, or there are fewer.
pub fn identify(offset: u64, bytes: &[u8]) -> Option<ValueId> {
    whole_words(offset, bytes).and_then(|(index, first, second)| seed_of(index, first, second)).map(ValueId)
}

/// The first byte that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset} of {value} is wrong: {wrong}")]
pub struct Mismatch {
    /// What should have been there.
    pub value: ValueId,
    /// Where in the object.
    pub offset: u64,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// What is wrong with a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The object has no such byte.
    BeyondTheEnd,
    /// It is another one.
    Byte {
        /// What it should be.
        expected: u8,
        /// What it is.
        found: u8,
        /// What the bytes from there on look like.
        looks: Looks,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BeyondTheEnd => f.write_str("the object ends before it"),
            Self::Byte { expected, found, looks } => {
                write!(f, "expected {expected:#04x}, found {found:#04x}, {looks}")
            }
        }
    }
}

/// What wrong bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// Those of another value at this offset. Any words that follow each other in some value look so:
    /// only an id that was given out means anything.
    Value(ValueId),
    /// Those of the right value, from another offset.
    Displaced(u64),
    /// Zeros.
    Zeros,
    /// Nothing that was ever written, or too few bytes to tell.
    Garbage,
}

impl fmt::Display for Looks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "the bytes of {value} if there is one"),
            Self::Displaced(offset) => write!(f, "the bytes of offset {offset} of the right value"),
            Self::Zeros => f.write_str("zeros"),
            Self::Garbage => f.write_str("garbage"),
        }
    }
}

/// `at` is where `expected` begins, which differs from what `found` has there.
fn mismatch(value: ValueId, size: u64, offset: u64, found: &[u8], at: u64, expected: &[u8]) -> Mismatch {
    let start = usize::try_from(at - offset).unwrap_or(usize::MAX);
    let from = found.get(start..).unwrap_or_default();
    let pairs = expected.iter().zip(from).enumerate();
    let first = pairs.into_iter().find(|(_, (expected, found))| expected != found);
    let (index, (&expected, &byte)) = first.unwrap_or((0, (&0, &0)));
    let place = at.saturating_add(bytes_of(index));
    let looks = look(value, size, place, from.get(index..).unwrap_or_default());
    Mismatch { value, offset: place, wrong: Wrong::Byte { expected, found: byte, looks } }
}

fn look(value: ValueId, size: u64, offset: u64, bytes: &[u8]) -> Looks {
    if bytes.iter().take(16).all(|byte| *byte == 0) {
        return Looks::Zeros;
    }
    let Some((index, first, second)) = whole_words(offset, bytes) else { return Looks::Garbage };
    let Some(seed) = seed_of(index, first, second) else { return Looks::Garbage };
    // The right value so many words further on has this seed, for either sign.
    let shift = seed.wrapping_sub(value.0).wrapping_mul(UNGAMMA);
    let words = index.wrapping_add(shift);
    match words.checked_mul(WORD_BYTES) {
        // They are right again: a few bytes before them were damaged.
        _ if shift == 0 => Looks::Garbage,
        Some(from) if from < size => Looks::Displaced(from),
        _ => Looks::Value(ValueId(seed)),
    }
}

/// The first two whole words, and the index of the first of them.
fn whole_words(offset: u64, bytes: &[u8]) -> Option<(u64, u64, u64)> {
    let skipped = offset.next_multiple_of(WORD_BYTES).checked_sub(offset)?;
    let (words, _) = bytes.get(usize::try_from(skipped).ok()?..)?.as_chunks::<8>();
    let [first, second, ..] = words else { return None };
    let index = offset.div_ceil(WORD_BYTES);
    Some((index, u64::from_le_bytes(*first), u64::from_le_bytes(*second)))
}

fn seed_of(index: u64, first: u64, second: u64) -> Option<u64> {
    let of = |index: u64, word| unmix(word).wrapping_sub(index.wrapping_add(1).wrapping_mul(GAMMA));
    let seed = of(index, first);
    (seed == of(index.wrapping_add(1), second)).then_some(seed)
}

#[inline(always)]
fn word(value: ValueId, index: u64) -> u64 {
    mix(value.0.wrapping_add(index.wrapping_add(1).wrapping_mul(GAMMA)))
}

#[inline(always)]
fn mix(state: u64) -> u64 {
    let word = (state ^ (state >> 30)).wrapping_mul(MIX_1);
    let word = (word ^ (word >> 27)).wrapping_mul(MIX_2);
    word ^ (word >> 31)
}

/// Undoes [`mix`].
fn unmix(word: u64) -> u64 {
    let word = (word ^ (word >> 31) ^ (word >> 62)).wrapping_mul(UNMIX_2);
    let word = (word ^ (word >> 27) ^ (word >> 54)).wrapping_mul(UNMIX_1);
    word ^ (word >> 30) ^ (word >> 60)
}

/// The inverse of an odd number modulo 2^64: each round of Newton's doubles the bits that are right.
const fn inverse(odd: u64) -> u64 {
    let mut found = odd;
    let mut round = 0;
    while round < 5 {
        found = found.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(found)));
        round += 1;
    }
    found
}

fn bytes_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(value: u64, size: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        fill(ValueId(value), 0, &mut bytes);
        bytes
    }

    /// Any range, and any cutting into pieces, gives the same bytes as the whole.
    #[test]
    fn ranges_are_parts_of_the_whole() {
        let all = whole(7, 100);
        for start in 0..100 {
            for end in start..=100 {
                let mut part = vec![0; end - start];
                fill(ValueId(7), start as u64, &mut part);
                assert_eq!(part, all[start..end], "bytes {start} to {end}");
                assert_eq!(verify(ValueId(7), 100, start as u64, &part), Ok(()), "bytes {start} to {end}");
            }
        }
        for max in [1, 3, 8, 13, 100, 1000] {
            let mut pieces = content(ValueId(7), 100);
            let mut joined = Vec::new();
            while let Some(piece) = pieces.next_piece(max) {
                assert!(piece.len() <= max, "pieces of {max}");
                joined.extend_from_slice(&piece);
            }
            assert_eq!(joined, all, "pieces of {max}");
        }
    }

    /// From 16 whole bytes at a known offset the value is known.
    #[test]
    fn bytes_tell_their_value() {
        for value in [0, 1, 2, 77, u64::MAX] {
            let bytes = whole(value, 64);
            assert_eq!(identify(0, &bytes[..16]), Some(ValueId(value)));
            assert_eq!(identify(5, &bytes[5..24]), Some(ValueId(value)));
            assert_eq!(identify(0, &bytes[..15]), None, "too few to tell");
            assert_eq!(identify(8, &bytes[..16]), Some(ValueId(value.wrapping_sub(GAMMA))), "an absurd id");
        }
        assert_eq!(identify(0, &[1; 16]), None);
    }

    /// Each flipped bit of a range is found, at its place.
    #[test]
    fn each_flipped_bit_is_found() {
        let size = 5000;
        let bytes = whole(3, size);
        for at in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            let found = verify(ValueId(3), size, 0, &bad).expect_err("a flipped bit was accepted");
            assert_eq!(found.offset, at as u64);
            let Wrong::Byte { expected, found, looks } = found.wrong else { panic!("{found:?}") };
            assert_eq!((expected, found), (bytes[at], bad[at]));
            assert_ne!(looks, Looks::Value(ValueId(3)), "byte {at}");
        }
    }

    /// Wrong bytes say whose they are, beyond the first piece compared too.
    #[test]
    fn wrong_bytes_say_what_they_are() {
        let size = 20_000;
        let mut bytes = whole(9, size);
        let looks = |bytes: &[u8]| match verify(ValueId(9), size, 0, bytes) {
            Err(Mismatch { offset: 16_000, wrong: Wrong::Byte { looks, .. }, .. }) => looks,
            other => panic!("{other:?}"),
        };
        fill(ValueId(10), 16_000, &mut bytes[16_000..]);
        assert_eq!(looks(&bytes), Looks::Value(ValueId(10)));
        fill(ValueId(9), 8_000, &mut bytes[16_000..]);
        assert_eq!(looks(&bytes), Looks::Displaced(8_000));
        fill(ValueId(9), 16_008, &mut bytes[16_000..]);
        assert_eq!(looks(&bytes), Looks::Displaced(16_008));
        bytes[16_000..].fill(0);
        assert_eq!(looks(&bytes), Looks::Zeros);
        bytes[16_000..].fill(0xa5);
        assert_eq!(looks(&bytes), Looks::Garbage);
    }

    /// More bytes than the object has are wrong whatever they are.
    #[test]
    fn bytes_beyond_the_end_are_wrong() {
        let bytes = whole(3, 11);
        let found = verify(ValueId(3), 10, 0, &bytes).expect_err("one byte too many was accepted");
        assert_eq!((found.offset, found.wrong), (10, Wrong::BeyondTheEnd));
        assert_eq!(verify(ValueId(3), 0, 0, &[]), Ok(()));
    }
}
