//! Disks of earlier versions of this software: they must open for ever.
//!
//! A fixture is a disk as text, so that a change of it can be read: for each file its name and length, then every 32
//! bytes that are not zeros, in hexadecimal; and the rows of its index at two moments, in the same way. With the
//! variable `CADOLE_WRITE_FIXTURES` set to a directory, [`version_1`] is made anew there, by this version: a fixture is
//! written once, when its format is released, and never again.

use std::fmt::Write;
use std::path::Path;

use super::*;
use crate::store::record::{Body, Place, Record, SegmentHeader};
use crate::store::survey::survey;
use crate::superblock::{self, Found};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
/// The smallest that there are.
const SUPERBLOCK_V1: Superblock = Superblock {
    cluster: ClusterId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
    uuid: DiskUuid(0xabcd),
    created: Timestamp::from_millis(0x1122_3344_5566),
    salt: 0x0807_0605_0403_0201,
    segment_bytes: 64 << 10,
};
const ROW: usize = 32;

/// What stands in the fixture: number and length of each shard.
const SHARDS: [(u32, usize); 6] = [(1, 3_008), (3, 64), (5, 16 << 10), (6, 1_024), (7, 64), (8, 128)];
/// What is not there any more: deleted; deleted when it had been copied; torn.
const GONE: [u32; 4] = [0, 2, 4, 9];

/// Few bytes that are not zeros, so that the fixture is short.
fn sparse(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = content(number, length);
    bytes.iter_mut().skip(200).for_each(|byte| *byte = 0);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn disk_to_text(disk: &MemDisk) -> String {
    let mut text = String::new();
    for name in disk.names() {
        let content = disk.content(&name);
        writeln!(text, "file {name} {}", content.len()).unwrap();
        for (at, row) in content.chunks(ROW).enumerate().filter(|(_, row)| row.iter().any(|byte| *byte != 0))
        {
            let used = row.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            writeln!(text, "{:05x} {}", at * ROW, hex(&row[..used])).unwrap();
        }
    }
    text
}

fn disk_of_text(text: &str) -> MemDisk {
    let disk = MemDisk::new(1 << 20);
    let mut name = "";
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["file", file, bytes] => {
                name = file;
                disk.plant(name, vec![0; bytes.parse().unwrap()]);
            }
            [at, row] => disk.overwrite(name, usize::from_str_radix(at, 16).unwrap(), &bytes_of(row)),
            _ => panic!("{line:?}"),
        }
    }
    disk
}

fn index_to_text(kv: &MemKv) -> String {
    let mut text = String::new();
    for table in INDEX_TABLES {
        for (key, value) in kv.rows(table) {
            writeln!(text, "{table} {} {}", hex(&key), hex(&value)).unwrap();
        }
    }
    text
}

fn index_of_text(text: &str) -> MemKv {
    let kv = kv();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [table, key, value] = words[..] else { panic!("{line:?}") };
        let table = INDEX_TABLES.iter().find(|known| **known == table).unwrap();
        kv.plant(table, &bytes_of(key), &bytes_of(value));
    }
    kv
}

/// A disk with everything that version 1 has: shards, seals, tombstones, copies of both, a segment that was freed and
/// used again, a shard that was born again, and a torn tail. And its index, in the middle and before the torn record.
fn version_1() -> (MemDisk, MemKv, MemKv) {
    let (disk, kv) = (MemDisk::new(20 * SUPERBLOCK_V1.segment_bytes), kv());
    block_on(async {
        superblock::format(&disk, &SUPERBLOCK_V1).await.unwrap();
        let opened = ShardStore::open(disk.clone(), kv.clone(), SUPERBLOCK_V1, None).await;
        let (store, writer) = opened.unwrap();
        let work = async {
            let put = async |number: u32, length| {
                put(&store, numbered(number), &sparse(number, length)).await.unwrap();
            };
            let delete =
                async |number: u32| assert_eq!(store.delete(numbered(number)).await.unwrap().get().shards, 1);
            for (number, length) in [(0, 20 << 10), (1, 3_008), (2, 8 << 10), (3, 64)] {
                put(number, length).await;
            }
            // The first segment is left, and used again when the second is full.
            for number in [0, 2] {
                delete(number).await;
            }
            put(4, 24 << 10).await;
            assert!(store.compact().await.unwrap());
            let middle = kv.copy();
            for (number, length) in [(5, 16 << 10), (6, 1_024), (7, 64)] {
                put(number, length).await;
            }
            for number in [7, 4] {
                delete(number).await;
            }
            put(7, 64).await;
            assert!(store.compact().await.unwrap());
            put(8, 128).await;
            let end = kv.copy();
            put(9, 64).await;
            let torn = place(&store, numbered(9));
            drop(store);
            (middle, end, torn)
        };
        let ((middle, end, (file, offset)), ()) = join(work, writer).await;
        disk.damage(&file, offset + HEADER_BYTES + 9);
        (disk, middle, end)
    })
}

