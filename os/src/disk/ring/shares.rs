//! Who goes to the disk next.
//!
//! Each priority has so many places at the disk, fewer while a more urgent one has work: so the device is
//! never filled with what can wait, and what can wait is never shut out.

use std::collections::VecDeque;

use env::Priority;

/// Transfers at the disk at the same time, per priority: alone, and beside a more urgent one.
const PLACES: [(usize, usize); LANES] = [(48, 48), (16, 3), (8, 1)];
const LANES: usize = 3;

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
}

impl<T> Lane<T> {
    fn has_work(&self) -> bool {
        self.at_disk > 0 || !self.waiting.is_empty()
    }
}

impl<T> Shares<T> {
    /// Nothing to do.
    pub(super) fn new() -> Self {
        Self { lanes: std::array::from_fn(|_| Lane { waiting: VecDeque::new(), at_disk: 0 }) }
    }

    /// Waits behind what has the same priority.
    pub(super) fn push(&mut self, priority: Priority, item: T) {
        self.lanes[lane(priority)].waiting.push_back(item);
    }

    /// What may go to the disk now, the most urgent first; until [`left`](Self::left) it has a place there.
    pub(super) fn next(&mut self) -> Option<T> {
        let mut urgent = false;
        for (lane, (alone, beside)) in self.lanes.iter_mut().zip(PLACES) {
            let places = if urgent { beside } else { alone };
            urgent |= lane.has_work();
            if lane.at_disk < places
                && let Some(item) = lane.waiting.pop_front()
            {
                lane.at_disk += 1;
                return Some(item);
            }
        }
        None
    }

    /// One of this priority has left the disk.
    pub(super) fn left(&mut self, priority: Priority) {
        let lane = &mut self.lanes[lane(priority)];
        lane.at_disk = lane.at_disk.saturating_sub(1);
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

    fn taken(shares: &mut Shares<Priority>) -> [usize; LANES] {
        let taken: Vec<Priority> = std::iter::from_fn(|| shares.next()).collect();
        ALL.map(|priority| taken.iter().filter(|other| **other == priority).count())
    }

    /// Alone each has the disk; together each has a share, the largest for clients.
    #[test]
    fn nobody_is_shut_out() {
        assert_eq!(taken(&mut full(&ALL)), [48, 3, 1]);
        assert_eq!(taken(&mut full(&[Priority::Repair])), [0, 16, 0]);
        assert_eq!(taken(&mut full(&[Priority::Repair, Priority::Scrub])), [0, 16, 1]);
        assert_eq!(taken(&mut full(&[Priority::Scrub])), [0, 0, 8]);
    }

    /// A client that comes later goes before repairs that wait, and these have their places again when
    /// clients have gone.
    #[test]
    fn places_come_back() {
        let mut shares = full(&[Priority::Repair]);
        taken(&mut shares);
        shares.push(Priority::Client, Priority::Client);
        assert_eq!(shares.next(), Some(Priority::Client));
        (0..14).for_each(|_| shares.left(Priority::Repair));
        assert_eq!(taken(&mut shares), [0, 1, 0]);
        shares.left(Priority::Client);
        assert_eq!(taken(&mut shares), [0, 13, 0]);
    }
}
