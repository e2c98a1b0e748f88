//! The network between all hosts: links, listeners, connections, and what is done to them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::conn::{Conn, Side};
use super::faults::{Link, NetFaults, Tap};
use super::listener::Inbox;
use super::wait::STALLED;
use crate::host::{HostId, Life};
use crate::rng::Stream;
use crate::world::{World, lock};

/// Without a sign of life for this long a connection is lost, as `os` configures quinn.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// A sign of life at least this often.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// The longest time until something that was lost is sent again, once it can arrive.
const RESEND_MAX: Duration = Duration::from_secs(1);
/// A round trip at its longest, roughly.
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// How many in a million of those who could learn at once of a broken connection do.
const PROMPT_PPM: u32 = 600_000;
/// How many in a million of a restarted listener's old peers it tells that their connections are gone.
const STATELESS_RESET_PPM: u32 = 750_000;
/// Ports that the system chooses begin here.
const FIRST_FREE_PORT: u16 = 40_000;

/// The network of a world.
pub struct Network {
    stream: Stream,
    wire: Mutex<Wire>,
    registry: Mutex<Registry>,
    messages: AtomicU64,
}

#[derive(Default)]
struct Wire {
    faults: NetFaults,
    /// Those that are not up.
    links: BTreeMap<(HostId, HostId), LinkState>,
    cuts: u64,
    tap: Option<Arc<dyn Tap>>,
}

struct LinkState {
    link: Link,
    /// Number of the cut.
    cut: u64,
}

#[derive(Default)]
struct Registry {
    next_conn: u64,
    conns: BTreeMap<u64, Weak<Conn>>,
    listeners: BTreeMap<(HostId, u16), Weak<Inbox>>,
    next_pause: u64,
    pauses: BTreeMap<HostId, u64>,
}

/// What is decided about a write before it is sent.
pub(super) struct Fate {
    pub(super) tap: Option<Arc<dyn Tap>>,
    pub(super) breaks: bool,
    pub(super) splits: bool,
}

