//! What a campaign did, added up.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::program::Run;
use super::report::{Kind, refused};

/// Sums over all runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Seeds that were run to their end.
    pub(crate) seeds: u64,
    /// Of those, beyond what the promises cover.
    pub(crate) beyond: u64,
    /// Of those, with a broken promise.
    pub(crate) failed: u64,
    /// The worst that was found.
    pub(crate) worst: Option<Kind>,
    /// Real time of all processes together, in seconds.
    pub(crate) busy_s: f64,
    /// Virtual time in seconds.
    pub(crate) simulated_s: f64,
    /// Operations of clients.
    pub(crate) operations: u64,
    /// Of those, acknowledged.
    pub(crate) acknowledged: u64,
    /// Messages sent.
    pub(crate) messages: u64,
    /// Events.
    pub(crate) events: u64,
    /// Faults by class; those that were refused as going too far under the class and "refused".
    pub(crate) faults: BTreeMap<String, u64>,
    /// Rare situations: how many seeds reached each.
    pub(crate) probes: BTreeMap<String, u64>,
}

impl Summary {
    /// Adds a run.
    pub(crate) fn add(&mut self, run: &Run) {
        let report = &run.report;
        self.seeds += 1;
        self.beyond += u64::from(run.case.beyond);
        self.failed += u64::from(!report.findings.is_empty());
        self.worst = self.worst.into_iter().chain(report.worst().map(|finding| finding.kind)).min();
        self.busy_s += run.took.as_secs_f64();
        self.simulated_s += Duration::from_millis(report.simulated_ms).as_secs_f64();
        self.operations += report.operations;
        self.acknowledged += report.acknowledged;
        self.messages += report.messages;
        self.events += report.events;
        for (class, count) in &report.faults {
            *self.faults.entry(class.clone()).or_default() += count;
        }
        for (probe, count) in &report.probes {
            *self.probes.entry(probe.clone()).or_default() += u64::from(*count > 0);
        }
    }

    /// Faults that struck.
    pub(crate) fn faults_struck(&self) -> u64 {
        self.faults.iter().filter(|(class, _)| refused(class).is_none()).map(|(_, count)| count).sum()
    }

    /// Of `listed`, as the simulator lists them, those that no seed reached.
    pub(crate) fn unreached<'a>(&self, listed: &'a [String]) -> Vec<&'a str> {
        let reached = |line: &str| {
            let names = self.probes.iter().filter(|(_, seeds)| **seeds > 0).map(|(name, _)| name);
            // Names may hold colons themselves.
            names.into_iter().any(|name| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(": ")))
        };
        listed.iter().map(String::as_str).filter(|line| !reached(line)).collect()
    }

    /// Of the `classes` there are, those that never struck.
    pub(crate) fn never_struck<'a>(&self, classes: &'a [String]) -> Vec<&'a str> {
        classes.iter().map(String::as_str).filter(|class| !self.faults.contains_key(*class)).collect()
    }

    fn fault_table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(["fault", "struck", "refused: too much"]);
        let mut rows: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (name, count) in &self.faults {
            match refused(name) {
                Some(class) => rows.entry(class).or_default().1 += count,
                None => rows.entry(name).or_default().0 += count,
            }
        }
        for (class, (struck, refused)) in rows {
            table.add_row([class.to_owned(), struck.to_string(), refused.to_string()]);
        }
        align_right(&mut table, 1..3);
        table
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.faults.is_empty() {
            writeln!(f, "{}", self.fault_table())?;
        }
        writeln!(
            f,
            "{} operations, {} of them acknowledged; {} messages, {} events, {} faults",
            self.operations,
            self.acknowledged,
            self.messages,
            self.events,
            self.faults_struck()
        )?;
        write!(
            f,
            "{} seeds, {} of them beyond what the promises cover; {:.0} s of virtual time, {:.0} for each second of a core",
            self.seeds,
            self.beyond,
            self.simulated_s,
            ratio(self.simulated_s, self.busy_s)
        )
    }
}

/// How many times `part` goes into `whole`; 0 when there is nothing to divide by.
pub(crate) fn ratio(whole: f64, part: f64) -> f64 {
    if part > 0.0 { whole / part } else { 0.0 }
}

/// Numbers stand at the right.
pub(crate) fn align_right(table: &mut Table, columns: std::ops::Range<usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::case::Case;
    use crate::sim::report::{Finding, Report};

    fn run(seed: u64, kind: Option<Kind>) -> Run {
        let finding = |kind| Finding { kind, checker: "c".into(), text: String::new(), at_ms: 0 };
        let counts =
            |pairs: &[(&str, u64)]| pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let report = Report {
            seed,
            findings: kind.map(finding).into_iter().collect(),
            simulated_ms: 1_500,
            operations: 10,
            acknowledged: 8,
            faults: counts(&[("pause", 2), ("doom refused", 1)]),
            probes: counts(&[("a put failed: its source did", seed), ("never", 0)]),
            ..Report::default()
        };
        Run {
            case: Case::of_campaign(seed),
            report,
            printed: String::new(),
            story: Vec::new(),
            faults: BTreeMap::new(),
            took: Duration::from_millis(100),
        }
    }

    /// Runs add up, and the worst of all findings stands for the campaign.
    #[test]
    fn runs_add_up() {
        let mut summary = Summary::default();
        for (seed, kind) in
            [(0, None), (9, Some(Kind::Crash)), (2, Some(Kind::Correctness)), (3, Some(Kind::Liveness))]
        {
            summary.add(&run(seed, kind));
        }
        assert_eq!((summary.seeds, summary.beyond, summary.failed), (4, 1, 3));
        assert_eq!(summary.worst, Some(Kind::Correctness));
        assert_eq!((summary.operations, summary.acknowledged, summary.faults_struck()), (40, 32, 8));
        assert!((summary.simulated_s - 6.0).abs() < 1e-9, "{}", summary.simulated_s);
        let text = summary.to_string();
        assert!(text.contains("doom") && text.contains("4 seeds, 1 of them beyond"), "{text}");
    }

    /// A situation counts as reached by its whole name, which may hold a colon; what was refused has not struck.
    #[test]
    fn what_was_not_reached_is_listed() {
        let mut summary = Summary::default();
        summary.add(&run(1, None));
        let listed: Vec<String> =
            ["a put failed: its source did: on purpose", "a put failed: other: x", "never: y", "unknown: z"]
                .map(String::from)
                .into();
        assert_eq!(summary.unreached(&listed), ["a put failed: other: x", "never: y", "unknown: z"]);
        let classes: Vec<String> = ["pause", "doom"].map(String::from).into();
        assert_eq!(summary.never_struck(&classes), ["doom"]);
    }
}
