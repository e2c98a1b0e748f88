//! What nodes tell of their disks.
//!
//! A node finds its shards by an index that is never ahead of the log, and after a power loss by an older one and
//! what the log has since, or by the log alone. So a shard that was told of is durable when the log is, up to the
//! end of its record; one that was dropped is gone when neither way leads to it any more.

use bytes::Bytes;
use env::{FileName, Kv};
use node::store::StoreError;
use node::store::survey::{Evidence, RecordPlace, known_to, open, open_with, places, shards_in};
use proto::{ExtentId, GroupId, ShardName, wire};
use simhost::disk::ForensicDisk;
use simhost::{DiskDevice, Host};

use super::Rule;
use crate::cluster::index_of;
use crate::logs::quietly;

/// The files that say which disk it is.
const SUPERBLOCKS: [&str; 2] = ["superblock", "superblock.copy"];
/// What a segment begins with, and where it says which of its records count.
const SEGMENT: &[u8] = b"CADOLEsg";
const INCARNATION_AT: usize = 64;
/// What a record begins with, where it says of which kind it is, and the kind that ends a segment.
const RECORD: &[u8] = b"CADOLErc";
const KIND_AT: usize = 60;
const SEAL: u32 = 3;
/// Shards that a finding names.
const NAMED: usize = 3;

/// A shard that was written. It may have been dropped since: then there is nothing to look at.
pub(super) fn shard(host: &Host, disk: &DiskDevice, write: &wire::WriteShard) -> Rule {
    let name = write.shard.clone().and_then(|name| ShardName::try_from(name).ok());
    let Some(name) = name else { return Ok(()) };
    let all = of_extent(host, disk, name.group, name.extent)?;
    let place = all.iter().find(|(shard, _)| *shard == name).map(|(_, place)| place);
    place.map_or(Ok(()), |place| {
        survives(disk, place).map_err(|text| format!("acknowledged shard {name}: {text}"))
    })
}

/// As [`shard`], with a look at what would be found after a power loss: with the durable part of the index, and
/// with none.
pub(super) fn found_again(host: &Host, disk: &DiskDevice, write: &wire::WriteShard) -> Rule {
    let name = write.shard.clone().and_then(|name| ShardName::try_from(name).ok());
    let Some(name) = name else { return Ok(()) };
    if !of_extent(host, disk, name.group, name.extent)?.iter().any(|(shard, _)| *shard == name) {
        return Ok(());
    }
    for (found, how) in after_power_loss(host, disk, &|shard| *shard == name) {
        if found.is_empty() {
            return Err(format!(
                "acknowledged shard {name}, which it would not find on {}{how}",
                disk.path()
            ));
        }
    }
    Ok(())
}

/// A slot's shards of an extent that were made again.
pub(super) fn filled(host: &Host, disk: &DiskDevice, filled: &wire::SlotFilled) -> Rule {
    let Ok(extent) = ExtentId::from_wire(&filled.extent) else { return Ok(()) };
    let all = of_extent(host, disk, GroupId(filled.group), extent)?;
    for (name, place) in all.iter().filter(|(name, _)| u32::from(name.slot.0) == filled.slot) {
        survives(disk, place).map_err(|text| format!("reported a slot as filled, with {name}: {text}"))?;
    }
    Ok(())
}

/// Shards that were dropped.
pub(super) fn dropped(host: &Host, disk: &DiskDevice, dropped: &[&wire::DropExtent]) -> Rule {
    let is_of = |shard: &ShardName| {
        dropped.iter().any(|dropped| {
            let same_extent = dropped.extent.is_empty() || shard.extent.to_wire() == dropped.extent;
            shard.group.0 == dropped.group && u32::from(shard.slot.0) == dropped.slot && same_extent
        })
    };
    for (found, how) in after_power_loss(host, disk, &is_of) {
        if !found.is_empty() {
            let named: Vec<String> = found.iter().take(NAMED).map(ToString::to_string).collect();
            let (path, named) = (disk.path(), named.join(", "));
            return Err(format!("reported shards as dropped that it would find on {path}{how}: {named}"));
        }
    }
    Ok(())
}

/// The index, which a power loss may leave as it is now, knows no more than what is durable in the log.
pub(super) fn not_ahead(host: &Host, store: &str) -> Rule {
    let Some(disk) = host.disks().into_values().find(|disk| index_of(disk.path()) == store) else {
        return Ok(());
    };
    let Some(index) = host.kvs().forensic(store) else { return Ok(()) };
    let Some((file, end)) = known_to(&index).map_err(unreadable)? else { return Ok(()) };
    if disk.is_durable_to(&file, end) || !disk.has(&file) {
        return Ok(());
    }
    Err(format!("has an index that knows {}/{file} up to {end}, which is not durable so far", disk.path()))
}

