//! What a host's stores lie on: it outlives processes, and fails as it is told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use env::{Batch, Table};
use tokio::sync::Notify;

use super::forensic::{DurableKv, ForensicKv};
use super::store::{REVERSIBLE_MIN, Store};
use super::tables::Tables;
use super::{KvAct, KvBugs, KvFaults, KvFilter, KvWitness};
use crate::host::Death;
use crate::rng::Stream;
use crate::world::lock;

/// The device below a host's key-value stores. Clones are the same device.
#[derive(Clone)]
pub struct KvDevice(Arc<Device>);

struct Device {
    stream: Stream,
    state: Mutex<State>,
    /// Told when flushes go on.
    unstuck: Notify,
}

#[derive(Default)]
struct State {
    stores: BTreeMap<String, StoreCell>,
    /// Names that somebody works on, with the number of the lock.
    locks: BTreeMap<String, u64>,
    locks_so_far: u64,
    faults: KvFaults,
    bugs: KvBugs,
    filter: Option<KvFilter>,
    witness: Option<KvWitness>,
    full: bool,
    stuck: bool,
}

/// A store in its place on the device; none when the device was replaced under it.
pub(super) type StoreCell = Arc<Mutex<Option<Store>>>;

/// The right to change what has a name, until it is dropped or its process ends.
pub(super) struct NameLock {
    device: KvDevice,
    name: String,
    number: u64,
}

impl KvDevice {
    /// Without stores. `stream` decides latencies, errors, and what a power loss takes.
    pub(crate) fn new(stream: Stream) -> Self {
        Self(Arc::new(Device { stream, state: Mutex::default(), unstuck: Notify::new() }))
    }

    /// The process that used it is dead.
    pub(crate) fn owner_died(&self, death: Death) {
        let mut state = lock(&self.0.state);
        state.locks.clear();
        match death {
            Death::Process => {}
            Death::Power => {
                for cell in state.stores.values() {
                    if let Some(store) = lock(cell).as_mut() {
                        store.lose_power(&self.0.stream);
                    }
                }
            }
        }
    }

    /// Sets latencies and errors, from now on.
    pub fn configure(&self, faults: KvFaults) {
        lock(&self.0.state).faults = faults;
    }

    /// No space is left, or there is again: writes and checkpoints fail with `Full` meanwhile.
    pub fn set_full(&self, full: bool) {
        lock(&self.0.state).full = full;
    }

    /// Flushes and checkpoints wait until this is taken back.
    pub fn set_stuck(&self, stuck: bool) {
        lock(&self.0.state).stuck = stuck;
        if !stuck {
            self.0.unstuck.notify_waiters();
        }
    }

    /// Plants bugs.
    pub fn set_bugs(&self, bugs: KvBugs) {
        lock(&self.0.state).bugs = bugs;
    }

    /// Passes each batch through `filter` before it is written; none to write them as they are.
    pub fn set_filter(&self, filter: Option<KvFilter>) {
        let before = std::mem::replace(&mut lock(&self.0.state).filter, filter);
        drop(before);
    }

    /// From now on `witness` sees what processes do; it may look at the device.
    pub fn set_witness(&self, witness: KvWitness) {
        let before = lock(&self.0.state).witness.replace(witness);
        drop(before);
    }

    /// A new, empty device in the place of this one. A process that has a store of it open gets `Io`
    /// from then on.
    pub fn wipe(&self) {
        let stores = std::mem::take(&mut lock(&self.0.state).stores);
        for cell in stores.values() {
            let store = lock(cell).take();
            drop(store);
        }
    }

    /// Somebody removes a store that no process has open; false when one has, or there is none.
    pub fn remove_at_rest(&self, name: &str) -> bool {
        self.lock_name(name).is_some_and(|lock| self.remove(&lock))
    }

    /// The names of all stores, in byte order.
    pub fn stores(&self) -> Vec<String> {
        lock(&self.0.state).stores.keys().cloned().collect()
    }

    /// What a store holds now, whether a process runs or not; none when there is no such store.
    pub fn forensic(&self, name: &str) -> Option<ForensicKv> {
        let cell = self.cell(name)?;
        let store = lock(&cell);
        store.as_ref().map(|store| ForensicKv(store.tables().clone()))
    }

    /// What a power loss now would leave of a store at least; none when there is no such store.
    pub fn durable(&self, name: &str) -> Option<DurableKv> {
        let cell = self.cell(name)?;
        let store = lock(&cell);
        store.as_ref().map(DurableKv::of)
    }

    /// How many batches of a store a power loss now may take; none when there is no such store.
    pub fn unflushed(&self, name: &str) -> Option<u64> {
        let cell = self.cell(name)?;
        let store = lock(&cell);
        store.as_ref().map(|store| store.written() - store.durable())
    }

