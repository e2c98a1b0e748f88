//! The shard store of one disk: one file a shard.
//!
//! A write goes to a file of a temporary name, is flushed, renamed to the shard's name, and the
//! names are flushed; only then is it acknowledged, and only then does the index in memory know it.
//! Many writes share one flush of names. So whatever the moment of a crash, a shard's name shows a
//! whole file or none, and every acknowledged shard is there.
//!
//! Promised: an acknowledged shard survives; one whose deletion is acknowledged stays deleted; what is
//! read was verified against its checksums, and was written under this name to this disk. A shard is
//! never changed: the same again is a success, other bytes are refused.
//!
//! Once a write or flush fails with an I/O error the disk takes no more writes, since a later success
//! would prove nothing; reads go on.
//!
//! Left to others: who may write and read, and repair of what is damaged.
//!
//! Dropping the future of a change leaves open whether it takes place, and may leave a file that the
//! index does not know until the next start: run changes in tasks of their own.

pub(crate) mod capacity;
mod error;
mod index;
mod record;
pub(crate) mod shard;
pub mod survey;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use codec::{block_checksums, verify_blocks};
use env::{AlignedBuf, Disk, DiskFile, FileName, Priority, Read, StorageError, StorageErrorKind, Write};
use futures_util::{StreamExt, stream};
use proto::limits::BLOCK_BYTES;
use proto::{Epoch, ExtentId, GroupId, InvalidInput, ShardName, SlotIndex};
use tracing::{error, warn};

use crate::coalesce::Coalesced;
use crate::keyed::KeyedLocks;
use crate::superblock::Superblock;
use index::{Entry, Index, TEMPORARY_PREFIX};

pub use error::{Durable, StoreError};
pub use index::Held;
pub use record::{BLOCKS_MAX, HEADER_BYTES, ShardHeader, VERSION};
pub use shard::{CheckedShard, NewShard, Presence, Removed, ShardPage, ShardRead, ShardStat, StoreReport};

/// Shards that are deleted before their names are flushed together.
const DELETE_BATCH: usize = 1024;
/// Headers that a listing reads at the same time.
const LIST_IN_FLIGHT: usize = 16;

/// The shards of one disk. Clones are the same store.
#[derive(Debug)]
pub struct ShardStore<D: Disk> {
    inner: Arc<Inner<D>>,
}

impl<D: Disk> Clone for ShardStore<D> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

struct Inner<D> {
    disk: D,
    superblock: Superblock,
    index: Mutex<Index>,
    names: KeyedLocks<ShardName>,
    name_flush: Coalesced,
    next_temporary: AtomicU64,
    failure: OnceLock<String>,
    damaged_blocks: AtomicU64,
}

impl<D> std::fmt::Debug for Inner<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("superblock", &self.superblock).finish_non_exhaustive()
    }
}

