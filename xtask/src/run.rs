//! Running other programs.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Runs a command to its end.
///
/// # Errors
///
/// When it cannot be started or fails.
pub(crate) fn check(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        bail!("{name} {} failed: {status}", arguments.join(" "));
    }
    Ok(())
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
///
/// When it cannot be started or fails.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs cargo in this workspace.
///
/// # Errors
///
/// When it fails.
pub(crate) fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    eprintln!("+ cargo {}", arguments.join(" "));
    check(Command::new(cargo_program()).args(arguments).envs(environment.iter().copied()))
}

/// Builds the binaries and returns the directory that they are in.
///
/// # Errors
///
/// When the build fails.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    cargo(&["build", "--package", "cadole-cadoled", "--package", "cadole-clusterctl"], &[])?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    Ok(std::path::absolute(target.join("debug"))?)
}

fn cargo_program() -> String {
    env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}
