//! `cargo xtask sim`: drives the simulator, `cadole-sim`, with many seeds at once.
//!
//! Each seed has a process of its own, and there are as many at a time as there are cores. What a seed
//! means is decided in `sim`; here it is decided which seeds run, and told what came of them.
//!
//! [`case`] is what one process is asked, [`program`] and [`process`] run it, [`report`] is its answer,
//! [`pool`] runs many. On top of these, a file for each thing a developer wants: [`mod@campaign`], [`replay`],
//! [`shrink`] (its thoughts in [`minimize`]), [`plants`] (in [`hunt`]), and [`mod@ci`].

mod campaign;
mod case;
mod ci;
mod commit;
mod failure;
mod hunt;
mod minimize;
mod planted;
mod plants;
mod pool;
mod process;
mod program;
mod progress;
mod replay;
mod report;
mod seeds;
mod shrink;
pub(crate) mod stop;
mod summary;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::{Args, Subcommand};

use campaign::Campaign;
use case::Case;
use commit::Commit;
use program::Program;
use seeds::{SeedRange, Seeds};
use stop::Stop;

/// How long a campaign lasts when nothing else is said.
const CAMPAIGN: Duration = Duration::from_secs(60);
/// A seed that takes longer, in real time, has failed.
const TIME_LIMIT_S: u64 = 120;

/// Without a selection, fresh seeds for a minute.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 when every promise was kept; 4 when data were lost or wrong; 3 when something did not end or \
heal; 101 when a process ended by a bug; the worst of all seeds, in this order. 1 when the command itself \
failed, 2 when it was not understood, 130 after Ctrl-C.

In a campaign, seeds that end in 9 go beyond what the promises cover.")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Goes on after the first failure.
    #[arg(long)]
    keep_going: bool,
    /// Prints the summary as one line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    plants: Plants,
    #[command(flatten)]
    driving: Driving,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What every change has to pass: determinism, the canary, the planted bugs, fresh seeds of the commit.
    Ci,
}

/// Which seeds.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which seeds")]
struct Selection {
    /// One seed, to look at.
    #[arg(long, conflicts_with_all = ["seeds", "count", "minutes", "from_commit"])]
    seed: Option<u64>,
    /// The seeds from A up to B, without B.
    #[arg(long, value_name = "A..B", conflicts_with_all = ["count", "from_commit"])]
    seeds: Option<SeedRange>,
    /// So many fresh seeds.
    #[arg(long)]
    count: Option<u64>,
    /// Fresh seeds for so long; fractions are understood.
    #[arg(long, value_parser = minutes)]
    minutes: Option<Duration>,
    /// The seeds that belong to the commit, instead of fresh ones.
    #[arg(long)]
    from_commit: bool,
}

/// What is changed of what a seed means.
#[derive(Debug, Args)]
#[command(next_help_heading = "What is changed of what a seed means")]
struct Change {
    /// Lets more be lost than the promises cover: then data may be unreadable, and never wrong.
    #[arg(long)]
    beyond: bool,
    /// Switches a planted bug on.
    #[arg(long, value_name = "NAME")]
    plant: Option<String>,
    /// Operations of clients, at most.
    #[arg(long, value_name = "COUNT")]
    operations: Option<u64>,
    /// Leaves out all faults after this number (as in the story).
    #[arg(long, value_name = "NUMBER")]
    faults: Option<u64>,
    /// Leaves out a class of faults.
    #[arg(long, value_name = "CLASS")]
    without: Vec<String>,
    /// Leaves out the faults of these numbers.
    #[arg(long, value_name = "NUMBER,...", value_delimiter = ',')]
    skip: Vec<u64>,
}

/// How one seed is looked at.
#[derive(Debug, Args)]
#[command(next_help_heading = "How one seed is looked at")]
struct Look {
    /// Tells the story: who sent what to whom, what each disk kept, what failed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Tells the story up to a line with this text.
    #[arg(long, value_name = "TEXT", requires = "seed")]
    until: Option<String>,
    /// Looks for fewer operations and faults with the same failure.
    #[arg(long, requires = "seed", conflicts_with_all = ["trace", "until"])]
    minimize: bool,
    /// Seconds that this may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "minimize")]
    budget: u64,
}

/// Planted bugs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Planted bugs")]
struct Plants {
    /// Runs seeds from 1 on until each planted bug is found (or the one of --plant).
    #[arg(long, conflicts_with_all = ["seed", "seeds", "count", "minutes", "from_commit"])]
    plants: bool,
    /// Seeds that a planted bug may take.
    #[arg(long, value_name = "COUNT", default_value_t = 2_000, requires = "plants")]
    plant_limit: u64,
    /// Keeps the seeds that found them in sim/planted.txt.
    #[arg(long, requires = "plants")]
    write: bool,
}

