//! A key-value store in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Batch, Change, KeyRange, Kv, KvRead, Order, Row, Table};
use crate::storage::{StorageError, StorageErrorKind};

type Rows = BTreeMap<Bytes, Bytes>;

/// A store that is gone with its last clone: for what is needed for a moment and can be made again.
#[derive(Clone, Debug, Default)]
pub struct MemoryKv(Arc<Mutex<BTreeMap<Table, Rows>>>);

impl MemoryKv {
    /// Empty tables.
    pub fn new(tables: &[Table]) -> Self {
        Self(Arc::new(Mutex::new(tables.iter().map(|table| (*table, Rows::new())).collect())))
    }

    fn tables(&self) -> MutexGuard<'_, BTreeMap<Table, Rows>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_table(table: Table) -> StorageError {
    StorageError::new(StorageErrorKind::Invalid, format!("the store has no table {table}"))
}

impl KvRead for MemoryKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.tables().get(table).ok_or_else(|| no_table(table))?.get(key).cloned())
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        let tables = self.tables();
        let rows = tables.get(table).ok_or_else(|| no_table(table))?;
        let start = Bytes::copy_from_slice(&range.start);
        let end = range.end.as_deref().map(Bytes::copy_from_slice);
        if end.as_ref().is_some_and(|end| *end <= start) {
            return Ok(Vec::new());
        }
        let inside: Box<dyn DoubleEndedIterator<Item = _>> = match end {
            Some(end) => Box::new(rows.range(start..end)),
            None => Box::new(rows.range(start..)),
        };
        let row = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        Ok(match order {
            Order::Ascending => inside.take(limit).map(row).collect(),
            Order::Descending => inside.rev().take(limit).map(row).collect(),
        })
    }
}

impl Kv for MemoryKv {
    fn write(&self, batch: Batch) -> Result<(), StorageError> {
        let mut tables = self.tables();
        let changes = batch.into_changes();
        for change in &changes {
            let (Change::Put(table, ..) | Change::Delete(table, _) | Change::DeleteRange(table, _)) = change;
            tables.get(table).ok_or_else(|| no_table(table))?;
        }
        for change in changes {
            match change {
                Change::Put(table, key, value) => drop(tables.entry(table).or_default().insert(key, value)),
                Change::Delete(table, key) => drop(tables.entry(table).or_default().remove(&key)),
                Change::DeleteRange(table, range) => {
                    tables.entry(table).or_default().retain(|key, _| !range.contains(key));
                }
            }
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn checkpoint(&self, name: &str) -> Result<(), StorageError> {
        Err(StorageError::new(
            StorageErrorKind::Invalid,
            format!("{name}: a store in memory has no checkpoints"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table = "rows";

    fn keys(kv: &MemoryKv, range: &KeyRange, order: Order, limit: usize) -> Vec<u8> {
        let rows = kv.scan(TABLE, range, order, limit).unwrap();
        rows.iter().map(|(key, _)| key[0]).collect()
    }

    /// Batches take effect in order, scans keep range, order and limit, and a batch with a wrong table does nothing.
    #[test]
    fn keeps_rows() {
        let kv = MemoryKv::new(&[TABLE]);
        let mut batch = Batch::new();
        for key in 0..8_u8 {
            batch.put(TABLE, vec![key], vec![key + 100]);
        }
        batch.delete(TABLE, vec![2]);
        batch.delete_range(TABLE, KeyRange { start: vec![5], end: Some(vec![7]) });
        batch.put(TABLE, vec![5], vec![9]);
        kv.write(batch).unwrap();
        assert_eq!(keys(&kv, &KeyRange::all(), Order::Ascending, 9), [0, 1, 3, 4, 5, 7]);
        assert_eq!(keys(&kv, &KeyRange::all(), Order::Descending, 2), [7, 5]);
        let range = KeyRange { start: vec![1], end: Some(vec![4]) };
        assert_eq!(keys(&kv, &range, Order::Descending, 9), [3, 1]);
        let empty = KeyRange { start: vec![4], end: Some(vec![1]) };
        assert_eq!(keys(&kv, &empty, Order::Ascending, 9), [0_u8; 0]);
        assert_eq!(kv.get(TABLE, &[5]).unwrap().as_deref(), Some(&[9_u8][..]));
        let mut wrong = Batch::new();
        wrong.delete(TABLE, vec![0]);
        wrong.delete("other", vec![0]);
        assert_eq!(kv.write(wrong).unwrap_err().kind(), StorageErrorKind::Invalid);
        assert!(kv.get(TABLE, &[0]).unwrap().is_some());
    }
}
