//! The disks that take, emptiest first: by node, since it is nodes that a group has too much of.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::FailureDomain;
use crate::fill::Fill;
use crate::hash::{Purpose, hash};
use crate::usage::count;

use super::seats::Seats;

/// Fill, lot, number: the order in which disks, and nodes by their emptiest disk, are asked.
type Turn = (Fill, u64, usize);

/// See the module.
#[derive(Debug)]
pub(super) struct Takers {
    nodes: BTreeSet<Turn>,
    disks: Vec<BTreeSet<Turn>>,
    /// Of each disk in the set, its turn.
    turns: Vec<Option<Turn>>,
    /// How many there are in each rack and in each site that has some.
    racks: BTreeMap<usize, u32>,
    sites: BTreeMap<usize, u32>,
}

impl Takers {
    /// Nobody yet.
    pub(super) fn new(seats: &Seats) -> Self {
        Self {
            nodes: BTreeSet::new(),
            disks: vec![BTreeSet::new(); seats.nodes()],
            turns: vec![None; seats.len()],
            racks: BTreeMap::new(),
            sites: BTreeMap::new(),
        }
    }

    /// Puts a disk where it belongs with this fill, or takes it out.
    pub(super) fn set(&mut self, seats: &Seats, at: usize, fill: Option<Fill>) {
        let Some(seat) = seats.get(at) else { return };
        let after = fill.map(|fill| (fill, hash(Purpose::Rebalance, u64::from(seat.disk.0), 0), at));
        let Some(before) = self.turns.get_mut(at).map(|turn| std::mem::replace(turn, after)) else { return };
        self.set_turn(seat.node, before, after);
        if before.is_some() != after.is_some() {
            count(&mut self.racks, seat.rack, after.is_some());
            count(&mut self.sites, seat.site, after.is_some());
        }
    }

    fn set_turn(&mut self, node: usize, before: Option<Turn>, after: Option<Turn>) {
        let Some(disks) = self.disks.get_mut(node) else { return };
        let first = |disks: &BTreeSet<Turn>| disks.first().map(|(fill, lot, _)| (*fill, *lot, node));
        let first_before = first(disks);
        before.map(|turn| disks.remove(&turn));
        disks.extend(after);
        let first_after = first(disks);
        if first_before != first_after {
            first_before.map(|turn| self.nodes.remove(&turn));
            self.nodes.extend(first_after);
        }
    }

    /// Is there one in a domain for which `has_room` holds? Domains within racks are not looked at.
    pub(super) fn any_in(&self, kind: FailureDomain, has_room: impl Fn(usize) -> bool) -> bool {
        match kind {
            FailureDomain::Disk | FailureDomain::Node => true,
            FailureDomain::Rack => self.racks.keys().any(|rack| has_room(*rack)),
            FailureDomain::Site => self.sites.keys().any(|site| has_room(*site)),
        }
    }

    /// The fill of the emptiest.
    pub(super) fn lowest(&self) -> Option<Fill> {
        self.nodes.first().map(|(fill, _, _)| *fill)
    }

    /// The nodes with such disks.
    pub(super) fn nodes(&self) -> impl Iterator<Item = usize> {
        self.nodes.iter().map(|(_, _, node)| *node)
    }

    /// Such disks of a node.
    pub(super) fn disks_of(&self, node: usize) -> impl Iterator<Item = usize> {
        self.disks.get(node).into_iter().flatten().map(|(_, _, at)| *at)
    }
}
