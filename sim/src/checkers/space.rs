//! On the disks is what the metadata account for, to the byte, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use proto::{DiskUuid, ShardName, SlotIndex, StripeIndex};

use crate::cluster::Cluster;
use crate::oracle::{Disks, Metadata, shard_name};
use crate::verdict::Kind;

/// See [`super::TABLE`].
pub(super) const NAME: &str = "space";

/// Shards that a report names.
const NAMED: usize = 5;

/// Compares all disks with all extents; the cluster has healed.
pub(super) fn check(cluster: &Cluster, latest: &Metadata, disks: &Disks) {
    let expected = expected(latest);
    // Whoever is asked for nothing any more may keep anything.
    let retired = latest.retired();
    for (uuid, disk) in disks.by_uuid.iter().filter(|(uuid, _)| !retired.contains(uuid)) {
        let nothing = BTreeMap::new();
        let wanted = expected.get(uuid).unwrap_or(&nothing);
        let found: BTreeSet<ShardName> = disk.shards.keys().copied().collect();
        let is_over = |shard: &&ShardName| latest.grant_is_over(shard.extent);
        let leaked = found.iter().filter(|shard| !wanted.contains_key(*shard));
        let young = leaked.clone().any(|shard| !is_over(&shard));
        let leaked: Vec<String> = leaked.filter(is_over).take(NAMED).map(ToString::to_string).collect();
        let place = format!("node {} {}", disk.node, disk.path);
        if !leaked.is_empty() {
            let text = format!("{place} keeps shards that nothing accounts for: {}", leaked.join(", "));
            cluster.findings.report(&cluster.world, Kind::Liveness, NAME, text);
        }
        let bytes = |sizes: &mut dyn Iterator<Item = u64>| sizes.sum::<u64>();
        let kept = bytes(&mut disk.survey.shards.iter().map(|shard| u64::from(shard.shard_bytes)));
        let accounted = bytes(&mut wanted.values().copied());
        if leaked.is_empty() && !young && kept != accounted {
            let text = format!("{place} keeps shards of {kept} bytes, the metadata account for {accounted}");
            cluster.findings.report(&cluster.world, Kind::Liveness, NAME, text);
        }
    }
}

/// Which shards belong on which disk, with their sizes.
fn expected(latest: &Metadata) -> BTreeMap<DiskUuid, BTreeMap<ShardName, u64>> {
    let mut expected: BTreeMap<DiskUuid, BTreeMap<ShardName, u64>> = BTreeMap::new();
    for extent in latest.committed() {
        let Some(layout) = latest.stripe_layout(&extent) else { continue };
        for (number, slot) in (0_u8..).zip(&extent.group.slots) {
            let Some(uuid) = latest.disk_uuid(slot.disk) else { continue };
            for stripe in (0..layout.stripes()).map(StripeIndex) {
                let shard = shard_name(extent.group.id, extent.id, stripe, SlotIndex(number));
                let bytes = layout.shard_bytes(stripe).unwrap_or(0);
                expected.entry(uuid).or_default().insert(shard, bytes as u64);
            }
        }
    }
    expected
}
