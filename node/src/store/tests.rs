//! The store on a disk in memory that can lose power, fail and rot.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use proptest::prelude::*;
use proto::{ClusterId, DiskUuid, StripeIndex, TenantTag, Timestamp};

use super::*;
use crate::testing::{MemDisk, block_on};

const SUPERBLOCK: Superblock =
    Superblock { cluster: ClusterId(1), uuid: DiskUuid(2), created: Timestamp::ZERO };
const TAG: TenantTag = TenantTag(7);

fn open(disk: &MemDisk) -> ShardStore<MemDisk> {
    block_on(ShardStore::open(disk.clone(), SUPERBLOCK, None)).unwrap()
}

fn name(group: u32, extent: u128, stripe: u32, slot: u8) -> ShardName {
    ShardName {
        group: GroupId(group),
        extent: ExtentId(extent),
        stripe: StripeIndex(stripe),
        slot: SlotIndex(slot),
    }
}

fn content(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from((i * 7 + usize::from(seed)) % 251).unwrap()).collect()
}

fn shard(name: ShardName, bytes: &[u8]) -> CheckedShard {
    let mut shard = NewShard::new(name, Epoch(3), TAG, bytes.len()).unwrap();
    bytes.chunks(1000).for_each(|chunk| shard.push(chunk).unwrap());
    shard.seal().unwrap()
}

async fn put(store: &ShardStore<MemDisk>, name: ShardName, bytes: &[u8]) -> Result<(), StoreError> {
    store.put(shard(name, bytes), Priority::Client).await.map(|_| ())
}

async fn get(store: &ShardStore<MemDisk>, name: ShardName) -> Result<Vec<u8>, StoreError> {
    store.read(name, 0, 0, Priority::Client).await.map(|read| read.bytes.to_vec())
}

/// Blocks come back with their checksums, whole or by range; blocks that are not there are refused.
#[test]
fn reads_ranges() {
    let (store, one) = (open(&MemDisk::new(8 << 20)), name(1, 2, 3, 4));
    let bytes = content(1, 2 * BLOCK_BYTES + 64);
    block_on(async {
        put(&store, one, &bytes).await.unwrap();
        for (first, count, range) in [
            (0, 0, 0..bytes.len()),
            (1, 1, BLOCK_BYTES..2 * BLOCK_BYTES),
            (1, 0, BLOCK_BYTES..bytes.len()),
            (2, 1, 2 * BLOCK_BYTES..bytes.len()),
        ] {
            let read = store.read(one, first, count, Priority::Client).await.unwrap();
            assert_eq!(&read.bytes[..], &bytes[range.clone()], "{first} {count}");
            assert_eq!(read.block_crcs, block_checksums(&bytes[range]));
            assert_eq!((read.shard_bytes as usize, read.tenant_tag), (bytes.len(), TAG));
        }
        for (first, count) in [(3, 0), (3, 1), (0, 4), (u32::MAX, u32::MAX)] {
            let refused = store.read(one, first, count, Priority::Client).await;
            assert!(matches!(refused, Err(StoreError::Invalid(_))), "{first} {count}");
        }
        let absent = name(1, 2, 3, 5);
        assert_eq!(get(&store, absent).await, Err(StoreError::NoSuchShard(absent)));
    });
}

/// The same shard again is a success, other bytes are refused and change nothing.
#[test]
fn puts_are_idempotent() {
    let (store, one) = (open(&MemDisk::new(8 << 20)), name(1, 1, 0, 0));
    block_on(async {
        put(&store, one, &content(1, 128)).await.unwrap();
        put(&store, one, &content(1, 128)).await.unwrap();
        for other in [content(2, 128), content(1, 192)] {
            assert_eq!(put(&store, one, &other).await, Err(StoreError::Conflict(one)));
        }
        assert_eq!(get(&store, one).await.unwrap(), content(1, 128));
        let report = store.report().await;
        assert_eq!((report.shards, report.used_bytes), (1, 8192));
    });
}

