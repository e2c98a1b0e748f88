//! Puts and gets against a cluster of fakes in virtual time: what happens when disks and nodes do not
//! go along.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]
#![allow(clippy::cast_possible_truncation, unreachable_pub)]

mod support;

use bytes::Bytes;
use client::{Bucket, GetError, GetOptions, PutError, PutOptions};
use proto::{ErrorCode, ObjectKey, wire};
use support::host::Host;
use support::{Fake, Fault, NODES};

/// A stripe of the coded groups.
const STRIPE: usize = 4 * 65_536;

fn key() -> ObjectKey {
    "k".parse().unwrap()
}

fn object(bytes: usize) -> Bytes {
    (0..bytes).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>().into()
}

async fn put(bucket: &Bucket<Host>, bytes: usize) -> Result<client::Receipt, PutError> {
    bucket.put(&key(), object(bytes), PutOptions::default()).await
}

async fn get(bucket: &Bucket<Host>, range: Option<std::ops::Range<u64>>) -> Result<Vec<u8>, GetError> {
    let mut stream = bucket.get(&key(), GetOptions { range, ..GetOptions::default() }).await?;
    let mut all = Vec::new();
    while let Some(bytes) = stream.next().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

/// Objects of all kinds of sizes come back, whole and in ranges.
#[tokio::test(start_paused = true)]
async fn what_is_put_comes_back() {
    let fake = Fake::start().await;
    let bucket = fake.bucket().await;
    for bytes in [0, 1, 4096, 4097, 65_536, 65_537, STRIPE, STRIPE + 1, 7 * STRIPE + 12_345] {
        let receipt = put(&bucket, bytes).await.unwrap();
        assert_eq!((receipt.size, receipt.slots_missing), (bytes as u64, 0));
        fake.state().assert_durable("k");
        assert_eq!(get(&bucket, None).await.unwrap(), object(bytes), "{bytes} bytes");
        let (from, to) = (bytes / 3, bytes - bytes / 4);
        let range = get(&bucket, Some(from as u64..to as u64)).await.unwrap();
        assert_eq!(range, object(bytes)[from..to], "{bytes} bytes");
    }
}

/// A wrong hint of the size costs another question at most, also when the put has to go to another group later.
#[tokio::test(start_paused = true)]
async fn wrong_hints_break_nothing() {
    for silent in [None, Some(1)] {
        for hint in [0, 4096, 4097, 65_536, 65_537, 1 << 30] {
            let fake = Fake::start().await;
            let bucket = fake.bucket().await;
            fake.state().faults.extend(silent.map(|node| (node, Fault::Silent)));
            for bytes in [4097, 65_536, 65_537, 9 * STRIPE] {
                let options = PutOptions { size_hint: Some(hint), ..PutOptions::default() };
                let opens = fake.state().opens;
                let receipt = bucket.put(&key(), object(bytes), options).await.unwrap();
                assert_eq!(receipt.size, bytes as u64);
                assert!(silent.is_some() || fake.state().opens <= opens + 2, "{hint}, {bytes}");
                assert_eq!(get(&bucket, None).await.unwrap(), object(bytes), "{hint}, {bytes}");
            }
        }
    }
}

/// When there is a place for one kind of objects alone, those are put, and others fail with what the metadata
/// service says of them.
#[tokio::test(start_paused = true)]
async fn what_has_a_place_is_put() {
    let fake = Fake::start().await;
    let bucket = fake.bucket().await;
    let coded = std::mem::take(&mut fake.state().groups);
    let small = |group: &wire::Placement| group.k == 1;
    fake.state().groups =
        coded.iter().filter(|(_, group)| small(group)).map(|(id, g)| (*id, g.clone())).collect();
    put(&bucket, 65_536).await.unwrap();
    let error = put(&bucket, 65_537).await.unwrap_err();
    let refused = |error: &PutError| matches!(error, PutError::Service(client::Error::Refused(failure)) if failure.code == ErrorCode::NoLegalPlace);
    assert!(refused(&error), "{error}");
    assert!(!error.to_string().contains("offered no group"), "{error}");
    fake.state().groups = coded.into_iter().filter(|(_, group)| !small(group)).collect();
    put(&bucket, 65_536).await.unwrap();
    assert_eq!(get(&bucket, None).await.unwrap(), object(65_536));
}

/// Reading all of a healthy object asks each data shard once, and no parity.
#[tokio::test(start_paused = true)]
async fn healthy_reads_ask_data_shards_only() {
    let fake = Fake::start().await;
    let bucket = fake.bucket().await;
    put(&bucket, 5 * STRIPE).await.unwrap();
    get(&bucket, None).await.unwrap();
    assert_eq!(fake.state().reads, 5 * 4);
}

/// One dead node, whatever way it is dead: the put takes another group, waits once, and the object
/// is whole.
#[tokio::test(start_paused = true)]
async fn a_dead_node_costs_a_put_one_wait() {
    for fault in [Fault::Silent, Fault::Refuses(ErrorCode::DiskFull.number())] {
        let fake = Fake::start().await;
        let bucket = fake.bucket().await;
        fake.state().faults.insert(1, fault);
        let started = tokio::time::Instant::now();
        let receipt = put(&bucket, 20 * STRIPE).await.unwrap();
        assert!(started.elapsed().as_secs() < 8, "{:?}", started.elapsed());
        assert_eq!(receipt.slots_missing, 0);
        assert_eq!(fake.state().objects[&b"k"[..]].extents[0].group, 2);
        fake.state().assert_durable("k");
        assert_eq!(get(&bucket, None).await.unwrap(), object(20 * STRIPE));
    }
}

/// When every group has a dead slot, the put goes on without it and says so.
#[tokio::test(start_paused = true)]
async fn without_a_healthy_group_slots_are_missing() {
    let fake = Fake::start().await;
    let bucket = fake.bucket().await;
    fake.state().faults.insert(4, Fault::Silent);
    let receipt = put(&bucket, 9 * STRIPE).await.unwrap();
    assert_eq!(receipt.slots_missing, 1);
    fake.state().assert_durable("k");
    assert_eq!(get(&bucket, None).await.unwrap(), object(9 * STRIPE));
}

/// Too many dead nodes: the put fails with the reasons, within bounded time.
#[tokio::test(start_paused = true)]
async fn too_few_disks_fail_the_put() {
    let fake = Fake::start().await;
    let bucket = fake.bucket().await;
    for node in [3, 4, 5] {
        fake.state().faults.insert(node, Fault::Refuses(ErrorCode::DiskFailed.number()));
    }
    match put(&bucket, STRIPE).await {
        Err(PutError::NotDurable { needed: 5, reasons, .. }) => assert!(!reasons.lines().is_empty()),
        other => panic!("{other:?}"),
    }
    assert!(fake.state().objects.is_empty());
}

/// A slot that moves while the put is under way, early or late: the commit names it as missing or the
/// extent began anew, and nothing is lost.
#[tokio::test(start_paused = true)]
async fn moves_during_a_put_are_followed() {
    for at in [1, 7, 30, 60, 119, 120] {
        let fake = Fake::start().await;
        let bucket = fake.bucket().await;
        fake.state().move_at = Some((at, 1, 8));
        put(&bucket, 20 * STRIPE).await.unwrap_or_else(|error| panic!("move at {at}: {error}"));
        fake.state().assert_durable("k");
        assert_eq!(get(&bucket, None).await.unwrap(), object(20 * STRIPE), "move at {at}");
    }
}

/// Gets are right with up to m nodes gone or rotten, and say so with more.
#[tokio::test(start_paused = true)]
async fn gets_are_right_or_an_error() {
    for fault in [Fault::Silent, Fault::Rots, Fault::Refuses(ErrorCode::NoSuchShard.number())] {
        let fake = Fake::start().await;
        let bucket = fake.bucket().await;
        put(&bucket, 9 * STRIPE + 77).await.unwrap();
        fake.state().faults.extend([(2, fault), (4, fault)]);
        let started = tokio::time::Instant::now();
        assert_eq!(get(&bucket, None).await.unwrap(), object(9 * STRIPE + 77), "{fault:?}");
        assert!(started.elapsed().as_secs() < 5, "{fault:?}: {:?}", started.elapsed());
        let range = get(&bucket, Some(70_000..400_000)).await.unwrap();
        assert_eq!(range, object(9 * STRIPE)[70_000..400_000], "{fault:?}");
        fake.state().faults.insert(1, fault);
        match get(&bucket, None).await {
            Err(GetError::Undecodable { reachable: 3, needed: 4, reasons, .. }) => {
                assert_eq!(reasons.lines().len(), 3);
            }
            other => panic!("{fault:?}: {other:?}"),
        }
    }
}

/// A slot that is being filled is asked and, when it has nothing, read around.
#[tokio::test(start_paused = true)]
async fn hollow_slots_are_read_around() {
    let fake = Fake::start().await;
    let bucket = fake.bucket().await;
    put(&bucket, 5 * STRIPE).await.unwrap();
    fake.state().move_slot(1, NODES);
    assert_eq!(get(&bucket, None).await.unwrap(), object(5 * STRIPE));
}

/// An object that is replaced while it is read: the error, not a mix.
#[tokio::test(start_paused = true)]
async fn a_replaced_object_is_not_mixed() {
    let fake = Fake::start().await;
    let bucket = fake.bucket().await;
    put(&bucket, 9 * STRIPE).await.unwrap();
    let mut stream = bucket.get(&key(), GetOptions::default()).await.unwrap();
    assert!(stream.next().await.unwrap().is_some());
    fake.state().shards.clear();
    put(&bucket, 100_000).await.unwrap();
    let error = loop {
        match stream.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the end of what is gone"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, GetError::Changed { .. }), "{error}");
    let mut fresh = bucket.get(&key(), GetOptions::default()).await.unwrap();
    fake.state().shards.clear();
    put(&bucket, 4 * STRIPE).await.unwrap();
    let mut all = Vec::new();
    while let Some(bytes) = fresh.next().await.unwrap() {
        all.extend_from_slice(&bytes);
    }
    assert_eq!(all, object(4 * STRIPE), "nothing was given out yet: begun anew");
}

/// The checksum of the whole guards against what no shard can tell: the last piece is held back.
#[tokio::test(start_paused = true)]
async fn a_wrong_whole_is_an_error() {
    let fake = Fake::start().await;
    let bucket = fake.bucket().await;
    put(&bucket, 3 * STRIPE).await.unwrap();
    fake.state().objects.get_mut(&b"k"[..]).unwrap().crc32c ^= 1;
    assert!(matches!(get(&bucket, None).await, Err(GetError::Damaged(_))));
}
