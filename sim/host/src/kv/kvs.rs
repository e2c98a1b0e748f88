//! The seam: stores as one process of a host has them.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use env::{Batch, KeyRange, Kv, KvRead, Kvs, Order, Row, StorageError, Table};

use super::KvAct;
use super::device::{KvDevice, NameLock, StoreCell};
use super::names;
use super::store::Store;
use crate::host::Life;
use crate::world::lock;

/// The stores of a host, for one process.
#[derive(Clone)]
pub struct SimKvs {
    life: Life,
    device: KvDevice,
}

/// An open store.
#[derive(Clone)]
pub struct SimKv(Arc<Opening>);

struct Opening {
    life: Life,
    device: KvDevice,
    store: StoreCell,
    lock: NameLock,
    /// Held by the flush under way.
    turn: tokio::sync::Mutex<()>,
    flushes: Mutex<Flushes>,
}

/// Group commit, as `os` does it.
#[derive(Default)]
struct Flushes {
    /// Calls so far; a call's number is its place among them.
    called: u64,
    /// All calls up to this one are covered by a flush that succeeded.
    covered: u64,
    /// One has failed: all do from then on.
    broken: bool,
}

/// A seam operation begins, or has taken effect; never returns for the dead.
async fn step(life: &Life, what: &'static str, after: bool) {
    if !life.step(what, after) {
        life.alive().await;
    }
}

/// The device works; never returns for those who die meanwhile.
async fn work(life: &Life, device: &KvDevice) {
    life.sleep(device.latency()).await;
    life.alive().await;
}

impl SimKvs {
    pub(crate) fn new(life: Life) -> Self {
        let device = life.host().kvs().clone();
        Self { life, device }
    }
}

impl Kvs for SimKvs {
    type Kv = SimKv;

    /// Dropping it changes nothing.
    async fn open(&self, name: &str, tables: &[Table]) -> Result<SimKv, StorageError> {
        step(&self.life, "kv.open", false).await;
        names::check(name)?;
        let lock = self.device.lock_name(name).ok_or_else(|| names::locked(name))?;
        work(&self.life, &self.device).await;
        let store = self.device.open(&lock, tables);
        let kv = SimKv(Arc::new(Opening {
            life: self.life.clone(),
            device: self.device.clone(),
            store,
            lock,
            turn: tokio::sync::Mutex::default(),
            flushes: Mutex::default(),
        }));
        let (written, durable) = kv.0.with_store("open", |store| Ok((store.written(), store.durable())))?;
        kv.0.event("kv.open", &[written, durable], || {
            format!("{name}: {written} batches, {durable} of them durable")
        });
        step(&self.life, "kv.open", true).await;
        Ok(kv)
    }

    async fn list(&self) -> Result<Vec<String>, StorageError> {
        step(&self.life, "kv.list", false).await;
        work(&self.life, &self.device).await;
        let names = self.device.stores();
        step(&self.life, "kv.list", true).await;
        Ok(names)
    }

    /// Dropping it changes nothing.
    async fn remove(&self, name: &str) -> Result<(), StorageError> {
        step(&self.life, "kv.remove", false).await;
        names::check(name)?;
        let lock = self.device.lock_name(name).ok_or_else(|| names::locked(name))?;
        work(&self.life, &self.device).await;
        let existed = self.device.remove(&lock);
        let host = self.life.host().id();
        self.life.world().event(Some(host), "kv.remove", &[u64::from(existed)], || name.to_owned());
        drop(lock);
        self.device.witness(name, KvAct::Removed);
        step(&self.life, "kv.remove", true).await;
        Ok(())
    }
}

impl Opening {
    fn name(&self) -> &str {
        self.lock.name()
    }

    /// Works on the store.
    ///
    /// # Errors
    ///
    /// `Io` when the process is dead, or the store gone; else those of `work`.
    fn with_store<T>(
        &self,
        doing: &str,
        work: impl FnOnce(&mut Store) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if !self.life.is_alive() {
            return Err(names::failed(doing, self.name()));
        }
        let mut store = lock(&self.store);
        work(store.as_mut().ok_or_else(|| names::failed(doing, self.name()))?)
    }

    fn event(&self, what: &'static str, numbers: &[u64; 2], story: impl FnOnce() -> String) {
        let numbers = [self.lock.number(), numbers[0], numbers[1]];
        self.life.world().event(Some(self.life.host().id()), what, &numbers, story);
    }

