//! What an end does with the streams of its connection.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use env::NetError;

use super::conn::{Conn, End, Side, State, StreamId, StreamState};
use super::pipe::{Pipe, Taken};
use super::wait::{STALLED, Wakes};

/// Streams that one side may have open, as `os` configures quinn.
const STREAMS_MAX: u64 = 256;
/// Unread bytes of all streams of one direction, as `os` configures quinn.
const CONNECTION_WINDOW_BYTES: u64 = 16 << 20;

/// The rest of a write.
pub(super) struct Writing {
    pub(super) rest: Bytes,
    /// Length of the whole, until its first byte is sent.
    begins: u64,
    split: bool,
}

impl Writing {
    pub(super) fn new(bytes: Bytes, split: bool) -> Self {
        Self { begins: bytes.len() as u64, rest: bytes, split }
    }
}

impl Conn {
    pub(super) fn poll_open(&self, side: Side, context: &Context<'_>) -> Poll<Result<StreamId, NetError>> {
        let now = self.world().now();
        let mut state = self.state();
        let State { ends, streams, .. } = &mut *state;
        let end = &mut ends[side.index()];
        if let Some(error) = end.loss(now) {
            return Poll::Ready(Err(error));
        }
        if end.open >= STREAMS_MAX {
            end.openers.wait(context, self.world(), STALLED);
            return Poll::Pending;
        }
        let stream = StreamId::new(side, end.opened);
        end.opened += 1;
        end.open += 1;
        streams.insert(stream, StreamState { pipes: [Pipe::new(), Pipe::new()], announced: false });
        Poll::Ready(Ok(stream))
    }

    /// A stream that has arrived makes all earlier ones of its opener arrive too (RFC 9000, section 2.1).
    pub(super) fn poll_accept(&self, side: Side, context: &Context<'_>) -> Poll<Result<StreamId, NetError>> {
        let now = self.world().now();
        let mut state = self.state();
        let end = &mut state.ends[side.index()];
        let horizon = now.min(end.deaf_from);
        let (mut next, mut arrived) = (STALLED, end.arrived);
        end.arrivals.retain(|(at, number)| {
            let is_here = *at <= horizon;
            if is_here {
                arrived = arrived.max(number + 1);
            } else {
                next = next.min(*at);
            }
            !is_here
        });
        end.arrived = arrived;
        if end.accepted < arrived {
            end.accepted += 1;
            return Poll::Ready(Ok(StreamId::new(side.other(), end.accepted - 1)));
        }
        if let Some(error) = end.loss(now) {
            return Poll::Ready(Err(error));
        }
        end.acceptors.wait(context, self.world(), if next > end.deaf_from { STALLED } else { next });
        Poll::Pending
    }

    /// Sends as much as there is room for.
    pub(super) fn poll_write(
        &self,
        side: Side,
        stream: StreamId,
        writing: &mut Writing,
        context: &Context<'_>,
    ) -> Poll<Result<(), NetError>> {
        let now = self.world().now();
        let mut wakes = Wakes::new();
        let mut state = self.state();
        if let Some(error) = state.ends[side.index()].loss(now) {
            return Poll::Ready(Err(error));
        }
        while !writing.rest.is_empty() {
            let State { ends, streams, .. } = &mut *state;
            let Some(pipe) = streams.get_mut(&stream).map(|stream| &mut stream.pipes[side.index()]) else {
                return Poll::Ready(Err(NetError::Reset));
            };
            if pipe.is_stopped(now) {
                return Poll::Ready(Err(NetError::Reset));
            }
            let end = &mut ends[side.index()];
            let of_all = CONNECTION_WINDOW_BYTES.saturating_sub(end.unread);
            let room = pipe.room(now).min(of_all);
            if room == 0 {
                if of_all == 0 && !end.starved.contains(&stream) {
                    end.starved.push(stream);
                }
                pipe.writer.wait(context, self.world(), pipe.news_for_writer());
                return Poll::Pending;
            }
            // Dropped after the lock.
            wakes.spare(pipe.writer.take());
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(writing.rest.len());
            let room = if writing.split { self.network().cut_point(room) } else { room };
            writing.split = false;
            let piece = writing.rest.split_to(room);
            self.transmit(&mut state, now, side, stream, piece, std::mem::take(&mut writing.begins));
        }
        Poll::Ready(Ok(()))
    }

