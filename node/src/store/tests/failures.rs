//! Disks and indexes that fail, and locks.

use env::{Disks, Env};
use futures_util::future::join_all;
use simhost::{World, WorldOptions};

use super::*;

/// An I/O error at any step of a write fails the disk for writes, keeps its cause, and reads go on.
#[test]
fn write_errors_fail_the_disk() {
    // The first four fit the first segment, the next needs another one.
    for (step, stored) in [("write", 1), ("flush", 1), ("create", 3), ("flush_names", 3)] {
        let disk = disk();
        with(&disk, &kv(), async |store| {
            let bytes = content(1, 64 << 10);
            for number in 0..stored {
                put(&store, numbered(number), &bytes).await.unwrap();
            }
            disk.fail(step);
            let (late, used_bytes) = (numbered(9), store.used_bytes());
            let error = put(&store, late, &bytes).await.unwrap_err();
            assert_eq!(error.code(), proto::ErrorCode::DiskFailed, "{step}");
            let cause = store.report().await.failure.unwrap();
            assert!(cause.contains(step), "{step}: {cause}");
            disk.heal();
            // A success would prove nothing now.
            for refused in [put(&store, late, &bytes).await, store.delete(numbered(0)).await.map(|_| ())] {
                assert_eq!(refused, Err(StoreError::Failed(cause.clone())), "{step}");
            }
            assert_eq!(store.compact().await, Err(StoreError::Failed(cause.clone())), "{step}");
            assert_eq!(get(&store, numbered(0)).await.unwrap(), bytes, "{step}");
            assert_eq!(get(&store, late).await, Err(StoreError::NoSuchShard(late)), "{step}");
            assert_eq!(store.used_bytes(), used_bytes, "{step}");
            let listed = store.list(GroupId(1), None, 9).await.unwrap().shards;
            assert!(listed.iter().map(|stat| stat.name).eq((0..stored).map(numbered)), "{step}");
        });
    }
}

/// Of writes that share a failing flush none is acknowledged.
#[test]
fn a_failed_flush_fails_all_that_share_it() {
    let disk = disk();
    with(&disk, &kv(), async |store| {
        disk.fail("flush");
        let all = join_all((0..9).map(|number| put(&store, numbered(number), &[1; 64]))).await;
        assert!(all.iter().all(|one| matches!(one, Err(StoreError::Failed(_)))), "{all:?}");
        assert_eq!(store.report().await.shards, 0);
    });
}

/// A disk that does not tell its room is reported as failing, before somebody writes to it, and cannot be opened.
#[test]
fn silence_about_room_is_reported() {
    let (disk, kv) = (disk(), kv());
    with(&disk, &kv, async |store| {
        assert_eq!(store.report().await.failure, None);
        disk.fail("space");
        assert!(store.report().await.failure.unwrap().contains("space"));
        disk.heal();
        assert_eq!(store.report().await.failure, None);
        disk.fail("space");
    });
    assert!(matches!(refusal(&disk, &kv), Some(StoreError::Failed(cause)) if cause.contains("space")));
}

/// An index that fails takes the store out of service with that cause; nothing that it did not take is acknowledged.
#[test]
fn a_failing_index_fails_the_store() {
    let (disk, kv) = (disk(), kv());
    with(&disk, &kv, async |store| {
        put(&store, numbered(0), &[1; 64]).await.unwrap();
        kv.set_full(true);
        let refused = put(&store, numbered(1), &[1; 64]).await;
        assert!(matches!(&refused, Err(StoreError::Failed(cause)) if cause.contains("index")), "{refused:?}");
        assert!(store.report().await.failure.unwrap().contains("index"));
        assert_eq!(get(&store, numbered(0)).await.unwrap(), [1; 64]);
        kv.set_full(false);
    });
    // It was in the log all the same, and nobody was told that it is not.
    with(&disk, &kv, async |store| assert_eq!(store.report().await.failure, None));
}

/// A disk that cannot be read while the store is opened is not taken for an empty one.
#[test]
fn an_unreadable_disk_is_not_empty() {
    let (disk, index) = (disk(), kv());
    with(&disk, &index, async |store| put(&store, numbered(0), &[1; 64]).await.unwrap());
    let before: Vec<Vec<u8>> = disk.names().iter().map(|name| disk.content(name)).collect();
    disk.fail("read");
    for index in [index.copy(), kv()] {
        if let Ok((store, _)) = block_on(open(&disk, &index)) {
            disk.heal();
            drop(store);
        }
        disk.heal();
        with(&disk, &index, async |store| {
            assert_eq!(get(&store, numbered(0)).await.unwrap(), [1; 64]);
        });
        disk.fail("read");
    }
    let after: Vec<Vec<u8>> = disk.names().iter().map(|name| disk.content(name)).collect();
    assert!(before == after, "the disk was changed");
}

/// One directory has one store: the disk keeps others out until the last clone of the store and its writer are gone.
#[test]
fn two_stores_on_one_directory() {
    let world = World::new(WorldOptions::new(1));
    let host = world.add_host("a", "node/1".parse().unwrap());
    host.insert_disk("/disk", 1 << 22);
    let env = host.boot();
    world
        .run(std::time::Duration::from_secs(100), async {
            let disk = env.disks().open("/disk").await.unwrap();
            let (store, writer) = ShardStore::open(disk, kv(), SUPERBLOCK, None).await.unwrap();
            let other = store.clone();
            drop(store);
            let locked = env.disks().open("/disk").await.err().map(|error| error.kind());
            assert_eq!(locked, Some(StorageErrorKind::Locked));
            drop(other);
            writer.await;
            assert!(env.disks().open("/disk").await.is_ok());
        })
        .unwrap();
    world.end_of_days();
}
