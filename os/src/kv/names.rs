//! The names of stores as files: directories, locks, and what is on its way in or out.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use env::{StorageError, StorageErrorKind};
use rustix::fs::FlockOperation;

use super::errors;

const LOCK_SUFFIX: &str = ".lock";
const TMP_SUFFIX: &str = ".tmp";

/// The name as a file's, with room for the suffixes.
const NAME_BYTES_MAX: usize = 200;

/// The directory that holds the stores. Clones are the same directory.
#[derive(Clone, Debug)]
pub(super) struct Directory(Arc<PathBuf>);

/// The right to change what has a name, until it is dropped.
#[derive(Debug)]
pub(super) struct NameLock {
    path: PathBuf,
    _file: fs::File,
}

/// Checks that `name` can be a store's.
///
/// # Errors
///
/// `Invalid`.
pub(super) fn check(name: &str) -> Result<(), StorageError> {
    if is_name(name) {
        return Ok(());
    }
    Err(StorageError::new(StorageErrorKind::Invalid, format!("{name:?} cannot be the name of a store")))
}

fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(allowed)
}

/// The answer to whoever is kept out.
pub(super) fn locked(name: &str) -> StorageError {
    StorageError::new(StorageErrorKind::Locked, format!("the store {name} is in use"))
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(Arc::new(path))
    }

    /// Where the store `name` is.
    pub(super) fn store(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Where the store `name` is while it is not whole.
    pub(super) fn tmp(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}{TMP_SUFFIX}"))
    }

    /// Makes the directory, durably, if it is not there.
    pub(super) fn make(&self) -> Result<(), StorageError> {
        let what = |e| errors::from_io(e, format!("cannot make the directory {}", self.0.display()));
        if !self.0.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&*self.0).map_err(what)?;
            if let Some(parent) = self.0.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                sync(parent).map_err(what)?;
            }
        }
        Ok(())
    }

    /// Makes changes of names durable.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        sync(&self.0).map_err(|e| errors::from_io(e, format!("cannot flush {}", self.0.display())))
    }

    /// Takes the lock of `name`; none when somebody has it.
    pub(super) fn lock(&self, name: &str) -> Result<Option<NameLock>, StorageError> {
        self.try_lock(name).map_err(|e| errors::from_io(e, format!("cannot lock the store {name}")))
    }

    fn try_lock(&self, name: &str) -> io::Result<Option<NameLock>> {
        let path = self.0.join(format!("{name}{LOCK_SUFFIX}"));
        loop {
            let file =
                fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            // A remover may have unlinked the file between our open and our lock: then this lock
            // keeps nobody out.
            match fs::metadata(&path) {
                Ok(there) if there.ino() == file.metadata()?.ino() => {
                    return Ok(Some(NameLock { path, _file: file }));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }

    /// The names of the stores that are whole, in byte order.
    pub(super) fn list(&self) -> Result<Vec<String>, StorageError> {
        let what = |e| errors::from_io(e, format!("cannot list {}", self.0.display()));
        let mut names = Vec::new();
        for entry in self.entries().map_err(what)? {
            let (name, is_directory) = entry.map_err(what)?;
            if is_directory && is_name(&name) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Names with whether they are directories; none when the directory does not exist yet. Names
    /// that are not UTF-8 are not ours.
    fn entries(&self) -> io::Result<impl Iterator<Item = io::Result<(String, bool)>> + use<>> {
        let entries = match fs::read_dir(&*self.0) {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let described = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            Some(entry.file_type().map(|kind| (name, kind.is_dir())))
        };
        Ok(entries.into_iter().flatten().filter_map(move |entry| match entry {
            Ok(entry) => described(entry),
            Err(error) => Some(Err(error)),
        }))
    }

    /// Removes the store `name`: gone at once for everybody, its space soon after.
    ///
    /// # Errors
    ///
    /// `Locked`, `Io`.
    pub(super) fn remove(&self, name: &str) -> Result<(), StorageError> {
        let (store, tmp) = (self.store(name), self.tmp(name));
        if !self.0.is_dir() {
            return Ok(());
        }
        let lock = self.lock(name)?.ok_or_else(|| locked(name))?;
        let what = |e| errors::from_io(e, format!("cannot remove the store {name}"));
        remove_all(&tmp).map_err(what)?;
        match fs::rename(&store, &tmp) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                lock.unlink();
                return Ok(());
            }
            Err(error) => return Err(what(error)),
        }
        self.sync()?;
        remove_all(&tmp).map_err(what)?;
        lock.unlink();
        Ok(())
    }

    /// Clears away what a crash left on its way in or out, unless somebody is at work on it. What
    /// cannot be cleared away harms nobody, and the next sweep tries again.
    pub(super) fn sweep(&self) {
        let Ok(entries) = self.entries() else { return };
        for (entry, _) in entries.flatten() {
            let name = entry.trim_end_matches(TMP_SUFFIX);
            if name == entry || !is_name(name) {
                continue;
            }
            let Ok(Some(lock)) = self.lock(name) else { continue };
            match remove_all(&self.0.join(&entry)) {
                Ok(()) => tracing::info!(entry, "cleared away what a crash had left"),
                Err(error) => tracing::warn!(entry, %error, "cannot clear away what a crash had left"),
            }
            if !self.store(name).exists() {
                lock.unlink();
            }
        }
    }
}

impl NameLock {
    /// Gives the lock back and leaves no file.
    pub(super) fn unlink(self) {
        // While we hold the lock: whoever opened the file before sees that it is gone.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a lock file");
        }
    }
}

/// Makes the content of a file, or the names in a directory, durable.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Removes a directory with all that is in it; what does not exist is removed already.
pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that could leave the directory, or be taken for something else in it, are refused.
    #[test]
    fn names_are_checked() {
        for name in ["raft", "state-17", "0", "-"] {
            check(name).unwrap();
        }
        for name in ["", ".", "..", "a/b", "a.tmp", "a.lock", "A", "a b", "é", &"a".repeat(201)] {
            assert_eq!(check(name).unwrap_err().kind(), StorageErrorKind::Invalid, "{name}");
        }
    }

    /// A sweep removes what a crash left, and leaves alone what somebody is at work on.
    #[test]
    fn sweep_respects_locks() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::new(temporary.path().join("stores"));
        directory.make().unwrap();
        for name in ["left.tmp", "left.tmp.tmp", "busy.tmp", "whole"] {
            fs::create_dir(directory.0.join(name)).unwrap();
        }
        let busy = directory.lock("busy").unwrap().unwrap();
        assert!(directory.lock("busy").unwrap().is_none());
        directory.sweep();
        assert!(directory.0.join("busy.tmp").exists());
        assert!(!directory.0.join("left.tmp").exists() && !directory.0.join("left.tmp.tmp").exists());
        assert_eq!(directory.list().unwrap(), ["whole"]);
        drop(busy);
        directory.sweep();
        assert!(!directory.0.join("busy.tmp").exists());
        directory.remove("whole").unwrap();
        assert_eq!(fs::read_dir(&*directory.0).unwrap().count(), 0);
    }
}
