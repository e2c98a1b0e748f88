//! The rule by which one disk is chosen. `docs/placement.md` specifies it bit by bit; a change here
//! is a change of that page, of its vectors, and of what replicas of different versions agree on.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use proto::{DiskId, GroupId, Label, NodeId, ProfileId};

use crate::domain::FailureDomain;
use crate::hash::{Purpose, rank};
use crate::map::ClusterMap;
use crate::topology::Disk;

/// Slots per byte of capacity, as a fraction that is never divided out: no floats, no rounding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) slots: u64,
    pub(crate) capacity: u128,
}

impl Load {
    /// With one slot more, this load is below that one with one slot more.
    fn takes_before(self, other: Self) -> bool {
        self.next().saturating_mul(other.capacity) < other.next().saturating_mul(self.capacity)
    }

    /// As it is, this load is not above that of `lowest` with one slot more.
    fn is_near(self, lowest: Self) -> bool {
        u128::from(self.slots).saturating_mul(lowest.capacity) <= lowest.next().saturating_mul(self.capacity)
    }

    fn next(self) -> u128 {
        u128::from(self.slots) + 1
    }

    /// Orders loads as they are, the emptier first.
    pub(crate) fn compare(self, other: Self) -> Ordering {
        let left = u128::from(self.slots).saturating_mul(other.capacity);
        left.cmp(&u128::from(other.slots).saturating_mul(self.capacity))
    }
}

/// The lowest of `loads`, after one slot more.
fn lowest(loads: impl Iterator<Item = Load>) -> Option<Load> {
    loads.reduce(|best, load| if load.takes_before(best) { load } else { best })
}

/// What a choice must keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// At most `at_most` slots of the group in one domain of this kind; a disk never takes two.
    pub(crate) domain: FailureDomain,
    /// See `domain`.
    pub(crate) at_most: usize,
    /// Among nodes alike, those in racks with the fewest slots of the group.
    pub(crate) even_racks: bool,
    /// Only the domain that this disk lies in, without regard to `at_most`.
    pub(crate) beside: Option<DiskId>,
}

struct PoolDisk {
    id: DiskId,
    load: Load,
}

struct PoolNode {
    id: NodeId,
    rack: usize,
    site: usize,
    usable: usize,
    load: Load,
    /// The usable ones; listed when first needed.
    disks: Option<Vec<PoolDisk>>,
}

/// The loads of one profile on all nodes, kept up to date while slots are given out.
pub(crate) struct Pool<'a> {
    map: &'a ClusterMap,
    profile: ProfileId,
    nodes: Vec<PoolNode>,
    racks: usize,
    sites: usize,
    /// Usable disks that take no slot.
    closed: BTreeSet<DiskId>,
}

/// A group in the making: how many of its slots lie where.
pub(crate) struct Draft {
    group: GroupId,
    taken: Vec<DiskId>,
    on_node: Vec<usize>,
    in_rack: Vec<usize>,
    in_site: Vec<usize>,
    usable_taken: Vec<usize>,
}

/// The number of `key`, in the order of first appearance.
fn numbered<K: Ord>(seen: &mut BTreeMap<K, usize>, key: K) -> usize {
    let next = seen.len();
    *seen.entry(key).or_insert(next)
}

impl<'a> Pool<'a> {
    /// The pool as the map stands. Costs a visit to each node, not to each disk.
    pub(crate) fn new(map: &'a ClusterMap, profile: ProfileId) -> Self {
        let (mut racks, mut sites) = (BTreeMap::<(&Label, &Label), usize>::new(), BTreeMap::new());
        let nodes = map.nodes().values().map(|node| {
            let totals = map.node_use(node.id);
            let slots = totals.and_then(|totals| totals.slots.get(&profile)).copied().unwrap_or_default();
            PoolNode {
                id: node.id,
                rack: numbered(&mut racks, (&node.site, &node.rack)),
                site: numbered(&mut sites, &node.site),
                usable: totals.map_or(0, |totals| totals.usable),
                load: Load { slots, capacity: totals.map_or(0, |totals| totals.capacity) },
                disks: None,
            }
        });
        let nodes = nodes.collect();
        Self { map, profile, nodes, racks: racks.len(), sites: sites.len(), closed: BTreeSet::new() }
    }