    fn write(&self, batch: Batch) -> Result<(), StorageError> {
        if self.device.is_full() {
            return Err(names::full(self.name()));
        }
        if self.device.fails_to_write() {
            self.event("kv.write-error", &[0, 0], || self.name().to_owned());
            return Err(names::failed("write to", self.name()));
        }
        let changes = self.device.filtered(self.name(), batch).into_changes();
        let (number, bytes) = self.with_store("write to", |store| {
            let bytes = store.write(changes.clone())?;
            Ok((store.written(), bytes))
        })?;
        self.event("kv.write", &[number, bytes as u64], || {
            format!("{}: batch {number}, {bytes} bytes", self.name())
        });
        self.device.witness(self.name(), KvAct::Written(&changes));
        Ok(())
    }

    /// Flushes the device for all calls so far. The caller has the turn.
    async fn flush_device(&self) -> Result<(), StorageError> {
        let calls = lock(&self.flushes).called;
        let batches = self.with_store("flush", |store| Ok(store.written()))?;
        self.device.wait_unstuck().await;
        work(&self.life, &self.device).await;
        if self.device.fails_to_flush() {
            lock(&self.flushes).broken = true;
            self.event("kv.flush-error", &[batches, 0], || self.name().to_owned());
            return Err(names::failed("flush", self.name()));
        }
        if !self.device.flush_lies(self.name()) {
            self.with_store("flush", |store| {
                store.synced(batches);
                Ok(())
            })?;
        }
        lock(&self.flushes).covered = calls;
        self.event("kv.flush", &[batches, calls], || format!("{}: {batches} batches", self.name()));
        Ok(())
    }

    async fn flush(&self) -> Result<(), StorageError> {
        let call = {
            let mut flushes = lock(&self.flushes);
            flushes.called += 1;
            flushes.called
        };
        let _turn = self.turn.lock().await;
        let (broken, covered) = {
            let flushes = lock(&self.flushes);
            (flushes.broken, flushes.covered)
        };
        if broken {
            return Err(names::failed("flush, since an earlier flush failed,", self.name()));
        }
        if covered >= call {
            return Ok(());
        }
        self.flush_device().await
    }

    async fn checkpoint(&self, name: &str) -> Result<(), StorageError> {
        names::check(name)?;
        let exists = || names::exists(name);
        let target = self.device.lock_name(name).ok_or_else(exists)?;
        if self.device.holds(name) {
            return Err(exists());
        }
        let copy = || self.with_store("copy", |store| Ok(self.device.copy(store)));
        // What is written while it is made may be in it or not.
        let early = if self.device.copies_early() { Some(copy()?) } else { None };
        self.device.wait_unstuck().await;
        work(&self.life, &self.device).await;
        if self.device.is_full() {
            return Err(names::full(name));
        }
        let tables = match early {
            Some(tables) => tables,
            None => copy()?,
        };
        self.device.insert(&target, tables);
        self.event("kv.checkpoint", &[target.number(), 0], || format!("{}: as {name}", self.name()));
        Ok(())
    }
}

impl KvRead for SimKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.0.with_store("read", |store| store.tables().get(table, key))
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        self.0.with_store("scan", |store| store.tables().scan(table, range, order, limit))
    }
}

impl Kv for SimKv {
    fn write(&self, batch: Batch) -> Result<(), StorageError> {
        let dead = || names::failed("write to", self.0.name());
        if !self.0.life.step("kv.write", false) {
            return Err(dead());
        }
        self.0.write(batch)?;
        if self.0.life.step("kv.write", true) { Ok(()) } else { Err(dead()) }
    }

    /// Dropping it leaves open what is durable; another call goes on.
    async fn flush(&self) -> Result<(), StorageError> {
        step(&self.0.life, "kv.flush", false).await;
        self.0.flush().await?;
        step(&self.0.life, "kv.flush", true).await;
        Ok(())
    }

    /// Dropping it makes no checkpoint.
    async fn checkpoint(&self, name: &str) -> Result<(), StorageError> {
        step(&self.0.life, "kv.checkpoint", false).await;
        self.0.checkpoint(name).await?;
        step(&self.0.life, "kv.checkpoint", true).await;
        Ok(())
    }
}
