//! The shard store of one disk: a log of segments, and an index that can be lost.
//!
//! A shard is one record in the log: a page that says what it is and where it lies, then its bytes. The records of
//! all who write at the same moment are one batch: one write, one flush ([`writer`]); only then does the index know
//! them, and only then are they acknowledged. A deletion is a record, too. The index ([`index`]) is a cache of the
//! log in a key-value store: it is never flushed on the path of a write, after a crash it is brought up to date from
//! the tail of the log ([`replay`]), and without it everything is found again in the segments ([`rebuild`]). Room that
//! deletions leave comes back when what lives in a segment is copied to the log's end ([`compact`]).
//!
//! Promised: an acknowledged shard survives; one whose deletion is acknowledged stays deleted; what is read was
//! verified against its checksums, and was written under this name to this place of this disk. A shard is never
//! changed: the same again is a success, other bytes are refused. An idle disk sees no I/O.
//!
//! Once a write or flush fails with an I/O error the disk takes no more writes, since a later success would prove
//! nothing; reads go on.
//!
//! Left to others: who may write and read, and repair of what is damaged.
//!
//! Dropping the future of a change leaves open whether it takes place.

mod compact;
mod error;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub(crate) mod index;
mod inspect;
#[cfg(test)]
mod model;
mod problem;
mod read;
mod rebuild;
pub(crate) mod record;
mod recover;
mod replay;
mod room;
mod scan;
mod seen;
mod segment;
mod shard;
pub mod survey;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tombstone;
mod writer;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use env::{Disk, Kv, Priority, StorageError, StorageErrorKind};
use futures_util::{StreamExt, stream};
use proto::hint::MATRIX;
use proto::{ExtentId, GroupId, ProfileId, ShardName, SlotIndex};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::keyed::KeyedLocks;
use crate::superblock::Superblock;
use index::{Index, IndexProblem};
use record::{Realm, SegmentId, ShardMeta, Tombstone, segment_file};
use room::Room;
use survey::RecordPlace;
use writer::{Append, Request, What};

pub use error::{Durable, StoreError};
pub use index::TABLES as INDEX_TABLES;
pub use inspect::LogDamage;
pub use record::PAGE_BYTES as HEADER_BYTES;
pub use shard::{
    CheckedShard, Held, NewShard, Presence, Removed, ShardAbout, ShardPage, ShardRead, ShardStat, StoreReport,
};

/// Shards that are deleted with one record.
const DELETE_BATCH: usize = record::TOMBSTONES_MAX;
/// Requests that wait for the writer.
const QUEUE_MAX: usize = 1024;
/// Headers that a listing reads at the same time.
const LIST_IN_FLIGHT: usize = 16;

/// The shards of one disk. Clones are the same store.
pub struct ShardStore<D: Disk, K: Kv> {
    inner: Arc<Inner<D, K>>,
    requests: mpsc::Sender<Request>,
}

impl<D: Disk, K: Kv> Clone for ShardStore<D, K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), requests: self.requests.clone() }
    }
}

impl<D: Disk, K: Kv> std::fmt::Debug for ShardStore<D, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardStore").field("superblock", &self.inner.superblock).finish_non_exhaustive()
    }
}

/// What readers and the writer share.
struct Inner<D: Disk, K: Kv> {
    disk: D,
    superblock: Superblock,
    realm: Realm,
    segment_bytes: u64,
    index: Index<K>,
    /// Segments that have been opened.
    files: Mutex<BTreeMap<SegmentId, D::File>>,
    names: KeyedLocks<ShardName>,
    /// Held while a segment is made.
    making: tokio::sync::Mutex<()>,
    room: Mutex<Room>,
    failure: OnceLock<String>,
    damaged_blocks: AtomicU64,
    /// All records up to this sequence are durable.
    durable_to: AtomicU64,
}

impl<D: Disk, K: Kv> ShardStore<D, K> {
    /// Opens the log of a formatted disk, which may take `limit_bytes` at most, and brings its index up to date: from
    /// the index's position on, or, when it is missing or does not fit, from all segments. The second part of the
    /// answer is the writer: whoever opens the store runs it; it ends when the last clone of the store is dropped.
    ///
    /// # Errors
    ///
    /// `Failed` when disk or index cannot be read or written.
    pub async fn open(
        disk: D,
        kv: K,
        superblock: Superblock,
        limit_bytes: Option<u64>,
    ) -> Result<(Self, impl Future<Output = ()> + Send + 'static), StoreError> {
        let (realm, segment_bytes) = (superblock.realm(), superblock.segment_bytes);
        let (index, tail) = recover::recover(&disk, kv, realm, segment_bytes).await?;
        let space = disk.space().await.map_err(|error| StoreError::failed(&error))?;
        let room = Room::new(limit_bytes, space, segment_bytes, index.segments().len());
        let inner = Arc::new(Inner {
            disk,
            superblock,
            realm,
            segment_bytes,
            index,
            files: Mutex::new(BTreeMap::new()),
            names: KeyedLocks::new(),
            making: tokio::sync::Mutex::new(()),
            room: Mutex::new(room),
            failure: OnceLock::new(),
            damaged_blocks: AtomicU64::new(tail.damaged_records),
            durable_to: AtomicU64::new(tail.last),
        });
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let work = writer::run(inner.clone(), queue, tail);
        Ok((Self { inner, requests }, work))
    }

