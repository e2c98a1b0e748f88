//! A store in memory for the tests of the state machine: no faults, one owner, cheap to compare.

use std::collections::BTreeMap;

use bytes::Bytes;
use env::kv::Change;
use env::{Batch, KeyRange, KvRead, Order, Row, StorageError, Table};

/// Rows by table. A table without rows is as good as none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TestKv {
    pub(crate) tables: BTreeMap<Table, BTreeMap<Bytes, Bytes>>,
}

impl TestKv {
    pub(crate) fn write(&mut self, batch: Batch) {
        for change in batch.into_changes() {
            match change {
                Change::Put(table, key, value) => {
                    self.tables.entry(table).or_default().insert(key, value);
                }
                Change::Delete(table, key) => {
                    self.tables.entry(table).or_default().remove(&key);
                }
                Change::DeleteRange(table, range) => {
                    self.tables.entry(table).or_default().retain(|key, _| !range.contains(key));
                }
            }
        }
        self.tables.retain(|_, rows| !rows.is_empty());
    }
}

impl KvRead for TestKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.tables.get(table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        let rows = self.tables.get(table).into_iter().flatten();
        let found = rows.filter(|(key, _)| range.contains(key)).map(|(k, v)| (k.clone(), v.clone()));
        Ok(match order {
            Order::Ascending => found.take(limit).collect(),
            Order::Descending => found.collect::<Vec<_>>().into_iter().rev().take(limit).collect(),
        })
    }
}
