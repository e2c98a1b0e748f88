//! Looking into a disk that nobody serves.

use super::*;
use crate::store::record::{Realm, SegmentHeader};
use crate::store::survey::{self, Survey, SurveyError, survey};
use crate::superblock;

const FILE: &str = "seg-00000000";
const RECORD_BYTES: usize = 2 * HEADER_BYTES;

/// A formatted disk with so many shards of one extent each, one after the other in the first segment.
fn disk_with(shards: u32) -> MemDisk {
    let disk = disk();
    block_on(superblock::format(&disk, &SUPERBLOCK)).unwrap();
    if shards > 0 {
        with(&disk, &kv(), async |store| {
            for number in 0..shards {
                put(&store, numbered(number), &content(number, 128)).await.unwrap();
            }
        });
    }
    disk
}

/// Where the record of a number begins.
fn at(number: usize) -> usize {
    HEADER_BYTES + number * RECORD_BYTES
}

/// Surveys, and makes sure that nothing on the disk has changed.
fn look(disk: &MemDisk) -> Result<Survey, SurveyError> {
    let image = || -> Vec<_> { disk.names().into_iter().map(|name| (disk.content(&name), name)).collect() };
    let before = image();
    let found = block_on(survey(disk.clone()));
    assert!(image() == before, "the disk was changed");
    found
}

fn verdicts(survey: &Survey) -> Vec<(u128, bool)> {
    survey.shards.iter().map(|shard| (shard.name.extent.0, shard.whole)).collect()
}

/// All shards are listed with what is known of them, in order, and with the place of each.
#[test]
fn shards_are_listed_with_their_places() {
    let disk = disk_with(3);
    let found = look(&disk).unwrap();
    assert_eq!((found.superblock, found.damaged_records), (SUPERBLOCK, 0));
    assert_eq!(verdicts(&found), [(0, true), (1, true), (2, true)]);
    for (number, shard) in found.shards.iter().enumerate() {
        assert_eq!((shard.epoch, shard.shard_bytes), (EPOCH, 128));
        let RecordPlace { file, offset, bytes } = &shard.place;
        assert_eq!((file.as_str(), *offset, *bytes), (FILE, at(number) as u64, RECORD_BYTES as u64));
        let start = at(number) + HEADER_BYTES;
        assert_eq!(disk.content(FILE)[start..start + 128], content(u32::try_from(number).unwrap(), 128));
    }
}

/// A disk on which nothing has been stored yet has no shards, and that is no error.
#[test]
fn an_empty_disk_is_listed() {
    let disk = disk_with(0);
    let found = look(&disk).unwrap();
    assert_eq!((found.superblock, verdicts(&found), found.damaged_records), (SUPERBLOCK, vec![], 0));
    let damage = async { survey::open(disk.clone()).await.unwrap().log_damage(|| ()).await.unwrap() };
    assert_eq!(block_on(damage), []);
}

/// Each kind of damage spoils its own entry alone, and the disk is as it was before.
#[test]
fn one_bad_record_is_an_entry() {
    let disk = disk_with(7);
    disk.damage(FILE, at(1) + 20);
    disk.damage(FILE, at(2) + HEADER_BYTES + 5);
    let astray = disk.content(FILE)[at(0)..at(1)].to_vec();
    disk.overwrite(FILE, at(4), &astray);
    disk.plant("somebody-elses", vec![0; 3]);
    let found = look(&disk).unwrap();
    assert_eq!(verdicts(&found), [(0, true), (2, false), (3, true), (5, true), (6, true)]);
    assert!(found.damaged_records > 0);
}

/// A torn tail is left out, a damaged header of a segment is not written again.
#[test]
fn nothing_is_healed() {
    let disk = disk_with(4);
    disk.damage(FILE, at(3) + HEADER_BYTES + 5);
    disk.damage(FILE, 70);
    assert_eq!(verdicts(&look(&disk).unwrap()), [(0, true), (1, true), (2, true)]);
}

/// One superblock is enough, and without any a segment's header tells the disk; a disk that nothing tells is none, and
/// one whose superblocks contradict each other is refused.
#[test]
fn superblocks_and_headers_tell_the_disk() {
    for (damaged, expected) in [
        (vec![], Some(SUPERBLOCK)),
        (vec!["superblock"], Some(SUPERBLOCK)),
        (vec!["superblock.copy"], Some(SUPERBLOCK)),
        (vec!["superblock", "superblock.copy"], Some(SUPERBLOCK)),
    ] {
        for lost in [false, true] {
            let disk = disk_with(2);
            for name in &damaged {
                if lost { disk.lose(name) } else { disk.damage(name, 40) }
            }
            let found = look(&disk).unwrap();
            assert_eq!(Some(found.superblock), expected, "{damaged:?}");
            assert_eq!(verdicts(&found), [(0, true), (1, true)], "{damaged:?}");
        }
    }
    let disk = disk_with(2);
    for name in ["superblock", "superblock.copy", FILE] {
        disk.damage(name, 40);
    }
    assert!(matches!(look(&disk), Err(SurveyError::NoDisk)));
    let disk = disk_with(2);
    let other = Superblock { uuid: DiskUuid(9), ..SUPERBLOCK };
    disk.plant("superblock.copy", other.encode().as_slice().to_vec());
    assert!(matches!(look(&disk), Err(SurveyError::NoDisk)));
}

/// Under another disk's superblock nothing here is a shard.
#[test]
fn shards_of_another_disk_are_none() {
    let disk = disk_with(2);
    let other = Superblock { uuid: DiskUuid(9), ..SUPERBLOCK };
    for name in ["superblock", "superblock.copy"] {
        disk.plant(name, other.encode().as_slice().to_vec());
    }
    let found = look(&disk).unwrap();
    assert_eq!((found.superblock, verdicts(&found)), (other, vec![]));
}

/// A header that claims impossible lengths of segments tells no disk.
#[test]
fn impossible_headers_tell_no_disk() {
    let disk = disk();
    let header =
        SegmentHeader { segment: SegmentId(0), incarnation: 1, segment_bytes: 1 << 40, durable_to: 0 };
    let realm = Realm { cluster: ClusterId(1), disk: DiskUuid(2), salt: 3 };
    disk.plant(FILE, header.encode(&realm).as_slice().to_vec());
    assert!(matches!(look(&disk), Err(SurveyError::NoDisk)));
}

/// A disk that cannot be read is refused, or gives what little is known, and never a shard that is whole.
#[test]
fn an_unreadable_disk_is_no_disk() {
    let disk = disk_with(2);
    disk.fail("read");
    assert!(matches!(look(&disk), Err(SurveyError::NoDisk)));
    let empty = MemDisk::new(1 << 20);
    assert!(matches!(look(&empty), Err(SurveyError::NoDisk)));
}

/// Shards are found after compaction, deletions and a rebirth, each once.
#[test]
fn what_was_deleted_is_not_listed() {
    let (disk, kv) = (disk_with(0), kv());
    with(&disk, &kv, async |store| {
        for number in 0..6 {
            put(&store, numbered(number), &content(number, 40 << 10)).await.unwrap();
        }
        for number in [0, 3] {
            store.delete(numbered(number)).await.unwrap();
        }
        while store.compact().await.unwrap() {}
        put(&store, numbered(3), &content(33, 64)).await.unwrap();
    });
    let found = look(&disk).unwrap();
    assert_eq!(verdicts(&found), [(1, true), (2, true), (3, true), (4, true), (5, true)]);
    assert_eq!(found.shards[2].shard_bytes, 64);
}