/// Of different bytes put under one name at once, one wins and all others are refused.
#[test]
fn racing_puts_have_one_winner() {
    let (store, one) = (open(&MemDisk::new(8 << 20)), name(1, 1, 0, 0));
    let bytes: Vec<Vec<u8>> = (0..8).map(|seed| content(seed, 128)).collect();
    let results = block_on(join_all(bytes.iter().map(|bytes| put(&store, one, bytes))));
    let winners: Vec<usize> = (0..8).filter(|i| results[*i].is_ok()).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(block_on(get(&store, one)).unwrap(), bytes[winners[0]]);
}

/// Many writes at once share few flushes of names.
#[test]
fn writes_share_a_flush() {
    let disk = MemDisk::new(8 << 20);
    let store = open(&disk);
    let before = disk.name_flushes();
    let bytes = content(1, 64);
    let all = block_on(join_all((0..50).map(|i| put(&store, name(1, i, 0, 0), &bytes))));
    assert!(all.iter().all(Result::is_ok));
    let flushes = disk.name_flushes() - before;
    assert!(flushes <= 5, "{flushes} flushes for 50 writes");
    disk.crash();
    assert_eq!(block_on(open(&disk).report()).shards, 50);
}

/// A checksum that does not match, too few and too many bytes never become a shard.
#[test]
fn wrong_bytes_are_refused() {
    let bytes = content(1, 128);
    let fill = |bytes: &[u8]| {
        let mut shard = NewShard::new(name(1, 1, 0, 0), Epoch(1), TAG, 128).unwrap();
        shard.push(bytes).map(|()| shard)
    };
    let mut crcs = block_checksums(&bytes);
    assert!(fill(&bytes).unwrap().check(crcs.clone()).is_ok());
    crcs[0] ^= 1;
    assert!(matches!(fill(&bytes).unwrap().check(crcs.clone()), Err(StoreError::Mismatch { .. })));
    assert!(matches!(fill(&bytes).unwrap().check(Vec::new()), Err(StoreError::Mismatch { .. })));
    assert!(matches!(fill(&bytes[..64]).unwrap().check(crcs), Err(StoreError::Invalid(_))));
    assert!(matches!(fill(&content(1, 129)), Err(StoreError::Invalid(_))));
    for length in [0, 63, proto::limits::SHARD_BYTES_MAX + 64] {
        assert!(NewShard::new(name(1, 1, 0, 0), Epoch(1), TAG, length).is_err());
    }
}

/// Rot in header or payload, a file cut short or put under another's name, and a file of another disk
/// are damage: reported, counted, listed, and healed by delete and put.
#[test]
fn damage_is_found_and_healed() {
    let disk = MemDisk::new(8 << 20);
    let store = open(&disk);
    let bytes = content(1, BLOCK_BYTES + 64);
    let names: Vec<ShardName> = (0..5).map(|i| name(1, i, 0, 0)).collect();
    let file = |i: usize| record::file_name(&names[i]);
    block_on(async {
        for one in &names {
            put(&store, *one, &bytes).await.unwrap();
        }
        disk.damage(&file(0), 40);
        disk.damage(&file(1), HEADER_BYTES + BLOCK_BYTES + 1);
        disk.plant(&file(2), disk.content(&file(4)));
        disk.plant(&file(3), disk.content(&file(4))[..8192].to_vec());
        for one in &names[..4] {
            assert!(matches!(get(&store, *one).await, Err(StoreError::Damaged { .. })), "{one}");
            assert_eq!(store.check(*one, Priority::Repair).await, Ok(Presence::Damaged));
        }
        assert!(matches!(store.check(names[4], Priority::Repair).await, Ok(Presence::Whole(_))));
        // The undamaged block of the second can still be read.
        let read = store.read(names[1], 0, 1, Priority::Client).await.unwrap();
        assert_eq!(&read.bytes[..], &bytes[..BLOCK_BYTES]);
        assert!(store.report().await.damaged_blocks >= 4);
        assert_eq!(store.list(GroupId(1), None, 9).await.unwrap().shards.len(), 5);
        for one in &names {
            store.delete(*one).await.unwrap();
            put(&store, *one, &bytes).await.unwrap();
            assert_eq!(get(&store, *one).await.unwrap(), bytes);
        }
        let elsewhere = Superblock { uuid: DiskUuid(9), ..SUPERBLOCK };
        let other = ShardStore::open(disk.clone(), elsewhere, None).await.unwrap();
        assert!(matches!(get(&other, names[0]).await, Err(StoreError::Damaged { .. })));
    });
}

