//! A key-value store in memory for tests: it keeps the contract of [`env::Kv`], forgets on demand what a
//! crash would forget, fails on demand, and tells how much was read at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use env::kv::Change;
use env::{Batch, KeyRange, Kv, KvRead, Order, Row, StorageError, StorageErrorKind, Table};

type Rows = BTreeMap<Bytes, Bytes>;

/// The store. Clones are the same store.
#[derive(Clone, Debug)]
pub(crate) struct MemKv(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    live: BTreeMap<Table, Rows>,
    durable: BTreeMap<Table, Rows>,
    /// Written since the last flush.
    pending: Vec<Batch>,
    flushes: u64,
    failing: bool,
    full: bool,
    /// The largest limit of a scan of each table.
    scans: BTreeMap<Table, usize>,
}

impl MemKv {
    pub(crate) fn new(tables: &[Table]) -> Self {
        let empty: BTreeMap<Table, Rows> = tables.iter().map(|table| (*table, Rows::new())).collect();
        Self(Arc::new(Mutex::new(State {
            live: empty.clone(),
            durable: empty,
            pending: Vec::new(),
            flushes: 0,
            failing: false,
            full: false,
            scans: BTreeMap::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn working(&self) -> Result<MutexGuard<'_, State>, StorageError> {
        let state = self.state();
        if state.failing {
            return Err(StorageError::new(StorageErrorKind::Io, "the store was told to fail"));
        }
        Ok(state)
    }

    /// The power fails: of the batches since the last flush the first `kept` survive, or all when there
    /// are fewer.
    pub(crate) fn crash(&self, kept: usize) {
        let mut state = self.state();
        let state = &mut *state;
        for batch in std::mem::take(&mut state.pending).into_iter().take(kept) {
            apply(&mut state.durable, batch).unwrap();
        }
        state.live = state.durable.clone();
    }

    /// Another store with the same rows, all of them durable.
    pub(crate) fn copy(&self) -> Self {
        let state = self.state();
        let copy = Self::new(&[]);
        *copy.state() = State {
            live: state.live.clone(),
            durable: state.live.clone(),
            pending: Vec::new(),
            flushes: 0,
            failing: false,
            full: false,
            scans: BTreeMap::new(),
        };
        drop(state);
        copy
    }

    /// How often it was flushed.
    pub(crate) fn flushes(&self) -> u64 {
        self.state().flushes
    }

    /// Batches since the last flush.
    pub(crate) fn pending(&self) -> usize {
        self.state().pending.len()
    }

    /// From now on everything fails, or works again.
    pub(crate) fn set_failing(&self, failing: bool) {
        self.state().failing = failing;
    }

    /// From now on writes alone fail, or work again.
    pub(crate) fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Puts a row, behind everybody's back.
    pub(crate) fn plant(&self, table: Table, key: &[u8], value: &[u8]) {
        let mut state = self.state();
        let state = &mut *state;
        for tables in [&mut state.live, &mut state.durable] {
            let rows = tables.get_mut(table).unwrap();
            rows.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        }
    }

    /// Removes a row, behind everybody's back.
    pub(crate) fn uproot(&self, table: Table, key: &[u8]) {
        let mut state = self.state();
        let state = &mut *state;
        for tables in [&mut state.live, &mut state.durable] {
            tables.get_mut(table).unwrap().remove(key);
        }
    }

    /// All rows of a table.
    pub(crate) fn rows(&self, table: Table) -> BTreeMap<Bytes, Bytes> {
        self.state().live[table].clone()
    }

    /// The largest limit of a scan of each table, since this was asked last.
    pub(crate) fn take_scans(&self) -> BTreeMap<Table, usize> {
        std::mem::take(&mut self.state().scans)
    }
}

fn no_table(table: Table) -> StorageError {
    StorageError::new(StorageErrorKind::Invalid, format!("no table {table}"))
}

fn apply(tables: &mut BTreeMap<Table, Rows>, batch: Batch) -> Result<(), StorageError> {
    for change in batch.into_changes() {
        let (Change::Put(table, ..) | Change::Delete(table, _) | Change::DeleteRange(table, _)) = &change;
        let rows = tables.get_mut(table).ok_or_else(|| no_table(table))?;
        match change {
            Change::Put(_, key, value) => drop(rows.insert(key, value)),
            Change::Delete(_, key) => drop(rows.remove(&key)),
            Change::DeleteRange(_, range) => rows.retain(|key, _| !range.contains(key)),
        }
    }
    Ok(())
}

impl KvRead for MemKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.working()?.live.get(table).ok_or_else(|| no_table(table))?.get(key).cloned())
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        let mut state = self.working()?;
        let largest = state.scans.entry(table).or_default();
        *largest = limit.max(*largest);
        let rows = state.live.get(table).ok_or_else(|| no_table(table))?;
        let inside = rows
            .range(Bytes::copy_from_slice(&range.start)..)
            .take_while(|(key, _)| range.contains(key))
            .map(|(key, value)| (key.clone(), value.clone()));
        Ok(match order {
            Order::Ascending => inside.take(limit).collect(),
            Order::Descending => {
                let all: Vec<Row> = inside.collect();
                all.into_iter().rev().take(limit).collect()
            }
        })
    }
}

impl Kv for MemKv {
    fn write(&self, batch: Batch) -> Result<(), StorageError> {
        let mut state = self.working()?;
        if state.full {
            return Err(StorageError::new(StorageErrorKind::Full, "the store was told to be full"));
        }
        apply(&mut state.live, batch.clone())?;
        state.pending.push(batch);
        Ok(())
    }

    async fn flush(&self) -> Result<(), StorageError> {
        let mut state = self.working()?;
        let state = &mut *state;
        state.flushes += 1;
        state.pending.drain(..).try_for_each(|batch| apply(&mut state.durable, batch))
    }

    async fn checkpoint(&self, name: &str) -> Result<(), StorageError> {
        Err(StorageError::new(StorageErrorKind::Invalid, format!("{name}: no checkpoints here")))
    }
}
