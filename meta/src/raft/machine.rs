//! What openraft drives: entries in, snapshots out and in.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use env::{Batch, Kv, Kvs};
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::Mutex;

use super::handle::{Handle, User, io_error};
use super::replica::{Live, Replica, TABLES, number_of, store_name};
use super::root::Root;
use super::snapshot::{Rows, Shelf, SnapshotData, Source, remove_unused};
use super::types::{Entry, LogId, RaftPeer, SnapshotMeta, StoredMembership, TypeConfig};

/// Entries applied as one batch.
const APPLY_ENTRIES_MAX: usize = 64;
/// Bytes of entries applied as one batch, unless one entry alone is larger.
const APPLY_BYTES_MAX: usize = 1024 * 1024;

type SnapshotOf<S> =
    Snapshot<openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>, u64, RaftPeer, SnapshotData<S>>;

/// The state machine, as openraft sees it. Clones are the same.
#[derive(Clone)]
pub struct StateMachine<S: Kvs> {
    stores: S,
    root: Root<S::Kv>,
    replica: Replica<S::Kv>,
    shelf: Arc<Mutex<Shelf<S>>>,
    spares: Spares<S>,
}

impl<S: Kvs> StateMachine<S> {
    /// Opens the current state store and the newest snapshot, and removes what an interrupted
    /// transfer left.
    pub(crate) async fn open(stores: S, root: Root<S::Kv>, user: &User) -> io::Result<Self> {
        let number = root.state_number().map_err(|error| io_error(error.into()))?;
        let mut highest = number;
        for name in stores.list().await.map_err(io_error)? {
            let Some(other) = number_of(&name).filter(|other| *other != number) else { continue };
            highest = highest.max(other);
            stores.remove(&name).await.map_err(io_error)?;
        }
        let live = Live::open(&stores, user, number).await?;
        let shelf = Shelf::open(stores.clone(), user.clone()).await?;
        let spares = Spares::new(stores.clone(), user.clone(), highest);
        Ok(Self { stores, root, replica: Replica::new(live), shelf: Arc::new(Mutex::new(shelf)), spares })
    }

    /// The state, for questions.
    pub fn replica(&self) -> &Replica<S::Kv> {
        &self.replica
    }

    /// Fresh stores to receive snapshots into.
    pub(crate) fn spares(&self) -> &Spares<S> {
        &self.spares
    }

    /// A snapshot of now. Nobody applies meanwhile: openraft calls this between two applies.
    async fn take_snapshot(&self) -> io::Result<()> {
        let (kv, meta) = {
            let live = self.replica.live();
            (live.kv.clone(), live.meta().clone())
        };
        self.shelf.lock().await.take(&kv, meta).await
    }

    async fn current(&self) -> Option<SnapshotOf<S>> {
        let (meta, snapshot) = self.shelf.lock().await.current()?;
        Some(Snapshot { meta, snapshot })
    }

    /// The rows of a snapshot in a state store of this server.
    async fn adopt(&self, snapshot: SnapshotData<S>) -> io::Result<Spare<S>> {
        let checkpoint = match snapshot.source {
            Source::Received(spare) => return Ok(spare),
            Source::Checkpoint(checkpoint) => checkpoint,
        };
        let mut rows = Rows::new(checkpoint.open().await?);
        let spare = self.spares.open().await?;
        while let Some((table, page)) = rows.next()? {
            let mut batch = Batch::new();
            page.into_iter().for_each(|(key, value)| batch.put(table, key, value));
            spare.kv().write(batch).map_err(io_error)?;
        }
        spare.kv().flush().await.map_err(io_error)?;
        Ok(spare)
    }
}

