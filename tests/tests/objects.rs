//! Objects of every size and shape, over a cluster in good health.

// A panic is how a test fails; real processes, files and clocks are what is tested here.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use client::{Bucket, DeleteError, GetError, ListOptions, Precondition, PutError, PutOptions, Tolerance};
use futures_util::{StreamExt, stream};
use os::Host;
use proto::{ErrorCode, ExtentId, Version};
use tests::{Content, SharedCluster, get, get_range, key, put, put_with, shards};

/// A stripe of `rs-4-2`.
const STRIPE: u64 = 4 * 1024 * 1024;
const SIZES: [u64; 14] = [
    0,
    1,
    63,
    4096,
    4097,
    64 * 1024,
    64 * 1024 + 1,
    1024 * 1024,
    STRIPE - 1,
    STRIPE,
    STRIPE + 1,
    2 * STRIPE + 1024 * 1024,
    9 * 1024 * 1024 + 3,
    20_000_000,
];
const HEALING: Duration = Duration::from_secs(60);

async fn put_all(bucket: &Bucket<Host>, prefix: &str) -> Vec<(String, Content)> {
    let mut objects = Vec::new();
    for (i, size) in SIZES.into_iter().enumerate() {
        let (name, content) = (format!("{prefix}/{size}"), Content::new(i as u64, size));
        let receipt = put(bucket, &name, content).await.expect(&name);
        assert_eq!(receipt.size, size);
        assert_eq!((receipt.slots_missing, receipt.below_policy), (0, false), "{name}: {receipt}");
        if size > 4096 {
            // Coded: two slots of each group in each of three racks. Replicated: three copies, in three
            // racks or in two.
            let Tolerance { disks, nodes, racks } = receipt.tolerates;
            let most = if size <= 64 * 1024 { 2 } else { 1 };
            assert!((disks, nodes) == (2, 2) && (1..=most).contains(&racks), "{name}: {receipt}");
        }
        assert_eq!(receipt.crc32c, content.crc32c(), "{name}");
        objects.push((name, content));
    }
    objects
}

/// Sizes around every threshold (inline, small, block, stripe, several stripes), from a source that
/// does not tell its size: each reads back as it was, in whole and in parts, and its receipt promises
/// two disks and one rack.
#[tokio::test(flavor = "multi_thread")]
async fn every_size_reads_back() {
    let cluster = SharedCluster::join().await;
    let bucket = cluster.bucket().await;
    let objects = put_all(&bucket, "sizes").await;
    for (name, content) in &objects {
        let info = bucket.head(&key(name)).await.expect(name);
        assert_eq!(info.size, content.size, "{name}");
        assert_eq!(info.crc32c, content.crc32c(), "{name}");
        let bytes = get(&bucket, name).await.expect(name);
        assert_eq!(content.difference(&bytes), None, "{name}");
    }
    // Another client, which has seen none of the writes, sees the same.
    let other = cluster.bucket().await;
    for (name, content) in &objects {
        assert_eq!(content.difference(&get(&other, name).await.expect(name)), None, "{name}");
    }
}

/// A range gives exactly its bytes: at the start, in the middle of a block, across blocks, shards and
/// stripes, up to and beyond the end; one that begins after the end is refused.
#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_exact() {
    let cluster = SharedCluster::join().await;
    let bucket = cluster.bucket().await;
    for size in [1, 100, 4096, 50_000, 300_000, 2 * STRIPE + 77_777] {
        let (name, content) = (format!("ranges/{size}"), Content::new(size, size));
        put(&bucket, &name, content).await.expect("put");
        let middle = size / 2;
        let ranges = [
            0..1,
            0..size,
            0..u64::MAX,
            middle..middle + 1,
            size - 1..size,
            size - 1..size + 100,
            middle.saturating_sub(70_000)..middle + 70_000,
            (size / 3).saturating_sub(1)..size * 2 / 3,
            STRIPE - 10..STRIPE + 10,
            1024 * 1024 - 1..1024 * 1024 + 1,
            65_535..65_537,
        ];
        for range in ranges.into_iter().filter(|range| range.start < size) {
            let bytes = get_range(&bucket, &name, range.clone()).await.expect("a range");
            assert!(bytes == content.slice(range.clone()), "{name} {range:?}: {} bytes", bytes.len());
        }
        for range in [size + 1..size + 2, 10 * STRIPE..11 * STRIPE] {
            let error = get_range(&bucket, &name, range.clone()).await.expect_err("beyond the end");
            assert!(matches!(error, GetError::BadRange { .. }), "{name} {range:?}: {error}");
        }
    }
}

