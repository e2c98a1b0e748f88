//! Which disks give, which take, and which slots are worth a move.
//!
//! Both rules lower the sum of the squared distances from the mean with every move, so they end, from
//! whatever state and however often a plan is made anew.

use crate::fill::Fill;

use super::levels::Levels;
use super::seats::End;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// From above the upper level to below the lower one, never past the mean: no byte moves that need not,
    /// and none twice. A slot goes when its disk is nearer to its level without it.
    Gentle(Levels),
    /// For disks that are beyond the goal still: from any fuller disk to any emptier one, even past the
    /// mean, as long as it pays.
    Firm {
        mean: Fill,
        points: Fill,
        /// The emptiest that takes, when the rule was made.
        lowest: Fill,
    },
}

impl Rule {
    pub(super) fn mean(&self) -> Fill {
        match self {
            Self::Gentle(levels) => levels.mean,
            Self::Firm { mean, .. } => *mean,
        }
    }

    pub(super) fn gives(&self, fill: Fill) -> bool {
        match *self {
            Self::Gentle(levels) => fill > levels.give,
            Self::Firm { mean, points, lowest } => {
                fill > mean.plus(points) || (lowest.plus(points) < mean && fill > lowest)
            }
        }
    }

    pub(super) fn takes(&self, fill: Fill) -> bool {
        match *self {
            Self::Gentle(levels) => fill < levels.take,
            Self::Firm { mean, .. } => fill < mean,
        }
    }

    /// May so much leave this disk?
    pub(super) fn lets_go(&self, from: End<'_>, load: u64) -> bool {
        match *self {
            Self::Gentle(levels) => {
                load <= from.above(levels.mean).min(from.above(levels.give).saturating_mul(2))
            }
            Self::Firm { .. } => load <= from.load,
        }
    }

    /// Is it worth it to bring so much from this disk to that one?
    pub(super) fn fits(&self, from: End<'_>, to: End<'_>, load: u64) -> bool {
        match *self {
            Self::Gentle(levels) => {
                load <= to.below(levels.mean).min(to.below(levels.take).saturating_mul(2))
            }
            Self::Firm { mean, points, .. } => {
                let (high, low) = (from.fill(), to.fill());
                let is_asked = high > mean.plus(points) || low.plus(points) < mean;
                // The squares fall as long as the sum is below twice the gap: a quarter of that is the
                // least that a move must be worth.
                let change = from.seat.fill(load).plus(to.seat.fill(load));
                is_asked && high > low && change.is_within(3, 2, high.minus(low))
            }
        }
    }
}

/// What becomes of the spread of a group over nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// The new node has fewer slots of it than the old one had.
    Better,
    /// Not more than the old one had.
    NoWorse,
    /// As many as the policy allows.
    Any,
}

impl Spread {
    /// `left` and `reached`: other slots of the group on the node that is left, and on the one reached.
    pub(super) fn allows(self, left: usize, reached: usize) -> bool {
        match self {
            Self::Better => reached < left,
            Self::NoWorse => reached <= left,
            Self::Any => true,
        }
    }
}