impl<D: Disk> ShardStore<D> {
    /// Opens the store of a formatted disk, which may hold `limit_bytes` at most: lists its files and
    /// removes what interrupted writes left.
    ///
    /// # Errors
    ///
    /// `Failed` when the disk cannot be listed or written.
    pub async fn open(disk: D, superblock: Superblock, limit_bytes: Option<u64>) -> Result<Self, StoreError> {
        let space = disk.space().await.map_err(|error| StoreError::failed(&error))?;
        let mut index = Index::new(limit_bytes, space);
        index::load(&disk, &mut index).await?;
        let inner = Inner {
            disk,
            superblock,
            index: Mutex::new(index),
            names: KeyedLocks::new(),
            name_flush: Coalesced::default(),
            next_temporary: AtomicU64::new(0),
            failure: OnceLock::new(),
            damaged_blocks: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Which disk this is.
    pub fn superblock(&self) -> &Superblock {
        &self.inner.superblock
    }

    /// Writes a shard. The same shard again is a success; one whose file is damaged is replaced.
    ///
    /// # Errors
    ///
    /// `Conflict`, `Full`, `Failed`. After an error the shard may be found at the next start.
    pub async fn put(
        &self,
        shard: CheckedShard,
        priority: Priority,
    ) -> Result<Durable<ShardStat>, StoreError> {
        let inner = &*self.inner;
        let name = shard.name();
        let header = shard.header(inner.superblock.cluster, inner.superblock.uuid);
        let _alone = inner.names.lock(name).await;
        inner.check_works()?;
        if let Some(there) = inner.header_if_there(name, priority).await? {
            let same = there.shard_bytes == header.shard_bytes && there.block_crcs == header.block_crcs;
            let stat = ShardStat::of(&there);
            return if same { Ok(Durable::proven(stat)) } else { Err(StoreError::Conflict(name)) };
        }
        let file_bytes = shard.file_bytes();
        let room = Room::reserve(inner, file_bytes)?;
        inner.write_file(&name, shard.into_file(&header), priority).await?;
        inner.flush_names().await?;
        room.settle(name);
        Ok(Durable::proven(ShardStat::of(&header)))
    }

    /// Reads `blocks` whole 64 KiB blocks from `first_block` on, or up to the end when `blocks` is 0,
    /// and verifies each.
    ///
    /// # Errors
    ///
    /// `NoSuchShard`, `Damaged`, and `Invalid` for blocks that the shard does not have.
    pub async fn read(
        &self,
        name: ShardName,
        first_block: u32,
        blocks: u32,
        priority: Priority,
    ) -> Result<ShardRead, StoreError> {
        let wanted = (first_block as usize, blocks as usize);
        let (header, bytes, range) = self.inner.read_verified(name, wanted, priority).await?;
        let block_crcs = header.block_crcs[range].to_vec();
        let ShardHeader { shard_bytes, tenant_tag, .. } = header;
        Ok(ShardRead { bytes, block_crcs, shard_bytes, tenant_tag })
    }

    /// Reads and verifies a whole shard without handing it out.
    ///
    /// # Errors
    ///
    /// `Failed` when the engine breaks its contract; trouble with the shard is an answer.
    pub async fn check(&self, name: ShardName, priority: Priority) -> Result<Presence, StoreError> {
        match self.inner.read_verified(name, (0, 0), priority).await {
            Ok((header, _, _)) => Ok(Presence::Whole(ShardStat::of(&header))),
            Err(StoreError::NoSuchShard(_)) => Ok(Presence::Absent),
            Err(StoreError::Damaged { .. }) => Ok(Presence::Damaged),
            Err(error) => Err(error),
        }
    }

    /// Deletes one shard, if there is one.
    ///
    /// # Errors
    ///
    /// `Failed`; then it may be there again after a crash.
    pub async fn delete(&self, name: ShardName) -> Result<Durable<Removed>, StoreError> {
        self.inner.delete(vec![name]).await.map(Durable::proven)
    }

    /// Deletes all shards that `slot` has of an extent.
    ///
    /// # Errors
    ///
    /// `Failed`; then some may be there again after a crash.
    pub async fn delete_extent(
        &self,
        group: GroupId,
        extent: ExtentId,
        slot: SlotIndex,
    ) -> Result<Durable<Removed>, StoreError> {
        let next = |index: &Index| index.of_extent(group, extent, DELETE_BATCH, |name| name.slot == slot);
        self.inner.delete_all(next).await
    }

    /// Deletes all shards that `slot` has of a group.
    ///
    /// # Errors
    ///
    /// `Failed`; then some may be there again after a crash.
    pub async fn delete_slot(&self, group: GroupId, slot: SlotIndex) -> Result<Durable<Removed>, StoreError> {
        let next = |index: &Index| index.of_group(group, None, DELETE_BATCH, |name| name.slot == slot);
        self.inner.delete_all(next).await
    }

    /// At most `limit` shards of a group after `after`, in order.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read) but for damage, which does not keep a shard from being listed.
    pub async fn list(
        &self,
        group: GroupId,
        after: Option<ShardName>,
        limit: usize,
    ) -> Result<ShardPage, StoreError> {
        let inner = &*self.inner;
        let mut names = inner.index().of_group(group, after, limit.saturating_add(1), |_| true);
        let more = names.len() > limit;
        names.truncate(limit);
        let mut stats = stream::iter(names).map(|name| inner.stat(name)).buffered(LIST_IN_FLIGHT);
        let mut shards = Vec::new();
        while let Some(stat) = stats.next().await {
            shards.extend(stat?);
        }
        Ok(ShardPage { shards, more })
    }

    /// The groups of which there are shards, in order; read from memory.
    pub fn groups(&self) -> Vec<GroupId> {
        self.inner.index().groups()
    }

    /// What there is of the group's extents after `after` and up to `through`, by extent and slot; read from
    /// memory. Ends with the extent that brings it to `shards_max` shards or more; true when others follow.
    pub fn held(
        &self,
        group: GroupId,
        after: Option<ExtentId>,
        through: ExtentId,
        shards_max: usize,
    ) -> (Vec<Held>, bool) {
        self.inner.index().held(group, after, through, shards_max)
    }

    /// Bytes that the shards take; read from memory.
    pub fn used_bytes(&self) -> u64 {
        self.inner.index().used_bytes()
    }

    /// How the store is doing; asks the disk for its room.
    pub async fn report(&self) -> StoreReport {
        let inner = &*self.inner;
        let space = inner.disk.space().await;
        let mut index = inner.index();
        // A disk that does not even tell its room cannot be written to, and is not waited for until somebody tries.
        let silent = match space {
            Ok(space) => {
                index.set_space(space);
                None
            }
            Err(error) => (error.kind() != StorageErrorKind::Busy).then(|| error.to_string()),
        };
        StoreReport {
            capacity_bytes: index.capacity_bytes(),
            used_bytes: index.used_bytes(),
            shards: index.len(),
            failure: inner.failure.get().cloned().or(silent),
            engine: inner.disk.engine(),
            damaged_blocks: inner.damaged_blocks.load(Ordering::Relaxed),
            full: index.is_full(),
        }
    }

    /// Bytes of a shard's file; `None` when there is no such shard or its file is damaged.
    pub fn file_bytes(&self, name: &ShardName) -> Option<usize> {
        let file_bytes = self.inner.index().get(name)?.file_bytes()?;
        usize::try_from(file_bytes).ok()
    }
}

/// Room that is given back unless the file becomes a shard.
struct Room<'a, D: Disk> {
    inner: &'a Inner<D>,
    file_bytes: u64,
    settled: bool,
}

impl<'a, D: Disk> Room<'a, D> {
    fn reserve(inner: &'a Inner<D>, file_bytes: u64) -> Result<Self, StoreError> {
        inner.index().reserve(file_bytes)?;
        Ok(Self { inner, file_bytes, settled: false })
    }

