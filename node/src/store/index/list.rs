//! Listings of shards: pages of bounded length, one after another, each of its own moment.
//!
//! A shard that is there from the beginning to the end of a listing is in it, also when compaction moves
//! it meanwhile; one that comes or goes may be in it or not. A row that cannot be a shard's
//! ends the listing.

use std::collections::BTreeMap;

use env::kv::successor_of_prefix;
use env::{KeyRange, Kv, KvRead, Order, Row, StorageError, Table};
use proto::{ExtentId, GroupId, ShardName, SlotIndex, StripeIndex};

use super::Index;
use super::problem::IndexProblem;
use super::rows::{self, LOG, Location, POSITION_KEY, Position, SEGMENTS, SHARDS, SegmentRow};
use crate::store::Held;
use crate::store::record::SegmentId;

/// Rows read at once.
pub(super) const PAGE_ROWS: usize = 1024;

/// What a store that is somebody's index has of an extent, and where.
///
/// # Errors
///
/// When it cannot be read, or a row cannot be what was written.
pub(crate) fn peek_extent<K: KvRead>(
    kv: &K,
    group: GroupId,
    extent: ExtentId,
) -> Result<Vec<(ShardName, Location)>, IndexProblem> {
    let range = KeyRange::prefix(&rows::extent_key(group, extent));
    let rows = Pages::new(kv, SHARDS, range).map(|row| {
        let (key, value) = row?;
        Ok((rows::parse_shard_key(&key)?, Location::decode(&value, u64::MAX)?))
    });
    rows.collect()
}

/// What a store that is somebody's index has of a segment.
///
/// # Errors
///
/// As [`peek_extent`].
pub(crate) fn peek_segment<K: KvRead>(
    kv: &K,
    segment: SegmentId,
) -> Result<Option<SegmentRow>, IndexProblem> {
    let row = kv.get(SEGMENTS, &rows::segment_key(segment))?;
    row.map(|row| SegmentRow::decode(&row, u64::MAX)).transpose()
}

/// How far a store that is somebody's index goes.
///
/// # Errors
///
/// As [`peek_extent`].
pub(crate) fn peek_position<K: KvRead>(kv: &K) -> Result<Option<Position>, IndexProblem> {
    kv.get(LOG, POSITION_KEY)?.map(|row| Position::decode(&row)).transpose()
}

impl<K: Kv> Index<K> {
    /// At most `limit` shards of `group` after `after`, in order, of which `wanted` says yes.
    pub(crate) fn of_group(
        &self,
        group: GroupId,
        after: Option<ShardName>,
        limit: usize,
        wanted: impl Fn(&ShardName) -> bool,
    ) -> Result<Vec<ShardName>, IndexProblem> {
        let range = KeyRange::prefix(&rows::group_key(group));
        // A cursor from elsewhere never widens the range.
        let range = match after {
            Some(after) => range.after(&rows::shard_key(&after)),
            None => range,
        };
        self.in_range(range, limit, wanted)
    }

    /// At most `limit` shards of an extent.
    pub(crate) fn of_extent(
        &self,
        group: GroupId,
        extent: ExtentId,
        limit: usize,
        wanted: impl Fn(&ShardName) -> bool,
    ) -> Result<Vec<ShardName>, IndexProblem> {
        self.in_range(KeyRange::prefix(&rows::extent_key(group, extent)), limit, wanted)
    }

    /// The groups of which there are shards, in order. Reads one row of each.
    pub(crate) fn groups(&self) -> Result<Vec<GroupId>, IndexProblem> {
        let mut groups = Vec::new();
        let mut next = Some(Vec::new());
        while let Some(start) = next {
            let range = KeyRange { start, end: None };
            let Some((key, _)) = self.kv.scan(SHARDS, &range, Order::Ascending, 1)?.pop() else { break };
            let group = rows::parse_shard_key(&key)?.group;
            groups.push(group);
            next = successor_of_prefix(&rows::group_key(group));
        }
        Ok(groups)
    }

