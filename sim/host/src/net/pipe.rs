//! One direction of a stream: what was written and not read yet, and what is on its way.
//!
//! Everything has the moment at which it arrives, decided when it is sent; [`STALLED`] is held up by
//! a cut link. Nothing here looks at a clock, draws a number or knows a connection.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::wait::{STALLED, Slot};

/// What a sender may have under way that was not read: as `os` configures quinn.
pub(super) const WINDOW_BYTES: u64 = 1 << 20;
/// The reader tells its window's new end after so many bytes (quinn: an eighth of the window).
const CREDIT_BYTES: u64 = WINDOW_BYTES / 8;

struct Piece {
    at: Duration,
    bytes: Bytes,
    /// Length of the write that begins here, until its first byte was read; 0 within one.
    begins: u64,
}

/// What a read finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Bytes, and the length of the write that begins with them (0 when they are the rest of one).
    Bytes(Bytes, u64),
    /// The stream's end.
    End,
    /// The sender gave up.
    Reset,
    /// Nothing before this moment.
    Nothing(Duration),
}

/// See the module.
pub(super) struct Pipe {
    pieces: VecDeque<Piece>,
    /// The last piece's moments.
    last_at: Duration,
    sent_at: Duration,
    fin_at: Option<Duration>,
    reset_at: Option<Duration>,
    /// Windows' ends on their way to the writer.
    credits: VecDeque<(Duration, u64)>,
    stopped_at: Option<Duration>,
    sent: u64,
    consumed: u64,
    /// The window's end as the writer knows it, and as the reader last told it.
    limit: u64,
    told: u64,
    pub(super) reader: Slot,
    pub(super) writer: Slot,
    writer_done: bool,
    reader_done: bool,
}

impl Pipe {
    pub(super) fn new() -> Self {
        Self {
            pieces: VecDeque::new(),
            last_at: Duration::ZERO,
            sent_at: Duration::ZERO,
            fin_at: None,
            reset_at: None,
            credits: VecDeque::new(),
            stopped_at: None,
            sent: 0,
            consumed: 0,
            limit: WINDOW_BYTES,
            told: WINDOW_BYTES,
            reader: Slot::default(),
            writer: Slot::default(),
            writer_done: false,
            reader_done: false,
        }
    }

    /// Bytes that the writer may send now.
    pub(super) fn room(&mut self, now: Duration) -> u64 {
        while let Some((_, limit)) = self.credits.front().filter(|(at, _)| *at <= now) {
            self.limit = *limit;
            self.credits.pop_front();
        }
        self.limit - self.sent
    }

    /// When the writer learns something new.
    pub(super) fn news_for_writer(&self) -> Duration {
        let credit = self.credits.front().map_or(STALLED, |(at, _)| *at);
        credit.min(self.stopped_at.unwrap_or(STALLED))
    }

    /// Does the writer know that nobody reads?
    pub(super) fn is_stopped(&self, now: Duration) -> bool {
        self.stopped_at.is_some_and(|at| at <= now)
    }

    /// Sends a piece that takes until `at`, or longer: pieces keep their order. `begins` is the length
    /// of the write, at its first piece. Returns when it arrives.
    pub(super) fn push(&mut self, now: Duration, at: Duration, bytes: Bytes, begins: u64) -> Duration {
        self.sent += bytes.len() as u64;
        self.sent_at = now;
        self.last_at = self.last_at.max(at);
        if !self.reader_done {
            self.pieces.push_back(Piece { at: self.last_at, bytes, begins });
        }
        self.last_at
    }

