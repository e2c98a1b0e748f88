//! The disks of a node: which serve, which wait, which are refused.

use std::sync::{Mutex, MutexGuard, PoisonError};

use env::{Clock, Disk, Disks, Env, Kvs, Rng, Spawn, StorageError, StorageErrorKind};
use futures_util::future::join_all;
use proto::{ClusterId, DiskId, DiskUuid, wire};
use tracing::{error, info, warn};

use crate::options::DiskOptions;
use crate::store::{INDEX_TABLES, ShardStore, StoreError};
use crate::superblock::{self, Found, Superblock, SuperblockError};

/// The disk type of a host.
type DiskOf<E> = <<E as Env>::Disks as Disks>::Disk;

/// The key-value stores of a host.
type KvOf<E> = <<E as Env>::Kvs as Kvs>::Kv;

/// The store of a disk.
pub(crate) type StoreOf<E> = ShardStore<DiskOf<E>, KvOf<E>>;

/// All disks of a node, in the order of its options.
pub(crate) struct DiskSet<E: Env> {
    slots: Vec<Slot<E>>,
}

struct Slot<E: Env> {
    options: DiskOptions,
    state: Mutex<State<E>>,
}

enum State<E: Env> {
    /// Not open, and another attempt may succeed.
    Waiting(String),
    /// Not open; a person must act and start the node again.
    Refused(String),
    /// Serves; the id comes with the registration.
    Open(StoreOf<E>, Option<DiskId>),
    /// The node has stopped.
    Closed,
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    #[error("its index: {0}")]
    Index(StorageError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    fn may_pass(&self) -> bool {
        match self {
            Self::Superblock(SuperblockError::Storage(error)) => error.kind() != StorageErrorKind::Invalid,
            Self::Superblock(_) => false,
            Self::Index(_) | Self::Store(_) => true,
        }
    }
}

impl<E: Env> DiskSet<E> {
    /// None open yet.
    pub(crate) fn new(options: Vec<DiskOptions>) -> Self {
        let waiting = || Mutex::new(State::Waiting("not opened yet".to_owned()));
        let slots = options.into_iter().map(|options| Slot { options, state: waiting() }).collect();
        Self { slots }
    }

    /// Tries to open all that wait, a fresh one after formatting it. Whether one more serves now.
    pub(crate) async fn open_waiting(&self, env: &E, cluster: ClusterId) -> bool {
        let opened = join_all(self.slots.iter().map(|slot| slot.open_if_waiting(env, cluster))).await;
        opened.contains(&true)
    }

    /// Whether another attempt may open a disk.
    pub(crate) fn any_waiting(&self) -> bool {
        self.slots.iter().any(|slot| matches!(&*slot.state(), State::Waiting(_)))
    }

    /// The store of a disk that serves and is registered.
    pub(crate) fn store(&self, disk: DiskId) -> Option<StoreOf<E>> {
        self.slots.iter().find_map(|slot| match &*slot.state() {
            State::Open(store, Some(id)) if *id == disk => Some(store.clone()),
            _ => None,
        })
    }

    /// The disk at this place of the options, when it serves and is registered.
    pub(crate) fn serving(&self, place: usize) -> Option<(DiskId, StoreOf<E>)> {
        match &*self.slots.get(place)?.state() {
            State::Open(store, Some(id)) => Some((*id, store.clone())),
            _ => None,
        }
    }

    /// Takes the ids that the metadata service gave to the disks `uuids`.
    pub(crate) fn assign(&self, uuids: &[DiskUuid], ids: &[DiskId]) {
        for slot in &self.slots {
            if let State::Open(store, id) = &mut *slot.state() {
                let uuid = store.superblock().uuid;
                let given = uuids.iter().position(|other| *other == uuid).and_then(|at| ids.get(at));
                *id = given.copied().filter(|id| id.0 != 0).or(*id);
            }
        }
    }

    /// How each disk is doing, those that do not serve included.
    pub(crate) async fn reports(&self) -> Vec<wire::DiskReport> {
        join_all(self.slots.iter().map(Slot::report)).await
    }

    /// Lets go of all disks.
    pub(crate) fn close(&self) {
        for slot in &self.slots {
            *slot.state() = State::Closed;
        }
    }
}

impl<E: Env> Slot<E> {
    fn state(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open_if_waiting(&self, env: &E, cluster: ClusterId) -> bool {
        if !matches!(&*self.state(), State::Waiting(_)) {
            return false;
        }
        let opened = self.open(env, cluster).await;
        let mut state = self.state();
        let (State::Waiting(before), DiskOptions { name, path, .. }) = (&*state, &self.options) else {
            return false;
        };
        match opened {
            Ok(store) => {
                info!(disk = %name, path, uuid = %store.superblock().uuid, "disk serves");
                *state = State::Open(store, None);
                true
            }
            Err(error) if error.may_pass() => {
                let reason = error.to_string();
                if *before != reason {
                    warn!(disk = %name, path, error = reason, "disk cannot be opened, will be tried again");
                }
                *state = State::Waiting(reason);
                false
            }
            Err(error) => {
                error!(disk = %name, path, %error, "disk refused");
                *state = State::Refused(error.to_string());
                false
            }
        }
    }

    async fn open(&self, env: &E, cluster: ClusterId) -> Result<StoreOf<E>, OpenError> {
        let disk = env.disks().open(&self.options.path).await.map_err(SuperblockError::from)?;
        let limit_bytes = self.options.capacity.map(|capacity| capacity.0);
        let superblock = match superblock::inspect(&disk, cluster).await? {
            Found::Ours(superblock) => superblock,
            Found::Fresh => {
                let (uuid, salt) = (DiskUuid(env.rng().u128()), env.rng().u64());
                let room = disk.space().await.map_err(SuperblockError::from)?.capacity_bytes;
                let segment_bytes = superblock::segment_bytes(limit_bytes.unwrap_or(u64::MAX).min(room));
                let created = env.clock().wall();
                let superblock = Superblock { cluster, uuid, created, salt, segment_bytes };
                superblock::format(&disk, &superblock).await?;
                info!(disk = %self.options.name, %uuid, segment_bytes, "disk formatted");
                superblock
            }
        };
        // Whatever disk had this name before: an index that is not of this one is made anew.
        let index = format!("index-{}", self.options.name);
        let index = env.kvs().open(&index, INDEX_TABLES).await.map_err(OpenError::Index)?;
        let (store, writer) = ShardStore::open(disk, index, superblock, limit_bytes).await?;
        env.spawn().spawn("log", writer);
        Ok(store)
    }

    async fn report(&self) -> wire::DiskReport {
        let name = self.options.name.to_string();
        let (store, id) = match &*self.state() {
            State::Open(store, id) => (store.clone(), *id),
            State::Waiting(reason) | State::Refused(reason) => {
                let failure = reason.clone();
                return wire::DiskReport { name, failure, ..Default::default() };
            }
            State::Closed => {
                let failure = "the node is stopping".to_owned();
                return wire::DiskReport { name, failure, ..Default::default() };
            }
        };
        let report = store.report().await;
        wire::DiskReport {
            disk: id.map_or(0, |id| id.0),
            uuid: store.superblock().uuid.to_wire(),
            name,
            capacity_bytes: report.capacity_bytes,
            used_bytes: report.used_bytes,
            shards: report.shards,
            failure: report.failure.unwrap_or_default(),
            engine: report.engine,
            damaged_blocks: report.damaged_blocks,
            full: report.full,
            ..Default::default()
        }
    }
}
