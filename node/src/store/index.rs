//! Where each shard of a disk lies: a copy of what the log says, in a key-value store of the node.
//!
//! Promised: changes that are applied together are there together, before a crash and after it; listings
//! come in the order of names and read pages of bounded length; in memory are the segments, never the
//! shards. Live bytes and shards of a segment are always those of the rows that point into it. After a
//! crash a prefix of the changes is there, and the position in it says how far it goes.
//!
//! Left to others: making the log durable first (the writer), reading it again from the position on
//! (replay), and making the index anew when it does not fit (rebuild). Nothing here flushes on its own.

mod changes;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod list;
mod memory;
mod problem;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use env::{Batch, KeyRange, Kv, StorageError, Table};
use proto::ShardName;

use super::record::{Realm, SegmentId};
use memory::{Memory, Step};
use rows::{DISK_KEY, FORMAT_KEY, LOG, POSITION_KEY, SEGMENTS, SHARDS};

pub(crate) use changes::Changes;
pub(crate) use list::{peek_extent, peek_position, peek_segment};
pub(crate) use problem::IndexProblem;
pub(crate) use rows::{Location, Position, SegmentRow, SegmentState};

/// The tables of the store, to open it with.
pub const TABLES: &[Table] = &[SHARDS, SEGMENTS, LOG];

/// The index of one disk.
pub(crate) struct Index<K> {
    kv: K,
    realm: Realm,
    segment_bytes: u64,
    /// Held by whoever changes the index, so that what was read of it still holds when it is written.
    turn: Mutex<()>,
    memory: Mutex<Memory>,
}

/// An index, and how far it goes.
pub(crate) struct Loaded<K> {
    /// The index.
    pub(crate) index: Index<K>,
    /// Where to go on in the log; none when the index is empty and the log may not be.
    pub(crate) position: Option<Position>,
}

impl<K: Kv> Index<K> {
    /// Takes up what a store has. Reads the segments and never the shards.
    ///
    /// A store without a position, be it new or left by a rebuild that did not come to its end, is emptied.
    ///
    /// # Errors
    ///
    /// When it is of another disk, or cannot be what was written: then [`Index::create`].
    pub(crate) fn load(kv: K, realm: &Realm, segment_bytes: u64) -> Result<Loaded<K>, IndexProblem> {
        rows::check_segment_bytes(segment_bytes)?;
        let Some(position) = stored_position(&kv, realm, segment_bytes)? else {
            return Ok(Loaded { index: Self::create(kv, realm, segment_bytes)?, position: None });
        };
        let memory = Memory::load(&kv, position, segment_bytes)?;
        let index = Self::new(kv, realm, segment_bytes, memory);
        Ok(Loaded { index, position: Some(position) })
    }

    /// An empty index of this disk, whatever the store has: all of it is removed.
    ///
    /// # Errors
    ///
    /// When the store fails, or no segment can have this size.
    pub(crate) fn create(kv: K, realm: &Realm, segment_bytes: u64) -> Result<Self, IndexProblem> {
        rows::check_segment_bytes(segment_bytes)?;
        let index = Self::new(kv, realm, segment_bytes, Memory::default());
        index.wipe()?;
        Ok(index)
    }

    fn new(kv: K, realm: &Realm, segment_bytes: u64, memory: Memory) -> Self {
        let (turn, memory) = (Mutex::new(()), Mutex::new(memory));
        Self { kv, realm: *realm, segment_bytes, turn, memory }
    }

    /// Removes everything but which disk it is of.
    ///
    /// # Errors
    ///
    /// When the store fails; then nothing is removed.
    pub(crate) fn wipe(&self) -> Result<(), IndexProblem> {
        let _turn = lock(&self.turn);
        let mut batch = Batch::new();
        TABLES.iter().for_each(|table| batch.delete_range(table, KeyRange::all()));
        batch.put(LOG, FORMAT_KEY, rows::FORMAT.to_le_bytes().to_vec());
        batch.put(LOG, DISK_KEY, rows::encode_disk(&self.realm, self.segment_bytes));
        self.kv.write(batch)?;
        *lock(&self.memory) = Memory::default();
        Ok(())
    }

    /// Where a shard lies.
    ///
    /// # Errors
    ///
    /// When the store fails, or the row cannot be what was written.
    pub(crate) fn get(&self, name: &ShardName) -> Result<Option<Location>, IndexProblem> {
        let value = self.kv.get(SHARDS, &rows::shard_key(name))?;
        value.map(|value| Location::decode(&value, self.segment_bytes)).transpose()
    }