/// A put over a file with a damaged header replaces it.
#[test]
fn put_replaces_a_damaged_header() {
    let disk = MemDisk::new(8 << 20);
    let (store, one) = (open(&disk), name(1, 1, 0, 0));
    block_on(async {
        put(&store, one, &content(1, 64)).await.unwrap();
        disk.damage(&record::file_name(&one), 40);
        put(&store, one, &content(1, 64)).await.unwrap();
        assert_eq!(get(&store, one).await.unwrap(), content(1, 64));
        assert_eq!(store.report().await.used_bytes, 8192);
    });
}

/// Listings come in pages, in order, of one group; deletions take an extent's or a slot's shards only.
#[test]
fn lists_and_deletes() {
    let store = open(&MemDisk::new(8 << 20));
    let bytes = content(1, 64);
    let all = [name(1, 1, 0, 0), name(1, 1, 0, 1), name(1, 1, 1, 0), name(1, 2, 0, 0), name(2, 1, 0, 0)];
    block_on(async {
        for one in all {
            put(&store, one, &bytes).await.unwrap();
        }
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = store.list(GroupId(1), after, 3).await.unwrap();
            seen.extend(page.shards.iter().map(|stat| stat.name));
            after = seen.last().copied();
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, all[..4]);
        let removed = store.delete_extent(GroupId(1), ExtentId(1), SlotIndex(0)).await.unwrap();
        assert_eq!(removed.get(), &Removed { shards: 2, bytes: 2 * 8192 });
        let again = store.delete_extent(GroupId(1), ExtentId(1), SlotIndex(0)).await.unwrap();
        assert_eq!(again.get(), &Removed::default());
        let removed = store.delete_slot(GroupId(1), SlotIndex(0)).await.unwrap();
        assert_eq!(removed.get().shards, 1);
        let left = store.list(GroupId(1), None, 9).await.unwrap().shards;
        assert_eq!(left.iter().map(|stat| stat.name).collect::<Vec<_>>(), [all[1]]);
        assert_eq!(get(&store, all[4]).await.unwrap(), bytes);
    });
}

