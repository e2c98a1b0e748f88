//! What a node has done, or found.
//!
//! Reports come late, twice, and about a map that has changed since: what does not fit the state any
//! more is passed over, and what fits has the same effect each time.

use std::collections::BTreeMap;

use env::{KvRead, StorageError};
use placement::{Disk, Duty, Group, Health, Slot, SlotState, slot_rebuilt};
use proto::limits::WORK_PAGE_MAX;
use proto::{DiskId, Epoch, ExtentId, GroupId, NodeId, SlotIndex, wire};
use wire::outcome::Outcome as Answer;

use crate::state::error::{Error, broken, invalid};
use crate::state::parse::bit;
use crate::state::take::can_be_made;
use crate::state::{Machine, Tx, tables as t};

/// Items of one report, of all kinds together.
pub const REPORT_ITEMS_MAX: usize = 4 * WORK_PAGE_MAX;

/// One slot of an extent on a disk; of a whole slot, when the extent is [`t::WHOLE_SLOT`].
struct Item {
    group: GroupId,
    extent: ExtentId,
    slot: SlotIndex,
    disk: DiskId,
    epoch: Epoch,
}

impl Machine {
    pub(super) fn report_work<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        report: wire::ReportWork,
    ) -> Result<Answer, Error> {
        let items = [
            report.dropped.len(),
            report.filled.len(),
            report.rebuilt.len(),
            report.lost.len(),
            report.strays.len(),
            report.damaged.len(),
        ];
        let items = items.into_iter().fold(0, usize::saturating_add);
        if items > REPORT_ITEMS_MAX {
            return Err(invalid(format!(
                "the report has {items} items; at most {REPORT_ITEMS_MAX} are allowed: send several"
            )));
        }
        let dropped = parse(report.dropped)?;
        let filled = parse(report.filled)?;
        let rebuilt = parse(report.rebuilt)?;
        let lost = parse(report.lost)?;
        let strays = parse(report.strays)?;
        let damaged = parse(report.damaged)?;
        let node = NodeId(report.node);
        for item in self.of_node(node, dropped) {
            self.dropped(tx, &item)?;
        }
        for item in self.of_node(node, filled) {
            self.filled(tx, &item)?;
        }
        let mut changed = false;
        for item in self.of_node(node, rebuilt) {
            changed |= self.rebuilt(tx, &item)?;
        }
        // Last: what is lost now counts, whatever was filled before.
        for item in self.of_node(node, lost) {
            self.lost(tx, &item)?;
        }
        self.damaged(tx, self.of_node(node, damaged))?;
        for item in self.of_node(node, strays) {
            self.stray(tx, &item)?;
        }
        if changed {
            self.map_changed();
        }
        Ok(Answer::Done(true))
    }

    /// A node speaks for its own disks alone, and nobody for a disk that is retired.
    fn of_node(&self, node: NodeId, items: Vec<Item>) -> Vec<Item> {
        let speaks_for = |disk: &Disk| disk.node == node && disk.duty != Duty::Retired;
        items.into_iter().filter(|item| self.map.disks().get(&item.disk).is_some_and(speaks_for)).collect()
    }

    fn dropped<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, item: &Item) -> Result<(), StorageError> {
        let key = t::extent_key(item.group, item.extent);
        let Some(mut row) = tx.row::<wire::GarbageRow>(t::GARBAGE, &key)? else { return Ok(()) };
        if item.extent == t::WHOLE_SLOT && !self.is_dropped_in_time(&tx.view(), item)? {
            return Ok(());
        }
        let done = wire::GarbageSlot { slot: u32::from(item.slot.0), disk: item.disk.0 };
        let before = row.slots.clone();
        row.slots.retain(|slot| *slot != done);
        self.put_garbage(tx, item.group, key, &before, &row);
        Ok(())
    }

    /// An old report must not end a drop that is held back until the slot is whole again, nor one of a slot
    /// that has been on the disk meanwhile.
    fn is_dropped_in_time(&self, kv: &impl KvRead, item: &Item) -> Result<bool, StorageError> {
        let group = self.map.groups().get(&item.group);
        let slot = group.and_then(|group| group.slot(item.slot).ok());
        let has_moved = slot.is_none_or(|slot| slot.since_epoch > item.epoch);
        Ok(!has_moved && self.may_drop_slot(kv, item.group, item.slot)?)
    }

    /// May former disks of the slot drop what they keep of it? Once its disk has it all; or when it lost all
    /// who had it and can be made without them, since such a disk may be the only one that is left to take it.
    pub(super) fn may_drop_slot(
        &self,
        kv: &impl KvRead,
        group: GroupId,
        slot: SlotIndex,
    ) -> Result<bool, StorageError> {
        let Some(group) = self.map.groups().get(&group) else { return Ok(false) };
        let Ok(slot) = group.slot(slot) else { return Ok(false) };
        let is_down = |disk| self.map.disk_health(disk) == Health::Down;
        let is_lost = is_down(slot.disk) && slot.source().is_none_or(is_down);
        Ok(slot.state == SlotState::Whole || (is_lost && can_be_made(self, kv, group)?))
    }

    fn filled<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, item: &Item) -> Result<(), Error> {
        if self.slot_in_epoch(item).is_some() {
            self.mark(tx, item, |missing| missing & !bit(item.slot.0.into()))?;
        }
        Ok(())
    }

    /// True when that was not known.
    fn lost<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, item: &Item) -> Result<bool, Error> {
        let group = self.map.groups().get(&item.group);
        let slot = group.and_then(|group| group.slot(item.slot).ok());
        if slot.is_none_or(|slot| slot.disk != item.disk) {
            return Ok(false);
        }
        self.mark(tx, item, |missing| missing | bit(item.slot.0.into()))
    }

    /// Lost, and counted against the disk: once, however often it is reported before it is made again.
    fn damaged<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, items: Vec<Item>) -> Result<(), Error> {
        let mut found: BTreeMap<DiskId, u32> = BTreeMap::new();
        for item in items {
            if self.lost(tx, &item)? {
                *found.entry(item.disk).or_default() += 1;
            }
        }
        found.into_iter().try_for_each(|(disk, found)| self.count_damage(tx, disk, found))
    }

    /// A disk has shards of a slot without a part in the group, such as from a write that was under way when
    /// the slot moved: they are garbage, dropped like what a move leaves behind.
    fn stray<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, item: &Item) -> Result<(), StorageError> {
        let group = self.map.groups().get(&item.group);
        let apart = group.filter(|group| group.slot(item.slot).is_ok());
        if apart.is_some_and(|group| group.disks().all(|disk| disk != item.disk)) {
            self.abandon(tx, item.group, item.slot, &[item.disk])?;
        }
        Ok(())
    }

    fn mark<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        item: &Item,
        mask: impl Fn(u32) -> u32,
    ) -> Result<bool, Error> {
        let row = tx.row::<wire::ExtentRow>(t::EXTENTS, &t::extent_key(item.group, item.extent))?;
        let Some(row) = row.filter(|row| mask(row.missing) != row.missing) else { return Ok(false) };
        let missing = mask(row.missing);
        self.set_missing(tx, item.group, item.extent, row, missing)?;
        Ok(true)
    }

    /// True when the map has changed.
    fn rebuilt<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, item: &Item) -> Result<bool, Error> {
        let Some((group, slot)) = self.slot_in_epoch(item) else { return Ok(false) };
        if slot.state == SlotState::Whole {
            return Ok(false);
        }
        let (source, task) = (slot.source(), slot.task);
        let whole = slot_rebuilt(group, item.slot).map_err(broken)?;
        self.put_group(tx, whole).map_err(broken)?;
        self.abandon(tx, item.group, item.slot, source.as_slice())?;
        if let Some(task) = task {
            self.count_moved(tx, task, item.group);
        }
        Ok(true)
    }

    /// The slot, if it was on the item's disk at the item's epoch, and has been since.
    fn slot_in_epoch(&self, item: &Item) -> Option<(&Group, &Slot)> {
        let group = self.map.groups().get(&item.group)?;
        let slot = group.slot(item.slot).ok()?;
        let fits = slot.disk == item.disk && slot.since_epoch <= item.epoch && item.epoch <= group.epoch;
        fits.then_some((group, slot))
    }
}

