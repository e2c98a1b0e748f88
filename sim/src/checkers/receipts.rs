//! A receipt never promises more than the places of the shards give.

use proto::prost::Message;
use proto::{BucketId, GroupId, wire};

use env::KvRead;
use meta::state::tables;
use placement::{Group, Tolerance};

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
        for operation in new {
            let (Op::Put { .. }, Outcome::Acknowledged(receipt)) = (&operation.op, operation.outcome) else {
                continue;
            };
            let Some(groups) = groups_of(latest, &operation.key, &receipt) else { continue };
            let unchanged = |group: &Group| {
                let since = epochs.unchanged_since(group.id, group.epoch);
                since.is_some_and(|since| since < operation.began)
            };
            if !groups.iter().all(|(group, _)| unchanged(group)) {
                continue;
            }
            let Some(true_tolerance) = tolerance(latest, &groups) else { continue };
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

/// The groups of an object's extents, with what the extents can miss at most; none when the object has
/// been replaced, or lies in the metadata record.
fn groups_of(latest: &Metadata, key: &Key, receipt: &Receipt) -> Option<Vec<(Group, u32)>> {
    let row =
        latest.kv.get(tables::OBJECTS, &tables::object_key(BucketId(1), key.name.as_bytes())).ok()??;
    let row = wire::ObjectRow::decode(row).ok()?;
    if row.version != receipt.version.0 || row.extents.is_empty() {
        return None;
    }
    let groups = latest.machine.map().groups();
    row.extents.iter().map(|extent| Some((groups.get(&GroupId(extent.group))?.clone(), 0))).collect()
}

/// The most that these places can give: all shards there, every disk well.
fn tolerance(latest: &Metadata, groups: &[(Group, u32)]) -> Option<Tolerance> {
    let mut least = Tolerance::UNLIMITED;
    let mut map = latest.machine.map().clone();
    let nodes: Vec<_> = map.nodes().values().cloned().collect();
    for node in nodes {
        map.put_node(placement::Node { health: placement::Health::Up, ..node });
    }
    let disks: Vec<_> = map.disks().values().cloned().collect();
    for disk in disks {
        map.put_disk(placement::Disk { health: placement::Health::Up, ..disk }).ok()?;
    }
    for (group, missing) in groups {
        let profile = map.profiles().get(&group.profile)?;
        let slots: Vec<_> = group
            .slots
            .iter()
            .map(|slot| placement::Slot { state: placement::SlotState::Whole, ..*slot })
            .collect();
        least = least.min_of(placement::tolerance(&map, profile, &slots, *missing));
    }
    Some(least)
}
