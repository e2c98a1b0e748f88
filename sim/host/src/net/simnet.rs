//! The network of one process: connecting and listening.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use env::{Expect, Net, NetError};

use super::conn::{Conn, Side};
use super::connection::SimConnection;
use super::listener::{Inbox, SimListener};
use super::wait::STALLED;
use crate::host::{HostId, Life};

/// Time for a connection to come about, as in `os`.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_500);
/// When the first message of a handshake is sent: quinn's probe timeouts, doubling, with `os`'s 100 ms as
/// the first guess of a round trip.
const ATTEMPTS_MS: [u64; 4] = [0, 300, 900, 2_100];
/// How long an address may still be held by who listened there before, as in `os`.
const LISTEN_PATIENCE: Duration = Duration::from_secs(1);
/// How many in a million of the peers that are refused for their name saw a connection come and go.
const GLIMPSE_PPM: u32 = 500_000;
/// The port of all connections that a process makes.
const CLIENT_PORT: u16 = 39_999;

/// The network as one process sees it. Clones are the same.
#[derive(Clone)]
pub struct SimNet(Life);

/// `h<id>:<port>`.
fn parse(address: &str) -> Option<(HostId, u16)> {
    let (host, port) = address.strip_prefix('h')?.split_once(':')?;
    Some((HostId(host.parse().ok()?), port.parse().ok()?))
}

impl SimNet {
    pub(crate) fn new(life: Life) -> Self {
        Self(life)
    }

    /// Handshakes until one comes through.
    async fn reach(&self, to: HostId, port: u16) -> Arc<Inbox> {
        let began = self.0.world().now();
        for attempt_ms in ATTEMPTS_MS {
            let at = began + Duration::from_millis(attempt_ms);
            if at > self.0.world().now() {
                self.0.world().sleep_until(at).await;
            }
            if let Some(inbox) = self.shake_hands(to, port).await {
                return inbox;
            }
        }
        pending().await
    }

    /// One and a half round trips: then the peer knows who we are.
    async fn shake_hands(&self, to: HostId, port: u16) -> Option<Arc<Inbox>> {
        let (world, from) = (self.0.world(), self.0.host.id());
        let mut at = world.now();
        for (from, to) in [(from, to), (to, from), (from, to)] {
            at = world.network().transit(from, to, at);
        }
        if at == STALLED {
            return None;
        }
        world.sleep_until(at).await;
        let network = world.network();
        let is_open = network.cut_of(from, to).is_none() && network.cut_of(to, from).is_none();
        network.inbox(to, port).filter(|inbox| is_open && inbox.answers())
    }

    /// Both ends of a new connection: ours, and the listener's, which is put before it.
    fn join(&self, inbox: &Inbox, address: &str) -> (Arc<Conn>, SimConnection) {
        let world = self.0.world();
        let conn = world.network().new_conn([self.0.clone(), inbox.life().clone()], inbox.port());
        let from = format!("{}:{CLIENT_PORT}", self.0.host().address());
        inbox.push(SimConnection::new(conn.clone(), Side::Listening, from));
        let peer = inbox.life().host.id();
        world.event(Some(self.0.host.id()), "net.connected", &[u64::from(peer.0), conn.id()], || {
            format!("connection {} to {address} ({})", conn.id(), inbox.life().host.identity())
        });
        (conn.clone(), SimConnection::new(conn, Side::Connecting, address.to_owned()))
    }

    async fn connect_one(
        &self,
        address: &str,
        to: HostId,
        port: u16,
        expect: &Expect,
    ) -> Result<SimConnection, NetError> {
        let inbox = self.reach(to, port).await;
        let peer = inbox.life().host.identity();
        if !expect.accepts(peer) {
            // The certificate's role is checked within the handshake, the name just after it.
            if expect.role() == peer.role() && self.0.world().network().chance(GLIMPSE_PPM) {
                drop(self.join(&inbox, address));
            }
            let reason = format!("{expect} was expected: {peer} is there, not {expect}");
            return Err(NetError::Untrusted { address: address.to_owned(), reason });
        }
        let (conn, connection) = self.join(&inbox, address);
        let world = self.0.world();
        let welcome = conn.transit(false, Side::Listening, world.now());
        world.sleep_until(welcome).await;
        if conn.is_lost(Side::Connecting) {
            let reason = "the connection was lost at once".to_owned();
            return Err(NetError::Unreachable { address: address.to_owned(), reason });
        }
        Ok(connection)
    }
}

impl Net for SimNet {
    type Listener = SimListener;
    type Connection = SimConnection;

    async fn connect(&self, address: &str, expect: &Expect) -> Result<SimConnection, NetError> {
        if !self.0.step("net.connect", false) {
            pending::<()>().await;
        }
        let unreachable = |reason: String| NetError::Unreachable { address: address.to_owned(), reason };
        let (to, port) = parse(address).ok_or_else(|| unreachable("the name has no address".to_owned()))?;
        let connected = tokio::select! {
            biased;
            connected = self.connect_one(address, to, port, expect) => connected,
            () = self.0.world().sleep(CONNECT_TIMEOUT) => {
                Err(unreachable(format!("no answer within {} ms", CONNECT_TIMEOUT.as_millis())))
            }
        };
        if !self.0.step("net.connect", true) {
            pending::<()>().await;
        }
        connected
    }

    async fn listen(&self, address: &str) -> Result<SimListener, NetError> {
        if !self.0.step("net.listen", false) {
            pending::<()>().await;
        }
        let cannot =
            |reason: &str| NetError::CannotListen { address: address.to_owned(), reason: reason.to_owned() };
        let (host, port) = parse(address).ok_or_else(|| cannot("the name has no address"))?;
        if host != self.0.host.id() {
            return Err(cannot("the address is not this host's"));
        }
        let network = self.0.world().network();
        let mut inbox = network.bind(&self.0, port);
        if inbox.is_none() {
            self.0.world().sleep(LISTEN_PATIENCE).await;
            inbox = network.bind(&self.0, port);
        }
        inbox.map(SimListener).ok_or_else(|| cannot("the address is in use"))
    }
}