/// A full disk refuses writes, takes nothing from its reserve, and deletes still work and make room.
#[test]
fn full_disk_still_deletes() {
    let disk = MemDisk::new(200 * 4096);
    let store = open(&disk);
    let bytes = content(1, BLOCK_BYTES);
    block_on(async {
        let mut stored = 0;
        let refused = loop {
            match put(&store, name(1, stored, 0, 0), &bytes).await {
                Ok(()) => stored += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refused.code(), proto::ErrorCode::DiskFull);
        let report = store.report().await;
        assert!(report.full && report.failure.is_none());
        assert!(report.used_bytes <= 190 * 4096 && report.used_bytes + 17 * 4096 > 190 * 4096);
        store.delete_extent(GroupId(1), ExtentId(0), SlotIndex(0)).await.unwrap();
        assert!(!store.report().await.full);
        put(&store, name(1, 0, 0, 0), &bytes).await.unwrap();
    });
}

/// An I/O error at any step of a write fails the disk for writes, keeps its cause, and reads go on.
#[test]
fn write_errors_fail_the_disk() {
    for step in ["create", "write", "flush", "rename", "flush_names"] {
        let disk = MemDisk::new(8 << 20);
        let (store, one, two) = (open(&disk), name(1, 1, 0, 0), name(1, 2, 0, 0));
        block_on(async {
            put(&store, one, &content(1, 64)).await.unwrap();
            disk.fail(step);
            let error = put(&store, two, &content(2, 64)).await.unwrap_err();
            assert_eq!(error.code(), proto::ErrorCode::DiskFailed, "{step}");
            assert!(store.report().await.failure.unwrap().contains(step));
            assert_eq!(get(&store, one).await.unwrap(), content(1, 64));
            assert_eq!(get(&store, two).await, Err(StoreError::NoSuchShard(two)));
            assert!(store.delete(one).await.is_err());
            assert_eq!(store.report().await.used_bytes, 8192);
        });
    }
}

/// Files of others are left alone, leftovers of writes are removed.
#[test]
fn foreign_files_are_left_alone() {
    let disk = MemDisk::new(8 << 20);
    for file in ["w-0000000000000001", "notes.txt", "g1-2-3-4"] {
        disk.plant(file, vec![1; 5000]);
    }
    let store = open(&disk);
    block_on(async {
        let names = disk.list().await.unwrap();
        assert_eq!(names.iter().map(FileName::as_str).collect::<Vec<_>>(), ["g1-2-3-4", "notes.txt"]);
        assert_eq!(store.report().await.shards, 0);
    });
}

/// What a random run does next.
#[derive(Clone, Debug)]
enum Step {
    /// Several puts at once, of (name, content).
    Puts(Vec<(u8, u8)>),
    /// Puts that are dropped after so many polls, then a crash: of the machine, or of the process alone.
    TornPuts(Vec<(u8, u8)>, usize, bool),
    Delete(u8),
    DeleteExtent(u8),
    Read(u8),
    Crash {
        written_back: bool,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let puts = || prop::collection::vec((0..12_u8, 0..2_u8), 1..6);
    prop_oneof![
        4 => puts().prop_map(Step::Puts),
        3 => (puts(), 0..40_usize, any::<bool>())
            .prop_map(|(puts, polls, machine)| Step::TornPuts(puts, polls, machine)),
        2 => (0..12_u8).prop_map(Step::Delete),
        1 => (0..12_u8).prop_map(Step::DeleteExtent),
        3 => (0..12_u8).prop_map(Step::Read),
        1 => any::<bool>().prop_map(|written_back| Step::Crash { written_back }),
        1 => Just(Step::Restart),
    ]
}

/// The shard of a number: two stripes for each of six extents.
fn numbered(number: u8) -> ShardName {
    name(1, u128::from(number / 2), u32::from(number % 2), 0)
}

/// What may stand under each name: exactly one of the contents, or nothing if `None` is among them.
type Model = BTreeMap<u8, BTreeSet<Option<u8>>>;

fn bytes_of(number: u8, seed: u8) -> Vec<u8> {
    content(seed, 64 + usize::from(number) * 960 + usize::from(seed) * 64)
}

async fn check_model(
    store: &ShardStore<MemDisk>,
    model: &mut Model,
    number: u8,
) -> Result<(), TestCaseError> {
    let found = match get(store, numbered(number)).await {
        Ok(bytes) => {
            let seed = (0..2).find(|seed| bytes_of(number, *seed) == bytes);
            prop_assert!(seed.is_some(), "wrong bytes under {number}");
            seed
        }
        Err(StoreError::NoSuchShard(_)) => None,
        Err(error) => return Err(TestCaseError::fail(format!("{number}: {error}"))),
    };
    let allowed = model.entry(number).or_insert_with(|| BTreeSet::from([None]));
    prop_assert!(allowed.contains(&found), "{number}: found {found:?}, allowed {allowed:?}");
    Ok(())
}

fn observe(store: &ShardStore<MemDisk>, model: &mut Model) -> Result<(), TestCaseError> {
    for number in 0..12 {
        block_on(check_model(store, model, number))?;
    }
    Ok(())
}

/// After a restart only what is durable is there, so what is seen is what stays.
fn settle(store: &ShardStore<MemDisk>, model: &mut Model) -> Result<(), TestCaseError> {
    observe(store, model)?;
    for number in 0..12 {
        let found = block_on(get(store, numbered(number))).ok();
        let seed = found.and_then(|bytes| (0..2).find(|seed| bytes_of(number, *seed) == bytes));
        model.insert(number, BTreeSet::from([seed]));
    }
    Ok(())
}

/// What a store shows once it is open has to survive the next crash.
fn restart(disk: &MemDisk, store: &mut ShardStore<MemDisk>, model: &mut Model) -> Result<(), TestCaseError> {
    *store = open(disk);
    settle(store, model)?;
    disk.crash();
    *store = open(disk);
    observe(store, model)
}

fn perform(
    step: &Step,
    disk: &MemDisk,
    store: &mut ShardStore<MemDisk>,
    model: &mut Model,
) -> Result<(), TestCaseError> {
    let one = |store: &ShardStore<MemDisk>, (number, seed): (u8, u8)| {
        let store = store.clone();
        async move { put(&store, numbered(number), &bytes_of(number, seed)).await }
    };
    match step {
        Step::Puts(puts) => {
            let results = block_on(join_all(puts.iter().map(|put| one(store, *put))));
            for ((number, seed), result) in puts.iter().zip(results) {
                match result {
                    Ok(()) => drop(model.insert(*number, BTreeSet::from([Some(*seed)]))),
                    Err(StoreError::Conflict(_)) => {}
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                }
            }
            observe(store, model)?;
        }
        Step::TornPuts(puts, polls, machine) => {
            let mut all = Box::pin(join_all(puts.iter().map(|put| one(store, *put))));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            for _ in 0..*polls {
                if all.as_mut().poll(&mut context).is_ready() {
                    break;
                }
            }
            drop(all);
            for (number, seed) in puts {
                let allowed = model.entry(*number).or_insert_with(|| BTreeSet::from([None]));
                // What was there before stays; into an empty place any of the torn puts may have gone.
                if allowed.contains(&None) {
                    allowed.insert(Some(*seed));
                }
            }
            if *machine {
                disk.crash();
            }
            restart(disk, store, model)?;
        }
        Step::Delete(number) => {
            block_on(store.delete(numbered(*number))).map_err(|e| TestCaseError::fail(e.to_string()))?;
            model.insert(*number, BTreeSet::from([None]));
        }
        Step::DeleteExtent(extent) => {
            let extent = extent / 2;
            block_on(store.delete_extent(GroupId(1), ExtentId(u128::from(extent)), SlotIndex(0)))
                .map_err(|e| TestCaseError::fail(e.to_string()))?;
            for number in [extent * 2, extent * 2 + 1] {
                model.insert(number, BTreeSet::from([None]));
            }
        }
        Step::Read(number) => block_on(check_model(store, model, *number))?,
        Step::Crash { written_back } => {
            if *written_back {
                disk.crash_after_write_back()
            } else {
                disk.crash()
            }
            *store = open(disk);
            settle(store, model)?;
        }
        Step::Restart => restart(disk, store, model)?,
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Acknowledged shards survive every crash, deleted ones stay deleted, wrong bytes are never read,
    /// torn writes leave a whole shard or none, and the accounts agree with what is there.
    #[test]
    fn survives_crashes(steps in prop::collection::vec(step(), 1..40)) {
        let disk = MemDisk::new(64 << 20);
        let (mut store, mut model) = (open(&disk), Model::new());
        for step in &steps {
            perform(step, &disk, &mut store, &mut model)?;
        }
        let report = block_on(store.report());
        let page = block_on(store.list(GroupId(1), None, 100)).unwrap();
        let used = |stat: &ShardStat| 4096 + u64::from(stat.shard_bytes).next_multiple_of(4096);
        prop_assert_eq!(report.used_bytes, page.shards.iter().map(used).sum::<u64>());
        prop_assert_eq!(report.shards, page.shards.len() as u64);
    }
}

/// A disk that does not even tell its room fails, before anybody writes to it, and as long as that lasts.
#[test]
fn silent_disks_are_reported() {
    block_on(async {
        let disk = MemDisk::new(8 << 20);
        let store = open(&disk);
        assert_eq!(store.report().await.failure, None);
        disk.fail("space");
        let failure = store.report().await.failure;
        assert!(failure.as_ref().is_some_and(|failure| failure.contains("space")), "{failure:?}");
    });
}
