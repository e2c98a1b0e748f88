//! A connection: what both its ends share, how it is lost, and when each end learns of it.
//!
//! Nothing is transmitted once it is *severed*. Each end has a moment from which on nothing arrives
//! there ([`End::deaf_from`]), and one at which it learns that the connection is lost; in between it is
//! half-open.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use env::NetError;

use super::network::{IDLE_TIMEOUT, Network};
use super::pipe::Pipe;
use super::wait::{Crowd, STALLED, Wakes};
use crate::host::{HostId, Life};
use crate::world::{World, lock};

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that connects.
    Connecting,
    /// The one that listens.
    Listening,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::Connecting, Self::Listening];

    pub(super) fn other(self) -> Self {
        match self {
            Self::Connecting => Self::Listening,
            Self::Listening => Self::Connecting,
        }
    }

    pub(super) fn index(self) -> usize {
        match self {
            Self::Connecting => 0,
            Self::Listening => 1,
        }
    }
}

/// A stream of a connection: twice its number among the streams of its opener, and 1 if the listening
/// side is that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) u64);

impl StreamId {
    pub(super) fn new(opener: Side, number: u64) -> Self {
        Self(number * 2 + u64::from(opener == Side::Listening))
    }

    pub(super) fn opener(self) -> Side {
        if self.0.is_multiple_of(2) { Side::Connecting } else { Side::Listening }
    }

    pub(super) fn number(self) -> u64 {
        self.0 / 2
    }
}

pub(super) struct StreamState {
    /// By the side that writes.
    pub(super) pipes: [Pipe; 2],
    /// Has its opener sent anything?
    pub(super) announced: bool,
}

struct Lost {
    at: Duration,
    reason: String,
}

/// What one end knows.
pub(super) struct End {
    lost: Option<Lost>,
    /// Those who wait were woken after the loss.
    told: bool,
    pub(super) deaf_from: Duration,
    /// The link out of this end was cut then, and has not worked since.
    cut_since: Option<Duration>,
    /// Streams that it has opened, and how many of them are in use.
    pub(super) opened: u64,
    pub(super) open: u64,
    pub(super) openers: Crowd,
    /// Streams of the peer on their way here: when, and which.
    pub(super) arrivals: Vec<(Duration, u64)>,
    /// Streams of the peer that arrived, and that were accepted.
    pub(super) arrived: u64,
    pub(super) accepted: u64,
    pub(super) acceptors: Crowd,
    /// Bytes that it wrote and the peer has not read.
    pub(super) unread: u64,
    /// Streams whose writers wait for that to become less.
    pub(super) starved: Vec<StreamId>,
}

impl End {
    fn new() -> Self {
        Self {
            lost: None,
            told: false,
            deaf_from: STALLED,
            cut_since: None,
            opened: 0,
            open: 0,
            openers: Crowd::default(),
            arrivals: Vec::new(),
            arrived: 0,
            accepted: 0,
            acceptors: Crowd::default(),
            unread: 0,
            starved: Vec::new(),
        }
    }

    /// The error of every operation once the end knows.
    pub(super) fn loss(&self, now: Duration) -> Option<NetError> {
        let lost = self.lost.as_ref().filter(|lost| lost.at <= now)?;
        Some(NetError::Lost(lost.reason.clone()))
    }
}

pub(super) struct State {
    /// By side.
    pub(super) ends: [End; 2],
    pub(super) streams: BTreeMap<StreamId, StreamState>,
    pub(super) severed: bool,
}

/// See the module.
pub(super) struct Conn {
    id: u64,
    /// The processes at both ends.
    lives: [Life; 2],
    /// Where it was accepted.
    port: u16,
    state: Mutex<State>,
}

impl Conn {
    pub(super) fn new(id: u64, lives: [Life; 2], port: u16) -> Self {
        let state = State { ends: [End::new(), End::new()], streams: BTreeMap::new(), severed: false };
        Self { id, lives, port, state: Mutex::new(state) }
    }

