//! Damage at rest: what lies on a disk is not what was written there.

use std::collections::BTreeSet;

use node::store::HEADER_BYTES;
use node::store::survey::RecordPlace;
use proto::{DiskUuid, ShardName};
use simhost::disk::Damage;

use super::atlas::View;
use super::strike::{Outcome, Strike};

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
        match damage_shard(strike, &mut view, &shards, disk, shard, done == 0).await {
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
async fn damage_shard(
    strike: &Strike<'_>,
    view: &mut View,
    shards: &[(DiskUuid, ShardName)],
    disk: DiskUuid,
    shard: ShardName,
    first: bool,
) -> Result<bool, String> {
    let Some(place) = view.place(disk, &shard) else { return Ok(false) };
    let others = shards.iter().filter(|(at, other)| *at == disk && *other != shard);
    let others: Vec<RecordPlace> = others.filter_map(|(_, other)| view.place(disk, other)).collect();
    let damage = draw(strike, &place, &others);
    let told = || format!("at rest: {shard} on disk {disk}: {damage:?}");
    let tell = || {
        if first {
            strike.hits(None, told);
        }
    };
    view.harm(strike.cluster, disk, (&place.file, &damage), tell).await
}

/// Some damage within a record.
fn draw(strike: &Strike<'_>, place: &RecordPlace, others: &[RecordPlace]) -> Damage {
    let draws = &strike.draws;
    // The header is small, and worth as much attention as the rest.
    let reach = if draws.chance(300_000) { HEADER_BYTES as u64 } else { place.bytes };
    let within = draws.below(reach.min(place.bytes).max(1));
    let bytes = draws.skewed(1, (place.bytes - within).max(1));
    let offset = place.offset + within;
    match draws.below(5) {
        0 => Damage::Flip { offset, mask: 1 << draws.below(8) },
        1 => Damage::Zero { offset, bytes },
        2 => Damage::Unreadable { offset, bytes },
        3 => Damage::StaleOnce { offset, bytes },
        _ => match draws.pick(others).cloned() {
            // A write of another shard that went here, from its start or within it.
            Some(RecordPlace { file: from, offset: start, .. }) if draws.chance(500_000) => {
                Damage::Misdirected { offset: place.offset, bytes: place.bytes, from, from_offset: start }
            }
            Some(RecordPlace { file: from, offset: start, .. }) => {
                Damage::Misdirected { offset, bytes, from, from_offset: start + within }
            }
            None => Damage::Zero { offset, bytes },
        },
    }
}
