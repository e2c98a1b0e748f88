//! What the kernel's errors mean to callers.

use env::{StorageError, StorageErrorKind};
use rustix::io::Errno;

/// `error`, which stopped what `what` says.
pub(super) fn from(error: Errno, what: String) -> StorageError {
    StorageError::new(kind(error), what).because(std::io::Error::from(error))
}

fn kind(error: Errno) -> StorageErrorKind {
    match error {
        Errno::NOENT => StorageErrorKind::NotFound,
        Errno::EXIST => StorageErrorKind::AlreadyExists,
        // A file too large for the file system, too, finds no room.
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => StorageErrorKind::Full,
        Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::NAMETOOLONG => StorageErrorKind::Invalid,
        _ => StorageErrorKind::Io,
    }
}