/// An overwrite replaces the whole object, from any size class to any other, and the versions grow.
#[tokio::test(flavor = "multi_thread")]
async fn overwrites_replace_the_whole() {
    let cluster = SharedCluster::join().await;
    let bucket = cluster.bucket().await;
    let sizes = [10, 5_000_000, 50_000, 0, 200_000, 4096, 100_000, 5_000_001, 3];
    let mut before = Version(0);
    for (seed, size) in (100..).zip(sizes) {
        let content = Content::new(seed, size);
        let receipt = put(&bucket, "overwritten", content).await.expect("put");
        assert!(receipt.version > before, "{:?} after {before:?}", receipt.version);
        before = receipt.version;
        assert_eq!(content.difference(&get(&bucket, "overwritten").await.expect("get")), None);
    }
}

/// Conditional puts and deletes happen only when their condition holds, and say so when it does not;
/// of many that race for one absent key exactly one wins.
#[tokio::test(flavor = "multi_thread")]
async fn preconditions_hold() {
    let cluster = SharedCluster::join().await;
    let bucket = cluster.bucket().await;
    let under = |precondition| PutOptions { precondition, ..PutOptions::default() };
    let first = Content::new(1, 100_000);
    let receipt = put_with(&bucket, "if", first, under(Precondition::IfAbsent)).await.expect("absent");
    let wrong = Version(receipt.version.0 + 1_000_000);
    for condition in [Precondition::IfAbsent, Precondition::IfVersion(wrong)] {
        let error = put_with(&bucket, "if", Content::new(2, 100_000), under(condition)).await;
        let error = error.expect_err("the condition does not hold");
        assert!(matches!(error, PutError::PreconditionFailed(_)), "{error}");
        assert_eq!(first.difference(&get(&bucket, "if").await.expect("get")), None);
    }
    let second = Content::new(3, 7);
    let swapped = put_with(&bucket, "if", second, under(Precondition::IfVersion(receipt.version))).await;
    let swapped = swapped.expect("the version was right");
    let refused = bucket.delete(&key("if"), Precondition::IfVersion(receipt.version)).await;
    assert!(matches!(refused, Err(DeleteError::PreconditionFailed(_))), "{refused:?}");
    let deleted = bucket.delete(&key("if"), Precondition::IfVersion(swapped.version)).await;
    assert!(deleted.expect("the version was right"));

    let racers = (0..8).map(|seed| {
        let bucket = &bucket;
        async move {
            let content = Content::new(seed, 10_000);
            let put = put_with(bucket, "race", content, under(Precondition::IfAbsent)).await;
            put.map(|_| content)
        }
    });
    let outcomes: Vec<_> = stream::iter(racers).buffer_unordered(8).collect().await;
    let winners: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    assert_eq!(winners[0].difference(&get(&bucket, "race").await.expect("get")), None);
}

