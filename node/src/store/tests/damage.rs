//! Damage of the log, kind by kind: found, told with disk and place, and what is whole stays served.

use proto::limits::BLOCK_BYTES;

use super::logs::heard;
use super::*;

/// Lengths of the shards that lie on the disk, one after the other: the first four and a seal in one segment, the
/// others in the next.
const LENGTHS: [usize; 7] = [BLOCK_BYTES + 64, 128, 128, BLOCK_BYTES, 2 * BLOCK_BYTES, 192, 4096];
const SEALED: &str = "seg-00000000";
const OPEN: &str = "seg-00000001";

/// What becomes of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Whole,
    Damaged,
    Gone,
}
use Fate::{Damaged, Gone, Whole};

/// A disk with its shards, its index, and where each lies.
struct Laid {
    disk: MemDisk,
    kv: MemKv,
    places: Vec<(String, usize)>,
}

fn bytes_of(number: usize) -> Vec<u8> {
    content(u32::try_from(number).unwrap(), LENGTHS[number])
}

fn name_of(number: usize) -> ShardName {
    numbered(u32::try_from(number).unwrap())
}

fn laid() -> Laid {
    let (disk, kv) = (disk(), kv());
    let places = with(&disk, &kv, async |store| {
        for number in 0..LENGTHS.len() {
            put(&store, name_of(number), &bytes_of(number)).await.unwrap();
        }
        (0..LENGTHS.len()).map(|number| place(&store, name_of(number))).collect::<Vec<_>>()
    });
    let files: Vec<&str> = places.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(files, [SEALED, SEALED, SEALED, SEALED, OPEN, OPEN, OPEN]);
    Laid { disk, kv, places }
}

impl Laid {
    fn copy(&self) -> Self {
        Self { disk: self.disk.copy(), kv: self.kv.copy(), places: self.places.clone() }
    }

    /// Flips a bit so many bytes behind the start of a shard's record.
    fn flip(&self, number: usize, within: usize) {
        let (file, offset) = &self.places[number];
        self.disk.damage(file, offset + within);
    }

    /// What lies where a shard's record does, or a part of it.
    fn at(&self, number: usize, within: usize, bytes: usize) -> Vec<u8> {
        let (file, offset) = &self.places[number];
        self.disk.content(file)[offset + within..][..bytes].to_vec()
    }

    fn overwrite(&self, number: usize, within: usize, bytes: &[u8]) {
        let (file, offset) = &self.places[number];
        self.disk.overwrite(file, offset + within, bytes);
    }
}

async fn fate(store: &Store, number: usize) -> Fate {
    let presence = store.check(name_of(number), Priority::Scrub).await.unwrap();
    match get(store, name_of(number)).await {
        Ok(bytes) => {
            assert!(bytes == bytes_of(number), "{number}: other bytes");
            assert!(matches!(presence, Presence::Whole(_)), "{number}: {presence:?}");
            Whole
        }
        Err(StoreError::Damaged { name, .. }) => {
            assert_eq!((name, presence), (name_of(number), Presence::Damaged));
            Damaged
        }
        Err(StoreError::NoSuchShard(_)) => {
            assert_eq!(presence, Presence::Absent);
            Gone
        }
        Err(error) => panic!("{number}: {error}"),
    }
}

/// A kind of damage, and what becomes of the shards with the index and without it.
struct Case {
    what: &'static str,
    harm: fn(&Laid),
    with_index: [Fate; 7],
    without: [Fate; 7],
    /// What the log of events says; nothing when no reader needs what is damaged.
    told: &'static str,
    /// Without an index nobody knows that it was there.
    is_known: bool,
}

const UNHARMED: [Fate; 7] = [Whole; 7];

