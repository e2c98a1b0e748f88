//! Where an object's bytes come from.

use std::collections::VecDeque;
use std::future::Future;

use bytes::{Bytes, BytesMut};
use codec::Crc32c;
use proto::InvalidInput;
use proto::limits::OBJECT_BYTES_MAX;

use crate::error::{PutError, SourceError};

/// How many bytes are asked for at once.
const READ_BYTES: usize = 1 << 20;

/// Gives an object's bytes, in order, once.
///
/// # Contract
///
/// `read` gives at least one byte and at most `max`, or nothing at the end; more than `max` is taken
/// all the same, at the cost of memory. It is never called again after the end or an error, and
/// dropped midway only when the whole put is given up. A piece as long as was asked for is sent
/// without being copied where it happens to hold a whole stripe.
pub trait Source: Send {
    /// The next bytes; none at the end.
    fn read(&mut self, max: usize) -> impl Future<Output = Result<Option<Bytes>, SourceError>> + Send;
}

impl Source for Bytes {
    async fn read(&mut self, max: usize) -> Result<Option<Bytes>, SourceError> {
        let piece = self.split_to(self.len().min(max));
        Ok((!piece.is_empty()).then_some(piece))
    }
}

impl Source for VecDeque<Bytes> {
    async fn read(&mut self, max: usize) -> Result<Option<Bytes>, SourceError> {
        while let Some(mut first) = self.pop_front() {
            let piece = first.split_to(first.len().min(max));
            if !first.is_empty() {
                self.push_front(first);
            }
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

/// Cuts what a source gives into stripes, and keeps count.
pub(crate) struct Feed<S> {
    source: S,
    /// Read and not yet given out.
    held: VecDeque<Bytes>,
    held_bytes: usize,
    ended: bool,
    size: u64,
    crc32c: Crc32c,
}

impl<S: Source> Feed<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { source, held: VecDeque::new(), held_bytes: 0, ended: false, size: 0, crc32c: Crc32c::new() }
    }

    /// Reads until more than `bytes` are held or the source has ended; true if it has, within them.
    pub(crate) async fn ends_within(&mut self, bytes: usize) -> Result<bool, PutError> {
        while !self.ended && self.held_bytes <= bytes {
            // One more byte than the limit tells that it is exceeded.
            self.read(bytes + 1 - self.held_bytes).await?;
        }
        Ok(self.ended && self.held_bytes <= bytes)
    }

    /// The next stripe of `stripe_bytes`, shorter at the end; none after it.
    pub(crate) async fn stripe(&mut self, stripe_bytes: usize) -> Result<Option<Bytes>, PutError> {
        while !self.ended && self.held_bytes < stripe_bytes {
            let missing = stripe_bytes - self.held_bytes;
            // A source that has it all in one piece is asked for the stripe whole.
            let asked = if self.held_bytes == 0 { missing } else { missing.min(READ_BYTES) };
            self.read(asked).await?;
        }
        Ok(self.take(stripe_bytes))
    }

    /// Bytes read so far, and their checksum.
    pub(crate) fn totals(&self) -> (u64, u32) {
        (self.size, self.crc32c.finish())
    }

    async fn read(&mut self, max: usize) -> Result<(), PutError> {
        match self.source.read(max).await? {
            Some(piece) if !piece.is_empty() => {
                self.size += piece.len() as u64;
                if self.size > OBJECT_BYTES_MAX {
                    let text = format!("the object is larger than {OBJECT_BYTES_MAX} bytes");
                    return Err(InvalidInput::new(text).into());
                }
                self.crc32c.update(&piece);
                self.held_bytes += piece.len();
                self.held.push_back(piece);
            }
            _ => self.ended = true,
        }
        Ok(())
    }

    fn take(&mut self, max: usize) -> Option<Bytes> {
        let bytes = max.min(self.held_bytes);
        let mut first = self.held.pop_front()?;
        self.held_bytes -= bytes;
        if first.len() >= bytes {
            let stripe = first.split_to(bytes);
            if !first.is_empty() {
                self.held.push_front(first);
            }
            return Some(stripe);
        }
        let mut stripe = BytesMut::with_capacity(bytes);
        stripe.extend_from_slice(&first);
        while stripe.len() < bytes
            && let Some(mut next) = self.held.pop_front()
        {
            stripe.extend_from_slice(&next.split_to(next.len().min(bytes - stripe.len())));
            if !next.is_empty() {
                self.held.push_front(next);
            }
        }
        Some(stripe.freeze())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the pieces, the stripes are full but for the last, and together the object.
        #[test]
        fn stripes_are_the_object(
            pieces in prop::collection::vec(0..300_usize, 0..12), stripe_bytes in 1..400_usize, head in 0..500_usize,
        ) {
            let all: Vec<u8> = (0..pieces.iter().sum()).map(|i: usize| u8::try_from(i % 251).unwrap()).collect();
            let mut rest = Bytes::from(all.clone());
            let source: VecDeque<Bytes> = pieces.iter().map(|len| rest.split_to(*len)).collect();
            let mut feed = Feed::new(source);
            let small = feed.ends_within(head).now_or_never().unwrap().unwrap();
            prop_assert_eq!(small, all.len() <= head);
            let mut back = Vec::new();
            while let Some(stripe) = feed.stripe(stripe_bytes).now_or_never().unwrap().unwrap() {
                prop_assert!(stripe.len() == stripe_bytes || back.len() + stripe.len() == all.len());
                back.extend_from_slice(&stripe);
            }
            let mut crc = Crc32c::new();
            crc.update(&all);
            prop_assert_eq!(feed.totals(), (all.len() as u64, crc.finish()));
            prop_assert_eq!(back, all);
        }
    }

    /// A stripe that lies in one piece is not copied.
    #[test]
    fn whole_pieces_are_not_copied() {
        let data = Bytes::from(vec![7; 1000]);
        let mut feed = Feed::new(data.clone());
        let stripe = feed.stripe(400).now_or_never().unwrap().unwrap().unwrap();
        assert_eq!(stripe.as_ptr(), data.as_ptr());
    }
}