    /// Which disk this is.
    pub fn superblock(&self) -> &Superblock {
        &self.inner.superblock
    }

    /// Writes a shard. The same shard again is a success; one that is damaged is replaced.
    ///
    /// # Errors
    ///
    /// `Conflict`, `Full`, `Busy`, `Failed`, and `Invalid` for a shard that no segment has room for. After an error the shard may be found at the next start.
    pub async fn put(
        &self,
        shard: CheckedShard,
        priority: Priority,
    ) -> Result<Durable<ShardStat>, StoreError> {
        let inner = &*self.inner;
        let name = shard.name();
        let _alone = inner.names.lock(name).await;
        inner.check_works()?;
        let record_bytes = shard.record_bytes();
        inner.check_fits(record_bytes)?;
        let parts = shard.into_parts();
        let stat = ShardStat { name, shard_bytes: parts.shard_bytes, epoch: parts.epoch };
        if let Some(there) = inner.meta_if_there(name, priority).await? {
            let same = there.shard_bytes == parts.shard_bytes && there.block_crcs == parts.block_crcs;
            let stat = ShardStat { epoch: there.epoch, ..stat };
            return if same { Ok(Durable::proven(stat)) } else { Err(StoreError::Conflict(name)) };
        }
        let _room = inner.reserve(record_bytes)?;
        let meta = ShardMeta {
            name,
            epoch: parts.epoch,
            tenant_tag: parts.tenant_tag,
            profile: ProfileId(0),
            matrix: MATRIX,
            born: 0,
            from: None,
            shard_bytes: parts.shard_bytes,
            hint: parts.hint,
            block_crcs: parts.block_crcs,
        };
        self.append(What::Shard(Box::new(meta), parts.buf), priority).await?;
        Ok(Durable::proven(stat))
    }

    /// Reads `blocks` whole 64 KiB blocks from `first_block` on, or up to the end when `blocks` is 0,
    /// and verifies each.
    ///
    /// # Errors
    ///
    /// `NoSuchShard`, `Damaged`, `Busy`, and `Invalid` for blocks that the shard does not have.
    pub async fn read(
        &self,
        name: ShardName,
        first_block: u32,
        blocks: u32,
        priority: Priority,
    ) -> Result<ShardRead, StoreError> {
        let wanted = (first_block as usize, blocks as usize);
        let (meta, bytes, range) = self.inner.read_verified(name, wanted, priority).await?;
        let block_crcs = meta.block_crcs.get(range).unwrap_or_default().to_vec();
        let ShardMeta { shard_bytes, tenant_tag, hint, .. } = meta;
        Ok(ShardRead { bytes, block_crcs, shard_bytes, tenant_tag, hint })
    }

    /// What the record of a shard says, if the shard is there and its record whole; reads no block of it.
    ///
    /// # Errors
    ///
    /// `Busy`, `Failed`.
    pub async fn about(&self, name: ShardName, priority: Priority) -> Result<Option<ShardAbout>, StoreError> {
        let meta = self.inner.meta_if_there(name, priority).await?;
        Ok(meta.map(|ShardMeta { shard_bytes, epoch, tenant_tag, matrix, hint, .. }| ShardAbout {
            stat: ShardStat { name, shard_bytes, epoch },
            tenant_tag,
            matrix,
            hint,
        }))
    }

    /// Reads and verifies a whole shard without handing it out.
    ///
    /// # Errors
    ///
    /// `Busy`, `Failed`; trouble with the shard is an answer.
    pub async fn check(&self, name: ShardName, priority: Priority) -> Result<Presence, StoreError> {
        match self.inner.read_verified(name, (0, 0), priority).await {
            Ok((ShardMeta { epoch, shard_bytes, .. }, _, _)) => {
                Ok(Presence::Whole(ShardStat { name, shard_bytes, epoch }))
            }
            Err(StoreError::NoSuchShard(_)) => Ok(Presence::Absent),
            Err(StoreError::Damaged { .. }) => Ok(Presence::Damaged),
            Err(error) => Err(error),
        }
    }

