//! Damage at rest: what lies on a disk is not what was written there.

use std::collections::BTreeSet;

use env::FileName;
use node::store::{HEADER_BYTES, survey};
use proto::{DiskUuid, ShardName};
use simhost::disk::Damage;

use super::atlas::View;
use super::strike::{Outcome, Strike};
use crate::process::lock;

/// Shards that one strike damages, at most.
const SHARDS_MAX: u64 = 6;
/// Attempts to find one that may be damaged.
const ATTEMPTS: usize = 20;

/// Damages shards that are committed, on one disk or on several.
pub(super) async fn damage(strike: &Strike<'_>) -> Outcome {
    let Some(mut view) = View::now(strike.cluster).await else { return Outcome::Nobody };
    let mut shards = view.promised();
    if shards.is_empty() {
        return Outcome::Nobody;
    }
    if strike.draws.chance(300_000) {
        // One disk goes bad.
        let disks: BTreeSet<DiskUuid> = shards.iter().map(|(disk, _)| *disk).collect();
        let one = strike.pick(&disks.into_iter().collect::<Vec<_>>());
        shards.retain(|(disk, _)| Some(*disk) == one);
    }
    let wanted = strike.draws.skewed(1, SHARDS_MAX);
    let (mut done, mut refusal) = (0, None);
    for _ in 0..ATTEMPTS {
        let Some((disk, shard)) = strike.pick(&shards) else { break };
        match damage_shard(strike, &mut view, &shards, disk, shard, done == 0) {
            Ok(harmed) => done += u64::from(harmed),
            Err(reason) => refusal = Some(reason),
        }
        if done >= wanted {
            break;
        }
    }
    match (done, refusal) {
        (0, Some(reason)) => Outcome::Refused(reason),
        (0, None) => Outcome::Nobody,
        _ => Outcome::Struck,
    }
}

/// Damages one shard, if the atlas allows it; whether there was something to damage.
fn damage_shard(
    strike: &Strike<'_>,
    view: &mut View,
    shards: &[(DiskUuid, ShardName)],
    disk: DiskUuid,
    shard: ShardName,
    first: bool,
) -> Result<bool, String> {
    let Some((device, file, bytes)) = view.file(disk, &shard) else { return Ok(false) };
    let others: Vec<ShardName> =
        shards.iter().filter(|(at, other)| *at == disk && *other != shard).map(|(_, other)| *other).collect();
    let kind = draw(strike, bytes, &others);
    let harms = !matches!(kind, Damage::StaleOnce { .. });
    view.damage(strike.cluster, disk, shard, harms)?;
    if first {
        strike.hits(None, || format!("at rest: {shard} on disk {disk}: {kind:?}"));
    }
    let changed = device.damage(&file, kind);
    if changed {
        lock(&strike.cluster.damaged).insert((disk, shard));
    }
    Ok(changed)
}

/// Some damage within a file of so many bytes.
fn draw(strike: &Strike<'_>, file_bytes: u64, others: &[ShardName]) -> Damage {
    let draws = &strike.draws;
    // The header is small, and worth as much attention as the rest.
    let reach = if draws.chance(300_000) { HEADER_BYTES as u64 } else { file_bytes };
    let offset = draws.below(reach.min(file_bytes).max(1));
    let bytes = draws.skewed(1, (file_bytes - offset.min(file_bytes)).max(1));
    match draws.below(5) {
        0 => Damage::Flip { offset, mask: 1 << draws.below(8) },
        1 => Damage::Zero { offset, bytes },
        2 => Damage::Unreadable { offset, bytes },
        3 => Damage::StaleOnce { offset, bytes },
        _ => match draws.pick(others).and_then(file_name) {
            // A write of another shard that went here, from its start or within it.
            Some(from) if draws.chance(500_000) => {
                Damage::Misdirected { offset: 0, bytes: file_bytes, from, from_offset: 0 }
            }
            Some(from) => Damage::Misdirected { offset, bytes, from, from_offset: offset },
            None => Damage::Zero { offset, bytes },
        },
    }
}

/// The name of a shard's file.
pub(super) fn file_name(shard: &ShardName) -> Option<FileName> {
    survey::file_name(shard).parse().ok()
}
