//! Developer commands: `cargo xtask demo`, `dev`, `test`, `sim`, `bench`.

// A tool for people: it runs processes and reads files and clocks.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod bench;
mod cluster;
mod demo;
mod packages;
mod run;
mod sim;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Developer commands of Cadole.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster, store a real tree, lose a rack, read everything back, heal, compare.
    Demo(demo::Arguments),
    /// Keep a development cluster in the foreground until Ctrl-C.
    Dev,
    /// Format check, clippy, all tests, the simulator, documentation: all that a change has to pass.
    Test,
    /// Run whole clusters under faults in the simulator: fresh seeds for a minute, unless told otherwise.
    Sim(Box<sim::Arguments>),
    /// Measure.
    #[command(subcommand)]
    Bench(bench::Command),
    /// Install what is missing from Debian's packages.
    Packages,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Dev => dev().map(|()| ExitCode::SUCCESS),
        Command::Test => test(),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Bench(command) => bench::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Packages => packages::ensure().map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(status) => status,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dev() -> anyhow::Result<()> {
    packages::ensure()?;
    let bin = run::build()?;
    // Ctrl-C reaches the supervisor through the terminal; it stops the daemons and ends.
    run::check(std::process::Command::new(bin.join("cadoled")).arg("dev"))
}

fn test() -> anyhow::Result<ExitCode> {
    packages::ensure()?;
    run::cargo(&["fmt", "--all", "--check"], &[])?;
    run::cargo(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"], &[])?;
    // The end-to-end tests run the daemons as a user would: as binaries.
    let bin = run::build()?;
    run::cargo(&["test", "--workspace"], &[])?;
    run::cargo(&["doc", "--workspace", "--no-deps", "--all-features"], &[("RUSTDOCFLAGS", "-D warnings")])?;
    sim::ci(&bin)
}