/// A deleted object is gone for every reader; deleting it again says that it was not there; its
/// shards leave the disks, while those of its neighbours stay.
#[tokio::test(flavor = "multi_thread")]
async fn deletes_are_idempotent_and_free_the_disks() {
    let cluster = SharedCluster::join().await;
    let bucket = cluster.bucket().await;
    let content = Content::new(9, 2_000_000);
    put(&bucket, "doomed", content).await.expect("put");
    put(&bucket, "neighbour", content).await.expect("put");
    let extent = bucket.stat(&key("doomed")).await.expect("stat").extents[0].id.clone();
    let extent = ExtentId::from_wire(&extent).expect("an extent");
    let on_disk = |cluster: &SharedCluster| {
        shards::all(cluster.path()).iter().filter(|shard| shard.name.extent == extent).count()
    };
    assert_eq!(on_disk(&cluster), 6, "shards of {extent}");
    assert!(bucket.delete(&key("doomed"), Precondition::None).await.expect("deleted"));
    assert!(!bucket.delete(&key("doomed"), Precondition::None).await.expect("again"));
    for error in [
        get(&bucket, "doomed").await.map(drop).expect_err("gone"),
        bucket.head(&key("doomed")).await.map(drop).expect_err("gone"),
    ] {
        assert!(matches!(error, GetError::NoSuchObject(_)), "{error}");
    }
    let operator = cluster.operator().await;
    let dropped = |status: &proto::wire::GetStatusReply| {
        let files = on_disk(&cluster);
        (files > 0 || status.garbage_extents > 0)
            .then(|| format!("{files} files, {} extents to drop", status.garbage_extents))
    };
    cluster.wait_for(&operator, HEALING, "the deleted shards are gone", dropped).await;
    assert_eq!(content.difference(&get(&bucket, "neighbour").await.expect("get")), None);
}

/// Content type and user metadata come back as given, up to their limits; beyond them they are refused.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_comes_back() {
    let cluster = SharedCluster::join().await;
    let bucket = cluster.bucket().await;
    let user_metadata: BTreeMap<String, String> =
        [("author", "Émile"), ("empty", ""), ("big", &"x".repeat(2000))]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
    let options = PutOptions {
        content_type: "text/plain; charset=utf-8".into(),
        user_metadata: user_metadata.clone(),
        ..PutOptions::default()
    };
    for size in [5, 5_000] {
        put_with(&bucket, "described", Content::new(1, size), options.clone()).await.expect("put");
        let info = bucket.head(&key("described")).await.expect("head");
        assert_eq!(info.content_type, "text/plain; charset=utf-8");
        assert_eq!(info.user_metadata, user_metadata);
    }
    let too_much =
        PutOptions { user_metadata: [("k".to_owned(), "v".repeat(3000))].into(), ..PutOptions::default() };
    let error = put_with(&bucket, "described", Content::new(1, 1), too_much).await.expect_err("too much");
    assert!(error.to_string().contains("user metadata"), "{error}");
}

/// Three thousand keys, listed in pages of several sizes, with prefixes, folded at a delimiter, and
/// continued from a token by another client: each key comes exactly once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn listings_are_complete_and_ordered() {
    let cluster = SharedCluster::join().await;
    let operator = cluster.operator().await;
    let tenant = operator.tenant("demo".parse().expect("a name"));
    let name = "listed".parse().expect("a name");
    tenant.create_bucket(&name, &"rs-4-2".parse().expect("a name")).await.expect("a bucket");
    let bucket = tenant.bucket(name);

    let mut names: Vec<String> = (0..3000).map(|i| format!("d{}/é{}/{i}", i % 7, i % 50)).collect();
    names.extend(["a", "d1", "d1/", "z/", "\u{10ffff}"].map(str::to_owned));
    let puts = names.iter().map(|name| put(&bucket, name, Content::new(1, 9)));
    let failed: Vec<_> =
        stream::iter(puts).buffer_unordered(64).filter_map(async |put| put.err()).collect().await;
    assert!(failed.is_empty(), "{failed:?}");
    names.sort();

    for page in [1000, 997] {
        let listed = keys_of(&bucket, ListOptions { page: Some(page), ..ListOptions::default() }).await;
        assert!(listed == names, "{} of {} keys in pages of {page}", listed.len(), names.len());
    }
    let of_prefix =
        |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).cloned().collect::<Vec<_>>();
    for prefix in ["d1/é", "d1", "d3/é10/", "nothing"] {
        let options = ListOptions {
            prefix: Bytes::copy_from_slice(prefix.as_bytes()),
            page: Some(50),
            ..ListOptions::default()
        };
        assert_eq!(keys_of(&bucket, options).await, of_prefix(prefix), "{prefix}");
    }
    folded(&bucket).await;
    continued(&bucket, &names).await;

    let mut nowhere = tenant.bucket("absent".parse().expect("a name")).list(ListOptions::default());
    let error = nowhere.next_page().await.expect_err("no such bucket");
    assert_eq!(error.code(), Some(ErrorCode::NoSuchBucket), "{error}");
}