/// How the simulator is driven.
#[derive(Debug, Args)]
#[command(next_help_heading = "How the simulator is driven")]
struct Driving {
    /// Seeds at a time; as many as there are cores, unless given.
    #[arg(long, global = true)]
    jobs: Option<usize>,
    /// Seconds of real time after which a seed counts as a crash and is killed.
    #[arg(long, value_name = "SECONDS", default_value_t = TIME_LIMIT_S, global = true)]
    time_limit: u64,
    /// Uses this build of cadole-sim instead of building one.
    #[arg(long, value_name = "PATH", global = true)]
    program: Option<PathBuf>,
}

impl Change {
    fn case(&self, seed: u64) -> Case {
        Case {
            seed,
            beyond: self.beyond,
            plant: self.plant.clone(),
            without: self.without.clone(),
            skip: self.skip.clone(),
            faults: self.faults,
            operations: self.operations,
        }
    }
}

impl Driving {
    fn program(&self) -> anyhow::Result<Program> {
        let (stop, limit) = (Stop::on_signals()?, Duration::from_secs(self.time_limit));
        match &self.program {
            Some(path) => Ok(Program::of(path, limit, &stop)),
            None => Program::build(limit, &stop),
        }
    }

    fn jobs(&self) -> usize {
        self.jobs.unwrap_or_else(cores)
    }
}

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of minutes"))?;
    Duration::try_from_secs_f64(minutes * 60.0).map_err(|error| error.to_string())
}

/// Runs what was asked for; the exit status tells the worst that was found.
///
/// # Errors
///
/// When the simulator cannot be built or started, or does not understand what it is asked.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let program = arguments.driving.program()?;
    let jobs = arguments.driving.jobs();
    if let Some(Command::Ci) = arguments.command {
        return ci::run(&program, jobs);
    }
    if arguments.plants.plants {
        let only = arguments.change.plant.as_deref();
        return plants::run(&program, only, arguments.plants.plant_limit, jobs, arguments.plants.write);
    }
    match arguments.selection.seed {
        Some(seed) => look(arguments, &program, seed),
        None => campaign(arguments, &program, jobs),
    }
}

/// What `cargo xtask test` runs of the simulator, built in `bin`.
///
/// # Errors
///
/// When git names no commit, or the simulator cannot be started.
pub(crate) fn ci(bin: &Path) -> anyhow::Result<ExitCode> {
    let limit = Duration::from_secs(TIME_LIMIT_S);
    ci::run(&Program::of(&bin.join("cadole-sim"), limit, &Stop::on_signals()?), cores())
}

fn look(arguments: &Arguments, program: &Program, seed: u64) -> anyhow::Result<ExitCode> {
    let (case, look, commit) = (arguments.change.case(seed), &arguments.look, Commit::current());
    if look.minimize {
        return shrink::run(program, &case, Duration::from_secs(look.budget), &commit);
    }
    if look.trace || look.until.is_some() {
        return replay::story(program, &case, look.until.as_deref());
    }
    replay::run(program, &case, &commit, arguments.json)
}

fn campaign(arguments: &Arguments, program: &Program, jobs: usize) -> anyhow::Result<ExitCode> {
    let (selection, commit) = (&arguments.selection, Commit::current());
    let (first, count) = match &selection.seeds {
        Some(SeedRange(range)) => (range.start, Some(range.end - range.start)),
        None if selection.from_commit => (commit.seeds()?, selection.count),
        None => (seeds::fresh()?, selection.count),
    };
    let time = selection.minutes.or(count.is_none().then_some(CAMPAIGN));
    let seeds = Seeds::new(first, count);
    let seeds = match time {
        Some(time) => seeds.within(time),
        None => seeds,
    };
    eprintln!("seeds from {first}, {jobs} at a time; commit {commit}");
    let like = arguments.change.case(first);
    let failures_max = if arguments.keep_going { usize::MAX } else { 1 };
    let campaign = Campaign::new("seeds", seeds, time, like, failures_max, program.stop())?;
    campaign.run(program, jobs)?.report(program, &commit, arguments.json)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fractions of minutes are understood, and what is no time is refused.
    #[test]
    fn minutes_are_parsed() {
        assert_eq!(minutes("0.5"), Ok(Duration::from_secs(30)));
        for wrong in ["", "x", "-1", "inf", "NaN"] {
            assert!(minutes(wrong).is_err(), "{wrong:?}");
        }
    }
}
