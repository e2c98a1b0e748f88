//! `clusterctl object put`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use client::{Bucket, Precondition, PutOptions, Receipt};
use indicatif::ProgressBar;
use os::Host;
use proto::limits::INLINE_BYTES_MAX;
use proto::{ObjectKey, Version};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Path;
use super::files::{FileSource, TreeFile, tree};
use super::progress::bar;
use crate::Session;
use crate::output::{count, size};

/// What to store, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The file, or - for standard input; with --recursive a directory.
    source: PathBuf,
    /// BUCKET/KEY; with --recursive BUCKET or BUCKET/PREFIX.
    target: Path,
    /// Store all files below a directory, each under PREFIX/its path.
    #[arg(long, short)]
    recursive: bool,
    /// Only if there is no such object.
    #[arg(long, conflicts_with = "if_version")]
    if_absent: bool,
    /// Only if the object has this version.
    #[arg(long, conflicts_with = "recursive")]
    if_version: Option<u64>,
    /// MIME type of the object.
    #[arg(long, default_value = "")]
    content_type: String,
    /// NAME=VALUE to keep with the object; may be repeated.
    #[arg(long = "meta", value_parser = parse_pair)]
    user_metadata: Vec<(String, String)>,
    /// Files under way at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
}

impl Arguments {
    fn options(&self, session: &Session, bytes: Option<u64>) -> PutOptions {
        let precondition = match (self.if_absent, self.if_version) {
            (true, _) => Precondition::IfAbsent,
            (false, Some(version)) => Precondition::IfVersion(Version(version)),
            (false, None) => Precondition::None,
        };
        PutOptions {
            content_type: self.content_type.clone(),
            user_metadata: self.user_metadata.iter().cloned().collect::<BTreeMap<_, _>>(),
            precondition,
            size_hint: bytes,
            timeout: Some(session.timeout),
        }
    }
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Stores a file or a tree.
///
/// # Errors
///
/// When a file cannot be read or the cluster refuses it; what was stored before stays.
pub(super) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.recursive { put_tree(session, arguments).await } else { put_one(session, arguments).await }
}

async fn put_one(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let (bucket, key) = arguments.target.object(session).await?;
    let (reader, bytes) = open(&arguments.source)?;
    let bar = bar(key.as_str(), bytes.unwrap_or_default());
    let source = FileSource::new(reader, bar.clone());
    let receipt = bucket.put(&key, source, arguments.options(session, bytes)).await;
    bar.finish_and_clear();
    let receipt = receipt?;
    session.format.print(&receipt_json(&key, &receipt), || {
        format!(
            "stored {}/{key}, version {}, {}; {receipt}",
            bucket.name(),
            receipt.version,
            size(receipt.size)
        )
    });
    Ok(())
}

fn receipt_json(key: &ObjectKey, receipt: &Receipt) -> serde_json::Value {
    json!({
        "key": key.as_str(), "version": receipt.version.0, "size": receipt.size,
        "crc32c": format!("{:08x}", receipt.crc32c), "modified_ms": receipt.modified.as_millis(),
        "tolerates": { "disks": receipt.tolerates.disks, "nodes": receipt.tolerates.nodes, "racks": receipt.tolerates.racks },
        "below_policy": receipt.below_policy, "slots_missing": receipt.slots_missing,
    })
}

fn open(source: &std::path::Path) -> anyhow::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if source.as_os_str() == "-" {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let file = File::open(source).with_context(|| format!("cannot open {}", source.display()))?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        bail!("{} is a directory: use --recursive", source.display());
    }
    let bytes = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), bytes))
}

/// What a tree came to.
#[derive(Default)]
struct Summary {
    files: u64,
    bytes: u64,
    /// Of `files`, those that lie in the metadata record.
    inline: u64,
    /// The least that the other files tolerate.
    disks: Option<u32>,
    racks: Option<u32>,
}

async fn put_tree(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let (files, others) = tree(&arguments.source)?;
    let bucket = arguments.target.bucket(session).await?;
    let bar = bar("storing", files.iter().map(|file| file.size).sum());
    let summary = put_files(session, arguments, bucket, files, &bar).await;
    bar.finish_and_clear();
    let summary = summary?;
    let (disks, racks) = (summary.disks.unwrap_or_default(), summary.racks.unwrap_or_default());
    let value = json!({
        "files": summary.files, "bytes": summary.bytes, "inline": summary.inline, "passed_over": others,
        "others_tolerate_at_least": { "disks": disks, "racks": racks },
    });
    session.format.print(&value, || {
        let mut line = format!("stored {}, {}", count(summary.files, "file"), size(summary.bytes));
        if summary.inline > 0 {
            line += &format!("; {} of them in the metadata record", summary.inline);
        }
        if summary.disks.is_some() {
            let (disks, racks) = (count(disks.into(), "disk"), count(racks.into(), "rack"));
            line += &format!("; each of the others tolerates at least: {disks}, {racks}");
        }
        if others > 0 {
            line += &format!(
                "; passed over {} that are no regular files",
                count(others, "entry").replace("entrys", "entries")
            );
        }
        line
    });
    Ok(())
}

async fn put_files(
    session: &Session,
    arguments: &Arguments,
    bucket: Bucket<Host>,
    files: Vec<TreeFile>,
    bar: &ProgressBar,
) -> anyhow::Result<Summary> {
    let places = Arc::new(Semaphore::new(arguments.jobs as usize));
    let mut under_way = JoinSet::new();
    let mut summary = Summary::default();
    let prefix = arguments.target.directory();
    for file in files {
        let place = places.clone().acquire_owned().await?;
        while let Some(done) = under_way.try_join_next() {
            summary.add(&done??);
        }
        let key = ObjectKey::parse(format!("{prefix}{}", file.name))?;
        let (bucket, options) = (bucket.clone(), arguments.options(session, Some(file.size)));
        let bar = bar.clone();
        under_way.spawn(async move {
            let (reader, _) = open(&file.path)?;
            let receipt = bucket.put(&key, FileSource::new(reader, bar), options).await;
            drop(place);
            receipt.with_context(|| file.path.display().to_string())
        });
    }
    while let Some(done) = under_way.join_next().await {
        summary.add(&done??);
    }
    Ok(summary)
}

impl Summary {
    fn add(&mut self, receipt: &Receipt) {
        let least = |old: Option<u32>, new: u32| Some(old.map_or(new, |old| old.min(new)));
        self.files += 1;
        self.bytes += receipt.size;
        if receipt.size <= INLINE_BYTES_MAX as u64 {
            self.inline += 1;
            return;
        }
        self.disks = least(self.disks, receipt.tolerates.disks);
        self.racks = least(self.racks, receipt.tolerates.racks);
    }
}
