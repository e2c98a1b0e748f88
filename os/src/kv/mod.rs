//! Key-value stores: RocksDB, each store a directory below one directory of the process.
//!
//! - A store `name` is the directory `name`; its tables are column families.
//! - `name.lock`, locked with `flock`, belongs to whoever may change `name`: its opener, a checkpoint
//!   that makes it, its remover. RocksDB's own lock is a second line behind it.
//! - `name.tmp` is a checkpoint not whole yet or a store being removed. Whoever comes by and gets the
//!   lock clears it away.
//!
//! Batches go to the write-ahead log without a sync, so that they survive the process at once and the
//! machine after a flush. That a crash keeps a *prefix* of them rests on three settings: recovery
//! stops at the first gap of the log (point in time), all tables reach the files of the tree together
//! (atomic flush), and logs that are closed are synced before anything newer reaches the tree, which
//! RocksDB does when there are several column families, and here are always at least two.

mod errors;
mod names;
mod options;
mod store;

use std::path::PathBuf;
use std::sync::Arc;

use env::{Kvs, StorageError, StorageErrorKind, Table};

use self::names::Directory;
use self::options::Limits;
pub use self::store::OsKv;
use crate::blocking;

/// The stores below one directory.
#[derive(Clone)]
pub struct OsKvs {
    directory: Option<Directory>,
    limits: Arc<Limits>,
}

impl OsKvs {
    /// The stores below `directory`, which is made when the first of them is. Without one there are
    /// no stores, and opening one answers `NotFound`.
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self { directory: directory.map(Directory::new), limits: Arc::default() }
    }

    fn directory(&self) -> Result<Directory, StorageError> {
        let none = || StorageError::new(StorageErrorKind::NotFound, "no directory for stores is configured");
        self.directory.clone().ok_or_else(none)
    }
}

impl std::fmt::Debug for OsKvs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OsKvs").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Kvs for OsKvs {
    type Kv = OsKv;

    async fn open(&self, name: &str, tables: &[Table]) -> Result<OsKv, StorageError> {
        let directory = self.directory()?;
        let (name, tables, limits) = (name.to_owned(), tables.to_vec(), Arc::clone(&self.limits));
        blocking::run(move || {
            names::check(&name)?;
            directory.make()?;
            let lock = directory.lock(&name)?.ok_or_else(|| names::locked(&name))?;
            directory.sweep();
            OsKv::open(directory, &name, lock, &tables, &limits)
        })
        .await
    }

    async fn list(&self) -> Result<Vec<String>, StorageError> {
        let Some(directory) = self.directory.clone() else { return Ok(Vec::new()) };
        blocking::run(move || {
            directory.sweep();
            directory.list()
        })
        .await
    }

    async fn remove(&self, name: &str) -> Result<(), StorageError> {
        let Some(directory) = self.directory.clone() else { return Ok(()) };
        let name = name.to_owned();
        blocking::run(move || {
            names::check(&name)?;
            directory.remove(&name)
        })
        .await
    }
}
