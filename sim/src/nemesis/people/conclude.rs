//! What people settle when the faults have ended, so that whatever goes on can end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use meta::state::Machine;
use proto::wire::request::Call;
use proto::wire::{TaskKind, TaskState};
use proto::{DiskId, wire};
use simhost::Stream;

use super::order;
use crate::cluster::Cluster;
use crate::oracle;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Commands that are under way are answered, or given up, within this time.
const ORDERS_LIMIT: Duration = Duration::from_secs(30);
/// Slower than this nothing ends in time.
const LIMIT_MIN_BYTES_PER_S: u64 = 1 << 20;
/// How often a paused task is cancelled, and one that runs, in a million.
const CANCELLED_PPM: u32 = 300_000;
const RUNNING_CANCELLED_PPM: u32 = 100_000;

/// Resumes or cancels what is paused, lifts small limits, and gives up disks that are gone and shall be empty.
pub(in super::super) async fn conclude(cluster: &Arc<Cluster>) {
    let deadline = cluster.world.now() + ORDERS_LIMIT;
    while cluster.nemesis.orders.load(Ordering::Relaxed) > 0 && cluster.world.now() < deadline {
        cluster.world.sleep(LOOK).await;
    }
    let Some(metadata) = oracle::latest(cluster) else { return };
    let draws = cluster.world.stream("people in the calm");
    let tasks: Vec<wire::Task> = metadata.machine.tasks().active().cloned().collect();
    let dead = dead_disks(cluster, &metadata.machine);
    drop(metadata);
    for task in tasks {
        if let Some(set) = settle(&draws, &task) {
            order::order(cluster, &draws, true, |command_id| {
                Call::SetTask(wire::SetTask { command_id, ..set })
            })
            .await;
        }
        let gone: Vec<u32> =
            task.disks.iter().copied().filter(|disk| dead.contains(&DiskId(*disk))).collect();
        for disk in gone.into_iter().filter(|_| task.kind() != TaskKind::ReplaceDisk) {
            let kind = TaskKind::FailDisk.into();
            let fail = wire::BeginTask { kind, disk, reason: "it is gone".to_owned(), ..Default::default() };
            order::order(cluster, &draws, true, |command_id| {
                Call::BeginTask(wire::BeginTask { command_id, ..fail })
            })
            .await;
        }
    }
}

/// What has to be said about a task.
fn settle(draws: &Stream, task: &wire::Task) -> Option<wire::SetTask> {
    let is_paused = task.state() == TaskState::Paused;
    let cancelled = draws.chance(if is_paused { CANCELLED_PPM } else { RUNNING_CANCELLED_PPM });
    let state = match (cancelled, is_paused) {
        (true, _) => TaskState::Cancelled,
        (false, true) => TaskState::Running,
        (false, false) => TaskState::Unspecified,
    };
    let is_slow = (1..LIMIT_MIN_BYTES_PER_S).contains(&task.limit_bytes_per_s);
    if state == TaskState::Unspecified && !is_slow {
        return None;
    }
    let limit_bytes_per_s = is_slow.then_some(0);
    Some(wire::SetTask { id: task.id, state: state.into(), limit_bytes_per_s, ..Default::default() })
}

/// Disks of the map that nobody can see.
fn dead_disks(cluster: &Cluster, machine: &Machine) -> BTreeSet<DiskId> {
    let there = oracle::disks(cluster);
    let disks = machine.map().disks().values();
    disks.filter(|disk| !there.by_uuid.contains_key(&disk.uuid)).map(|disk| disk.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing stays paused, and nothing so slow that it does not end.
    #[test]
    fn everything_can_end() {
        let draws = Stream::new(3);
        for (state, limit) in
            [(TaskState::Paused, 0), (TaskState::Paused, 7), (TaskState::Running, 7), (TaskState::Running, 0)]
        {
            let task =
                wire::Task { id: 1, state: state.into(), limit_bytes_per_s: limit, ..Default::default() };
            for _ in 0..50 {
                let set = settle(&draws, &task);
                let after = set.as_ref().map_or(TaskState::Unspecified, wire::SetTask::state);
                assert!(state != TaskState::Paused || after != TaskState::Unspecified, "{task:?}: {set:?}");
                let limit_after = set.and_then(|set| set.limit_bytes_per_s).unwrap_or(limit);
                assert!(after == TaskState::Cancelled || limit_after == 0, "{task:?}: {limit_after}");
            }
        }
    }
}
