//! What came of a run.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use simhost::World;

/// How bad it is; each has its own exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Data were lost or wrong, or a promise about them was broken.
    Correctness,
    /// What should have ended or healed did not.
    Liveness,
    /// A process ended by a bug.
    Crash,
}

impl Kind {
    /// The exit status of the process.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Crash => 101,
            Self::Liveness => 3,
            Self::Correctness => 4,
        }
    }
}

/// A promise was broken.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub kind: Kind,
    /// The checker that found it, by its name in the table.
    pub checker: &'static str,
    /// What exactly is wrong.
    pub text: String,
    /// When, in virtual time.
    pub at_ms: u64,
}

/// What was found; the first of the worst kind is reported.
#[derive(Debug, Default)]
pub struct Findings(Mutex<Vec<Finding>>);

/// Findings kept of one run: the first ones tell the most.
const KEPT: usize = 20;

impl Findings {
    /// A promise was broken. The run goes on to its end only if `stop` is not asked for by the caller.
    pub fn report(&self, world: &World, kind: Kind, checker: &'static str, text: impl Into<String>) {
        let finding = Finding { kind, checker, text: text.into(), at_ms: millis(world.now()) };
        world.tell(None, || format!("BROKEN {checker}: {}", finding.text));
        let mut findings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if findings.len() < KEPT {
            findings.push(finding);
        }
        if kind == Kind::Correctness {
            // Nothing that follows can be trusted.
            world.stop(checker);
        }
    }

    /// All of them, the worst first.
    pub fn all(&self) -> Vec<Finding> {
        let mut findings = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        findings.sort_by_key(|finding| finding.kind);
        findings
    }

    /// Nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// Whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a run was and what came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The planted bug that was on.
    pub planted: Option<String>,
    /// What was found, the worst first; nothing when all promises were kept.
    pub findings: Vec<Finding>,
    /// Hash of all that happened.
    pub trace_hash: String,
    /// Events in it.
    pub events: u64,
    /// Virtual time.
    pub simulated_ms: u64,
    /// Operations of clients.
    pub operations: u64,
    /// Of those, acknowledged.
    pub acknowledged: u64,
    /// Faults by class.
    pub faults: BTreeMap<String, u64>,
    /// Rare situations that were reached.
    pub probes: BTreeMap<String, u64>,
    /// Polls of tasks.
    pub polls: u64,
    /// Messages sent.
    pub messages: u64,
    /// The last events before the end, when there is a finding.
    pub last_events: Vec<String>,
}
