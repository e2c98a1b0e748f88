//! The verdict over all keys of a ledger.

use std::fmt;

use super::ledger::Ledger;
use super::linear::{self, Explanation, Limits, Verdict};
use super::operation::{Key, Outcome};
use super::page::PageFault;

/// What is wrong with a key.
#[derive(Clone, Debug)]
pub struct KeyFault {
    /// Which.
    pub key: Key,
    /// Why.
    pub explanation: Explanation,
    /// Things the history of one key cannot tell, such as where else a value was put.
    pub notes: Vec<String>,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not linearizable: {}", self.key, self.explanation)?;
        self.notes.iter().try_for_each(|note| write!(f, "\n  note: {note}"))
    }
}

/// What was checked and found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Keys that were checked.
    pub keys: usize,
    /// Operations on them, pages counted once for each key they speak of.
    pub operations: usize,
    /// Keys whose history no atomic register has.
    pub faults: Vec<KeyFault>,
    /// Pages that no service may give.
    pub page_faults: Vec<PageFault>,
    /// Keys that could not be decided within the limits, and what was tried. Neither right nor wrong.
    pub too_hard: Vec<(Key, Verdict)>,
}

impl Report {
    /// Checks every key.
    pub fn of(ledger: &Ledger, limits: Limits) -> Self {
        let mut report = Self { page_faults: ledger.page_faults(), ..Self::default() };
        for (key, history) in ledger.histories() {
            report.keys += 1;
            report.operations += history.len();
            match linear::check(&history, limits) {
                Verdict::Linearizable { .. } => {}
                Verdict::Violation(explanation) => {
                    let notes = notes(ledger, &key, &explanation);
                    report.faults.push(KeyFault { key, explanation: *explanation, notes });
                }
                verdict @ Verdict::TooHard { .. } => report.too_hard.push((key, verdict)),
            }
        }
        report
    }

    /// Nothing wrong was found, and nothing is undecided.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty() && self.page_faults.is_empty() && self.too_hard.is_empty()
    }
}

fn notes(ledger: &Ledger, key: &Key, explanation: &Explanation) -> Vec<String> {
    let mut notes = Vec::new();
    for operation in &explanation.operations {
        let Outcome::Read(Some(found)) = &operation.outcome else { continue };
        let Some(value) = found.value else { continue };
        match ledger.put_of(value) {
            None => notes.push(format!("{value} was never put anywhere")),
            Some(put) if put.key != *key => notes.push(format!("{value} belongs to {}: {put}", put.key)),
            Some(_) => {}
        }
    }
    notes
}
