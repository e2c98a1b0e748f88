//! What the node knows of its groups, and what follows from it: who may write, and where shards are.

use std::collections::BTreeMap;

use codec::{Geometry, SlotMask};
use proto::{
    Detail, DiskId, Epoch, ErrorCode, Failure, GroupId, InvalidInput, NodeId, ShardName, SlotIndex, wire,
};

/// A disk somewhere, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiskAt {
    pub(crate) disk: DiskId,
    pub(crate) node: NodeId,
    pub(crate) address: String,
    /// 0 is best; see [`health_rank`].
    health: u8,
}

/// One slot of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: DiskAt,
    pub(crate) rebuilding: bool,
    /// While rebuilding by a move: the disk that still holds the older shards.
    pub(crate) source: Option<DiskAt>,
    /// While rebuilding: disks that had the slot before, and may still have what they kept of it.
    pub(crate) kept: Vec<DiskAt>,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) group: GroupId,
    pub(crate) epoch: Epoch,
    pub(crate) geometry: Geometry,
    pub(crate) places: Vec<Place>,
}

impl Placement {
    /// From a message.
    pub(crate) fn parse(wire: wire::Placement) -> Result<Self, InvalidInput> {
        let geometry = Geometry::new(wire.k, wire.m, wire.shard_bytes)?;
        if wire.places.len() != geometry.slots() {
            return Err(InvalidInput::new(format!(
                "group {} has {} places, expected {}",
                wire.group,
                wire.places.len(),
                geometry.slots()
            )));
        }
        let places = wire.places.into_iter().map(parse_place).collect();
        Ok(Self { group: GroupId(wire.group), epoch: Epoch(wire.epoch), geometry, places })
    }

    /// The place of `slot`, if the group has it.
    pub(crate) fn place(&self, slot: SlotIndex) -> Option<&Place> {
        self.places.get(usize::from(slot.0))
    }

    /// Whether `slot` lies on `disk`.
    pub(crate) fn has(&self, slot: SlotIndex, disk: DiskId) -> bool {
        self.place(slot).is_some_and(|place| place.at.disk == disk)
    }

    /// How many more disks may be lost until shards of an extent with these slots missing can be made no more.
    pub(crate) fn spare(&self, missing: SlotMask) -> usize {
        let is_there = |(slot, place): &(SlotIndex, &Place)| {
            let holder = if place.rebuilding { place.source.as_ref() } else { Some(&place.at) };
            !missing.contains(*slot) && holder.is_some_and(|disk| disk.health < DOWN)
        };
        let there = (0_u8..).map(SlotIndex).zip(&self.places).filter(is_there).count();
        there.saturating_sub(self.geometry.k())
    }

    /// The disk that the slot moves away from, if that is there.
    pub(crate) fn source(&self, slot: SlotIndex) -> Option<&DiskAt> {
        let source = self.place(slot).and_then(|place| place.source.as_ref());
        source.filter(|source| source.health < DOWN)
    }

    /// From where the shard of `slot` may be copied as it is, most promising first.
    pub(crate) fn copy_sources(&self, slot: SlotIndex) -> impl Iterator<Item = &DiskAt> {
        let place = self.place(slot);
        self.source(slot).into_iter().chain(place.into_iter().flat_map(|place| &place.kept))
    }

    /// The other slots that may have their shards, best first, each with the disks to ask in turn. Those in
    /// `missing` come last: which stripes' shards they miss is not recorded.
    pub(crate) fn donors(&self, slot: SlotIndex, missing: SlotMask) -> Vec<(SlotIndex, Vec<&DiskAt>)> {
        let mut donors: Vec<_> = (0_u8..)
            .map(SlotIndex)
            .zip(&self.places)
            .filter(|(other, _)| *other != slot)
            .map(|(other, place)| {
                let rank = (missing.contains(other), place.at.health, place.rebuilding);
                let disks: Vec<_> =
                    std::iter::once(&place.at).chain(&place.source).chain(&place.kept).collect();
                (rank, other, disks)
            })
            .collect();
        donors.sort_by_key(|(rank, slot, _)| (*rank, *slot));
        donors.into_iter().map(|(_, slot, disks)| (slot, disks)).collect()
    }
}

fn parse_place(wire: wire::Place) -> Place {
    let rebuilding = wire.state() == wire::SlotState::Rebuilding;
    let (health, source_health) = (health_rank(wire.health()), health_rank(wire.source_health()));
    let source = (rebuilding && wire.source_disk != 0).then_some(DiskAt {
        disk: DiskId(wire.source_disk),
        node: NodeId(wire.source_node),
        address: wire.source_address.clone(),
        health: source_health,
    });
    let kept = wire.kept.into_iter().filter(|_| rebuilding).map(|kept| DiskAt {
        disk: DiskId(kept.disk),
        node: NodeId(kept.node),
        address: kept.address,
        health: 0,
    });
    let kept = kept.collect();
    let at = DiskAt { disk: DiskId(wire.disk), node: NodeId(wire.node), address: wire.address, health };
    Place { at, rebuilding, source, kept }
}

