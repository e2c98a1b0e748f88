//! What the metadata do not mark as missing lies whole on the disk that they name.
//!
//! This is what all redundancy rests on: a shard that was acknowledged before it was durable, written
//! under a stale epoch, dropped too early, or reported as made and not made, shows here at once, long
//! before enough of them are gone for data to be lost.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::{DiskId, DiskUuid, ShardName, SlotIndex, StripeIndex};

use crate::cluster::Cluster;
use crate::oracle::{Disks, Metadata, shard_name};
use crate::process::lock;
use crate::verdict::Kind;

/// See [`super::TABLE`].
pub(super) const NAME: &str = "promised shards";

/// For so long after the power failed under a metadata server, what the others know may be older than
/// what it had told: nothing is judged then, nor as long as less is known than was known once.
const DOUBT: Duration = Duration::from_secs(15);
/// Missing shards that a report names.
const NAMED: usize = 5;

/// Compares all extents with all disks.
pub(super) fn check(cluster: &Cluster, latest: &Metadata, disks: &Disks) {
    if cluster.knew_more_than(latest.applied) || cluster.meta_lost_power_within(DOUBT) {
        return;
    }
    let missing = missing(cluster, latest, disks);
    let named = missing.iter().take(NAMED).map(|((_, shard), disk)| format!("{shard} on disk {disk}"));
    let named: Vec<String> = named.collect();
    if !named.is_empty() {
        let text = format!(
            "promised by the metadata at entry {}, and not there whole: {}",
            latest.applied,
            named.join(", ")
        );
        cluster.findings.report(&cluster.world, Kind::Correctness, NAME, text);
    }
}

/// Shards that should be on a disk that is there, and are not.
fn missing(cluster: &Cluster, latest: &Metadata, disks: &Disks) -> BTreeMap<(DiskUuid, ShardName), DiskId> {
    let mut missing = BTreeMap::new();
    let mut scars = lock(&cluster.scars);
    scars.heal(disks);
    for extent in latest.committed() {
        let stripes = latest.stripes(&extent);
        for (number, slot) in (0_u8..).zip(&extent.group.slots) {
            let (index, Some(uuid)) = (SlotIndex(number), latest.disk_uuid(slot.disk)) else { continue };
            // A disk that is not in its machine takes what is on it with it: the receipts are about that.
            let Some(disk) = disks.by_uuid.get(&uuid) else { continue };
            if !extent.is_promised(index) {
                continue;
            }
            for stripe in 0..stripes {
                let shard = shard_name(extent.group.id, extent.id, StripeIndex(stripe), index);
                if disk.shards.get(&shard) != Some(&true) && !scars.damaged.contains(&(uuid, shard)) {
                    missing.insert((uuid, shard), slot.disk);
                }
            }
        }
    }
    missing
}
