//! What the simulator says of a run, as `cadole-sim run --json` prints it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad a broken promise is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Data were lost or wrong, or a promise about them was broken.
    Correctness,
    /// What should have ended or healed did not.
    Liveness,
    /// A process ended by a bug.
    Crash,
}

impl Kind {
    /// The exit status that tells it.
    pub(crate) fn exit_status(self) -> u8 {
        match self {
            Self::Crash => 101,
            Self::Liveness => 3,
            Self::Correctness => 4,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Correctness => "correctness",
            Self::Liveness => "liveness",
            Self::Crash => "crash",
        })
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Finding {
    /// How bad it is.
    pub(crate) kind: Kind,
    /// The checker that found it.
    pub(crate) checker: String,
    /// What exactly is wrong.
    pub(crate) text: String,
    /// When, in virtual time.
    pub(crate) at_ms: u64,
}

/// What came of a run. What an older or newer simulator does not say is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    /// The seed.
    pub(crate) seed: u64,
    /// The worst first; nothing when all promises were kept.
    pub(crate) findings: Vec<Finding>,
    /// Hash of all that happened.
    pub(crate) trace_hash: String,
    /// Events in it.
    pub(crate) events: u64,
    /// Virtual time.
    pub(crate) simulated_ms: u64,
    /// Operations of clients.
    pub(crate) operations: u64,
    /// Of those, acknowledged.
    pub(crate) acknowledged: u64,
    /// Faults by class; those that were refused as going too far under the class and "refused".
    pub(crate) faults: BTreeMap<String, u64>,
    /// Rare situations, how often each was reached.
    pub(crate) probes: BTreeMap<String, u64>,
    /// Messages sent.
    pub(crate) messages: u64,
}

impl Report {
    /// A report of a run that could not write one itself.
    pub(crate) fn crashed(seed: u64, checker: &str, text: String) -> Self {
        let finding = Finding { kind: Kind::Crash, checker: checker.to_owned(), text, at_ms: 0 };
        Self { seed, findings: vec![finding], ..Self::default() }
    }

    /// The worst that was found.
    pub(crate) fn worst(&self) -> Option<&Finding> {
        self.findings.first()
    }
}

/// The class whose refusals are counted under this name.
pub(crate) fn refused(name: &str) -> Option<&str> {
    name.strip_suffix(" refused")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the simulator prints is understood, fields of a later version included.
    #[test]
    fn reports_are_read() {
        let line = r#"{"seed":5,"planted":null,"findings":[{"kind":"liveness","checker":"convergence","text":"t","at_ms":7}],
            "trace_hash":"dd","events":3,"simulated_ms":71456,"operations":27,"acknowledged":23,
            "faults":{"pause":4,"node-lost refused":2},"probes":{"a":0},"messages":9,"later":[1]}"#;
        let report: Report = serde_json::from_str(line).expect("read");
        let worst = report.worst().expect("one");
        assert_eq!((worst.kind, worst.checker.as_str(), worst.at_ms), (Kind::Liveness, "convergence", 7));
        assert_eq!(report.faults.keys().filter_map(|name| refused(name)).collect::<Vec<_>>(), ["node-lost"]);
        assert_eq!(report.messages, 9);
    }

    /// Lost data are worse than what does not end, and that is worse than a crash.
    #[test]
    fn kinds_are_ordered() {
        assert!(Kind::Correctness < Kind::Liveness && Kind::Liveness < Kind::Crash);
        let statuses: Vec<u8> =
            [Kind::Correctness, Kind::Liveness, Kind::Crash].map(Kind::exit_status).into();
        assert_eq!(statuses, [4, 3, 101]);
    }
}