    fn transmit(
        &self,
        state: &mut State,
        now: Duration,
        side: Side,
        stream: StreamId,
        piece: Bytes,
        begins: u64,
    ) {
        let at = self.transit(state.severed, side, now);
        let Some(pipe) = state.streams.get_mut(&stream).map(|stream| &mut stream.pipes[side.index()]) else {
            return;
        };
        let bytes = piece.len() as u64;
        if state.severed {
            return pipe.push_nowhere(bytes);
        }
        if pipe.is_read() {
            state.ends[side.index()].unread += bytes;
        }
        let at = pipe.push(now, at, piece, begins);
        pipe.reader.arm(self.world(), at);
        self.announce(state, side, stream, at);
    }

    /// The peer learns of a stream with the first that is sent on it.
    fn announce(&self, state: &mut State, side: Side, stream: StreamId, at: Duration) {
        let State { ends, streams, .. } = state;
        let fresh = stream.opener() == side
            && streams.get_mut(&stream).is_some_and(|stream| !std::mem::replace(&mut stream.announced, true));
        if fresh {
            let peer = &mut ends[side.other().index()];
            peer.arrivals.push((at, stream.number()));
            peer.acceptors.arm(self.world(), at);
        }
    }

    /// Sends the beginning of a write that the connection does not survive.
    pub(super) fn send_part(&self, side: Side, stream: StreamId, writing: &mut Writing) {
        let now = self.world().now();
        let mut state = self.state();
        let room = state.streams.get_mut(&stream).map_or(0, |stream| stream.pipes[side.index()].room(now));
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(writing.rest.len());
        if room > 1 {
            let piece = writing.rest.split_to(self.network().cut_point(room - 1));
            self.transmit(&mut state, now, side, stream, piece, std::mem::take(&mut writing.begins));
        }
    }

    pub(super) fn finish(&self, side: Side, stream: StreamId) -> Result<(), NetError> {
        let now = self.world().now();
        let mut wakes = Wakes::new();
        {
            let mut state = self.state();
            if let Some(error) = state.ends[side.index()].loss(now) {
                return Err(error);
            }
            let at = self.transit(state.severed, side, now);
            let Some(pipe) = state.streams.get_mut(&stream).map(|stream| &mut stream.pipes[side.index()])
            else {
                return Err(NetError::Reset);
            };
            let at = pipe.finish(now, at);
            pipe.reader.arm(self.world(), at);
            self.announce(&mut state, side, stream, at);
            retire(&mut state, stream, &mut wakes);
        }
        wakes.wake();
        Ok(())
    }

    /// The writer gives the stream up.
    pub(super) fn reset(&self, side: Side, stream: StreamId) {
        let now = self.world().now();
        let mut wakes = Wakes::new();
        {
            let mut state = self.state();
            let at = self.transit(state.severed, side, now);
            let Some(pipe) = state.streams.get_mut(&stream).map(|stream| &mut stream.pipes[side.index()])
            else {
                return;
            };
            pipe.reset(at);
            pipe.reader.arm(self.world(), at);
            self.announce(&mut state, side, stream, at);
            retire(&mut state, stream, &mut wakes);
        }
        wakes.wake();
    }

    /// The reader gives the stream up.
    pub(super) fn stop(&self, side: Side, stream: StreamId) {
        let now = self.world().now();
        let mut wakes = Wakes::new();
        {
            let mut state = self.state();
            let at = self.transit(state.severed, side, now);
            let writer = side.other();
            let Some(pipe) = state.streams.get_mut(&stream).map(|stream| &mut stream.pipes[writer.index()])
            else {
                return;
            };
            let unread = pipe.stop(at);
            pipe.writer.arm(self.world(), at);
            self.announce(&mut state, side, stream, at);
            make_room(&mut state, writer, unread, &mut wakes);
            retire(&mut state, stream, &mut wakes);
        }
        wakes.wake();
    }

