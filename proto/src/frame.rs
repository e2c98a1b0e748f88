//! Framing of headers on a stream.
//!
//! ```text
//! 0        4                4 + n
//! +--------+----------------+---------------------
//! | n: u32 | protobuf, n B  | payload, raw bytes …
//! +--------+----------------+---------------------
//! ```
//!
//! `n` is little endian and at most [`HEADER_BYTES_MAX`]; a larger one is refused before anything
//! is allocated for it.

use bytes::{BufMut, Bytes};
use prost::Message;

use crate::error::InvalidInput;
use crate::limits::HEADER_BYTES_MAX;

/// Bytes of the length in front of a header.
pub const LENGTH_BYTES: usize = 4;

/// A message with its length in front.
///
/// # Errors
///
/// When it is longer than [`HEADER_BYTES_MAX`]: the peer would refuse it.
pub fn encode(message: &impl Message) -> Result<Bytes, InvalidInput> {
    let length = message.encoded_len();
    if length > HEADER_BYTES_MAX {
        return Err(InvalidInput::new(format!(
            "a header of {length} bytes is over the limit of {HEADER_BYTES_MAX}"
        )));
    }
    // A vector and no `BytesMut`, in which each byte of a varint is a call.
    let mut frame = Vec::with_capacity(LENGTH_BYTES + length);
    // At most `HEADER_BYTES_MAX`.
    #[allow(clippy::cast_possible_truncation)]
    frame.put_u32_le(length as u32);
    message
        .encode(&mut frame)
        .map_err(|error| InvalidInput::new(format!("a header cannot be encoded: {error}")))?;
    Ok(frame.into())
}

/// The length of the header that follows.
///
/// # Errors
///
/// When it is over [`HEADER_BYTES_MAX`].
pub fn header_length(prefix: [u8; LENGTH_BYTES]) -> Result<usize, InvalidInput> {
    let length = u32::from_le_bytes(prefix) as usize;
    if length > HEADER_BYTES_MAX {
        return Err(InvalidInput::new(format!(
            "the peer announces a header of {length} bytes; at most {HEADER_BYTES_MAX} are allowed"
        )));
    }
    Ok(length)
}

/// A header without its length.
///
/// # Errors
///
/// When the bytes are no such message.
pub fn decode<M: Message + Default>(header: Bytes) -> Result<M, InvalidInput> {
    M::decode(header).map_err(|error| InvalidInput::new(format!("a header cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    /// What is encoded decodes; the wire bytes of a small header never change.
    #[test]
    fn golden_hello() {
        let hello =
            wire::Hello { version_min: 1, version_max: 1, software: "x".into(), ..Default::default() };
        let frame = encode(&hello).expect("small");
        assert_eq!(&frame[..], b"\x07\0\0\0\x08\x01\x10\x01\x1a\x01x");
        assert_eq!(decode::<wire::Hello>(frame.slice(LENGTH_BYTES..)).ok(), Some(hello));
    }

    /// A header that announces 4 GiB is refused by its length alone.
    #[test]
    fn huge_header_is_refused() {
        assert!(header_length(u32::MAX.to_le_bytes()).is_err());
        let max = u32::try_from(HEADER_BYTES_MAX).expect("fits");
        assert!(header_length(max.to_le_bytes()).is_ok());
        assert!(header_length((max + 1).to_le_bytes()).is_err());
    }

    proptest::proptest! {
        /// Random bytes never panic the decoder.
        #[test]
        fn garbage_does_not_panic(bytes: Vec<u8>) {
            let _ = decode::<wire::Request>(bytes.clone().into());
            let _ = decode::<wire::Response>(bytes.into());
        }
    }
}
