//! Developer commands: `cargo xtask demo`, `dev`, `test`, `bench`.

// A tool for people: it runs processes and reads files and clocks.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod bench;
mod cluster;
mod demo;
mod packages;
mod run;
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
    /// Format check, clippy, all tests, documentation: all that a change has to pass.
    Test,
    /// Measure.
    #[command(subcommand)]
    Bench(bench::Command),
    /// Install what is missing from Debian's packages.
    Packages,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Dev => dev(),
        Command::Test => test(),
        Command::Bench(command) => bench::run(&command),
        Command::Packages => packages::ensure(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
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

fn test() -> anyhow::Result<()> {
    packages::ensure()?;
    run::cargo(&["fmt", "--all", "--check"], &[])?;
    run::cargo(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"], &[])?;
    // The end-to-end tests run the daemons as a user would: as binaries.
    run::build()?;
    run::cargo(&["test", "--workspace"], &[])?;
    run::cargo(&["doc", "--workspace", "--no-deps", "--all-features"], &[("RUSTDOCFLAGS", "-D warnings")])
}
