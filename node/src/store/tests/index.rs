//! Indexes that are lost, old, or of another disk.

use super::logs::heard;
use super::*;

type Content = Vec<(ShardStat, Vec<u8>)>;

/// What a store says of all its shards.
async fn all(store: &Store) -> Content {
    let mut shards = Vec::new();
    for group in store.groups().unwrap() {
        for stat in store.list(group, None, 100).await.unwrap().shards {
            shards.push((stat, get(store, stat.name).await.unwrap()));
        }
    }
    shards
}

/// A disk with a history, its index as it was after each step, and what it holds.
fn aged() -> (MemDisk, Vec<MemKv>, Content) {
    let (disk, index) = (disk(), kv());
    let mut indexes = vec![kv()];
    let shards = with(&disk, &index, async |store| {
        for number in 0..24 {
            put(&store, numbered(number), &content(number, 30 << 10)).await.unwrap();
            if number % 3 == 1 {
                store.delete(numbered(number / 2)).await.unwrap();
            }
            if number % 8 == 7 {
                store.compact().await.unwrap();
            }
            indexes.push(index.copy());
        }
        all(&store).await
    });
    (disk, indexes, shards)
}

/// With the index of any earlier moment, older than its last flush too, everything is there, nothing that was deleted
/// is, and the accounts are the same; and the store works on.
#[test]
fn stale_indexes_are_brought_up_to_date() {
    let (disk, indexes, shards) = aged();
    assert!(shards.len() > 10);
    for (age, index) in indexes.iter().enumerate() {
        let disk = disk.copy();
        let report = with(&disk, index, async |store| {
            assert_eq!(all(&store).await, shards, "index {age}");
            put(&store, numbered(99), &content(99, 64)).await.unwrap();
            store.report().await
        });
        assert_eq!((report.shards, report.damaged_blocks), (shards.len() as u64 + 1, 0), "index {age}");
        with(&disk, &kv(), async |store| assert_eq!(store.report().await.shards, shards.len() as u64 + 1));
    }
}

/// The index of another disk, of this one before it was formatted, and one with rows that cannot be are made anew;
/// that is told, and costs nothing.
#[test]
fn indexes_that_do_not_fit_are_made_anew() {
    let (disk, indexes, shards) = aged();
    let last = indexes.last().unwrap();
    let other = kv();
    let elsewhere = Superblock { uuid: DiskUuid(9), ..SUPERBLOCK };
    block_on(async {
        let opened = ShardStore::open(MemDisk::new(1 << 20), other.clone(), elsewhere, None).await;
        let (store, writer) = opened.unwrap();
        join(
            async {
                put(&store, numbered(50), &[1; 64]).await.unwrap();
                drop(store)
            },
            writer,
        )
        .await;
    });
    let broken = last.copy();
    broken.plant("log", b"position", &[7; 28]);
    let newer = last.copy();
    newer.plant("log", b"format", &[2, 0, 0, 0]);
    for (what, index) in [("another disk's", other), ("broken", broken), ("newer", newer)] {
        let (found, lines) = heard(|| with(&disk.copy(), &index, async |store| all(&store).await));
        assert_eq!(found, shards, "{what}");
        assert!(lines.iter().any(|line| line.contains("made anew")), "{what}: {lines:?}");
        with(&disk.copy(), &index, async |store| assert_eq!(all(&store).await, shards, "{what}, again"));
    }
}

/// A row that points to another shard's record is damage of that shard, never another shard's bytes.
#[test]
fn a_row_that_points_elsewhere_gives_no_bytes() {
    let (disk, index) = (disk(), kv());
    with(&disk, &index, async |store| {
        for number in 0..2 {
            put(&store, numbered(number), &content(number, 64)).await.unwrap();
        }
    });
    let rows: Vec<_> = index.rows("shards").into_iter().collect();
    index.plant("shards", &rows[0].0, &rows[1].1);
    with(&disk, &index, async |store| {
        let read = get(&store, numbered(0)).await;
        assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
        assert_eq!(get(&store, numbered(1)).await.unwrap(), content(1, 64));
    });
}
