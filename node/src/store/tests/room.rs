//! Full disks, and room that comes back.

use std::iter::repeat;

use super::*;

/// Fills a store with shards of this length; how many there were room for.
async fn fill(store: &Store, first: u32, length: usize) -> (u32, StoreError) {
    let mut number = first;
    loop {
        match put(store, numbered(number), &content(number, length)).await {
            Ok(()) => number += 1,
            Err(error) => return (number - first, error),
        }
    }
}

/// A full disk says so and takes nothing from its reserve; deletes still work; and when shards are deleted all over
/// the disk, so that no segment is empty, compaction makes room for about as many again, over and over: what is
/// lost are ends of segments that no shard fits.
#[test]
fn a_full_disk_deletes_and_gets_room_back() {
    let (disk, kv) = (disk(), kv());
    with(&disk, &kv, async |store| {
        let length = 40 << 10;
        let (stored, refused) = fill(&store, 0, length).await;
        assert!(matches!(refused, StoreError::Full { used_bytes } if used_bytes == store.used_bytes()));
        let report = store.report().await;
        assert!(report.full && report.failure.is_none());
        assert!(u64::from(stored) * record_bytes(length) > 9 * SEGMENT_BYTES, "{stored} shards");
        let (mut numbers, mut next) = ((0..stored).collect::<Vec<u32>>(), stored);
        for round in 0..6 {
            let (gone, kept): (Vec<u32>, Vec<u32>) =
                numbers.iter().partition(|number| **number % 3 == round % 3);
            for number in &gone {
                assert_eq!(store.delete(numbered(*number)).await.unwrap().get().shards, 1);
            }
            assert!(!store.report().await.full);
            let (again, refused) = fill(&store, next, length).await;
            assert!(matches!(refused, StoreError::Full { .. }), "{refused:?}");
            assert!((again + 2) as usize >= gone.len(), "round {round}: {again} for {}", gone.len());
            numbers = kept.into_iter().chain(next..next + again).collect();
            next += again;
            for number in &numbers {
                assert_eq!(get(&store, numbered(*number)).await.unwrap(), content(*number, length));
            }
        }
        assert!(numbers.len() >= stored as usize * 9 / 10, "{} of {stored}", numbers.len());
    });
    // What the power takes makes no difference, and a full disk can be opened.
    disk.crash();
    kv.crash(0);
    with(&disk, &kv, async |store| {
        assert!(matches!(fill(&store, 900, 40 << 10).await, (0, StoreError::Full { .. })));
        let removed = store.delete_slot(GroupId(1), SlotIndex(0)).await.unwrap();
        assert!(removed.get().shards > 0);
        assert_eq!(store.used_bytes(), 0);
        assert!(u64::from(fill(&store, 900, 40 << 10).await.0) >= removed.get().shards);
    });
}

/// The operator's limit is a limit like the disk's own size.
#[test]
fn the_limit_is_kept() {
    block_on(async {
        let (disk, limit) = (disk(), 8 * SEGMENT_BYTES);
        let opened = ShardStore::open(disk.clone(), kv(), SUPERBLOCK, Some(limit)).await;
        let (store, writer) = opened.unwrap();
        let work = async {
            let (stored, _) = fill(&store, 0, 40 << 10).await;
            assert!(stored > 0);
            assert_eq!(store.report().await.capacity_bytes, limit);
            drop(store);
        };
        join(work, writer).await;
        let bytes: usize = disk.names().iter().map(|name| disk.content(name).len()).sum();
        assert!(bytes as u64 <= limit, "{bytes} bytes are taken");
    });
}

/// A disk that others fill, too, takes what there is room for, and fails at nothing.
#[test]
fn a_disk_that_others_fill_is_full() {
    let disk = disk();
    disk.plant("somebody-elses", vec![1; usize::try_from(8 * SEGMENT_BYTES).unwrap()]);
    with(&disk, &kv(), async |store| {
        let (stored, refused) = fill(&store, 0, 40 << 10).await;
        assert!(stored > 0 && matches!(refused, StoreError::Full { .. }), "{refused:?}");
        disk.plant("and-more", vec![1; usize::try_from(2 * SEGMENT_BYTES).unwrap()]);
        let report = store.report().await;
        assert_eq!((report.failure, report.full), (None, true));
        store.delete(numbered(0)).await.unwrap();
    });
}

/// Deletions one at a time, of shards that lie beside others which stay: they take as much room as what they delete,
/// and compaction has to keep them as long as that lies there. There is room for them all the same, and for more.
#[test]
fn deletions_find_room_on_a_crowded_disk() {
    let (disk, kv) = (disk(), kv());
    with(&disk, &kv, async |store| {
        for round in 0..6_u32 {
            let (mut kept, mut gone) = (Vec::new(), Vec::new());
            'full: for segment in 0..16 {
                let first = round * 1_000 + segment * 50;
                for (number, length) in (first..first + 22).zip([80 << 10].into_iter().chain(repeat(64))) {
                    match put(&store, numbered(number), &content(number, length)).await {
                        Ok(()) if number == first => kept.push(number),
                        Ok(()) => gone.push(number),
                        Err(StoreError::Full { .. }) => break 'full,
                        Err(error) => panic!("{number}: {error}"),
                    }
                }
            }
            assert!(gone.len() > 30, "round {round}: room for {} and {}", kept.len(), gone.len());
            for number in gone {
                assert_eq!(store.delete(numbered(number)).await.unwrap().get().shards, 1, "round {round}");
            }
            for number in &kept {
                assert_eq!(get(&store, numbered(*number)).await.unwrap(), content(*number, 80 << 10));
            }
            for number in kept.iter().skip(usize::from(round % 2 == 0)) {
                store.delete(numbered(*number)).await.unwrap();
            }
        }
    });
}