    /// From now on as if the disk were not usable.
    pub(crate) fn close(&mut self, disk: DiskId) {
        let Some(row) = self.map.disks().get(&disk).filter(|row| self.is_open(row)) else { return };
        self.closed.insert(disk);
        let (map, profile) = (self.map, self.profile);
        let Some(node) = self.node_of(disk).and_then(|at| self.nodes.get_mut(at)) else { return };
        let listed = node.disks.as_mut().and_then(|disks| {
            let at = disks.iter().position(|candidate| candidate.id == disk)?;
            Some(disks.remove(at).load)
        });
        let load = listed.unwrap_or_else(|| disk_load(map, profile, disk));
        node.usable = node.usable.saturating_sub(1);
        node.load.slots = node.load.slots.saturating_sub(load.slots);
        node.load.capacity = node.load.capacity.saturating_sub(u128::from(row.capacity_bytes));
    }

    fn is_open(&self, disk: &Disk) -> bool {
        self.map.is_usable(disk) && !self.closed.contains(&disk.id)
    }

    /// A draft of `group` that has slots on `kept`, and may not use `barred` either.
    pub(crate) fn draft(&self, group: GroupId, kept: &[DiskId], barred: &[DiskId]) -> Draft {
        let mut draft = Draft {
            group,
            taken: Vec::new(),
            on_node: vec![0; self.nodes.len()],
            in_rack: vec![0; self.racks],
            in_site: vec![0; self.sites],
            usable_taken: vec![0; self.nodes.len()],
        };
        kept.iter().for_each(|disk| self.add(&mut draft, *disk, true));
        barred.iter().for_each(|disk| self.add(&mut draft, *disk, false));
        draft
    }

    /// Chooses one disk more for the draft; `None` when no disk may take a slot.
    pub(crate) fn pick(&mut self, draft: &mut Draft, rule: Rule) -> Option<DiskId> {
        let node = self.pick_node(draft, rule)?;
        let disk = self.pick_disk(draft, node)?;
        let picked = self.nodes.get_mut(node)?;
        picked.load.slots += 1;
        if let Some(disk) = picked.disks.iter_mut().flatten().find(|candidate| candidate.id == disk) {
            disk.load.slots += 1;
        }
        self.add(draft, disk, true);
        Some(disk)
    }

    fn pick_node(&self, draft: &Draft, rule: Rule) -> Option<usize> {
        let beside = rule.beside.and_then(|disk| self.node_of(disk));
        let crowding = |at: usize, node: &PoolNode| {
            let in_rack = if rule.even_racks { get(&draft.in_rack, node.rack) } else { 0 };
            (get(&draft.on_node, at), in_rack)
        };
        // Crowding and load of the best so far. One pass, since this runs over all nodes for every slot.
        let mut best: Option<((usize, usize), Load)> = None;
        for (at, node) in self.nodes.iter().enumerate() {
            if self.may_take(draft, rule, beside, at, node) {
                let own = crowding(at, node);
                match best {
                    Some((fewest, _)) if own > fewest => {}
                    Some((fewest, lowest)) if own == fewest && !node.load.takes_before(lowest) => {}
                    _ => best = Some((own, node.load)),
                }
            }
        }
        let (fewest, lowest) = best?;
        let nodes = self.nodes.iter().enumerate();
        nodes
            .filter(|(at, node)| node.load.is_near(lowest) && crowding(*at, node) == fewest)
            .filter(|(at, node)| self.may_take(draft, rule, beside, *at, node))
            .min_by_key(|(_, node)| (rank(Purpose::Node, draft.group, node.id.0), node.id))
            .map(|(at, _)| at)
    }