    /// Deletes one shard, if there is one.
    ///
    /// # Errors
    ///
    /// `Busy`, `Failed`; then it may be there again after a crash.
    pub async fn delete(&self, name: ShardName) -> Result<Durable<Removed>, StoreError> {
        self.delete_batch(vec![name]).await.map(Durable::proven)
    }

    /// Deletes all shards that `slot` has of an extent.
    ///
    /// # Errors
    ///
    /// As [`delete`](Self::delete), for some of them.
    pub async fn delete_extent(
        &self,
        group: GroupId,
        extent: ExtentId,
        slot: SlotIndex,
    ) -> Result<Durable<Removed>, StoreError> {
        self.delete_all(|index| index.of_extent(group, extent, DELETE_BATCH, |name| name.slot == slot)).await
    }

    /// Deletes all shards that `slot` has of a group.
    ///
    /// # Errors
    ///
    /// As [`delete`](Self::delete), for some of them.
    pub async fn delete_slot(&self, group: GroupId, slot: SlotIndex) -> Result<Durable<Removed>, StoreError> {
        self.delete_all(|index| index.of_group(group, None, DELETE_BATCH, |name| name.slot == slot)).await
    }

    /// At most `limit` shards of a group after `after`, in order; from the index alone.
    ///
    /// # Errors
    ///
    /// `Failed` when the index cannot be read.
    pub async fn list(
        &self,
        group: GroupId,
        after: Option<ShardName>,
        limit: usize,
    ) -> Result<ShardPage, StoreError> {
        let inner = &*self.inner;
        let names = inner.index.of_group(group, after, limit.saturating_add(1), |_| true);
        let mut names = names.map_err(|error| inner.index_failed(&error))?;
        let more = names.len() > limit;
        names.truncate(limit);
        let stat = |name| async move {
            Ok::<_, StoreError>(inner.locate(name)?.map(|at| ShardStat {
                name,
                shard_bytes: at.shard_bytes,
                epoch: at.epoch,
            }))
        };
        let mut stats = stream::iter(names).map(stat).buffered(LIST_IN_FLIGHT);
        let mut shards = Vec::new();
        while let Some(stat) = stats.next().await {
            shards.extend(stat?);
        }
        Ok(ShardPage { shards, more })
    }

    /// The groups of which there are shards, in order.
    ///
    /// # Errors
    ///
    /// `Failed` when the index cannot be read.
    pub fn groups(&self) -> Result<Vec<GroupId>, StoreError> {
        self.inner.index.groups().map_err(|error| self.inner.index_failed(&error))
    }

    /// What there is of the group's extents after `after` and up to `through`, by extent and slot. Ends with the
    /// extent that brings it to `shards_max` shards or more; true when others follow.
    ///
    /// # Errors
    ///
    /// `Failed` when the index cannot be read.
    pub fn held(
        &self,
        group: GroupId,
        after: Option<ExtentId>,
        through: ExtentId,
        shards_max: usize,
    ) -> Result<(Vec<Held>, bool), StoreError> {
        let held = self.inner.index.held(group, after, through, shards_max);
        held.map_err(|error| self.inner.index_failed(&error))
    }

    /// Bytes that the shards take, headers and padding included.
    pub fn used_bytes(&self) -> u64 {
        self.inner.index.used_bytes()
    }

    /// How the store is doing; asks the disk for its room.
    pub async fn report(&self) -> StoreReport {
        let inner = &*self.inner;
        // A disk that does not even tell its room cannot be written to, and is not waited for until somebody tries.
        let silent = match inner.disk.space().await {
            Ok(space) => {
                inner.room().set_space(space, inner.index.segments().len());
                None
            }
            Err(error) => (error.kind() != StorageErrorKind::Busy).then(|| error.to_string()),
        };
        let used_bytes = inner.index.used_bytes();
        let room = inner.room();
        StoreReport {
            capacity_bytes: room.capacity_bytes(),
            used_bytes,
            shards: inner.index.shards(),
            failure: inner.failure.get().cloned().or(silent),
            engine: inner.disk.engine(),
            damaged_blocks: inner.damaged_blocks.load(Ordering::Relaxed),
            full: room.is_full(used_bytes),
        }
    }

    /// Bytes that a shard takes, header and padding included, if it is there.
    ///
    /// # Errors
    ///
    /// `Failed` when the index cannot be read.
    pub fn record_bytes(&self, name: ShardName) -> Result<Option<u64>, StoreError> {
        Ok(self.inner.locate(name)?.map(|at| at.bytes))
    }

    /// Where a shard lies, if it is there.
    ///
    /// # Errors
    ///
    /// `Failed` when the index cannot be read.
    pub fn place(&self, name: ShardName) -> Result<Option<RecordPlace>, StoreError> {
        Ok(self.inner.locate(name)?.map(|at| RecordPlace::new(at.segment, at.offset, at.bytes)))
    }

