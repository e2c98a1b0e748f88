//! A broken promise, told to a person: what, where, what happened last, and how to see it again.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::commit::Commit;
use super::program::{Program, Run};
use super::report::{Finding, Kind};

/// Characters of a line of the story that are shown.
const LINE_MAX: usize = 300;

/// A run with a broken promise.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failure {
    commit: String,
    seed: u64,
    beyond: bool,
    kind: Kind,
    checker: String,
    promise: String,
    text: String,
    at_ms: u64,
    more: usize,
    last_events: Vec<String>,
    command: String,
    #[serde(skip)]
    doubt: Option<&'static str>,
}

impl Failure {
    /// Runs the case once more to hear its story; none when the run kept its promises.
    ///
    /// # Errors
    ///
    /// When the simulator cannot be started.
    pub(crate) fn of(run: &Run, program: &Program, commit: &Commit) -> anyhow::Result<Option<Self>> {
        let Some(finding) = run.report.worst() else { return Ok(None) };
        let told = if run.story.is_empty() { program.tell(&run.case)? } else { Some(run.clone()) };
        let doubt = told.as_ref().and_then(|told| {
            (told.report.trace_hash != run.report.trace_hash)
                .then_some("a second run of the seed went differently: the simulator is not deterministic")
        });
        let checkers = program.list("checkers")?;
        Ok(Some(Self {
            commit: commit.to_string(),
            seed: run.case.seed,
            beyond: run.case.beyond,
            kind: finding.kind,
            checker: finding.checker.clone(),
            promise: promise(&checkers, &finding.checker),
            text: finding.text.clone(),
            at_ms: finding.at_ms,
            more: run.report.findings.len() - 1,
            last_events: told.map(|told| told.story).unwrap_or_default(),
            command: run.case.command(),
            doubt,
        }))
    }
}

/// The promise that a checker stands for.
fn promise(checkers: &[String], name: &str) -> String {
    let promise = checkers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    promise.unwrap_or("every run ends, and says what came of it").to_owned()
}

/// A line for a finding.
pub(crate) fn in_a_line(seed: u64, finding: &Finding) -> String {
    format!("seed {seed}: {}: {}: {}", finding.kind, finding.checker, shortened(&finding.text))
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(LINE_MAX) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line.to_owned(),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "BROKEN: {} ({})", self.checker, self.kind)?;
        writeln!(f, "  promised: {}", self.promise)?;
        writeln!(f, "  found:    {}", self.text)?;
        if self.at_ms > 0 {
            let seconds = Duration::from_millis(self.at_ms).as_secs_f64();
            writeln!(f, "  after:    {seconds:.3} s of virtual time")?;
        }
        if self.more > 0 {
            writeln!(f, "  and:      {} more findings in the same run", self.more)?;
        }
        writeln!(
            f,
            "  seed:     {}{}",
            self.seed,
            if self.beyond { ", beyond what the promises cover" } else { "" }
        )?;
        writeln!(f, "  commit:   {}", self.commit)?;
        if !self.last_events.is_empty() {
            writeln!(f, "  the last events, without heartbeats and arrivals of messages:")?;
        }
        for line in &self.last_events {
            writeln!(f, "    {}", shortened(line))?;
        }
        if let Some(doubt) = self.doubt {
            writeln!(f, "  BEWARE:   {doubt}")?;
        }
        writeln!(f, "  to repeat it, with --trace for the whole story and --minimize for a shorter one:")?;
        write!(f, "    {}", self.command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A promise is found by the checker's whole name.
    #[test]
    fn promises_are_looked_up() {
        let listed: Vec<String> =
            ["raft: one leader (r; f)", "raft log: other (r; f)"].map(String::from).into();
        assert_eq!(promise(&listed, "raft"), "one leader (r; f)");
        assert_eq!(promise(&listed, "raft log"), "other (r; f)");
        assert!(promise(&listed, "none").contains("every run"));
    }

    /// Long lines are cut between characters.
    #[test]
    fn lines_are_cut() {
        assert_eq!(shortened("short"), "short");
        let long = "ü".repeat(LINE_MAX + 1);
        assert_eq!(shortened(&long), format!("{} …", "ü".repeat(LINE_MAX)));
    }
}
