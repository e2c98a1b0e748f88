//! How far each disk gives, and how far each takes.
//!
//! ```text
//!        ─┬─ slack above the mean      what sticks out above `give` goes
//!  give ──┼───────────────
//!  mean ──┼───────────────             as much sticks out above `give` as is missing below `take`
//!  take ──┼───────────────
//!        ─┴─ slack below the mean      what is missing below `take` comes
//! ```
//!
//! To bring all disks within the slack takes at least the larger of two: what sticks out above it, and what is
//! missing below it. Exactly that is moved: the side that asks for less goes on, level with level, toward the
//! mean, and never past it. A move on the way changes neither level, so a plan that is made anew goes on as
//! the old one.

use crate::fill::Fill;

use super::seats::{Seat, Seats};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Levels {
    pub(super) mean: Fill,
    pub(super) give: Fill,
    pub(super) take: Fill,
}

impl Levels {
    /// `None` when every disk that can give or take is within `slack` of the mean, or nobody can.
    pub(super) fn find(seats: &Seats, loads: &[u64], mean: Fill, slack: Fill) -> Option<Self> {
        let sides = Sides { seats, loads };
        let (high, low) = (mean.plus(slack), mean.minus(slack));
        let asked = sides.above(high).max(sides.below(low));
        let possible = sides.above(mean).min(sides.below(mean));
        let goes = asked.min(possible);
        if goes == 0 {
            return None;
        }
        let give = search(mean, Fill::MAX, |level| sides.above(level) >= goes);
        let take = search(Fill::default(), mean, |level| sides.below(level) < goes);
        Some(Self { mean, give, take })
    }
}

struct Sides<'a> {
    seats: &'a Seats,
    loads: &'a [u64],
}

impl Sides<'_> {
    /// What sticks out above a level.
    fn above(&self, level: Fill) -> u128 {
        self.sum(|seat, load| load.saturating_sub(level.load(seat.capacity)))
    }

    /// What is missing below a level, on disks that take.
    fn below(&self, level: Fill) -> u128 {
        self.sum(|seat, load| if seat.takes { level.load(seat.capacity).saturating_sub(load) } else { 0 })
    }

    fn sum(&self, of: impl Fn(&Seat, u64) -> u64) -> u128 {
        let parts = self
            .seats
            .usable()
            .map(|(at, seat)| u128::from(of(seat, self.loads.get(at).copied().unwrap_or_default())));
        parts.sum()
    }
}

/// The highest level for which `holds`, which holds for `low` and does not above some level.
fn search(mut low: Fill, mut high: Fill, holds: impl Fn(Fill) -> bool) -> Fill {
    while let Some(middle) = Fill::between(low, high) {
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}
