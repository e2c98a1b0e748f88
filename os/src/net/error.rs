//! From quinn's errors to ours.

use env::NetError;
use quinn::{ConnectionError, ReadError, TransportErrorCode, VarInt, WriteError};

/// How a connection is closed on purpose.
pub(super) const CODE_CLOSED: VarInt = VarInt::from_u32(0);
/// How a listener refuses a peer whose certificate is genuine but names nobody.
pub(super) const CODE_REFUSED: VarInt = VarInt::from_u32(1);
/// How a stream is given up.
pub(super) const CODE_GIVEN_UP: VarInt = VarInt::from_u32(0);

/// TLS alerts have the QUIC error codes from here on, RFC 9001 section 4.8.
const CRYPTO_BASE: u64 = 0x100;
const CRYPTO_LAST: u64 = 0x1ff;

/// A connection failed before it was established.
pub(super) fn connecting(address: &str, error: &ConnectionError) -> NetError {
    let address = address.to_owned();
    match error {
        ConnectionError::TransportError(error) if alert(error.code).is_some() => {
            NetError::Untrusted { address, reason: error.reason.clone() }
        }
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
            Some(alert) => NetError::Untrusted { address, reason: peers_alert(alert) },
            None if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
                NetError::Unreachable { address, reason: "it takes no more connections now".to_owned() }
            }
            None => NetError::Unreachable { address, reason: describe(error) },
        },
        ConnectionError::ApplicationClosed(close) if close.error_code == CODE_REFUSED => {
            NetError::Untrusted { address, reason: text(&close.reason) }
        }
        error => NetError::Unreachable { address, reason: describe(error) },
    }
}

/// An established connection failed.
pub(super) fn lost(error: &ConnectionError) -> NetError {
    NetError::Lost(describe(error))
}

pub(super) fn writing(error: WriteError) -> NetError {
    match error {
        WriteError::Stopped(_) => NetError::Reset,
        WriteError::ConnectionLost(error) => lost(&error),
        WriteError::ClosedStream => NetError::Lost("the stream is finished or was given up".to_owned()),
        WriteError::ZeroRttRejected => NetError::Lost("early data was rejected".to_owned()),
    }
}

pub(super) fn reading(error: ReadError) -> NetError {
    match error {
        ReadError::Reset(_) => NetError::Reset,
        ReadError::ConnectionLost(error) => lost(&error),
        error @ (ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected) => {
            NetError::Lost(error.to_string())
        }
    }
}

/// What happened, for people.
pub(super) fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::VersionMismatch => "the peer speaks another version of QUIC".to_owned(),
        ConnectionError::TransportError(error) if error.reason.is_empty() => error.code.to_string(),
        ConnectionError::TransportError(error) => error.reason.clone(),
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
            Some(alert) => peers_alert(alert),
            None => format!("aborted by the peer: {close}"),
        },
        ConnectionError::ApplicationClosed(close) if close.reason.is_empty() => {
            "closed by the peer".to_owned()
        }
        ConnectionError::ApplicationClosed(close) => format!("closed by the peer: {}", text(&close.reason)),
        ConnectionError::Reset => "the peer has restarted".to_owned(),
        ConnectionError::TimedOut => "no sign of life".to_owned(),
        ConnectionError::LocallyClosed => "closed by this side".to_owned(),
        ConnectionError::CidsExhausted => "too many connections".to_owned(),
    }
}

fn alert(code: TransportErrorCode) -> Option<u64> {
    let code = u64::from(code);
    (CRYPTO_BASE..=CRYPTO_LAST).contains(&code).then(|| code - CRYPTO_BASE)
}

/// What the peer holds against us: TLS alerts, RFC 8446 section 6.2.
fn peers_alert(alert: u64) -> String {
    match alert {
        42 | 43 | 46 => "the peer cannot use this process's certificate".to_owned(),
        44 => "the peer says that this process's certificate is revoked".to_owned(),
        45 => {
            "the peer says that this process's certificate has expired; check it and both clocks".to_owned()
        }
        48 | 51 => "this process's certificate is not of the peer's authority".to_owned(),
        116 => "the peer wants a certificate, and this process sent none".to_owned(),
        120 => "the peer speaks another version of the protocol".to_owned(),
        alert => format!("the peer refuses the handshake (TLS alert {alert})"),
    }
}

/// A peer's words, cut and without control characters: they end in logs.
fn text(bytes: &[u8]) -> String {
    const CHARS_MAX: usize = 200;
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(CHARS_MAX)
        .collect()
}
