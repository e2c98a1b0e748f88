//! The index of a disk is a copy of what its log says: a node that has lost it finds the same shards.
//!
//! Both are compared as they are at one moment: the index brought up to date from the log's end, and one made anew
//! from all segments. Disks that faults have damaged are passed over: what is lost with the index there is for the
//! atlas to count.

use std::collections::BTreeMap;

use node::store::survey::RecordPlace;
use proto::ShardName;

use crate::cluster::{Cluster, NodeHost};
use crate::oracle::{self, Disks, Surveyed};
use crate::process::lock;
use crate::verdict::Kind;

/// See [`super::TABLE`].
pub(super) const NAME: &str = "log alone";

/// Shards that a report names.
const NAMED: usize = 3;

/// Looks at the disk whose turn it is.
pub(super) fn check_one(cluster: &Cluster, disks: &Disks, turn: usize) {
    let at = turn.checked_rem(disks.by_uuid.len());
    let disk = at.and_then(|at| disks.by_uuid.values().nth(at));
    report(cluster, disk.map_or(Ok(()), |disk| check(cluster, disk)));
}

/// Looks at all disks.
pub(super) fn check_all(cluster: &Cluster, disks: &Disks) {
    report(cluster, disks.by_uuid.values().try_for_each(|disk| check(cluster, disk)));
}

fn report(cluster: &Cluster, broken: Result<(), String>) {
    if let Err(text) = broken {
        cluster.findings.report(&cluster.world, Kind::Correctness, NAME, text);
    }
}

fn check(cluster: &Cluster, disk: &Surveyed) -> Result<(), String> {
    let nodes = cluster.nodes();
    let Some(node) = nodes.iter().find(|node| node.id == disk.node) else { return Ok(()) };
    if is_damaged(cluster, node, disk) {
        return Ok(());
    }
    let place = format!("node {} {}", disk.node, disk.path);
    let found = oracle::without_index(node, &disk.path)
        .ok_or_else(|| format!("{place} cannot be read without its index"))?;
    if found == disk.places {
        return Ok(());
    }
    let alone = told("the log alone does not give", &difference(&disk.places, &found));
    let index = told("the index does not give", &difference(&found, &disk.places));
    Err(format!("{place}: {alone}; {index}"))
}

fn is_damaged(cluster: &Cluster, node: &NodeHost, disk: &Surveyed) -> bool {
    let scars = lock(&cluster.scars);
    let uuid = disk.survey.superblock.uuid;
    let is_hit = scars.damaged.iter().chain(scars.endangered.keys()).any(|(hit, _)| *hit == uuid);
    is_hit || scars.logs.contains(&(node.process.host().id(), disk.path.clone()))
}

type Found = BTreeMap<ShardName, RecordPlace>;

/// What `one` has and `other` has not, or elsewhere.
fn difference<'a>(one: &'a Found, other: &Found) -> Vec<(&'a ShardName, &'a RecordPlace)> {
    one.iter().filter(|(name, place)| other.get(name) != Some(place)).collect()
}

fn told(what: &str, shards: &[(&ShardName, &RecordPlace)]) -> String {
    let named = shards.iter().take(NAMED);
    let named: Vec<String> =
        named.map(|(name, at)| format!("{name} in {} at {}", at.file, at.offset)).collect();
    format!("{what} {} shards ({})", shards.len(), named.join(", "))
}