/// These shards are not whole.
const fn but(numbers: &[usize], fate: Fate) -> [Fate; 7] {
    let mut fates = UNHARMED;
    let mut at = 0;
    while at < numbers.len() {
        fates[numbers[at]] = fate;
        at += 1;
    }
    fates
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            what: "a header of a record is damaged",
            harm: |laid| laid.flip(1, 40),
            with_index: but(&[1], Damaged),
            without: but(&[1], Gone),
            told: SEALED,
            is_known: true,
        },
        Case {
            what: "the first record of a segment is damaged",
            harm: |laid| laid.flip(0, 40),
            with_index: but(&[0], Damaged),
            without: but(&[0], Gone),
            told: SEALED,
            is_known: true,
        },
        Case {
            what: "a block is damaged",
            harm: |laid| laid.flip(0, HEADER_BYTES + BLOCK_BYTES + 1),
            with_index: but(&[0], Damaged),
            without: but(&[0], Damaged),
            told: "blocks [1]",
            is_known: true,
        },
        Case {
            what: "a record went astray, over another",
            harm: |laid| laid.overwrite(2, 0, &laid.at(1, 0, 8192)),
            with_index: but(&[2], Damaged),
            without: but(&[2], Gone),
            told: SEALED,
            is_known: true,
        },
        Case {
            what: "a block went astray",
            harm: |laid| laid.overwrite(4, HEADER_BYTES, &laid.at(3, HEADER_BYTES, BLOCK_BYTES)),
            with_index: but(&[4], Damaged),
            without: but(&[4], Damaged),
            told: "blocks [0]",
            is_known: true,
        },
        Case {
            what: "a write was lost",
            harm: |laid| laid.overwrite(2, 0, &[0; 8192]),
            with_index: but(&[2], Damaged),
            without: but(&[2], Gone),
            told: SEALED,
            is_known: true,
        },
        Case {
            what: "half of a write was lost",
            harm: |laid| laid.overwrite(4, HEADER_BYTES + 512, &[0; BLOCK_BYTES]),
            with_index: but(&[4], Damaged),
            without: but(&[4], Damaged),
            told: "blocks [0, 1]",
            is_known: true,
        },
        Case {
            what: "the header of a segment that is full is damaged",
            harm: |laid| laid.disk.damage(SEALED, 70),
            with_index: UNHARMED,
            without: UNHARMED,
            told: "",
            is_known: true,
        },
        Case {
            what: "the header of the last segment is damaged",
            harm: |laid| laid.disk.damage(OPEN, 70),
            with_index: UNHARMED,
            without: UNHARMED,
            told: OPEN,
            is_known: true,
        },
        Case {
            what: "a segment was deleted by hand",
            harm: |laid| laid.disk.lose(SEALED),
            with_index: but(&[0, 1, 2, 3], Gone),
            without: but(&[0, 1, 2, 3], Gone),
            told: SEALED,
            is_known: false,
        },
        Case {
            what: "the last segment was deleted by hand",
            harm: |laid| laid.disk.lose(OPEN),
            with_index: but(&[4, 5, 6], Gone),
            without: but(&[4, 5, 6], Gone),
            told: OPEN,
            is_known: false,
        },
        Case {
            what: "a segment was cut short",
            harm: |laid| {
                let short = laid.disk.content(SEALED)[..laid.places[3].1].to_vec();
                laid.disk.plant(SEALED, short);
            },
            with_index: but(&[3], Damaged),
            without: but(&[3], Gone),
            told: SEALED,
            is_known: false,
        },
        Case {
            what: "the seal is damaged",
            harm: |laid| laid.overwrite(3, HEADER_BYTES + BLOCK_BYTES, &[0; HEADER_BYTES]),
            with_index: UNHARMED,
            without: UNHARMED,
            told: "",
            is_known: true,
        },
    ]
}

