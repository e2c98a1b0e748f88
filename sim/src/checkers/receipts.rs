//! A receipt never promises more than the places of the shards give.

use proto::prost::Message;
use proto::{BucketId, GroupId, wire};

use env::KvRead;
use meta::state::tables;
use placement::{ClusterMap, Disk, Group, Health, Node, Slot, SlotState, Tolerance};

use super::epochs::Epochs;
use crate::cluster::Cluster;
use crate::history::{Key, Op, Outcome, Receipt};
use crate::oracle::Metadata;
use crate::process::lock;
use crate::verdict::Kind;

/// See [`super::TABLE`].
pub(super) const NAME: &str = "receipts";

/// Up to where the ledger was looked at.
#[derive(Default)]
pub(super) struct Receipts {
    looked_at: usize,
}

impl Receipts {
    /// Compares receipts with the places of their objects, if those have not changed since: only then
    /// are they the places that the receipt spoke of.
    pub(super) fn check(&mut self, cluster: &Cluster, latest: &Metadata, epochs: &Epochs) {
        let new: Vec<_> = {
            let ledger = lock(&cluster.ledger);
            let all = ledger.operations();
            // Those that are under way will be looked at when they have ended, or never: it is a sample.
            let from = self.looked_at.min(all.len());
            self.looked_at = all.len();
            all[from..].to_vec()
        };
        let Some(healthy) = healthy(latest.machine.map()) else { return };
        for operation in new {
            let (Op::Put { .. }, Outcome::Acknowledged(receipt)) = (&operation.op, operation.outcome) else {
                continue;
            };
            let Some(groups) = groups_of(latest, &operation.key, &receipt) else { continue };
            let unchanged = |group: &Group| {
                let since = epochs.unchanged_since(group.id, group.epoch);
                since.is_some_and(|since| since < operation.began)
            };
            if !groups.iter().all(unchanged) {
                continue;
            }
            let Some(true_tolerance) = tolerance(&healthy, &groups) else { continue };
            cluster.world.probe("a receipt was compared with the places of its shards");
            if receipt.disks > true_tolerance.disks
                || receipt.racks > true_tolerance.racks
                || receipt.nodes > true_tolerance.nodes
            {
                let text = format!(
                    "{operation}: promised {receipt:?}, the places give {true_tolerance:?}: {groups:?}"
                );
                cluster.findings.report(&cluster.world, Kind::Correctness, NAME, text);
            }
        }
    }
}

/// The groups of an object's extents; none when the object has been replaced, or lies in the metadata
/// record.
fn groups_of(latest: &Metadata, key: &Key, receipt: &Receipt) -> Option<Vec<Group>> {
    let row =
        latest.kv.get(tables::OBJECTS, &tables::object_key(BucketId(1), key.name.as_bytes())).ok()??;
    let row = wire::ObjectRow::decode(row).ok()?;
    if row.version != receipt.version.0 || row.extents.is_empty() {
        return None;
    }
    let groups = latest.machine.map().groups();
    row.extents.iter().map(|extent| groups.get(&GroupId(extent.group)).cloned()).collect()
}

/// The map with every node and disk well.
fn healthy(map: &ClusterMap) -> Option<ClusterMap> {
    let mut healthy = map.clone();
    for node in map.nodes().values().cloned() {
        healthy.put_node(Node { health: Health::Up, ..node });
    }
    for disk in map.disks().values().cloned() {
        healthy.put_disk(Disk { health: Health::Up, ..disk }).ok()?;
    }
    Some(healthy)
}

/// The most that these places can give, with all shards there.
fn tolerance(healthy: &ClusterMap, groups: &[Group]) -> Option<Tolerance> {
    groups.iter().try_fold(Tolerance::UNLIMITED, |least, group| {
        let profile = healthy.profiles().get(&group.profile)?;
        let slots: Vec<Slot> =
            group.slots.iter().map(|slot| Slot { state: SlotState::Whole, ..*slot }).collect();
        Some(least.min_of(placement::tolerance(healthy, profile, &slots, 0)))
    })
}
