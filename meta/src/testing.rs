//! Key-value stores in memory, for tests: they keep the contract of [`env::Kvs`], and forget on
//! demand what a crash would forget.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use env::kv::Change;
use env::{Batch, KeyRange, Kv, KvRead, Kvs, Order, Row, Spawn, StorageError, StorageErrorKind, Table, Task};
use openraft::AsyncRuntime;
use openraft::type_config::TypeConfigExt;
use openraft_rt_tokio::TokioRuntime;

use crate::raft::types::TypeConfig;

type Tables = BTreeMap<String, BTreeMap<Bytes, Bytes>>;

/// Stores of one host. Clones are the same host.
#[derive(Clone, Debug, Default)]
pub struct MemoryKvs {
    host: Arc<Mutex<Host>>,
}

#[derive(Debug, Default)]
struct Host {
    stores: BTreeMap<String, Arc<Mutex<Store>>>,
    open: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Store {
    live: Tables,
    durable: Tables,
    unsynced: Vec<Batch>,
    failing: bool,
}

/// One store in memory.
#[derive(Clone, Debug)]
pub struct MemoryKv {
    store: Arc<Mutex<Store>>,
    opened: Arc<Opened>,
}

#[derive(Debug)]
struct Opened {
    host: Arc<Mutex<Host>>,
    name: String,
}

impl Drop for Opened {
    fn drop(&mut self) {
        lock(&self.host).open.remove(&self.name);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryKvs {
    /// Without stores.
    pub fn new() -> Self {
        Self::default()
    }

    /// The host as it is after a crash of this one: only what was flushed.
    #[must_use]
    pub fn crashed(&self) -> Self {
        let stores = lock(&self.host)
            .stores
            .iter()
            .map(|(name, store)| {
                let durable = lock(store).durable.clone();
                let store = Store { live: durable.clone(), durable, ..Store::default() };
                (name.clone(), Arc::new(Mutex::new(store)))
            })
            .collect();
        Self { host: Arc::new(Mutex::new(Host { stores, open: BTreeSet::new() })) }
    }
}

impl MemoryKvs {
    /// From now on each read, write and flush of a store fails, or works again.
    pub fn set_failing(&self, name: &str, failing: bool) {
        if let Some(store) = lock(&self.host).stores.get(name) {
            lock(store).failing = failing;
        }
    }

    /// Changes a store behind the back of whoever has it open, as damage would.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Batch)) {
        let mut batch = Batch::new();
        change(&mut batch);
        if let Some(store) = lock(&self.host).stores.get(name) {
            // A table that is not there has nothing to damage.
            drop(apply(&mut lock(store).live, batch));
        }
    }
}

impl Kvs for MemoryKvs {
    type Kv = MemoryKv;

    async fn open(&self, name: &str, tables: &[Table]) -> Result<MemoryKv, StorageError> {
        let mut host = lock(&self.host);
        if !host.open.insert(name.to_owned()) {
            return Err(StorageError::new(StorageErrorKind::Locked, format!("{name} is open")));
        }
        let store = host.stores.entry(name.to_owned()).or_default().clone();
        for table in tables {
            let mut store = lock(&store);
            store.live.entry((*table).to_owned()).or_default();
            store.durable.entry((*table).to_owned()).or_default();
        }
        let opened = Arc::new(Opened { host: self.host.clone(), name: name.to_owned() });
        Ok(MemoryKv { store, opened })
    }

    async fn list(&self) -> Result<Vec<String>, StorageError> {
        Ok(lock(&self.host).stores.keys().cloned().collect())
    }

    async fn remove(&self, name: &str) -> Result<(), StorageError> {
        let mut host = lock(&self.host);
        if host.open.contains(name) {
            return Err(StorageError::new(StorageErrorKind::Locked, format!("{name} is open")));
        }
        host.stores.remove(name);
        Ok(())
    }
}

impl MemoryKv {
    /// An open store of no host's.
    pub fn detached(tables: &[Table]) -> Self {
        let tables: Tables = tables.iter().map(|table| ((*table).to_owned(), BTreeMap::new())).collect();
        let store = Store { live: tables.clone(), durable: tables, ..Store::default() };
        let opened = Opened { host: Arc::default(), name: String::new() };
        Self { store: Arc::new(Mutex::new(store)), opened: Arc::new(opened) }
    }

