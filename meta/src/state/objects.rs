//! What puts and deletes share: the old version goes, the counters follow.

use bytes::Bytes;
use env::{KvRead, StorageError};
use placement::Group;
use proto::{BucketId, ExtentId, GroupId, SlotIndex, wire};

use crate::state::error::{Error, corrupt};
use crate::state::{Machine, Tx, tables as t};

/// An object's row with its key.
pub(super) struct Found {
    pub(super) table_key: Bytes,
    pub(super) row: Option<wire::ObjectRow>,
}

impl Found {
    pub(super) fn read<K: KvRead>(
        tx: &Tx<'_, K>,
        bucket: BucketId,
        key: &[u8],
    ) -> Result<Self, StorageError> {
        let table_key = t::object_key(bucket, key);
        let row = tx.row(t::OBJECTS, &table_key)?;
        Ok(Self { table_key, row })
    }

    pub(super) fn version(&self) -> Option<u64> {
        self.row.as_ref().map(|row| row.version)
    }
}

impl Machine {
    /// Counts an object that replaces, or is replaced by, nothing.
    pub(super) fn count_object<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        bucket: BucketId,
        before: Option<u64>,
        after: Option<u64>,
    ) -> Result<(), Error> {
        let row = self.buckets.get_mut(&bucket);
        let row = row.ok_or_else(|| corrupt(format!("bucket {bucket} is not in memory")))?;
        for (objects, bytes) in
            [(&mut row.objects, &mut row.bytes), (&mut self.totals.objects, &mut self.totals.object_bytes)]
        {
            *objects = changed(*objects, before.map(|_| 1), after.map(|_| 1));
            *bytes = changed(*bytes, before, after);
        }
        tx.put(t::BUCKETS, t::number_key(bucket.0), row);
        Ok(())
    }

    /// Moves the extents of a version that nobody can reach any more to the garbage.
    pub(super) fn retire<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        row: &wire::ObjectRow,
    ) -> Result<(), Error> {
        for extent in &row.extents {
            let group = GroupId(extent.group);
            let id = ExtentId::from_wire(&extent.id).map_err(|e| corrupt("an object's extent").because(e))?;
            self.retire_extent(tx, group, id)?;
        }
        Ok(())
    }

    fn retire_extent<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        id: GroupId,
        extent: ExtentId,
    ) -> Result<(), Error> {
        let key = t::extent_key(id, extent);
        let row: Option<wire::ExtentRow> = tx.row(t::EXTENTS, &key)?;
        let row = row.ok_or_else(|| corrupt(format!("extent {extent} of group {id} has no row")))?;
        let group = self.map.groups().get(&id).ok_or_else(|| corrupt(format!("group {id} is unknown")))?;
        let slots = garbage_slots(group);
        self.work.missing(group, row.missing, 0);
        self.work.garbage(id, &[], &slots);
        self.count_missing(row.missing, 0);
        self.totals.extents = self.totals.extents.saturating_sub(1);
        self.totals.garbage_extents = self.totals.garbage_extents.saturating_add(1);
        self.count_bytes(tx, id, row.length, 0);
        if row.missing != 0 {
            tx.delete(t::INCOMPLETE, key.clone());
        }
        tx.delete(t::EXTENTS, key.clone());
        let garbage = wire::GarbageRow { length: row.length, slots, deleted_ms: tx.now.as_millis() };
        tx.put(t::GARBAGE, key, &garbage);
        Ok(())
    }

    /// Sets the mask of an extent that exists, in both tables and all counters.
    pub(super) fn set_missing<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        group: GroupId,
        extent: ExtentId,
        row: wire::ExtentRow,
        missing: u32,
    ) -> Result<(), Error> {
        let known =
            self.map.groups().get(&group).ok_or_else(|| corrupt(format!("group {group} is unknown")))?;
        self.work.missing(known, row.missing, missing);
        self.count_missing(row.missing, missing);
        let key = t::extent_key(group, extent);
        if missing == 0 {
            tx.delete(t::INCOMPLETE, key.clone());
        } else {
            tx.put_bytes(t::INCOMPLETE, key.clone(), t::mask_value(missing));
        }
        tx.put(t::EXTENTS, key, &wire::ExtentRow { missing, ..row });
        Ok(())
    }

    pub(super) fn count_missing(&mut self, before: u32, after: u32) {
        let is_incomplete = |mask: u32| Some(u64::from(mask != 0));
        let slots = |mask: u32| Some(u64::from(mask.count_ones()));
        let totals = &mut self.totals;
        totals.extents_incomplete =
            changed(totals.extents_incomplete, is_incomplete(before), is_incomplete(after));
        totals.slots_missing = changed(totals.slots_missing, slots(before), slots(after));
    }
}

fn changed(count: u64, before: Option<u64>, after: Option<u64>) -> u64 {
    count.saturating_add(after.unwrap_or_default()).saturating_sub(before.unwrap_or_default())
}

/// Every disk that may have a shard of the group's extents: those of the slots, and the sources of moves.
fn garbage_slots(group: &Group) -> Vec<wire::GarbageSlot> {
    let places = group.slots.iter().enumerate().flat_map(|(place, slot)| {
        let slot_index = SlotIndex(u8::try_from(place).unwrap_or(u8::MAX));
        std::iter::once(slot.disk).chain(slot.source()).map(move |disk| (slot_index, disk))
    });
    places.map(|(slot, disk)| wire::GarbageSlot { slot: u32::from(slot.0), disk: disk.0 }).collect()
}
