//! Who goes to the disk next.
//!
//! Each priority has so many places at the disk, fewer beside a more urgent one that has work or had some just now:
//! so the device is never filled with what can wait, and what can wait is never shut out. What goes beside a more
//! urgent one goes in pieces, and each piece waits for its turn.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use env::Priority;

/// Transfers at the disk at the same time, per priority: alone, and beside a more urgent one.
const PLACES: [(usize, usize); LANES] = [(48, 48), (16, 2), (8, 1)];
const LANES: usize = 3;
/// So long after its last work a priority still counts: who asks for one thing after another has nothing at the disk
/// between two of them.
const RECENTLY: Duration = Duration::from_millis(500);

/// The most transfers that are at the disk at the same time.
pub(super) const PLACES_MAX: usize = 48 + 16 + 8;

/// Queues of what is to be done, one a priority.
#[derive(Debug)]
pub(super) struct Shares<T> {
    lanes: [Lane<T>; LANES],
}

#[derive(Debug)]
struct Lane<T> {
    waiting: VecDeque<T>,
    at_disk: usize,
    /// When the last of it left the disk.
    left: Option<Instant>,
}

impl<T> Lane<T> {
    fn is_active(&self, now: Instant) -> bool {
        let recently = |left| now.saturating_duration_since(left) < RECENTLY;
        self.at_disk > 0 || !self.waiting.is_empty() || self.left.is_some_and(recently)
    }
}

impl<T> Shares<T> {
    /// Nothing to do.
    pub(super) fn new() -> Self {
        Self { lanes: std::array::from_fn(|_| Lane { waiting: VecDeque::new(), at_disk: 0, left: None }) }
    }

    /// Waits behind what has the same priority.
    pub(super) fn push(&mut self, priority: Priority, item: T) {
        self.lanes[lane(priority)].waiting.push_back(item);
    }

    /// What may go to the disk now, the most urgent first; until [`left`](Self::left) it has a place there.
    pub(super) fn next(&mut self, now: Instant) -> Option<T> {
        let mut urgent = false;
        for (lane, (alone, beside)) in self.lanes.iter_mut().zip(PLACES) {
            let places = if urgent { beside } else { alone };
            urgent |= lane.is_active(now);
            if lane.at_disk < places
                && let Some(item) = lane.waiting.pop_front()
            {
                lane.at_disk += 1;
                return Some(item);
            }
        }
        None
    }

    /// Whether a more urgent priority is active.
    pub(super) fn is_beside(&self, priority: Priority, now: Instant) -> bool {
        self.lanes[..lane(priority)].iter().any(|lane| lane.is_active(now))
    }

    /// One of this priority has left the disk.
    pub(super) fn left(&mut self, priority: Priority, now: Instant) {
        let lane = &mut self.lanes[lane(priority)];
        lane.at_disk = lane.at_disk.saturating_sub(1);
        lane.left = Some(now);
    }

    /// A piece of this one has left the disk; the rest is the next of its priority.
    pub(super) fn piece_left(&mut self, priority: Priority, item: T, now: Instant) {
        self.left(priority, now);
        self.lanes[lane(priority)].waiting.push_front(item);
    }
}

fn lane(priority: Priority) -> usize {
    match priority {
        Priority::Client => 0,
        Priority::Repair => 1,
        Priority::Scrub => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Priority; LANES] = [Priority::Client, Priority::Repair, Priority::Scrub];

    fn full(of: &[Priority]) -> Shares<Priority> {
        let mut shares = Shares::new();
        for priority in of {
            (0..100).for_each(|_| shares.push(*priority, *priority));
        }
        shares
    }

    fn taken(shares: &mut Shares<Priority>, now: Instant) -> [usize; LANES] {
        let taken: Vec<Priority> = std::iter::from_fn(|| shares.next(now)).collect();
        ALL.map(|priority| taken.iter().filter(|other| **other == priority).count())
    }

    /// Alone each has the disk; together each has a share, the largest for clients.
    #[test]
    fn nobody_is_shut_out() {
        let now = Instant::now();
        assert_eq!(taken(&mut full(&ALL), now), [48, 2, 1]);
        assert_eq!(taken(&mut full(&[Priority::Repair]), now), [0, 16, 0]);
        assert_eq!(taken(&mut full(&[Priority::Repair, Priority::Scrub]), now), [0, 16, 1]);
        assert_eq!(taken(&mut full(&[Priority::Scrub]), now), [0, 0, 8]);
    }

    /// A client that comes later goes before repairs that wait, and these have their places again when
    /// no client has come for a while.
    #[test]
    fn places_come_back() {
        let now = Instant::now();
        let mut shares = full(&[Priority::Repair]);
        taken(&mut shares, now);
        shares.push(Priority::Client, Priority::Client);
        assert_eq!(shares.next(now), Some(Priority::Client));
        assert!(shares.is_beside(Priority::Repair, now) && !shares.is_beside(Priority::Client, now));
        (0..15).for_each(|_| shares.left(Priority::Repair, now));
        assert_eq!(taken(&mut shares, now), [0, 1, 0]);
        shares.left(Priority::Client, now);
        assert_eq!(taken(&mut shares, now + RECENTLY / 2), [0, 0, 0]);
        assert_eq!(taken(&mut shares, now + RECENTLY), [0, 14, 0]);
    }

    /// What is left of a piece goes on before others of its priority, and after what is more urgent.
    #[test]
    fn pieces_take_turns() {
        let now = Instant::now();
        let mut shares = Shares::new();
        shares.push(Priority::Repair, 1);
        shares.push(Priority::Repair, 2);
        assert_eq!(shares.next(now), Some(1));
        shares.push(Priority::Client, 3);
        shares.piece_left(Priority::Repair, 1, now);
        assert_eq!([(); 4].map(|()| shares.next(now)), [Some(3), Some(1), Some(2), None]);
    }
}