impl<S: Kvs> RaftStateMachine<TypeConfig> for StateMachine<S> {
    type SnapshotData = SnapshotData<S>;
    type SnapshotBuilder = Builder<S>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let live = self.replica.live();
        Ok((live.meta().last_log_id, live.meta().last_membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut more = true;
        while more {
            let mut batch = Vec::new();
            let mut responders = Vec::new();
            let mut bytes = 0;
            while batch.len() < APPLY_ENTRIES_MAX && bytes < APPLY_BYTES_MAX {
                let Some(next) = entries.next().await else {
                    more = false;
                    break;
                };
                let (entry, responder) = next?;
                bytes += size_of_entry(&entry);
                batch.push(entry);
                responders.push(responder);
            }
            if batch.is_empty() {
                return Ok(());
            }
            let outcomes = self.replica.apply(batch)?;
            for (responder, outcome) in responders.into_iter().zip(outcomes) {
                if let Some(responder) = responder {
                    responder.send(outcome);
                }
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder<S>> {
        match self.take_snapshot().await {
            Err(error) if !force => {
                tracing::error!(%error, "no snapshot could be made: the log keeps growing; look at the disk");
                None
            }
            result => Some(Builder { machine: self.clone(), result }),
        }
    }

    async fn get_snapshot_builder(&mut self) -> Builder<S> {
        let result = self.take_snapshot().await;
        Builder { machine: self.clone(), result }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData<S>) -> io::Result<()> {
        let spare = self.adopt(snapshot).await?;
        let live = Live::load(spare.kv().clone(), spare.number())?;
        if live.meta() != meta {
            let (found, told) = (live.meta(), meta);
            return Err(io::Error::other(format!("the snapshot is of {found}, announced was {told}")));
        }
        // From here on a restart finds the new state.
        self.root.set_state_number(spare.number()).await.map_err(io_error)?;
        spare.keep();
        let before = self.replica.replace(live);
        remove_unused(&self.stores, &store_name(before)).await?;
        self.take_snapshot().await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<S>>> {
        Ok(self.current().await)
    }
}

fn size_of_entry(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

/// Hands over the snapshot that was made when the builder was.
pub struct Builder<S: Kvs> {
    machine: StateMachine<S>,
    result: io::Result<()>,
}

impl<S: Kvs> RaftSnapshotBuilder<TypeConfig> for Builder<S> {
    type SnapshotData = SnapshotData<S>;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<S>> {
        std::mem::replace(&mut self.result, Ok(()))?;
        self.machine.current().await.ok_or_else(|| io::Error::other("there is no snapshot"))
    }
}

/// Makes state stores that are not in use yet, each under a number that was never used.
#[derive(Clone)]
pub(crate) struct Spares<S> {
    stores: S,
    user: User,
    state: Arc<StdMutex<SpareNumbers>>,
}

#[derive(Debug)]
struct SpareNumbers {
    highest: u64,
    /// Given up: to be removed.
    abandoned: BTreeSet<u64>,
}

/// A state store that is not in use yet. Unless it is kept, the next one removes it.
pub(crate) struct Spare<S: Kvs> {
    number: u64,
    kv: Handle<S::Kv>,
    kept: bool,
    state: Arc<StdMutex<SpareNumbers>>,
}

impl<S: Kvs> Spares<S> {
    fn new(stores: S, user: User, highest: u64) -> Self {
        let state = SpareNumbers { highest, abandoned: BTreeSet::new() };
        Self { stores, user, state: Arc::new(StdMutex::new(state)) }
    }

    /// A fresh store. Removes those that were given up.
    pub(crate) async fn open(&self) -> io::Result<Spare<S>> {
        let (number, abandoned) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.highest += 1;
            (state.highest, std::mem::take(&mut state.abandoned))
        };
        for number in abandoned {
            remove_unused(&self.stores, &store_name(number)).await?;
        }
        let kv = self.stores.open(&store_name(number), &TABLES).await.map_err(io_error)?;
        Ok(Spare { number, kv: self.user.holding(kv), kept: false, state: self.state.clone() })
    }
}

impl<S: Kvs> Spare<S> {
    pub(crate) fn kv(&self) -> &Handle<S::Kv> {
        &self.kv
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// It is the current state store from now on.
    fn keep(mut self) {
        self.kept = true;
    }
}

impl<S: Kvs> Drop for Spare<S> {
    fn drop(&mut self) {
        if !self.kept {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).abandoned.insert(self.number);
        }
    }
}
