//! Typed rows over a store and its pending changes.

use bytes::Bytes;
use env::{KeyRange, KvRead, Order, Row, StorageError, Table};
use proto::prost::Message;
use proto::{Timestamp, Version};

use crate::state::error::corrupt;
use crate::state::pending::{Overlay, Pending};

/// Rows read at once where a whole range is walked.
pub(crate) const CHUNK: usize = 1024;

/// One command's view: it reads what is written and pending, and adds to the latter.
pub(crate) struct Tx<'a, K> {
    kv: &'a K,
    pending: &'a mut Pending,
    /// The version that the command makes: its place in the log.
    pub(crate) version: Version,
    /// Cluster time.
    pub(crate) now: Timestamp,
}

impl<'a, K: KvRead> Tx<'a, K> {
    pub(crate) fn new(kv: &'a K, pending: &'a mut Pending, index: u64, now: Timestamp) -> Self {
        Self { kv, pending, version: Version(index), now }
    }

    /// What is written and pending.
    pub(crate) fn view(&self) -> Overlay<'_, K> {
        self.pending.over(self.kv)
    }

    pub(crate) fn row<M: Message + Default>(
        &self,
        table: Table,
        key: &[u8],
    ) -> Result<Option<M>, StorageError> {
        row(&self.view(), table, key)
    }

    pub(crate) fn put(&mut self, table: Table, key: Bytes, row: &impl Message) {
        self.put_bytes(table, key, row.encode_to_vec().into());
    }

    pub(crate) fn put_bytes(&mut self, table: Table, key: Bytes, value: Bytes) {
        self.pending.set(table, key, Some(value));
    }

    pub(crate) fn delete(&mut self, table: Table, key: Bytes) {
        self.pending.set(table, key, None);
    }

    pub(crate) fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        self.view().scan(table, range, Order::Ascending, limit)
    }
}

/// A row, if there is one.
pub(crate) fn row<M: Message + Default>(
    kv: &impl KvRead,
    table: Table,
    key: &[u8],
) -> Result<Option<M>, StorageError> {
    kv.get(table, key)?.map(|value| decode(table, value)).transpose()
}

/// The message in a row's value.
pub(crate) fn decode<M: Message + Default>(table: Table, value: Bytes) -> Result<M, StorageError> {
    M::decode(value).map_err(|error| corrupt(format!("a row of {table} does not parse")).because(error))
}

/// Calls `visit` with each row of `range`, in order, a chunk at a time.
pub(crate) fn for_each_row(
    kv: &impl KvRead,
    table: Table,
    mut range: KeyRange,
    mut visit: impl FnMut(Bytes, Bytes) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    loop {
        let rows = kv.scan(table, &range, Order::Ascending, CHUNK)?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        range = range.after(last);
        let full = rows.len() >= CHUNK;
        for (key, value) in rows {
            visit(key, value)?;
        }
        if !full {
            return Ok(());
        }
    }
}
