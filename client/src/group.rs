//! A placement group as a message describes it, parsed: from here on nothing in it can be wrong.

use codec::{Codec, Geometry, SlotMask};
use env::Expect;
use env::rpc::Target;
use proto::wire::{self, Health, SlotState};
use proto::{DiskId, Epoch, GroupId, Identity, InvalidInput, NodeId, SlotIndex};

/// Where the shards of a group's extents lie.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) epoch: Epoch,
    pub(crate) codec: Codec,
    /// Shards of each stripe that a commit needs.
    pub(crate) min_durable: usize,
    /// Formed against the profile's failure domain.
    pub(crate) below_policy: bool,
    /// One for each slot, in order.
    pub(crate) places: Vec<Place>,
}

/// Where one slot lies.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) slot: SlotIndex,
    pub(crate) disk: DiskId,
    pub(crate) address: String,
    pub(crate) node: NodeId,
    pub(crate) health: Health,
    pub(crate) since_epoch: Epoch,
    /// The disk is being filled, and nothing else has what it lacks.
    pub(crate) hollow: bool,
    /// While it is being filled: the disk that still has all if it moves, then others that had the slot before, and
    /// may have some.
    pub(crate) sources: Vec<(DiskId, Target)>,
}

impl Group {
    /// From a message.
    ///
    /// # Errors
    ///
    /// When its numbers contradict each other or the limits.
    pub(crate) fn parse(wire: wire::Placement) -> Result<Self, InvalidInput> {
        let geometry = Geometry::new(wire.k, wire.m, wire.shard_bytes)?;
        let (id, slots) = (GroupId(wire.group), geometry.slots());
        if wire.places.len() != slots {
            let text = format!("group {id} has {} places for {slots} slots", wire.places.len());
            return Err(InvalidInput::new(text));
        }
        let min_durable = wire.min_durable as usize;
        if !(geometry.k()..=slots).contains(&min_durable) {
            return Err(InvalidInput::new(format!("group {id}: {min_durable} of {slots} durable shards")));
        }
        let slot_indices = SlotMask::first(slots);
        let places =
            slot_indices.iter().zip(wire.places).map(|(slot, place)| Place::new(slot, place)).collect();
        let (epoch, codec) = (Epoch(wire.epoch), Codec::new(geometry));
        Ok(Self { id, epoch, codec, min_durable, below_policy: wire.below_policy, places })
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.codec.geometry()
    }

    pub(crate) fn slots(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn place(&self, slot: SlotIndex) -> &Place {
        // Slots come from masks that were checked against this group.
        &self.places[usize::from(slot.0)]
    }

    /// Slots whose disk took them after `epoch`.
    pub(crate) fn changed_since(&self, epoch: Epoch) -> SlotMask {
        self.places.iter().filter(|place| place.since_epoch > epoch).map(|place| place.slot).collect()
    }
}

impl Place {
    fn new(slot: SlotIndex, wire: wire::Place) -> Self {
        let (rebuilding, health) = (wire.state() == SlotState::Rebuilding, wire.health());
        let source = (rebuilding && wire.source_disk != 0).then(|| {
            (DiskId(wire.source_disk), target(NodeId(wire.source_node), wire.source_address.clone()))
        });
        let hollow = rebuilding && source.is_none();
        let kept = wire.kept.into_iter().filter(|_| rebuilding);
        let kept = kept.map(|kept| (DiskId(kept.disk), target(NodeId(kept.node), kept.address)));
        Self {
            slot,
            disk: DiskId(wire.disk),
            node: NodeId(wire.node),
            health,
            since_epoch: Epoch(wire.since_epoch),
            hollow,
            sources: source.into_iter().chain(kept).collect(),
            address: wire.address,
        }
    }

    /// Whom to ask.
    pub(crate) fn target(&self) -> Target {
        target(self.node, self.address.clone())
    }
}

fn target(node: NodeId, address: String) -> Target {
    Target { address, expect: Expect::Exactly(Identity::Node(node)) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A group whose slot `i` is on disk `10 + i` of node `1 + i`.
    pub(crate) fn placement(k: u32, m: u32) -> wire::Placement {
        let place = |slot| wire::Place {
            disk: 10 + slot,
            node: 1 + slot,
            address: format!("node-{}:7000", 1 + slot),
            health: Health::Up.into(),
            state: SlotState::Whole.into(),
            since_epoch: 1,
            ..Default::default()
        };
        wire::Placement {
            group: 5,
            epoch: 3,
            k,
            m,
            shard_bytes: 65_536,
            min_durable: k + 1,
            places: (0..k + m).map(place).collect(),
            ..Default::default()
        }
    }

    pub(crate) fn group(k: u32, m: u32) -> Group {
        Group::parse(placement(k, m)).unwrap()
    }

    /// What contradicts itself is refused.
    #[test]
    fn odd_groups_are_refused() {
        let good = placement(4, 2);
        assert!(Group::parse(good.clone()).is_ok());
        let fewer = wire::Placement { places: good.places[1..].to_vec(), ..good.clone() };
        assert!(Group::parse(fewer).is_err());
        for min_durable in [0, 3, 7, u32::MAX] {
            assert!(Group::parse(wire::Placement { min_durable, ..good.clone() }).is_err());
        }
        assert!(Group::parse(wire::Placement { k: 0, ..good }).is_err());
    }

    /// Slots that moved after an epoch are named; a source counts only while the slot is rebuilding.
    #[test]
    fn moves_are_seen() {
        let mut wire = placement(4, 2);
        wire.places[2].since_epoch = 3;
        wire.places[2].source_disk = 99;
        let group = Group::parse(wire.clone()).unwrap();
        assert!(group.places[2].sources.is_empty() && !group.places[2].hollow);
        assert_eq!(group.changed_since(Epoch(2)).iter().collect::<Vec<_>>(), [SlotIndex(2)]);
        assert!(group.changed_since(Epoch(3)).is_empty());
        wire.places[2].state = SlotState::Rebuilding.into();
        let group = Group::parse(wire.clone()).unwrap();
        assert!(group.places[2].sources.len() == 1 && !group.places[2].hollow);
        wire.places[2].kept = vec![wire::KeptAt { disk: 98, node: 9, address: "n:1".into() }];
        assert_eq!(Group::parse(wire.clone()).unwrap().places[2].sources.len(), 2);
        wire.places[2].source_disk = 0;
        let group = Group::parse(wire).unwrap();
        assert!(group.places[2].hollow && group.places[2].sources.len() == 1);
    }
}