/// Each kind of damage costs what it hit and nothing else, with the index and without it; it is counted, the log of
/// events says where it is, and new shards can be put, the lost ones among them.
#[test]
fn damage_is_found_told_and_healed() {
    let laid = laid();
    for Case { what, harm, with_index, without, told, is_known } in cases() {
        for (has_index, fates) in [(true, with_index), (false, without)] {
            let index = if has_index { laid.kv.copy() } else { kv() };
            let harmed = laid.copy();
            harm(&harmed);
            let (damaged_blocks, lines) = heard(|| {
                with(&harmed.disk, &index, async |store| {
                    for (number, expected) in fates.iter().enumerate() {
                        assert_eq!(
                            fate(&store, number).await,
                            *expected,
                            "{what}, {number}, index: {has_index}"
                        );
                    }
                    store.report().await.damaged_blocks
                })
            });
            let is_told =
                lines.iter().any(|line| line.contains(told) && line.contains(&DiskUuid(2).to_string()));
            if !told.is_empty() && (has_index || is_known) {
                assert!(
                    damaged_blocks > 0 && is_told,
                    "{what}, index: {has_index}: {damaged_blocks} {lines:?}"
                );
            }
            with(&harmed.disk, &index, async |store| {
                for (number, fate) in fates.iter().enumerate().filter(|(_, fate)| **fate != Whole) {
                    if *fate == Damaged {
                        store.delete(name_of(number)).await.unwrap();
                    }
                    put(&store, name_of(number), &bytes_of(number)).await.unwrap();
                }
                assert_eq!(store.report().await.shards, 7, "{what}");
            });
            for index in [index, kv()] {
                with(&harmed.disk, &index, async |store| {
                    for number in 0..LENGTHS.len() {
                        assert_eq!(fate(&store, number).await, Whole, "{what}, healed");
                    }
                });
            }
        }
    }
}

/// Without an index, a record that is missing in the middle of the log is counted and told all the same.
#[test]
fn a_rebuild_counts_what_is_missing() {
    let laid = laid();
    for number in [0, 1, 3] {
        let harmed = laid.copy();
        harmed.flip(number, 40);
        let (damaged_blocks, lines) =
            heard(|| with(&harmed.disk, &kv(), async |store| store.report().await.damaged_blocks));
        assert!(damaged_blocks > 0, "record {number} is missing");
        assert!(lines.iter().any(|line| line.contains(SEALED)), "{lines:?}");
    }
}

/// Blocks beside a damaged one can be read.
#[test]
fn whole_blocks_of_a_damaged_shard_are_served() {
    let laid = laid();
    laid.flip(4, HEADER_BYTES + BLOCK_BYTES + 9);
    with(&laid.disk, &laid.kv, async |store| {
        let read = store.read(name_of(4), 0, 1, Priority::Client).await.unwrap();
        assert_eq!(&read.bytes[..], &bytes_of(4)[..BLOCK_BYTES]);
        assert!(store.read(name_of(4), 1, 1, Priority::Client).await.is_err());
    });
}

/// A put over a shard with a damaged header replaces it, whatever bytes stood there.
#[test]
fn put_replaces_a_damaged_header() {
    let laid = laid();
    laid.flip(2, 40);
    with(&laid.disk, &laid.kv, async |store| {
        let used_bytes = store.used_bytes();
        put(&store, name_of(2), &content(77, 128)).await.unwrap();
        assert_eq!(get(&store, name_of(2)).await.unwrap(), content(77, 128));
        assert_eq!(store.used_bytes(), used_bytes);
    });
}

/// Compaction does not copy what is damaged, and whoever asks later is told that it is not there.
#[test]
fn compaction_leaves_damage_behind() {
    let laid = laid();
    laid.flip(1, 40);
    laid.flip(3, HEADER_BYTES + 7);
    with(&laid.disk, &laid.kv, async |store| {
        store.delete(name_of(0)).await.unwrap();
        while store.compact().await.unwrap() {}
        for (number, expected) in [Gone, Gone, Whole, Gone, Whole, Whole, Whole].into_iter().enumerate() {
            assert_eq!(fate(&store, number).await, expected, "{number}");
        }
        assert!(store.report().await.damaged_blocks >= 2);
    });
}

/// Of the last records, a torn one and what follows it are left out without a word of damage, and the log goes on.
#[test]
fn a_torn_tail_is_no_damage() {
    let laid = laid();
    for within in [0, HEADER_BYTES - 1, HEADER_BYTES + 100] {
        let torn = laid.copy();
        torn.flip(6, within);
        let (report, lines) = heard(|| {
            with(&torn.disk, &kv(), async |store| {
                for (number, expected) in but(&[6], Gone).into_iter().enumerate() {
                    assert_eq!(fate(&store, number).await, expected, "{number}");
                }
                put(&store, name_of(6), &bytes_of(6)).await.unwrap();
                store.report().await
            })
        });
        assert_eq!((report.damaged_blocks, report.shards), (0, 7), "{lines:?}");
        with(&torn.disk, &kv(), async |store| assert_eq!(fate(&store, 6).await, Whole));
    }
}
