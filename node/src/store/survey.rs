//! What lies on a disk that nobody serves: for people who look into a disk, or save what is on it.
//!
//! Nothing is changed, nothing is healed, and one bad file is an entry of the list, never the end of it.
//! One file after another is read whole, so memory is bounded by one shard and the names.

use codec::verify_blocks;
use env::{AlignedBuf, Disk, DiskFile, FileName, Priority, Read, StorageError};
use proto::{Epoch, ShardName};

use super::index::Entry;
use super::record::{self, HEADER_BYTES, ShardHeader};
use crate::superblock::{self, Superblock};

/// What lies on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Which disk it is; nothing when no superblock is whole.
    pub superblock: Option<Superblock>,
    /// Every file with the name of a shard, in the order of names.
    pub shards: Vec<Surveyed>,
}

/// One shard, as its file shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// By the name of the file.
    pub name: ShardName,
    /// Of the group when it was written; 0 with a damaged header.
    pub epoch: Epoch,
    /// Its length; with a damaged header, the room that its file has for it.
    pub shard_bytes: u32,
    /// Header and every block match their checksums, and it lies where it belongs: under its own name, and
    /// on this disk as far as there is a superblock to tell.
    pub whole: bool,
}

/// The name of the file in which a store keeps the shard.
pub fn file_name(shard: &ShardName) -> String {
    record::file_name(shard)
}

/// The shard that a store keeps in the file of this name; none when it is no shard's.
pub fn shard_name(file: &FileName) -> Option<ShardName> {
    record::parse_file_name(file)
}

/// Lists and verifies all shards of a disk, and changes nothing.
///
/// Cancelling it leaves nothing behind.
///
/// # Errors
///
/// When the names on the disk cannot be listed.
pub async fn survey<D: Disk>(disk: &D) -> Result<Survey, StorageError> {
    let mut files: Vec<(ShardName, FileName)> = disk
        .list()
        .await?
        .into_iter()
        .filter_map(|file| record::parse_file_name(&file).map(|name| (name, file)))
        .collect();
    files.sort_unstable_by_key(|(name, _)| *name);
    // A superblock that cannot be read is as good as none: the shards may be fine.
    let superblock = superblock::peek(disk).await.ok().flatten();
    let mut shards = Vec::with_capacity(files.len());
    for (name, file) in files {
        shards.push(look_at(disk, superblock.as_ref(), name, &file).await);
    }
    Ok(Survey { superblock, shards })
}

async fn look_at<D: Disk>(
    disk: &D,
    superblock: Option<&Superblock>,
    name: ShardName,
    file: &FileName,
) -> Surveyed {
    let unreadable = Surveyed { name, epoch: Epoch(0), shard_bytes: 0, whole: false };
    let Ok(file) = disk.open(file).await else { return unreadable };
    let file_bytes = file.size().await.ok().and_then(|bytes| Entry::of_file(bytes).file_bytes());
    let Some(room) = file_bytes.and_then(|bytes| usize::try_from(bytes).ok()?.checked_sub(HEADER_BYTES))
    else {
        return unreadable;
    };
    let damaged = Surveyed { shard_bytes: u32::try_from(room).unwrap_or(u32::MAX), ..unreadable };
    let batch = vec![
        Read { offset: 0, buf: AlignedBuf::zeroed(HEADER_BYTES) },
        Read { offset: HEADER_BYTES as u64, buf: AlignedBuf::zeroed(room) },
    ];
    let mut answers = file.read(batch, Priority::Scrub).await.into_iter();
    let Some(Ok(page)) = answers.next() else { return damaged };
    let Ok(header) = ShardHeader::decode(page.as_slice()) else { return damaged };
    let payload = answers.next().and_then(Result::ok);
    let payload = payload.as_ref().and_then(|bytes| bytes.as_slice().get(..header.shard_bytes as usize));
    let blocks_match = payload.is_some_and(|bytes| verify_blocks(bytes, 0, &header.block_crcs).is_ok());
    let at_home = header.name == name
        && superblock.is_none_or(|disk| (disk.cluster, disk.uuid) == (header.cluster, header.disk))
        && (header.shard_bytes as usize).next_multiple_of(HEADER_BYTES) == room;
    Surveyed { name, epoch: header.epoch, shard_bytes: header.shard_bytes, whole: blocks_match && at_home }
}

