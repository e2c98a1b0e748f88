//! What a node should do next, read off the tables each time: nothing is stored about who works.

use bytes::Bytes;
use env::{KeyRange, KvRead, Order, Row, StorageError, Table};
use placement::{Group, Health, SlotState};
use proto::limits::WORK_PAGE_MAX;
use proto::{DiskId, GroupId, NodeId, wire};

use crate::state::error::{Error, corrupt};
use crate::state::parse::bit;
use crate::state::query::{known_node, page_limit, wrong_map};
use crate::state::tx::{decode, row};
use crate::state::{Machine, tables as t, to_placement_with_kept};

/// Rows of one group that are read in search of work; other groups are not kept waiting by one whose
/// work cannot be done now.
const ROWS_PER_GROUP_MAX: usize = 4096;
const CHUNK: usize = 256;

/// Does [`take_work`] have something for the node, as far as memory tells? It may answer yes for work
/// that has to wait.
pub fn has_work(machine: &Machine, node: NodeId) -> bool {
    let mut disks = working_disks(machine, node);
    disks.any(|disk| machine.work().has_any(disk))
}

/// Up to `limit` pieces of work for the node's healthy disks (0: as many as fit a reply): extents to fill
/// first, then slots to rebuild, then extents to drop; each kind leaves room for the others. What a disk is to make
/// comes in the order of what its group may still lose.
///
/// Fills without `k` readable slots come last: they succeed only where a shard was taken for lost and is
/// whole all the same. Left out are drops of whole slots whose new disk is not whole yet.
///
/// # Errors
///
/// `StaleNode` when there is no such node; those of the store.
pub fn take_work(
    machine: &Machine,
    kv: &impl KvRead,
    node: NodeId,
    limit: u32,
) -> Result<wire::TakeWorkReply, Error> {
    known_node(machine, node)?;
    let limit = page_limit(limit, WORK_PAGE_MAX);
    let mut reply = wire::TakeWorkReply::default();
    let share = limit.div_ceil(2);
    for disk in working_disks(machine, node) {
        take_fills(machine, kv, disk, share, &mut reply.fills)?;
    }
    let share = limit.saturating_sub(reply.fills.len()).div_ceil(2);
    for disk in working_disks(machine, node) {
        take_rebuilds(machine, kv, disk, share, &mut reply.rebuilds)?;
    }
    let share = limit.saturating_sub(reply.fills.len()).saturating_sub(reply.rebuilds.len());
    for disk in working_disks(machine, node) {
        take_drops(machine, kv, disk, share, &mut reply.drops)?;
    }
    Ok(reply)
}

/// The node is asking, so it answers; a disk that failed can do nothing.
fn working_disks(machine: &Machine, node: NodeId) -> impl Iterator<Item = DiskId> {
    machine.map().disks_of(node).filter(|disk| disk.health == Health::Up).map(|disk| disk.id)
}

fn take_fills(
    machine: &Machine,
    kv: &impl KvRead,
    disk: DiskId,
    limit: usize,
    fills: &mut Vec<wire::FillExtent>,
) -> Result<(), Error> {
    // Without enough sources only a shard that was taken for lost, and is not, can fill the slot.
    let mut without_sources = Vec::new();
    let mut groups = Vec::new();
    for (id, count) in machine.work().fills(disk) {
        groups.push((spare(machine, group_of(machine, id)?), id, count));
    }
    groups.sort_unstable();
    for (_, id, count) in groups {
        if fills.len() >= limit {
            return Ok(());
        }
        let group = group_of(machine, id)?;
        let Some(place) = group.slots.iter().position(|slot| slot.disk == disk) else { continue };
        let readable = readable(machine, group);
        let placement = to_placement_with_kept(machine.map(), kv, group)?;
        let mut search = Search::new(kv, t::INCOMPLETE, id, count);
        while let Some((key, value)) = search.next()? {
            let missing = t::mask_of(&value)?;
            if missing & bit(place) == 0 {
                continue;
            }
            search.found();
            let sources = (readable & !missing).count_ones();
            let kind = if sources < placement.k { &mut without_sources } else { &mut *fills };
            if kind.len() >= limit {
                continue;
            }
            let (_, extent) = t::extent_of(&key)?;
            let row: Option<wire::ExtentRow> = row(kv, t::EXTENTS, &key)?;
            let row = row.ok_or_else(|| corrupt(format!("incomplete extent {extent} has no row")))?;
            kind.push(wire::FillExtent {
                placement: Some(placement.clone()),
                extent: extent.to_wire(),
                length: row.length,
                slot: u32::try_from(place).unwrap_or_default(),
                missing,
            });
            if fills.len() >= limit {
                return Ok(());
            }
        }
    }
    without_sources.truncate(limit.saturating_sub(fills.len()));
    fills.append(&mut without_sources);
    Ok(())
}

/// How many more slots the group may lose now, but for what single extents miss.
fn spare(machine: &Machine, group: &Group) -> usize {
    let k = machine.map().profiles().get(&group.profile).map_or(0, |profile| profile.k());
    usize::try_from(readable(machine, group).count_ones()).unwrap_or_default().saturating_sub(k)
}

