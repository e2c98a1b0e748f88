//! The disks of a node: which serve, which wait, which are refused.

use std::sync::{Mutex, MutexGuard, PoisonError};

use env::{Clock, Disks, Env, Rng, StorageErrorKind};
use futures_util::future::join_all;
use proto::{ClusterId, DiskId, DiskUuid, wire};
use tracing::{error, info, warn};

use crate::options::DiskOptions;
use crate::store::{ShardStore, StoreError};
use crate::superblock::{self, Found, Superblock, SuperblockError};

/// The disk type of a host.
pub(crate) type DiskOf<E> = <<E as Env>::Disks as Disks>::Disk;

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
    Open(ShardStore<DiskOf<E>>, Option<DiskId>),
    /// The node has stopped.
    Closed,
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    fn may_pass(&self) -> bool {
        match self {
            Self::Superblock(SuperblockError::Storage(error)) => error.kind() != StorageErrorKind::Invalid,
            Self::Superblock(_) => false,
            Self::Store(_) => true,
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
    pub(crate) fn store(&self, disk: DiskId) -> Option<ShardStore<DiskOf<E>>> {
        self.slots.iter().find_map(|slot| match &*slot.state() {
            State::Open(store, Some(id)) if *id == disk => Some(store.clone()),
            _ => None,
        })
    }

    /// The disk at this place of the options, when it serves and is registered.
    pub(crate) fn serving(&self, place: usize) -> Option<(DiskId, ShardStore<DiskOf<E>>)> {
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

    async fn open(&self, env: &E, cluster: ClusterId) -> Result<ShardStore<DiskOf<E>>, OpenError> {
        let disk = env.disks().open(&self.options.path).await.map_err(SuperblockError::from)?;
        let superblock = match superblock::inspect(&disk, cluster).await? {
            Found::Ours(superblock) => superblock,
            Found::Fresh => {
                let uuid = DiskUuid(env.rng().u128());
                let superblock = Superblock { cluster, uuid, created: env.clock().wall() };
                superblock::format(&disk, &superblock).await?;
                info!(disk = %self.options.name, %uuid, "disk formatted");
                superblock
            }
        };
        let limit_bytes = self.options.capacity.map(|capacity| capacity.0);
        Ok(ShardStore::open(disk, superblock, limit_bytes).await?)
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
