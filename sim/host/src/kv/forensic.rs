//! A store as it lies there, for checkers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use env::{Batch, KeyRange, Kv, KvRead, Order, Row, StorageError, StorageErrorKind, Table};

use super::store::Store;
use super::tables::{Reversal, Tables};
use crate::world::lock;

/// What a store held when this was taken: what the host's processes saw last, durable or not. Later
/// changes do not show in it.
#[derive(Clone, Debug)]
pub struct ForensicKv(pub(super) Tables);

impl ForensicKv {
    /// A store with the same content that can be written to.
    pub fn scratch(&self) -> ScratchKv {
        ScratchKv(Arc::new(Mutex::new(self.0.clone())))
    }
}

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

/// What a power loss would have left of a store at least when this was taken: what flushes have covered.
///
/// Taking it costs what was not flushed, and so does a `get`; a `scan` may copy the tables.
#[derive(Clone, Debug)]
pub struct DurableKv {
    tables: Tables,
    /// Rows that were changed since the last flush, as they were then.
    before: BTreeMap<(Table, Bytes), Option<Bytes>>,
}

impl DurableKv {
    pub(super) fn of(store: &Store) -> Self {
        let (mut tables, mut before) = (store.tables().clone(), BTreeMap::new());
        for reversal in store.undurable() {
            match reversal {
                Reversal::Row(table, key, value) => drop(before.insert((*table, key.clone()), value.clone())),
                whole @ Reversal::Table(table, _) => {
                    tables.reverse(std::slice::from_ref(whole));
                    before.retain(|(of, _), _| of != table);
                }
            }
        }
        Self { tables, before }
    }

    /// All of it, as tables.
    fn whole(&self) -> Tables {
        let mut tables = self.tables.clone();
        for ((of, key), value) in &self.before {
            tables.reverse(&[Reversal::Row(of, key.clone(), value.clone())]);
        }
        tables
    }

    /// A store with the same content that can be written to.
    pub fn scratch(&self) -> ScratchKv {
        ScratchKv(Arc::new(Mutex::new(self.whole())))
    }
}

impl KvRead for DurableKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match self.before.get(&(table, Bytes::copy_from_slice(key))) {
            Some(value) => Ok(value.clone()),
            None => self.tables.get(table, key),
        }
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        let mut tables = self.tables.clone();
        for ((of, key), value) in self.before.iter().filter(|((of, _), _)| *of == table) {
            tables.reverse(&[Reversal::Row(of, key.clone(), value.clone())]);
        }
        tables.scan(table, range, order, limit)
    }
}

/// A store of nobody, made from what another held: whoever looks may do with it what a process would do.
/// Clones are the same store; nothing of it stays when the last is dropped.
#[derive(Clone)]
pub struct ScratchKv(Arc<Mutex<Tables>>);

impl KvRead for ScratchKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        lock(&self.0).get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        lock(&self.0).scan(table, range, order, limit)
    }
}

impl Kv for ScratchKv {
    fn write(&self, batch: Batch) -> Result<(), StorageError> {
        lock(&self.0).apply(batch.into_changes()).map(drop)
    }

    async fn flush(&self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn checkpoint(&self, name: &str) -> Result<(), StorageError> {
        let problem = format!("no copy is made of a store of nobody, and none as {name}");
        Err(StorageError::new(StorageErrorKind::Invalid, problem))
    }
}
