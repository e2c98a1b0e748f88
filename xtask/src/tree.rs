//! Real files to store, and comparing them with what came back.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::run;

/// Files of one directory tree.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    /// Paths relative to the tree's root, with their sizes.
    pub(crate) files: Vec<(PathBuf, u64)>,
}

impl Tree {
    /// All regular files below `root`, in order of their names.
    ///
    /// # Errors
    ///
    /// When a directory cannot be read.
    pub(crate) fn of(root: &Path) -> anyhow::Result<Self> {
        let mut tree = Self::default();
        let mut open = vec![root.to_owned()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    open.push(entry.path());
                } else if kind.is_file() {
                    let path = entry.path().strip_prefix(root)?.to_owned();
                    tree.files.push((path, entry.metadata()?.len()));
                }
            }
        }
        tree.files.sort();
        Ok(tree)
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, size)| size).sum()
    }

    /// A mix of this tree's files: `count` of them spread over the whole tree, and then the largest
    /// ones of at most half of `bytes` until that many are reached.
    pub(crate) fn mix(&self, count: usize, bytes: u64) -> Self {
        let step = (self.files.len() / count.max(1)).max(1);
        let mut chosen: BTreeSet<usize> = (0..self.files.len()).step_by(step).take(count).collect();
        let mut sum: u64 = chosen.iter().map(|i| self.files[*i].1).sum();
        let mut rest: Vec<usize> =
            (0..self.files.len()).filter(|i| !chosen.contains(i) && self.files[*i].1 <= bytes / 2).collect();
        rest.sort_by_key(|i| std::cmp::Reverse(self.files[*i].1));
        for i in rest {
            if sum >= bytes {
                break;
            }
            sum += self.files[i].1;
            chosen.insert(i);
        }
        Self { files: chosen.into_iter().map(|i| self.files[i].clone()).collect() }
    }

    /// Every `n`th file, and the others.
    pub(crate) fn split(&self, n: usize) -> (Self, Self) {
        let (mut nth, mut others) = (Self::default(), Self::default());
        for (i, file) in self.files.iter().enumerate() {
            let part = if i % n == n - 1 { &mut nth } else { &mut others };
            part.files.push(file.clone());
        }
        (nth, others)
    }

    /// Copies the files from `root` to `to`, by hard links where that works.
    ///
    /// # Errors
    ///
    /// When a file cannot be copied.
    pub(crate) fn copy(&self, root: &Path, to: &Path) -> anyhow::Result<()> {
        for (path, _) in &self.files {
            let target = to.join(path);
            fs::create_dir_all(target.parent().unwrap_or(to))?;
            if fs::hard_link(root.join(path), &target).is_err() {
                fs::copy(root.join(path), &target)
                    .with_context(|| format!("cannot copy {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Compares what lies under `copy` with the files of `root`, byte by byte, and that nothing is
    /// there besides.
    ///
    /// # Errors
    ///
    /// The first difference.
    pub(crate) fn compare(&self, root: &Path, copy: &Path) -> anyhow::Result<()> {
        let found = Self::of(copy)?;
        if found.files.len() != self.files.len() {
            bail!("{} files came back of {}", found.files.len(), self.files.len());
        }
        for (path, size) in &self.files {
            if !same_content(&root.join(path), &copy.join(path))? {
                bail!("{} ({size} bytes) came back with other content", path.display());
            }
        }
        Ok(())
    }
}

fn same_content(one: &Path, other: &Path) -> anyhow::Result<bool> {
    let open = |path: &Path| File::open(path).with_context(|| format!("cannot open {}", path.display()));
    let (mut one, mut other) = (open(one)?, open(other)?);
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let read = fill(&mut one, &mut a)?;
        if read != fill(&mut other, &mut b)? || a[..read] != b[..read] {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> anyhow::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// The Rust toolchain: a real tree of many small and some large files that every developer has.
///
/// # Errors
///
/// When rustc does not say where it is.
pub(crate) fn toolchain() -> anyhow::Result<PathBuf> {
    Ok(run::output(Command::new("rustc").args(["--print", "sysroot"]))?.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, content: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, content).expect("written");
    }

    /// Equal trees compare equal; a changed byte, a missing and a surplus file are found.
    #[test]
    fn differences_are_found() {
        let dirs = tempfile::tempdir().expect("a directory");
        let (a, b) = (dirs.path().join("a"), dirs.path().join("b"));
        write(&a, "x/1", b"one");
        write(&a, "2", b"two");
        let tree = Tree::of(&a).expect("read");
        tree.copy(&a, &b).expect("copied");
        assert!(tree.compare(&a, &b).is_ok());
        fs::remove_file(b.join("2")).expect("removed");
        assert!(tree.compare(&a, &b).is_err());
        write(&b, "2", b"twO");
        assert!(tree.compare(&a, &b).is_err());
        write(&b, "2", b"two");
        write(&b, "3", b"");
        assert!(tree.compare(&a, &b).is_err());
    }

    /// A mix has the wanted number and size, and a split loses nothing.
    #[test]
    fn mixes_and_splits() {
        let files = (0..100u64).map(|i| (PathBuf::from(format!("{i:03}")), i * 10)).collect();
        let tree = Tree { files };
        let mix = tree.mix(10, 5_000);
        assert!(mix.files.len() >= 10 && mix.bytes() >= 5_000);
        let (nth, others) = mix.split(5);
        assert_eq!(nth.files.len() + others.files.len(), mix.files.len());
        assert_eq!(nth.bytes() + others.bytes(), mix.bytes());
    }
}