const DOWN: u8 = 2;

/// Down disks are asked last, not never: the metadata service may be behind.
fn health_rank(health: wire::Health) -> u8 {
    match health {
        wire::Health::Up => 0,
        wire::Health::Suspect => 1,
        wire::Health::Down | wire::Health::Unspecified => DOWN,
    }
}

/// The groups of a node, as of one version of the cluster map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeMap {
    pub(crate) version: u64,
    pub(crate) groups: BTreeMap<GroupId, Placement>,
}

impl NodeMap {
    /// From a message.
    pub(crate) fn parse(wire: wire::GetNodeMapReply) -> Result<Self, InvalidInput> {
        let placements = wire.placements.into_iter().map(Placement::parse);
        let groups = placements.map(|p| p.map(|p| (p.group, p))).collect::<Result<_, _>>()?;
        Ok(Self { version: wire.map_version, groups })
    }

    /// Groups with a slot on the disk, in order.
    pub(crate) fn groups_on(&self, disk: DiskId) -> Vec<GroupId> {
        let has = |placement: &&Placement| placement.places.iter().any(|place| place.at.disk == disk);
        self.groups.values().filter(has).map(|placement| placement.group).collect()
    }

    /// May a shard be written to `disk` under `epoch`?
    pub(crate) fn judge_write(&self, shard: &ShardName, disk: DiskId, epoch: Epoch) -> WriteVerdict {
        let not_mine = || {
            let text = format!("slot {} of group {} is not on disk {disk}", shard.slot, shard.group);
            Failure::new(ErrorCode::NotMine, text)
        };
        let Some(known) = self.groups.get(&shard.group) else {
            return WriteVerdict::AskFirst(not_mine());
        };
        if epoch != known.epoch {
            let text = format!("group {} is in epoch {}, not {epoch}", shard.group, known.epoch);
            let stale = Failure::new(ErrorCode::StaleEpoch, text).with(Detail::Epoch(known.epoch));
            return if epoch > known.epoch {
                WriteVerdict::AskFirst(stale)
            } else {
                WriteVerdict::Refuse(stale)
            };
        }
        if !known.has(shard.slot, disk) {
            return WriteVerdict::Refuse(not_mine());
        }
        WriteVerdict::Accept { shard_bytes_max: known.geometry.shard_bytes() }
    }
}

/// What becomes of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteVerdict {
    /// It may go on with a shard of up to so many bytes.
    Accept { shard_bytes_max: usize },
    /// The writer may know more than this node: refuse only if the metadata service does not.
    AskFirst(Failure),
    /// The writer is behind.
    Refuse(Failure),
}

#[cfg(test)]
pub(crate) mod tests {
    use proto::{ExtentId, StripeIndex};

    use super::*;

    /// A group of 2 + 1 slots on disks 11, 12 and 13 of nodes 1, 2 and 3.
    pub(crate) fn placement(epoch: u64) -> wire::Placement {
        let place = |i: u32| wire::Place {
            disk: 10 + i,
            node: i,
            address: format!("n{i}:1"),
            health: wire::Health::Up.into(),
            state: wire::SlotState::Whole.into(),
            since_epoch: 1,
            ..Default::default()
        };
        wire::Placement {
            group: 7,
            epoch,
            k: 2,
            m: 1,
            shard_bytes: 65_536,
            places: (1..=3).map(place).collect(),
            ..Default::default()
        }
    }

    fn map(epoch: u64) -> NodeMap {
        let reply = wire::GetNodeMapReply { map_version: 1, placements: vec![placement(epoch)] };
        NodeMap::parse(reply).unwrap()
    }

