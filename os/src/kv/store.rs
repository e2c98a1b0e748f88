//! One open store.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use env::kv::Change;
use env::{Batch, KeyRange, Kv, KvRead, Order, Row, StorageError, StorageErrorKind, Table};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, Options, ReadOptions, WriteBatch};

use super::errors;
use super::names::{self, Directory, NameLock};
use super::options::Limits;
use crate::blocking::{self, Broken, GroupFlush};

/// The column family that RocksDB has in any case. No table of ours.
const DEFAULT_TABLE: &str = "default";

/// An open store.
#[derive(Clone)]
pub struct OsKv(Arc<Shared>);

struct Shared {
    name: String,
    /// Dropped before the lock.
    db: DB,
    directory: Directory,
    /// Batches share it, but for those that must know the last key of a table.
    order: RwLock<()>,
    flush: GroupFlush,
    broken: Arc<Broken>,
    _lock: NameLock,
}

impl OsKv {
    /// Opens the store, whose lock the caller has.
    pub(super) fn open(
        directory: Directory,
        name: &str,
        lock: NameLock,
        tables: &[Table],
        limits: &Limits,
    ) -> Result<Self, StorageError> {
        let path = directory.store(name);
        let what = || format!("cannot open the store {name}");
        let options = limits.options();
        let families = families(&options, &path, tables, &what)?
            .into_iter()
            .map(|table| ColumnFamilyDescriptor::new(table, options.clone()));
        let db = DB::open_cf_descriptors(&options, &path, families).map_err(|e| errors::from(e, what()))?;
        // RocksDB makes the names within the store durable, not the store's own.
        directory.sync()?;
        Ok(Self(Arc::new(Shared {
            name: name.to_owned(),
            db,
            directory,
            order: RwLock::new(()),
            flush: GroupFlush::default(),
            broken: Arc::default(),
            _lock: lock,
        })))
    }
}

/// The tables that there are and those that are asked for: RocksDB opens all or none.
fn families(
    options: &Options,
    path: &Path,
    tables: &[Table],
    what: &dyn Fn() -> String,
) -> Result<BTreeSet<String>, StorageError> {
    let mut families = BTreeSet::from([DEFAULT_TABLE.to_owned()]);
    if path.join("CURRENT").exists() {
        families.extend(DB::list_cf(options, path).map_err(|e| errors::from(e, what()))?);
    } else if has_data(path).map_err(|e| errors::from_io(e, what()))? {
        // RocksDB would begin anew, over what may be all that is left of the data.
        let lost = format!("{}: there is data, and the file CURRENT is missing", what());
        return Err(StorageError::new(StorageErrorKind::Corrupt, lost));
    }
    families.extend(tables.iter().map(|table| (*table).to_owned()));
    Ok(families)
}

