//! The disks of the map, numbered one after another, with what a planner asks of each again and again.

use std::collections::{BTreeMap, BTreeSet};

use proto::{DiskId, Label};

use crate::domain::FailureDomain;
use crate::fill::Fill;
use crate::map::ClusterMap;

/// One disk.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) disk: DiskId,
    /// Numbers, not ids.
    pub(super) node: usize,
    pub(super) rack: usize,
    pub(super) site: usize,
    pub(super) capacity: u64,
    /// Counts for the mean, and may give.
    pub(super) usable: bool,
    /// May take, too.
    pub(super) takes: bool,
}

/// All disks, by id.
#[derive(Debug)]
pub(super) struct Seats {
    seats: Vec<Seat>,
    nodes: usize,
}

fn numbered<K: Ord>(seen: &mut BTreeMap<K, usize>, key: K) -> usize {
    let next = seen.len();
    *seen.entry(key).or_insert(next)
}

impl Seats {
    pub(super) fn new(map: &ClusterMap, barred: &BTreeSet<DiskId>) -> Self {
        let (mut racks, mut sites) = (BTreeMap::<(&Label, &Label), usize>::new(), BTreeMap::new());
        let places = map.nodes().values().enumerate().map(|(at, node)| {
            let rack = numbered(&mut racks, (&node.site, &node.rack));
            (node.id, (at, rack, numbered(&mut sites, &node.site)))
        });
        let places: BTreeMap<_, _> = places.collect();
        let seats = map.disks().values().filter_map(|disk| {
            let (node, rack, site) = *places.get(&disk.node)?;
            let usable = map.is_usable(disk);
            let takes = usable && !barred.contains(&disk.id);
            Some(Seat { disk: disk.id, node, rack, site, capacity: disk.capacity_bytes, usable, takes })
        });
        Self { seats: seats.collect(), nodes: places.len() }
    }

    pub(super) fn nodes(&self) -> usize {
        self.nodes
    }

    pub(super) fn len(&self) -> usize {
        self.seats.len()
    }

    pub(super) fn get(&self, at: usize) -> Option<&Seat> {
        self.seats.get(at)
    }

    /// The number of a disk. Ids are given out one after another, so that the first guess is right.
    pub(super) fn find(&self, disk: DiskId) -> Option<usize> {
        let first = self.seats.first()?.disk.0;
        let guess = usize::try_from(disk.0.checked_sub(first)?).ok()?;
        if self.seats.get(guess).is_some_and(|seat| seat.disk == disk) {
            return Some(guess);
        }
        self.seats.binary_search_by_key(&disk, |seat| seat.disk).ok()
    }

    /// The usable ones, with their numbers.
    pub(super) fn usable(&self) -> impl Iterator<Item = (usize, &Seat)> {
        self.seats.iter().enumerate().filter(|(_, seat)| seat.usable)
    }

    /// The load of all usable disks by their capacity.
    pub(super) fn mean(&self, loads: &[u64]) -> Fill {
        let (mut load, mut capacity) = (0u128, 0u128);
        for (at, seat) in self.usable() {
            load += u128::from(loads.get(at).copied().unwrap_or_default());
            capacity += u128::from(seat.capacity);
        }
        Fill::of(load, capacity)
    }
}

impl Seat {
    pub(super) fn fill(&self, load: u64) -> Fill {
        Fill::of(load.into(), self.capacity.into())
    }

    /// True when both lie in one domain of `kind`; two different disks never in one of the innermost.
    pub(super) fn is_beside(&self, other: &Self, kind: FailureDomain) -> bool {
        match kind {
            FailureDomain::Disk => self.disk == other.disk,
            FailureDomain::Node => self.node == other.node,
            FailureDomain::Rack => self.rack == other.rack,
            FailureDomain::Site => self.site == other.site,
        }
    }
}
