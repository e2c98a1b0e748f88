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
    // Always the whole workspace: with another selection cargo may choose other features for what
    // RocksDB is built with, and compile it again.
    cargo(&["build", "--workspace", "--bins"], &[])?;
    let metadata =
        output(Command::new(cargo_program()).args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo metadata is no JSON")?;
    let target = metadata["target_directory"].as_str().context("cargo names no target directory")?;
    Ok(PathBuf::from(target).join("debug"))
}

fn cargo_program() -> String {
    env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}
