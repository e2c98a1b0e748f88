//! The network: connections between holders of certificates, with streams on them.

use std::fmt;
use std::future::Future;

use bytes::Bytes;
use proto::{Identity, Role};

/// The network as this host sees it, under its own certificate.
///
/// # Contract
///
/// - Both sides have proven their identity before either sees a connection. Who cannot is refused
///   and logged, and the listener goes on.
/// - Bytes of a stream arrive whole, in order and unchanged, or the stream fails. Streams of one
///   connection are independent.
pub trait Net: Clone + Send + Sync + 'static {
    /// Where connections arrive.
    type Listener: Listener<Connection = Self::Connection>;
    /// A connection.
    type Connection: Connection;

    /// Connects to `address` (`host:port`). Dropping it gives up.
    ///
    /// # Errors
    ///
    /// When nobody answers within a few seconds, or the peer is not who was expected.
    fn connect(
        &self,
        address: &str,
        expect: &Expect,
    ) -> impl Future<Output = Result<Self::Connection, NetError>> + Send;

    /// Listens on `address` (`host:port`, port 0 for any).
    ///
    /// # Errors
    ///
    /// When the address is not this host's or is taken.
    fn listen(&self, address: &str) -> impl Future<Output = Result<Self::Listener, NetError>> + Send;
}

/// Where connections arrive. Dropping it refuses new connections; those that were accepted go on.
pub trait Listener: Send + 'static {
    /// A connection.
    type Connection: Connection;

    /// The next connection whose peer has proven its identity; none when the host is stopping.
    fn accept(&mut self) -> impl Future<Output = Option<Self::Connection>> + Send;

    /// `host:port` that it listens on.
    fn address(&self) -> String;
}

/// A connection. Clones are the same connection; it closes when all clones and streams are gone.
pub trait Connection: Clone + Send + Sync + 'static {
    /// Our half of a stream.
    type Send: SendStream;
    /// The peer's half of a stream.
    type Recv: RecvStream;

    /// Who the peer is.
    fn peer(&self) -> &Identity;

    /// Where the peer is, for logs.
    fn peer_address(&self) -> String;

    /// Opens a stream; waits while the peer allows no more. The peer learns of it with its first
    /// bytes.
    ///
    /// # Errors
    ///
    /// When the connection is lost.
    fn open(&self) -> impl Future<Output = Result<(Self::Send, Self::Recv), NetError>> + Send;

    /// The next stream that the peer opens.
    ///
    /// # Errors
    ///
    /// When the connection is lost or closed.
    fn accept(&self) -> impl Future<Output = Result<(Self::Send, Self::Recv), NetError>> + Send;

    /// Closes the connection and fails its streams, on both sides.
    fn close(&self, reason: &str);

    /// True when it is known to be lost or closed.
    fn is_closed(&self) -> bool;
}

/// The half of a stream that we write. Dropping it unfinished resets it: the peer sees an error,
/// never a short message.
pub trait SendStream: Send + 'static {
    /// Writes all of `bytes`; waits while the peer does not read. Arrival is not implied.
    ///
    /// # Errors
    ///
    /// When the peer stopped reading or the connection is lost.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), NetError>> + Send;

    /// Ends the stream: the peer sees its end after the last byte.
    ///
    /// # Errors
    ///
    /// When the stream has failed already.
    fn finish(&mut self) -> Result<(), NetError>;
}

/// The half of a stream that we read. Dropping it tells the peer to stop.
pub trait RecvStream: Send + 'static {
    /// The next bytes, at most `max_bytes` of them and at least one; none at the stream's end.
    /// Dropping this loses nothing.
    ///
    /// # Errors
    ///
    /// When the peer reset the stream or the connection is lost.
    fn read(&mut self, max_bytes: usize) -> impl Future<Output = Result<Option<Bytes>, NetError>> + Send;
}

/// Whom a caller wants at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expect {
    /// Anyone of this role.
    Role(Role),
    /// This one.
    Exactly(Identity),
}

impl Expect {
    /// The role expected.
    pub fn role(&self) -> Role {
        match self {
            Self::Role(role) => *role,
            Self::Exactly(identity) => identity.role(),
        }
    }

    /// Is `peer` whom the caller wants?
    pub fn accepts(&self, peer: &Identity) -> bool {
        match self {
            Self::Role(role) => peer.role() == *role,
            Self::Exactly(identity) => peer == identity,
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(Role::Meta) => f.write_str("a metadata server"),
            Self::Role(Role::Node) => f.write_str("a storage node"),
            Self::Role(Role::Tenant) => f.write_str("a tenant"),
            Self::Role(Role::Operator) => f.write_str("an operator"),
            Self::Exactly(identity) => identity.fmt(f),
        }
    }
}

/// The network failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// No connection came about: nothing was sent.
    #[error("cannot reach {address}: {reason}")]
    Unreachable {
        /// Of the peer.
        address: String,
        /// What happened.
        reason: String,
    },
    /// There is a peer, and it is the wrong one, or it does not trust us.
    #[error("{address} was refused or refuses us: {reason}")]
    Untrusted {
        /// Of the peer.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// The connection broke: what was sent may have arrived.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The peer reset this stream or stopped reading it.
    #[error("the peer gave up the stream")]
    Reset,
    /// The address cannot be used.
    #[error("cannot listen on {address}: {reason}")]
    CannotListen {
        /// As configured.
        address: String,
        /// What is wrong.
        reason: String,
    },
}