/// What there is of each kind in the segments, in the incarnations of their headers: shards, of these copies,
/// tombstones, seals; and how many segments have been used again.
fn census(disk: &MemDisk) -> [usize; 5] {
    let mut counts = [0; 5];
    let realm = SUPERBLOCK_V1.realm();
    for file in disk.names().iter().filter(|name| name.starts_with("seg-")) {
        let segment = disk.content(file);
        let header = SegmentHeader::decode(&realm, &segment[..HEADER_BYTES]).unwrap();
        let SegmentHeader { segment: id, incarnation, .. } = header;
        let records = segment.chunks(HEADER_BYTES).enumerate().filter_map(|(page, bytes)| {
            let place = Place { segment: id, incarnation, offset: (page * HEADER_BYTES) as u64 };
            Record::decode(&realm, &place, bytes).ok()
        });
        let mut is_used_again = false;
        for record in records {
            is_used_again = incarnation > 1;
            match record.body {
                Body::Shard(meta) => {
                    counts[0] += 1;
                    counts[1] += usize::from(meta.from.is_some());
                }
                Body::Tombstones { .. } => counts[2] += 1,
                Body::Seal { .. } => counts[3] += 1,
            }
        }
        counts[4] += usize::from(is_used_again);
    }
    counts
}

/// Made anew when asked for.
#[test]
fn fixtures_are_written_when_asked_for() {
    let (disk, middle, end) = version_1();
    let texts = [
        ("disk.txt", disk_to_text(&disk)),
        ("index-old.txt", index_to_text(&middle)),
        ("index.txt", index_to_text(&end)),
    ];
    assert_eq!(disk_to_text(&disk_of_text(&texts[0].1)), texts[0].1);
    assert_eq!(index_to_text(&index_of_text(&texts[2].1)), texts[2].1);
    if let Some(directory) = std::env::var_os("CADOLE_WRITE_FIXTURES") {
        for (name, text) in texts {
            std::fs::write(Path::new(&directory).join(name), text).unwrap();
        }
    }
}

fn fixture(name: &str) -> String {
    std::fs::read_to_string(Path::new(FIXTURES).join("v1").join(name)).unwrap()
}

/// A disk of format version 1 opens with its index, an older one, and none; it holds what it held, to the byte, and can
/// be written to; and it can be surveyed.
#[test]
fn version_1_opens() {
    let disk = disk_of_text(&fixture("disk.txt"));
    let found = block_on(superblock::inspect(&disk, SUPERBLOCK_V1.cluster)).unwrap();
    assert_eq!(found, Found::Ours(SUPERBLOCK_V1));
    let surveyed = block_on(survey(disk.copy())).unwrap();
    let census = census(&disk);
    assert!(census.iter().all(|count| *count > 0), "{census:?}");
    let shards: Vec<(ShardName, usize)> =
        surveyed.shards.iter().map(|shard| (shard.name, shard.shard_bytes as usize)).collect();
    assert_eq!(shards, SHARDS.map(|(number, length)| (numbered(number), length)));
    assert!(surveyed.shards.iter().all(|shard| shard.whole && shard.epoch == EPOCH));
    assert_eq!((surveyed.superblock, surveyed.damaged_records), (SUPERBLOCK_V1, 0));
    let indexes = [index_of_text(&fixture("index.txt")), index_of_text(&fixture("index-old.txt")), kv()];
    for index in indexes {
        let disk = disk.copy();
        block_on(async {
            let (store, writer) = ShardStore::open(disk.clone(), index, SUPERBLOCK_V1, None).await.unwrap();
            let work = async {
                for (number, length) in SHARDS {
                    let read = store.read(numbered(number), 0, 0, Priority::Client).await.unwrap();
                    assert!(
                        read.bytes == sparse(number, length)
                            && read.tenant_tag == TAG
                            && read.hint == hint(&read.bytes),
                        "{number}"
                    );
                }
                for number in GONE {
                    assert_eq!(
                        get(&store, numbered(number)).await,
                        Err(StoreError::NoSuchShard(numbered(number)))
                    );
                }
                let report = store.report().await;
                let used_bytes: u64 = SHARDS.iter().map(|(_, length)| record_bytes(*length)).sum();
                assert_eq!((report.used_bytes, report.damaged_blocks), (used_bytes, 0));
                put(&store, numbered(9), &content(9, 64)).await.unwrap();
                while store.compact().await.unwrap() {}
                assert_eq!(get(&store, numbered(9)).await.unwrap(), content(9, 64));
                drop(store);
            };
            join(work, writer).await;
        });
    }
}

/// The index of version 1 is taken as it is: nothing is read of the disk but the end of the log.
#[test]
fn the_index_of_version_1_is_used() {
    let disk = disk_of_text(&fixture("disk.txt"));
    let index = index_of_text(&fixture("index.txt"));
    let (store, _) = block_on(ShardStore::open(disk.clone(), index, SUPERBLOCK_V1, None)).unwrap();
    let reads = disk.counts().reads;
    assert!(reads <= 8, "{reads} reads");
    assert_eq!(block_on(store.report()).shards, SHARDS.len() as u64);
}