#[cfg(test)]
mod tests {
    use proto::{ClusterId, DiskUuid, ExtentId, GroupId, SlotIndex, StripeIndex, TenantTag, Timestamp};

    use super::*;
    use crate::store::{NewShard, ShardStore};
    use crate::testing::{MemDisk, block_on};

    const SUPERBLOCK: Superblock =
        Superblock { cluster: ClusterId(1), uuid: DiskUuid(2), created: Timestamp::ZERO };

    fn name(extent: u128) -> ShardName {
        let (group, stripe, slot) = (GroupId(7), StripeIndex(1), SlotIndex(2));
        ShardName { group, extent: ExtentId(extent), stripe, slot }
    }

    fn file(extent: u128) -> String {
        record::file_name(&name(extent))
    }

    async fn disk_with(extents: u128) -> MemDisk {
        let disk = MemDisk::new(8 << 20);
        superblock::format(&disk, &SUPERBLOCK).await.unwrap();
        let store = ShardStore::open(disk.clone(), SUPERBLOCK, None).await.unwrap();
        for extent in 0..extents {
            let mut shard = NewShard::new(name(extent), Epoch(3), TenantTag(4), 128).unwrap();
            shard.push(&[5; 128]).unwrap();
            store.put(shard.seal().unwrap(), Priority::Client).await.unwrap();
        }
        disk
    }

    fn verdicts(survey: &Survey) -> Vec<(u128, u64, u32, bool)> {
        let one = |shard: &Surveyed| (shard.name.extent.0, shard.epoch.0, shard.shard_bytes, shard.whole);
        survey.shards.iter().map(one).collect()
    }

    /// Each kind of damage spoils its own entry alone, and the disk is as it was before.
    #[test]
    fn one_bad_file_is_an_entry() {
        block_on(async {
            let disk = disk_with(7).await;
            disk.damage(&file(1), 20);
            disk.damage(&file(2), HEADER_BYTES + 5);
            disk.plant(&file(3), vec![1; 100]);
            disk.plant(&file(4), disk.content(&file(0)));
            disk.plant(&file(5), Vec::new());
            disk.plant("w-0000000000000001", vec![0; 8192]);
            disk.plant("somebody-else", vec![0; 3]);
            let names = disk.list().await.unwrap();
            let survey = survey(&disk).await.unwrap();
            assert_eq!(survey.superblock, Some(SUPERBLOCK));
            let expected = [
                (0, 3, 128, true),
                (1, 0, 4096, false),
                (2, 3, 128, false),
                (3, 0, 0, false),
                (4, 3, 128, false),
                (5, 0, 0, false),
                (6, 3, 128, true),
            ];
            assert_eq!(verdicts(&survey), expected);
            assert_eq!(disk.list().await.unwrap(), names);
        });
    }

    /// A shard of another disk is not whole here; without any superblock its checksums decide, and one
    /// superblock is enough.
    #[test]
    fn superblocks_tell_the_disk() {
        block_on(async {
            let disk = disk_with(1).await;
            let other = MemDisk::new(8 << 20);
            other.plant(&file(0), disk.content(&file(0)));
            let there = survey(&other).await.unwrap();
            assert_eq!((there.superblock, verdicts(&there)), (None, vec![(0, 3, 128, true)]));
            let foreign = Superblock { uuid: DiskUuid(9), ..SUPERBLOCK };
            other.plant("superblock", vec![0; 4096]);
            other.plant("superblock.copy", foreign.encode().as_slice().to_vec());
            let there = survey(&other).await.unwrap();
            assert_eq!((there.superblock, verdicts(&there)), (Some(foreign), vec![(0, 3, 128, false)]));
            assert_eq!(other.content("superblock"), vec![0; 4096], "nothing is healed");
        });
    }

    /// A disk that cannot be read gives entries, not an error.
    #[test]
    fn an_unreadable_disk_is_listed() {
        block_on(async {
            let disk = disk_with(2).await;
            disk.fail("read");
            let survey = survey(&disk).await.unwrap();
            assert_eq!(survey.superblock, None);
            assert_eq!(verdicts(&survey), [(0, 0, 4096, false), (1, 0, 4096, false)]);
        });
    }
}
