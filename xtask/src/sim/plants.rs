//! `cargo xtask sim --plants`: how many seeds each planted bug takes to be found.

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use comfy_table::{Table, presets};

use super::hunt::{Bug, Hunt};
use super::planted::{self, Known};
use super::program::Program;
use super::summary::align_right;

/// Looks for all planted bugs, or for the one named `only`, with the seeds from 1 to `limit`, and prints
/// a table. `write` keeps the seeds that found them, for `cargo xtask sim ci`.
///
/// # Errors
///
/// When there is no such bug, when one was not found, or when the simulator cannot be started.
pub(crate) fn run(
    program: &Program,
    only: Option<&str>,
    limit: u64,
    jobs: usize,
    write: bool,
) -> anyhow::Result<ExitCode> {
    let listed: Vec<Bug> = program.list("plants")?.iter().map(|line| Bug::listed(line)).collect();
    let known: Vec<String> = listed.iter().map(|bug| bug.name.clone()).collect();
    let wanted: Vec<Bug> =
        listed.into_iter().filter(|bug| only.is_none_or(|only| bug.name == only)).collect();
    if wanted.is_empty() {
        bail!("there is no such planted bug; there are: {}", known.join(", "));
    }
    let bugs = Hunt::run(program, wanted, limit, None, jobs)?;
    println!("{}", table(&bugs));
    if write {
        keep(&bugs, &known)?;
    }
    let missing: Vec<&str> =
        bugs.iter().filter(|bug| bug.found.is_none()).map(|bug| bug.name.as_str()).collect();
    if !missing.is_empty() {
        bail!("not found: {}", missing.join(", "));
    }
    println!("all {} planted bugs were found", bugs.len());
    Ok(ExitCode::SUCCESS)
}

fn table(bugs: &[Bug]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header([
        "planted bug",
        "the mistake",
        "seeds",
        "found by",
        "seconds",
    ]);
    for bug in bugs {
        let found = bug.found.as_ref();
        table.add_row([
            bug.name.clone(),
            bug.meaning.clone(),
            found.map_or("not found".to_owned(), |(seed, _)| seed.to_string()),
            found.map_or(String::new(), |(_, finding)| finding.checker.clone()),
            format!("{:.1}", bug.took.as_secs_f64()),
        ]);
    }
    align_right(&mut table, 2..3);
    align_right(&mut table, 4..5);
    table
}

/// Keeps what was found; what was not found stays as it was, and what is no bug any more goes.
fn keep(bugs: &[Bug], known: &[String]) -> anyhow::Result<()> {
    let path = Path::new(planted::FILE);
    let mut table = planted::read(path)?;
    for bug in bugs {
        if let Some((seed, finding)) = &bug.found {
            table.insert(bug.name.clone(), Known { seed: *seed, checker: finding.checker.clone() });
        }
    }
    table.retain(|name, _| known.contains(name));
    planted::write(path, &table)?;
    println!("written: {}", planted::FILE);
    Ok(())
}
