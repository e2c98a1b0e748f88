//! `cargo xtask sim --seed S --minimize`: the shortest command that still fails in the same way.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};

use super::case::Case;
use super::commit::Commit;
use super::failure::Failure;
use super::minimize::{Facts, Oracle, minimize};
use super::program::{Program, Run};
use super::report::Kind;

/// Asks the simulator itself.
struct Simulator<'a> {
    program: &'a Program,
    kind: Kind,
    checker: String,
    deadline: Instant,
    bar: ProgressBar,
    tries: u64,
    /// The last run that failed in the same way.
    last: Run,
}

impl Oracle for Simulator<'_> {
    fn fails(&mut self, case: &Case) -> anyhow::Result<Option<Facts>> {
        let Some(run) = self.program.tell(case)? else { return Ok(None) };
        self.tries += 1;
        let same =
            run.report.worst().is_some_and(|worst| worst.kind == self.kind && worst.checker == self.checker);
        let facts = same.then(|| facts(&run));
        if let Some(facts) = &facts {
            self.last = run;
            let (operations, struck) = (facts.operations, facts.struck().len());
            self.bar
                .set_message(format!("{} tries; left: {operations} operations, {struck} faults", self.tries));
        }
        Ok(facts)
    }

    fn is_spent(&self) -> bool {
        self.program.stop().is_asked() || Instant::now() >= self.deadline
    }
}

fn facts(run: &Run) -> Facts {
    Facts { operations: run.report.operations, faults: run.faults.clone() }
}

/// Makes a failing case smaller, within `budget` of real time, and prints what is left.
///
/// # Errors
///
/// When the case does not fail, or the simulator cannot be started.
pub(crate) fn run(
    program: &Program,
    case: &Case,
    budget: Duration,
    commit: &Commit,
) -> anyhow::Result<ExitCode> {
    let deadline = Instant::now() + budget;
    let Some(first) = program.tell(case)? else { bail!("stopped") };
    let Some(worst) = first.report.worst().cloned() else {
        bail!("{} keeps every promise: there is nothing to minimize", case.command())
    };
    let bar = ProgressBar::new_spinner()
        .with_style(ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}")?);
    bar.enable_steady_tick(Duration::from_millis(500));
    let before = facts(&first);
    let mut simulator =
        Simulator { program, kind: worst.kind, checker: worst.checker, deadline, bar, tries: 1, last: first };
    let (smallest, after) = minimize(&mut simulator, case.clone(), before.clone())?;
    simulator.bar.finish_and_clear();
    if let Some(failure) = Failure::of(&simulator.last, program, commit)? {
        println!("{failure}");
    }
    let spent = if Instant::now() >= deadline {
        "; the time is over, more may be possible with --budget"
    } else {
        ""
    };
    println!(
        "\nafter {} tries: {} of {} operations and {} of {} faults are left{spent}\n{}",
        simulator.tries,
        after.operations,
        before.operations,
        after.struck().len(),
        before.struck().len(),
        smallest.command()
    );
    Ok(ExitCode::from(worst.kind.exit_status()))
}