    fn working(&self) -> Result<MutexGuard<'_, Store>, StorageError> {
        let store = lock(&self.store);
        if store.failing {
            return Err(StorageError::new(StorageErrorKind::Io, format!("{}: failing", self.opened.name)));
        }
        Ok(store)
    }
}

fn no_table(table: Table) -> StorageError {
    StorageError::new(StorageErrorKind::Invalid, format!("no table {table}"))
}

fn apply(tables: &mut Tables, batch: Batch) -> Result<(), StorageError> {
    for change in batch.into_changes() {
        match change {
            Change::Put(table, key, value) => {
                tables.get_mut(table).ok_or_else(|| no_table(table))?.insert(key, value);
            }
            Change::Delete(table, key) => {
                tables.get_mut(table).ok_or_else(|| no_table(table))?.remove(&key);
            }
            Change::DeleteRange(table, range) => {
                tables.get_mut(table).ok_or_else(|| no_table(table))?.retain(|key, _| !range.contains(key));
            }
        }
    }
    Ok(())
}

impl KvRead for MemoryKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let store = self.working()?;
        Ok(store.live.get(table).ok_or_else(|| no_table(table))?.get(key).cloned())
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        let store = self.working()?;
        let rows = store.live.get(table).ok_or_else(|| no_table(table))?;
        let start = Bytes::copy_from_slice(&range.start);
        let row = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        let inside = rows.range(start..).take_while(|(key, _)| range.contains(key));
        Ok(match order {
            Order::Ascending => inside.take(limit).map(row).collect(),
            Order::Descending => {
                let all: Vec<Row> = inside.map(row).collect();
                all.into_iter().rev().take(limit).collect()
            }
        })
    }
}

impl Kv for MemoryKv {
    fn write(&self, batch: Batch) -> Result<(), StorageError> {
        let mut store = self.working()?;
        apply(&mut store.live, batch.clone())?;
        store.unsynced.push(batch);
        Ok(())
    }

    async fn flush(&self) -> Result<(), StorageError> {
        let mut store = self.working()?;
        let store = &mut *store;
        for batch in store.unsynced.drain(..) {
            apply(&mut store.durable, batch)?;
        }
        Ok(())
    }

    async fn checkpoint(&self, name: &str) -> Result<(), StorageError> {
        let live = self.working()?.live.clone();
        let mut host = lock(&self.opened.host);
        if host.stores.contains_key(name) {
            return Err(StorageError::new(StorageErrorKind::AlreadyExists, format!("{name} exists")));
        }
        let store = Store { live: live.clone(), durable: live, ..Store::default() };
        host.stores.insert(name.to_owned(), Arc::new(Mutex::new(store)));
        Ok(())
    }
}

/// Runs a test in openraft's runtime, on threads of its own, with its randomness from a fixed seed.
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    TypeConfig::run(test)
}

/// Tasks of the tokio runtime under [`block_on`].
#[derive(Clone, Debug)]
pub struct RuntimeSpawn;

/// A task of [`RuntimeSpawn`].
#[derive(Debug)]
pub struct RuntimeTask(<TokioRuntime as AsyncRuntime>::JoinHandle<()>);

impl Spawn for RuntimeSpawn {
    type Task = RuntimeTask;

    fn spawn<F>(&self, _name: &'static str, work: F) -> RuntimeTask
    where
        F: Future<Output = ()> + Send + 'static,
    {
        RuntimeTask(TokioRuntime::spawn(work))
    }
}

impl Task for RuntimeTask {
    fn abort(&self) {
        self.0.abort();
    }

    async fn join(self) {
        // A task that was aborted has ended as well.
        drop(self.0.await);
    }
}
