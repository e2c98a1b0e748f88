//! Groups lie as their profile wants, or are marked as below policy; and racks are what they are
//! called.

use std::collections::BTreeMap;

use placement::{FailureDomain, Group, check_group};
use proto::NodeId;

use crate::cluster::Cluster;
use crate::oracle::Metadata;
use crate::verdict::Kind;

/// See [`super::TABLE`].
pub(super) const NAME: &str = "placement";

/// Looks at every group.
pub(super) fn check(cluster: &Cluster, latest: &Metadata) {
    let racks: BTreeMap<NodeId, u32> = cluster.nodes().iter().map(|node| (node.id, node.rack)).collect();
    for group in latest.machine.map().groups().values() {
        if let Err(text) = judge(latest, group, &racks) {
            let text = format!("group {} at epoch {}: {text}", group.id, group.epoch);
            cluster.findings.report(&cluster.world, Kind::Correctness, NAME, text);
        }
    }
}

fn judge(latest: &Metadata, group: &Group, racks: &BTreeMap<NodeId, u32>) -> Result<(), String> {
    let map = latest.machine.map();
    let profile = map.profiles().get(&group.profile).ok_or("its profile is unknown")?;
    let legal = check_group(map, profile, &group.slots);
    if legal.is_err() != group.below_policy {
        return Err(format!("marked as below policy: {}; the validator says {legal:?}", group.below_policy));
    }
    let mut disks: Vec<_> = group.slots.iter().map(|slot| slot.disk).collect();
    disks.sort();
    if disks.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(format!("two slots share a disk: {disks:?}"));
    }
    if group.below_policy {
        return Ok(());
    }
    // The racks as they stand, whatever anybody calls them.
    let mut domains: BTreeMap<u64, usize> = BTreeMap::new();
    for slot in &group.slots {
        let node = map.disks().get(&slot.disk).ok_or_else(|| format!("disk {} is unknown", slot.disk))?.node;
        let rack = racks.get(&node).ok_or_else(|| format!("node {node} does not exist"))?;
        let domain = match profile.failure_domain() {
            FailureDomain::Rack => u64::from(*rack),
            FailureDomain::Node => u64::from(node.0),
            FailureDomain::Disk | FailureDomain::Site => continue,
        };
        *domains.entry(domain).or_insert(0) += 1;
    }
    match domains.iter().find(|(_, slots)| **slots > profile.m()) {
        Some((domain, slots)) => Err(format!(
            "{slots} slots lie in one {} ({domain}), {} may",
            profile.failure_domain().name(),
            profile.m()
        )),
        None => Ok(()),
    }
}
