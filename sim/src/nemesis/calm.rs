//! The end of all faults: what is left comes back, and operators do what only people can do.
//!
//! What people do: make room on disks, boot machines that are off, restart nodes with a disk that takes no more writes after an
//! error, put new disks and nodes in the place of lost and drained ones where nothing else makes legal places, and
//! finish what they began. All the rest the cluster has to do by itself, afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use placement::{ClusterMap, Duty};
use proto::limits::GRANT_MS;
use proto::{DiskId, DiskUuid, Incarnation, NodeId};
use simhost::{Death, Host};

use super::ailments;
use super::atlas::out_share_max_percent;
use super::losses::{replace_disk, replace_node};
use super::people;
use super::topology::settles;
use super::victims;
use crate::cluster::{Cluster, NodeHost};
use crate::late;
use crate::oracle;
use crate::plan::NodePlan;
use crate::process::{Process, lock};
use crate::verdict::Kind;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// All machines are up within this time.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// Operators have finished what they began within this time.
const OPERATORS_LIMIT: Duration = Duration::from_secs(300);
/// Nodes with broken disks are looked after for so long.
const RESTARTS_LIMIT: Duration = Duration::from_secs(120);
/// Time that a restarted node gets before it is looked at again.
const RESTART_REST: Duration = Duration::from_secs(4);
/// Nodes that operators add in the calm, at most.
const NODES_ADDED_MAX: usize = 12;
/// What each of their disks can hold.
const DISK_BYTES: u64 = 128 << 20;
/// Further than the end of every grant.
const BEYOND_GRANTS_MS: u64 = GRANT_MS + 60_000;

/// Ends all faults. Returns when all machines that should run do, and the operators have done their part.
pub async fn calm(cluster: &Arc<Cluster>) {
    cluster.nemesis.set_calm();
    ailments::end_all(cluster);
    cluster.world.network().heal();
    ailments::weather(cluster);
    make_room(cluster);
    let processes = everything(cluster);
    for process in &processes {
        // Whoever is doomed lives for longer than any run.
        process.host().doom(u64::MAX, Death::Process, false);
        process.want(true);
    }
    wait(cluster, BOOT_LIMIT, "machines are not up", all_are_up).await;
    wait_for_metadata(cluster).await;
    people::conclude(cluster).await;
    replace_what_is_needed(cluster);
    wait(cluster, BOOT_LIMIT, "machines are not up", all_are_up).await;
    // What people wait for may wait for these.
    restart_nodes_with_broken_disks(cluster).await;
    let idle = |cluster: &Cluster| cluster.nemesis.operators.load(Ordering::Relaxed) == 0;
    wait(cluster, OPERATORS_LIMIT, "commands of operators do not succeed", idle).await;
    late::end(cluster);
    restart_nodes_with_broken_disks(cluster).await;
    wait(cluster, BOOT_LIMIT, "machines are not up", all_are_up).await;
}

/// An operator takes everything else from the disks.
fn make_room(cluster: &Cluster) {
    for disk in victims::disks(cluster) {
        if let Some(device) = disk.device().filter(|device| device.occupied_bytes() > 0) {
            device.set_occupied(0);
        }
    }
}

/// All processes that should run.
fn everything(cluster: &Cluster) -> Vec<Process> {
    let clients = cluster.clients().into_iter().filter(Process::is_wanted);
    victims::servers(cluster).into_iter().chain(clients).collect()
}

fn all_are_up(cluster: &Cluster) -> bool {
    everything(cluster).iter().all(|process| process.host().is_alive())
}

async fn wait(cluster: &Cluster, limit: Duration, what: &str, done: impl Fn(&Cluster) -> bool) {
    let deadline = cluster.world.now() + limit;
    while !done(cluster) {
        if cluster.world.now() > deadline {
            let text = format!("{} s after the last fault {what}", limit.as_secs());
            cluster.findings.report(&cluster.world, Kind::Liveness, "operations end", text);
            return;
        }
        cluster.world.sleep(LOOK).await;
    }
}

/// Waits until a leader answers: before that, what servers have stored may be older than what they will know.
async fn wait_for_metadata(cluster: &Cluster) {
    let deadline = cluster.world.now() + BOOT_LIMIT;
    while cluster.world.now() < deadline {
        if let Ok(admin) = cluster.admin().await
            && admin.status().await.is_ok()
        {
            return;
        }
        cluster.world.sleep(LOOK).await;
    }
}