/// Slots whose shards, but those recorded as missing, can be read now.
pub(crate) fn readable(machine: &Machine, group: &Group) -> u32 {
    let holder = |state: SlotState, disk: DiskId| match state {
        SlotState::Whole => Some(disk),
        SlotState::Rebuilding { source } => source,
    };
    let up = |disk: DiskId| machine.map().disk_health(disk) != Health::Down;
    let slots = group.slots.iter().enumerate();
    slots.filter(|(_, slot)| holder(slot.state, slot.disk).is_some_and(up)).map(|(place, _)| bit(place)).sum()
}

/// Are `k` shards of each extent in reach, on disks that are not down? A slot that some extent misses counts
/// for none; a group without an extent has nothing to make.
pub(crate) fn can_be_made(machine: &Machine, kv: &impl KvRead, group: &Group) -> Result<bool, StorageError> {
    let Some(profile) = machine.map().profiles().get(&group.profile) else { return Ok(false) };
    let readable = readable(machine, group);
    let whole = group.slots.iter().enumerate().filter(|(place, slot)| {
        readable.checked_shr(u32::try_from(*place).unwrap_or(u32::MAX)).is_some_and(|bits| bits & 1 == 1)
            && !machine.work().misses(slot.disk, group.id)
    });
    if whole.count() >= profile.k() {
        return Ok(true);
    }
    let any = kv.scan(t::EXTENTS, &t::rows_of(group.id.0), Order::Ascending, 1)?;
    Ok(any.is_empty())
}

fn take_rebuilds(
    machine: &Machine,
    kv: &impl KvRead,
    disk: DiskId,
    limit: usize,
    rebuilds: &mut Vec<wire::RebuildSlot>,
) -> Result<(), Error> {
    let mut groups = Vec::new();
    for id in machine.work().rebuilds(disk) {
        groups.push((spare(machine, group_of(machine, id)?), id));
    }
    groups.sort_unstable();
    for (_, id) in groups {
        if rebuilds.len() >= limit {
            return Ok(());
        }
        let group = group_of(machine, id)?;
        let Some(place) = group.slots.iter().position(|slot| slot.disk == disk) else { continue };
        rebuilds.push(wire::RebuildSlot {
            placement: Some(to_placement_with_kept(machine.map(), kv, group)?),
            slot: u32::try_from(place).unwrap_or_default(),
        });
    }
    Ok(())
}

fn take_drops(
    machine: &Machine,
    kv: &impl KvRead,
    disk: DiskId,
    limit: usize,
    drops: &mut Vec<wire::DropExtent>,
) -> Result<(), Error> {
    for (id, count) in machine.work().drops(disk) {
        let mut search = Search::new(kv, t::GARBAGE, id, count);
        while drops.len() < limit
            && let Some((key, value)) = search.next()?
        {
            let (group, extent) = t::extent_of(&key)?;
            let row: wire::GarbageRow = decode(t::GARBAGE, value)?;
            let whole = extent == t::WHOLE_SLOT;
            for slot in row.slots.iter().filter(|slot| slot.disk == disk.0) {
                search.found();
                let index = wire::slot_index(slot.slot).map_err(wrong_map)?;
                if whole && !machine.may_drop_slot(kv, group, index)? {
                    continue;
                }
                drops.push(wire::DropExtent {
                    group: group.0,
                    extent: if whole { Bytes::new() } else { extent.to_wire() },
                    slot: slot.slot,
                    disk: disk.0,
                    epoch: if whole { group_of(machine, group)?.epoch.0 } else { 0 },
                });
            }
        }
    }
    drops.truncate(limit);
    Ok(())
}

fn group_of(machine: &Machine, group: GroupId) -> Result<&Group, StorageError> {
    machine.map().groups().get(&group).ok_or_else(|| corrupt(format!("group {group} is unknown")))
}

/// Rows of a group, until as many were found as memory counts, or too many were read.
struct Search<'a, K> {
    kv: &'a K,
    table: Table,
    range: KeyRange,
    rows: std::vec::IntoIter<Row>,
    left_to_find: u64,
    left_to_read: usize,
}

impl<'a, K: KvRead> Search<'a, K> {
    fn new(kv: &'a K, table: Table, group: GroupId, count: u64) -> Self {
        Self {
            kv,
            table,
            range: t::rows_of(group.0),
            rows: Vec::new().into_iter(),
            left_to_find: count,
            left_to_read: ROWS_PER_GROUP_MAX,
        }
    }

    fn found(&mut self) {
        self.left_to_find = self.left_to_find.saturating_sub(1);
    }

    fn next(&mut self) -> Result<Option<Row>, StorageError> {
        if self.left_to_find == 0 || self.left_to_read == 0 {
            return Ok(None);
        }
        if self.rows.as_slice().is_empty() {
            let rows = self.kv.scan(self.table, &self.range, Order::Ascending, CHUNK)?;
            if let Some((last, _)) = rows.last() {
                self.range = std::mem::take(&mut self.range).after(last);
            }
            self.rows = rows.into_iter();
        }
        self.left_to_read -= 1;
        Ok(self.rows.next())
    }
}
