//! The network: QUIC with certificates on both sides, by quinn.
//!
//! - Both sides prove who they are with certificates of the cluster's authority (`tls`); there is
//!   no plaintext mode. `connect` returns when the peer has accepted us, not only we the peer.
//! - One socket for all outgoing connections and one for each address listened on. A connection uses
//!   about one core at most; who needs more makes several.
//! - A stream that is dropped unfinished is reset, also where quinn would finish it.

mod connection;
mod error;
mod listener;
mod refusals;
mod tls;
mod transport;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use env::{Expect, Net, NetError};
use proto::InvalidInput;
use quinn::{ClientConfig, Endpoint, ServerConfig, TokioRuntime};
use tokio::sync::watch;
use tracing::debug;

pub use connection::{OsConnection, OsRecvStream, OsSendStream};
pub use listener::OsListener;

use crate::certificate;
use crate::credentials::Credentials;
use error::{CODE_CLOSED, CODE_REFUSED};
use transport::Side;

/// Time for a connection to come about, name lookup included. Below the callers' own limit, so that
/// they learn the reason.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_500);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
/// How long an address may still be held by who listened there before.
const LISTEN_PATIENCE: Duration = Duration::from_secs(1);
const LISTEN_PAUSE: Duration = Duration::from_millis(50);
/// Time to say goodbye.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// This machine's network under one certificate. Clones are the same.
#[derive(Clone)]
pub struct OsNet(Arc<Inner>);

struct Inner {
    client: Endpoint,
    client_config: ClientConfig,
    server_config: ServerConfig,
    credentials: Credentials,
    stopping: watch::Sender<bool>,
}

impl OsNet {
    /// Makes the socket for outgoing connections. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When there is no socket to be had, or the credentials are of no use.
    pub fn start(credentials: Credentials) -> Result<Self, NetError> {
        let cannot = |reason: String| NetError::CannotListen { address: "any address".to_owned(), reason };
        let mut client_config = ClientConfig::new(Arc::new(tls::client(&credentials).map_err(cannot)?));
        client_config.transport_config(Arc::new(transport::config(Side::Client)));
        let mut server_config =
            ServerConfig::with_crypto(Arc::new(tls::server(&credentials).map_err(cannot)?));
        server_config
            .transport_config(Arc::new(transport::config(Side::Server)))
            .max_incoming(transport::INCOMING_MAX)
            .incoming_buffer_size_total(transport::INCOMING_BYTES_MAX)
            // Servers do not change their addresses, and clients of a data centre do not roam.
            .migration(false);

        // One socket for both families, where the machine has both.
        let client = endpoint(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), None)
            .or_else(|_| endpoint(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), None))
            .map_err(|error| cannot(error.to_string()))?;
        let (stopping, _) = watch::channel(false);
        Ok(Self(Arc::new(Inner { client, client_config, server_config, credentials, stopping })))
    }

    /// Closes all connections and listeners, and tells the peers. Takes at most a second.
    pub async fn stop(&self) {
        self.0.stopping.send_replace(true);
        self.0.client.close(CODE_CLOSED, b"stopping");
        let goodbye = async {
            self.0.client.wait_idle().await;
            self.0.stopping.closed().await;
        };
        if tokio::time::timeout(STOP_TIMEOUT, goodbye).await.is_err() {
            debug!("some peers did not take leave in time");
        }
    }

    /// Tries the addresses of a name one after the other; each gets its share of the time.
    async fn connect_any(&self, address: &str, expect: &Expect) -> Result<OsConnection, NetError> {
        let unreachable =
            |reason: &str| NetError::Unreachable { address: address.to_owned(), reason: reason.to_owned() };
        let found = resolve(address).await.map_err(|error| unreachable(&error.to_string()))?;
        let share = CONNECT_TIMEOUT / u32::try_from(found.len()).unwrap_or(1).max(1);
        let mut failed = unreachable("the name has no address");
        for socket_address in found {
            let attempt = self.connect_one(address, socket_address, expect);
            match tokio::time::timeout(share, attempt).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = unreachable("no answer"),
            }
        }
        Err(failed)
    }

    async fn connect_one(
        &self,
        address: &str,
        socket_address: SocketAddr,
        expect: &Expect,
    ) -> Result<OsConnection, NetError> {
        let name = certificate::server_name(expect.role());
        let connecting =
            self.0.client.connect_with(self.0.client_config.clone(), socket_address, name).map_err(
                |error| NetError::Unreachable { address: address.to_owned(), reason: error.to_string() },
            )?;
        let connection = connecting.await.map_err(|e| expected(error::connecting(address, &e), expect))?;
        let untrusted = |reason: String| {
            connection.close(CODE_REFUSED, reason.as_bytes());
            NetError::Untrusted { address: address.to_owned(), reason }
        };
        let peer = listener::identify(&connection).map_err(untrusted)?;
        if !expect.accepts(&peer) {
            return Err(untrusted(format!("{peer} is there, not {expect}")));
        }
        listener::await_welcome(&connection).await.map_err(|e| error::connecting(address, &e))?;
        Ok(OsConnection::new(connection, peer))
    }
}

impl Net for OsNet {
    type Listener = OsListener;
    type Connection = OsConnection;

    async fn connect(&self, address: &str, expect: &Expect) -> Result<OsConnection, NetError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connect_any(address, expect)).await {
            Ok(connected) => connected,
            Err(_) => Err(NetError::Unreachable {
                address: address.to_owned(),
                reason: format!("no answer within {} ms", CONNECT_TIMEOUT.as_millis()),
            }),
        }
    }

    async fn listen(&self, address: &str) -> Result<OsListener, NetError> {
        let cannot = |error: io::Error| NetError::CannotListen {
            address: address.to_owned(),
            reason: error.to_string(),
        };
        let found = resolve(address).await.map_err(cannot)?;
        let first = found.first().copied().ok_or_else(|| cannot(io::ErrorKind::AddrNotAvailable.into()))?;
        let endpoint = listen_patiently(first, &self.0).await.map_err(cannot)?;
        let bound = endpoint.local_addr().map_err(cannot)?;
        Ok(OsListener::start(endpoint, bound.to_string(), self.0.stopping.subscribe()))
    }
}

/// A wrong certificate at the other end, with whom we looked for.
fn expected(error: NetError, expect: &Expect) -> NetError {
    match error {
        NetError::Untrusted { address, reason } => {
            NetError::Untrusted { address, reason: format!("{expect} was expected: {reason}") }
        }
        other => other,
    }
}

async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<_> = tokio::net::lookup_host(address).await?.take(ADDRESSES_MAX).collect();
    if found.is_empty() {
        return Err(io::Error::other(InvalidInput::new("the name has no address")));
    }
    Ok(found)
}

/// Who listened here a moment ago may still be taking leave of its peers.
async fn listen_patiently(address: SocketAddr, host: &Inner) -> io::Result<Endpoint> {
    let resets = transport::reset_key(host.credentials.key().secret_der(), address);
    let deadline = tokio::time::Instant::now() + LISTEN_PATIENCE;
    loop {
        match endpoint(address, Some((host.server_config.clone(), resets.clone()))) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(LISTEN_PAUSE).await;
            }
            other => return other,
        }
    }
}

fn endpoint(address: SocketAddr, server: Option<(ServerConfig, hmac::Key)>) -> io::Result<Endpoint> {
    let (server, resets) = server.unzip();
    let config = transport::endpoint_config(resets)?;
    Endpoint::new(config, server, transport::socket(address)?, Arc::new(TokioRuntime))
}
