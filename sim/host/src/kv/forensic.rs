//! A store as it lies there, for checkers.

use bytes::Bytes;
use env::{KeyRange, KvRead, Order, Row, StorageError, Table};

use super::tables::Tables;

/// What a store held when this was taken: what the host's processes saw last, durable or not. Later
/// changes do not show in it.
#[derive(Clone, Debug)]
pub struct ForensicKv(pub(super) Tables);

impl KvRead for ForensicKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.0.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        self.0.scan(table, range, order, limit)
    }
}
