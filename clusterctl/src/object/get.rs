//! `clusterctl object get`.

use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use client::{Bucket, GetOptions, ListOptions, ObjectInfo};
use indicatif::ProgressBar;
use os::Host;
use proto::ObjectKey;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Path;
use super::files::{FileTarget, below};
use super::progress::bar;
use crate::Session;
use crate::output::{Format, count, size};

/// What to read, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// BUCKET/KEY; with --recursive BUCKET or BUCKET/PREFIX.
    source: Path,
    /// The file, or - for standard output; with --recursive a directory.
    target: PathBuf,
    /// Read all objects below a prefix into a directory.
    #[arg(long, short, conflicts_with = "range")]
    recursive: bool,
    /// Only these bytes: START-END, the end not included.
    #[arg(long, value_parser = parse_range)]
    range: Option<Range<u64>>,
    /// Objects under way at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let parsed = text.split_once('-').and_then(|(start, end)| Some(start.parse().ok()?..end.parse().ok()?));
    parsed.ok_or_else(|| format!("{text:?} is no range: write START-END, for example 0-1048576"))
}

/// Reads an object or a tree.
///
/// # Errors
///
/// When an object cannot be read or a file cannot be written; an unfinished file is removed.
pub(super) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.recursive { get_tree(session, arguments).await } else { get_one(session, arguments).await }
}

async fn get_one(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let (bucket, key) = arguments.source.object(session).await?;
    let options = GetOptions { range: arguments.range.clone(), timeout: Some(session.timeout) };
    if arguments.target.as_os_str() == "-" {
        let mut stream = bucket.get(&key, options).await?;
        let mut stdout = std::io::stdout().lock();
        while let Some(bytes) = stream.next().await? {
            stdout.write_all(&bytes).context("cannot write to standard output")?;
        }
        return Ok(stdout.flush()?);
    }
    let bar = bar(key.as_str(), 0);
    let read = copy(&bucket, &key, options, &arguments.target, &bar, true).await;
    bar.finish_and_clear();
    let bytes = read?;
    let value = json!({ "key": key.as_str(), "bytes": bytes, "file": arguments.target });
    session.format.print(&value, || format!("read {} into {}", size(bytes), arguments.target.display()));
    Ok(())
}

/// Reads one object into a file, and returns how many bytes it was.
async fn copy(
    bucket: &Bucket<Host>,
    key: &ObjectKey,
    options: GetOptions,
    path: &std::path::Path,
    bar: &ProgressBar,
    sets_length: bool,
) -> anyhow::Result<u64> {
    let mut stream = bucket.get(key, options).await?;
    if sets_length {
        let range = stream.range();
        bar.set_length(range.end - range.start);
    }
    let mut target = FileTarget::create(path)?;
    let mut total = 0;
    while let Some(bytes) = stream.next().await? {
        total += bytes.len() as u64;
        bar.inc(bytes.len() as u64);
        target.write(bytes).await?;
    }
    target.finish()?;
    Ok(total)
}

async fn get_tree(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let bucket = arguments.source.bucket(session).await?;
    let prefix = arguments.source.directory();
    let objects = list_all(&bucket, &prefix).await?;
    let bytes = objects.iter().map(|object| object.size).sum();
    let bar = bar("reading", bytes);
    let read = get_objects(session, arguments, &bucket, &prefix, &objects, &bar).await;
    bar.finish_and_clear();
    read?;
    let value = json!({ "files": objects.len(), "bytes": bytes });
    session.format.print(&value, || {
        format!(
            "read {}, {}, into {}",
            count(objects.len() as u64, "file"),
            size(bytes),
            arguments.target.display()
        )
    });
    if objects.is_empty() && session.format == Format::Text {
        eprintln!("clusterctl: nothing is below {}/{prefix}", bucket.name());
    }
    Ok(())
}

async fn list_all(bucket: &Bucket<Host>, prefix: &str) -> anyhow::Result<Vec<ObjectInfo>> {
    let options = ListOptions { prefix: Bytes::from(prefix.to_owned()), ..ListOptions::default() };
    let mut listing = bucket.list(options);
    let mut objects = Vec::new();
    while let Some(page) = listing.next_page().await? {
        objects.extend(page.objects);
    }
    Ok(objects)
}

async fn get_objects(
    session: &Session,
    arguments: &Arguments,
    bucket: &Bucket<Host>,
    prefix: &str,
    objects: &[ObjectInfo],
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(arguments.jobs as usize));
    let mut under_way = JoinSet::new();
    for object in objects {
        let place = places.clone().acquire_owned().await?;
        while let Some(done) = under_way.try_join_next() {
            done??;
        }
        let key = object.key.clone();
        let path = below(&arguments.target, key.as_str().strip_prefix(prefix).unwrap_or_default())?;
        let options = GetOptions { range: None, timeout: Some(session.timeout) };
        let (bucket, bar) = (bucket.clone(), bar.clone());
        under_way.spawn(async move {
            let read = copy(&bucket, &key, options, &path, &bar, false).await;
            drop(place);
            read.map(|_| ()).with_context(|| format!("{}/{key}", bucket.name()))
        });
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranges parse; anything else is refused with the right form.
    #[test]
    fn ranges_parse() {
        assert_eq!(parse_range("5-10"), Ok(5..10));
        for bad in ["", "5", "-5", "a-b"] {
            assert!(parse_range(bad).is_err(), "{bad:?} was taken");
        }
    }
}
