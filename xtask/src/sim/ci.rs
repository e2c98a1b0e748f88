//! `cargo xtask sim ci`: what every change has to pass, step by step.
//!
//! All steps are done even if one fails, so that one run tells everything that is wrong. The seeds are
//! drawn from the commit's hash: each commit is tried with others, and the same commit always with the same.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::campaign::{Campaign, Outcome};
use super::case::Case;
use super::commit::Commit;
use super::hunt::{Attempt, Bug, Hunt, attempt};
use super::planted::{self, Known};
use super::pool::{self, Work};
use super::program::{Program, Run};
use super::report::Kind;
use super::seeds::Seeds;
use super::stop::INTERRUPTED;

/// Seeds that are run twice.
const TWICE: u64 = 200;
/// Further fresh seeds.
const ONCE: u64 = 100;
/// Seeds that must find the canary.
const CANARY_SEEDS: u64 = 5;
/// After so many failures a step ends: runs that do not heal take long, and more of them tell little.
const FAILURES_MAX: usize = 5;
/// A planted bug that its seed does not find any more is looked for with this many seeds.
const PLANT_SEEDS_MAX: u64 = 2_000;
/// All such bugs together, no longer than this.
const HUNT_TIME: Duration = Duration::from_secs(120);

/// The steps, and what has become of them.
struct Steps<'a> {
    program: &'a Program,
    commit: Commit,
    jobs: usize,
    worst: Option<Kind>,
    failed: Vec<&'static str>,
}