    /// The fence: equal epochs pass, older ones are refused, newer ones and unknown groups are asked
    /// about first; the right epoch on the wrong disk is refused.
    #[test]
    fn fences() {
        let shard = |group, slot| ShardName {
            group: GroupId(group),
            extent: ExtentId(1),
            stripe: StripeIndex(0),
            slot: SlotIndex(slot),
        };
        let code = |verdict| match verdict {
            WriteVerdict::Accept { .. } => ("accept", None),
            WriteVerdict::AskFirst(failure) => ("ask", Some((failure.code, failure.detail))),
            WriteVerdict::Refuse(failure) => ("refuse", Some((failure.code, failure.detail))),
        };
        let judge = |group, slot, disk, epoch| {
            code(map(5).judge_write(&shard(group, slot), DiskId(disk), Epoch(epoch)))
        };
        let stale = Some((ErrorCode::StaleEpoch, Detail::Epoch(Epoch(5))));
        let not_mine = Some((ErrorCode::NotMine, Detail::None));
        assert_eq!(judge(7, 0, 11, 5), ("accept", None));
        assert_eq!(judge(7, 0, 11, 4), ("refuse", stale.clone()));
        assert_eq!(judge(7, 0, 11, 6), ("ask", stale));
        assert_eq!(judge(7, 0, 12, 5), ("refuse", not_mine.clone()));
        assert_eq!(judge(7, 23, 11, 5), ("refuse", not_mine.clone()));
        assert_eq!(judge(8, 0, 11, 5), ("ask", not_mine));
    }

    /// Donors: never the slot itself; healthy and whole ones first, and last those that miss shards of the
    /// extent; a rebuilding one is asked at its new disk, then at its source.
    #[test]
    fn donors_are_ordered() {
        let mut wire = placement(5);
        wire.places[0].health = wire::Health::Down.into();
        wire.places[1].state = wire::SlotState::Rebuilding.into();
        wire.places[1].source_disk = 99;
        let placement = Placement::parse(wire.clone()).unwrap();
        let donors = |placement: &Placement, slot, missing| {
            let donors = placement.donors(SlotIndex(slot), SlotMask::from_wire(missing, 3).unwrap());
            let numbers = |disks: Vec<&DiskAt>| disks.iter().map(|at| at.disk.0).collect::<Vec<_>>();
            donors.into_iter().map(|(slot, disks)| (slot.0, numbers(disks))).collect::<Vec<_>>()
        };
        assert_eq!(donors(&placement, 2, 0), [(1, vec![12, 99]), (0, vec![11])]);
        assert_eq!(donors(&placement, 0, 0b100), [(1, vec![12, 99]), (2, vec![13])]);
        assert_eq!(donors(&placement, 2, 0b010), [(0, vec![11]), (1, vec![12, 99])]);
        // A source whose health nobody tells is not relied on for copies; what a former disk kept is.
        let sources = |placement: &Placement, slot| {
            placement.copy_sources(SlotIndex(slot)).map(|at| at.disk.0).collect::<Vec<_>>()
        };
        assert!(sources(&placement, 1).is_empty());
        for place in [0, 1] {
            wire.places[place].kept = vec![wire::KeptAt { disk: 98, node: 9, address: "n9:1".into() }];
        }
        let placement = Placement::parse(wire).unwrap();
        assert_eq!(donors(&placement, 2, 0), [(1, vec![12, 99, 98]), (0, vec![11])]);
        assert_eq!((sources(&placement, 0), sources(&placement, 1)), (vec![], vec![98]));
    }

    /// What may still be lost: neither what is missing, nor down, nor being made from nothing counts; what moves counts
    /// at its source.
    #[test]
    fn spare_disks() {
        let spare = |missing, change: &dyn Fn(&mut wire::Placement)| {
            let mut wire = placement(5);
            change(&mut wire);
            Placement::parse(wire).unwrap().spare(SlotMask::from_wire(missing, 3).unwrap())
        };
        let rebuilding = wire::SlotState::Rebuilding.into();
        assert_eq!(spare(0, &|_| {}), 1);
        assert_eq!(spare(0b010, &|_| {}), 0);
        assert_eq!(spare(0, &|p| p.places[0].health = wire::Health::Down.into()), 0);
        assert_eq!(spare(0, &|p| p.places[0].health = wire::Health::Suspect.into()), 1);
        assert_eq!(spare(0, &|p| p.places[0].state = rebuilding), 0);
        let moving = |source_health: wire::Health| {
            move |p: &mut wire::Placement| {
                p.places[0].state = rebuilding;
                (p.places[0].source_disk, p.places[0].source_health) = (99, source_health.into());
            }
        };
        assert_eq!(spare(0, &moving(wire::Health::Up)), 1);
        assert_eq!(spare(0, &moving(wire::Health::Down)), 0);
        assert_eq!(spare(0b111, &|_| {}), 0);
    }

    /// A message that contradicts itself is refused.
    #[test]
    fn parsing_refuses() {
        for break_it in [
            |p: &mut wire::Placement| p.k = 0,
            |p: &mut wire::Placement| p.shard_bytes = 1,
            |p: &mut wire::Placement| drop(p.places.pop()),
        ] {
            let mut wire = placement(1);
            break_it(&mut wire);
            assert!(Placement::parse(wire).is_err());
        }
    }
}
