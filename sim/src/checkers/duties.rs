//! Nothing comes to a disk that is out of service, and a retired one has nothing for good.

use std::collections::BTreeMap;

use placement::{ClusterMap, Duty, Slot};
use proto::{DiskId, GroupId};

use crate::cluster::Cluster;
use crate::oracle::Metadata;
use crate::tap::GivenUp;
use crate::verdict::Kind;

/// See [`super::TABLE`].
pub(super) const NAME: &str = "duties";

/// Disks and groups as they were last seen.
#[derive(Default)]
pub(super) struct Duties {
    applied: u64,
    disks: BTreeMap<DiskId, (Duty, String)>,
    groups: BTreeMap<GroupId, Vec<Slot>>,
}

impl Duties {
    /// Compares with what was seen before.
    pub(super) fn check(&mut self, cluster: &Cluster, latest: &Metadata) {
        if latest.applied < self.applied {
            // The server that had come furthest has lost what it had applied and not flushed.
            return;
        }
        self.applied = latest.applied;
        let map = latest.machine.map();
        if let Err(text) = self.judge(map) {
            cluster.findings.report(&cluster.world, Kind::Correctness, NAME, text);
        }
        self.disks =
            map.disks().values().map(|disk| (disk.id, (disk.duty, disk.duty_reason.clone()))).collect();
        self.groups = map.groups().values().map(|group| (group.id, group.slots.clone())).collect();
        if let Some(wire) = cluster.wire() {
            wire.learn_given_up(given_up(map));
        }
    }

    fn judge(&self, map: &ClusterMap) -> Result<(), String> {
        for (disk, (duty, _)) in &self.disks {
            let now = map.disk_duty(*disk);
            if *duty == Duty::Retired && now != Duty::Retired {
                return Err(format!("disk {disk} was retired, and is {now}"));
            }
        }
        for group in map.groups().values() {
            for (place, slot) in group.slots.iter().enumerate() {
                let retired = std::iter::once(slot.disk).chain(slot.source());
                if let Some(disk) = retired.into_iter().find(|disk| map.disk_duty(*disk) == Duty::Retired) {
                    return Err(format!(
                        "slot {place} of group {} is on disk {disk}, which is retired",
                        group.id
                    ));
                }
                let before = self.groups.get(&group.id).and_then(|slots| slots.get(place));
                if self.has_been_away(map, slot.disk) && before.is_none_or(|before| is_new(before, slot)) {
                    return Err(format!(
                        "slot {place} of group {} came to disk {}, which is {}: before it was {before:?}, now {slot:?}",
                        group.id,
                        slot.disk,
                        map.disk_duty(slot.disk)
                    ));
                }
            }
        }
        Ok(())
    }

    /// Was the disk out of service for the same reason when it was last seen?
    fn has_been_away(&self, map: &ClusterMap, disk: DiskId) -> bool {
        let now = map.disks().get(&disk).filter(|disk| disk.duty != Duty::InService);
        let before = self.disks.get(&disk);
        now.zip(before).is_some_and(|(now, (duty, reason))| now.duty == *duty && now.duty_reason == *reason)
    }
}

/// For the rules of what may be asked for.
fn given_up(map: &ClusterMap) -> GivenUp {
    let of = |duty: Duty| map.disks().values().filter(move |disk| disk.duty == duty);
    GivenUp {
        retired: of(Duty::Retired).map(|disk| disk.id.0).collect(),
        failed: of(Duty::Failed).map(|disk| (disk.id.0, disk.duty_reason.clone())).collect(),
    }
}

/// A slot may go back to where its older shards are.
fn is_new(before: &Slot, now: &Slot) -> bool {
    before.disk != now.disk && before.source() != Some(now.disk)
}

#[cfg(test)]
mod tests {
    use placement::SlotState;
    use proto::Epoch;

    use super::*;

    fn slot(disk: u32, source: Option<u32>) -> Slot {
        let state = SlotState::Rebuilding { source: source.map(DiskId) };
        Slot { disk: DiskId(disk), state, since_epoch: Epoch(1), task: None }
    }

    /// The way back to the source is no new place; any other disk is.
    #[test]
    fn the_way_back_is_open() {
        assert!(!is_new(&slot(1, Some(2)), &slot(1, None)));
        assert!(!is_new(&slot(1, Some(2)), &slot(2, None)));
        assert!(is_new(&slot(1, Some(2)), &slot(3, Some(2))));
        assert!(is_new(&slot(1, None), &slot(2, Some(1))));
    }
}
