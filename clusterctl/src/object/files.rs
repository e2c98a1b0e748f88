//! Files as sources and targets of objects.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use client::{Source, SourceError};
use indicatif::ProgressBar;

/// Reads a file as a put asks for it, and shows how far it is.
pub(super) struct FileSource {
    reader: Option<Box<dyn Read + Send>>,
    bar: ProgressBar,
}

impl FileSource {
    /// Reads from `reader`.
    pub(super) fn new(reader: Box<dyn Read + Send>, bar: ProgressBar) -> Self {
        Self { reader: Some(reader), bar }
    }
}

impl Source for FileSource {
    async fn read(&mut self, max: usize) -> Result<Option<Bytes>, SourceError> {
        let Some(mut reader) = self.reader.take() else { return Ok(None) };
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; max];
            let length = fill(&mut reader, &mut buffer)?;
            buffer.truncate(length);
            Ok::<_, std::io::Error>((reader, buffer))
        });
        let (reader, buffer) = read.await.map_err(SourceError::new)?.map_err(SourceError::new)?;
        if buffer.is_empty() {
            return Ok(None);
        }
        self.reader = Some(reader);
        self.bar.inc(buffer.len() as u64);
        Ok(Some(buffer.into()))
    }
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A file that gets its name only when it is whole.
pub(super) struct FileTarget {
    file: Arc<File>,
    unfinished: PathBuf,
    path: PathBuf,
    done: bool,
}

impl FileTarget {
    /// Makes the file's directory and an unfinished file in it.
    ///
    /// # Errors
    ///
    /// When they cannot be made.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        if path.is_dir() {
            bail!("{} is a directory: name a file, or use --recursive", path.display());
        }
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let unfinished = path.with_file_name(name);
        let file =
            File::create(&unfinished).with_context(|| format!("cannot write {}", unfinished.display()))?;
        Ok(Self { file: Arc::new(file), unfinished, path: path.to_owned(), done: false })
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub(super) async fn write(&mut self, bytes: Bytes) -> anyhow::Result<()> {
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || (&*file).write_all(&bytes)).await?;
        written.with_context(|| format!("cannot write {}", self.unfinished.display()))
    }

    /// Gives the file its name.
    ///
    /// # Errors
    ///
    /// When it cannot be renamed.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        fs::rename(&self.unfinished, &self.path)
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for FileTarget {
    fn drop(&mut self) {
        if !self.done {
            // Nothing more can be done about what remains.
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

/// A regular file of a tree.
#[derive(Clone, Debug)]
pub(super) struct TreeFile {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its place below the tree's root, with slashes.
    pub(super) name: String,
    /// Its bytes.
    pub(super) size: u64,
}

/// All regular files below `root`, in order, and how many other things were passed over.
///
/// # Errors
///
/// When a directory cannot be read, or a name is not UTF-8.
pub(super) fn tree(root: &Path) -> anyhow::Result<(Vec<TreeFile>, u64)> {
    let (mut files, mut others) = (Vec::new(), 0);
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let entries =
            fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() {
                let below = path.strip_prefix(root)?;
                let name =
                    below.to_str().with_context(|| format!("{}: the name is not UTF-8", path.display()))?;
                files.push(TreeFile { name: name.to_owned(), size: entry.metadata()?.len(), path });
            } else {
                others += 1;
            }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((files, others))
}

/// Where the object `name` belongs below `root`.
///
/// # Errors
///
/// When the name would leave the directory: a key is made by whoever may write to the bucket.
pub(super) fn below(root: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let odd = |part: &str| matches!(part, "" | "." | "..");
    if name.split('/').any(odd) {
        bail!("the key {name:?} cannot be a path below {}: get it by itself", root.display());
    }
    Ok(root.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys that would leave the directory are refused.
    #[test]
    fn keys_stay_below_the_directory() {
        let root = Path::new("/tmp/x");
        assert_eq!(below(root, "a/b").expect("good"), Path::new("/tmp/x/a/b"));
        for bad in ["../a", "a/../../b", "/etc/passwd", "a//b", "", "a/."] {
            assert!(below(root, bad).is_err(), "{bad:?} was taken");
        }
    }

    /// A file appears under its name only when it is finished.
    #[tokio::test]
    async fn unfinished_files_vanish() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a/b");
        let mut target = FileTarget::create(&path).expect("made");
        target.write(Bytes::from("x")).await.expect("written");
        drop(target);
        assert_eq!(fs::read_dir(dir.path().join("a")).expect("read").count(), 0);
        let mut target = FileTarget::create(&path).expect("made");
        target.write(Bytes::from("xy")).await.expect("written");
        target.finish().expect("finished");
        assert_eq!(fs::read(&path).expect("read"), b"xy");
    }
}
