//! `clusterctl offline list`.

use std::io::{self, Write};
use std::path::PathBuf;

use node::store::ShardStat;
use proto::GroupId;
use serde_json::json;

use super::disks::{OfflineDisk, complain, open_all};
use crate::Session;
use crate::output::{Format, count, size, table};

/// Which disks to list.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Directories of disks.
    #[arg(required = true, value_name = "DISK-DIR")]
    disks: Vec<PathBuf>,
    /// Only the shards of this group.
    #[arg(long)]
    group: Option<GroupId>,
}

/// Lists disks and their shards, page by page; true when all disks could be read.
///
/// # Errors
///
/// When a disk fails meanwhile.
pub(super) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<bool> {
    let (disks, unusable) = open_all(&arguments.disks).await?;
    match session.format {
        Format::Text => {
            for disk in &disks {
                print_text(disk, arguments.group).await?;
            }
            complain(&unusable);
        }
        Format::Json => {
            // Written as it is read: a disk may have millions of shards.
            let mut out = io::BufWriter::new(io::stdout().lock());
            write!(out, "{{\"disks\": [")?;
            for (number, disk) in disks.iter().enumerate() {
                write!(out, "{}", if number > 0 { ",\n" } else { "\n" })?;
                print_json(&mut out, disk, arguments.group).await?;
            }
            let problems: Vec<_> = unusable.iter().map(|unusable| unusable.to_json()).collect();
            writeln!(out, "],\n\"unusable\": {}}}", json!(problems))?;
            out.flush()?;
        }
    }
    Ok(unusable.is_empty())
}

async fn print_text(disk: &OfflineDisk, group: Option<GroupId>) -> anyhow::Result<()> {
    let (superblock, report) = (disk.store.superblock(), disk.store.report().await);
    let segments = count(disk.store.segments() as u64, "segment");
    println!("{}", disk.path.display());
    println!("disk       {}", superblock.uuid);
    println!("cluster    {}", superblock.cluster);
    println!("formatted  {}", superblock.created);
    println!("log        {segments} of {}", size(superblock.segment_bytes));
    println!("shards     {}, {}", report.shards, size(report.used_bytes));
    disk.for_each_page(group, async |page: Vec<ShardStat>| {
        let mut rows = Vec::with_capacity(page.len());
        for stat in page {
            let Some(place) = disk.store.place(stat.name)? else { continue };
            rows.push(vec![
                stat.name.to_string(),
                stat.shard_bytes.to_string(),
                stat.epoch.to_string(),
                place.file.to_string(),
                place.offset.to_string(),
            ]);
        }
        if !rows.is_empty() {
            println!("{}", table(&["shard", "bytes", "epoch", "segment", "offset"], &[1, 2, 4], rows));
        }
        Ok(())
    })
    .await?;
    println!();
    Ok(())
}

async fn print_json(out: &mut impl Write, disk: &OfflineDisk, group: Option<GroupId>) -> anyhow::Result<()> {
    write!(out, "{{\"about\": {},\n\"shards\": [", disk.to_json().await)?;
    let mut is_first = true;
    disk.for_each_page(group, async |page: Vec<ShardStat>| {
        for stat in page {
            let Some(place) = disk.store.place(stat.name)? else { continue };
            let name = stat.name;
            let shard = json!({
                "shard": name.to_string(), "group": name.group, "extent": name.extent, "stripe": name.stripe,
                "slot": name.slot, "bytes": stat.shard_bytes, "epoch": stat.epoch,
                "segment": place.file.as_str(), "offset": place.offset, "record_bytes": place.bytes,
            });
            write!(out, "{}{shard}", if is_first { "\n" } else { ",\n" })?;
            is_first = false;
        }
        Ok(())
    })
    .await?;
    write!(out, "]}}")?;
    Ok(())
}