    pub(super) fn poll_read(
        &self,
        side: Side,
        stream: StreamId,
        max: usize,
        context: &Context<'_>,
    ) -> Poll<Result<Option<Bytes>, NetError>> {
        let now = self.world().now();
        let mut wakes = Wakes::new();
        let taken = {
            let mut state = self.state();
            self.take(&mut state, now, side, stream, max, context, &mut wakes)
        };
        wakes.wake();
        match taken {
            Ok(Taken::Bytes(bytes, begins)) => {
                if begins > 0 {
                    self.delivered(side, stream, begins);
                }
                Poll::Ready(Ok(Some(bytes)))
            }
            Ok(Taken::End) => Poll::Ready(Ok(None)),
            Ok(Taken::Reset) => Poll::Ready(Err(NetError::Reset)),
            Ok(Taken::Nothing(_)) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the locked half of `poll_read`")]
    fn take(
        &self,
        state: &mut State,
        now: Duration,
        side: Side,
        stream: StreamId,
        max: usize,
        context: &Context<'_>,
        wakes: &mut Wakes,
    ) -> Result<Taken, NetError> {
        let writer = side.other();
        let State { ends, streams, severed } = state;
        let end: &End = &ends[side.index()];
        let Some(pipe) = streams.get_mut(&stream).map(|stream| &mut stream.pipes[writer.index()]) else {
            return Ok(Taken::Reset);
        };
        let (taken, freed) = pipe.take(now, end.deaf_from, max);
        match &taken {
            Taken::Nothing(at) => {
                if let Some(error) = end.loss(now) {
                    return Err(error);
                }
                pipe.reader.wait(context, self.world(), *at);
                return Ok(taken);
            }
            _ => wakes.spare(pipe.reader.take()),
        }
        match &taken {
            Taken::Bytes(..) if pipe.owes_credit() => {
                let at = pipe.tell_credit(self.transit(*severed, side, now));
                pipe.writer.arm(self.world(), at);
            }
            Taken::Bytes(..) | Taken::Nothing(_) => {}
            Taken::End | Taken::Reset => retire(state, stream, wakes),
        }
        make_room(state, writer, freed, wakes);
        Ok(taken)
    }

    fn delivered(&self, side: Side, stream: StreamId, bytes: u64) {
        let from = self.host(side.other());
        let numbers = [u64::from(from.0), self.id(), stream.0, bytes];
        self.world().event(Some(self.host(side)), "net.recv", &numbers, || {
            let from = self.world().host_name(Some(from));
            format!("{bytes} bytes from {from}, connection {} stream {}", self.id(), stream.0)
        });
    }
}

/// The peer of `writer` has read or thrown away `bytes`.
fn make_room(state: &mut State, writer: Side, bytes: u64, wakes: &mut Wakes) {
    let State { ends, streams, .. } = state;
    let end = &mut ends[writer.index()];
    end.unread = end.unread.saturating_sub(bytes);
    if bytes > 0 && !end.starved.is_empty() {
        for stream in end.starved.drain(..) {
            if let Some(stream) = streams.get_mut(&stream) {
                wakes.add(stream.pipes[writer.index()].writer.take());
            }
        }
    }
}

/// A stream that nobody needs any more makes way for another.
fn retire(state: &mut State, stream: StreamId, wakes: &mut Wakes) {
    let State { ends, streams, .. } = state;
    if streams.get(&stream).is_some_and(|stream| stream.pipes.iter().all(Pipe::is_done)) {
        streams.remove(&stream);
        let opener = &mut ends[stream.opener().index()];
        opener.open -= 1;
        wakes.add_all(&mut opener.openers.0);
    }
}