impl Network {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, wire: Mutex::default(), registry: Mutex::default(), messages: AtomicU64::new(0) }
    }

    /// From now on the network behaves like this.
    pub fn configure(&self, faults: NetFaults) {
        lock(&self.wire).faults = faults;
    }

    /// How it behaves now.
    pub fn faults(&self) -> NetFaults {
        lock(&self.wire).faults
    }

    /// From now on `tap` sees each write.
    pub fn set_tap(&self, tap: Option<Arc<dyn Tap>>) {
        let before = std::mem::replace(&mut lock(&self.wire).tap, tap);
        drop(before);
    }

    /// Changes one direction between two hosts.
    ///
    /// What is sent over a cut link waits, and arrives some time after it works again. A connection that
    /// hears nothing in one direction for 5 s is lost; each side learns of it at its own moment.
    pub fn set_link(&self, from: HostId, to: HostId, link: Link) {
        let (before, cut) = {
            let mut wire = lock(&self.wire);
            let before = wire.links.get(&(from, to)).map_or(Link::Up, |state| state.link);
            wire.cuts += 1;
            let cut = wire.cuts;
            match link {
                Link::Up => wire.links.remove(&(from, to)),
                // A cut that goes on keeps its number.
                Link::Cut if before == Link::Cut => None,
                link => wire.links.insert((from, to), LinkState { link, cut }),
            };
            (before, cut)
        };
        for (conn, side) in
            self.conns_of(from).into_iter().filter(|(conn, side)| conn.host(side.other()) == to)
        {
            match (before == Link::Cut, link == Link::Cut) {
                (false, true) => conn.link_cut(side, cut),
                (true, false) => conn.link_healed(side),
                _ => {}
            }
        }
    }

    /// One direction between two hosts.
    pub fn link(&self, from: HostId, to: HostId) -> Link {
        lock(&self.wire).links.get(&(from, to)).map_or(Link::Up, |state| state.link)
    }

    /// All links work, at full speed.
    pub fn heal(&self) {
        let links: Vec<_> = lock(&self.wire).links.keys().copied().collect();
        for (from, to) in links {
            self.set_link(from, to, Link::Up);
        }
    }

    /// All connections between two hosts are lost now; each side learns of it at its own moment, up to
    /// seconds apart.
    pub fn break_connections(&self, a: HostId, b: HostId) {
        for (conn, side) in self.conns_of(a) {
            if conn.host(side.other()) == b {
                self.break_one(&conn);
            }
        }
    }

    /// How many connections there are, half-open ones included.
    pub fn connections(&self) -> usize {
        lock(&self.registry).conns.len()
    }

    pub(super) fn break_one(&self, conn: &Arc<Conn>) {
        let now = conn.world().now();
        let learns = Side::BOTH.map(|_| {
            Some(if self.stream.chance(PROMPT_PPM) {
                self.later(now, ROUND_TRIP)
            } else {
                self.later(now, IDLE_TIMEOUT)
            })
        });
        conn.sever(self.later(now, ROUND_TRIP), learns, "reset by the network");
    }

    /// A process has ended. Its peers hear no more of it, and learn of that in time, or from its
    /// successor.
    pub(crate) fn host_died(&self, world: &World, host: HostId) {
        lock(&self.registry).pauses.remove(&host);
        let now = world.now();
        for (conn, side) in self.conns_of(host) {
            if !conn.life(side).is_alive() {
                let mut learns = [None; 2];
                learns[side.other().index()] = Some(self.silence(now));
                conn.sever(self.later(now, ROUND_TRIP), learns, "no sign of life");
            }
        }
    }

    /// A process stands still. If that lasts, its peers give its connections up.
    pub(crate) fn host_paused(&self, host: HostId) {
        let pause = {
            let mut registry = lock(&self.registry);
            if registry.pauses.contains_key(&host) {
                return;
            }
            registry.next_pause += 1;
            let pause = registry.next_pause;
            registry.pauses.insert(host, pause);
            pause
        };
        for (conn, side) in self.conns_of(host) {
            let world = conn.world().clone();
            world.clone().spawn("net.idle", async move {
                world.sleep(IDLE_TIMEOUT).await;
                let network = world.network();
                if lock(&network.registry).pauses.get(&host) == Some(&pause) {
                    let mut learns = [None; 2];
                    learns[side.other().index()] = Some(network.soon(world.now()));
                    conn.sever(world.now(), learns, "no sign of life");
                }
            });
        }
    }

    /// A process goes on, and learns which of its connections are no more.
    pub(crate) fn host_resumed(&self, host: HostId) {
        lock(&self.registry).pauses.remove(&host);
        for (conn, side) in self.conns_of(host).into_iter().filter(|(conn, side)| conn.is_unaware(*side)) {
            let now = conn.world().now();
            let limit = if self.stream.chance(PROMPT_PPM) { ROUND_TRIP } else { IDLE_TIMEOUT };
            conn.lose(side, self.later(now, limit), "no sign of life");
        }
    }

    /// A process listens where one before it did: it can tell those who still send there that their
    /// connections are gone (RFC 9000, section 10.3).
    fn reset_predecessors(&self, life: &Life, port: u16) {
        let now = life.world().now();
        for (conn, side) in self.conns_of(life.host.id()) {
            let was_ours = side == Side::Listening && conn.port() == port && !conn.life(side).is_alive();
            if was_ours && self.stream.chance(STATELESS_RESET_PPM) {
                let at = self.later(now, KEEP_ALIVE) + ROUND_TRIP;
                conn.lose(side.other(), at, "the peer has restarted");
                life.world().probe("a restarted listener reset its predecessor's connection");
            }
        }
    }

    /// When something that is sent now arrives; [`STALLED`] when the link is cut.
    pub(super) fn transit(&self, from: HostId, to: HostId, now: Duration) -> Duration {
        let (faults, extra_us) = {
            let wire = lock(&self.wire);
            let link = if wire.links.is_empty() || from == to { None } else { wire.links.get(&(from, to)) };
            match link.map(|state| state.link) {
                Some(Link::Cut) => return STALLED,
                Some(Link::Slow { extra_us }) => (wire.faults, extra_us),
                Some(Link::Up) | None => (wire.faults, 0),
            }
        };
        let (low, high) = faults.latency_us;
        let mut us = self.stream.between(low, high).saturating_add(extra_us);
        if faults.spike_ppm > 0 && self.stream.chance(faults.spike_ppm) {
            let (low, high) = faults.spike_us;
            us = us.saturating_add(self.stream.between(low, high));
        }
        // Never at once: what is sent is not there before the sender goes on.
        now.saturating_add(Duration::from_micros(us.max(1)))
    }

    /// The number of the cut of a link that is cut.
    pub(super) fn cut_of(&self, from: HostId, to: HostId) -> Option<u64> {
        let wire = lock(&self.wire);
        wire.links.get(&(from, to)).filter(|state| state.link == Link::Cut).map(|state| state.cut)
    }

    /// Writes that were sent on all connections so far.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Bytes that were sent on living connections and not read yet.
    pub fn unread_bytes(&self) -> u64 {
        let conns: Vec<Arc<Conn>> = lock(&self.registry).conns.values().filter_map(Weak::upgrade).collect();
        conns.iter().map(|conn| conn.unread_bytes()).sum()
    }

    pub(super) fn fate(&self) -> Fate {
        self.messages.fetch_add(1, Ordering::Relaxed);
        let (tap, reset_ppm, split_ppm) = {
            let wire = lock(&self.wire);
            (wire.tap.clone(), wire.faults.reset_ppm, wire.faults.split_ppm)
        };
        let chance = |ppm| ppm > 0 && self.stream.chance(ppm);
        Fate { tap, breaks: chance(reset_ppm), splits: chance(split_ppm) }
    }

    /// At most `within` after `now`.
    pub(super) fn later(&self, now: Duration, within: Duration) -> Duration {
        let us = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        now + Duration::from_micros(self.stream.between(1, us))
    }

    /// When somebody who has heard nothing for the idle timeout notices: the last sign of life may have
    /// come, or its own may have gone, up to a keep-alive interval later.
    pub(super) fn soon(&self, now: Duration) -> Duration {
        self.later(now, KEEP_ALIVE)
    }

    /// When somebody who hears nothing from now on gives up.
    pub(super) fn silence(&self, now: Duration) -> Duration {
        self.soon(now + IDLE_TIMEOUT)
    }

    /// When what was held up for so long is sent again: the pauses between attempts grow.
    pub(super) fn resent(&self, now: Duration, held_up: Duration) -> Duration {
        self.later(now, held_up.min(RESEND_MAX))
    }

    /// Where something of `length` bytes is cut: from 1 to `length`.
    pub(super) fn cut_point(&self, length: usize) -> usize {
        self.stream.index(length) + 1
    }

    pub(super) fn chance(&self, ppm: u32) -> bool {
        self.stream.chance(ppm)
    }

    fn conns_of(&self, host: HostId) -> Vec<(Arc<Conn>, Side)> {
        let conns: Vec<_> = lock(&self.registry).conns.values().filter_map(Weak::upgrade).collect();
        let sides = |conn: Arc<Conn>| Side::BOTH.map(|side| (conn.clone(), side));
        conns.into_iter().flat_map(sides).filter(|(conn, side)| conn.host(*side) == host).collect()
    }

    pub(super) fn new_conn(&self, lives: [Life; 2], port: u16) -> Arc<Conn> {
        let mut registry = lock(&self.registry);
        registry.next_conn += 1;
        let conn = Arc::new(Conn::new(registry.next_conn, lives, port));
        registry.conns.insert(conn.id(), Arc::downgrade(&conn));
        conn
    }

    pub(super) fn forget(&self, conn: u64) {
        lock(&self.registry).conns.remove(&conn);
    }

    /// The listener of a living process at an address.
    pub(super) fn inbox(&self, host: HostId, port: u16) -> Option<Arc<Inbox>> {
        let inbox = lock(&self.registry).listeners.get(&(host, port)).and_then(Weak::upgrade);
        inbox.filter(|inbox| inbox.is_open())
    }

    /// Takes a port, any for 0; none when it is taken.
    pub(super) fn bind(&self, life: &Life, port: u16) -> Option<Arc<Inbox>> {
        let host = life.host.id();
        let port = match port {
            0 => (FIRST_FREE_PORT..).find(|port| self.inbox(host, *port).is_none())?,
            port if self.inbox(host, port).is_some() => return None,
            port => port,
        };
        let inbox = Arc::new(Inbox::new(life.clone(), port));
        let before = lock(&self.registry).listeners.insert((host, port), Arc::downgrade(&inbox));
        drop(before);
        self.reset_predecessors(life, port);
        Some(inbox)
    }
}