/// Puts new disks and nodes in the place of lost ones, one after another, until there are legal places
/// for everything. What the cluster can do without stays lost.
fn replace_what_is_needed(cluster: &Arc<Cluster>) {
    let Some(metadata) = oracle::latest(cluster) else { return };
    let found: BTreeSet<DiskUuid> = oracle::disks(cluster).by_uuid.into_keys().collect();
    let mut map = metadata.machine.map().clone();
    let dead = map.disks().values().filter(|disk| !found.contains(&disk.uuid)).map(|disk| disk.id).collect();
    let drained: BTreeSet<NodeId> =
        metadata.machine.tasks().active().map(|task| NodeId(task.node)).filter(|node| node.0 > 0).collect();
    let (disks, nodes) = {
        let lost = lock(&cluster.nemesis.lost);
        (lost.disks.clone(), lost.nodes.clone())
    };
    for ((node, path), bytes) in disks {
        if is_enough(cluster, &map, &dead) {
            return;
        }
        replace_disk(cluster, node, &path);
        // A new disk of a node that is drained takes nothing either.
        if !drained.contains(&node) {
            put_disk(&mut map, node, bytes);
        }
    }
    for (node, (_, disks)) in nodes {
        if is_enough(cluster, &map, &dead) {
            return;
        }
        replace_node(cluster, node);
        let Some(before) = map.nodes().get(&node).cloned() else { continue };
        let id = NodeId(u32::MAX - node.0);
        map.put_node(placement::Node { id, incarnation: Incarnation(1), ..before });
        disks.into_iter().for_each(|bytes| put_disk(&mut map, id, bytes));
    }
    add_what_is_needed(cluster, &mut map, &dead);
}

fn is_enough(cluster: &Cluster, map: &ClusterMap, dead: &BTreeSet<DiskId>) -> bool {
    settles(map, dead, victims::disks(cluster).len(), out_share_max_percent())
}

/// Where so much was lost that replacing it does not make it a small share: more nodes, in all racks.
fn add_what_is_needed(cluster: &Arc<Cluster>, map: &mut ClusterMap, dead: &BTreeSet<DiskId>) {
    let racks = victims::racks(cluster);
    for (number, rack) in racks.iter().cycle().take(NODES_ADDED_MAX).enumerate() {
        if is_enough(cluster, map, dead) {
            return;
        }
        let plan = NodePlan { disks: vec![DISK_BYTES; 2] };
        let new = cluster.add_node(*rack, &plan);
        let numbers = [u64::from(new.id.0), number as u64];
        cluster.world.event(None, "operator", &numbers, || format!("adds node {} in rack {rack}", new.id));
        ailments::weather(cluster);
        let like = cluster.nodes().iter().find(|node| node.rack == *rack).map(|node| node.id);
        let Some(like) = like.and_then(|node| map.nodes().get(&node)).cloned() else { continue };
        map.put_node(placement::Node { id: new.id, incarnation: Incarnation(1), ..like });
        plan.disks.into_iter().for_each(|bytes| put_disk(map, new.id, bytes));
    }
}

/// Adds a disk to the map that nobody has registered yet.
fn put_disk(map: &mut ClusterMap, node: NodeId, capacity_bytes: u64) {
    let Some(like) = map.disks().values().next_back().cloned() else { return };
    let id = DiskId(like.id.0.saturating_add(1));
    let uuid = DiskUuid(u128::MAX - u128::from(id.0));
    let duty = Duty::InService;
    // It fails when the node has never registered, and then nothing of it can be used.
    drop(map.put_disk(placement::Disk { id, uuid, node, capacity_bytes, duty, ..like }));
}

/// A disk on which a write failed takes no more of them until its node is started again.
async fn restart_nodes_with_broken_disks(cluster: &Arc<Cluster>) {
    let deadline = cluster.world.now() + RESTARTS_LIMIT;
    while cluster.world.now() < deadline {
        let mut restarted = false;
        for node in victims::nodes(cluster) {
            if has_broken_disk(cluster, &node).await {
                cluster.world.event(Some(node.process.host().id()), "operator", &[], || {
                    "restarts it for a broken disk".to_owned()
                });
                node.stop();
                restarted = true;
            }
        }
        if !restarted {
            return;
        }
        cluster.world.sleep(RESTART_REST).await;
    }
}

/// Does the node say that a disk fails which is not lost? A node that does not answer is looked at later.
async fn has_broken_disk(cluster: &Cluster, node: &NodeHost) -> bool {
    let lost = cluster.nemesis.lost_disks();
    for _ in 0..5 {
        let info = match cluster.admin().await {
            Ok(admin) => admin.node_info(&node.address(), node.id).await,
            Err(error) => Err(error),
        };
        if let Ok(info) = info {
            let broken = |report: &proto::wire::DiskReport| {
                !report.failure.is_empty() && !lost.contains(&(node.id, format!("/{}", report.name)))
            };
            return info.disks.iter().any(broken);
        }
        cluster.world.sleep(LOOK).await;
    }
    false
}

/// All wall clocks leap to one time at which every grant is over: what was written and never committed
/// can be proven to be nobody's. Called when the load has ended, and after the last puts of all, since what is written later has a later
/// grant. Jumps of before are overtaken, as cluster time does not go back.
pub fn leap(cluster: &Cluster) {
    let mut hosts: Vec<Host> = victims::everybody(cluster);
    hosts.push(cluster.operator_host().clone());
    let cluster_time =
        oracle::latest(cluster).map_or(0, |metadata| metadata.machine.cluster_time().as_millis());
    let last = hosts.iter().map(Host::wall_ms).chain([cluster_time]).max().unwrap_or(0);
    for host in hosts {
        let by_ms = last.saturating_add(BEYOND_GRANTS_MS).saturating_sub(host.wall_ms());
        host.jump_wall(i64::try_from(by_ms).unwrap_or(i64::MAX));
    }
}
