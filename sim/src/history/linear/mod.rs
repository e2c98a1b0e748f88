//! Is the history of one key that of an atomic register?
//!
//! The register is empty at first. A put or delete takes effect at one instant between its begin and
//! its end if its condition holds there; a refused one has an instant there at which its condition does
//! not hold; a read sees what is there at one such instant. An operation whose outcome is unknown takes
//! effect at one instant after its begin, however late, or never: production refuses commands that are
//! too old, and this does not count on it. Each value is put at most once.
//!
//! Versions are part of the model: those of successive puts grow, a put has the version of its receipt,
//! and a read names the version of the put that it sees. What is known of the version of a put without
//! receipt is what reads say. Whether there is a number left between two versions is not asked.
//!
//! # How
//!
//! Wing and Gong's search (1993) with Lowe's memory of configurations (2017): from the operations that
//! may come first, try each, and never enter twice what was seen. A configuration is the set of
//! operations taken and the state of the register. Four rules keep it small, each argued where it
//! stands in `search`: what changes nothing is taken as soon as it fits; named versions come in their
//! order; a state is not left while somebody still must see it; an operation without outcome is taken
//! only if the next one needs it, and of those that are alike the oldest.
//!
//! There is no cutting at quiescent points, since the memory does as much: where nothing is open, the
//! configurations that can be are few, and each is entered once. Open unknowns do not hinder that.

mod explain;
mod problem;
mod search;
#[cfg(test)]
mod tests;

use std::fmt;

use super::operation::Operation;

pub use explain::Explanation;
use problem::Problem;
use search::{Search, Searched};

/// How much may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Configurations entered, for one key; each takes some tens of bytes until the key is decided.
    pub configurations_max: usize,
}

impl Default for Limits {
    /// Some seconds and some tens of MiB at the worst.
    fn default() -> Self {
        Self { configurations_max: 500_000 }
    }
}

/// What is known of a history.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// An atomic register could have given it.
    Linearizable {
        /// Configurations entered.
        configurations: usize,
    },
    /// No atomic register gives it.
    Violation(Box<Explanation>),
    /// Not decided within the limits.
    TooHard {
        /// Operations whose outcome is known.
        definite: usize,
        /// Those whose outcome is not, and matters.
        unknown: usize,
        /// Configurations entered.
        configurations: usize,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable { configurations } => write!(f, "linearizable ({configurations} tried)"),
            Self::Violation(explanation) => write!(f, "not linearizable: {explanation}"),
            Self::TooHard { definite, unknown, configurations } => write!(
                f,
                "not decided: {definite} operations, {unknown} of unknown outcome, {configurations} configurations \
                 tried"
            ),
        }
    }
}

/// Decides on the history of one key, given in the order of the begins.
///
/// # Panics
///
/// When a value is put twice, the operations are of several keys, or one has an outcome and no end: a
/// ledger gives no such history.
pub fn check(history: &[Operation], limits: Limits) -> Verdict {
    let problem = Problem::of(history);
    match Search::new(&problem, limits).run() {
        Searched::Found { configurations } => Verdict::Linearizable { configurations },
        Searched::Impossible => Verdict::Violation(Box::new(Explanation::of(history, limits))),
        Searched::GaveUp { configurations } => Verdict::TooHard {
            definite: problem.definite.len(),
            unknown: problem.unknown_len(),
            configurations,
        },
    }
}
