//! What RocksDB's and the kernel's errors mean to callers.

use std::io;

use env::{StorageError, StorageErrorKind};
use rocksdb::ErrorKind;

/// `error` of RocksDB, which stopped what `what` says.
pub(super) fn from(error: rocksdb::Error, what: impl Into<String>) -> StorageError {
    StorageError::new(kind(&error), what).because(error)
}

/// `error` of the kernel, which stopped what `what` says.
pub(super) fn from_io(error: io::Error, what: impl Into<String>) -> StorageError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => StorageErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => StorageErrorKind::AlreadyExists,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageErrorKind::Full,
        _ => StorageErrorKind::Io,
    };
    StorageError::new(kind, what).because(error)
}

/// RocksDB's C interface gives nothing but text: the kind at its beginning, the kernel's words in it.
fn kind(error: &rocksdb::Error) -> StorageErrorKind {
    let text = error.as_ref();
    let says = |words: &str| text.contains(words);
    match error.kind() {
        ErrorKind::Corruption => StorageErrorKind::Corrupt,
        ErrorKind::InvalidArgument | ErrorKind::NotSupported => StorageErrorKind::Invalid,
        _ if says("No space left on device") || says("Disk quota exceeded") => StorageErrorKind::Full,
        _ if says("lock hold by current process") || says("While lock file") => StorageErrorKind::Locked,
        _ => StorageErrorKind::Io,
    }
}
