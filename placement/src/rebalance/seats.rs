//! The disks of the map, numbered one after another, with what lies on each and what a planner asks again and
//! again.

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
    loads: Vec<u64>,
}

/// A disk with what lies on it now.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'a> {
    pub(super) seat: &'a Seat,
    pub(super) load: u64,
}

fn numbered<K: Ord>(seen: &mut BTreeMap<K, usize>, key: K) -> usize {
    let next = seen.len();
    *seen.entry(key).or_insert(next)
}

impl Seats {
    /// Without loads.
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
        let seats: Vec<Seat> = seats.collect();
        Self { loads: vec![0; seats.len()], seats, nodes: places.len() }
    }

    /// Instead of what was known of each before.
    pub(super) fn set_loads(&mut self, of: impl Fn(&Seat) -> u64) {
        self.loads = self.seats.iter().map(of).collect();
    }

    /// Each as many times.
    pub(super) fn scale_loads(&mut self, by: u64) {
        self.loads.iter_mut().for_each(|load| *load = load.saturating_mul(by));
    }

    pub(super) fn add(&mut self, at: usize, load: u64) {
        if let Some(before) = self.loads.get_mut(at) {
            *before = before.saturating_add(load);
        }
    }

    pub(super) fn take(&mut self, at: usize, load: u64) {
        if let Some(before) = self.loads.get_mut(at) {
            *before = before.saturating_sub(load);
        }
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

    pub(super) fn end(&self, at: usize) -> Option<End<'_>> {
        self.seats.get(at).zip(self.loads.get(at)).map(|(seat, load)| End { seat, load: *load })
    }

    /// The usable ones, with their numbers.
    pub(super) fn usable(&self) -> impl Iterator<Item = (usize, End<'_>)> {
        let ends = self.seats.iter().zip(&self.loads).map(|(seat, load)| End { seat, load: *load });
        ends.enumerate().filter(|(_, end)| end.seat.usable)
    }

    /// The load of all usable disks by their capacity.
    pub(super) fn mean(&self) -> Fill {
        let sum = |of: fn(End<'_>) -> u64| self.usable().map(|(_, end)| u128::from(of(end))).sum();
        Fill::of(sum(|end| end.load), sum(|end| end.seat.capacity))
    }
}

impl End<'_> {
    pub(super) fn fill(&self) -> Fill {
        self.seat.fill(self.load)
    }

    /// How much more than the level lies on it.
    pub(super) fn above(&self, level: Fill) -> u64 {
        self.load.saturating_sub(level.load(self.seat.capacity))
    }

    /// How much is missing up to the level.
    pub(super) fn below(&self, level: Fill) -> u64 {
        level.load(self.seat.capacity).saturating_sub(self.load)
    }
}

impl Seat {
    pub(super) fn fill(&self, load: u64) -> Fill {
        Fill::of(load.into(), self.capacity.into())
    }

    /// The number of its domain of `kind`. Disks have none: a group never has two slots on one.
    pub(super) fn domain(&self, kind: FailureDomain) -> Option<usize> {
        match kind {
            FailureDomain::Disk => None,
            FailureDomain::Node => Some(self.node),
            FailureDomain::Rack => Some(self.rack),
            FailureDomain::Site => Some(self.site),
        }
    }
}
