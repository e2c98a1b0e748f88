//! Data that can be made again: for comparison, nothing needs to be kept.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use client::{Source, SourceError};

/// Bytes that follow from a seed and a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Two contents of different seeds differ in nearly every byte.
    pub seed: u64,
    /// Bytes.
    pub size: u64,
}

impl Content {
    /// Of this seed and size.
    pub fn new(seed: u64, size: u64) -> Self {
        Self { seed, size }
    }

    /// All of it.
    pub fn bytes(self) -> Bytes {
        self.slice(0..self.size)
    }

    /// The bytes in `range`, as far as there are any.
    pub fn slice(self, range: Range<u64>) -> Bytes {
        let end = range.end.min(self.size);
        let start = range.start.min(end);
        let mut bytes = BytesMut::with_capacity(usize::try_from(end - start).expect("fits memory") + 16);
        for word in start / 8..end.div_ceil(8) {
            bytes.extend_from_slice(&mix(self.seed ^ mix(word)).to_le_bytes());
        }
        let skip = usize::try_from(start % 8).expect("below 8");
        let length = usize::try_from(end - start).expect("fits memory");
        bytes.freeze().slice(skip..skip + length)
    }

    /// Says where `bytes` first differ from this content, or nothing when they do not.
    pub fn difference(self, bytes: &[u8]) -> Option<String> {
        if bytes.len() as u64 != self.size {
            return Some(format!("{} bytes instead of {}", bytes.len(), self.size));
        }
        let expected = self.bytes();
        let at = expected.iter().zip(bytes).position(|(a, b)| a != b)?;
        Some(format!("byte {at} of {} is wrong", self.size))
    }

    /// CRC-32C of all of it.
    pub fn crc32c(self) -> u32 {
        let mut crc = codec::Crc32c::new();
        crc.update(&self.bytes());
        crc.finish()
    }

    /// Gives the bytes piece by piece, as something does that does not know the size.
    pub fn source(self) -> ContentSource {
        ContentSource { content: self, position: 0, fails_at: None }
    }
}

/// A content as a source.
pub struct ContentSource {
    content: Content,
    position: u64,
    fails_at: Option<u64>,
}

impl ContentSource {
    /// The same, but it breaks off with an error at this position.
    #[must_use]
    pub fn failing_at(self, position: u64) -> Self {
        Self { fails_at: Some(position), ..self }
    }
}

impl Source for ContentSource {
    async fn read(&mut self, max: usize) -> Result<Option<Bytes>, SourceError> {
        if self.fails_at.is_some_and(|at| self.position >= at) {
            return Err(SourceError::new("the other end hung up"));
        }
        // Odd pieces: nothing may depend on how the source cuts.
        let end = self.position + (max as u64).min(300_001);
        let piece = self.content.slice(self.position..end);
        self.position += piece.len() as u64;
        Ok((!piece.is_empty()).then_some(piece))
    }
}

/// Random numbers that follow from a seed, so that a failing run can be repeated in kind.
pub struct Random(u64);

impl Random {
    /// From this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From `CADOLE_TEST_SEED` or the clock; printed.
    pub fn start(what: &str) -> Self {
        let seed = std::env::var("CADOLE_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            mix(u64::from(now.expect("after 1970").subsec_nanos())) >> 32
        });
        eprintln!("{what}: CADOLE_TEST_SEED={seed}");
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    /// The next number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