    fn cell(&self, name: &str) -> Option<StoreCell> {
        lock(&self.0.state).stores.get(name).cloned()
    }

    /// Takes the lock of a name; none when somebody has it.
    pub(super) fn lock_name(&self, name: &str) -> Option<NameLock> {
        let mut state = lock(&self.0.state);
        if state.locks.contains_key(name) {
            return None;
        }
        state.locks_so_far += 1;
        let number = state.locks_so_far;
        state.locks.insert(name.to_owned(), number);
        Some(NameLock { device: self.clone(), name: name.to_owned(), number })
    }

    /// The store whose lock the caller has, with these tables; it is made if it does not exist.
    pub(super) fn open(&self, name: &NameLock, tables: &[Table]) -> StoreCell {
        let make = || Arc::new(Mutex::new(Some(Store::default())));
        let cell = lock(&self.0.state).stores.entry(name.name.clone()).or_insert_with(make).clone();
        if let Some(store) = lock(&cell).as_mut() {
            store.add_tables(tables);
        }
        cell
    }

    /// Puts a store there whose lock the caller has.
    pub(super) fn insert(&self, name: &NameLock, tables: Tables) {
        let cell = Arc::new(Mutex::new(Some(Store::with(tables))));
        lock(&self.0.state).stores.insert(name.name.clone(), cell);
    }

    /// Removes the store whose lock the caller has; false when there is none.
    pub(super) fn remove(&self, name: &NameLock) -> bool {
        let removed = lock(&self.0.state).stores.remove(&name.name);
        removed.is_some()
    }

    pub(super) fn holds(&self, name: &str) -> bool {
        lock(&self.0.state).stores.contains_key(name)
    }

    pub(super) fn is_full(&self) -> bool {
        lock(&self.0.state).full
    }

    pub(super) fn bugs(&self) -> KvBugs {
        lock(&self.0.state).bugs
    }

    /// Tells the witness, if there is one. Nothing may be locked.
    pub(super) fn witness(&self, name: &str, act: KvAct<'_>) {
        let witness = lock(&self.0.state).witness.clone();
        if let Some(witness) = witness {
            witness(name, act);
        }
    }

    /// Does a flush of this store only say that it is one?
    pub(super) fn flush_lies(&self, name: &str) -> bool {
        let bugs = self.bugs();
        bugs.flush_lies && name.starts_with(bugs.flush_lies_of)
    }

    /// The batch to write in the place of `batch`.
    pub(super) fn filtered(&self, name: &str, batch: Batch) -> Batch {
        let filter = lock(&self.0.state).filter.clone();
        match filter {
            Some(filter) => filter(name, batch),
            None => batch,
        }
    }

    /// Does a write fail? The answer is another one each time.
    pub(super) fn fails_to_write(&self) -> bool {
        let ppm = lock(&self.0.state).faults.write_error_ppm;
        ppm > 0 && self.0.stream.chance(ppm)
    }

    /// Does a flush fail? The answer is another one each time.
    pub(super) fn fails_to_flush(&self) -> bool {
        let ppm = lock(&self.0.state).faults.flush_error_ppm;
        ppm > 0 && self.0.stream.chance(ppm)
    }

    /// What the next operation takes.
    pub(super) fn latency(&self) -> Duration {
        let faults = lock(&self.0.state).faults;
        let stream = &self.0.stream;
        let mut us = stream.between(faults.flush_us.0, faults.flush_us.1);
        if stream.chance(faults.slow_ppm) {
            us = us.saturating_add(stream.between(faults.slow_us.0, faults.slow_us.1));
        }
        Duration::from_micros(us)
    }

    /// Is a copy of the moment at which its call began, or of the one at which it ends?
    pub(super) fn copies_early(&self) -> bool {
        self.0.stream.chance(500_000)
    }

    /// What a checkpoint of `store` holds.
    pub(super) fn copy(&self, store: &Store) -> Tables {
        if self.bugs().checkpoint_lies {
            store.tables_before(1 + self.0.stream.index(REVERSIBLE_MIN))
        } else {
            store.tables().clone()
        }
    }

    /// Waits while flushes are stuck. Dropping it is harmless.
    pub(super) async fn wait_unstuck(&self) {
        loop {
            let unstuck = self.0.unstuck.notified();
            if !lock(&self.0.state).stuck {
                return;
            }
            unstuck.await;
        }
    }
}

impl NameLock {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Another one for each lock of the device.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for NameLock {
    fn drop(&mut self) {
        let mut state = lock(&self.device.0.state);
        // The lock of a dead process may be somebody else's by now.
        if state.locks.get(&self.name) == Some(&self.number) {
            state.locks.remove(&self.name);
        }
    }
}