fn parse<T>(items: Vec<T>) -> Result<Vec<Item>, Error>
where
    Item: TryFrom<T, Error = Error>,
{
    items.into_iter().map(Item::try_from).collect()
}

impl TryFrom<wire::DropExtent> for Item {
    type Error = Error;

    fn try_from(drop: wire::DropExtent) -> Result<Self, Error> {
        let extent = if drop.extent.is_empty() { t::WHOLE_SLOT } else { named_extent(&drop.extent)? };
        Ok(Self {
            group: GroupId(drop.group),
            extent,
            slot: wire::slot_index(drop.slot)?,
            disk: DiskId(drop.disk),
            epoch: Epoch(drop.epoch),
        })
    }
}

impl TryFrom<wire::SlotFilled> for Item {
    type Error = Error;

    fn try_from(filled: wire::SlotFilled) -> Result<Self, Error> {
        Ok(Self {
            group: GroupId(filled.group),
            extent: named_extent(&filled.extent)?,
            slot: wire::slot_index(filled.slot)?,
            disk: DiskId(filled.disk),
            epoch: Epoch(filled.epoch),
        })
    }
}

impl TryFrom<wire::SlotRebuilt> for Item {
    type Error = Error;

    fn try_from(rebuilt: wire::SlotRebuilt) -> Result<Self, Error> {
        Ok(Self {
            group: GroupId(rebuilt.group),
            extent: t::WHOLE_SLOT,
            slot: wire::slot_index(rebuilt.slot)?,
            disk: DiskId(rebuilt.disk),
            epoch: Epoch(rebuilt.epoch),
        })
    }
}

fn named_extent(bytes: &[u8]) -> Result<ExtentId, Error> {
    match ExtentId::from_wire(bytes)? {
        t::WHOLE_SLOT => Err(invalid("a report names extent 0; leave the extent out to name a whole slot")),
        extent => Ok(extent),
    }
}
