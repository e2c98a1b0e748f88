//! Epochs never fall, and rise with every change of a group's slots.

use std::collections::BTreeMap;
use std::time::Duration;

use placement::Slot;
use proto::{DiskId, Epoch, GroupId};

use crate::cluster::Cluster;
use crate::oracle::Metadata;
use crate::verdict::Kind;

/// See [`super::TABLE`].
pub(super) const NAME: &str = "epochs";

/// A group as it was last seen.
struct Seen {
    epoch: Epoch,
    disks: Vec<DiskId>,
    /// Since when it is seen like this.
    since: Duration,
}

/// The groups as they were last seen.
#[derive(Default)]
pub(super) struct Epochs {
    applied: u64,
    groups: BTreeMap<GroupId, Seen>,
}

impl Epochs {
    /// Compares with what was seen before.
    pub(super) fn check(&mut self, cluster: &Cluster, latest: &Metadata) {
        if latest.applied < self.applied {
            // The server that had come furthest has lost what it had applied and not flushed.
            return;
        }
        self.applied = latest.applied;
        for group in latest.machine.map().groups().values() {
            let disks: Vec<DiskId> = group.slots.iter().map(|slot: &Slot| slot.disk).collect();
            if let Some(wrong) = group.slots.iter().find(|slot| slot.since_epoch > group.epoch) {
                let text = format!(
                    "group {}: epoch {}, and a slot since {}",
                    group.id, group.epoch, wrong.since_epoch
                );
                cluster.findings.report(&cluster.world, Kind::Correctness, NAME, text);
            }
            let now = cluster.world.now();
            let seen = self.groups.entry(group.id).or_insert_with(|| Seen {
                epoch: group.epoch,
                disks: disks.clone(),
                since: now,
            });
            if group.epoch < seen.epoch || (group.epoch == seen.epoch && disks != seen.disks) {
                let text = format!(
                    "group {}: was at epoch {} on {:?}, is at {} on {disks:?}",
                    group.id, seen.epoch, seen.disks, group.epoch
                );
                cluster.findings.report(&cluster.world, Kind::Correctness, NAME, text);
            }
            if group.epoch != seen.epoch {
                *seen = Seen { epoch: group.epoch, disks, since: now };
            }
        }
    }

    /// Since when the group is seen with this epoch.
    pub(super) fn unchanged_since(&self, group: GroupId, epoch: Epoch) -> Option<Duration> {
        self.groups.get(&group).filter(|seen| seen.epoch == epoch).map(|seen| seen.since)
    }
}
