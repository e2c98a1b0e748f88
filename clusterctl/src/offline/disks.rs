//! The disks that are looked into.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use env::{Disks, FileName, StorageErrorKind};
use indicatif::{ProgressBar, ProgressStyle};
use node::store::ShardStat;
use node::store::survey::{self, Evidence};
use os::disk::{OsDisk, OsDisks};
use proto::GroupId;
use serde_json::{Value, json};

/// Shards that are listed at once.
const PAGE_SHARDS: usize = 1024;

/// A disk that is locked and can be read.
pub(super) struct OfflineDisk {
    pub(super) path: PathBuf,
    pub(super) disk: OsDisk,
    pub(super) store: Evidence<OsDisk>,
}

/// A directory that is of no use.
#[derive(Clone, Debug)]
pub(super) struct Unusable {
    pub(super) path: PathBuf,
    pub(super) problem: String,
}

/// Opens disks, one after the other; one that is of no use does not keep the others from being used.
///
/// # Errors
///
/// When a directory is named twice.
pub(super) async fn open_all(paths: &[PathBuf]) -> anyhow::Result<(Vec<OfflineDisk>, Vec<Unusable>)> {
    let mut seen = BTreeSet::new();
    if let Some(twice) =
        paths.iter().find(|path| !seen.insert(path.canonicalize().unwrap_or((*path).clone())))
    {
        bail!("{} is named twice", twice.display());
    }
    let (mut disks, mut unusable) = (Vec::new(), Vec::new());
    for path in paths {
        let spinner = spinner(&format!("reading the log of {}", path.display()));
        let opened = open(path).await;
        spinner.finish_and_clear();
        match opened {
            Ok(disk) => disks.push(disk),
            Err(problem) => unusable.push(Unusable { path: path.clone(), problem }),
        }
    }
    Ok((disks, unusable))
}

/// Opens a disk.
///
/// # Errors
///
/// A sentence.
pub(super) async fn open(path: &Path) -> Result<OfflineDisk, String> {
    let Some(text) = path.to_str() else { return Err("the path is not UTF-8".to_owned()) };
    let disk = match OsDisks::default().open(text).await {
        Ok(disk) => disk,
        Err(error) if error.kind() == StorageErrorKind::Locked => {
            return Err("it is in use: stop the daemon that serves it, and try again".to_owned());
        }
        Err(error) => return Err(error.to_string()),
    };
    let store = survey::open(disk.clone()).await.map_err(|error| error.to_string())?;
    Ok(OfflineDisk { path: path.to_owned(), disk, store })
}

impl OfflineDisk {
    /// Gives all shards, or those of one group, page by page.
    ///
    /// # Errors
    ///
    /// What `each` says.
    pub(super) async fn for_each_page(
        &self,
        only: Option<GroupId>,
        mut each: impl AsyncFnMut(Vec<ShardStat>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let groups = self.store.groups()?;
        for group in groups.into_iter().filter(|group| only.is_none_or(|only| only == *group)) {
            let mut after = None;
            loop {
                let page = self.store.list(group, after, PAGE_SHARDS).await?;
                after = page.shards.last().map(|stat| stat.name);
                each(page.shards).await?;
                if !page.more {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Which disk this is.
    pub(super) async fn to_json(&self) -> Value {
        let (superblock, report) = (self.store.superblock(), self.store.report().await);
        json!({
            "path": self.path, "disk": superblock.uuid, "cluster": superblock.cluster,
            "formatted_ms": superblock.created.as_millis(), "segment_bytes": superblock.segment_bytes,
            "segments": self.store.segments(), "shards": report.shards, "bytes": report.used_bytes,
        })
    }

    /// A file of the disk, for people.
    pub(super) fn file(&self, file: &FileName) -> String {
        self.path.join(file.as_str()).display().to_string()
    }
}

impl Unusable {
    pub(super) fn to_json(&self) -> Value {
        json!({ "path": self.path, "problem": self.problem })
    }
}

/// Says which directories are of no use.
pub(super) fn complain(unusable: &[Unusable]) {
    for Unusable { path, problem } in unusable {
        eprintln!("clusterctl: {}: {problem}", path.display());
    }
}

/// Shows that something goes on of which the end is not known.
pub(super) fn spinner(what: &str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(200));
    spinner
}

/// A bar for `count` things.
pub(super) fn counter(what: &str, count: u64) -> ProgressBar {
    let bar = ProgressBar::new(count).with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}, {eta} left") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
