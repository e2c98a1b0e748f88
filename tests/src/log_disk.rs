//! One disk with a log and its index, in a directory of a real file system, as a node has it.

use std::path::Path;
use std::time::Duration;

use env::{Disks, Kvs, StorageErrorKind};
use node::store::{INDEX_TABLES, ShardStore};
use node::superblock::{self, Found, Superblock};
use os::disk::{EngineChoice, OsDisk, OsDisks};
use os::kv::{OsKv, OsKvs};
use proto::{ClusterId, DiskUuid, ExtentId, GroupId, ShardName, SlotIndex, StripeIndex, Timestamp};
use tokio::task::JoinHandle;

const CLUSTER: ClusterId = ClusterId(1);

/// The store of such a disk.
pub type Store = ShardStore<OsDisk, OsKv>;

/// How the disk is used.
#[derive(Clone, Copy, Debug)]
pub struct LogDisk {
    /// Which engine serves it.
    pub engine: EngineChoice,
    /// Of a segment, if it has to be formatted.
    pub segment_bytes: u64,
    /// What it may take.
    pub limit_bytes: u64,
}

impl LogDisk {
    /// The disk alone, in `dir/disk`. Whoever had it just now may still be about to let it go.
    ///
    /// # Errors
    ///
    /// What the engine says.
    pub async fn disk(&self, dir: &Path) -> Result<OsDisk, String> {
        let path = dir.join("disk");
        let mut patience = 1000;
        loop {
            match OsDisks::new(self.engine).open(path.to_str().unwrap_or_default()).await {
                Err(error) if error.kind() == StorageErrorKind::Locked && patience > 0 => patience -= 1,
                opened => return opened.map_err(|error| error.to_string()),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The store, with its index in `dir/data`, and its writer. An empty directory is formatted.
    ///
    /// # Errors
    ///
    /// What disk, index or store say.
    pub async fn open(&self, dir: &Path) -> Result<(Store, JoinHandle<()>), String> {
        std::fs::create_dir_all(dir.join("disk")).map_err(|error| error.to_string())?;
        let disk = self.disk(dir).await?;
        let superblock = match superblock::inspect(&disk, CLUSTER).await.map_err(|error| error.to_string())? {
            Found::Ours(superblock) => superblock,
            Found::Fresh => {
                let (uuid, created, segment_bytes) = (DiskUuid(2), Timestamp::ZERO, self.segment_bytes);
                let superblock = Superblock { cluster: CLUSTER, uuid, created, salt: 3, segment_bytes };
                superblock::format(&disk, &superblock).await.map_err(|error| error.to_string())?;
                superblock
            }
        };
        let kvs = OsKvs::new(Some(dir.join("data")));
        let index = kvs.open("index-d", INDEX_TABLES).await.map_err(|error| error.to_string())?;
        let opened = ShardStore::open(disk, index, superblock, Some(self.limit_bytes)).await;
        let (store, writer) = opened.map_err(|error| error.to_string())?;
        Ok((store, tokio::spawn(writer)))
    }
}

/// The shard with this number; they are of several groups.
pub fn name(number: u64) -> ShardName {
    let (group, stripe) = (GroupId(u32::try_from(number % 3).unwrap_or_default()), StripeIndex(0));
    ShardName { group, extent: ExtentId(u128::from(number)), stripe, slot: SlotIndex(2) }
}
