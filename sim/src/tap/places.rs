//! Where slots are, as anybody was told by the metadata service: each epoch of a group has its places, and
//! they never change.

use std::collections::BTreeMap;

use proto::wire;

/// Epochs of a group that are remembered.
const EPOCHS_MAX: usize = 16;
/// Changes that are remembered; more do not fit a run.
const CHANGES_MAX: usize = 20_000;

/// Where one slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// On this disk,
    pub(crate) disk: u32,
    /// of this node,
    pub(crate) node: u32,
    /// since this epoch of the group.
    pub(crate) since: u64,
}

/// The places of all groups that anybody was told of.
#[derive(Debug, Default)]
pub(crate) struct Places {
    groups: BTreeMap<u32, Group>,
    /// Groups that came to a new epoch, one after another.
    changes: Vec<u32>,
}

#[derive(Debug, Default)]
struct Group {
    min_durable: u32,
    epochs: BTreeMap<u64, Vec<Place>>,
}

impl Places {
    /// Somebody is told of a group.
    pub(super) fn learn(&mut self, placement: &wire::Placement) {
        let group = self.groups.entry(placement.group).or_default();
        let newest = group.newest();
        if group.epochs.contains_key(&placement.epoch) {
            return;
        }
        if newest.is_some_and(|newest| newest < placement.epoch) && self.changes.len() < CHANGES_MAX {
            self.changes.push(placement.group);
        }
        group.min_durable = placement.min_durable;
        let place =
            |place: &wire::Place| Place { disk: place.disk, node: place.node, since: place.since_epoch };
        group.epochs.insert(placement.epoch, placement.places.iter().map(place).collect());
        while group.epochs.len() > EPOCHS_MAX {
            group.epochs.pop_first();
        }
    }

    /// The newest epoch of a group that anybody was told of.
    pub(crate) fn newest(&self, group: u32) -> Option<u64> {
        self.groups.get(&group)?.newest()
    }

    /// Where the slots of a group were in an epoch.
    pub(crate) fn at(&self, group: u32, epoch: u64) -> Option<&[Place]> {
        self.groups.get(&group)?.epochs.get(&epoch).map(Vec::as_slice)
    }

    /// Where they are in the newest epoch that anybody was told of.
    pub(crate) fn now(&self, group: u32) -> &[Place] {
        let newest = self.groups.get(&group).and_then(|group| group.epochs.last_key_value());
        newest.map_or(&[], |(_, places)| places.as_slice())
    }

    /// How many slots a commit has to name as durable.
    pub(crate) fn min_durable(&self, group: u32) -> Option<u32> {
        self.groups.get(&group).map(|group| group.min_durable)
    }

    /// Slots on the disks of a node, in the newest epochs: group, slot, place.
    pub(crate) fn of_node(&self, node: u32) -> Vec<(u32, usize, Place)> {
        let of_group = |group: &u32| {
            let slots = self.now(*group).iter().copied().enumerate();
            let group = *group;
            slots.filter(move |(_, place)| place.node == node).map(move |(slot, place)| (group, slot, place))
        };
        self.groups.keys().flat_map(of_group).collect()
    }

    /// Groups that came to a new epoch since change number `seen`, which is moved on.
    pub(crate) fn changed_since(&self, seen: &mut usize) -> Vec<u32> {
        let changed = self.changes.get(*seen..).unwrap_or_default().to_vec();
        *seen = self.changes.len();
        changed
    }
}

impl Group {
    fn newest(&self) -> Option<u64> {
        self.epochs.last_key_value().map(|(epoch, _)| *epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(group: u32, epoch: u64, disks: &[(u32, u64)]) -> wire::Placement {
        let place = |(disk, since): &(u32, u64)| wire::Place {
            disk: *disk,
            node: disk / 10,
            since_epoch: *since,
            ..Default::default()
        };
        wire::Placement {
            group,
            epoch,
            min_durable: 2,
            places: disks.iter().map(place).collect(),
            ..Default::default()
        }
    }

    /// What is told late changes nothing that is newer, and is no change; each new epoch is one, once.
    #[test]
    fn epochs_keep_their_places() {
        let mut places = Places::default();
        let mut seen = 0;
        places.learn(&placement(7, 3, &[(10, 1), (20, 3)]));
        assert!(places.changed_since(&mut seen).is_empty(), "nothing was known before");
        places.learn(&placement(7, 2, &[(10, 1), (30, 1)]));
        places.learn(&placement(7, 4, &[(40, 4), (20, 3)]));
        places.learn(&placement(7, 4, &[(40, 4), (20, 3)]));
        assert_eq!(places.changed_since(&mut seen), [7]);
        assert!(places.changed_since(&mut seen).is_empty());
        assert_eq!((places.newest(7), places.newest(8)), (Some(4), None));
        assert_eq!(places.at(7, 2).map(|places| places[1].disk), Some(30));
        assert_eq!(places.now(7)[0], Place { disk: 40, node: 4, since: 4 });
        assert_eq!(places.of_node(2), [(7, 1, Place { disk: 20, node: 2, since: 3 })]);
    }
}
