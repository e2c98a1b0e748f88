//! Puts, reads, listings and deletions when nothing goes wrong.

use codec::block_checksums;
use futures_util::future::join_all;
use proto::limits::BLOCK_BYTES;

use super::*;

/// Blocks come back with their checksums, whole or by range; blocks that are not there are refused.
#[test]
fn reads_ranges() {
    let (one, bytes) = (name(1, 2, 3, 4), content(1, 2 * BLOCK_BYTES + 64));
    with(&disk(), &kv(), async |store| {
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

/// The same shard again is a success and takes no room, other bytes are refused and change nothing.
#[test]
fn puts_are_idempotent() {
    let disk = disk();
    with(&disk, &kv(), async |store| {
        let one = numbered(1);
        put(&store, one, &content(1, 128)).await.unwrap();
        let writes = disk.counts().writes;
        put(&store, one, &content(1, 128)).await.unwrap();
        for other in [content(2, 128), content(1, 192)] {
            assert_eq!(put(&store, one, &other).await, Err(StoreError::Conflict(one)));
        }
        assert_eq!(get(&store, one).await.unwrap(), content(1, 128));
        let report = store.report().await;
        assert_eq!((report.shards, report.used_bytes, disk.counts().writes), (1, 8192, writes));
    });
}

/// Of different bytes put under one name at once, one wins and all others are refused.
#[test]
fn racing_puts_have_one_winner() {
    with(&disk(), &kv(), async |store| {
        let bytes: Vec<Vec<u8>> = (0..8).map(|seed| content(seed, 128)).collect();
        let results = join_all(bytes.iter().map(|bytes| put(&store, numbered(1), bytes))).await;
        let winners: Vec<usize> = (0..8).filter(|at| results[*at].is_ok()).collect();
        assert_eq!(winners.len(), 1);
        let refused = results.iter().filter(|result| **result == Err(StoreError::Conflict(numbered(1))));
        assert_eq!(refused.count(), 7);
        assert_eq!(get(&store, numbered(1)).await.unwrap(), bytes[winners[0]]);
    });
}

/// A checksum that does not match, too few and too many bytes never become a shard.
#[test]
fn wrong_bytes_are_refused() {
    let bytes = content(1, 128);
    let fill = |bytes: &[u8]| {
        let mut shard = NewShard::new(numbered(1), EPOCH, TAG, 128).unwrap();
        shard.push(bytes).map(|()| shard)
    };
    let mut crcs = block_checksums(&bytes);
    assert!(fill(&bytes).unwrap().check(&crcs).is_ok());
    crcs[0] ^= 1;
    assert!(matches!(fill(&bytes).unwrap().check(&crcs), Err(StoreError::Mismatch { .. })));
    assert!(matches!(fill(&bytes).unwrap().check(&[]), Err(StoreError::Mismatch { .. })));
    assert!(matches!(fill(&bytes[..64]).unwrap().check(&crcs), Err(StoreError::Invalid(_))));
    assert!(matches!(fill(&content(1, 129)), Err(StoreError::Invalid(_))));
    for length in [0, 63, proto::limits::SHARD_BYTES_MAX + 64] {
        assert!(NewShard::new(numbered(1), EPOCH, TAG, length).is_err());
    }
}

/// The largest shard that a segment has room for is taken, one page more is refused as what no try will change.
#[test]
fn shards_that_no_segment_holds_are_invalid() {
    let page = HEADER_BYTES;
    let largest = usize::try_from(SEGMENT_BYTES).unwrap() - 3 * page;
    with(&disk(), &kv(), async |store| {
        let refused = put(&store, numbered(1), &content(1, largest + 64)).await;
        assert!(matches!(&refused, Err(StoreError::Invalid(_))), "{refused:?}");
        for number in 2..4 {
            put(&store, numbered(number), &content(number, largest)).await.unwrap();
            assert_eq!(get(&store, numbered(number)).await.unwrap(), content(number, largest));
        }
    });
}

/// Listings come in pages, in order, of one group; deletions take an extent's or a slot's shards only.
#[test]
fn lists_and_deletes() {
    let bytes = content(1, 64);
    let all = [name(1, 1, 0, 0), name(1, 1, 0, 1), name(1, 1, 1, 0), name(1, 2, 0, 0), name(2, 1, 0, 0)];
    with(&disk(), &kv(), async |store| {
        for one in all.iter().rev() {
            put(&store, *one, &bytes).await.unwrap();
        }
        assert_eq!(store.groups().unwrap(), [GroupId(1), GroupId(2)]);
        let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = store.list(GroupId(1), after, 3).await.unwrap();
            seen.extend(page.shards.iter().map(|stat| stat.name));
            (after, pages) = (seen.last().copied(), pages + 1);
            if !page.more {
                break;
            }
        }
        assert_eq!((seen.as_slice(), pages), (&all[..4], 2));
        let removed = store.delete_extent(GroupId(1), ExtentId(1), SlotIndex(0)).await.unwrap();
        assert_eq!(removed.get(), &Removed { shards: 2, bytes: 2 * 8192 });
        let again = store.delete_extent(GroupId(1), ExtentId(1), SlotIndex(0)).await.unwrap();
        assert_eq!(again.get(), &Removed::default());
        let removed = store.delete_slot(GroupId(1), SlotIndex(0)).await.unwrap();
        assert_eq!(removed.get().shards, 1);
        let left = store.list(GroupId(1), None, 9).await.unwrap().shards;
        assert_eq!(left.iter().map(|stat| stat.name).collect::<Vec<_>>(), [all[1]]);
        assert_eq!(get(&store, all[4]).await.unwrap(), bytes);
        assert_eq!(store.used_bytes(), 2 * 8192);
    });
}

/// More shards than one record of tombstones can name are deleted all the same.
#[test]
fn deletes_more_than_one_record_names() {
    let disk = MemDisk::new(80 * SEGMENT_BYTES);
    with(&disk, &kv(), async |store| {
        let shards = u32::try_from(DELETE_BATCH + 10).unwrap();
        for stripe in 0..shards {
            put(&store, name(1, 1, stripe, 0), &[5; 64]).await.unwrap();
        }
        let removed = store.delete_extent(GroupId(1), ExtentId(1), SlotIndex(0)).await.unwrap();
        assert_eq!(removed.get().shards, u64::from(shards));
        assert_eq!(store.used_bytes(), 0);
    });
    with(&disk, &kv(), async |store| assert_eq!(store.report().await.shards, 0));
}
