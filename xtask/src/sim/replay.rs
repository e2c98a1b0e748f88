//! `cargo xtask sim --seed S`: one seed again, for a person to look at.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;

use anyhow::Context;

use super::case::Case;
use super::commit::Commit;
use super::failure::Failure;
use super::process;
use super::program::Program;
use super::stop::INTERRUPTED;
use super::summary::Summary;

/// Runs the case and says what came of it.
///
/// # Errors
///
/// When the simulator cannot be started.
pub(crate) fn run(program: &Program, case: &Case, commit: &Commit, json: bool) -> anyhow::Result<ExitCode> {
    let Some(run) = program.run(case)? else { return Ok(ExitCode::from(INTERRUPTED)) };
    let status =
        run.report.worst().map_or(ExitCode::SUCCESS, |worst| ExitCode::from(worst.kind.exit_status()));
    if json && !run.printed.is_empty() {
        println!("{}", run.printed);
        return Ok(status);
    }
    let mut summary = Summary::default();
    summary.add(&run);
    println!("{summary}");
    println!("trace {}, {:.1} s of real time", run.report.trace_hash, run.took.as_secs_f64());
    match Failure::of(&run, program, commit)? {
        Some(failure) => println!("{failure}"),
        None => println!("every promise was kept"),
    }
    Ok(status)
}

/// Runs the case and tells its story while it goes on, to its end or up to a line with the text `until`.
///
/// # Errors
///
/// When the simulator cannot be started.
pub(crate) fn story(program: &Program, case: &Case, until: Option<&str>) -> anyhow::Result<ExitCode> {
    let mut command = program.command();
    command.arg("run").args(case.arguments()).arg("--trace");
    if let Some(text) = until {
        command.args(["--until", text]);
    }
    let mut child = command.spawn().context("cannot start cadole-sim")?;
    let status = process::wait(&mut child, || program.stop().is_asked())?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let by_signal =
        || if program.stop().is_asked() || status.signal() == Some(2) { INTERRUPTED } else { 101 };
    Ok(ExitCode::from(code.unwrap_or_else(by_signal)))
}
