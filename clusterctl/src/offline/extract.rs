//! `clusterctl offline extract`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::bail;
use node::store::{ShardRead, ShardStat, StoreError};
use proto::{ObjectHint, ShardName};
use serde_json::{Value, json};

use super::disks::{OfflineDisk, open};
use super::new_file::{Finished, NewFile};
use super::{PRIORITY, parse_shard, shown};
use crate::Session;
use crate::object::bar;
use crate::output::{count, size};

/// Which shards to copy, and where to.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub(crate) struct Arguments {
    /// The directory of a disk.
    #[arg(value_name = "DISK-DIR")]
    disk: PathBuf,
    /// GROUP/EXTENT/STRIPE/SLOT.
    #[arg(long, group = "which", value_parser = parse_shard)]
    shard: Option<ShardName>,
    /// All shards of the disk.
    #[arg(long, group = "which")]
    all: bool,
    /// The file; with --all a directory. Files that are there stay as they are.
    #[arg(long)]
    to: PathBuf,
}

/// Copies one shard or all; true when all of them were whole.
///
/// # Errors
///
/// When the disk cannot be read, or a file not be written; for one shard also when it is absent or damaged.
pub(super) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<bool> {
    let opened = open(&arguments.disk).await;
    let disk = opened.map_err(|problem| anyhow::anyhow!("{}: {problem}", arguments.disk.display()))?;
    match arguments.shard {
        Some(name) => extract_one(session, &disk, name, &arguments.to).await,
        None => extract_all(session, &disk, &arguments.to).await,
    }
}

async fn extract_one(
    session: &Session,
    disk: &OfflineDisk,
    name: ShardName,
    to: &Path,
) -> anyhow::Result<bool> {
    let read = disk.store.read(name, 0, 0, PRIORITY).await?;
    if write(&read, to)? == Finished::Exists {
        bail!("{} is there already: name another file", to.display());
    }
    let hint = ObjectHint::decode(read.hint).ok();
    let value = json!({
        "shard": name.to_string(), "bytes": read.shard_bytes, "file": to, "object": hint.as_ref().map(hint_json),
    });
    session.format.print(&value, || {
        let copied = format!("copied {name}, {}, into {}", size(read.shard_bytes.into()), to.display());
        match &hint {
            Some(hint) => format!("{copied}\nit says that it is of {}", of_object(hint)),
            None => copied,
        }
    });
    Ok(true)
}

async fn extract_all(session: &Session, disk: &OfflineDisk, to: &Path) -> anyhow::Result<bool> {
    let (mut copied, mut bytes, mut damaged, mut existed) = (0_u64, 0_u64, Vec::new(), 0_u64);
    let bar = bar(&format!("shards of {}", disk.path.display()), disk.store.used_bytes());
    let done = disk
        .for_each_page(None, async |page: Vec<ShardStat>| {
            for stat in page {
                bar.inc(u64::from(stat.shard_bytes));
                match disk.store.read(stat.name, 0, 0, PRIORITY).await {
                    Ok(read) => match write(&read, &to.join(file_name(&stat.name)))? {
                        Finished::Done => (copied, bytes) = (copied + 1, bytes + u64::from(read.shard_bytes)),
                        Finished::Exists => existed += 1,
                    },
                    Err(StoreError::Damaged { name, problem }) => damaged.push((name, problem)),
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
        .await;
    bar.finish_and_clear();
    done?;
    let problem =
        |(name, problem): &(ShardName, String)| json!({ "shard": name.to_string(), "problem": problem });
    let value = json!({
        "shards": copied, "bytes": bytes, "directory": to, "existed": existed,
        "damaged": damaged.iter().map(problem).collect::<Vec<_>>(),
    });
    session.format.print(&value, || {
        let total = format!("copied {}, {}, into {}", count(copied, "shard"), size(bytes), to.display());
        let there = (existed > 0).then(|| format!("{} there already were left", count(existed, "file")));
        let bad = damaged.iter().map(|(name, problem)| format!("{name} is damaged: {problem}"));
        [total].into_iter().chain(there).chain(bad).collect::<Vec<_>>().join("\n")
    });
    Ok(damaged.is_empty())
}

fn write(read: &ShardRead, path: &Path) -> anyhow::Result<Finished> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut file = NewFile::create(path.with_file_name(name))?;
    file.write(&read.bytes)?;
    file.finish(path)
}

/// The file of a shard among all: its name without slashes.
fn file_name(name: &ShardName) -> String {
    format!("{}-{}-{}-{}.shard", name.group, name.extent, name.stripe, name.slot)
}

fn of_object(hint: &ObjectHint) -> String {
    let ObjectHint { tenant, bucket, key, extent, extent_offset, k, m, .. } = hint;
    let object = shown(&format!("{tenant}/{bucket}/{key}"));
    format!("{object}, extent {extent} from byte {extent_offset} on, {k} + {m}")
}

fn hint_json(hint: &ObjectHint) -> Value {
    json!({
        "tenant": hint.tenant.as_str(), "bucket": hint.bucket.as_str(), "key": hint.key.as_str(),
        "put": hint.put, "begun_ms": hint.put.granted().as_millis(), "extent": hint.extent,
        "extent_offset": hint.extent_offset, "stripe_bytes": hint.stripe_bytes,
        "object_bytes": hint.object_bytes, "k": hint.k, "m": hint.m, "shard_bytes": hint.shard_bytes,
        "matrix": hint.matrix,
    })
}
