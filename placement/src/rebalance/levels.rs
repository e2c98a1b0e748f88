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

use super::seats::Seats;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Levels {
    pub(super) mean: Fill,
    pub(super) give: Fill,
    pub(super) take: Fill,
}

impl Levels {
    /// `None` when every disk that can give or take is within `slack` of the mean, or nobody can.
    pub(super) fn find(seats: &Seats, slack: Fill) -> Option<Self> {
        let mean = seats.mean();
        // What sticks out above a level, and what is missing below it on disks that take.
        let above = |level| seats.usable().map(|(_, end)| u128::from(end.above(level))).sum::<u128>();
        let takers = || seats.usable().filter(|(_, end)| end.seat.takes);
        let below = |level| takers().map(|(_, end)| u128::from(end.below(level))).sum::<u128>();

        let asked = above(mean.plus(slack)).max(below(mean.minus(slack)));
        let goes = asked.min(above(mean)).min(below(mean));
        if goes == 0 {
            return None;
        }
        let give = search(mean, Fill::MAX, |level| above(level) >= goes);
        let take = search(Fill::default(), mean, |level| below(level) < goes);
        Some(Self { mean, give, take })
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
