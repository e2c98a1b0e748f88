//! Headers and payloads on one stream.

use bytes::Bytes;
use proto::frame::{self, LENGTH_BYTES};
use proto::prost::Message;
use proto::{ErrorCode, Failure};

use crate::net::{NetError, RecvStream};

/// What went wrong with the bytes of one stream.
#[derive(Debug)]
pub(super) enum StreamError {
    /// The network failed.
    Net(NetError),
    /// The bytes break the rules; the stream is of no more use.
    Invalid(Failure),
}

/// Reads exactly `length` bytes. The memory taken grows with what arrives, not with what is announced.
pub(super) async fn read_exact<R: RecvStream>(recv: &mut R, length: usize) -> Result<Bytes, StreamError> {
    let mut all = Vec::new();
    while all.len() < length {
        match recv.read(length - all.len()).await.map_err(StreamError::Net)? {
            // Often the whole: then it is passed on without a copy.
            Some(bytes) if all.is_empty() && bytes.len() == length => return Ok(bytes),
            Some(bytes) => append(&mut all, &bytes, length),
            None => {
                return Err(StreamError::Invalid(Failure::new(
                    ErrorCode::InvalidRequest,
                    format!("the stream ended after {} of {length} bytes", all.len()),
                )));
            }
        }
    }
    Ok(all.into())
}

/// Room before the first byte.
const FIRST_ROOM_BYTES: usize = 64 * 1024;
/// Then each time that it is full.
const ROOM_GROWTH: usize = 4;

/// Room grows with what has arrived, up to `length` and not beyond it: the whole has no slack, which
/// would live as long as the message.
fn append(all: &mut Vec<u8>, bytes: &[u8], length: usize) {
    let needed = all.len() + bytes.len();
    if needed > all.capacity() {
        let room = all.capacity().saturating_mul(ROOM_GROWTH).max(FIRST_ROOM_BYTES).min(length).max(needed);
        all.reserve_exact(room - all.len());
    }
    all.extend_from_slice(bytes);
}

/// Reads a length-prefixed message.
pub(super) async fn read_header<M: Message + Default, R: RecvStream>(recv: &mut R) -> Result<M, StreamError> {
    let invalid = |error| StreamError::Invalid(Failure::from(error));
    let prefix = read_exact(recv, LENGTH_BYTES).await?;
    let prefix = <[u8; LENGTH_BYTES]>::try_from(&prefix[..])
        .map_err(|_| StreamError::Invalid(Failure::new(ErrorCode::Internal, "a length of another length")))?;
    let length = frame::header_length(prefix)
        .map_err(|error| StreamError::Invalid(Failure::new(ErrorCode::TooLarge, error.to_string())))?;
    frame::decode(read_exact(recv, length).await?).map_err(invalid)
}

/// The raw bytes after a header. Dropping it tells the peer to stop sending.
pub struct Payload<R> {
    recv: R,
    remaining: u64,
}

impl<R: RecvStream> Payload<R> {
    pub(super) fn new(recv: R, announced: u64) -> Self {
        Self { recv, remaining: announced }
    }

    /// Bytes that were announced and have not been read.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The next bytes; none when all announced bytes are read.
    ///
    /// # Errors
    ///
    /// When the stream breaks or ends early.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let max = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        match self.recv.read(max).await {
            Ok(Some(bytes)) => {
                self.remaining -= bytes.len() as u64;
                Ok(Some(bytes))
            }
            Ok(None) => Err(Failure::new(
                ErrorCode::InvalidRequest,
                format!("the payload ended {} bytes early", self.remaining),
            )),
            Err(error) => Err(lost(&error)),
        }
    }

    /// All announced bytes in one piece.
    ///
    /// # Errors
    ///
    /// When the stream breaks or ends early.
    pub async fn collect(mut self) -> Result<Bytes, Failure> {
        let length = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        read_exact(&mut self.recv, length).await.map_err(|error| match error {
            StreamError::Net(error) => lost(&error),
            StreamError::Invalid(failure) => failure,
        })
    }

    /// The next length-prefixed message of a payload without announced length; none at its end.
    ///
    /// # Errors
    ///
    /// When the stream breaks, or holds something else.
    pub async fn next_message<M: Message + Default>(&mut self) -> Result<Option<M>, Failure> {
        let first = match self.recv.read(1).await {
            Ok(Some(byte)) => byte,
            Ok(None) => return Ok(None),
            Err(error) => return Err(lost(&error)),
        };
        let message = async {
            let rest = read_exact(&mut self.recv, LENGTH_BYTES - 1).await?;
            let prefix = [first[0], rest[0], rest[1], rest[2]];
            let length = frame::header_length(prefix).map_err(|e| StreamError::Invalid(e.into()))?;
            let bytes = read_exact(&mut self.recv, length).await?;
            frame::decode(bytes).map_err(|e| StreamError::Invalid(e.into()))
        };
        message.await.map(Some).map_err(|error: StreamError| match error {
            StreamError::Net(error) => lost(&error),
            StreamError::Invalid(failure) => failure,
        })
    }
}

fn lost(error: &NetError) -> Failure {
    Failure::new(ErrorCode::Unavailable, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Whatever the pieces, the whole is in order and takes no more room than it must, and what is
        /// announced and does not arrive takes none.
        #[test]
        fn room_follows_what_arrives(
            lengths in proptest::collection::vec(0_usize..100_000, 0..20),
            missing in proptest::prop_oneof![proptest::strategy::Just(0), 0_usize..1 << 32],
        ) {
            let pieces: Vec<_> = (0_u8..).zip(lengths).map(|(byte, length)| vec![byte; length]).collect();
            let whole = pieces.concat();
            let mut all = Vec::new();
            for piece in &pieces {
                append(&mut all, piece, whole.len() + missing);
                proptest::prop_assert!(all.capacity() <= whole.len() + missing);
                proptest::prop_assert!(all.capacity() <= FIRST_ROOM_BYTES.max(ROOM_GROWTH * all.len()));
            }
            if missing == 0 {
                proptest::prop_assert_eq!(all.capacity(), whole.len());
            }
            proptest::prop_assert_eq!(all, whole);
        }
    }
}
