//! QUIC's settings, and the sockets.
//!
//! Memory that one peer can make us hold: [`RECEIVE_WINDOW_BYTES`] of what it sent and nobody read,
//! and [`SEND_WINDOW_BYTES`] of what it has not acknowledged. One stream has a small part of the
//! receive window, so that many stalled ones leave room for those that are read.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use env::Rng;
use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig,
    VarInt,
};
use rustix::net::sockopt;
use tracing::{info, warn};

use crate::rng::OsRng;

/// Bytes of a connection's id: enough that nobody guesses one.
const CONNECTION_ID_BYTES: usize = 8;
/// Largest datagram. Above 6 550 bytes a segmentation-offload batch of ten would exceed what UDP
/// carries, and the kernel drops it silently.
const DATAGRAM_BYTES_MAX: u16 = 6500;
/// Asked for each socket: with the default, bursts are lost and MTU discovery sees black holes.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Of one connection.
const RECEIVE_WINDOW_BYTES: u32 = 16 << 20;
/// Of one stream.
const STREAM_RECEIVE_WINDOW_BYTES: u32 = 1 << 20;
/// Of one connection.
const SEND_WINDOW_BYTES: u64 = 16 << 20;
/// Streams that a peer may have open.
const STREAMS_MAX: u32 = 256;

/// A sign of life at least this often.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Without a sign of life for this long the connection is lost.
const IDLE_TIMEOUT_MS: u32 = 5_000;
/// What a round trip is taken to be before the first measurement: the first packet of a handshake is
/// repeated after three of them.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Handshakes that wait for us to look at them, and the bytes kept for all of them together.
pub(super) const INCOMING_MAX: usize = 4096;
/// See [`INCOMING_MAX`].
pub(super) const INCOMING_BYTES_MAX: u64 = 16 << 20;

/// Which end of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that connects.
    Client,
    /// The one that listens.
    Server,
}

pub(super) fn config(side: Side) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(DATAGRAM_BYTES_MAX);
    let mut config = TransportConfig::default();
    // The one stream of its own that a listener opens: see `listener::welcome`.
    let uni_streams = VarInt::from_u32(u32::from(side == Side::Client));
    config
        .mtu_discovery_config(Some(mtu))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .stream_receive_window(VarInt::from_u32(STREAM_RECEIVE_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(uni_streams)
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .initial_rtt(INITIAL_RTT);
    config
}

/// Settings of a socket. `resets` makes a listener known to the peers of its predecessor: see
/// [`reset_key`].
///
/// # Errors
///
/// When the datagram size is out of QUIC's range.
pub(super) fn endpoint_config(resets: Option<hmac::Key>) -> io::Result<EndpointConfig> {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(DATAGRAM_BYTES_MAX).map_err(io::Error::other)?;
    if let Some(key) = resets {
        config.reset_key(Arc::new(key)).cid_generator(|| Box::new(PlainIds));
    }
    Ok(config)
}

/// The key that a listener's stateless resets (RFC 9000, section 10.3) are made with. It is the same
/// after a restart: a process that was killed and started again can tell those who still send to its
/// predecessor that their connections are gone, and they do not wait for a sign of life in vain.
///
/// It follows from the host's secret and from the address, so that no other socket of this host can be
/// asked for the resets of this one.
pub(super) fn reset_key(secret: &[u8], address: SocketAddr) -> hmac::Key {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let label = format!("cadole stateless reset 1 {address}");
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, label.as_bytes()).as_ref())
}

/// Random ids of connections without a mark of this process: quinn's own generator marks them, and
/// would not answer those of its predecessor.
struct PlainIds;

impl ConnectionIdGenerator for PlainIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        OsRng::new().fill(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// # Errors
///
/// When the address is not this host's or is taken.
pub(super) fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    enlarge(&socket);
    Ok(socket)
}

/// Asks for larger buffers, past the system's limit where we are allowed to.
fn enlarge(socket: &UdpSocket) {
    let wanted = SOCKET_BUFFER_BYTES;
    if sockopt::set_socket_recv_buffer_size_force(socket, wanted).is_err() {
        // Without the privilege the system grants up to its limit; what it granted is read below.
        let _ = sockopt::set_socket_recv_buffer_size(socket, wanted);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, wanted).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(socket, wanted);
    }
    // Linux doubles what was asked for, for its own bookkeeping, and says the doubled value.
    let granted = |bytes: rustix::io::Result<usize>| bytes.map_or(0, |bytes| bytes / 2);
    let receive_bytes = granted(sockopt::socket_recv_buffer_size(socket));
    let send_bytes = granted(sockopt::socket_send_buffer_size(socket));
    if receive_bytes.min(send_bytes) < wanted {
        warn!(
            receive_bytes,
            send_bytes,
            wanted_bytes = wanted,
            "small socket buffers cost throughput: raise net.core.rmem_max and net.core.wmem_max"
        );
    } else {
        info!(receive_bytes, send_bytes, "socket buffers granted");
    }
}
