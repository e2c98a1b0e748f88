//! Connections and their streams, as a process holds them.

use std::future::{pending, poll_fn};
use std::sync::Arc;

use bytes::Bytes;
use env::{Connection, NetError, RecvStream, SendStream};
use proto::Identity;

use super::conn::{Conn, Side, StreamId};
use super::faults::{Sent, Verdict};
use super::flow::Writing;
use crate::host::Life;

/// One end of a connection: it closes when nobody holds this any more.
pub(super) struct End {
    conn: Arc<Conn>,
    side: Side,
    peer_address: String,
}

impl End {
    fn life(&self) -> &Life {
        self.conn.life(self.side)
    }

    /// The dead do not go on.
    async fn alive(&self) {
        if !self.life().is_alive() {
            pending::<()>().await;
        }
    }

    /// The dead do not go on, and an operation may be the one that a host dies at.
    async fn step(&self, what: &'static str, after: bool) {
        if !self.life().step(what, after) {
            pending::<()>().await;
        }
    }

    /// True when what this end gives up is to be told to the peer.
    fn speaks(&self) -> bool {
        self.life().is_alive()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.conn.close(self.side, "");
    }
}

/// A connection whose peer is known.
#[derive(Clone)]
pub struct SimConnection(Arc<End>);

impl SimConnection {
    pub(super) fn new(conn: Arc<Conn>, side: Side, peer_address: String) -> Self {
        Self(Arc::new(End { conn, side, peer_address }))
    }

    fn streams(&self, stream: StreamId) -> (SimSend, SimRecv) {
        let send = SimSend { end: self.0.clone(), stream, state: Stage::Whole, writes: 0 };
        (send, SimRecv { end: self.0.clone(), stream, ended: None })
    }
}

impl Connection for SimConnection {
    type Send = SimSend;
    type Recv = SimRecv;

    fn peer(&self) -> &Identity {
        self.0.conn.life(self.0.side.other()).host.identity()
    }

    fn peer_address(&self) -> String {
        self.0.peer_address.clone()
    }

    async fn open(&self) -> Result<(SimSend, SimRecv), NetError> {
        self.0.alive().await;
        let stream = poll_fn(|context| self.0.conn.poll_open(self.0.side, context)).await?;
        Ok(self.streams(stream))
    }

    async fn accept(&self) -> Result<(SimSend, SimRecv), NetError> {
        self.0.alive().await;
        let stream = poll_fn(|context| self.0.conn.poll_accept(self.0.side, context)).await?;
        Ok(self.streams(stream))
    }

    fn close(&self, reason: &str) {
        self.0.conn.close(self.0.side, reason);
    }

    fn is_closed(&self) -> bool {
        self.0.conn.is_lost(self.0.side)
    }
}

/// Where a stream that we write stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// All bytes of all writes are in.
    Whole,
    /// A write is under way, or was dropped halfway: what is there must not pass for a message.
    Torn,
    /// Ended.
    Finished,
}

/// The half of a stream that we write.
pub struct SimSend {
    end: Arc<End>,
    stream: StreamId,
    state: Stage,
    writes: u64,
}

impl SimSend {
    fn must_be_whole(&self) -> Result<(), NetError> {
        if self.state == Stage::Whole {
            return Ok(());
        }
        Err(NetError::Lost("the stream is finished or was given up".to_owned()))
    }

    /// Sends what the network and the tap make of `bytes`.
    async fn send(&mut self, bytes: Bytes) -> Result<(), NetError> {
        let End { conn, side, .. } = &*self.end;
        let network = conn.network();
        let fate = network.fate();
        let bytes = match &fate.tap {
            Some(tap) => match tap.message(self.describe(&bytes)) {
                Verdict::Pass => bytes,
                Verdict::Replace(bytes) => bytes,
                Verdict::Reset => {
                    conn.reset(*side, self.stream);
                    return Err(NetError::Reset);
                }
            },
            None => bytes,
        };
        self.writes += 1;
        let mut writing = Writing::new(bytes, fate.splits);
        if fate.breaks {
            // Until this end learns of it, the rest goes nowhere.
            conn.send_part(*side, self.stream, &mut writing);
            network.break_one(conn);
            conn.world().probe("a connection broke within a message");
        }
        poll_fn(|context| conn.poll_write(*side, self.stream, &mut writing, context)).await
    }

    fn describe<'a>(&self, bytes: &'a Bytes) -> Sent<'a> {
        let End { conn, side, .. } = &*self.end;
        Sent {
            from: conn.host(*side),
            to: conn.host(side.other()),
            connection: conn.id(),
            stream: self.stream.0,
            opener: self.stream.opener() == *side,
            index: self.writes,
            bytes,
        }
    }
}

impl SendStream for SimSend {
    async fn write(&mut self, bytes: Bytes) -> Result<(), NetError> {
        self.must_be_whole()?;
        self.end.step("net.send", false).await;
        self.state = Stage::Torn;
        if !bytes.is_empty() {
            self.send(bytes).await?;
        }
        self.end.step("net.send", true).await;
        self.state = Stage::Whole;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), NetError> {
        self.must_be_whole()?;
        let died = || NetError::Lost("the process has died".to_owned());
        if !self.end.life().step("net.finish", false) {
            return Err(died());
        }
        self.end.conn.finish(self.end.side, self.stream)?;
        self.state = Stage::Finished;
        if self.end.life().step("net.finish", true) { Ok(()) } else { Err(died()) }
    }
}

/// The peer must not take half a message for a whole one.
impl Drop for SimSend {
    fn drop(&mut self) {
        if self.state != Stage::Finished && self.end.speaks() {
            self.end.conn.reset(self.end.side, self.stream);
        }
    }
}

/// The half of a stream that we read.
pub struct SimRecv {
    end: Arc<End>,
    stream: StreamId,
    /// The end stays the end, and a reset a reset.
    ended: Option<Result<(), NetError>>,
}

impl RecvStream for SimRecv {
    async fn read(&mut self, max_bytes: usize) -> Result<Option<Bytes>, NetError> {
        assert!(max_bytes > 0, "a read of at most {max_bytes} bytes would not differ from the end");
        self.end.alive().await;
        if let Some(ended) = &self.ended {
            return ended.clone().map(|()| None);
        }
        let End { conn, side, .. } = &*self.end;
        let read = poll_fn(|context| conn.poll_read(*side, self.stream, max_bytes, context)).await;
        match &read {
            Ok(Some(_)) | Err(NetError::Lost(_)) => {}
            Ok(None) => self.ended = Some(Ok(())),
            Err(error) => self.ended = Some(Err(error.clone())),
        }
        read
    }
}

impl Drop for SimRecv {
    fn drop(&mut self) {
        if self.ended.is_none() && self.end.speaks() {
            self.end.conn.stop(self.end.side, self.stream);
        }
    }
}