    /// Sends what nobody will ever receive.
    pub(super) fn push_nowhere(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// Ends the stream; the end travels with the last piece if that was written just now.
    pub(super) fn finish(&mut self, now: Duration, at: Duration) -> Duration {
        let alone = self.sent == 0 || self.sent_at != now;
        // What never arrives holds up the end too, whatever arrived of that piece.
        let at = if alone || at == STALLED { self.last_at.max(at) } else { self.last_at };
        self.fin_at = Some(at);
        self.writer_done = true;
        at
    }

    /// The writer gives up; this may overtake what was sent.
    pub(super) fn reset(&mut self, at: Duration) {
        if !self.writer_done {
            self.reset_at = Some(at);
            self.writer_done = true;
        }
    }

    /// The reader gives up. Returns how many bytes it leaves unread.
    pub(super) fn stop(&mut self, at: Duration) -> u64 {
        if !self.reader_done {
            self.stopped_at = Some(at);
        }
        self.end_reading()
    }

    fn end_reading(&mut self) -> u64 {
        self.reader_done = true;
        self.pieces = VecDeque::new();
        let unread = self.sent - self.consumed;
        self.consumed = self.sent;
        unread
    }

    /// Reads at most `max` bytes of what has arrived until `now`. What arrives after `deaf_from` never
    /// does. The second value is how many bytes are no longer unread.
    pub(super) fn take(&mut self, now: Duration, deaf_from: Duration, max: usize) -> (Taken, u64) {
        let horizon = now.min(deaf_from);
        if self.reset_at.is_some_and(|at| at <= horizon) {
            return (Taken::Reset, self.end_reading());
        }
        if let Some(piece) = self.pieces.front_mut().filter(|piece| piece.at <= horizon) {
            let begins = std::mem::take(&mut piece.begins);
            let bytes = if piece.bytes.len() > max {
                piece.bytes.split_to(max)
            } else {
                self.pieces.pop_front().map_or_else(Bytes::new, |piece| piece.bytes)
            };
            let length = bytes.len() as u64;
            self.consumed += length;
            return (Taken::Bytes(bytes, begins), length);
        }
        if self.pieces.is_empty() && self.fin_at.is_some_and(|at| at <= horizon) {
            return (Taken::End, self.end_reading());
        }
        let next = self.pieces.front().map(|piece| piece.at).or(self.fin_at).unwrap_or(STALLED);
        let next = next.min(self.reset_at.unwrap_or(STALLED));
        (Taken::Nothing(if next > deaf_from { STALLED } else { next }), 0)
    }

    /// Is it time to tell the writer of room?
    pub(super) fn owes_credit(&self) -> bool {
        !self.writer_done && !self.reader_done && self.consumed + WINDOW_BYTES - self.told >= CREDIT_BYTES
    }

    /// Tells the writer of room; returns when it learns of it.
    pub(super) fn tell_credit(&mut self, at: Duration) -> Duration {
        self.told = self.consumed + WINDOW_BYTES;
        let at = self.credits.back().map_or(at, |(before, _)| at.max(*before));
        self.credits.push_back((at, self.told));
        at
    }

    /// The link to the reader works again: what it held up arrives from `base` on.
    pub(super) fn release_to_reader(&mut self, base: Duration) {
        let fresh = |at: &mut Duration| {
            if *at == STALLED {
                *at = base;
            }
        };
        self.pieces.iter_mut().for_each(|piece| fresh(&mut piece.at));
        fresh(&mut self.last_at);
        self.fin_at.iter_mut().chain(&mut self.reset_at).for_each(fresh);
        // What was on its way when the link was cut may arrive later than what waited.
        let mut latest = Duration::ZERO;
        for piece in &mut self.pieces {
            latest = latest.max(piece.at);
            piece.at = latest;
        }
        self.last_at = self.last_at.max(latest);
        if let Some(fin_at) = &mut self.fin_at {
            *fin_at = latest.max(*fin_at);
        }
    }

    /// The link to the writer works again.
    pub(super) fn release_to_writer(&mut self, base: Duration) {
        let credits = self.credits.iter_mut().map(|(at, _)| at);
        for at in credits.chain(&mut self.stopped_at) {
            if *at == STALLED {
                *at = base;
            }
        }
    }

    /// Does anybody want what is sent?
    pub(super) fn is_read(&self) -> bool {
        !self.reader_done
    }

    /// Does neither side need it any more?
    pub(super) fn is_done(&self) -> bool {
        self.writer_done && self.reader_done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn bytes(length: usize) -> Bytes {
        vec![7; length].into()
    }

    fn read(pipe: &mut Pipe, now: u32) -> Taken {
        pipe.take(MS * now, STALLED, usize::MAX).0
    }

    /// Pieces keep their order whatever their latencies, and the end comes last.
    #[test]
    fn order() {
        let mut pipe = Pipe::new();
        assert_eq!(pipe.push(MS, MS * 9, bytes(1), 3), MS * 9);
        assert_eq!(pipe.push(MS, MS * 4, bytes(2), 0), MS * 9, "it does not overtake");
        assert_eq!(pipe.finish(MS * 2, MS * 3), MS * 9);
        assert_eq!(read(&mut pipe, 8), Taken::Nothing(MS * 9));
        assert_eq!(read(&mut pipe, 9), Taken::Bytes(bytes(1), 3));
        assert_eq!(read(&mut pipe, 9), Taken::Bytes(bytes(2), 0));
        assert_eq!(read(&mut pipe, 9), Taken::End);
        assert!(pipe.is_done());
    }

    /// Where a part of a write went nowhere, the end does not come with the other part.
    #[test]
    fn no_end_without_the_whole() {
        let mut pipe = Pipe::new();
        pipe.push(MS, MS * 2, bytes(1), 3);
        pipe.push_nowhere(2);
        assert_eq!(pipe.finish(MS, STALLED), STALLED);
        assert_eq!(read(&mut pipe, 2), Taken::Bytes(bytes(1), 3));
        assert_eq!(read(&mut pipe, 90), Taken::Nothing(STALLED));
    }

    /// A reset overtakes and discards what was not read; a stream that was finished is not reset.
    #[test]
    fn resets() {
        let mut pipe = Pipe::new();
        pipe.push(MS, MS * 9, bytes(5), 5);
        pipe.reset(MS * 3);
        assert_eq!(read(&mut pipe, 2), Taken::Nothing(MS * 3));
        assert_eq!(pipe.take(MS * 3, STALLED, 10), (Taken::Reset, 5));

        let mut pipe = Pipe::new();
        pipe.finish(MS, MS * 2);
        pipe.reset(MS);
        assert_eq!(read(&mut pipe, 2), Taken::End);
    }

    /// The writer has a window of room, and more only after the news of it has arrived.
    #[test]
    fn windows() {
        let mut pipe = Pipe::new();
        assert_eq!(pipe.room(MS), WINDOW_BYTES);
        pipe.push(MS, MS, bytes(1 << 20), 1 << 20);
        assert_eq!(pipe.room(MS), 0);
        assert_eq!(pipe.take(MS, STALLED, 100_000).1, 100_000);
        assert!(!pipe.owes_credit(), "less than an eighth");
        assert_eq!(pipe.take(MS, STALLED, 100_000).1, 100_000);
        assert!(pipe.owes_credit());
        assert_eq!(pipe.tell_credit(MS * 5), MS * 5);
        assert_eq!((pipe.room(MS * 4), pipe.news_for_writer()), (0, MS * 5));
        assert_eq!(pipe.room(MS * 5), 200_000);
    }

    /// What a cut link holds up arrives in order once it works, and what comes after a connection's
    /// end does not.
    #[test]
    fn stalls() {
        let mut pipe = Pipe::new();
        pipe.push(MS, MS * 8, bytes(1), 1);
        pipe.push(MS, STALLED, bytes(2), 2);
        pipe.finish(MS * 2, STALLED);
        assert_eq!(read(&mut pipe, 8), Taken::Bytes(bytes(1), 1));
        assert_eq!(read(&mut pipe, 90), Taken::Nothing(STALLED));
        pipe.release_to_reader(MS * 100);
        assert_eq!(read(&mut pipe, 90), Taken::Nothing(MS * 100));
        assert_eq!(pipe.take(MS * 100, MS * 99, 9).0, Taken::Nothing(STALLED), "deaf from then on");
        assert_eq!(read(&mut pipe, 100), Taken::Bytes(bytes(2), 2));
        assert_eq!(read(&mut pipe, 100), Taken::End);
    }

    /// Who stops reading leaves nothing behind, and the writer learns of it in time.
    #[test]
    fn stops() {
        let mut pipe = Pipe::new();
        pipe.push(MS, MS, bytes(10), 10);
        assert_eq!(pipe.stop(MS * 4), 10);
        assert!(!pipe.is_stopped(MS * 3) && pipe.is_stopped(MS * 4));
        pipe.push(MS, MS, bytes(10), 10);
        pipe.reset(MS * 5);
        assert!(pipe.is_done() && pipe.pieces.is_empty());
    }
}
