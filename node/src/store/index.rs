//! Which shards a disk has, in memory, and what room they take.

use std::collections::BTreeMap;
use std::ops::Bound::{self, Unbounded};

use env::{Disk, DiskFile, Space};
use futures_util::{StreamExt, stream};
use proto::limits::SHARD_BYTES_MIN;
use proto::{ExtentId, GroupId, ShardName, SlotIndex, StripeIndex};
use tracing::warn;

use super::capacity;
use super::error::StoreError;
use super::record::{self, HEADER_BYTES};
use crate::superblock;

const PAGE_BYTES: u64 = HEADER_BYTES as u64;
const PAGES_MAX: u64 = 1 + proto::limits::SHARD_BYTES_MAX as u64 / PAGE_BYTES;
/// Files whose size is asked for at the same time when a disk is opened.
const OPENS_IN_FLIGHT: usize = 32;

/// Names of files on their way to become shards.
pub(super) const TEMPORARY_PREFIX: &str = "w-";

/// What is known of a shard without reading it: so little that tens of millions fit the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Pages of the file, header included; 0 when the file has a size that no shard has.
    pages: u16,
}

impl Entry {
    pub(super) fn of_file(file_bytes: u64) -> Self {
        let pages = file_bytes / PAGE_BYTES;
        let valid = file_bytes.is_multiple_of(PAGE_BYTES) && (2..=PAGES_MAX).contains(&pages);
        Self { pages: u16::try_from(pages).ok().filter(|_| valid).unwrap_or(0) }
    }

    /// Bytes of the file; `None` when it is damaged.
    pub(super) fn file_bytes(self) -> Option<u64> {
        (self.pages > 0).then(|| u64::from(self.pages) * PAGE_BYTES)
    }

    fn used(self) -> u64 {
        self.file_bytes().unwrap_or(0)
    }
}

/// The shards that a disk has of one slot of an extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The extent.
    pub extent: ExtentId,
    /// The slot.
    pub slot: SlotIndex,
    /// The stripes of which a shard is there, in order; never empty.
    pub stripes: Vec<StripeIndex>,
}

/// The shards, all durable, and the room they take.
#[derive(Debug)]
pub(super) struct Index {
    shards: BTreeMap<ShardName, Entry>,
    used_bytes: u64,
    /// Promised to writes under way.
    reserved_bytes: u64,
    limit_bytes: Option<u64>,
    /// As the disk said last, and what was written and removed since.
    space: Space,
    /// The write that did not fit; the disk counts as full until it would.
    refused_bytes: u64,
}

impl Index {
    pub(super) fn new(limit_bytes: Option<u64>, space: Space) -> Self {
        let shards = BTreeMap::new();
        Self { shards, used_bytes: 0, reserved_bytes: 0, limit_bytes, space, refused_bytes: 0 }
    }

    pub(super) fn get(&self, name: &ShardName) -> Option<Entry> {
        self.shards.get(name).copied()
    }

    pub(super) fn insert(&mut self, name: ShardName, entry: Entry) {
        self.used_bytes += entry.used();
        if let Some(before) = self.shards.insert(name, entry) {
            self.used_bytes -= before.used();
        }
    }

    pub(super) fn remove(&mut self, name: &ShardName) -> Option<Entry> {
        let entry = self.shards.remove(name)?;
        self.used_bytes -= entry.used();
        self.space.available_bytes += entry.used();
        Some(entry)
    }

    /// Puts back what could not be removed.
    pub(super) fn restore(&mut self, name: ShardName, entry: Entry) {
        self.space.available_bytes = self.space.available_bytes.saturating_sub(entry.used());
        self.insert(name, entry);
    }

    /// Promises room for a file.
    pub(super) fn reserve(&mut self, file_bytes: u64) -> Result<(), StoreError> {
        if !self.fits(file_bytes) {
            self.refused_bytes = file_bytes;
            return Err(StoreError::Full { used_bytes: self.used_bytes });
        }
        self.reserved_bytes += file_bytes;
        self.space.available_bytes -= file_bytes;
        Ok(())
    }

    /// The file became a shard.
    pub(super) fn settle(&mut self, name: ShardName, file_bytes: u64) {
        self.reserved_bytes -= file_bytes;
        self.insert(name, Entry::of_file(file_bytes));
    }

    /// The file did not become a shard.
    pub(super) fn release(&mut self, file_bytes: u64) {
        self.reserved_bytes -= file_bytes;
        self.space.available_bytes += file_bytes;
    }