    /// Bytes that either end wrote and the other has not read.
    pub(super) fn unread_bytes(&self) -> u64 {
        lock(&self.state).ends.iter().map(|end| end.unread).sum()
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn life(&self, side: Side) -> &Life {
        &self.lives[side.index()]
    }

    pub(super) fn host(&self, side: Side) -> HostId {
        self.life(side).host.id()
    }

    pub(super) fn world(&self) -> &World {
        self.lives[0].world()
    }

    pub(super) fn network(&self) -> &Network {
        self.world().network()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// When something that `from` sends now arrives: never on a connection that is no more.
    pub(super) fn transit(&self, severed: bool, from: Side, now: Duration) -> Duration {
        if severed {
            return STALLED;
        }
        self.network().transit(self.host(from), self.host(from.other()), now)
    }

    pub(super) fn is_lost(&self, side: Side) -> bool {
        let now = self.world().now();
        self.state().ends[side.index()].loss(now).is_some()
    }

    /// This end closes the connection, and the other learns of it.
    pub(super) fn close(self: &Arc<Self>, side: Side, reason: &str) {
        let now = self.world().now();
        if !self.life(side).is_alive() || self.is_lost(side) {
            return;
        }
        let was_severed = std::mem::replace(&mut self.state().severed, true);
        self.lose(side, now, "closed by this side");
        let arrives = self.transit(was_severed, side, now);
        if was_severed {
            // The other end learns of that when it does.
        } else if arrives == STALLED {
            self.deafen(side.other(), now);
            self.lose(side.other(), self.network().silence(now), "no sign of life");
        } else if reason.is_empty() {
            self.lose(side.other(), arrives, "closed by the peer");
        } else {
            self.lose(side.other(), arrives, &format!("closed by the peer: {reason}"));
        }
    }

    /// Nothing is transmitted any more; what is on its way arrives until `deaf_from`. Each end learns of
    /// it at its moment, if it has one.
    pub(super) fn sever(self: &Arc<Self>, deaf_from: Duration, learns: [Option<Duration>; 2], reason: &str) {
        if std::mem::replace(&mut self.state().severed, true) {
            return;
        }
        for side in Side::BOTH {
            self.deafen(side, deaf_from);
            if let Some(at) = learns[side.index()] {
                self.lose(side, at, reason);
            }
        }
        if let [Some(one), Some(other)] = learns
            && one.abs_diff(other) > Duration::from_secs(1)
        {
            self.world().probe("a half-open connection");
        }
    }

    fn deafen(&self, side: Side, from: Duration) {
        let end = &mut self.state().ends[side.index()];
        end.deaf_from = end.deaf_from.min(from);
    }

    /// This end learns at `at` that the connection is lost, if it does not learn it before.
    pub(super) fn lose(self: &Arc<Self>, side: Side, at: Duration, reason: &str) {
        {
            let end = &mut self.state().ends[side.index()];
            if end.lost.as_ref().is_some_and(|lost| lost.at <= at) {
                return;
            }
            end.lost = Some(Lost { at, reason: reason.to_owned() });
            end.deaf_from = end.deaf_from.min(at);
        }
        if at <= self.world().now() {
            return self.tell(side);
        }
        let conn = self.clone();
        self.world().spawn("net.lost", async move {
            conn.world().sleep_until(at).await;
            conn.tell(side);
        });
    }

    /// Wakes everybody at an end that has learned of the loss.
    fn tell(&self, side: Side) {
        let now = self.world().now();
        let mut wakes = Wakes::new();
        let reason = {
            let mut state = self.state();
            let State { ends, streams, .. } = &mut *state;
            let end = &mut ends[side.index()];
            let Some(lost) = end.lost.as_ref().filter(|lost| lost.at <= now && !end.told) else { return };
            let reason = lost.reason.clone();
            end.told = true;
            wakes.add_all(&mut end.acceptors.0);
            wakes.add_all(&mut end.openers.0);
            for stream in streams.values_mut() {
                wakes.add(stream.pipes[side.index()].writer.take());
                wakes.add(stream.pipes[side.other().index()].reader.take());
            }
            reason
        };
        wakes.wake();
        if self.life(side).is_alive() {
            let peer = self.host(side.other());
            self.world().event(Some(self.host(side)), "net.lost", &[u64::from(peer.0), self.id], || {
                format!("connection {} with {}: {reason}", self.id, self.world().host_name(Some(peer)))
            });
        }
    }

    /// Has it been severed without this end having a moment to learn of it?
    pub(super) fn is_unaware(&self, side: Side) -> bool {
        let state = self.state();
        state.severed && state.ends[side.index()].lost.is_none()
    }

    /// The link from `side` was cut; `cut` is the number of the cut. If it lasts, nothing keeps the
    /// connection up.
    pub(super) fn link_cut(self: &Arc<Self>, side: Side, cut: u64) {
        let now = self.world().now();
        {
            let mut state = self.state();
            if state.severed {
                return;
            }
            state.ends[side.index()].cut_since.get_or_insert(now);
        }
        let conn = self.clone();
        self.world().spawn("net.idle", async move {
            conn.world().sleep_until(now + IDLE_TIMEOUT).await;
            let network = conn.network();
            if network.cut_of(conn.host(side), conn.host(side.other())) == Some(cut) {
                conn.fell_silent();
            }
        });
    }

    /// Nothing has come through in at least one direction for the idle timeout. Who hears nothing gives
    /// up first, and the other only when it has heard nothing of that one for as long.
    fn fell_silent(self: &Arc<Self>) {
        let now = self.world().now();
        let network = self.network();
        let learns = Side::BOTH.map(|side| {
            let hears = network.cut_of(self.host(side.other()), self.host(side)).is_none();
            Some(if hears { network.later(now, IDLE_TIMEOUT) } else { network.soon(now) })
        });
        self.sever(now, learns, "no sign of life");
    }

    /// The link from `side` works again: what it held up is sent once more.
    pub(super) fn link_healed(&self, side: Side) {
        let now = self.world().now();
        let mut wakes = Wakes::new();
        {
            let mut state = self.state();
            let State { ends, streams, severed } = &mut *state;
            let Some(since) = ends[side.index()].cut_since.take() else { return };
            if *severed {
                return;
            }
            let resent = self.network().resent(now, now.saturating_sub(since));
            let mut arrivals = streams.values_mut().map(|stream| {
                let base = self.transit(false, side, resent);
                stream.pipes[side.index()].release_to_reader(base);
                stream.pipes[side.other().index()].release_to_writer(base);
                wakes.add(stream.pipes[side.index()].reader.take());
                wakes.add(stream.pipes[side.other().index()].writer.take());
                base
            });
            let first = arrivals.next().unwrap_or(resent);
            let last = arrivals.fold(first, Duration::max);
            let peer = &mut ends[side.other().index()];
            for (at, _) in peer.arrivals.iter_mut().filter(|(at, _)| *at == STALLED) {
                *at = last;
            }
            wakes.add_all(&mut peer.acceptors.0);
        }
        wakes.wake();
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.network().forget(self.id);
    }
}
