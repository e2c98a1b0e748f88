//! The disks that take, emptiest first: by node, since it is nodes that a group has too much of.

use std::collections::BTreeSet;

use crate::fill::Fill;
use crate::hash::{Purpose, hash};

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
}

impl Takers {
    /// Nobody yet.
    pub(super) fn new(seats: &Seats) -> Self {
        Self {
            nodes: BTreeSet::new(),
            disks: vec![BTreeSet::new(); seats.nodes()],
            turns: vec![None; seats.len()],
        }
    }

    /// Puts a disk where it belongs with this fill, or takes it out.
    pub(super) fn set(&mut self, seats: &Seats, at: usize, fill: Option<Fill>) {
        let (Some(seat), Some(turn)) = (seats.get(at), self.turns.get_mut(at)) else { return };
        let Some(disks) = self.disks.get_mut(seat.node) else { return };
        let first = |disks: &BTreeSet<Turn>| disks.first().map(|(fill, lot, _)| (*fill, *lot, seat.node));
        let before = first(disks);
        if let Some(turn) = turn.take() {
            disks.remove(&turn);
        }
        if let Some(fill) = fill {
            *turn = Some((fill, hash(Purpose::Rebalance, u64::from(seat.disk.0), 0), at));
            disks.extend(*turn);
        }
        let after = first(disks);
        if before != after {
            before.map(|turn| self.nodes.remove(&turn));
            self.nodes.extend(after);
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
