//! What takes people longer: a disk is replaced, a node is emptied and taken away.
//!
//! A disk that is well leaves its machine only when the metadata call it retired, a node only when it is forgotten.

use std::sync::Arc;
use std::time::Duration;

use placement::Duty;
use proto::wire::request::Call;
use proto::wire::response::Result as Reply;
use proto::wire::{TaskKind, TaskState};
use proto::{DiskId, NodeId, TaskId, wire};
use simhost::Stream;

use super::super::losses;
use super::super::operators::operate;
use super::super::strike::{Outcome, Strike};
use super::super::victims;
use super::{disks_in, limit, may_give_up, order, place_of};
use crate::cluster::{Cluster, NodeHost};
use crate::oracle;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// How often a dead disk is chosen to be replaced, if there is one; in a million.
const DEAD_PPM: u32 = 700_000;
/// How often a new disk comes in the place of one that was emptied, in a million.
const NEW_DISK_PPM: u32 = 700_000;
/// How often a node is asked to be forgotten before people bring it back.
const FORGET_TRIES: u32 = 90;
/// Between two of them.
const FORGET_PAUSE: Duration = Duration::from_secs(1);
/// Nodes that stay.
const NODES_MIN: usize = 3;

/// A disk is replaced: one that is gone, or one that is well.
pub(in super::super) fn replace_disk(strike: &Strike<'_>) -> Outcome {
    let Some(metadata) = oracle::latest(strike.cluster) else { return Outcome::Nobody };
    let dead = lost_disks(strike.cluster, &metadata);
    let dead = strike.pick(&dead).filter(|_| strike.draws.chance(DEAD_PPM));
    if let Some((disk, node, path)) = dead {
        return replace_dead(strike, disk, node, path);
    }
    if let Err(outcome) = may_give_up(&metadata.machine) {
        return outcome;
    }
    let Some(disk) = strike.pick(&disks_in(&metadata.machine, |duty| duty != Duty::Retired)) else {
        return Outcome::Nobody;
    };
    let begin = replacement(disk, limit(strike));
    let outcome = strike.hits(None, || format!("disk {disk} is replaced: {begin:?}"));
    let (cluster, draws) = (strike.cluster.clone(), strike.draws.fork("order"));
    operate(strike.cluster, async move {
        let Some(task) = begun(&cluster, &draws, begin).await else { return };
        if ended(&cluster, task).await == Some(TaskState::Done) && draws.chance(NEW_DISK_PPM) {
            swap(&cluster, disk);
        }
    });
    outcome
}

/// The new disk may be there before anybody says that the old one is replaced.
fn replace_dead(strike: &Strike<'_>, disk: DiskId, node: NodeId, path: String) -> Outcome {
    let begin = replacement(disk, limit(strike));
    let new_first = strike.draws.chance(500_000);
    let outcome =
        strike.hits(None, || format!("dead disk {disk} is replaced, the new one comes first: {new_first}"));
    let (cluster, draws) = (strike.cluster.clone(), strike.draws.fork("order"));
    operate(strike.cluster, async move {
        if new_first {
            losses::replace_disk(&cluster, node, &path);
        }
        order::order(&cluster, &draws, false, |command_id| {
            Call::BeginTask(wire::BeginTask { command_id, ..begin })
        })
        .await;
        if !new_first {
            losses::replace_disk(&cluster, node, &path);
        }
    });
    outcome
}

fn replacement(disk: DiskId, limit_bytes_per_s: u64) -> wire::BeginTask {
    let kind = TaskKind::ReplaceDisk.into();
    wire::BeginTask { kind, disk: disk.0, limit_bytes_per_s, ..Default::default() }
}

/// Disks that are gone from machines that are there, as the map knows them.
fn lost_disks(cluster: &Cluster, metadata: &oracle::Metadata) -> Vec<(DiskId, NodeId, String)> {
    let map = metadata.machine.map();
    let known = |(node, path): (NodeId, String)| {
        let named = |disk: &&placement::Disk| disk.name.to_string() == path.trim_start_matches('/');
        let in_use = |disk: &&placement::Disk| disk.duty != Duty::Retired;
        let disk = map.disks_of(node).filter(named).filter(in_use).last()?;
        Some((disk.id, node, path))
    };
    cluster.nemesis.lost_disks().into_iter().filter_map(known).collect()
}

