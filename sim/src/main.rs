//! `cadole-sim`: runs one seed, in one process. `cargo xtask sim` runs many.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use sim::nemesis::FaultClass;
use sim::run::{RunOptions, run};
use sim::verdict::{Finding, Kind, Report};
use sim::{checkers, plants, probes};
use simhost::Story;

/// A simulated second allocates a hundred thousand times; the system's allocator would take a tenth of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The simulator of Cadole: one seed, one process.
///
/// Exit status: 0 when every promise was kept; 101 when a process ended by a bug; 3 when something did
/// not end or heal; 4 when data were lost or wrong.
#[derive(Parser)]
#[command(name = "cadole-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a seed.
    Run(Run),
    /// Prints what a seed means, and runs nothing.
    Plan(Run),
    /// Measures the speed of a cluster under load, without faults.
    Speed {
        /// The seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Longest pause of a client between two operations, in milliseconds.
        #[arg(long, default_value_t = 2_000)]
        pause_ms: u64,
        /// Also says where the time goes: by task, and by request.
        #[arg(long)]
        breakdown: bool,
    },
    /// Lists what there is, a line each.
    List {
        /// Of what.
        what: Listed,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Listed {
    /// Classes of faults.
    Faults,
    /// Planted bugs.
    Plants,
    /// Rare situations.
    Probes,
    /// Promises and their checkers.
    Checkers,
}

#[derive(clap::Args)]
struct Run {
    /// The seed; it decides everything.
    #[arg(long)]
    seed: u64,
    /// Lets more be lost than the promises cover: then data may be unreadable, and never wrong.
    #[arg(long)]
    beyond: bool,
    /// Switches a planted bug on (`cadole-sim list plants`).
    #[arg(long, value_name = "NAME")]
    plant: Option<String>,
    /// Leaves out a class of faults (`cadole-sim list faults`).
    #[arg(long, value_name = "CLASS")]
    without: Vec<FaultClass>,
    /// Leaves out the fault of this number (as in the story).
    #[arg(long, value_name = "NUMBER", value_delimiter = ',')]
    skip: Vec<u64>,
    /// Leaves out all faults after so many.
    #[arg(long, value_name = "COUNT")]
    faults: Option<u64>,
    /// Operations of clients, at most.
    #[arg(long, value_name = "COUNT")]
    operations: Option<u64>,
    /// Tells the story on standard output: who sent what to whom, what each disk kept, what failed.
    #[arg(long)]
    trace: bool,
    /// Ends when the story has a line with this text.
    #[arg(long, value_name = "TEXT")]
    until: Option<String>,
    /// Prints the report as one line of JSON.
    #[arg(long)]
    json: bool,
}

impl Run {
    fn options(&self) -> RunOptions {
        RunOptions {
            seed: self.seed,
            beyond: self.beyond,
            plant: self.plant.clone(),
            without: self.without.clone(),
            skip: self.skip.clone(),
            faults_max: self.faults,
            operations_max: self.operations,
            until: self.until.clone(),
        }
    }

    fn story(&self) -> Story {
        if self.trace {
            Story::Told(Box::new(std::io::BufWriter::new(std::io::stdout())))
        } else if self.until.is_some() {
            Story::Kept
        } else {
            Story::Untold
        }
    }
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(arguments) => run_seed(&arguments),
        Command::Plan(arguments) => {
            say(&format!("{:#?}", sim::run::plan_of(&arguments.options())));
            ExitCode::SUCCESS
        }
        Command::Speed { seed, pause_ms, breakdown } => {
            say(&sim::speed::measure(seed, Duration::from_millis(pause_ms), breakdown));
            ExitCode::SUCCESS
        }
        Command::List { what } => {
            say(&list(what));
            ExitCode::SUCCESS
        }
    }
}

/// A reader that has gone away is no reason to fail.
fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

fn run_seed(arguments: &Run) -> ExitCode {
    if let Some(plant) = &arguments.plant
        && !plants::ALL.iter().any(|known| known.name == plant)
    {
        drop(writeln!(std::io::stderr(), "there is no planted bug {plant:?}: see `cadole-sim list plants`"));
        return ExitCode::from(2);
    }
    let options = arguments.options();
    let panic = catch_panics();
    let report = catch_unwind(AssertUnwindSafe(|| run(&options, arguments.story())));
    let report = report.unwrap_or_else(|_| crashed(&options, &panic));
    say(&if arguments.json { to_json(&report) } else { for_people(&report) });
    report.findings.first().map_or(ExitCode::SUCCESS, |finding| ExitCode::from(finding.kind.exit_status()))
}

/// Where a panic happened, for the report.
fn catch_panics() -> Arc<Mutex<String>> {
    let text: Arc<Mutex<String>> = Arc::default();
    let kept = text.clone();
    std::panic::set_hook(Box::new(move |info| {
        let host = simhost::current_host().map_or(0, |host| host.0);
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = format!("on host {host}: {info}");
    }));
    text
}

fn crashed(options: &RunOptions, panic: &Mutex<String>) -> Report {
    let text = panic.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let finding = Finding { kind: Kind::Crash, checker: "bug", text, at_ms: 0 };
    Report {
        seed: options.seed,
        planted: options.plant.clone(),
        findings: vec![finding],
        ..Report::default()
    }
}

fn to_json(report: &Report) -> String {
    serde_json::to_string(report).unwrap_or_else(|error| format!("{{\"error\": {:?}}}", error.to_string()))
}

fn for_people(report: &Report) -> String {
    let mut lines = vec![format!(
        "seed {}: {} operations, {} acknowledged, {} faults, {:.1} s of virtual time, {} events, trace {}",
        report.seed,
        report.operations,
        report.acknowledged,
        report.faults.values().sum::<u64>(),
        report.simulated_ms as f64 / 1000.0,
        report.events,
        report.trace_hash
    )];
    for finding in &report.findings {
        lines.push(format!(
            "BROKEN after {} ms, {:?}: {}: {}",
            finding.at_ms, finding.kind, finding.checker, finding.text
        ));
    }
    if report.findings.is_empty() {
        lines.push("every promise was kept".to_owned());
    } else {
        lines.extend(report.last_events.iter().cloned());
    }
    lines.join("\n")
}

fn list(what: Listed) -> String {
    let lines: Vec<String> = match what {
        Listed::Faults => FaultClass::ALL.iter().map(|class| class.name().to_owned()).collect(),
        Listed::Plants => {
            plants::ALL.iter().map(|plant| format!("{}: {}", plant.name, plant.meaning)).collect()
        }
        Listed::Probes => probes::ALL.iter().map(|(name, meaning)| format!("{name}: {meaning}")).collect(),
        Listed::Checkers => checkers::TABLE
            .iter()
            .map(|checker| {
                format!("{}: {} ({}; {})", checker.name, checker.promise, checker.reason, checker.file)
            })
            .collect(),
    };
    lines.join("\n")
}
