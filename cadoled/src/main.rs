//! The daemon of Cadole.

// The binaries are where the machine begins.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::path::PathBuf;
use std::process::ExitCode;

use cadoled::daemon::{self, End};
use cadoled::{ca, dev};
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cadoled", version, about = "Runs the parts of a Cadole cluster.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a metadata server.
    Meta {
        /// Its configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Run a storage node.
    Node {
        /// Its configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Run a development cluster of separate processes on loopback.
    Dev(dev::Arguments),
    /// Make the cluster's certificates.
    #[command(subcommand)]
    Ca(ca::Command),
    /// Work with configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a configuration file without starting anything.
    Check {
        /// The file.
        file: PathBuf,
    },
}

/// Ended because the machine would not let it go on.
const EXIT_FAILED: u8 = 3;

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(End::Stopped) => ExitCode::SUCCESS,
        Ok(End::Failed) => ExitCode::from(EXIT_FAILED),
        Err(error) => {
            eprintln!("cadoled: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<End> {
    let said = match command {
        Command::Meta { config } => return daemon::run_meta(&config),
        Command::Node { config } => return daemon::run_node(&config),
        Command::Dev(arguments) => dev::run(&arguments)?,
        Command::Ca(command) => ca::run(&command)?,
        Command::Config(ConfigCommand::Check { file }) => daemon::check(&file)?,
    };
    if !said.is_empty() {
        println!("{said}");
    }
    Ok(End::Stopped)
}
