//! What lies on a disk that nobody serves: for people who look into a disk, or save what is on it.
//!
//! The log is read like that of a store that has lost its index, with the index in memory: what is found is what a
//! store would find. Nothing is changed and nothing is healed: what would be written to the disk is left out.

use env::{
    AlignedBuf, Disk, DiskFile, FileName, Kv, KvRead, MemoryKv, Priority, Read, Space, StorageError, Write,
};
use proto::{Epoch, ExtentId, GroupId, ShardName};

use super::index::{Location, TABLES, peek_extent, peek_position, peek_segment};
use super::record::{SegmentId, parse_segment_file, segment_file};
use super::recover::index_failed;
use super::{Presence, ShardStat, ShardStore, StoreError};
use crate::superblock::{self, Superblock, SuperblockError};

/// Shards that are listed at once.
const PAGE_SHARDS: usize = 1024;

/// A disk of which nothing is changed: writes and flushes are left out.
#[derive(Clone, Debug)]
pub struct Unchanged<T>(T);

/// A file of such a disk; none for one that would have been made.
#[derive(Clone, Debug)]
pub struct UnchangedFile<F>(Option<F>);

/// The store of a disk, to be read only.
pub type Evidence<D, K = MemoryKv> = ShardStore<Unchanged<D>, K>;

/// Why a disk cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// It is no disk of a cluster.
    #[error("no superblock and no header of a segment is whole: is this the directory of a disk?")]
    NoDisk,
    /// It cannot be read.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// Its log cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What lies on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Which disk it is.
    pub superblock: Superblock,
    /// Every shard whose record can be found, in the order of names.
    pub shards: Vec<Surveyed>,
    /// Damage of the log that has cost a record, or may have.
    pub damaged_records: u64,
}

/// One shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// Which.
    pub name: ShardName,
    /// Of the group when it was written.
    pub epoch: Epoch,
    /// Its length.
    pub shard_bytes: u32,
    /// Every block matches its checksum.
    pub whole: bool,
    /// Where it lies.
    pub place: RecordPlace,
}

/// Where a record lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    /// The file of its segment.
    pub file: FileName,
    /// Where in the file it begins; a multiple of 4096.
    pub offset: u64,
    /// Its length, header and padding included; a multiple of 4096.
    pub bytes: u64,
}

impl RecordPlace {
    pub(super) fn new(segment: SegmentId, offset: u64, bytes: u64) -> Self {
        Self { file: segment_file(segment), offset, bytes }
    }
}

/// Opens the log of a disk to be read.
///
/// # Errors
///
/// See [`SurveyError`].
pub async fn open<D: Disk>(disk: D) -> Result<Evidence<D>, SurveyError> {
    open_with(disk, MemoryKv::new(TABLES)).await
}

/// As [`open`], with an index that may be older than the log, as a store would: it is brought up to date.
///
/// # Errors
///
/// See [`SurveyError`].
pub async fn open_with<D: Disk, K: Kv>(disk: D, index: K) -> Result<Evidence<D, K>, SurveyError> {
    let superblock = superblock::peek(&disk).await?.ok_or(SurveyError::NoDisk)?;
    let (store, _) = ShardStore::open(Unchanged(disk), index, superblock, None).await?;
    Ok(store)
}

/// Lists and verifies all shards of a disk.
///
/// Cancelling it leaves nothing behind.
///
/// # Errors
///
/// See [`SurveyError`].
pub async fn survey<D: Disk>(disk: D) -> Result<Survey, SurveyError> {
    open(disk).await?.survey().await
}

/// What an index has of an extent, and where, whether somebody has it open or not.
///
/// # Errors
///
/// `Failed` when it cannot be read.
pub fn places<K: KvRead>(
    index: &K,
    group: GroupId,
    extent: ExtentId,
) -> Result<Vec<(ShardName, RecordPlace)>, StoreError> {
    let all = peek_extent(index, group, extent).map_err(|problem| index_failed(&problem))?;
    let place = |(name, at): (ShardName, Location)| (name, RecordPlace::new(at.segment, at.offset, at.bytes));
    Ok(all.into_iter().map(place).collect())
}

