//! What takes long: drains, replacements, rebalances.
//!
//! A command shows what it is about to do, asks, begins it, and watches it. The cluster does the work and keeps its
//! progress: a command that is killed and typed again finds its task and watches on.

mod begin;
mod list;
mod progress;
mod replace;
mod watch;

use proto::{ByteSize, DiskId, InvalidInput, NodeId, wire};
use serde_json::{Value, json};

pub(crate) use begin::{drain_disk, drain_node, fail_disk, rebalance};
pub(crate) use list::{list, rebalance_status, set, set_limit, set_rebalance, show};
pub(crate) use replace::replace;

use crate::Session;
use wire::{TaskKind, TaskState};

/// How a long command is carried out.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Long {
    /// Only show what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// How fast all nodes together may copy, for example 200MB/s; 0 is the cluster's default.
    #[arg(long, value_name = "RATE")]
    limit: Option<Rate>,
    /// Do not wait until it is done.
    #[arg(long)]
    no_wait: bool,
}

/// Bytes per second, as they are typed: `200MB/s`, `64MiB`, `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) u64);

impl std::str::FromStr for Rate {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        let size: Result<ByteSize, _> = text.strip_suffix("/s").unwrap_or(text).trim_end().parse();
        let wrong =
            |_| InvalidInput::new(format!("{text:?} is not a rate: write for example 200MB/s or 64MiB/s"));
        size.map(|size| Self(size.0)).map_err(wrong)
    }
}

/// Brings the disks of a node back into service.
///
/// # Errors
///
/// What the cluster refused.
pub(crate) async fn undrain_node(session: &Session, node: NodeId) -> anyhow::Result<()> {
    session.connect().await?.admin().undrain_node(node).await?;
    session.format.print(&json!({ "node": node.0, "in_service": true }), || {
        format!("the disks of node {node} are in service; to fill them again: clusterctl rebalance")
    });
    Ok(())
}

/// Brings a disk back into service.
///
/// # Errors
///
/// What the cluster refused.
pub(crate) async fn undrain_disk(session: &Session, disk: DiskId) -> anyhow::Result<()> {
    session.connect().await?.admin().undrain_disk(disk).await?;
    session.format.print(&json!({ "disk": disk.0, "in_service": true }), || {
        format!("disk {disk} is in service; to fill it again: clusterctl rebalance")
    });
    Ok(())
}

/// Removes a node that is gone: its disks are retired for good.
///
/// # Errors
///
/// What the cluster refused: the node still has slots, or still answers.
pub(crate) async fn remove_node(session: &Session, node: NodeId, yes: bool) -> anyhow::Result<()> {
    let cluster = session.connect().await?;
    begin::ask(session, yes, &format!("retire all disks of node {node} for good?"))?;
    cluster.admin().forget_node(node).await?;
    session.format.print(&json!({ "node": node.0, "removed": true }), || {
        format!("node {node} is removed: its disks are retired, and their ids are never used again")
    });
    Ok(())
}

/// `drain of node 3`.
fn what(task: &wire::Task) -> String {
    let disk = task.disks.first().copied().unwrap_or_default();
    match task.kind() {
        TaskKind::DrainNode => format!("drain of node {}", task.node),
        TaskKind::DrainDisk => format!("drain of disk {disk}"),
        TaskKind::FailDisk => format!("disk {disk} is given up"),
        TaskKind::ReplaceDisk => format!("replacement of disk {disk}"),
        TaskKind::Rebalance => "rebalance".to_owned(),
        TaskKind::Unspecified => "unknown".to_owned(),
    }
}

/// `4, drain of node 3: 12 of 80 slots, …`.
pub(crate) fn line(task: &wire::Task, bytes_per_s: Option<u64>) -> String {
    format!("{}, {}: {}", task.id, what(task), progress::progress(task, bytes_per_s))
}

fn kind_name(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::DrainNode => "drain-node",
        TaskKind::DrainDisk => "drain-disk",
        TaskKind::FailDisk => "fail-disk",
        TaskKind::ReplaceDisk => "replace-disk",
        TaskKind::Rebalance => "rebalance",
        TaskKind::Unspecified => "unknown",
    }
}

fn state_name(state: TaskState) -> &'static str {
    match state {
        TaskState::Running => "running",
        TaskState::Paused => "paused",
        TaskState::Done => "done",
        TaskState::Cancelled => "cancelled",
        TaskState::Failed => "failed",
        TaskState::Unspecified => "unknown",
    }
}

pub(crate) fn is_active(task: &wire::Task) -> bool {
    matches!(task.state(), TaskState::Running | TaskState::Paused)
}

/// For programs; `bytes_per_s` is how fast it got on lately, if that is known.
pub(crate) fn to_json(task: &wire::Task, bytes_per_s: Option<u64>) -> Value {
    json!({
        "id": task.id, "kind": kind_name(task.kind()), "state": state_name(task.state()), "reason": task.reason,
        "created_ms": task.created_ms, "ended_ms": (task.ended_ms != 0).then_some(task.ended_ms),
        "limit_bytes_per_s": task.limit_bytes_per_s, "node": (task.node != 0).then_some(task.node),
        "disks": task.disks, "to_disk": (task.to_disk != 0).then_some(task.to_disk),
        "slots_total": task.slots_total, "slots_done": task.slots_done,
        "bytes_total": task.bytes_total, "bytes_done": task.bytes_done, "bytes_per_s": bytes_per_s,
    })
}

/// How fast a task got on lately, as far as the leader has watched it.
pub(crate) fn pace(tasks: &wire::ListTasksReply, id: u32) -> Option<u64> {
    tasks.paces.iter().find(|pace| pace.id == id).map(|pace| pace.bytes_per_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rates are sizes with or without `/s`; anything else is refused with an example.
    #[test]
    fn rates_parse() {
        for (text, bytes) in [("200MB/s", 200_000_000), ("64MiB", 64 << 20), ("0", 0), ("1 GiB/s", 1 << 30)] {
            assert_eq!(text.parse(), Ok(Rate(bytes)), "{text}");
        }
        for bad in ["", "/s", "fast", "200MB/h", "-1"] {
            let error = bad.parse::<Rate>().expect_err(bad).to_string();
            assert!(error.contains("200MB/s"), "{error}");
        }
    }
}