/// Runs all steps.
///
/// # Errors
///
/// When the simulator cannot be started, or this is not a checkout of git.
pub(crate) fn run(program: &Program, jobs: usize) -> anyhow::Result<ExitCode> {
    let commit = Commit::current();
    let first = commit.seeds()?;
    eprintln!("sim ci: commit {commit}, {} seeds from {first}, {jobs} at a time", TWICE + ONCE);
    let mut steps = Steps { program, commit, jobs, worst: None, failed: Vec::new() };
    let began = Instant::now();
    steps.step("determinism", |steps| steps.determinism(first))?;
    steps.step("canary", Steps::canary)?;
    steps.step("planted bugs", Steps::planted)?;
    steps.step("fresh seeds", |steps| steps.fresh(first + TWICE))?;
    if program.stop().is_interrupted() {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let took = began.elapsed().as_secs();
    if steps.failed.is_empty() {
        eprintln!("sim ci: passed in {took} s");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("sim ci: FAILED in {took} s: {}", steps.failed.join(", "));
    Ok(steps.worst.map_or(ExitCode::FAILURE, |kind| ExitCode::from(kind.exit_status())))
}

impl Steps<'_> {
    /// Does one step, which says what it did, or what is wrong.
    fn step(
        &mut self,
        name: &'static str,
        what: impl FnOnce(&mut Self) -> anyhow::Result<Result<String, String>>,
    ) -> anyhow::Result<()> {
        if self.program.stop().is_interrupted() {
            return Ok(());
        }
        let began = Instant::now();
        let done = what(self)?;
        let took = began.elapsed().as_secs_f64();
        match done {
            _ if self.program.stop().is_interrupted() => eprintln!("sim ci: {name}: interrupted"),
            Ok(text) => eprintln!("sim ci: {name}: {text}; {took:.1} s"),
            Err(text) => {
                eprintln!("sim ci: {name}: FAILED: {text}; {took:.1} s");
                self.failed.push(name);
            }
        }
        Ok(())
    }

    /// The same seed twice gives the same report, trace hash and number of events included; and the
    /// promises are kept.
    fn determinism(&mut self, first: u64) -> anyhow::Result<Result<String, String>> {
        let seeds = Seeds::new(first, Some(TWICE));
        let stop = self.program.stop();
        let campaign = Campaign::new("determinism", seeds, None, Case::default(), FAILURES_MAX, stop)?;
        let mut twice = Twice { campaign, differing: Vec::new() };
        let program = self.program;
        pool::run(self.jobs, &mut twice, &|case: &Case| {
            let Some(one) = program.run(case)? else { return Ok(None) };
            Ok(program.run(case)?.map(|other| (one, other)))
        })?;
        let Twice { campaign, differing } = twice;
        let outcome = campaign.end();
        for case in &differing {
            eprintln!("two processes made different runs of it: {}", case.command());
        }
        let kept = self.promises(&outcome)?;
        Ok(match differing.len() {
            0 => kept.map(|kept| format!("each seed twice, the same trace; {kept}")),
            count => {
                Err(format!("{count} of {} seeds went differently the second time", outcome.summary.seeds))
            }
        })
    }

    /// A failure that is always there is always reported.
    fn canary(&mut self) -> anyhow::Result<Result<String, String>> {
        for seed in 1..=CANARY_SEEDS {
            let case = Case { seed, plant: Some("canary".to_owned()), ..Case::default() };
            let Some(run) = self.program.run(&case)? else { return Ok(Err("stopped".to_owned())) };
            if run.report.worst().is_none() {
                return Ok(Err(format!("nobody notices that data vanish: {}", case.command())));
            }
        }
        Ok(Ok(format!("found by each of {CANARY_SEEDS} seeds")))
    }

    /// Each planted bug is found by the seed that is known for it, or else by another.
    fn planted(&mut self) -> anyhow::Result<Result<String, String>> {
        let table = planted::read(Path::new(planted::FILE))?;
        let bugs: Vec<Bug> = self.program.list("plants")?.iter().map(|line| Bug::listed(line)).collect();
        let count = bugs.len();
        let mut known = KnownSeeds { todo: Vec::new(), moved: Vec::new(), stop: self.program.stop().clone() };
        for bug in bugs {
            match table.get(&bug.name) {
                Some(entry) => known.todo.push((bug, entry.clone())),
                None => known.moved.push(bug),
            }
        }
        let program = self.program;
        pool::run(self.jobs, &mut known, &|(bug, known)| attempt(program, known.seed, &bug.name))?;
        if known.moved.is_empty() {
            return Ok(Ok(format!("each of {count} found by the seed that is known for it")));
        }
        eprintln!("no seed of {} finds them, so others are tried: {}", planted::FILE, names(&known.moved));
        let moved = Hunt::run(program, known.moved, PLANT_SEEDS_MAX, Some(HUNT_TIME), self.jobs)?;
        let (found, missing): (Vec<Bug>, Vec<Bug>) = moved.into_iter().partition(|bug| bug.found.is_some());
        if missing.is_empty() {
            let advice = "keep the new seeds with `cargo xtask sim --plants --write`";
            return Ok(Ok(format!(
                "all {count} found, by other seeds than before: {}: {advice}",
                names(&found)
            )));
        }
        Ok(Err(format!("not found by any seed tried: {}", names(&missing))))
    }

    /// Seeds that no other commit has run keep every promise.
    fn fresh(&mut self, first: u64) -> anyhow::Result<Result<String, String>> {
        let seeds = Seeds::new(first, Some(ONCE));
        let campaign =
            Campaign::new("fresh seeds", seeds, None, Case::default(), FAILURES_MAX, self.program.stop())?;
        let outcome = campaign.run(self.program, self.jobs)?;
        self.promises(&outcome)
    }

    /// Tells failures in full.
    fn promises(&mut self, outcome: &Outcome) -> anyhow::Result<Result<String, String>> {
        let summary = &outcome.summary;
        for failure in outcome.told(self.program, &self.commit)? {
            eprintln!("{failure}\n");
        }
        self.worst = self.worst.into_iter().chain(summary.worst).min();
        Ok(match summary.failed {
            0 => Ok(format!(
                "{} seeds kept every promise: {:.0} s of virtual time, {} operations, {} faults",
                summary.seeds,
                summary.simulated_s,
                summary.operations,
                summary.faults_struck()
            )),
            failed => Err(format!("{failed} of {} seeds broke a promise", summary.seeds)),
        })
    }
}

fn names(bugs: &[Bug]) -> String {
    bugs.iter().map(|bug| bug.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Each seed twice.
struct Twice {
    campaign: Campaign,
    differing: Vec<Case>,
}

impl Work for Twice {
    type Task = Case;
    type Done = (Run, Run);

    fn next(&mut self) -> Option<Case> {
        self.campaign.next()
    }

    fn finished(&mut self, case: Case, (one, other): (Run, Run)) {
        // All that is printed, not the hash alone: what is not hashed may differ, too.
        if one.printed != other.printed {
            self.differing.push(case.clone());
        }
        self.campaign.finished(case, one);
    }
}

/// Bugs with the seeds that found them once.
struct KnownSeeds {
    todo: Vec<(Bug, Known)>,
    moved: Vec<Bug>,
    stop: super::stop::Stop,
}

impl Work for KnownSeeds {
    type Task = (Bug, Known);
    type Done = Attempt;

    fn next(&mut self) -> Option<(Bug, Known)> {
        if self.stop.is_asked() { None } else { self.todo.pop() }
    }

    fn finished(&mut self, (bug, _): (Bug, Known), attempt: Attempt) {
        if attempt.finding.is_none() || attempt.fails_anyway {
            self.moved.push(bug);
        }
    }
}
