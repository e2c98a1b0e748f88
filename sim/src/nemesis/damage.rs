//! Damage at rest: what lies on a disk is not what was written there.

use std::collections::BTreeSet;

use env::{AlignedBuf, Disk, DiskFile, FileName, Priority, Read};
use node::store::HEADER_BYTES;
use node::store::survey::RecordPlace;
use node::superblock::Superblock;
use proto::{DiskUuid, ShardName};
use simhost::DiskDevice;
use simhost::disk::Damage;

use super::atlas::View;
use super::strike::{Outcome, Strike};
use crate::logs::quietly;

/// Shards that one strike damages, at most.
const SHARDS_MAX: u64 = 6;
/// Attempts to find one that may be damaged.
const ATTEMPTS: usize = 20;

/// Pages of a log begin with one of these: headers of segments, records.
const PAGES: [&[u8]; 2] = [b"CADOLEsg", b"CADOLErc"];
const SUPERBLOCKS: [&str; 2] = ["superblock", "superblock.copy"];

/// Damages shards that are committed, on one disk or on several.
pub(super) fn damage(strike: &Strike<'_>) -> Outcome {
    let Some(mut view) = View::now(strike.cluster) else { return Outcome::Nobody };
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
    view.harm(strike.cluster, disk, (&place.file, &damage), tell)
}

/// Damages the log of a disk elsewhere than in shards that live.
pub(super) fn log(strike: &Strike<'_>) -> Outcome {
    let Some(mut view) = View::now(strike.cluster) else { return Outcome::Nobody };
    let mut refusal = None;
    for _ in 0..ATTEMPTS {
        let Some(disk) = strike.pick(&view.all_disks()) else { break };
        let Some((file, page)) = page_of_log(strike, &view, disk) else { continue };
        let damage = draw_in_page(strike, page, page_of_log(strike, &view, disk));
        let tell = || {
            strike.hits(None, || format!("at rest: {file} on disk {disk}: {damage:?}"));
        };
        match view.harm(strike.cluster, disk, (&file, &damage), tell) {
            Ok(true) => return Outcome::Struck,
            Ok(false) => {}
            Err(reason) => refusal = Some(reason),
        }
    }
    refusal.map_or(Outcome::Nobody, Outcome::Refused)
}

/// A page that is no part of a shard that lives: where it begins.
fn page_of_log(strike: &Strike<'_>, view: &View, disk: DiskUuid) -> Option<(FileName, u64)> {
    let device = &view.machine(disk)?.device;
    let draws = &strike.draws;
    if draws.chance(150_000) {
        // One that is whole must be left, or a person has to act.
        let whole = SUPERBLOCKS.iter().all(|name| {
            let page = name.parse().ok().and_then(|file| read_page(device, &file, 0));
            page.is_some_and(|page| Superblock::decode(page.as_slice()).is_ok())
        });
        let file = draws.pick(&SUPERBLOCKS)?.parse().ok()?;
        return whole.then_some((file, 0));
    }
    let segments: Vec<(FileName, u64)> =
        device.files().into_iter().filter(|(file, _)| file.as_str().starts_with("seg-")).collect();
    let (file, bytes) = strike.pick(&segments)?;
    if draws.chance(300_000) {
        return Some((file, 0));
    }
    let live = view.records(disk, &file);
    let is_live = |page: u64| live.iter().any(|at| (at.offset..at.offset + at.bytes).contains(&page));
    let is_of_log = |page: &u64| {
        let page = read_page(device, &file, *page);
        page.is_some_and(|page| PAGES.iter().any(|magic| page.as_slice().starts_with(magic)))
    };
    let pages: Vec<u64> =
        (0..bytes).step_by(HEADER_BYTES).filter(|page| !is_live(*page)).filter(is_of_log).collect();
    let page = strike.pick(&pages)?;
    Some((file, page))
}

fn read_page(device: &DiskDevice, file: &FileName, offset: u64) -> Option<AlignedBuf> {
    quietly(async {
        let batch = vec![Read { offset, buf: AlignedBuf::zeroed(HEADER_BYTES) }];
        device.forensic().open(file).await.ok()?.read(batch, Priority::Scrub).await.pop()?.ok()
    })?
}

/// Some damage of the page, or another one in its place.
fn draw_in_page(strike: &Strike<'_>, page: u64, other: Option<(FileName, u64)>) -> Damage {
    let draws = &strike.draws;
    if let Some((from, from_offset)) = other.filter(|_| draws.chance(200_000)) {
        return Damage::Misdirected { offset: page, bytes: HEADER_BYTES as u64, from, from_offset };
    }
    let within = draws.skewed(0, HEADER_BYTES as u64 - 1);
    let (offset, bytes) = (page + within, draws.skewed(1, HEADER_BYTES as u64 - within));
    match draws.below(4) {
        0 => Damage::Flip { offset, mask: 1 << draws.below(8) },
        1 => Damage::Zero { offset, bytes },
        2 => Damage::Unreadable { offset, bytes },
        _ => Damage::StaleOnce { offset, bytes },
    }
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