    /// Makes all changes, in one batch: visible at once, durable after the next [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// When the store fails, or the outcome could not be loaded again: a shard in a segment that is unknown,
    /// free or removed, more in a segment than fits, an incarnation lower than before, a position outside the
    /// log, before the one that there was, or before a shard. Then nothing has changed.
    pub(crate) fn apply(&self, changes: Changes) -> Result<(), IndexProblem> {
        let _turn = lock(&self.turn);
        let mut before = BTreeMap::new();
        for name in changes.shards.keys() {
            if let Some(location) = self.get(name)? {
                before.insert(*name, location);
            }
        }
        self.step(&before, &changes)
    }

    /// As [`apply`](Self::apply), by the only one who changes the index, who knows `before`: the rows that there are
    /// of the shards that change.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply).
    pub(crate) fn apply_over(
        &self,
        before: &BTreeMap<ShardName, Location>,
        changes: &Changes,
    ) -> Result<(), IndexProblem> {
        let _turn = lock(&self.turn);
        self.step(before, changes)
    }

    fn step(&self, before: &BTreeMap<ShardName, Location>, changes: &Changes) -> Result<(), IndexProblem> {
        let step = lock(&self.memory).plan(changes, before, self.segment_bytes)?;
        let batch = self.batch(changes, before, &step)?;
        if !batch.is_empty() {
            self.kv.write(batch)?;
            lock(&self.memory).take(step);
        }
        Ok(())
    }

    fn batch(
        &self,
        changes: &Changes,
        before: &BTreeMap<ShardName, Location>,
        step: &Step,
    ) -> Result<Batch, IndexProblem> {
        let mut batch = Batch::new();
        for (name, after) in &changes.shards {
            match after {
                Some(location) => {
                    batch.put(SHARDS, rows::shard_key(name), location.encode(self.segment_bytes)?);
                }
                None if before.contains_key(name) => batch.delete(SHARDS, rows::shard_key(name)),
                None => {}
            }
        }
        for (segment, row) in &step.segments {
            let key = rows::segment_key(*segment).to_vec();
            match row {
                Some(row) => batch.put(SEGMENTS, key, row.encode(self.segment_bytes)?),
                None => batch.delete(SEGMENTS, key),
            }
        }
        if let Some(position) = &changes.position {
            batch.put(LOG, POSITION_KEY, position.encode());
        }
        Ok(batch)
    }

    /// Makes durable what was applied before this began.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub(crate) async fn flush(&self) -> Result<(), StorageError> {
        self.kv.flush().await
    }

    /// Up to where the index has everything; none before the first.
    pub(crate) fn position(&self) -> Option<Position> {
        lock(&self.memory).position
    }

    /// Bytes of all records to which a row points.
    pub(crate) fn used_bytes(&self) -> u64 {
        lock(&self.memory).totals.used_bytes
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> u64 {
        lock(&self.memory).totals.shards
    }

    /// One segment; none when nobody has told of it.
    pub(crate) fn segment(&self, segment: SegmentId) -> Option<SegmentRow> {
        lock(&self.memory).segments.get(&segment).copied()
    }

    /// All segments, as they are now.
    pub(crate) fn segments(&self) -> BTreeMap<SegmentId, SegmentRow> {
        lock(&self.memory).segments.clone()
    }
}

/// The position in a store of this disk; none in one that is new, or never came to one.
fn stored_position<K: Kv>(
    kv: &K,
    realm: &Realm,
    segment_bytes: u64,
) -> Result<Option<Position>, IndexProblem> {
    let disk = kv.get(LOG, DISK_KEY)?;
    let position = kv.get(LOG, POSITION_KEY)?;
    match kv.get(LOG, FORMAT_KEY)? {
        Some(format) => rows::check_format(&format)?,
        None if disk.is_none() && position.is_none() => return Ok(None),
        None => return Err(IndexProblem::Missing { row: "format" }),
    }
    let disk = disk.ok_or(IndexProblem::Missing { row: "disk" })?;
    rows::check_disk(&disk, realm, segment_bytes)?;
    position.map(|value| Position::decode(&value)).transpose()
}

// Each change of what is guarded is whole: a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