    /// Copies what lives in one segment to the log's end and frees it, if there is a segment worth it.
    ///
    /// # Errors
    ///
    /// `Full`, `Busy`, `Failed`; what was copied so far stays so.
    pub async fn compact(&self) -> Result<bool, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Compact(reply))?;
        answer.await.map_err(|_| ended())?
    }

    async fn delete_all(
        &self,
        next: impl Fn(&Index<K>) -> Result<Vec<ShardName>, IndexProblem>,
    ) -> Result<Durable<Removed>, StoreError> {
        let mut all = Removed::default();
        loop {
            let batch = next(&self.inner.index).map_err(|error| self.inner.index_failed(&error))?;
            let last = batch.len() < DELETE_BATCH;
            let Removed { shards, bytes } = self.delete_batch(batch).await?;
            all = Removed { shards: all.shards + shards, bytes: all.bytes + bytes };
            if last {
                return Ok(Durable::proven(all));
            }
        }
    }

    /// The names are in order, so that two deletions never wait for each other.
    async fn delete_batch(&self, batch: Vec<ShardName>) -> Result<Removed, StoreError> {
        let inner = &*self.inner;
        let mut alone = Vec::with_capacity(batch.len());
        for name in &batch {
            alone.push(inner.names.lock(*name).await);
        }
        inner.check_works()?;
        let (mut removed, mut tombstones) = (Removed::default(), Vec::new());
        for name in batch {
            // What the index does not have is durably gone: it forgets a shard only after the flush.
            let Some(at) = inner.locate(name)? else { continue };
            removed.shards += 1;
            removed.bytes += at.bytes;
            let incarnation = inner.index.segment(at.segment).map_or(1, |row| row.incarnation);
            tombstones.push(Tombstone { name, segment: at.segment, incarnation, sequence: 0 });
        }
        if !tombstones.is_empty() {
            self.append(What::Tombstones(tombstones), Priority::Client).await?;
        }
        Ok(removed)
    }

    /// Has it written, and waits until it is durable.
    async fn append(&self, what: What, priority: Priority) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Append(Append { what, priority, reply: Some(reply) }))?;
        answer.await.map_err(|_| ended())?
    }

    fn send(&self, request: Request) -> Result<(), StoreError> {
        self.requests.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => busy(),
            mpsc::error::TrySendError::Closed(_) => ended(),
        })
    }
}

impl<D: Disk, K: Kv> Inner<D, K> {
    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_fits(&self, record_bytes: u64) -> Result<(), StoreError> {
        let most = self.segment_bytes.saturating_sub(2 * HEADER_BYTES as u64);
        if record_bytes <= most {
            return Ok(());
        }
        Err(StoreError::Invalid(format!(
            "a shard of {record_bytes} bytes with its header: segments of this disk hold {most}"
        )))
    }

    fn check_works(&self) -> Result<(), StoreError> {
        self.failure.get().map_or(Ok(()), |cause| Err(StoreError::Failed(cause.clone())))
    }

    /// The disk failed at a change: it takes no more of them.
    fn fail(&self, error: &StorageError) -> StoreError {
        match error.kind() {
            StorageErrorKind::Full => return StoreError::Full { used_bytes: self.index.used_bytes() },
            StorageErrorKind::Busy => return StoreError::failed(error),
            _ => {}
        }
        let cause = error.to_string();
        error!(disk = %self.realm.disk, error = %cause, "disk failed: it takes no more writes");
        StoreError::Failed(self.failure.get_or_init(|| cause).clone())
    }

    /// What the disk did is in doubt, whatever kind of error it was.
    fn fail_in_doubt(&self, error: &StorageError) -> StoreError {
        self.fail(&StorageError::new(StorageErrorKind::Io, error.to_string()))
    }

    /// The index failed: what it does not say cannot be served, and what it does not take is not acknowledged.
    fn index_failed(&self, error: &impl Display) -> StoreError {
        let cause = format!("its index: {error}");
        error!(disk = %self.realm.disk, error = %cause, "disk failed: it takes no more writes");
        StoreError::Failed(self.failure.get_or_init(|| cause).clone())
    }

    /// The file of a segment.
    async fn file(&self, segment: SegmentId) -> Result<D::File, StorageError> {
        let known = self.files().get(&segment).cloned();
        if let Some(file) = known {
            return Ok(file);
        }
        let file = self.disk.open(&segment_file(segment)).await?;
        self.files().insert(segment, file.clone());
        Ok(file)
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<SegmentId, D::File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn busy() -> StoreError {
    StoreError::Busy("too much waits for the disk already: try again".to_owned())
}

fn ended() -> StoreError {
    StoreError::Failed("the store has been closed".to_owned())
}
