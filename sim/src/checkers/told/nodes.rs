//! What nodes tell of their disks.

use env::FileName;
use node::store::survey;
use proto::{ShardName, wire};
use simhost::DiskDevice;

use super::Rule;

/// The files that say which disk it is.
const SUPERBLOCKS: [&str; 2] = ["superblock", "superblock.copy"];
/// Files that a finding names.
const NAMED: usize = 3;

/// A shard that was written. It may have been dropped since: then there is nothing to look at.
pub(super) fn shard(disk: &DiskDevice, write: &wire::WriteShard) -> Rule {
    let name = write.shard.clone().and_then(|name| ShardName::try_from(name).ok());
    let Some(file) = name.as_ref().and_then(|name| survey::file_name(name).parse().ok()) else {
        return Ok(());
    };
    survives(disk, &file).map_err(|text| format!("acknowledged a shard: {text}"))
}

/// A slot's shards of an extent that were made again.
pub(super) fn filled(disk: &DiskDevice, filled: &wire::SlotFilled) -> Rule {
    let of = |file: &FileName| is_of(file, filled.group, &filled.extent, filled.slot);
    for (file, _) in disk.files().iter().filter(|(file, _)| of(file)) {
        survives(disk, file).map_err(|text| format!("reported a slot as filled: {text}"))?;
    }
    Ok(())
}

/// Shards that were dropped. What has been written again is none of them.
pub(super) fn dropped(disk: &DiskDevice, dropped: &wire::DropExtent) -> Rule {
    let returning = disk.may_return();
    let mut named = returning.iter().filter(|file| is_of(file, dropped.group, &dropped.extent, dropped.slot));
    let named: Vec<&str> = named.by_ref().take(NAMED).map(FileName::as_str).collect();
    if named.is_empty() {
        return Ok(());
    }
    let named = named.join(", ");
    Err(format!("reported shards as dropped that a power loss may bring back to {}: {named}", disk.path()))
}

/// A disk that serves: its superblock, and the names that were found on it.
pub(super) fn disk(disk: &DiskDevice) -> Rule {
    for file in SUPERBLOCKS.into_iter().filter_map(|name| name.parse().ok()) {
        survives(disk, &file).map_err(|text| format!("registered a disk: {text}"))?;
    }
    match disk.inherited() {
        0 => Ok(()),
        changes => Err(format!(
            "registered {}, where {changes} changes of names from before its start are not flushed",
            disk.path()
        )),
    }
}

fn survives(disk: &DiskDevice, file: &FileName) -> Rule {
    if disk.survives(file) == Some(false) {
        return Err(format!("{}/{file} is not durable", disk.path()));
    }
    Ok(())
}

/// Is it a shard of this slot, of this extent or, if that is empty, of any?
fn is_of(file: &FileName, group: u32, extent: &[u8], slot: u32) -> bool {
    survey::shard_name(file).is_some_and(|shard| {
        let same_extent = extent.is_empty() || shard.extent.to_wire() == extent;
        shard.group.0 == group && u32::from(shard.slot.0) == slot && same_extent
    })
}