/// A segment begins anew once no index that a power loss may leave points to what was there.
pub(super) fn left_by_all(host: &Host, disk: &str, file: &FileName, page: &Bytes) -> Rule {
    let Some(incarnation) = incarnation(page) else { return Ok(()) };
    let Some(durable) = host.kvs().durable(&index_of(disk)) else { return Ok(()) };
    match shards_in(&durable, file).map_err(unreadable)? {
        Some((shards, of)) if shards > 0 && of < incarnation => {
            Err(format!("frees {disk}/{file}, in which the durable part of its index has {shards} shards"))
        }
        _ => Ok(()),
    }
}

/// Is it the end of a segment of the log?
pub(super) fn is_seal(page: &Bytes) -> bool {
    page.starts_with(RECORD) && page.get(KIND_AT..KIND_AT + 4) == Some(&SEAL.to_le_bytes()[..])
}

/// Which of a segment's records count, if this is the header of one.
fn incarnation(page: &Bytes) -> Option<u64> {
    let number = page.starts_with(SEGMENT).then(|| page.get(INCARNATION_AT..INCARNATION_AT + 8)).flatten()?;
    Some(u64::from_le_bytes(number.try_into().ok()?))
}

fn unreadable(error: StoreError) -> String {
    format!("has an index that cannot be read: {error}")
}

/// A disk that serves: its superblock, and the names that were found on it.
pub(super) fn disk(disk: &DiskDevice) -> Rule {
    for file in SUPERBLOCKS.into_iter().filter_map(|name| name.parse().ok()) {
        if disk.survives(&file) == Some(false) {
            return Err(format!("registered a disk: {}/{file} is not durable", disk.path()));
        }
    }
    match disk.inherited() {
        0 => Ok(()),
        changes => Err(format!(
            "registered {}, where {changes} changes of names from before its start are not flushed",
            disk.path()
        )),
    }
}

/// All of the log's segment up to the record's end is there after a power loss. A file that is not there at all is
/// one of a disk that was replaced.
fn survives(disk: &DiskDevice, place: &RecordPlace) -> Rule {
    let RecordPlace { file, offset, bytes } = place;
    if disk.is_durable_to(file, offset.saturating_add(*bytes)) || !disk.has(file) {
        return Ok(());
    }
    Err(format!("{}/{file} is not durable up to the record's end at {}", disk.path(), offset + bytes))
}

/// What the index has of an extent just now, and where.
fn of_extent(
    host: &Host,
    disk: &DiskDevice,
    group: GroupId,
    extent: ExtentId,
) -> Result<Vec<(ShardName, RecordPlace)>, String> {
    let Some(index) = host.kvs().forensic(&index_of(disk.path())) else { return Ok(Vec::new()) };
    places(&index, group, extent).map_err(unreadable)
}

/// The shards that a power loss just now would leave at least, of those that are `wanted`: by each way to find
/// them, and which it is in words. A disk that could not be opened leaves nothing out.
fn after_power_loss(
    host: &Host,
    disk: &DiskDevice,
    wanted: &dyn Fn(&ShardName) -> bool,
) -> Vec<(Vec<ShardName>, &'static str)> {
    let mut all = Vec::new();
    if let Some(evidence) = quietly(open(disk.durable())).and_then(Result::ok) {
        all.extend(listed(&evidence, wanted).map(|found| (found, " after a power loss, from the log alone")));
    }
    // One that says nothing yet is as good as none.
    let index = host.kvs().durable(&index_of(disk.path()));
    let index = index.filter(|index| known_to(index).is_ok_and(|known| known.is_some()));
    let with_index = index.and_then(|index| quietly(open_with(disk.durable(), index.scratch())));
    if let Some(evidence) = with_index.and_then(Result::ok) {
        all.extend(listed(&evidence, wanted).map(|found| (found, " after a power loss")));
    }
    all
}

fn listed<K: Kv>(
    evidence: &Evidence<ForensicDisk, K>,
    wanted: &dyn Fn(&ShardName) -> bool,
) -> Option<Vec<ShardName>> {
    let listed = quietly(evidence.listed())?.ok()?;
    Some(listed.into_iter().map(|(stat, _)| stat.name).filter(|name| wanted(name)).collect())
}
