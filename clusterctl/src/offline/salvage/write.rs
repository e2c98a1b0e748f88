//! Writing what can be saved.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use codec::Codec;
use futures_util::{StreamExt, stream};
use indicatif::ProgressBar;

use super::paths::{place, unfinished};
use super::plan::{Object, Version};
use super::read;
use crate::object::bar;
use crate::offline::disks::OfflineDisk;
use crate::offline::new_file::{Finished, NewFile};

/// Stripes of an object that are read at the same time.
const STRIPES_IN_FLIGHT: usize = 2;

/// What became of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is in this file, if one was named; nothing was read and nothing written.
    Planned(Option<PathBuf>),
    /// It is in this file.
    Saved(PathBuf),
    /// It was in this file already, byte for byte.
    Same(PathBuf),
    /// This file is something else, and was left as it is.
    Exists(PathBuf),
    /// Some of it cannot be read, or the file not be written.
    Failed(String),
}

/// Writes objects below a directory.
pub(super) struct Writer<'a> {
    disks: &'a [OfflineDisk],
    /// Where to; none when nobody said.
    root: Option<PathBuf>,
    is_dry: bool,
    /// By the numbers `k`, `m` and shard length.
    codecs: BTreeMap<(usize, usize, usize), Codec>,
    bar: ProgressBar,
}

impl<'a> Writer<'a> {
    /// Makes the directory, unless it is a dry run.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub(super) fn new(
        disks: &'a [OfflineDisk],
        root: Option<PathBuf>,
        is_dry: bool,
        bytes: u64,
    ) -> anyhow::Result<Self> {
        if let Some(root) = root.as_ref().filter(|_| !is_dry) {
            fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
        }
        let bar = if is_dry { ProgressBar::hidden() } else { bar("saving", bytes) };
        Ok(Self { disks, root, is_dry, codecs: BTreeMap::new(), bar })
    }

    /// Saves all versions of an object, the best first; what became of each.
    pub(super) async fn save(&mut self, object: &Object) -> Vec<Fate> {
        let mut fates = Vec::with_capacity(object.versions.len());
        let mut is_best = true;
        for version in &object.versions {
            let path = self.root.as_ref().map(|root| place(root, object, version.put, is_best));
            let fate = match path {
                Some(path) if !self.is_dry => self.save_version(version, path).await,
                path => Fate::Planned(path),
            };
            // One that cannot be read leaves its name to the next.
            is_best &= matches!(fate, Fate::Failed(_));
            fates.push(fate);
        }
        fates
    }

    /// All that was written is durable when this returns.
    ///
    /// # Errors
    ///
    /// When the file system fails.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        self.bar.finish_and_clear();
        if let Some(root) = self.root.as_ref().filter(|_| !self.is_dry) {
            // Directories that were made have not been flushed yet.
            let flushed = File::open(root).and_then(|root| Ok(rustix::fs::syncfs(root)?));
            flushed.with_context(|| format!("cannot flush {}", root.display()))?;
        }
        Ok(())
    }

    async fn save_version(&mut self, version: &Version, path: PathBuf) -> Fate {
        let there = path.symlink_metadata().is_ok();
        let done = if there { self.compare(version, &path).await } else { self.write(version, &path).await };
        match done {
            Ok(Finished::Done) if there => Fate::Same(path),
            Ok(Finished::Done) => Fate::Saved(path),
            Ok(Finished::Exists) => Fate::Exists(path),
            Err(error) => Fate::Failed(format!("{error:#}")),
        }
    }

    async fn write(&mut self, version: &Version, path: &Path) -> anyhow::Result<Finished> {
        let root = self.root.clone().unwrap_or_default();
        let mut file = NewFile::create(unfinished(&root, version.put))?;
        self.each_piece(version, |piece| file.write(piece).map(|()| true)).await?;
        file.finish(path)
    }

    /// `Done` when the file has the very bytes of the version.
    async fn compare(&mut self, version: &Version, path: &Path) -> anyhow::Result<Finished> {
        if !path.metadata().is_ok_and(|about| about.is_file() && about.len() == version.bytes) {
            self.bar.inc(version.bytes);
            return Ok(Finished::Exists);
        }
        let mut file = BufReader::new(File::open(path)?);
        let mut buffer = Vec::new();
        let is_same = |piece: &[u8]| {
            buffer.resize(piece.len(), 0);
            file.read_exact(&mut buffer)?;
            Ok(buffer == piece)
        };
        let same = self.each_piece(version, is_same).await?;
        Ok(if same { Finished::Done } else { Finished::Exists })
    }

    /// Gives the bytes of a version, in order, as long as `take` says so; false when it did not to the end.
    async fn each_piece(
        &mut self,
        version: &Version,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        let (geometry, disks) = (version.geometry, self.disks);
        let numbers = (geometry.k(), geometry.m(), geometry.shard_bytes());
        let codec = self.codecs.entry(numbers).or_insert_with(|| Codec::new(geometry)).clone();
        let mut parts = stream::iter(&version.parts)
            .map(|part| read::part(disks, &codec, part))
            .buffered(STRIPES_IN_FLIGHT);
        while let Some(pieces) = parts.next().await {
            for piece in pieces.map_err(anyhow::Error::msg)? {
                self.bar.inc(piece.len() as u64);
                if !take(&piece)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