    fn fits(&self, incoming: u64) -> bool {
        capacity::fits(self.limit_bytes, self.space, self.used_bytes + self.reserved_bytes, incoming)
    }

    pub(super) fn set_space(&mut self, space: Space) {
        self.space = space;
    }

    pub(super) fn capacity_bytes(&self) -> u64 {
        capacity::capacity(self.limit_bytes, self.space)
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub(super) fn len(&self) -> u64 {
        self.shards.len() as u64
    }

    /// Whether an ordinary write, or the one that was refused last, would not fit.
    pub(super) fn is_full(&self) -> bool {
        let smallest = PAGE_BYTES + SHARD_BYTES_MIN as u64;
        !self.fits(smallest.max(self.refused_bytes))
    }

    /// At most `limit` shards of `group` after `after`, in order, of which `wanted` says yes.
    pub(super) fn of_group(
        &self,
        group: GroupId,
        after: Option<ShardName>,
        limit: usize,
        wanted: impl Fn(&ShardName) -> bool,
    ) -> Vec<ShardName> {
        let first = ShardName { group, extent: ExtentId(0), stripe: StripeIndex(0), slot: SlotIndex(0) };
        let last = last_of(group, ExtentId(u128::MAX));
        self.between(first, last, after, limit, wanted)
    }

    /// At most `limit` shards of an extent.
    pub(super) fn of_extent(
        &self,
        group: GroupId,
        extent: ExtentId,
        limit: usize,
        wanted: impl Fn(&ShardName) -> bool,
    ) -> Vec<ShardName> {
        let first = ShardName { group, extent, stripe: StripeIndex(0), slot: SlotIndex(0) };
        self.between(first, last_of(group, extent), None, limit, wanted)
    }

    /// The groups of which there are shards, in order.
    pub(super) fn groups(&self) -> Vec<GroupId> {
        let mut groups = Vec::new();
        let mut next = self.shards.first_key_value();
        while let Some((name, _)) = next {
            groups.push(name.group);
            next = self
                .shards
                .range((Bound::Excluded(last_of(name.group, ExtentId(u128::MAX))), Unbounded))
                .next();
        }
        groups
    }

    /// What there is of the group's extents after `after` and up to `through`, by extent and slot; ends at
    /// the end of the extent with which it reaches `shards_max` shards. Also whether there is more.
    pub(super) fn held(
        &self,
        group: GroupId,
        after: Option<ExtentId>,
        through: ExtentId,
        shards_max: usize,
    ) -> (Vec<Held>, bool) {
        let first = ShardName { group, extent: ExtentId(0), stripe: StripeIndex(0), slot: SlotIndex(0) };
        let start = after.map_or(Bound::Included(first), |after| Bound::Excluded(last_of(group, after)));
        if after.is_some_and(|after| after >= through) {
            return (Vec::new(), false);
        }
        let mut held: BTreeMap<(ExtentId, SlotIndex), Vec<StripeIndex>> = BTreeMap::new();
        let (mut shards, mut current, mut more) = (0, None, false);
        for (name, _) in self.shards.range((start, Bound::Included(last_of(group, through)))) {
            if shards >= shards_max && current != Some(name.extent) {
                more = true;
                break;
            }
            held.entry((name.extent, name.slot)).or_default().push(name.stripe);
            (shards, current) = (shards + 1, Some(name.extent));
        }
        let held = held.into_iter().map(|((extent, slot), stripes)| Held { extent, slot, stripes });
        (held.collect(), more)
    }

    fn between(
        &self,
        first: ShardName,
        last: ShardName,
        after: Option<ShardName>,
        limit: usize,
        wanted: impl Fn(&ShardName) -> bool,
    ) -> Vec<ShardName> {
        // A cursor from elsewhere never widens or inverts the range.
        let start = after.unwrap_or(first).clamp(first, last);
        self.shards
            .range(start..=last)
            .map(|(name, _)| *name)
            .filter(|name| after.is_none_or(|after| *name > after) && wanted(name))
            .take(limit)
            .collect()
    }
}

fn last_of(group: GroupId, extent: ExtentId) -> ShardName {
    ShardName { group, extent, stripe: StripeIndex(u32::MAX), slot: SlotIndex(u8::MAX) }
}

/// Fills `index` from the files of a disk, removes what an interrupted write left, and makes durable
/// what is found: after a crash of the process alone, names may be there that were never flushed.
pub(super) async fn load<D: Disk>(disk: &D, index: &mut Index) -> Result<(), StoreError> {
    let failed = |error| StoreError::failed(&error);
    let mut shards = Vec::new();
    for file in disk.list().await.map_err(failed)? {
        if let Some(name) = record::parse_file_name(&file) {
            shards.push((name, file));
        } else if file.as_str().starts_with(TEMPORARY_PREFIX) {
            disk.remove(&file).await.map_err(failed)?;
        } else if !superblock::is_superblock(&file) {
            warn!(%file, "file on a disk that is none of ours, left alone");
        }
    }
    let mut sizes = stream::iter(shards)
        .map(|(name, file)| async move {
            let size = async { disk.open(&file).await?.size().await };
            (name, size.await)
        })
        .buffered(OPENS_IN_FLIGHT);
    while let Some((name, size)) = sizes.next().await {
        // One unreadable file is damage, to be found again and repaired when it is read.
        let size = size.unwrap_or_else(|error| {
            warn!(shard = %name, %error, "shard's size cannot be read");
            0
        });
        index.insert(name, Entry::of_file(size));
    }
    disk.flush_names().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(group: u32, extent: u128, stripe: u32, slot: u8) -> ShardName {
        ShardName {
            group: GroupId(group),
            extent: ExtentId(extent),
            stripe: StripeIndex(stripe),
            slot: SlotIndex(slot),
        }
    }

    /// Only sizes that a shard's file can have make a readable entry.
    #[test]
    fn sizes_are_checked() {
        for (bytes, valid) in [
            (0, false),
            (4096, false),
            (8191, false),
            (8192, true),
            (4096 + (4 << 20), true),
            (8192 + (4 << 20), false),
            (u64::MAX, false),
        ] {
            assert_eq!(Entry::of_file(bytes).file_bytes(), valid.then_some(bytes), "{bytes}");
        }
    }

    /// Listings stay within their group and extent, whatever the cursor.
    #[test]
    fn ranges_are_kept() {
        let mut index = Index::new(None, Space { capacity_bytes: 0, available_bytes: 0 });
        let all = [name(1, 9, 0, 0), name(2, 0, 0, 0), name(2, 5, 0, 0), name(2, 5, 1, 23), name(3, 0, 0, 0)];
        all.iter().for_each(|name| index.insert(*name, Entry::of_file(8192)));
        let group = |after, limit| index.of_group(GroupId(2), after, limit, |_| true);
        assert_eq!(group(None, 9), all[1..4]);
        assert_eq!(group(None, 2), all[1..3]);
        assert_eq!(group(Some(all[1]), 9), all[2..4]);
        assert_eq!(group(Some(all[0]), 9), all[1..4]);
        assert_eq!(group(Some(all[4]), 9), []);
        assert_eq!(index.of_extent(GroupId(2), ExtentId(5), 9, |n| n.slot.0 == 23), all[3..4]);
        assert_eq!(index.used_bytes(), 5 * 8192);
    }

    /// What is held comes by group, extent and slot; a page ends with an extent, and the next goes on there.
    #[test]
    fn held_is_paged_by_extent() {
        let mut index = Index::new(None, Space { capacity_bytes: 0, available_bytes: 0 });
        let all = [
            name(1, u128::MAX, 0, 0),
            name(2, 0, 0, 0),
            name(2, 5, 0, 1),
            name(2, 5, 0, 2),
            name(2, 5, 1, 1),
            name(2, u128::MAX, 7, 0),
            name(9, 1, 0, 0),
        ];
        all.iter().for_each(|name| index.insert(*name, Entry::of_file(8192)));
        assert_eq!(index.groups(), [GroupId(1), GroupId(2), GroupId(9)]);
        let held = |extent, slot, stripes: &[u32]| Held {
            extent: ExtentId(extent),
            slot: SlotIndex(slot),
            stripes: stripes.iter().copied().map(StripeIndex).collect(),
        };
        let page = |after: Option<u128>, through, shards_max| {
            index.held(GroupId(2), after.map(ExtentId), ExtentId(through), shards_max)
        };
        let five = [held(5, 1, &[0, 1]), held(5, 2, &[0])];
        assert_eq!(page(None, u128::MAX, 1), (vec![held(0, 0, &[0])], true));
        assert_eq!(page(Some(0), u128::MAX, 1), (five.to_vec(), true));
        assert_eq!(page(Some(0), 5, 99), (five.to_vec(), false));
        assert_eq!(page(Some(5), u128::MAX, 1), (vec![held(u128::MAX, 0, &[7])], false));
        assert_eq!(page(Some(u128::MAX), u128::MAX, 1), (vec![], false));
        assert_eq!(index.held(GroupId(3), None, ExtentId(u128::MAX), 1), (vec![], false));
    }
}