/// The task, if it was begun.
async fn begun(cluster: &Arc<Cluster>, draws: &Stream, begin: wire::BeginTask) -> Option<TaskId> {
    let make = |command_id| Call::BeginTask(wire::BeginTask { command_id, ..begin });
    match order::order(cluster, draws, false, make).await? {
        Ok(Reply::BeginTask(reply)) => reply.task.map(|task| TaskId(task.id)),
        _ => None,
    }
}

/// How the task ended; none when nobody remembers it.
async fn ended(cluster: &Cluster, task: TaskId) -> Option<TaskState> {
    loop {
        if let Some(metadata) = oracle::latest(cluster) {
            // A server that has fallen back may not know it yet.
            let known = metadata.machine.tasks().get(task).map(wire::Task::state);
            let is_past = metadata.machine.totals().next_task > task.0;
            match known {
                Some(TaskState::Running | TaskState::Paused) => {}
                None if !is_past => {}
                ended => return ended,
            }
        }
        cluster.world.sleep(LOOK).await;
    }
}

/// A new disk comes in the place of one that is retired.
fn swap(cluster: &Arc<Cluster>, disk: DiskId) {
    let Some(metadata) = oracle::latest(cluster) else { return };
    if metadata.machine.map().disk_duty(disk) != Duty::Retired {
        return;
    }
    let Some(at) = place_of(cluster, &metadata.machine, disk) else { return };
    if victims::nodes(cluster).iter().all(|node| node.id != at.node) {
        return;
    }
    cluster.world.probe("a disk was emptied and replaced");
    losses::swap_disk(cluster, &at);
}

/// A node is emptied, stopped, and forgotten.
pub(in super::super) fn retire_node(strike: &Strike<'_>) -> Outcome {
    let nodes = victims::nodes(strike.cluster);
    if nodes.len() <= NODES_MIN {
        return Outcome::Refused("the last nodes stay".to_owned());
    }
    let Some(node) = strike.pick(&nodes) else { return Outcome::Nobody };
    let kind = TaskKind::DrainNode.into();
    let begin =
        wire::BeginTask { kind, node: node.id.0, limit_bytes_per_s: limit(strike), ..Default::default() };
    let outcome = strike.hits(Some(node.process.host()), || format!("shall go: {begin:?}"));
    let (cluster, draws) = (strike.cluster.clone(), strike.draws.fork("order"));
    operate(strike.cluster, async move {
        let Some(task) = begun(&cluster, &draws, begin).await else { return };
        if ended(&cluster, task).await == Some(TaskState::Done) && node.process.is_wanted() {
            forget(&cluster, &draws, &node).await;
        }
    });
    outcome
}

/// Stops an empty node and has it forgotten; brings it back when that cannot be.
async fn forget(cluster: &Arc<Cluster>, draws: &Stream, node: &NodeHost) {
    node.process.want(false);
    node.stop();
    for _ in 0..FORGET_TRIES {
        cluster.world.sleep(FORGET_PAUSE).await;
        let make = |command_id| Call::ForgetNode(wire::ForgetNode { node: node.id.0, command_id });
        if let Some(Ok(_)) = order::order(cluster, draws, true, make).await {
            cluster.world.probe("a node was emptied and forgotten");
            losses::take_away_all(cluster, node);
            return;
        }
        let has_slots = |metadata: &oracle::Metadata| {
            let map = metadata.machine.map();
            map.disks_of(node.id).any(|disk| map.slots_on(disk.id) > 0)
        };
        if oracle::latest(cluster).as_ref().is_some_and(has_slots) {
            break;
        }
    }
    cluster.world.tell(None, || format!("node {} is needed: it comes back", node.id));
    node.process.want(true);
}
