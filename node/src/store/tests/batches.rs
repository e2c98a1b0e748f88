//! What writes cost, and what idleness does.

use futures_util::future::{join_all, select};
use std::pin::pin;

use super::*;
use crate::testing::pause;

/// Writes at the same moment share a write and a flush, no flush of the index is on their way, and no flush of names.
#[test]
fn writes_share_a_flush() {
    let (disk, kv) = (MemDisk::new(16 << 20), kv());
    with(&disk, &kv, async |store| {
        let (before, flushes) = (disk.counts(), kv.flushes());
        let bytes = content(1, 64);
        let all = join_all((0..20).map(|number| put(&store, numbered(number), &bytes))).await;
        assert!(all.iter().all(Result::is_ok));
        let after = disk.counts();
        let batches = after.writes - before.writes;
        assert!(batches <= 3, "{batches} batches for 20 writes");
        assert_eq!(after.flushes - before.flushes, batches);
        assert_eq!((after.name_flushes, kv.flushes()), (before.name_flushes, flushes));
        disk.crash();
        kv.crash(0);
    });
    with(&disk, &kv, async |store| assert_eq!(store.report().await.shards, 20));
}

/// One write after the other costs one flush each, and a new segment two more: its header's and its seal's.
#[test]
fn a_write_costs_a_flush() {
    let disk = disk();
    with(&disk, &kv(), async |store| {
        let mut flushes = Vec::new();
        for number in 0..4 {
            let before = disk.counts().flushes;
            put(&store, numbered(number), &content(number, 64 << 10)).await.unwrap();
            flushes.push(disk.counts().flushes - before);
        }
        assert_eq!(flushes, [1, 1, 1, 3]);
    });
}

/// While a segment is filled the next one is made, so that the write that needs it waits for its seal alone.
#[test]
fn the_next_segment_is_made_ahead() {
    let disk = disk();
    with(&disk, &kv(), async |store| {
        let mut segments = Vec::new();
        for number in 0..8 {
            put(&store, numbered(number), &content(number, 64 << 10)).await.unwrap();
            // What goes on aside comes to its end.
            for _ in 0..1_000 {
                pause().await;
            }
            segments.push(disk.names().iter().filter(|name| name.starts_with("seg-")).count());
        }
        assert_eq!(segments, [1, 1, 1, 3, 3, 3, 4, 4]);
    });
}

/// What is not flushed lies in one segment: nothing is written into the next one before the seal that leads there is
/// durable, however many write at once. A power loss could take the seal and the first record behind it, and leave
/// later ones, which nobody would know to be cut.
#[test]
fn a_seal_is_durable_before_what_follows() {
    let disk = disk();
    with(&disk, &kv(), async |store| {
        let bytes = content(1, 40 << 10);
        for round in 0..4 {
            let all = join_all((0..8).map(|number| put(&store, numbered(round * 8 + number), &bytes))).await;
            assert!(all.iter().all(Result::is_ok));
        }
        assert!(disk.names().len() > 4, "{:?}", disk.names());
        assert_eq!(disk.counts().writes_beside, 0);
    });
}

/// A store of which nobody asks anything does nothing: no read, no write, no flush.
#[test]
fn an_idle_store_sees_no_io() {
    let (disk, kv) = (disk(), kv());
    block_on(async {
        let (store, writer) = open(&disk, &kv).await.unwrap();
        let idle = pin!(async {
            for number in 0..4 {
                put(&store, numbered(number), &content(number, 64 << 10)).await.unwrap();
                if number % 2 == 0 {
                    store.delete(numbered(number)).await.unwrap();
                }
            }
            // What is still under way comes to its end.
            for _ in 0..1_000 {
                pause().await;
            }
            let (before, flushes) = (disk.counts(), kv.flushes());
            for _ in 0..10_000 {
                pause().await;
            }
            assert_eq!((disk.counts(), kv.flushes()), (before, flushes));
        });
        select(idle, pin!(writer)).await;
    });
}

/// The index is flushed when a segment is freed, before its header is written, and after, before the segment is used:
/// whatever a crash leaves of the index knows where the copies are and which segments are free, and no rebuild is
/// needed.
#[test]
fn freeing_a_segment_flushes_the_index() {
    let (disk, kv) = (disk(), kv());
    with(&disk, &kv, async |store| {
        for number in 0..4 {
            put(&store, numbered(number), &content(number, 64 << 10)).await.unwrap();
        }
        store.delete(numbered(0)).await.unwrap();
        let flushes = kv.flushes();
        assert!(store.compact().await.unwrap());
        assert_eq!(kv.flushes(), flushes + 2);
        disk.crash();
        kv.crash(0);
    });
    let before = disk.counts().reads;
    let reads = with(&disk, &kv, async |store| {
        let reads = disk.counts().reads - before;
        for number in 1..4 {
            assert_eq!(get(&store, numbered(number)).await.unwrap(), content(number, 64 << 10));
        }
        reads
    });
    assert!(reads < 10, "{reads} reads: the whole disk was read");
}
