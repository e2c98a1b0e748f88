//! Files that appear whole, and never in the place of another.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// A file under a temporary name.
pub(super) struct NewFile {
    file: File,
    unfinished: PathBuf,
    done: bool,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finished {
    /// It has its name, and is on the disk.
    Done,
    /// Something has that name; it was left as it is.
    Exists,
}

impl NewFile {
    /// Makes an unfinished file.
    ///
    /// # Errors
    ///
    /// When it is there already, or cannot be made.
    pub(super) fn create(unfinished: PathBuf) -> anyhow::Result<Self> {
        let made = OpenOptions::new().write(true).create_new(true).open(&unfinished);
        let file = made.with_context(|| format!("cannot make {}", unfinished.display()))?;
        Ok(Self { file, unfinished, done: false })
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub(super) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(bytes).with_context(|| format!("cannot write {}", self.unfinished.display()))
    }

    /// Gives the file its name, in a directory of the same file system that is made if it is not there, unless
    /// something has that name. Durable when this returns, but for directories that were made.
    ///
    /// # Errors
    ///
    /// When the file system refuses.
    pub(super) fn finish(mut self, path: &Path) -> anyhow::Result<Finished> {
        let directory = match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        let cannot = || format!("cannot write {}", path.display());
        self.file.sync_all().with_context(cannot)?;
        fs::create_dir_all(directory).with_context(cannot)?;
        match rename_new(&self.unfinished, path) {
            Ok(()) => self.done = true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Finished::Exists),
            Err(error) => return Err(error).with_context(cannot),
        }
        File::open(directory).and_then(|directory| directory.sync_all()).with_context(cannot)?;
        Ok(Finished::Done)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.done {
            // Nothing more can be done about what remains.
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

/// Renames as one step, unless the new name is taken.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot: a second name instead, which is never given twice either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        result => result.map_err(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file appears whole or not at all, and what is there stays.
    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let (part, path) = (dir.path().join("part"), dir.path().join("a/b"));
        let write = |text: &[u8]| {
            let mut file = NewFile::create(part.clone()).expect("made");
            file.write(text).expect("written");
            assert!(NewFile::create(part.clone()).is_err(), "two of one name");
            file
        };
        drop(write(b"x"));
        assert!(!part.exists() && !path.exists());
        assert_eq!(write(b"first").finish(&path).expect("finished"), Finished::Done);
        assert_eq!(write(b"second").finish(&path).expect("finished"), Finished::Exists);
        assert_eq!(fs::read(&path).expect("read"), b"first");
        assert!(!part.exists());
        assert!(write(b"third").finish(&path.join("c")).is_err(), "below a file");
        assert!(!part.exists());
    }
}
