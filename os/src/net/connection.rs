//! Connections and their streams.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use env::{Connection, NetError, RecvStream, SendStream};
use proto::Identity;

use super::error::{self, CODE_CLOSED, CODE_GIVEN_UP};

/// A QUIC connection whose peer is known.
#[derive(Clone)]
pub struct OsConnection {
    connection: quinn::Connection,
    peer: Arc<Identity>,
}

impl OsConnection {
    pub(super) fn new(connection: quinn::Connection, peer: Identity) -> Self {
        Self { connection, peer: Arc::new(peer) }
    }
}

impl Connection for OsConnection {
    type Send = OsSendStream;
    type Recv = OsRecvStream;

    fn peer(&self) -> &Identity {
        &self.peer
    }

    fn peer_address(&self) -> String {
        canonical(self.connection.remote_address()).to_string()
    }

    async fn open(&self) -> Result<(OsSendStream, OsRecvStream), NetError> {
        let (send, recv) = self.connection.open_bi().await.map_err(|e| error::lost(&e))?;
        Ok((OsSendStream::new(send), OsRecvStream(recv)))
    }

    async fn accept(&self) -> Result<(OsSendStream, OsRecvStream), NetError> {
        let (send, recv) = self.connection.accept_bi().await.map_err(|e| error::lost(&e))?;
        Ok((OsSendStream::new(send), OsRecvStream(recv)))
    }

    fn close(&self, reason: &str) {
        self.connection.close(CODE_CLOSED, reason.as_bytes());
    }

    fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }
}

/// An IPv4 peer of a socket for both families is written as IPv4.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
            SocketAddr::new(address.ip().to_canonical(), address.port())
        }
        _ => address,
    }
}

/// Where a stream that we write stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    /// All bytes of all writes are in.
    Whole,
    /// A write is under way, or was dropped halfway: what is there must not pass for a message.
    Torn,
    /// Ended.
    Finished,
}

/// The half of a stream that we write.
pub struct OsSendStream {
    stream: quinn::SendStream,
    state: Writing,
}

impl OsSendStream {
    fn new(stream: quinn::SendStream) -> Self {
        Self { stream, state: Writing::Whole }
    }
}

impl SendStream for OsSendStream {
    async fn write(&mut self, bytes: Bytes) -> Result<(), NetError> {
        if self.state != Writing::Whole {
            return Err(NetError::Lost("the stream is finished or was given up".to_owned()));
        }
        self.state = Writing::Torn;
        self.stream.write_chunk(bytes).await.map_err(error::writing)?;
        self.state = Writing::Whole;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), NetError> {
        if self.state != Writing::Whole {
            return Err(NetError::Lost("the stream is finished or was given up".to_owned()));
        }
        self.stream.finish().map_err(|error| NetError::Lost(error.to_string()))?;
        self.state = Writing::Finished;
        Ok(())
    }
}

/// quinn would finish the stream, and the peer would take half a message for a whole one.
impl Drop for OsSendStream {
    fn drop(&mut self) {
        if self.state != Writing::Finished {
            // Fails when the stream has failed already.
            let _ = self.stream.reset(CODE_GIVEN_UP);
        }
    }
}

/// The half of a stream that we read. quinn tells the peer to stop when it is dropped.
pub struct OsRecvStream(quinn::RecvStream);

impl RecvStream for OsRecvStream {
    async fn read(&mut self, max_bytes: usize) -> Result<Option<Bytes>, NetError> {
        assert!(max_bytes > 0, "a read of at most {max_bytes} bytes would not differ from the end");
        let chunk = self.0.read_chunk(max_bytes, true).await.map_err(error::reading)?;
        Ok(chunk.map(|chunk| chunk.bytes))
    }
}
