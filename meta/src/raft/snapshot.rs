//! Snapshots: checkpoints `snapshot-<index>-<sequence>` of the state store, and what arrives from a
//! leader in their place.

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};

use env::{KeyRange, Kv, Kvs, Order, Row, StorageErrorKind, Table};
use tokio::sync::Mutex;

use super::handle::{Handle, User, io_error};
use super::machine::Spare;
use super::replica::{TABLES, read_meta};
use super::types::SnapshotMeta;

/// A snapshot, as openraft passes it around: a handle, no data.
pub struct SnapshotData<S: Kvs> {
    pub(crate) source: Source<S>,
}

/// Where the rows of a snapshot are.
pub(crate) enum Source<S: Kvs> {
    /// In a checkpoint; the snapshot may be one of another server, in tests.
    Checkpoint(Arc<Checkpoint<S>>),
    /// In a state store of this server that is not yet in use, complete and flushed.
    Received(Spare<S>),
}

impl<S: Kvs> fmt::Debug for SnapshotData<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Checkpoint(checkpoint) => f.write_str(&checkpoint.name),
            Source::Received(spare) => write!(f, "state-{}", spare.number()),
        }
    }
}

impl<S: Kvs> SnapshotData<S> {
    /// Opens the rows of the snapshot.
    pub(crate) async fn open(&self) -> io::Result<Arc<Handle<S::Kv>>> {
        match &self.source {
            Source::Checkpoint(checkpoint) => checkpoint.open().await,
            Source::Received(spare) => Ok(Arc::new(spare.kv().clone())),
        }
    }
}

/// A checkpoint on disk. It is opened when somebody reads it, once for all who do at a time.
pub(crate) struct Checkpoint<S: Kvs> {
    stores: S,
    user: User,
    name: String,
    opened: Mutex<Weak<Handle<S::Kv>>>,
}

impl<S: Kvs> Checkpoint<S> {
    fn new(stores: S, user: User, name: String) -> Arc<Self> {
        Arc::new(Self { stores, user, name, opened: Mutex::default() })
    }

    pub(crate) async fn open(&self) -> io::Result<Arc<Handle<S::Kv>>> {
        let mut opened = self.opened.lock().await;
        if let Some(kv) = opened.upgrade() {
            return Ok(kv);
        }
        let kv = self.stores.open(&self.name, &TABLES).await.map_err(io_error)?;
        let kv = Arc::new(self.user.holding(kv));
        *opened = Arc::downgrade(&kv);
        Ok(kv)
    }
}

/// The newest snapshot of this server, and the removal of the others.
pub(crate) struct Shelf<S: Kvs> {
    stores: S,
    user: User,
    sequence: u64,
    current: Option<(SnapshotMeta, Arc<Checkpoint<S>>)>,
}

/// Place of a snapshot among all of a server: index, then sequence.
type Place = (u64, u64);

fn place_of(name: &str) -> Option<Place> {
    let (index, sequence) = name.strip_prefix("snapshot-")?.split_once('-')?;
    Some((index.parse().ok()?, sequence.parse().ok()?))
}

impl<S: Kvs> Shelf<S> {
    /// Finds the newest snapshot that can be read, and removes all others.
    pub(crate) async fn open(stores: S, user: User) -> io::Result<Self> {
        let mut places: Vec<(Place, String)> = Vec::new();
        for name in stores.list().await.map_err(io_error)? {
            places.extend(place_of(&name).map(|place| (place, name)));
        }
        places.sort();
        let sequence = places.iter().map(|((_, sequence), _)| *sequence).max().unwrap_or(0);
        let mut shelf = Self { stores, user, sequence, current: None };
        while let Some((_, name)) = places.pop() {
            let checkpoint = Checkpoint::new(shelf.stores.clone(), shelf.user.clone(), name);
            match checkpoint.open().await.and_then(|kv| read_meta(&**kv)) {
                Ok(meta) => {
                    shelf.current = Some((meta, checkpoint));
                    break;
                }
                // It can be made anew at any time; the state itself is elsewhere.
                Err(error) => {
                    tracing::warn!(snapshot = checkpoint.name, %error, "snapshot dropped: it cannot be read");
                }
            }
        }
        shelf.sweep().await?;
        Ok(shelf)
    }

    /// The newest snapshot.
    pub(crate) fn current(&self) -> Option<(SnapshotMeta, SnapshotData<S>)> {
        let (meta, checkpoint) = self.current.as_ref()?;
        Some((meta.clone(), SnapshotData { source: Source::Checkpoint(checkpoint.clone()) }))
    }

    /// Makes a snapshot of a store that nobody writes to meanwhile and that is the state after
    /// `meta`. It becomes the current one.
    pub(crate) async fn take(&mut self, kv: &Handle<S::Kv>, meta: SnapshotMeta) -> io::Result<()> {
        // First what the snapshot stands for must be durable in the store itself, since the log
        // behind it may then be purged.
        kv.flush().await.map_err(io_error)?;
        self.sequence += 1;
        let index = meta.last_log_id.as_ref().map_or(0, |last| last.index);
        let name = format!("snapshot-{index:020}-{:010}", self.sequence);
        kv.checkpoint(&name).await.map_err(io_error)?;
        let checkpoint = Checkpoint::new(self.stores.clone(), self.user.clone(), name);
        self.current = Some((meta, checkpoint));
        self.sweep().await
    }

    /// Removes all snapshots but the current one. What is being sent stays until the next time.
    async fn sweep(&self) -> io::Result<()> {
        let current = self.current.as_ref().map(|(_, checkpoint)| checkpoint.name.as_str());
        for name in self.stores.list().await.map_err(io_error)? {
            if place_of(&name).is_some() && Some(name.as_str()) != current {
                remove_unused(&self.stores, &name).await?;
            }
        }
        Ok(())
    }
}

/// Removes a store unless somebody uses it.
pub(crate) async fn remove_unused<S: Kvs>(stores: &S, name: &str) -> io::Result<()> {
    match stores.remove(name).await {
        Err(error) if error.kind() != StorageErrorKind::Locked => Err(io_error(error)),
        _ => Ok(()),
    }
}

/// The next row of a snapshot, in the order of [`TABLES`] and keys: a page at a time.
#[derive(Debug)]
pub(crate) struct Rows<K> {
    kv: Arc<Handle<K>>,
    table: usize,
    range: KeyRange,
}

/// Rows read from a snapshot at a time.
const PAGE_ROWS: usize = 256;

impl<K: Kv> Rows<K> {
    pub(crate) fn new(kv: Arc<Handle<K>>) -> Self {
        Self { kv, table: 0, range: KeyRange::all() }
    }

    /// The next rows of one table; none after the last of the last.
    pub(crate) fn next(&mut self) -> io::Result<Option<(Table, Vec<Row>)>> {
        while let Some(table) = TABLES.get(self.table) {
            let rows = self.kv.scan(table, &self.range, Order::Ascending, PAGE_ROWS).map_err(io_error)?;
            match rows.last() {
                Some((last, _)) => {
                    self.range = KeyRange::all().after(last);
                    return Ok(Some((table, rows)));
                }
                None => {
                    self.table += 1;
                    self.range = KeyRange::all();
                }
            }
        }
        Ok(None)
    }
}