async fn keys_of(bucket: &Bucket<Host>, options: ListOptions) -> Vec<String> {
    let page_max = options.page.unwrap_or(1000);
    let mut listing = bucket.list(options);
    let mut keys = Vec::new();
    while let Some(page) = listing.next_page().await.expect("a page") {
        assert!(page.objects.len() <= page_max, "{} objects", page.objects.len());
        keys.extend(page.objects.iter().map(|object| object.key.to_string()));
    }
    keys
}

/// Folding shows each directory once, between the keys that are its neighbours.
async fn folded(bucket: &Bucket<Host>) {
    for (prefix, pages) in [("", 1), ("", 3), ("", 1000), ("d1/", 7)] {
        let options = ListOptions {
            prefix: Bytes::copy_from_slice(prefix.as_bytes()),
            delimiter: Bytes::from_static(b"/"),
            page: Some(pages),
            ..ListOptions::default()
        };
        let mut listing = bucket.list(options);
        let (mut keys, mut prefixes) = (Vec::new(), Vec::new());
        while let Some(page) = listing.next_page().await.expect("a page") {
            keys.extend(page.objects.iter().map(|object| object.key.to_string()));
            prefixes.extend(page.prefixes.iter().map(|p| String::from_utf8_lossy(p).into_owned()));
        }
        if prefix.is_empty() {
            assert_eq!(keys, ["a", "d1", "\u{10ffff}"], "pages of {pages}");
            let expected: Vec<String> = (0..7).map(|i| format!("d{i}/")).chain(["z/".to_owned()]).collect();
            assert_eq!(prefixes, expected, "pages of {pages}");
        } else {
            assert_eq!(keys, ["d1/"], "pages of {pages}");
            // Every residue of 50 occurs with each of 7.
            assert_eq!(prefixes.len(), 50, "pages of {pages}: {prefixes:?}");
            assert!(prefixes.is_sorted(), "{prefixes:?}");
        }
    }
}

/// A token is good for another listing: it goes on where the page ended.
async fn continued(bucket: &Bucket<Host>, names: &[String]) {
    let mut first = bucket.list(ListOptions { page: Some(1000), ..ListOptions::default() });
    let page = first.next_page().await.expect("a page").expect("not empty");
    let options = ListOptions { token: page.token.clone(), ..ListOptions::default() };
    let rest = keys_of(bucket, options).await;
    assert!(
        rest == names[page.objects.len()..],
        "{} keys after the first {}",
        rest.len(),
        page.objects.len()
    );
}

/// Many clients at once, each with its own keys and all with one key in common: every object is right,
/// and the common one is one of those written.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_clients_do_not_mix() {
    let cluster = SharedCluster::join().await;
    let mut tasks = Vec::new();
    for seed in 0..4_u64 {
        let bucket = cluster.bucket().await;
        tasks.push(tokio::spawn(async move {
            for round in 0..6 {
                let content = Content::new(seed * 100 + round, 300_000 + seed * 77_777);
                let name = format!("mixed/{seed}/{round}");
                put(&bucket, &name, content).await.expect("put");
                put(&bucket, "mixed/common", content).await.expect("put");
                assert_eq!(content.difference(&get(&bucket, &name).await.expect("get")), None);
                let common = get(&bucket, "mixed/common").await;
                match common {
                    Ok(bytes) => assert!(
                        (0..4).any(|s| (0..6).any(|r| {
                            Content::new(s * 100 + r, 300_000 + s * 77_777).difference(&bytes).is_none()
                        })),
                        "{} bytes that nobody wrote",
                        bytes.len()
                    ),
                    // Said, not hidden: the version was replaced and dropped while it was read.
                    Err(error) => assert!(matches!(error, GetError::Changed { .. }), "{error}"),
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("a client");
    }
}
