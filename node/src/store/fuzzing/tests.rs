//! Each parser with the seeds of its fuzzer, with seeds that were changed, and with any bytes; `CADOLE_HOSTILE_CASES` says
//! how many times. Seeds are written anew to the directory that `CADOLE_WRITE_SEEDS` names.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index as At;
use proto::{ExtentId, GroupId, ShardName, SlotIndex, StripeIndex};

use super::*;
use crate::store::record::Tombstone;

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds");

fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("CADOLE_HOSTILE_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 4096,
        ..ProptestConfig::with_cases(asked.unwrap_or(cases))
    }
}

fn committed(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = std::fs::read_dir(Path::new(SEEDS).join(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn target(name: &str) -> fn(&[u8]) {
    TARGETS.iter().find(|(of, _)| *of == name).unwrap().1
}

/// What any bytes are in place of, in, or behind.
#[derive(Clone, Debug)]
struct Change {
    seed: At,
    at: At,
    bytes: Vec<u8>,
    cut: Option<At>,
}

fn change() -> impl Strategy<Value = Change> {
    let bytes = prop::collection::vec(prop_oneof![Just(0), Just(0xff), any::<u8>()], 0..24);
    (any::<At>(), any::<At>(), bytes, prop::option::of(any::<At>()))
        .prop_map(|(seed, at, bytes, cut)| Change { seed, at, bytes, cut })
}

impl Change {
    fn of(&self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.seed.get(seeds).clone();
        let at = self.at.index(bytes.len() + 1);
        bytes.resize(bytes.len().max(at + self.bytes.len()), 0);
        bytes[at..at + self.bytes.len()].copy_from_slice(&self.bytes);
        if let Some(cut) = self.cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        bytes
    }
}

/// Tries one target with any bytes, and with changed seeds.
fn try_it(name: &str, cases: u32) {
    let (seeds, target) = (committed(name), target(name));
    let any_bytes = prop::collection::vec(any::<u8>(), 0..300);
    let runner = |case: &(Vec<u8>, Vec<Change>)| {
        target(&case.0);
        case.1.iter().for_each(|change| target(&change.of(&seeds)));
        Ok(())
    };
    let strategy = (any_bytes, prop::collection::vec(change(), 1..4));
    prop::test_runner::TestRunner::new(config(cases)).run(&strategy, |case| runner(&case)).unwrap();
}

/// Every target has seeds, and none of them is a finding.
#[test]
fn seeds_are_survived() {
    for (name, target) in TARGETS {
        let seeds = committed(name);
        assert!(!seeds.is_empty(), "{name}");
        seeds.iter().for_each(|seed| target(seed));
    }
}

/// Any bytes in place of a superblock.
#[test]
fn any_superblock() {
    try_it("superblock", 256);
}

/// Any bytes in place of a segment's header.
#[test]
fn any_segment_header() {
    try_it("segment_header", 256);
}

/// Any bytes in place of a record's page.
#[test]
fn any_record() {
    try_it("record", 256);
}

/// Any bytes in place of tombstones.
#[test]
fn any_tombstones() {
    try_it("tombstones", 256);
}

/// Any bytes in place of a hint.
#[test]
fn any_hint() {
    try_it("hint", 1024);
}

/// Any bytes in place of a row's key or value.
#[test]
fn any_index_row() {
    try_it("index_rows", 1024);
}

/// Any rows in an index.
#[test]
fn any_index() {
    try_it("index", 256);
}

/// Any bytes on a disk and in its index.
#[test]
fn any_disk() {
    try_it("disk", 32);
}

/// What the fuzzers begin with: all that a disk of format version 1 has, and something of what it has not.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    for page in disk::pages() {
        let target = match array(&page, 0) {
            SUPERBLOCK => "superblock",
            SEGMENT => "segment_header",
            RECORD => "record",
            _ => continue,
        };
        let used = page.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        seeds.push((target, page[..used].to_vec()));
    }
    seeds.extend([1, 86].map(|count| ("tombstones", tombstones_seed(count))));
    seeds.extend(hints().map(|hint| ("hint", hint.encode().to_vec())));
    for (key, value) in disk::rows() {
        seeds
            .extend([("index_rows", [&[1], &key[..]].concat()), ("index_rows", [&[1], &value[..]].concat())]);
    }
    seeds.extend([
        ("index", vec![0x60, 4, 0, 0, 0, 1, 0]),
        ("index", [&[0x40, 1, 25, 1, 0, 0, 0, 0, 0, 0, 0, 1][..], &[0; 16]].concat()),
        ("index", [&[0x20, 28, 0, 0, 0, 0, 1][..], &[0; 8], &[0x30], &[0; 6], &[2], &[0; 7]].concat()),
        (
            "index",
            [
                &[0x30, 40, 0, 0, 0, 0, 253, 0, 0, 0, 2],
                &[0; 11][..],
                &[64, 0, 0, 0, 1],
                &[0; 7],
                &[1],
                &[0; 7],
            ]
            .concat(),
        ),
        ("index", vec![0x30, 3, 1, 2, 3, 0x50, 0]),
        ("disk", vec![]),
        ("disk", vec![14, 4, 0, 0]),
        ("disk", vec![1, 2, 1, 80, 0, 8, 255, 255, 255, 255, 255, 255, 255, 255]),
        ("disk", vec![3, 2, 10, 0, 1, 6, 2, 10, 8, 200, 7, 0, 1]),
        ("disk", vec![10, 0, 7, 5, 3, 0, 6, 2, 8, 30, 2]),
        ("disk", vec![11, 9, 8, 2, 0, 0xb0, 13, 1, 12, 0, 1, 0, 0]),
    ]);
    seeds
}

fn tombstones_seed(count: u16) -> Vec<u8> {
    let name = |stripe| ShardName {
        extent: ExtentId(3),
        group: GroupId(1),
        stripe: StripeIndex(stripe),
        slot: SlotIndex(2),
    };
    let dead: Vec<Tombstone> = (0..u32::from(count))
        .map(|number| Tombstone { name: name(number), segment: SegmentId(1), incarnation: 2, sequence: 9 })
        .collect();
    let mut payload = vec![0; tombstones_bytes(dead.len())];
    encode_tombstones(&dead, &mut payload);
    [&count.to_le_bytes(), &payload[..dead.len() * TOMBSTONE_BYTES]].concat()
}

fn hints() -> [ObjectHint; 2] {
    let short = ObjectHint {
        tenant: "dijon".parse().unwrap(),
        bucket: "archives".parse().unwrap(),
        key: "a/b".parse().unwrap(),
        put: ExtentId(7),
        extent: 1,
        extent_offset: 4 * 65_536,
        stripe_bytes: 100,
        object_bytes: Some(262_244),
        k: 4,
        m: 2,
        shard_bytes: 65_536,
        matrix: 1,
    };
    let long = ObjectHint {
        key: "k".repeat(1024).parse().unwrap(),
        extent_offset: 0,
        object_bytes: None,
        k: 20,
        m: 4,
        shard_bytes: 4 << 20,
        ..short.clone()
    };
    [short, long]
}

/// Made anew when asked for.
#[test]
fn seeds_are_written_when_asked_for() {
    let directory = std::env::var_os("CADOLE_WRITE_SEEDS");
    for (number, (name, seed)) in seeds().iter().enumerate() {
        if let Some(directory) = &directory {
            let directory = Path::new(directory).join(name);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(format!("{number:02}")), seed).unwrap();
        }
        target(name)(seed);
    }
}