fn has_data(path: &Path) -> io::Result<bool> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sst" || extension == "log") {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Shared {
    fn what(&self, doing: &str, table: Table) -> String {
        format!("cannot {doing} table {table} of the store {}", self.name)
    }

    fn family(&self, table: Table) -> Result<&ColumnFamily, StorageError> {
        let none = || {
            let what = format!("the store {} was opened without the table {table}", self.name);
            StorageError::new(StorageErrorKind::Invalid, what)
        };
        self.db.cf_handle(table).ok_or_else(none)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        let family = self.family(table)?;
        if is_empty(range) {
            return Ok(Vec::new());
        }
        let mut bounds = ReadOptions::default();
        bounds.set_iterate_lower_bound(range.start.as_slice());
        if let Some(end) = &range.end {
            bounds.set_iterate_upper_bound(end.as_slice());
        }
        let mut rows = Vec::new();
        let mut at = self.db.raw_iterator_cf_opt(family, bounds);
        match order {
            Order::Ascending => at.seek_to_first(),
            Order::Descending => at.seek_to_last(),
        }
        while rows.len() < limit
            && let Some((key, value)) = at.item()
        {
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            match order {
                Order::Ascending => at.next(),
                Order::Descending => at.prev(),
            }
        }
        at.status().map_err(|e| errors::from(e, self.what("scan", table)))?;
        Ok(rows)
    }

    fn write(&self, batch: Batch) -> Result<(), StorageError> {
        let changes = batch.into_changes();
        let open_end =
            |change: &Change| matches!(change, Change::DeleteRange(_, range) if range.end.is_none());
        // A poisoned lock guards nothing that a panic could have left half done.
        if changes.iter().any(open_end) {
            let _alone = self.order.write().unwrap_or_else(PoisonError::into_inner);
            self.write_in_order(changes)
        } else {
            let _shared = self.order.read().unwrap_or_else(PoisonError::into_inner);
            self.write_in_order(changes)
        }
    }

    fn write_in_order(&self, changes: Vec<Change>) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        for (index, change) in changes.iter().enumerate() {
            match change {
                Change::Put(table, key, value) => batch.put_cf(self.family(table)?, key, value),
                Change::Delete(table, key) => batch.delete_cf(self.family(table)?, key),
                Change::DeleteRange(table, range) if is_empty(range) => {
                    self.family(table)?;
                }
                Change::DeleteRange(table, range) => {
                    let end = match &range.end {
                        Some(end) => end.clone(),
                        None => self.end_of(table, &changes[..index])?,
                    };
                    if range.start < end {
                        batch.delete_range_cf(self.family(table)?, &range.start, &end);
                    }
                }
            }
        }
        self.db.write(batch).map_err(|e| errors::from(e, format!("cannot write to the store {}", self.name)))
    }

    /// A key beyond all keys of a table, those that `earlier` changes put included: RocksDB's ranges
    /// have an end. Valid while nobody else writes.
    fn end_of(&self, table: Table, earlier: &[Change]) -> Result<Vec<u8>, StorageError> {
        let last = self.scan(table, &KeyRange::all(), Order::Descending, 1)?.pop();
        let put = earlier.iter().filter_map(|change| match change {
            Change::Put(to, key, _) if *to == table => Some(key),
            _ => None,
        });
        let last = put.chain(last.as_ref().map(|(key, _)| key)).max();
        // The smallest key above the last one; and nothing is below the empty key.
        Ok(last.map_or_else(Vec::new, |key| [key.as_ref(), &[0]].concat()))
    }

    fn checkpoint(&self, name: &str) -> Result<(), StorageError> {
        names::check(name)?;
        let what = || format!("cannot make the checkpoint {name} of the store {}", self.name);
        let exists = || StorageError::new(StorageErrorKind::AlreadyExists, what());
        let lock = self.directory.lock(name)?.ok_or_else(exists)?;
        let (store, tmp) = (self.directory.store(name), self.directory.tmp(name));
        if store.exists() {
            return Err(exists());
        }
        let made = names::remove_all(&tmp)
            .map_err(|e| errors::from_io(e, what()))
            .and_then(|()| self.copy_to(&tmp).map_err(|e| errors::from(e, what())))
            .and_then(|()| sync_copy(&tmp).map_err(|e| errors::from_io(e, what())))
            .and_then(|()| std::fs::rename(&tmp, &store).map_err(|e| errors::from_io(e, what())));
        if let Err(error) = made {
            // Whatever this leaves, the next sweep finds.
            let _ = names::remove_all(&tmp);
            lock.unlink();
            return Err(error);
        }
        self.directory.sync()
    }

    fn copy_to(&self, path: &Path) -> Result<(), rocksdb::Error> {
        Checkpoint::new(&self.db)?.create_checkpoint(path)
    }
}

/// RocksDB syncs what it links and promises nothing about what it copies.
fn sync_copy(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        names::sync(&entry?.path())?;
    }
    names::sync(path)
}

/// No key can be in the range. RocksDB takes such ranges for errors.
fn is_empty(range: &KeyRange) -> bool {
    range.end.as_ref().is_some_and(|end| *end <= range.start)
}

impl KvRead for OsKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let value = self.0.db.get_pinned_cf(self.0.family(table)?, key);
        let value = value.map_err(|e| errors::from(e, self.0.what("read", table)))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        self.0.scan(table, range, order, limit)
    }
}

impl Kv for OsKv {
    fn write(&self, batch: Batch) -> Result<(), StorageError> {
        self.0.write(batch)
    }

    async fn flush(&self) -> Result<(), StorageError> {
        let shared = Arc::clone(&self.0);
        let flush = move || {
            let what = || format!("cannot flush the store {}", shared.name);
            shared.db.flush_wal(true).map_err(|e| errors::from(e, what()))
        };
        self.0.flush.flush(&self.0.broken, flush).await
    }

    /// Dropping this leaves open whether the checkpoint appears.
    async fn checkpoint(&self, name: &str) -> Result<(), StorageError> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        blocking::run(move || shared.checkpoint(&name)).await
    }
}

impl std::fmt::Debug for OsKv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OsKv({})", self.0.name)
    }
}
