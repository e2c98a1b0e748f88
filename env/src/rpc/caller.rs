//! Asking.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use proto::limits::{PAYLOAD_BYTES_MAX, TIMEOUT_MS_MAX};
use proto::wire::request::Call;
use proto::wire::response::Result as Outcome;
use proto::{ErrorCode, Failure, Remedy, frame, identity, wire};

use super::hello::Local;
use super::stream::{Payload, StreamError, read_header};
use crate::net::{Connection, Expect, NetError, SendStream};
use crate::{Clock, Elapsed, Env, Monotonic, Net, Rng};

/// Time for a connection and its greeting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Peers whose connections are kept.
const CONNECTIONS_MAX: usize = 8192;

type ConnectionOf<E> = <<E as Env>::Net as Net>::Connection;

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// Who must be there.
    pub expect: Expect,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// The reply itself, never a failure.
    pub result: Outcome,
    /// The bytes that followed it.
    pub payload: Bytes,
    /// Cluster time in milliseconds; 0 when the peer does not know it.
    pub cluster_time_ms: u64,
}

/// A call brought no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The peer answered that it failed.
    Failed(Failure),
    /// The network failed. What was asked for may have been done or not, unless the error says
    /// that nothing was sent.
    Net {
        /// Whom we asked.
        address: String,
        /// What happened.
        error: NetError,
    },
    /// No answer in time. What was asked for may have been done or not.
    TimedOut {
        /// Whom we asked.
        address: String,
        /// What we asked for.
        call: &'static str,
        /// How long we waited.
        after: Duration,
    },
}

impl CallError {
    /// What the caller may do.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Failed(failure) => failure.remedy(),
            Self::Net { error: NetError::Untrusted { .. } | NetError::CannotListen { .. }, .. } => {
                Remedy::AskOperator
            }
            Self::Net { .. } | Self::TimedOut { .. } => Remedy::Retry,
        }
    }

    /// The code, when the peer gave one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Failed(failure) => Some(failure.code),
            Self::Net { .. } | Self::TimedOut { .. } => None,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => failure.fmt(f),
            Self::Net { error: error @ NetError::Unreachable { .. }, .. }
            | Self::Net { error: error @ NetError::Untrusted { .. }, .. } => error.fmt(f),
            Self::Net { address, error } => write!(f, "{address}: {error}"),
            Self::TimedOut { address, call, after } => {
                write!(f, "{address} did not answer {call} within {} ms", after.as_millis())
            }
        }
    }
}

impl std::error::Error for CallError {}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Asks peers, and keeps a connection to each. Clones share the connections.
#[derive(Clone)]
pub struct Caller<E: Env> {
    env: E,
    local: Local,
    connections: Arc<Mutex<BTreeMap<Target, Slot<E>>>>,
}

/// One peer; the lock is held while a connection comes about, so that it does only once.
type Slot<E> = Arc<tokio::sync::Mutex<Peer<E>>>;

struct Peer<E: Env> {
    connection: Option<ConnectionOf<E>>,
    /// The last attempt to connect, if it failed, and when. Who has waited for it meanwhile shares its
    /// fate; otherwise each of them would try again, one after the other.
    failed: Option<(Monotonic, CallError)>,
}

impl<E: Env> Default for Peer<E> {
    fn default() -> Self {
        Self { connection: None, failed: None }
    }
}

impl<E: Env> Caller<E> {
    /// Without connections yet.
    pub fn new(env: E, local: Local) -> Self {
        Self { env, local, connections: Arc::default() }
    }

    /// The host that asks.
    pub fn env(&self) -> &E {
        &self.env
    }

