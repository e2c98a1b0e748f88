//! What lies on a disk that nobody serves: for people who look into a disk, or save what is on it.
//!
//! The log is read like that of a store that has lost its index, with the index in memory: what is found is what a
//! store would find. Nothing is changed and nothing is healed: what would be written to the disk is left out.

use env::{
    AlignedBuf, Disk, DiskFile, FileName, MemoryKv, Priority, Read, Space, StorageError, StorageErrorKind,
    Write,
};
use proto::{Epoch, ShardName};

use super::index::TABLES;
use super::record::{SegmentId, segment_file};
use super::{Presence, ShardStore, StoreError};
use crate::superblock::{self, Superblock, SuperblockError};

/// Shards that are listed at once.
const PAGE_SHARDS: usize = 1024;

/// A disk of which nothing is changed: writes and flushes are left out.
#[derive(Clone, Debug)]
pub struct Unchanged<T>(T);

/// The store of a disk, to be read only.
pub type Evidence<D> = ShardStore<Unchanged<D>, MemoryKv>;

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
    let superblock = superblock::peek(&disk).await?.ok_or(SurveyError::NoDisk)?;
    let (store, _) =
        ShardStore::open(Unchanged(disk), MemoryKv::new(TABLES), superblock, None).await?;
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
    let store = open(disk).await?;
    let damaged_records = store.report().await.damaged_blocks;
    let mut shards = Vec::new();
    for group in store.groups()? {
        let mut after = None;
        loop {
            let page = store.list(group, after, PAGE_SHARDS).await?;
            for stat in &page.shards {
                let Some(place) = store.place(stat.name)? else { continue };
                let whole = matches!(store.check(stat.name, Priority::Scrub).await?, Presence::Whole(_));
                let (name, epoch, shard_bytes) = (stat.name, stat.epoch, stat.shard_bytes);
                shards.push(Surveyed { name, epoch, shard_bytes, whole, place });
            }
            after = page.shards.last().map(|stat| stat.name);
            if !page.more {
                break;
            }
        }
    }
    Ok(Survey { superblock: *store.superblock(), shards, damaged_records })
}

impl<D: Disk> Disk for Unchanged<D> {
    type File = Unchanged<D::File>;

    async fn list(&self) -> Result<Vec<FileName>, StorageError> {
        self.0.list().await
    }

    async fn open(&self, name: &FileName) -> Result<Self::File, StorageError> {
        self.0.open(name).await.map(Unchanged)
    }

    async fn create(&self, name: &FileName, _: u64) -> Result<Self::File, StorageError> {
        let problem = format!("{name} is not made on a disk that is not to be changed");
        Err(StorageError::new(StorageErrorKind::Invalid, problem))
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

impl<F: DiskFile> DiskFile for Unchanged<F> {
    async fn write(&self, _: Vec<Write>, _: Priority) -> Result<(), StorageError> {
        Ok(())
    }

    async fn read(&self, batch: Vec<Read>, priority: Priority) -> Vec<Result<AlignedBuf, StorageError>> {
        self.0.read(batch, priority).await
    }

    async fn flush(&self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn size(&self) -> Result<u64, StorageError> {
        self.0.size().await
    }
}