/// How many shards of the segment in this file an index has, and in which incarnation; none of a segment that it
/// does not know.
///
/// # Errors
///
/// `Failed` when it cannot be read.
pub fn shards_in<K: KvRead>(index: &K, file: &FileName) -> Result<Option<(u64, u64)>, StoreError> {
    let Some(segment) = parse_segment_file(file) else { return Ok(None) };
    let row = peek_segment(index, segment).map_err(|problem| index_failed(&problem))?;
    Ok(row.map(|row| (row.live_shards, row.incarnation)))
}

/// Up to where an index has everything that the log says: the file of a segment, and an offset in it. None before
/// the first record.
///
/// # Errors
///
/// `Failed` when it cannot be read.
pub fn known_to<K: KvRead>(index: &K) -> Result<Option<(FileName, u64)>, StoreError> {
    let position = peek_position(index).map_err(|problem| index_failed(&problem))?;
    Ok(position.filter(|at| at.sequence > 0).map(|at| (segment_file(at.segment), at.end)))
}

impl<D: Disk, K: Kv> Evidence<D, K> {
    /// Lists all shards, as far as their places are known, without a look at them.
    ///
    /// # Errors
    ///
    /// As [`ShardStore::list`].
    pub async fn listed(&self) -> Result<Vec<(ShardStat, RecordPlace)>, StoreError> {
        let mut shards = Vec::new();
        for group in self.groups()? {
            let mut after = None;
            loop {
                let page = self.list(group, after, PAGE_SHARDS).await?;
                after = page.shards.last().map(|stat| stat.name);
                for stat in page.shards {
                    if let Some(place) = self.place(stat.name)? {
                        shards.push((stat, place));
                    }
                }
                if !page.more {
                    break;
                }
            }
        }
        Ok(shards)
    }

    /// Lists and verifies all shards.
    ///
    /// # Errors
    ///
    /// As [`ShardStore::list`] and [`ShardStore::check`].
    pub async fn survey(&self) -> Result<Survey, SurveyError> {
        let damaged_records = self.report().await.damaged_blocks;
        let mut shards = Vec::new();
        for (stat, place) in self.listed().await? {
            let whole = matches!(self.check(stat.name, Priority::Scrub).await?, Presence::Whole(_));
            let ShardStat { name, epoch, shard_bytes } = stat;
            shards.push(Surveyed { name, epoch, shard_bytes, whole, place });
        }
        Ok(Survey { superblock: *self.superblock(), shards, damaged_records })
    }
}

impl<D: Disk> Disk for Unchanged<D> {
    type File = UnchangedFile<D::File>;

    async fn list(&self) -> Result<Vec<FileName>, StorageError> {
        self.0.list().await
    }

    async fn open(&self, name: &FileName) -> Result<Self::File, StorageError> {
        self.0.open(name).await.map(|file| UnchangedFile(Some(file)))
    }

    async fn create(&self, _: &FileName, _: u64) -> Result<Self::File, StorageError> {
        Ok(UnchangedFile(None))
    }

    async fn rename(&self, _: &FileName, _: &FileName) -> Result<(), StorageError> {
        Ok(())
    }

    async fn remove(&self, _: &FileName) -> Result<(), StorageError> {
        Ok(())
    }

    async fn flush_names(&self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn space(&self) -> Result<Space, StorageError> {
        self.0.space().await
    }

    fn engine(&self) -> String {
        self.0.engine()
    }
}

impl<F: DiskFile> DiskFile for UnchangedFile<F> {
    async fn write(&self, _: Vec<Write>, _: Priority) -> Result<(), StorageError> {
        Ok(())
    }

    async fn read(&self, batch: Vec<Read>, priority: Priority) -> Vec<Result<AlignedBuf, StorageError>> {
        match &self.0 {
            Some(file) => file.read(batch, priority).await,
            None => batch.into_iter().map(|read| Ok(emptied(read.buf))).collect(),
        }
    }

    async fn flush(&self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn size(&self) -> Result<u64, StorageError> {
        match &self.0 {
            Some(file) => file.size().await,
            None => Ok(0),
        }
    }
}

fn emptied(mut buf: AlignedBuf) -> AlignedBuf {
    buf.set_len(0);
    buf
}