    fn settle(mut self, name: ShardName) {
        self.settled = true;
        self.inner.index().settle(name, self.file_bytes);
    }
}

impl<D: Disk> Drop for Room<'_, D> {
    fn drop(&mut self) {
        if !self.settled {
            self.inner.index().release(self.file_bytes);
        }
    }
}

impl<D: Disk> Inner<D> {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_works(&self) -> Result<(), StoreError> {
        self.failure.get().map_or(Ok(()), |cause| Err(StoreError::Failed(cause.clone())))
    }

    /// The disk failed at a change: it takes no more of them.
    fn fail(&self, error: &StorageError) -> StoreError {
        match error.kind() {
            StorageErrorKind::Full => return StoreError::Full { used_bytes: self.index().used_bytes() },
            StorageErrorKind::Busy => return StoreError::failed(error),
            _ => {}
        }
        let cause = error.to_string();
        error!(disk = %self.superblock.uuid, error = %cause, "disk failed: it takes no more writes");
        StoreError::Failed(self.failure.get_or_init(|| cause).clone())
    }

    async fn flush_names(&self) -> Result<(), StoreError> {
        let flush = || async {
            self.check_works()?;
            self.disk.flush_names().await.map_err(|error| self.fail(&error))
        };
        self.name_flush.run(flush).await
    }

