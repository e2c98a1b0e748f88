//! `clusterctl offline list`.

use std::io::{self, Write};
use std::path::PathBuf;

use node::store::ShardStat;
use proto::GroupId;
use serde_json::json;

use super::disks::{OfflineDisk, Unusable, complain, open_all};
use crate::Session;
use crate::output::{Format, count, size, table};

/// Rows of one table, about: its columns are as wide as they need.
const TABLE_ROWS: usize = 1024;

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
    // Written as it is read: a disk may have millions of shards.
    let mut out = io::BufWriter::new(io::stdout().lock());
    let printed = match session.format {
        Format::Text => {
            complain(&unusable);
            print_text(&mut out, &disks, arguments.group).await
        }
        Format::Json => print_json(&mut out, &disks, &unusable, arguments.group).await,
    };
    match printed {
        // Whoever reads has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(unusable.is_empty()),
        printed => printed.map(|()| unusable.is_empty()),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn print_text(
    out: &mut impl Write,
    disks: &[OfflineDisk],
    group: Option<GroupId>,
) -> anyhow::Result<()> {
    for disk in disks {
        let (superblock, report) = (disk.store.superblock(), disk.store.report().await);
        let segments = count(disk.store.segments() as u64, "segment");
        writeln!(out, "{}", disk.path.display())?;
        writeln!(out, "disk       {}", superblock.uuid)?;
        writeln!(out, "cluster    {}", superblock.cluster)?;
        writeln!(out, "formatted  {}", superblock.created)?;
        writeln!(out, "log        {segments} of {}", size(superblock.segment_bytes))?;
        writeln!(out, "shards     {}, {}", report.shards, size(report.used_bytes))?;
        let mut rows = Vec::new();
        disk.for_each_page(group, async |page: Vec<ShardStat>| {
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
            if rows.len() >= TABLE_ROWS {
                print_table(out, &mut rows)?;
            }
            Ok(())
        })
        .await?;
        print_table(out, &mut rows)?;
        writeln!(out)?;
    }
    Ok(out.flush()?)
}

fn print_table(out: &mut impl Write, rows: &mut Vec<Vec<String>>) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let header = ["shard", "bytes", "epoch", "segment", "offset"];
    writeln!(out, "{}", table(&header, &[1, 2, 4], std::mem::take(rows)))
}

async fn print_json(
    out: &mut impl Write,
    disks: &[OfflineDisk],
    unusable: &[Unusable],
    group: Option<GroupId>,
) -> anyhow::Result<()> {
    write!(out, "{{\"disks\": [")?;
    for (number, disk) in disks.iter().enumerate() {
        write!(out, "{}", if number > 0 { ",\n" } else { "\n" })?;
        print_disk(out, disk, group).await?;
    }
    let problems: Vec<_> = unusable.iter().map(Unusable::to_json).collect();
    writeln!(out, "],\n\"unusable\": {}}}", json!(problems))?;
    Ok(out.flush()?)
}

async fn print_disk(out: &mut impl Write, disk: &OfflineDisk, group: Option<GroupId>) -> anyhow::Result<()> {
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
