//! What others put into the directory, and what later versions leave there.

use super::logs::heard;
use super::*;
use crate::block::BlockWriter;
use crate::store::record::{Realm, SegmentHeader};

fn filled(superblock: Superblock) -> (MemDisk, MemKv) {
    let (disk, kv) = (disk(), kv());
    block_on(async {
        let (store, writer) = ShardStore::open(disk.clone(), kv.clone(), superblock, None).await.unwrap();
        let work = async {
            for number in 0..6 {
                put(&store, numbered(number), &content(number, 64 << 10)).await.unwrap();
            }
            drop(store);
        };
        join(work, writer).await;
    });
    (disk, kv)
}

async fn check(store: &Store) {
    for number in 0..6 {
        assert_eq!(get(store, numbered(number)).await.unwrap(), content(number, 64 << 10));
    }
    assert_eq!(store.report().await.shards, 6);
}

/// Files with other names are left alone, also when their names are nearly those of segments.
#[test]
fn foreign_files_are_left_alone() {
    let (disk, index) = filled(SUPERBLOCK);
    let names = ["SEG-00000001", "notes.txt", "seg-0000000", "seg-0000000G", "seg-000000010", "seg-0000000A"];
    for (at, name) in names.iter().enumerate() {
        disk.plant(name, vec![7; 5000 * at]);
    }
    for index in [index, kv()] {
        with(&disk, &index, async |store| {
            check(&store).await;
            while store.compact().await.unwrap() {}
        });
        for (at, name) in names.iter().enumerate() {
            assert_eq!(disk.content(name), vec![7; 5000 * at], "{name}");
        }
    }
}

/// A segment of another disk that was copied in is not deleted and not written to, gives no shards, is told of, and is
/// in nobody's way.
#[test]
fn segments_of_another_disk_are_kept_out() {
    let (disk, index) = filled(SUPERBLOCK);
    let (other, _) = filled(Superblock { uuid: DiskUuid(9), ..SUPERBLOCK });
    let segment = other.content("seg-00000000");
    for name in ["seg-00000003", "seg-00000007", "seg-ffffffff"] {
        for index in [index.copy(), kv()] {
            let disk = disk.copy();
            disk.plant(name, segment.clone());
            let ((), lines) = heard(|| {
                with(&disk, &index, async |store| {
                    check(&store).await;
                    // So that new segments are needed.
                    for number in 10..25 {
                        put(&store, numbered(number), &content(number, 64 << 10)).await.unwrap();
                    }
                    assert_eq!(store.report().await.failure, None);
                });
            });
            assert!(lines.iter().any(|line| line.contains(name)), "{name}: {lines:?}");
            let kept = disk.names().iter().any(|file| disk.content(file) == segment);
            assert!(kept, "{name}: the other disk's segment is gone: {:?}", disk.names());
        }
    }
}

/// A later version's segment is refused, never taken for damage, for an empty segment or for none.
#[test]
fn segments_of_later_versions_are_refused() {
    let (disk, index) = filled(SUPERBLOCK);
    let mut newer = disk.content("seg-00000000");
    BlockWriter::new(&mut newer, *b"CADOLEsg", 2).seal();
    for name in ["seg-00000000", "seg-00000001", "seg-00000009"] {
        for index in [index.copy(), kv()] {
            let disk = disk.copy();
            disk.plant(name, newer.clone());
            match refusal(&disk, &index) {
                Some(StoreError::Failed(cause)) => assert!(cause.contains(name), "{cause}"),
                // With an index that knows better, a segment that need not be read is not.
                other => assert_eq!((name, other), ("seg-00000000", None)),
            }
            assert!(disk.content(name) == newer, "{name} was changed");
        }
    }
}

/// Shards whose bytes look like records of a later version keep nobody from opening the disk, wherever the log ends among
/// what is left of them.
#[test]
fn shards_that_look_like_later_records_are_nothing() {
    let mut page = vec![0; HEADER_BYTES];
    let mut block = BlockWriter::new(&mut page, *b"CADOLErc", 2);
    Realm { salt: !SUPERBLOCK.salt, ..SUPERBLOCK.realm() }.write(&mut block);
    block.seal();
    let (disk, index) = (disk(), kv());
    with(&disk, &index, async |store| {
        for number in 0..16 {
            put(&store, numbered(number), &page.repeat(16)).await.unwrap();
        }
        for number in 0..16 {
            store.delete(numbered(number)).await.unwrap();
        }
        while store.compact().await.unwrap() {}
    });
    for number in 100..160 {
        with(&disk, &index, async |store| put(&store, numbered(number), &[5; 64]).await.unwrap());
        for index in [index.copy(), kv()] {
            assert_eq!(refusal(&disk.copy(), &index), None, "after shard {number}");
        }
    }
}

/// A segment that was being made when the power failed is removed.
#[test]
fn half_made_segments_are_removed() {
    let (disk, index) = filled(SUPERBLOCK);
    let bytes = usize::try_from(SEGMENT_BYTES).unwrap();
    let header =
        SegmentHeader { segment: SegmentId(5), incarnation: 1, segment_bytes: SEGMENT_BYTES, durable_to: 1 };
    let mut torn = header.encode(&SUPERBLOCK.realm()).as_slice()[..512].to_vec();
    torn[40] ^= 1;
    torn.resize(bytes, 0);
    for half in [vec![0; bytes], Vec::new(), torn] {
        for index in [index.copy(), kv()] {
            let disk = disk.copy();
            disk.plant("seg-00000005", half.clone());
            with(&disk, &index, async |store| check(&store).await);
            assert!(!disk.names().contains(&"seg-00000005".to_owned()));
        }
    }
}