    /// What is said in each greeting.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// Sends one request with its payload and waits for the reply. Never repeats it: only the
    /// caller knows whether that is safe.
    ///
    /// Dropping this resets the stream; what was asked for may still be done.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn call(
        &self,
        target: &Target,
        call: Call,
        payload: Vec<Bytes>,
        timeout: Duration,
    ) -> Result<Reply, CallError> {
        let name = identity::rule(&call).name;
        match self.env.clock().timeout(timeout, self.exchange(target, call, payload, timeout)).await {
            Ok(reply) => reply,
            Err(Elapsed) => {
                Err(CallError::TimedOut { address: target.address.clone(), call: name, after: timeout })
            }
        }
    }

    /// Sends one request whose payload is made while it is sent, without announced length; `next`
    /// gives the pieces.
    ///
    /// # Errors
    ///
    /// See [`CallError`]; also what `next` returns.
    pub async fn call_streaming<F>(
        &self,
        target: &Target,
        call: Call,
        timeout: Duration,
        mut next: F,
    ) -> Result<Reply, CallError>
    where
        F: FnMut() -> Result<Option<Bytes>, Failure> + Send,
    {
        let name = identity::rule(&call).name;
        let work = async {
            let connection = self.connection(target).await?;
            let lost = |error| CallError::Net { address: target.address.clone(), error };
            let (mut send, recv) = connection.open().await.map_err(lost)?;
            let mut sent = send.write(self.header(call, 0, timeout)?).await;
            while sent.is_ok() {
                sent = match next()? {
                    Some(piece) => send.write(piece).await,
                    None => break,
                };
            }
            let sent = sent.and_then(|()| send.finish());
            self.answer(target, recv, sent).await
        };
        match self.env.clock().timeout(timeout, work).await {
            Ok(reply) => reply,
            Err(Elapsed) => {
                Err(CallError::TimedOut { address: target.address.clone(), call: name, after: timeout })
            }
        }
    }

    async fn exchange(
        &self,
        target: &Target,
        call: Call,
        payload: Vec<Bytes>,
        timeout: Duration,
    ) -> Result<Reply, CallError> {
        let payload_bytes = payload.iter().map(|bytes| bytes.len() as u64).sum();
        let header = self.header(call, payload_bytes, timeout)?;
        let connection = self.connection(target).await?;
        let lost = |error| CallError::Net { address: target.address.clone(), error };
        let (mut send, recv) = connection.open().await.map_err(lost)?;
        let sending = async {
            send.write(header).await?;
            for bytes in payload {
                send.write(bytes).await?;
            }
            send.finish()
        };
        let sent = sending.await;
        self.answer(target, recv, sent).await
    }

    /// Waits for the answer. A peer that refuses early stops reading: its answer says more than our
    /// failure to write.
    async fn answer(
        &self,
        target: &Target,
        recv: <ConnectionOf<E> as Connection>::Recv,
        sent: Result<(), NetError>,
    ) -> Result<Reply, CallError> {
        match self.receive(target, recv).await {
            Ok(reply) => Ok(reply),
            Err(failed @ CallError::Failed(_)) => Err(failed),
            Err(other) => match sent {
                Ok(()) => Err(other),
                Err(error) => Err(CallError::Net { address: target.address.clone(), error }),
            },
        }
    }

    fn header(&self, call: Call, payload_bytes: u64, timeout: Duration) -> Result<Bytes, Failure> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).clamp(1, TIMEOUT_MS_MAX);
        let request =
            wire::Request { timeout_ms, trace_id: self.env.rng().u64(), payload_bytes, call: Some(call) };
        Ok(frame::encode(&request)?)
    }

    async fn receive(
        &self,
        target: &Target,
        mut recv: <ConnectionOf<E> as Connection>::Recv,
    ) -> Result<Reply, CallError> {
        let broken = |error| match error {
            StreamError::Net(error) => CallError::Net { address: target.address.clone(), error },
            StreamError::Invalid(failure) => {
                CallError::Net { address: target.address.clone(), error: NetError::Lost(failure.message) }
            }
        };
        let response: wire::Response = read_header(&mut recv).await.map_err(broken)?;
        let cluster_time_ms = response.cluster_time_ms;
        match response.result {
            Some(Outcome::Failure(failure)) => Err(Failure::from_wire(failure).into()),
            Some(_) if response.payload_bytes > PAYLOAD_BYTES_MAX as u64 => {
                Err(Failure::new(ErrorCode::TooLarge, "the reply's payload is over the limit").into())
            }
            Some(result) => {
                let payload =
                    Payload::new(recv, response.payload_bytes).collect().await.map_err(|failure| {
                        CallError::Net {
                            address: target.address.clone(),
                            error: NetError::Lost(failure.message),
                        }
                    })?;
                Ok(Reply { result, payload, cluster_time_ms })
            }
            None => Err(Failure::new(
                ErrorCode::VersionMismatch,
                format!("{} gave an answer that this version does not know", target.address),
            )
            .into()),
        }
    }

    async fn connection(&self, target: &Target) -> Result<ConnectionOf<E>, CallError> {
        let since = self.env.clock().now();
        let slot = self.slot(target);
        let mut peer = slot.lock().await;
        if let Some(connection) = peer.connection.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        if let Some((_, error)) = peer.failed.as_ref().filter(|(at, _)| *at > since) {
            return Err(error.clone());
        }
        let connected = match self.env.clock().timeout(CONNECT_TIMEOUT, self.connect(target)).await {
            Ok(connected) => connected,
            Err(Elapsed) => Err(CallError::Net {
                address: target.address.clone(),
                error: NetError::Unreachable {
                    address: target.address.clone(),
                    reason: format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
                },
            }),
        };
        *peer = match &connected {
            Ok(connection) => Peer { connection: Some(connection.clone()), failed: None },
            Err(error) => Peer { connection: None, failed: Some((self.env.clock().now(), error.clone())) },
        };
        connected
    }

    fn slot(&self, target: &Target) -> Slot<E> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if connections.len() >= CONNECTIONS_MAX && !connections.contains_key(target) {
            // Those that nobody is using just now; they come back when needed.
            connections.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        connections.entry(target.clone()).or_default().clone()
    }

    async fn connect(&self, target: &Target) -> Result<ConnectionOf<E>, CallError> {
        let lost = |error| CallError::Net { address: target.address.clone(), error };
        let connection = self.env.net().connect(&target.address, &target.expect).await.map_err(lost)?;
        let (mut send, mut recv) = connection.open().await.map_err(lost)?;
        send.write(frame::encode(&self.local.hello()).map_err(Failure::from)?).await.map_err(lost)?;
        send.finish().map_err(lost)?;
        let peer: wire::Hello = match read_header(&mut recv).await {
            Ok(hello) => hello,
            Err(StreamError::Net(error)) => return Err(lost(error)),
            Err(StreamError::Invalid(failure)) => return Err(failure.into()),
        };
        if let Err(failure) = self.local.check(&peer) {
            connection.close(&failure.message);
            return Err(failure.into());
        }
        Ok(connection)
    }
}
