//! Commands that one word begins or changes.

use placement::Duty;
use proto::wire::request::Call;
use proto::wire::{TaskKind, TaskState};
use proto::{DiskId, NodeId, wire};

use super::super::operators::operate;
use super::super::strike::{Outcome, Strike};
use super::{LIMITS, begin, disks_in, limit, may_give_up, order};
use crate::oracle;

/// How often a whole node is drained or brought back, not a disk; in a million.
const NODE_PPM: u32 = 400_000;

/// A node or a disk shall be empty.
pub(in super::super) fn drain(strike: &Strike<'_>) -> Outcome {
    let Some(metadata) = oracle::latest(strike.cluster) else { return Outcome::Nobody };
    let Some(disk) = strike.pick(&disks_in(&metadata.machine, |duty| duty != Duty::Retired)) else {
        return Outcome::Nobody;
    };
    let limit_bytes_per_s = limit(strike);
    let node = node_of(&metadata, disk).filter(|_| strike.draws.chance(NODE_PPM));
    let drain = match node {
        Some(node) => {
            let kind = TaskKind::DrainNode.into();
            wire::BeginTask { kind, node: node.0, limit_bytes_per_s, ..Default::default() }
        }
        None => {
            let kind = TaskKind::DrainDisk.into();
            wire::BeginTask { kind, disk: disk.0, limit_bytes_per_s, ..Default::default() }
        }
    };
    begin(strike, "drains", drain)
}

fn node_of(metadata: &oracle::Metadata, disk: DiskId) -> Option<NodeId> {
    metadata.machine.map().disks().get(&disk).map(|disk| disk.node)
}

/// A disk is not to be relied on, they say.
pub(in super::super) fn fail_disk(strike: &Strike<'_>) -> Outcome {
    let Some(metadata) = oracle::latest(strike.cluster) else { return Outcome::Nobody };
    if let Err(outcome) = may_give_up(&metadata.machine) {
        return outcome;
    }
    let not_given_up = |duty: Duty| !duty.is_given_up();
    let Some(disk) = strike.pick(&disks_in(&metadata.machine, not_given_up)) else { return Outcome::Nobody };
    let kind = TaskKind::FailDisk.into();
    let reason = "it makes noise".to_owned();
    begin(strike, "gives up", wire::BeginTask { kind, disk: disk.0, reason, ..Default::default() })
}

/// All disks shall be equally full.
pub(in super::super) fn rebalance(strike: &Strike<'_>) -> Outcome {
    let (kind, limit_bytes_per_s) = (TaskKind::Rebalance.into(), limit(strike));
    begin(strike, "evens out", wire::BeginTask { kind, limit_bytes_per_s, ..Default::default() })
}

/// A task is paused, resumed, cancelled, or has another limit.
pub(in super::super) fn set_task(strike: &Strike<'_>) -> Outcome {
    let Some(metadata) = oracle::latest(strike.cluster) else { return Outcome::Nobody };
    let tasks: Vec<u32> = metadata.machine.tasks().active().map(|task| task.id).collect();
    let Some(id) = strike.pick(&tasks) else { return Outcome::Nobody };
    let states = [
        TaskState::Paused,
        TaskState::Paused,
        TaskState::Running,
        TaskState::Running,
        TaskState::Cancelled,
        TaskState::Unspecified,
    ];
    let state = strike.pick(&states).unwrap_or(TaskState::Running);
    let limited = state == TaskState::Unspecified || strike.draws.chance(200_000);
    let limit_bytes_per_s = strike.pick(&LIMITS).filter(|_| limited);
    let set = wire::SetTask { id, state: state.into(), limit_bytes_per_s, ..Default::default() };
    let outcome = strike.hits(None, || format!("{set:?}"));
    let (cluster, draws) = (strike.cluster.clone(), strike.draws.fork("order"));
    operate(strike.cluster, async move {
        let make = |command_id| Call::SetTask(wire::SetTask { command_id, ..set });
        order::order(&cluster, &draws, false, make).await;
    });
    outcome
}

/// Disks that are out of service, or on their way, shall serve again.
pub(in super::super) fn undrain(strike: &Strike<'_>) -> Outcome {
    let Some(metadata) = oracle::latest(strike.cluster) else { return Outcome::Nobody };
    let leaving = |duty| matches!(duty, Duty::Draining | Duty::Failed);
    let Some(disk) = strike.pick(&disks_in(&metadata.machine, leaving)) else { return Outcome::Nobody };
    let node = node_of(&metadata, disk).filter(|_| strike.draws.chance(NODE_PPM));
    let undrain = match node {
        Some(node) => wire::Undrain { node: node.0, ..Default::default() },
        None => wire::Undrain { disk: disk.0, ..Default::default() },
    };
    let outcome = strike.hits(None, || format!("{undrain:?}"));
    let (cluster, draws) = (strike.cluster.clone(), strike.draws.fork("order"));
    operate(strike.cluster, async move {
        let make = |command_id| Call::Undrain(wire::Undrain { command_id, ..undrain });
        order::order(&cluster, &draws, false, make).await;
    });
    outcome
}
