//! Many seeds, and what came of them.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::case::Case;
use super::commit::Commit;
use super::failure::{Failure, in_a_line};
use super::pool::{self, Work};
use super::program::{Program, Run};
use super::progress::Progress;
use super::seeds::Seeds;
use super::stop::{INTERRUPTED, Stop};
use super::summary::{Summary, ratio};

/// Failures that are told in full: one of each checker.
const TOLD_MAX: usize = 3;

/// Seeds that are being run.
pub(crate) struct Campaign {
    seeds: Seeds,
    /// What all cases have in common.
    like: Case,
    failures_max: usize,
    stop: Stop,
    progress: Progress,
    summary: Summary,
    failures: Vec<Run>,
}

/// What came of a campaign.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Sums over all runs.
    pub(crate) summary: Summary,
    /// Runs with broken promises, the worst first.
    pub(crate) failures: Vec<Run>,
    /// Real time.
    pub(crate) took: Duration,
}

impl Campaign {
    /// A campaign that has not begun. Each case is like `like`, with a seed of its own; it ends after
    /// `failures_max` failures.
    ///
    /// # Errors
    ///
    /// When there can be no progress bar.
    pub(crate) fn new(
        name: &str,
        seeds: Seeds,
        time: Option<Duration>,
        like: Case,
        failures_max: usize,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let progress = Progress::new(name, seeds.length(), time)?;
        let (summary, failures) = (Summary::default(), Vec::new());
        Ok(Self { seeds, like, failures_max, stop: stop.clone(), progress, summary, failures })
    }

    /// Runs all seeds.
    ///
    /// # Errors
    ///
    /// When the simulator cannot be started.
    pub(crate) fn run(mut self, program: &Program, jobs: usize) -> anyhow::Result<Outcome> {
        pool::run(jobs, &mut self, &|case: &Case| program.run(case))?;
        Ok(self.end())
    }

    /// No more seeds.
    pub(crate) fn end(self) -> Outcome {
        self.stop.resume();
        let Self { progress, summary, mut failures, .. } = self;
        failures.sort_by_key(|run| (run.report.worst().map(|finding| finding.kind), run.case.seed));
        Outcome { summary, failures, took: progress.elapsed() }
    }
}

impl Work for Campaign {
    type Task = Case;
    type Done = Run;

    fn next(&mut self) -> Option<Case> {
        if self.stop.is_asked() {
            return None;
        }
        let of_seed = Case::of_campaign(self.seeds.next()?);
        Some(Case { seed: of_seed.seed, beyond: of_seed.beyond || self.like.beyond, ..self.like.clone() })
    }

    fn finished(&mut self, case: Case, run: Run) {
        self.summary.add(&run);
        if let Some(worst) = run.report.worst() {
            self.progress.say(&in_a_line(case.seed, worst));
            self.failures.push(run);
            if self.failures.len() >= self.failures_max {
                self.stop.halt();
            }
        }
        self.progress.show(&self.summary);
    }
}

impl Outcome {
    /// Failures of different checkers, in full; each is run once more.
    ///
    /// # Errors
    ///
    /// When the simulator cannot be started.
    pub(crate) fn told(&self, program: &Program, commit: &Commit) -> anyhow::Result<Vec<Failure>> {
        let mut checkers = BTreeSet::new();
        let mut told = Vec::new();
        for run in &self.failures {
            let new = run.report.worst().is_some_and(|worst| checkers.insert(worst.checker.clone()));
            if new && told.len() < TOLD_MAX {
                told.extend(Failure::of(run, program, commit)?);
            }
        }
        Ok(told)
    }

    /// Prints what came of the campaign, and says how it ends.
    ///
    /// # Errors
    ///
    /// When the simulator cannot be started, or the summary cannot be printed.
    pub(crate) fn report(&self, program: &Program, commit: &Commit, json: bool) -> anyhow::Result<ExitCode> {
        let told = self.told(program, commit)?;
        let (probes, classes) = (program.list("probes")?, program.list("faults")?);
        let interrupted = program.stop().is_interrupted();
        let status = match self.summary.worst {
            Some(kind) => kind.exit_status(),
            None if interrupted => INTERRUPTED,
            None => 0,
        };
        let wall_s = self.took.as_secs_f64();
        let report = Report {
            commit: commit.to_string(),
            exit_status: status,
            interrupted,
            wall_s,
            simulated_per_wall: ratio(self.summary.simulated_s, wall_s),
            simulated_per_core: ratio(self.summary.simulated_s, self.summary.busy_s),
            summary: &self.summary,
            never_struck: self.summary.never_struck(&classes),
            unreached: self.summary.unreached(&probes),
            failed_commands: self.failures.iter().map(|run| run.case.command()).collect(),
            failures: &told,
        };
        if json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            report.print(probes.len());
        }
        Ok(ExitCode::from(status))
    }
}

/// What is printed at the end.
#[derive(Serialize)]
struct Report<'a> {
    commit: String,
    exit_status: u8,
    interrupted: bool,
    wall_s: f64,
    simulated_per_wall: f64,
    simulated_per_core: f64,
    #[serde(flatten)]
    summary: &'a Summary,
    never_struck: Vec<&'a str>,
    unreached: Vec<&'a str>,
    failed_commands: Vec<String>,
    failures: &'a [Failure],
}

impl Report<'_> {
    fn print(&self, probes: usize) {
        println!("{}", self.summary);
        println!(
            "{:.1} s of real time, {:.0} of virtual time for each second; commit {}",
            self.wall_s, self.simulated_per_wall, self.commit
        );
        if !self.never_struck.is_empty() {
            println!("faults that never struck: {}", self.never_struck.join(", "));
        }
        println!("{} of {probes} rare situations were reached", probes - self.unreached.len());
        if !self.unreached.is_empty() {
            println!("not reached by any seed:");
        }
        for line in &self.unreached {
            println!("  {line}");
        }
        for failure in self.failures {
            println!("\n{failure}");
        }
        if self.failed_commands.len() > self.failures.len() {
            println!("\nall that failed:");
            self.failed_commands.iter().for_each(|command| println!("  {command}"));
        }
        match (self.summary.failed, self.interrupted) {
            (0, false) => println!("every promise was kept"),
            (0, true) => println!("interrupted; every promise was kept until then"),
            (failed, _) => println!("{failed} of {} seeds broke a promise", self.summary.seeds),
        }
    }
}
