//! Disks and nodes that are gone for good, and what operators put in their place.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::NodeId;
use simhost::Death;

use super::ailments;
use super::atlas::View;
use super::strike::{Outcome, Strike};
use super::victims::{self, DiskAt};
use crate::cluster::{Cluster, NodeHost};
use crate::plan::NodePlan;
use crate::process::lock;

/// How often an operator does not wait for the calm to put something in the place of what is lost.
const REPLACED_PPM: u32 = 500_000;
/// When, in milliseconds.
const REPLACED_MS: (u64, u64) = (500, 20_000);

/// A disk is gone for good.
pub(super) fn disk(strike: &Strike<'_>) -> Outcome {
    let cluster = strike.cluster;
    let Some(disk) = strike.pick(&victims::disks(cluster)) else { return Outcome::Nobody };
    let Some(view) = View::now(cluster) else { return Outcome::Nobody };
    let Some(uuid) = view.uuid_at(disk.node, &disk.path) else { return Outcome::Nobody };
    if let Err(reason) = view.lose(cluster, &BTreeSet::from([uuid])) {
        return Outcome::Refused(reason);
    }
    let outcome =
        strike.hits(Some(&disk.host), || format!("{} is gone for good, with disk {uuid}", disk.path));
    let capacity_bytes = ailments::capacity_bytes(cluster, &disk);
    lock(&cluster.nemesis.lost).disks.insert((disk.node, disk.path.clone()), capacity_bytes);
    take_away(&disk);
    if strike.draws.chance(REPLACED_PPM) {
        strike.later(strike.lasting(REPLACED_MS.0, REPLACED_MS.1), move |cluster| {
            replace_disk(cluster, disk.node, &disk.path);
        });
    }
    outcome
}

/// A node is gone for good, with all its disks.
pub(super) fn node(strike: &Strike<'_>) -> Outcome {
    let cluster = strike.cluster;
    let nodes = victims::nodes(cluster);
    if nodes.len() < 2 {
        return Outcome::Refused("the last node stays".to_owned());
    }
    let Some(node) = strike.pick(&nodes) else { return Outcome::Nobody };
    let Some(view) = View::now(cluster) else { return Outcome::Nobody };
    let disks = victims::disks_of(cluster, &node);
    let uuids: Option<BTreeSet<_>> = disks.iter().map(|disk| view.uuid_at(disk.node, &disk.path)).collect();
    let Some(uuids) = uuids else {
        return Outcome::Refused("nobody can see what is on a disk of it that is away".to_owned());
    };
    if let Err(reason) = view.lose(cluster, &uuids) {
        return Outcome::Refused(reason);
    }
    let outcome =
        strike.hits(Some(node.process.host()), || format!("gone for good, with {} disks", disks.len()));
    give_up(cluster, &node);
    if strike.draws.chance(REPLACED_PPM) {
        let id = node.id;
        strike.later(strike.lasting(REPLACED_MS.0, REPLACED_MS.1), move |cluster| replace_node(cluster, id));
    }
    outcome
}

/// The machine never starts again, and nothing is left of its disks.
fn give_up(cluster: &Cluster, node: &NodeHost) {
    let at = |path: &String| DiskAt { host: node.process.host().clone(), node: node.id, path: path.clone() };
    let disks: Vec<DiskAt> = node.disks.iter().map(at).collect();
    let known = |disk: &DiskAt| {
        let lost = lock(&cluster.nemesis.lost).disks.remove(&(disk.node, disk.path.clone()));
        lost.unwrap_or_else(|| ailments::capacity_bytes(cluster, disk))
    };
    let capacities = disks.iter().map(known).collect();
    lock(&cluster.nemesis.lost).nodes.insert(node.id, (node.rack, capacities));
    node.process.want(false);
    node.process.host().kill(Death::Power);
    disks.iter().for_each(take_away);
}

fn take_away(disk: &DiskAt) {
    if let Some(device) = disk.device() {
        device.set_gone(true);
        // Nobody waits for what does not come back.
        device.set_stuck(false);
    }
}

/// An operator takes out a disk that nobody needs any more, puts a new empty one in its place, and restarts the node.
pub(super) fn swap_disk(cluster: &Arc<Cluster>, disk: &DiskAt) {
    let capacity_bytes = ailments::capacity_bytes(cluster, disk);
    lock(&cluster.nemesis.lost).disks.insert((disk.node, disk.path.clone()), capacity_bytes);
    take_away(disk);
    replace_disk(cluster, disk.node, &disk.path);
}

/// A node that nobody needs any more is taken away, with its disks.
pub(super) fn take_away_all(cluster: &Cluster, node: &NodeHost) {
    node.process.want(false);
    node.process.host().kill(Death::Power);
    for path in &node.disks {
        let disk = DiskAt { host: node.process.host().clone(), node: node.id, path: path.clone() };
        lock(&cluster.nemesis.lost).disks.remove(&(disk.node, disk.path.clone()));
        take_away(&disk);
    }
}

/// An operator puts a new empty disk in the place of one that is lost, and restarts the node.
pub(super) fn replace_disk(cluster: &Arc<Cluster>, node: NodeId, path: &str) {
    let Some(capacity_bytes) = lock(&cluster.nemesis.lost).disks.remove(&(node, path.to_owned())) else {
        return;
    };
    let Some(node) = cluster.nodes().into_iter().find(|other| other.id == node) else { return };
    let host = node.process.host();
    let numbers = [u64::from(node.id.0), capacity_bytes];
    cluster
        .world
        .event(Some(host.id()), "replaced-disk", &numbers, || format!("{path}, {capacity_bytes} bytes"));
    cluster.world.probe("a lost disk was replaced");
    cluster.insert_disk(host, path, capacity_bytes);
    ailments::weather(cluster);
    node.stop();
}

/// An operator puts a new node in the rack of one that is lost, with the same disks.
pub(super) fn replace_node(cluster: &Arc<Cluster>, node: NodeId) {
    let Some((rack, disks)) = lock(&cluster.nemesis.lost).nodes.remove(&node) else { return };
    let new = cluster.add_node(rack, &NodePlan { disks });
    let numbers = [u64::from(node.0), u64::from(new.id.0)];
    cluster.world.probe("a lost node was replaced");
    cluster.world.event(None, "replaced-node", &numbers, || format!("node {node} by {}", new.id));
    ailments::weather(cluster);
}
