//! `clusterctl offline salvage`: objects from disks alone.
//!
//! Every shard says of which object it is ([`proto::hint`]). All shards of all disks are listed first ([`mod@collect`]);
//! [`mod@plan`] puts together which versions of which objects they are, and what is missing of each, without any waiting.
//! Then one version after the other is read, decoded if it must be, and written ([`mod@read`], [`mod@write`]); names and hints
//! are in memory meanwhile, and of the shards those of two stripes.
//!
//! What only the metadata knew stays unknown: whether a version was ever committed, or was deleted since; content
//! types and user metadata; and objects that lay in the metadata whole.

mod collect;
mod paths;
mod plan;
mod read;
mod report;
mod write;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::bail;
use proto::BucketName;

use super::disks::{OfflineDisk, complain, open_all};
use crate::Session;
use crate::output::Format;
use collect::collect;
use plan::{Filter, plan};
use report::Report;
use write::Writer;

/// From which disks to save what, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Directories of disks, all of one cluster: the more, the better.
    #[arg(required = true, value_name = "DISK-DIR")]
    disks: Vec<PathBuf>,
    /// The directory to write to, as TENANT/BUCKET/KEY. Files that are there stay as they are.
    #[arg(long, required_unless_present = "dry_run")]
    to: Option<PathBuf>,
    /// Only say what could be saved. No bytes of shards are read: what is damaged shows later.
    #[arg(long)]
    dry_run: bool,
    /// Only this bucket; --tenant limits it to a tenant.
    #[arg(long)]
    bucket: Option<BucketName>,
    /// Only keys that begin with this.
    #[arg(long, default_value = "")]
    prefix: String,
}

/// Saves what can be saved; true when that is all that was found.
///
/// # Errors
///
/// When no disk can be used, or nothing can be written.
pub(super) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<bool> {
    let (disks, unusable) = open_all(&arguments.disks).await?;
    if session.format == Format::Text {
        complain(&unusable);
    }
    check_one_cluster(&disks)?;
    let found = collect(&disks).await?;
    let filter = Filter {
        tenant: session.tenant.clone(),
        bucket: arguments.bucket.clone(),
        prefix: arguments.prefix.clone(),
    };
    let plan = plan(&found, &filter);
    let (to, is_dry) = (arguments.to.clone(), arguments.dry_run);
    let mut writer = Writer::new(&disks, to.clone(), is_dry, plan.bytes())?;
    let mut report = Report::new(&disks, unusable, (&found, &plan), filter, to, is_dry);
    drop(found);
    for object in plan.objects {
        let fates = writer.save(&object).await;
        report.add(object, fates);
    }
    writer.finish()?;
    report.print(session.format);
    Ok(report.is_whole())
}

fn check_one_cluster(disks: &[OfflineDisk]) -> anyhow::Result<()> {
    let clusters: BTreeSet<_> = disks.iter().map(|disk| disk.store.superblock().cluster).collect();
    match clusters.len() {
        0 => bail!("none of the disks can be used"),
        1 => Ok(()),
        _ => {
            let lines = disks
                .iter()
                .map(|disk| format!("{}: cluster {}", disk.path.display(), disk.store.superblock().cluster));
            bail!(
                "the disks are of {} clusters: name those of one\n{}",
                clusters.len(),
                lines.collect::<Vec<_>>().join("\n")
            )
        }
    }
}