    fn may_take(&self, draft: &Draft, rule: Rule, beside: Option<usize>, at: usize, node: &PoolNode) -> bool {
        if node.usable <= get(&draft.usable_taken, at) {
            return false;
        }
        if rule.beside.is_some() {
            return beside.is_some_and(|beside| self.same_domain(rule.domain, beside, at));
        }
        let slots = match rule.domain {
            // A disk takes one slot at most, which `pick_disk` sees to.
            FailureDomain::Disk => return true,
            FailureDomain::Node => get(&draft.on_node, at),
            FailureDomain::Rack => get(&draft.in_rack, node.rack),
            FailureDomain::Site => get(&draft.in_site, node.site),
        };
        slots < rule.at_most
    }

    fn same_domain(&self, kind: FailureDomain, a: usize, b: usize) -> bool {
        let (Some(left), Some(right)) = (self.nodes.get(a), self.nodes.get(b)) else { return false };
        match kind {
            FailureDomain::Disk => true,
            FailureDomain::Node => a == b,
            FailureDomain::Rack => left.rack == right.rack,
            FailureDomain::Site => left.site == right.site,
        }
    }

    fn pick_disk(&mut self, draft: &Draft, node: usize) -> Option<DiskId> {
        let (map, profile, closed) = (self.map, self.profile, &self.closed);
        let node = self.nodes.get_mut(node)?;
        let disks = node.disks.get_or_insert_with(|| {
            let usable = map.disks_of(node.id).filter(|disk| map.is_usable(disk));
            let open = usable.filter(|disk| !closed.contains(&disk.id));
            open.map(|disk| PoolDisk { id: disk.id, load: disk_load(map, profile, disk.id) }).collect()
        });
        let free = || disks.iter().filter(|disk| !draft.taken.contains(&disk.id));
        let lowest = lowest(free().map(|disk| disk.load))?;
        free()
            .filter(|disk| disk.load.is_near(lowest))
            .min_by_key(|disk| (rank(Purpose::Disk, draft.group, disk.id.0), disk.id))
            .map(|disk| disk.id)
    }

    fn node_of(&self, disk: DiskId) -> Option<usize> {
        let node = self.map.disks().get(&disk)?.node;
        self.nodes.binary_search_by_key(&node, |node| node.id).ok()
    }

    fn add(&self, draft: &mut Draft, disk: DiskId, slot: bool) {
        if draft.taken.contains(&disk) && !slot {
            return;
        }
        let known = draft.taken.contains(&disk);
        draft.taken.push(disk);
        let Some(at) = self.node_of(disk) else { return };
        let Some(node) = self.nodes.get(at) else { return };
        if !known && self.map.disks().get(&disk).is_some_and(|disk| self.is_open(disk)) {
            bump(&mut draft.usable_taken, at);
        }
        if slot {
            bump(&mut draft.on_node, at);
            bump(&mut draft.in_rack, node.rack);
            bump(&mut draft.in_site, node.site);
        }
    }
}

impl Draft {
    /// Slots of the group on the node of `disk`.
    pub(crate) fn slots_beside(&self, pool: &Pool<'_>, disk: DiskId) -> usize {
        pool.node_of(disk).map_or(0, |at| get(&self.on_node, at))
    }
}

/// The load of one disk. A disk that is unknown or without capacity counts as one byte, so that loads
/// always have a total order.
pub(crate) fn disk_load(map: &ClusterMap, profile: ProfileId, disk: DiskId) -> Load {
    let capacity = map.disks().get(&disk).map_or(0, |disk| disk.capacity_bytes);
    Load { slots: map.profile_slots_on(profile, disk), capacity: u128::from(capacity.max(1)) }
}

fn get(counts: &[usize], at: usize) -> usize {
    counts.get(at).copied().unwrap_or_default()
}

fn bump(counts: &mut [usize], at: usize) {
    if let Some(count) = counts.get_mut(at) {
        *count += 1;
    }
}
