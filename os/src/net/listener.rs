//! Listening.
//!
//! One task takes what arrives; each handshake is a task of its own with an end, so that nobody who
//! is slow, silent or hostile keeps others waiting.

use std::sync::Arc;
use std::time::Duration;

use env::Listener;
use proto::Identity;
use quinn::{ConnectionError, Endpoint, Incoming};
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tracing::{debug, info};

use super::connection::{OsConnection, canonical};
use super::error::{CODE_CLOSED, CODE_REFUSED, describe};
use super::refusals::Refusals;
use crate::certificate;

/// Handshakes at once.
const HANDSHAKES_MAX: usize = 256;
/// With fewer than this many left, who connects must first prove that its address is not made up.
const HANDSHAKES_RESERVED: usize = HANDSHAKES_MAX / 2;
/// Time for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at once, at one address: what bounds the memory that all peers together can take.
const CONNECTIONS_MAX: usize = 8192;
/// Connections that are made and not accepted yet.
const BACKLOG: usize = 64;

/// Where QUIC connections arrive. Dropping it refuses new connections; those that were accepted go on.
pub struct OsListener {
    accepted: mpsc::Receiver<OsConnection>,
    address: String,
}

impl OsListener {
    /// Takes what arrives at `endpoint` until dropped, or until `stopping` says so.
    pub(super) fn start(endpoint: Endpoint, address: String, stopping: watch::Receiver<bool>) -> Self {
        let (sender, accepted) = mpsc::channel(BACKLOG);
        let handshakes = Handshakes {
            accepted: sender,
            slots: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            refusals: Arc::new(Refusals::new()),
        };
        info!(address, "listening");
        tokio::spawn(run(endpoint, handshakes, stopping));
        Self { accepted, address }
    }
}

impl Listener for OsListener {
    type Connection = OsConnection;

    async fn accept(&mut self) -> Option<OsConnection> {
        self.accepted.recv().await
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}

async fn run(endpoint: Endpoint, handshakes: Handshakes, mut stopping: watch::Receiver<bool>) {
    loop {
        let incoming = tokio::select! {
            biased;
            () = stopped(&mut stopping) => {
                endpoint.close(CODE_CLOSED, b"stopping");
                break endpoint.wait_idle().await;
            }
            () = handshakes.accepted.closed() => {
                break endpoint.set_server_config(None);
            }
            incoming = endpoint.accept() => incoming,
        };
        match incoming {
            Some(incoming) if endpoint.open_connections() >= CONNECTIONS_MAX => {
                handshakes.refuse(incoming, "too many connections");
            }
            Some(incoming) => handshakes.admit(incoming),
            None => break,
        }
    }
}

/// Waits until the host stops, or nobody is left who could stop it.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// The handshakes under way at one endpoint.
#[derive(Clone)]
struct Handshakes {
    accepted: mpsc::Sender<OsConnection>,
    slots: Arc<Semaphore>,
    refusals: Arc<Refusals>,
}

impl Handshakes {
    fn admit(&self, incoming: Incoming) {
        if self.slots.available_permits() < HANDSHAKES_RESERVED && incoming.may_retry() {
            // Fails only for what may not be retried.
            let _ = incoming.retry();
            return;
        }
        match self.slots.clone().try_acquire_owned() {
            Ok(slot) => {
                tokio::spawn(self.clone().shake_hands(incoming, slot));
            }
            Err(_) => self.refuse(incoming, "too many handshakes at once"),
        }
    }

    fn refuse(&self, incoming: Incoming, reason: &str) {
        self.refusals.refused(canonical(incoming.remote_address()), reason);
        incoming.refuse();
    }

    /// Holds `slot` until the connection is accepted, so that a service that accepts nothing is not
    /// buried under connections.
    async fn shake_hands(self, incoming: Incoming, slot: OwnedSemaphorePermit) {
        let address = canonical(incoming.remote_address());
        let work = async {
            let connection = incoming.await.map_err(|error| describe(&error))?;
            let peer = identify(&connection).inspect_err(|reason| {
                connection.close(CODE_REFUSED, reason.as_bytes());
            })?;
            let Ok(place) = self.accepted.reserve().await else { return Ok(()) };
            welcome(&connection).await.map_err(|error| describe(&error))?;
            debug!(%address, %peer, "connection accepted");
            place.send(OsConnection::new(connection, peer));
            Ok::<(), String>(())
        };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, work).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => self.refusals.refused(address, reason),
            Err(_) => self.refusals.refused(address, "the handshake took too long"),
        }
        drop(slot);
    }
}

/// Tells the peer that it is accepted, by a stream without bytes. In TLS 1.3 the side that connects
/// is done before the other has seen its certificate; it waits for this, and so knows that it is not
/// refused before it sends anything.
async fn welcome(connection: &quinn::Connection) -> Result<(), ConnectionError> {
    let mut stream = connection.open_uni().await?;
    // A new stream can be finished unless the connection is lost, which its owner will see.
    let _ = stream.finish();
    Ok(())
}

/// Waits until the peer has accepted us.
pub(super) async fn await_welcome(connection: &quinn::Connection) -> Result<(), ConnectionError> {
    let mut stream = connection.accept_uni().await?;
    // It is empty; whatever it holds is not read. An error here is one of the connection, which the
    // first use will show.
    let _ = stream.read_chunk(1, true).await;
    connection.set_max_concurrent_uni_streams(quinn::VarInt::from_u32(0));
    Ok(())
}

/// Who is at the other end of a connection whose certificate was verified.
pub(super) fn identify(connection: &quinn::Connection) -> Result<Identity, String> {
    let chain = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or("the peer showed no certificate")?;
    let own = chain.first().ok_or("the peer showed no certificate")?;
    match certificate::read(own) {
        Ok(facts) => Ok(facts.identity),
        Err(error) => Err(format!("the certificate cannot be used: {error}")),
    }
}