    /// What there is of the group's extents after `after` and up to `through`, by extent and slot; ends at
    /// the end of the extent with which it reaches `shards_max` shards. Also whether there is more.
    pub(crate) fn held(
        &self,
        group: GroupId,
        after: Option<ExtentId>,
        through: ExtentId,
        shards_max: usize,
    ) -> Result<(Vec<Held>, bool), IndexProblem> {
        if after.is_some_and(|after| after >= through) {
            return Ok((Vec::new(), false));
        }
        // The extent after `after`: there is one, since `through` is beyond it.
        let first = after.map_or(0, |after| after.0.saturating_add(1));
        let range = KeyRange {
            start: rows::extent_key(group, ExtentId(first)),
            end: successor_of_prefix(&rows::extent_key(group, through)),
        };
        let mut held: BTreeMap<(ExtentId, SlotIndex), Vec<StripeIndex>> = BTreeMap::new();
        let (mut shards, mut current, mut more) = (0, None, false);
        for name in self.names(range, shards_max.saturating_add(1)) {
            let name = name?;
            if shards >= shards_max && current != Some(name.extent) {
                more = true;
                break;
            }
            held.entry((name.extent, name.slot)).or_default().push(name.stripe);
            (shards, current) = (shards + 1, Some(name.extent));
        }
        let held = held.into_iter().map(|((extent, slot), stripes)| Held { extent, slot, stripes });
        Ok((held.collect(), more))
    }

    /// At most `limit` shards that lie in a segment, whichever they are. Unless none does, this may read the
    /// whole table, page by page.
    pub(crate) fn shards_in(&self, segment: SegmentId, limit: usize) -> Result<Vec<ShardName>, IndexProblem> {
        let live = self.segment(segment).map_or(0, |row| row.live_shards);
        let limit = limit.min(usize::try_from(live).unwrap_or(usize::MAX));
        if limit == 0 {
            return Ok(Vec::new());
        }
        let lies_there = |row: Result<Row, StorageError>| {
            let (key, value) = row?;
            let location = Location::decode(&value, self.segment_bytes)?;
            let name = rows::parse_shard_key(&key)?;
            Ok(Some(name).filter(|_| location.segment == segment))
        };
        let names = Pages::new(&self.kv, SHARDS, KeyRange::all()).map(lies_there);
        names.filter_map(Result::transpose).take(limit).collect()
    }

    fn in_range(
        &self,
        range: KeyRange,
        limit: usize,
        wanted: impl Fn(&ShardName) -> bool,
    ) -> Result<Vec<ShardName>, IndexProblem> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // Damage is told of, also where nobody wants the shard.
        let names = self.names(range, limit);
        names.filter(|name| name.as_ref().map_or(true, &wanted)).take(limit).collect()
    }

    fn names(
        &self,
        range: KeyRange,
        expected: usize,
    ) -> impl Iterator<Item = Result<ShardName, IndexProblem>> {
        Pages { page: expected.clamp(1, PAGE_ROWS), ..Pages::new(&self.kv, SHARDS, range) }
            .map(|row| rows::parse_shard_key(&row?.0))
    }
}

/// The rows of a range, in order, read page by page. Ends after an error.
pub(super) struct Pages<'a, K> {
    kv: &'a K,
    table: Table,
    /// What is still to be read; none when nothing is.
    range: Option<KeyRange>,
    /// Rows of the next page: the first may be shorter, for callers who want little.
    page: usize,
    rows: std::vec::IntoIter<Row>,
}

impl<'a, K: KvRead> Pages<'a, K> {
    pub(super) fn new(kv: &'a K, table: Table, range: KeyRange) -> Self {
        Self { kv, table, range: Some(range), page: PAGE_ROWS, rows: Vec::new().into_iter() }
    }

    fn read(&mut self) -> Result<(), StorageError> {
        let Some(range) = self.range.take() else { return Ok(()) };
        // A cursor may lie beyond the range: then nothing is asked for.
        if range.end.as_ref().is_some_and(|end| range.start >= *end) {
            return Ok(());
        }
        let rows = self.kv.scan(self.table, &range, Order::Ascending, self.page)?;
        if rows.len() >= self.page {
            self.range = rows.last().map(|(key, _)| range.after(key));
        }
        self.page = PAGE_ROWS;
        self.rows = rows.into_iter();
        Ok(())
    }
}

impl<K: KvRead> Iterator for Pages<'_, K> {
    type Item = Result<Row, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(row) = self.rows.next() {
            return Some(Ok(row));
        }
        if let Err(error) = self.read() {
            return Some(Err(error));
        }
        self.rows.next().map(Ok)
    }
}