    async fn write_file(
        &self,
        name: &ShardName,
        buf: AlignedBuf,
        priority: Priority,
    ) -> Result<(), StoreError> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = parse_name(format!("{TEMPORARY_PREFIX}{number:016x}"))?;
        let target = shard_file(name)?;
        let written = async {
            let file = self.disk.create(&temporary, buf.capacity() as u64).await?;
            file.write(vec![Write { offset: 0, buf }], priority).await?;
            file.flush().await?;
            self.disk.rename(&temporary, &target).await
        };
        let Err(error) = written.await else { return Ok(()) };
        // What is left of it costs room only until the next start.
        if let Err(error) = self.disk.remove(&temporary).await
            && error.kind() != StorageErrorKind::NotFound
        {
            warn!(file = %temporary, %error, "temporary file not removed");
        }
        Err(self.fail(&error))
    }

    /// The header of a shard that is there and has a whole one.
    async fn header_if_there(
        &self,
        name: ShardName,
        priority: Priority,
    ) -> Result<Option<ShardHeader>, StoreError> {
        match self.header(name, priority).await {
            Ok(header) => Ok(Some(header)),
            Err(StoreError::NoSuchShard(_) | StoreError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn stat(&self, name: ShardName) -> Result<Option<ShardStat>, StoreError> {
        match self.header(name, Priority::Scrub).await {
            Ok(header) => Ok(Some(ShardStat::of(&header))),
            // Deleted since the page began.
            Err(StoreError::NoSuchShard(_)) => Ok(None),
            Err(StoreError::Damaged { .. }) => {
                let file_bytes = self.index().get(&name).and_then(Entry::file_bytes).unwrap_or(0);
                let payload = file_bytes.saturating_sub(HEADER_BYTES as u64);
                let shard_bytes = u32::try_from(payload).unwrap_or(u32::MAX);
                Ok(Some(ShardStat { name, shard_bytes, epoch: Epoch(0) }))
            }
            Err(error) => Err(error),
        }
    }

    async fn header(&self, name: ShardName, priority: Priority) -> Result<ShardHeader, StoreError> {
        let (header, _) = self.read_file(name, None, priority).await?;
        Ok(header)
    }

    /// Reads blocks (first, count; 0 for all to the end), and verifies each.
    async fn read_verified(
        &self,
        name: ShardName,
        wanted: (usize, usize),
        priority: Priority,
    ) -> Result<(ShardHeader, Bytes, Range<usize>), StoreError> {
        let (header, payload) = self.read_file(name, Some(wanted), priority).await?;
        let Some((bytes, range)) = payload else {
            return Err(StoreError::Failed("the engine gave no blocks".to_owned()));
        };
        let first_block = u32::try_from(range.start).unwrap_or(u32::MAX);
        let crcs = &header.block_crcs[range.clone()];
        if verify_blocks(&bytes, first_block, crcs).is_err() {
            return Err(self.damaged_blocks(name, first_block, &bytes, crcs));
        }
        Ok((header, bytes, range))
    }

    fn damaged_blocks(&self, name: ShardName, first_block: u32, bytes: &[u8], crcs: &[u32]) -> StoreError {
        let found = block_checksums(bytes);
        let bad: Vec<u64> = (u64::from(first_block)..)
            .zip(found.iter().zip(crcs))
            .filter(|(_, (found, expected))| found != expected)
            .map(|(block, _)| block)
            .collect();
        self.damaged(name, bad.len() as u64, format!("blocks {bad:?} do not match their checksums"))
    }

    fn damaged(&self, name: ShardName, count: u64, problem: String) -> StoreError {
        self.damaged_blocks.fetch_add(count, Ordering::Relaxed);
        warn!(disk = %self.superblock.uuid, shard = %name, problem, "damaged shard");
        StoreError::Damaged { name, problem }
    }

    /// Reads the header and, when wanted, blocks of the payload (first, count; 0 for all to the end),
    /// in one batch. The header is verified, and is this shard's; the payload is not verified.
    async fn read_file(
        &self,
        name: ShardName,
        wanted: Option<(usize, usize)>,
        priority: Priority,
    ) -> Result<(ShardHeader, Option<(Bytes, Range<usize>)>), StoreError> {
        let entry = self.index().get(&name).ok_or(StoreError::NoSuchShard(name))?;
        let Some(file_bytes) = entry.file_bytes() else {
            return Err(self.damaged(name, 1, "its file has a length that no shard has".to_owned()));
        };
        let room = usize::try_from(file_bytes).unwrap_or(usize::MAX) - HEADER_BYTES;
        let range = wanted.map(|(first, count)| block_range(name, room, first, count)).transpose()?;
        let file = match self.disk.open(&shard_file(&name)?).await {
            Ok(file) => file,
            Err(_) if self.index().get(&name).is_none() => return Err(StoreError::NoSuchShard(name)),
            Err(error) => return Err(self.damaged(name, 1, error.to_string())),
        };
        let mut batch = vec![Read { offset: 0, buf: AlignedBuf::zeroed(HEADER_BYTES) }];
        if let Some(range) = &range {
            let (start, end) = (range.start * BLOCK_BYTES, room.min(range.end * BLOCK_BYTES));
            let offset = (HEADER_BYTES + start) as u64;
            batch.push(Read { offset, buf: AlignedBuf::zeroed(end - start) });
        }
        let mut answers = file.read(batch, priority).await.into_iter();
        let mut next = || match answers.next() {
            Some(Ok(buf)) => Ok(buf),
            Some(Err(error)) if error.kind() == StorageErrorKind::Busy => Err(StoreError::failed(&error)),
            Some(Err(error)) => Err(self.damaged(name, 1, format!("it cannot be read: {error}"))),
            None => Err(StoreError::Failed("the engine gave no answer to a read".to_owned())),
        };
        let header = self.check_header(name, next()?.as_slice(), room)?;
        let Some(range) = range else { return Ok((header, None)) };
        let mut payload = next()?;
        let end = (header.shard_bytes as usize).min(range.end * BLOCK_BYTES) - range.start * BLOCK_BYTES;
        if payload.len() < end {
            return Err(self.damaged(name, 1, "its file ends early".to_owned()));
        }
        payload.set_len(end);
        Ok((header, Some((payload.freeze(), range))))
    }

    fn check_header(&self, name: ShardName, page: &[u8], room: usize) -> Result<ShardHeader, StoreError> {
        let header = ShardHeader::decode(page)
            .map_err(|problem| self.damaged(name, 1, format!("the header is not whole: {problem}")))?;
        let here = (self.superblock.cluster, self.superblock.uuid, name);
        if (header.cluster, header.disk, header.name) != here {
            let problem = format!("the file is that of shard {} of disk {}", header.name, header.disk);
            return Err(self.damaged(name, 1, problem));
        }
        let pages = (header.shard_bytes as usize).next_multiple_of(HEADER_BYTES);
        if pages != room {
            let problem = format!("the file has room for {room} bytes, the shard has {}", header.shard_bytes);
            return Err(self.damaged(name, 1, problem));
        }
        Ok(header)
    }

    /// Deletes batch after batch until `next` gives none.
    async fn delete_all(
        &self,
        next: impl Fn(&Index) -> Vec<ShardName>,
    ) -> Result<Durable<Removed>, StoreError> {
        let mut all = Removed::default();
        loop {
            let batch = next(&self.index());
            let last = batch.len() < DELETE_BATCH;
            let Removed { shards, bytes } = self.delete(batch).await?;
            all = Removed { shards: all.shards + shards, bytes: all.bytes + bytes };
            if last {
                return Ok(Durable::proven(all));
            }
        }
    }

    async fn delete(&self, batch: Vec<ShardName>) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        for name in batch {
            if let Some(entry) = self.remove_file(name).await? {
                removed.shards += 1;
                removed.bytes += entry.file_bytes().unwrap_or(0);
            }
        }
        // Even without a shard: another deletion of it may be on its way to the disk.
        self.flush_names().await?;
        Ok(removed)
    }

    async fn remove_file(&self, name: ShardName) -> Result<Option<Entry>, StoreError> {
        let _alone = self.names.lock(name).await;
        self.check_works()?;
        let file = shard_file(&name)?;
        // First from the index: who reads meanwhile is told that there is no such shard.
        let Some(entry) = self.index().remove(&name) else { return Ok(None) };
        match self.disk.remove(&file).await {
            Ok(()) => Ok(Some(entry)),
            Err(error) if error.kind() == StorageErrorKind::NotFound => Ok(Some(entry)),
            Err(error) => {
                self.index().restore(name, entry);
                Err(self.fail(&error))
            }
        }
    }
}

fn block_range(name: ShardName, room: usize, first: usize, count: usize) -> Result<Range<usize>, StoreError> {
    let blocks = room.div_ceil(BLOCK_BYTES);
    let end = if count == 0 { blocks } else { first.saturating_add(count) };
    if first < end && end <= blocks {
        return Ok(first..end);
    }
    Err(StoreError::Invalid(format!(
        "{count} blocks from {first} on of shard {name}, which has {blocks} blocks"
    )))
}

fn shard_file(name: &ShardName) -> Result<FileName, StoreError> {
    parse_name(record::file_name(name))
}

fn parse_name(text: String) -> Result<FileName, StoreError> {
    text.parse().map_err(|error: InvalidInput| StoreError::Invalid(error.to_string()))
}
