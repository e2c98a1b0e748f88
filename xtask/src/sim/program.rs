//! The built simulator: runs cases, each in a process of its own, and lists what it knows.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use super::case::Case;
use super::process::{self, Ended};
use super::report::Report;
use super::stop::Stop;
use crate::{packages, run};

/// SIGINT, which a terminal sends to all processes of a command at once.
const SIGINT: i32 = 2;
/// The checker that is named when a process had to be killed.
pub(crate) const DID_NOT_END: &str = "did not end";

/// The simulator and how it is driven.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
    limit: Duration,
    stop: Stop,
}

/// A case that was run to its end.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// What was asked.
    pub(crate) case: Case,
    /// What came of it.
    pub(crate) report: Report,
    /// The report as it was printed; empty when there was none.
    pub(crate) printed: String,
    /// The last lines of the story, without what comes all the time; empty when it was not told.
    pub(crate) story: Vec<String>,
    /// Faults by their numbers; empty when the story was not told.
    pub(crate) faults: BTreeMap<u64, Fault>,
    /// Real time.
    pub(crate) took: Duration,
}

/// A fault that the story tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Its class.
    pub(crate) class: String,
    /// It did strike: there was somebody to hit, and it did not go too far.
    pub(crate) struck: bool,
}

impl Program {
    /// Builds the simulator.
    ///
    /// # Errors
    ///
    /// When the build fails.
    pub(crate) fn build(limit: Duration, stop: &Stop) -> anyhow::Result<Self> {
        packages::ensure()?;
        Ok(Self::of(&run::build()?.join("cadole-sim"), limit, stop))
    }

    /// The simulator that was built at `path`.
    pub(crate) fn of(path: &Path, limit: Duration, stop: &Stop) -> Self {
        Self { path: path.to_owned(), limit, stop: stop.clone() }
    }

    /// What ends its processes early.
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// A command of the simulator.
    pub(crate) fn command(&self) -> Command {
        Command::new(&self.path)
    }

    /// Runs a case; none when it was stopped.
    ///
    /// # Errors
    ///
    /// When the simulator cannot be started or does not understand the case.
    pub(crate) fn run(&self, case: &Case) -> anyhow::Result<Option<Run>> {
        self.run_with(case, &[])
    }

    /// Runs a case and keeps what its story tells; none when it was stopped.
    ///
    /// # Errors
    ///
    /// When the simulator cannot be started or does not understand the case.
    pub(crate) fn tell(&self, case: &Case) -> anyhow::Result<Option<Run>> {
        self.run_with(case, &["--trace"])
    }

    fn run_with(&self, case: &Case, more: &[&str]) -> anyhow::Result<Option<Run>> {
        let mut faults = BTreeMap::new();
        let mut heed = |line: &str| {
            faults.extend(fault(line));
            !is_noise(line)
        };
        let mut command = self.command();
        command.arg("run").arg("--json").args(case.arguments()).args(more);
        let ended = process::run(&mut command, self.limit, &self.stop, &mut heed)?;
        if ended.stopped {
            return Ok(None);
        }
        if ended.status.signal() == Some(SIGINT) {
            // Ctrl-C came to it before it came to us.
            self.stop.interrupt();
            return Ok(None);
        }
        let (report, printed, story) = self.judge(case, &ended)?;
        Ok(Some(Run { case: case.clone(), report, printed, story, faults, took: ended.took }))
    }

    fn judge(&self, case: &Case, ended: &Ended) -> anyhow::Result<(Report, String, Vec<String>)> {
        let mut story: Vec<String> = ended.lines.iter().cloned().collect();
        let printed = story.pop_if(|line| line.starts_with('{')).unwrap_or_default();
        let errors = Vec::from(ended.errors.clone()).join("\n");
        if ended.overdue {
            let text = format!("killed after {} s of real time", self.limit.as_secs());
            return Ok((Report::crashed(case.seed, DID_NOT_END, text), String::new(), story));
        }
        if ended.status.code() == Some(2) {
            bail!("cadole-sim does not understand {}: {errors}", case.arguments().join(" "));
        }
        let report = match serde_json::from_str::<Report>(&printed) {
            Ok(report) if ended.status.success() == report.findings.is_empty() => report,
            _ => Report::crashed(
                case.seed,
                "bug",
                format!("ended without a report, {}: {errors}", ended.status),
            ),
        };
        Ok((report, printed, story))
    }

    /// What the simulator lists under `what`, a line each: a name, and often its meaning.
    ///
    /// # Errors
    ///
    /// When it does not list them.
    pub(crate) fn list(&self, what: &str) -> anyhow::Result<Vec<String>> {
        let text = run::output(self.command().args(["list", what]))
            .with_context(|| format!("cannot list {what}"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// The fault that a line of the story tells of, with its number.
fn fault(line: &str) -> Option<(u64, Fault)> {
    let mut words = line.split_whitespace().skip(2);
    let event = words.next()?;
    if !matches!(event, "fault" | "fault-refused") {
        return None;
    }
    let number = words.next()?.parse().ok()?;
    let class = words.next()?;
    // "fault 3 pause: ..." struck; "fault 3 pause finds nobody" did not.
    let struck = event == "fault" && class.ends_with(':');
    Some((number, Fault { class: class.trim_end_matches(':').to_owned(), struck }))
}

/// What stands in every second line of a story and tells little: heartbeats of nodes and of Raft, and
/// that a message came that was told of when it was sent.
fn is_noise(line: &str) -> bool {
    let mut words = line.split_whitespace().skip(2);
    match words.next() {
        Some("net.recv" | "disk.space") => true,
        Some("->") => match words.nth(1) {
            Some("heartbeat") => true,
            Some("raft-append") => words.next() == Some("0"),
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arrivals and heartbeats are noise; a report is not, whatever the events that it quotes.
    #[test]
    fn noise_is_known() {
        let cases = [
            ("   13.78 meta-3     net.recv 40 bytes from meta-2, connection 48 stream 98", true),
            ("   13.83 meta-2     -> meta-1: raft-append 0 entries after Some(52), committed Some(52)", true),
            (
                "   13.83 meta-2     -> meta-1: raft-append 1 entries after Some(52), committed Some(52)",
                false,
            ),
            ("  680.04 node-12    -> meta-1: heartbeat", true),
            ("   13.83 node-1     -> meta-2: list-group-extents", false),
            (
                "{\"seed\":1,\"last_events\":[\" 13.83 meta-2     -> meta-1: raft-append 0 entries after\"]}",
                false,
            ),
        ];
        for (line, noise) in cases {
            assert_eq!(is_noise(line), noise, "{line:?}");
        }
    }

    /// Faults are recognised in the story, and those that did not strike are told apart.
    #[test]
    fn faults_are_read_from_the_story() {
        let cases = [
            ("    2.503802 world      fault 3 power-rack: rack 1", Some((3, "power-rack", true))),
            ("    4.334476 world      fault 10 isolate-some finds nobody", Some((10, "isolate-some", false))),
            ("    4.334476 world      fault-refused 11 node-lost: too much", Some((11, "node-lost", false))),
            ("    3.303379 world      fault-ends 5", None),
            ("    0.000385 meta-1     kv.open raft: 0 batches", None),
            ("", None),
        ];
        for (line, expected) in cases {
            let expected =
                expected.map(|(number, class, struck)| (number, Fault { class: class.to_owned(), struck }));
            assert_eq!(fault(line), expected, "{line:?}");
        }
    }
}
