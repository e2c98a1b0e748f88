//! `clusterctl offline`: disks that no daemon serves.
//!
//! Works on the directories of disks and on nothing else: no cluster, no certificate, no configuration. Each is locked
//! as a daemon would lock it, and read as a store would read it that has lost its index. Nothing on a disk is changed.

mod check;
mod disks;
mod extract;
mod list;
mod new_file;
mod salvage;

use std::process::ExitCode;

use env::Priority;
use proto::{ExtentId, ShardName, wire};

use crate::Session;

/// For whom disks are read: nobody else uses them.
const PRIORITY: Priority = Priority::Client;

/// What to do with disks.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Which disks these are, and the shards on them.
    List(list::Arguments),
    /// Verify every record and block; exit status 1 when something is damaged.
    Check(check::Arguments),
    /// Copy shards into files.
    Extract(extract::Arguments),
    /// Save objects with all metadata lost, from what their shards say of them; exit status 1 when something
    /// that was found cannot be saved.
    Salvage(salvage::Arguments),
}

/// Carries out the command.
///
/// # Errors
///
/// When disks cannot be used or files not be written.
pub(crate) async fn run(session: &Session, command: &Command) -> anyhow::Result<ExitCode> {
    let is_whole = match command {
        Command::List(arguments) => list::run(session, arguments).await?,
        Command::Check(arguments) => check::run(session, arguments).await?,
        Command::Extract(arguments) => extract::run(session, arguments).await?,
        Command::Salvage(arguments) => salvage::run(session, arguments).await?,
    };
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Parses `GROUP/EXTENT/STRIPE/SLOT`, as shards are printed everywhere.
///
/// # Errors
///
/// A sentence with the right form.
fn parse_shard(text: &str) -> Result<ShardName, String> {
    let wrong =
        || format!("{text:?} is no shard: write GROUP/EXTENT/STRIPE/SLOT, as `offline list` prints them");
    let parts: Vec<&str> = text.split('/').collect();
    let [group, extent, stripe, slot] = parts[..] else { return Err(wrong()) };
    Ok(ShardName {
        group: group.parse().map_err(|_| wrong())?,
        extent: extent.parse::<ExtentId>().map_err(|_| wrong())?,
        stripe: stripe.parse().map_err(|_| wrong())?,
        slot: wire::slot_index(slot.parse().map_err(|_| wrong())?).map_err(|_| wrong())?,
    })
}

/// Text of a stranger's making, for a terminal: without control characters.
fn shown(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shards parse as they are printed; anything else is refused with the right form.
    #[test]
    fn shards_parse() {
        let text = "7/000001a2b3c4d5e6f708090a0b0c0d0e/3/5";
        assert_eq!(parse_shard(text).expect("good").to_string(), text);
        for bad in
            ["", "7", "7/1/3/5", &text.replace("/5", "/24"), &text.replace("/5", "/-1"), &format!("{text}/1")]
        {
            assert!(parse_shard(bad).expect_err(bad).contains("GROUP/EXTENT/STRIPE/SLOT"));
        }
    }

    /// A key cannot speak to the terminal.
    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(shown("é \u{1b}[2J\n"), "é \\u{1b}[2J\\n");
    }
}
