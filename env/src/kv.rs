//! Key-value stores.

mod memory;

use std::future::Future;

use bytes::Bytes;

use crate::storage::StorageError;

pub use memory::MemoryKv;

/// The name of a table (a column family).
pub type Table = &'static str;

/// A key and its value.
pub type Row = (Bytes, Bytes);

/// The key-value stores of a host, each under a name of its own.
pub trait Kvs: Clone + Send + Sync + 'static {
    /// One store.
    type Kv: Kv;

    /// Opens a store with these tables, making what does not exist, and keeps others out until the
    /// last clone is dropped. `name` is of `a-z 0-9 -`.
    ///
    /// # Errors
    ///
    /// `Locked` when somebody has it open, this process included; `Corrupt`, `Full`, `Io`.
    fn open(
        &self,
        name: &str,
        tables: &[Table],
    ) -> impl Future<Output = Result<Self::Kv, StorageError>> + Send;

    /// The names of all stores, checkpoints included, in byte order.
    ///
    /// # Errors
    ///
    /// `Io`.
    fn list(&self) -> impl Future<Output = Result<Vec<String>, StorageError>> + Send;

    /// Removes a store that nobody has open. What does not exist is removed already.
    ///
    /// # Errors
    ///
    /// `Locked`, `Io`.
    fn remove(&self, name: &str) -> impl Future<Output = Result<(), StorageError>> + Send;
}

/// Reads of a store.
///
/// # Contract
///
/// Every read sees each batch whole or not at all, and all that was written before it began. Reads
/// may wait for a disk, briefly.
pub trait KvRead {
    /// The value of a key.
    ///
    /// # Errors
    ///
    /// `Corrupt`, `Io`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// Up to `limit` rows of a range, in byte order of the keys, or the reverse. All are of one
    /// point in time.
    ///
    /// # Errors
    ///
    /// `Corrupt`, `Io`.
    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError>;
}

/// One store. Clones are the same store.
///
/// # Contract
///
/// - A batch is written whole or not at all, and batches take effect in the order of the calls.
/// - A crash keeps a prefix of the batches, not shorter than what the last
///   [`flush`](Kv::flush) that succeeded covers.
pub trait Kv: KvRead + Clone + Send + Sync + 'static {
    /// Writes a batch: visible at once, durable after the next [`flush`](Kv::flush). May wait for a
    /// disk, briefly.
    ///
    /// # Errors
    ///
    /// `Full`, `Io`: nothing of the batch is visible.
    fn write(&self, batch: Batch) -> Result<(), StorageError>;

    /// Makes durable all batches that were written before this began. Calls under way together may
    /// share one flush of the device.
    ///
    /// # Errors
    ///
    /// `Full`, `Io`; then nothing since the last success may be relied on.
    fn flush(&self) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Makes a durable copy of this moment, a store of its own under `name`, at little cost. It
    /// appears whole or not at all.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`, `Full`, `Io`.
    fn checkpoint(&self, name: &str) -> impl Future<Output = Result<(), StorageError>> + Send;
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the smallest key.
    Ascending,
    /// From the largest key.
    Descending,
}

/// A range of keys, `start` inclusive, `end` exclusive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub start: Vec<u8>,
    /// The first key beyond; none for the table's end.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// All keys.
    pub fn all() -> Self {
        Self::default()
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { start: prefix.to_vec(), end: successor_of_prefix(prefix) }
    }

    /// The part of this range beyond `key`.
    #[must_use]
    pub fn after(self, key: &[u8]) -> Self {
        let mut start = key.to_vec();
        start.push(0);
        Self { start: start.max(self.start), end: self.end }
    }

    /// The part of this range from `key` on.
    #[must_use]
    pub fn from(self, key: &[u8]) -> Self {
        Self { start: key.to_vec().max(self.start), end: self.end }
    }

    /// Does the range hold `key`?
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && self.end.as_deref().is_none_or(|end| key < end)
    }
}

/// The smallest key above all that begin with `prefix`; none when there is no such key.
pub fn successor_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end)
}

/// Changes that take effect together, in order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: Vec<Change>,
}

/// One change of a batch.
#[derive(Clone, Debug)]
pub enum Change {
    /// Sets a key's value.
    Put(Table, Bytes, Bytes),
    /// Removes a key.
    Delete(Table, Bytes),
    /// Removes all keys of a range.
    DeleteRange(Table, KeyRange),
}

impl Batch {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key's value.
    pub fn put(&mut self, table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.changes.push(Change::Put(table, key.into(), value.into()));
    }

    /// Removes a key; nothing happens when there is none.
    pub fn delete(&mut self, table: Table, key: impl Into<Bytes>) {
        self.changes.push(Change::Delete(table, key.into()));
    }

    /// Removes all keys of a range.
    pub fn delete_range(&mut self, table: Table, range: KeyRange) {
        self.changes.push(Change::DeleteRange(table, range));
    }

    /// True when it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes, in order.
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// A prefix range holds exactly the keys that begin with the prefix.
        #[test]
        fn prefix_range_is_exact(prefix: Vec<u8>, key: Vec<u8>, tail: Vec<u8>) {
            let range = KeyRange::prefix(&prefix);
            assert_eq!(range.contains(&key), key.starts_with(&prefix));
            assert!(range.contains(&[prefix.clone(), tail].concat()));
        }
    }
}
