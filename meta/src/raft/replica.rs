//! This server's copy of the state: the store `state-<n>` and the memory made from it.
//!
//! ```text
//! tables of meta::state   the state itself
//! table raft              "applied"     -> wire::LogId of the last entry applied
//!                         "membership"  -> wire::StoredMembership
//! ```
//!
//! What entries change, where the log was and who the members were go into one batch, so that a store
//! is always the state after one certain entry. Batches are not flushed: the log brings back what a
//! crash loses. The log is purged only behind a snapshot, and a snapshot begins with a flush.

use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use env::{Batch, Kv, KvRead, Kvs, StorageError, Table};
use openraft::EntryPayload;
use proto::prost::Message;
use proto::wire;

use super::encoding;
use super::handle::{Handle, User, corrupt, io_error};
use super::types::{Applied, Entry, LogId, SnapshotMeta, StoredMembership};
use crate::state::{Machine, Pending, tables};

/// Where the log was when the state was as it is.
pub(crate) const RAFT: Table = "raft";
const APPLIED: &[u8] = b"applied";
const MEMBERSHIP: &[u8] = b"membership";

/// All tables of a state store and of a snapshot.
pub(crate) const TABLES: [Table; tables::ALL.len() + 1] = {
    let mut all = [RAFT; tables::ALL.len() + 1];
    let mut place = 0;
    while place < tables::ALL.len() {
        all[place] = tables::ALL[place];
        place += 1;
    }
    all
};

/// This server's copy of the state. Clones are the same copy.
#[derive(Clone, Debug)]
pub struct Replica<K> {
    live: Arc<RwLock<Live<K>>>,
}

/// A store and the memory made from it.
#[derive(Debug)]
pub(crate) struct Live<K> {
    pub(crate) kv: Handle<K>,
    /// Of the store `state-<n>`.
    pub(crate) number: u64,
    machine: Machine,
    meta: SnapshotMeta,
}

/// Name of the state store of a number.
pub(crate) fn store_name(number: u64) -> String {
    format!("state-{number}")
}

/// The number in the name of a state store.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix("state-")?.parse().ok()
}

impl<K: Kv> Live<K> {
    /// Opens the state store of a number.
    pub(crate) async fn open<S: Kvs<Kv = K>>(stores: &S, user: &User, number: u64) -> io::Result<Self> {
        let kv = stores.open(&store_name(number), &TABLES).await.map_err(io_error)?;
        Self::load(user.holding(kv), number)
    }

    /// Makes the memory from the store.
    pub(crate) fn load(kv: Handle<K>, number: u64) -> io::Result<Self> {
        let machine = Machine::load(&*kv).map_err(io_error)?;
        let meta = read_meta(&*kv)?;
        Ok(Self { kv, number, machine, meta })
    }

    pub(crate) fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<Vec<Applied>, StorageError> {
        let mut pending = Pending::new();
        let mut outcomes = Vec::with_capacity(entries.len());
        let mut last_log_id = self.meta.last_log_id;
        let mut membership = None;
        for Entry { log_id, payload } in entries {
            let outcome = match payload {
                EntryPayload::Blank => wire::Outcome::default(),
                EntryPayload::Normal(proposal) => {
                    // What cannot be decoded is a command without action: refused, by all alike.
                    let command = wire::Command::decode(proposal.0).unwrap_or_default();
                    self.machine.apply(&*self.kv, log_id.index, command, &mut pending)?
                }
                EntryPayload::Membership(changed) => {
                    membership = Some(StoredMembership::new(Some(log_id), changed));
                    wire::Outcome::default()
                }
            };
            last_log_id = Some(log_id);
            outcomes.push(Applied(outcome));
        }
        let mut batch = pending.into_batch();
        put_meta(&mut batch, last_log_id.as_ref(), membership.as_ref());
        self.kv.write(batch)?;
        self.meta.last_log_id = last_log_id;
        if let Some(membership) = membership {
            self.meta.last_membership = membership;
        }
        Ok(outcomes)
    }
}

impl<K: Kv> Replica<K> {
    pub(crate) fn new(live: Live<K>) -> Self {
        Self { live: Arc::new(RwLock::new(live)) }
    }

    /// Asks the machine and the store, both after the same entry. Does not wait but for the entries
    /// that are being applied.
    pub fn read<T>(&self, question: impl FnOnce(&Machine, &K) -> T) -> T {
        let live = self.live();
        question(&live.machine, &live.kv)
    }

    pub(crate) fn live(&self) -> RwLockReadGuard<'_, Live<K>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn live_mut(&self) -> RwLockWriteGuard<'_, Live<K>> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies entries that follow the last one applied, as one batch.
    pub(crate) fn apply(&self, entries: Vec<Entry>) -> io::Result<Vec<Applied>> {
        self.live_mut().apply(entries).map_err(io_error)
    }

    /// Takes another store for this one; returns the number of the one before.
    pub(crate) fn replace(&self, live: Live<K>) -> u64 {
        std::mem::replace(&mut *self.live_mut(), live).number
    }
}

/// Which entry a state store or snapshot is the state after.
pub(crate) fn read_meta(kv: &impl KvRead) -> io::Result<SnapshotMeta> {
    let applied = kv.get(RAFT, APPLIED).map_err(io_error)?;
    let applied: Option<wire::LogId> =
        applied.map(|bytes| encoding::message("the entry applied", bytes)).transpose().map_err(corrupt)?;
    let membership = kv.get(RAFT, MEMBERSHIP).map_err(io_error)?;
    let membership: wire::StoredMembership = membership
        .map(|bytes| encoding::message("the membership", bytes))
        .transpose()
        .map_err(corrupt)?
        .unwrap_or_default();
    encoding::parse_snapshot_meta(applied.as_ref(), Some(membership)).map_err(corrupt)
}

/// Most entries leave the members as they are: then their row stays too.
fn put_meta(batch: &mut Batch, applied: Option<&LogId>, membership: Option<&StoredMembership>) {
    if let Some(applied) = applied {
        batch.put(RAFT, Bytes::from_static(APPLIED), encoding::bytes(&encoding::log_id(applied)));
    }
    if let Some(membership) = membership {
        let membership = encoding::stored_membership(membership);
        batch.put(RAFT, Bytes::from_static(MEMBERSHIP), encoding::bytes(&membership));
    }
}
