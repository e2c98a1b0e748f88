//! `clusterctl offline check`.

use std::path::PathBuf;

use env::{AlignedBuf, Disk, DiskFile, Read};
use futures_util::{StreamExt, stream};
use node::store::{HEADER_BYTES, ShardStat, StoreError};
use node::superblock::Superblock;
use serde_json::{Value, json};

use super::PRIORITY;
use super::disks::{OfflineDisk, Unusable, complain, counter, open_all};
use crate::Session;
use crate::object::bar;
use crate::output::{count, size, table};

/// The two files that say which disk this is.
const SUPERBLOCKS: [&str; 2] = ["superblock", "superblock.copy"];
/// Shards that are read at the same time.
const IN_FLIGHT: usize = 4;

/// Which disks to verify.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Directories of disks.
    #[arg(required = true, value_name = "DISK-DIR")]
    disks: Vec<PathBuf>,
}

/// One thing that is not as it was written.
struct Damage {
    file: String,
    offset: u64,
    bytes: u64,
    /// Of which shard; none when that cannot be told.
    shard: Option<String>,
    problem: String,
    /// It may be nothing but a write that a crash has cut short.
    is_torn_end: bool,
}

/// What was found on one disk.
struct Checked<'a> {
    disk: &'a OfflineDisk,
    shards: u64,
    bytes: u64,
    damage: Vec<Damage>,
}

/// Verifies disks; true when nothing is damaged.
///
/// # Errors
///
/// When a disk does not answer.
pub(super) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<bool> {
    let (disks, unusable) = open_all(&arguments.disks).await?;
    let mut checked = Vec::new();
    for disk in &disks {
        checked.push(check(disk).await?);
    }
    let is_whole = unusable.is_empty() && checked.iter().all(Checked::is_whole);
    session.format.print(&to_json(&checked, &unusable, is_whole), || {
        checked.iter().map(Checked::to_text).collect::<Vec<_>>().join("\n")
    });
    if session.format == crate::output::Format::Text {
        complain(&unusable);
    }
    Ok(is_whole)
}

async fn check(disk: &OfflineDisk) -> anyhow::Result<Checked<'_>> {
    let mut checked = Checked { disk, shards: 0, bytes: 0, damage: Vec::new() };
    checked.superblocks().await;
    checked.log().await?;
    checked.shards().await?;
    Ok(checked)
}

impl Checked<'_> {
    async fn superblocks(&mut self) {
        for name in SUPERBLOCKS {
            if let Err(problem) = read_superblock(self.disk, name).await {
                let file = self.disk.path.join(name).display().to_string();
                let bytes = HEADER_BYTES as u64;
                self.damage.push(Damage { file, offset: 0, bytes, shard: None, problem, is_torn_end: false });
            }
        }
    }

    async fn log(&mut self) -> anyhow::Result<()> {
        let disk = self.disk;
        let bar = counter(&format!("records of {}", disk.path.display()), disk.store.segments() as u64);
        let found = disk.store.log_damage(|| bar.inc(1)).await;
        bar.finish_and_clear();
        self.damage.extend(found?.into_iter().map(|found| Damage {
            file: disk.file(&found.place.file),
            offset: found.place.offset,
            bytes: found.place.bytes,
            shard: None,
            problem: found.problem,
            is_torn_end: found.is_torn_end,
        }));
        Ok(())
    }

    async fn shards(&mut self) -> anyhow::Result<()> {
        let disk = self.disk;
        let bar = bar(&format!("shards of {}", disk.path.display()), disk.store.used_bytes());
        let done = disk
            .for_each_page(None, async |page: Vec<ShardStat>| {
                let mut reads = stream::iter(page)
                    .map(async |stat| (stat, disk.store.read(stat.name, 0, 0, PRIORITY).await.map(drop)))
                    .buffered(IN_FLIGHT);
                while let Some((stat, read)) = reads.next().await {
                    let Some(place) = disk.store.place(stat.name)? else { continue };
                    self.shards += 1;
                    self.bytes += place.bytes;
                    bar.inc(place.bytes);
                    match read {
                        Ok(()) => {}
                        Err(StoreError::Damaged { name, problem }) => self.damage.push(Damage {
                            file: disk.file(&place.file),
                            offset: place.offset,
                            bytes: place.bytes,
                            shard: Some(name.to_string()),
                            problem,
                            is_torn_end: false,
                        }),
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(())
            })
            .await;
        bar.finish_and_clear();
        done
    }

    /// Nothing is damaged for certain.
    fn is_whole(&self) -> bool {
        self.damage.iter().all(|damage| damage.is_torn_end)
    }

    fn to_text(&self) -> String {
        let path = self.disk.path.display();
        let segments = count(self.disk.store.segments() as u64, "segment");
        let verified = format!("{segments} and {}, {}", count(self.shards, "shard"), size(self.bytes));
        if self.damage.is_empty() {
            return format!("{path}: verified {verified}: all whole");
        }
        let row = |damage: &Damage| {
            vec![
                damage.file.clone(),
                damage.offset.to_string(),
                damage.bytes.to_string(),
                damage.shard.clone().unwrap_or_default(),
                damage.problem.clone(),
            ]
        };
        let rows = self.damage.iter().map(row).collect();
        let damaged = self.damage.iter().filter(|damage| !damage.is_torn_end).count();
        let mut found = count(damaged as u64, "damaged place");
        if damaged < self.damage.len() {
            found.push_str("; the log's end is torn, by a crash before anybody was told of it, or since");
        }
        let table = table(&["file", "offset", "bytes", "shard", "problem"], &[1, 2], rows);
        format!("{path}: verified {verified}: {found}\n{table}")
    }
}

async fn read_superblock(disk: &OfflineDisk, name: &str) -> Result<(), String> {
    let file = disk.disk.open(&name.parse().map_err(|error| format!("{error}"))?).await;
    let batch = vec![Read { offset: 0, buf: AlignedBuf::zeroed(HEADER_BYTES) }];
    let mut read = file.map_err(|error| error.to_string())?.read(batch, PRIORITY).await;
    let page = read.pop().ok_or("the engine gave no answer to a read")?.map_err(|error| error.to_string())?;
    let found = Superblock::decode(page.as_slice()).map_err(|error| error.to_string())?;
    let (told, used) = (found.uuid, disk.store.superblock().uuid);
    if told == used { Ok(()) } else { Err(format!("it names disk {told}, the rest of the disk {used}")) }
}

fn to_json(checked: &[Checked<'_>], unusable: &[Unusable], is_whole: bool) -> Value {
    let damage = |damage: &Damage| {
        json!({
            "file": damage.file, "offset": damage.offset, "bytes": damage.bytes, "shard": damage.shard,
            "problem": damage.problem, "torn_end": damage.is_torn_end,
        })
    };
    let disk = |checked: &Checked<'_>| {
        json!({
            "path": checked.disk.path, "disk": checked.disk.store.superblock().uuid,
            "segments": checked.disk.store.segments(), "shards": checked.shards, "bytes": checked.bytes,
            "damage": checked.damage.iter().map(damage).collect::<Vec<_>>(),
        })
    };
    json!({
        "whole": is_whole,
        "disks": checked.iter().map(disk).collect::<Vec<_>>(),
        "unusable": unusable.iter().map(Unusable::to_json).collect::<Vec<_>>(),
    })
}
