//! Names of stores, and the errors that all operations share.

use env::{StorageError, StorageErrorKind, Table};

/// As long as on a real disk, where a name is a file's.
const NAME_BYTES_MAX: usize = 200;

/// Checks that `name` can be a store's.
///
/// # Errors
///
/// `Invalid`.
pub(super) fn check(name: &str) -> Result<(), StorageError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(StorageError::new(StorageErrorKind::Invalid, format!("{name:?} cannot be the name of a store")))
}

pub(super) fn locked(name: &str) -> StorageError {
    StorageError::new(StorageErrorKind::Locked, format!("the store {name} is in use"))
}

pub(super) fn exists(name: &str) -> StorageError {
    StorageError::new(StorageErrorKind::AlreadyExists, format!("the store {name} exists"))
}

pub(super) fn full(name: &str) -> StorageError {
    StorageError::new(StorageErrorKind::Full, format!("no space is left for the store {name}"))
}

pub(super) fn failed(what: &str, name: &str) -> StorageError {
    StorageError::new(StorageErrorKind::Io, format!("cannot {what} the store {name}"))
}

pub(super) fn no_table(table: Table) -> StorageError {
    StorageError::new(StorageErrorKind::Invalid, format!("there is no table {table}"))
}
