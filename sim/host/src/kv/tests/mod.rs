//! What the stores promise, on many seeds and schedules.

mod crash;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use env::{Batch, Env, KeyRange, Kv, KvRead, Kvs, Order, Row, StorageErrorKind, Table};

use super::{KvBugs, KvDevice, KvFaults, SimKv};
use crate::host::{Death, Host};
use crate::world::{Schedule, World, WorldOptions, lock};

const ONE: Table = "one";
const LIMIT: Duration = Duration::from_secs(3600);

/// A machine with steady latencies: 1 ms each.
fn host(seed: u64) -> Host {
    let world = World::new(WorldOptions::new(seed));
    let host = world.add_host("a", "node/1".parse().unwrap());
    host.kvs().configure(KvFaults { flush_us: (1_000, 1_000), ..KvFaults::default() });
    host
}

fn put(kv: &SimKv, key: &'static str) {
    kv.write(batch(key)).unwrap();
}

fn batch(key: &'static str) -> Batch {
    let mut batch = Batch::new();
    batch.put(ONE, key, "1");
    batch
}

fn all(kv: &impl KvRead, table: Table) -> Vec<Row> {
    kv.scan(table, &KeyRange::all(), Order::Ascending, usize::MAX).unwrap()
}

fn keys(kv: &impl KvRead) -> String {
    let keys: Vec<String> =
        all(kv, ONE).into_iter().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect();
    keys.join(" ")
}

fn kind<T>(result: Result<T, env::StorageError>) -> StorageErrorKind {
    result.err().expect("an error").kind()
}

/// The contract of stores holds in any order of tasks, with operations that are slow now and then.
#[test]
fn conformance() {
    for seed in 0..6 {
        for schedule in [Schedule::Random, Schedule::Fifo, Schedule::Starving] {
            println!("seed {seed}, {schedule:?}");
            let world = World::new(WorldOptions { schedule, ..WorldOptions::new(seed) });
            // Two hosts at once: neither sees the other's stores.
            let suites: Vec<_> = ["a", "b"]
                .map(|name| {
                    let host = world.add_host(name, "node/1".parse().unwrap());
                    let faults =
                        KvFaults { slow_ppm: 50_000, slow_us: (1_000, 90_000), ..KvFaults::default() };
                    host.kvs().configure(faults);
                    let env = host.boot();
                    let kvs = env.kvs().clone();
                    env::Spawn::spawn(env.spawn(), "suite", async move { env::conformance::kvs(&kvs).await })
                })
                .into();
            let both = async {
                for suite in suites {
                    env::Task::join(suite).await;
                }
            };
            world.run(LIMIT, both).unwrap();
        }
    }
}

/// The same seed gives the same trace, errors and slow operations included; another one another.
#[test]
fn same_seed_same_trace() {
    let trace = |seed| {
        let host = host(seed);
        let faults = KvFaults {
            write_error_ppm: 100_000,
            slow_ppm: 200_000,
            slow_us: (5, 500),
            ..KvFaults::default()
        };
        host.kvs().configure(faults);
        let env = host.boot();
        let test = async {
            let kv = env.kvs().open("store", &[ONE]).await.unwrap();
            for _ in 0..100 {
                drop(kv.write(batch("a")));
                kv.flush().await.unwrap();
            }
        };
        host.world().run(LIMIT, test).unwrap();
        host.world().trace_hash()
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

/// Calls of flush that wait together share one flush of the device, which covers none that came later.
#[test]
fn flushes_are_shared() {
    let host = host(1);
    let env = host.boot();
    let world = host.world().clone();
    let test = async {
        let kv = env.kvs().open("store", &[ONE]).await.unwrap();
        let began = world.now();
        let flushes: Vec<_> = (0..20)
            .map(|_| {
                let kv = kv.clone();
                env::Spawn::spawn(env.spawn(), "flush", async move { kv.flush().await.unwrap() })
            })
            .collect();
        for flush in flushes {
            env::Task::join(flush).await;
        }
        let took = world.now() - began;
        assert!(took <= Duration::from_millis(2), "20 flushes took {took:?}");
        kv.flush().await.unwrap();
        assert_eq!(world.now() - began, took + Duration::from_millis(1), "a later flush is one of its own");
    };
    world.run(LIMIT, test).unwrap();
}

/// On a full device writes and checkpoints are refused without a trace, and go on when there is space.
#[test]
fn full() {
    let host = host(1);
    let env = host.boot();
    let test = async {
        let kv = env.kvs().open("store", &[ONE]).await.unwrap();
        put(&kv, "a");
        host.kvs().set_full(true);
        assert_eq!(kind(kv.write(batch("b"))), StorageErrorKind::Full);
        assert_eq!(kind(kv.checkpoint("copy").await), StorageErrorKind::Full);
        assert_eq!((keys(&kv), host.kvs().stores()), ("a".to_owned(), vec!["store".to_owned()]));
        host.kvs().set_full(false);
        put(&kv, "c");
        kv.checkpoint("copy").await.unwrap();
        assert_eq!(keys(&kv), "a c");
    };
    host.world().run(LIMIT, test).unwrap();
}

/// A write that fails leaves nothing; after a flush that failed, all fail until the store is opened again.
#[test]
fn errors() {
    let host = host(1);
    let env = host.boot();
    let device = host.kvs();
    let test = async {
        let kv = env.kvs().open("store", &[ONE]).await.unwrap();
        device.configure(KvFaults {
            write_error_ppm: 1_000_000,
            flush_error_ppm: 1_000_000,
            ..KvFaults::default()
        });
        assert_eq!(kind(kv.write(batch("a"))), StorageErrorKind::Io);
        assert_eq!(keys(&kv), "");
        assert_eq!(kind(kv.flush().await), StorageErrorKind::Io);
        device.configure(KvFaults::default());
        put(&kv, "b");
        assert_eq!(kind(kv.flush().await), StorageErrorKind::Io);
        drop(kv);
        let kv = env.kvs().open("store", &[ONE]).await.unwrap();
        kv.flush().await.unwrap();
        host.kill(Death::Power);
    };
    host.world().run(LIMIT, test).unwrap();
    assert_eq!(keys(&device.forensic("store").unwrap()), "b");
}

/// A stuck device holds flushes up until it goes on; writes and reads do not wait for it.
#[test]
fn stuck() {
    let host = host(1);
    let env = host.boot();
    let world = host.world().clone();
    let test = async {
        let kv = env.kvs().open("store", &[ONE]).await.unwrap();
        host.kvs().set_stuck(true);
        let flushed = Arc::new(Mutex::new(false));
        let (flushing, done) = (kv.clone(), flushed.clone());
        env::Spawn::spawn(env.spawn(), "flush", async move {
            flushing.flush().await.unwrap();
            *lock(&done) = true;
        });
        world.sleep(Duration::from_secs(60)).await;
        assert!(!*lock(&flushed));
        put(&kv, "a");
        assert_eq!(keys(&kv), "a");
        host.kvs().set_stuck(false);
        world.sleep(Duration::from_millis(2)).await;
        assert!(*lock(&flushed));
    };
    world.run(LIMIT, test).unwrap();
}

/// A device that was replaced has nothing, and whoever had the old one open gets errors only.
#[test]
fn wiped() {
    let host = host(1);
    let env = host.boot();
    let test = async {
        let kv = env.kvs().open("store", &[ONE]).await.unwrap();
        put(&kv, "a");
        host.kvs().wipe();
        assert!(host.kvs().stores().is_empty());
        assert_eq!(kind(kv.get(ONE, b"a")), StorageErrorKind::Io);
        assert_eq!(kind(kv.write(batch("b"))), StorageErrorKind::Io);
        assert_eq!(kind(kv.flush().await), StorageErrorKind::Io);
        assert_eq!(kind(kv.checkpoint("copy").await), StorageErrorKind::Io);
        drop(kv);
        let kv = env.kvs().open("store", &[ONE]).await.unwrap();
        assert_eq!(keys(&kv), "");
    };
    host.world().run(LIMIT, test).unwrap();
}

/// A checker's view is what processes saw, of one moment, also while no process runs.
#[test]
fn forensic_view() {
    let host = host(1);
    let env = host.boot();
    let test = async {
        let kv = env.kvs().open("store", &[ONE]).await.unwrap();
        put(&kv, "a");
        let then = host.kvs().forensic("store").unwrap();
        put(&kv, "b");
        assert_eq!((keys(&then), keys(&kv)), ("a".to_owned(), "a b".to_owned()));
        assert_eq!(kind(then.get("three", b"")), StorageErrorKind::Invalid);
        host.kill(Death::Process);
    };
    host.world().run(LIMIT, test).unwrap();
    assert_eq!(keys(&host.kvs().forensic("store").unwrap()), "a b");
    assert!(host.kvs().forensic("other").is_none());
}

/// A filter sees the store's name and decides what is written.
#[test]
fn filter() {
    let host = host(1);
    let env = host.boot();
    host.kvs()
        .set_filter(Some(Arc::new(|name, written| if name == "store" { batch("planted") } else { written })));
    let test = async {
        let kv = env.kvs().open("store", &[ONE]).await.unwrap();
        let other = env.kvs().open("other", &[ONE]).await.unwrap();
        put(&kv, "a");
        put(&other, "a");
        assert_eq!((keys(&kv), keys(&other)), ("planted".to_owned(), "a".to_owned()));
        host.kvs().set_filter(None);
        put(&kv, "a");
        assert_eq!(keys(&kv), "a planted");
    };
    host.world().run(LIMIT, test).unwrap();
}

/// Planted bugs break what they say: a flush that lies loses batches at some seed, a checkpoint that
/// lies lacks the last batch at every seed.
#[test]
fn bugs_bite() {
    let mut lost = 0;
    for seed in 0..20 {
        let host = host(seed);
        let env = host.boot();
        host.kvs().set_bugs(KvBugs { flush_lies: true, checkpoint_lies: true, ..KvBugs::default() });
        let test = async {
            let kv = env.kvs().open("store", &[ONE]).await.unwrap();
            put(&kv, "a");
            kv.flush().await.unwrap();
            kv.checkpoint("copy").await.unwrap();
            assert_eq!(keys(&kv), "a");
            host.kill(Death::Power);
        };
        host.world().run(LIMIT, test).unwrap();
        assert_eq!(keys(&host.kvs().forensic("copy").unwrap()), "", "seed {seed}");
        lost += u32::from(keys(&host.kvs().forensic("store").unwrap()).is_empty());
    }
    assert!(lost >= 5, "{lost} of 20 lost it");
}

/// What a dead process had open is free for the next one, does nothing any more, and takes no lock
/// away from the next one when it is dropped at last.
#[test]
fn dead_hands() {
    let host = host(1);
    let first = host.boot();
    let world = host.world().clone();
    let test = async {
        let old = first.kvs().open("store", &[ONE]).await.unwrap();
        put(&old, "a");
        host.kill(Death::Process);
        assert_eq!(kind(old.get(ONE, b"a")), StorageErrorKind::Io);
        assert_eq!(kind(old.write(batch("b"))), StorageErrorKind::Io);
        let second = host.boot();
        let new = second.kvs().open("store", &[ONE]).await.unwrap();
        drop(old);
        assert_eq!(kind(second.kvs().open("store", &[ONE]).await.map(drop)), StorageErrorKind::Locked);
        assert_eq!(keys(&new), "a");
    };
    world.run(LIMIT, test).unwrap();
}

/// A name is locked while a store of that name is on its way, and a call that is dropped leaves no trace.
#[test]
fn names_on_their_way() {
    let host = host(1);
    let env = host.boot();
    let world = host.world().clone();
    let test = async {
        let kv = env.kvs().open("store", &[ONE]).await.unwrap();
        let device: &KvDevice = host.kvs();
        let making = async {
            tokio::select! {
                biased;
                () = world.sleep(Duration::from_micros(500)) => {}
                made = kv.checkpoint("copy") => panic!("sooner than the device can: {made:?}"),
            }
        };
        let meanwhile = async {
            world.sleep(Duration::from_micros(100)).await;
            assert_eq!(kind(env.kvs().open("copy", &[ONE]).await.map(drop)), StorageErrorKind::Locked);
            assert_eq!(kind(env.kvs().remove("copy").await), StorageErrorKind::Locked);
            assert_eq!(kind(kv.checkpoint("copy").await), StorageErrorKind::AlreadyExists);
        };
        tokio::join!(making, meanwhile);
        assert_eq!(device.stores(), ["store"]);
        kv.checkpoint("copy").await.unwrap();
        assert_eq!(device.stores(), ["copy", "store"]);
    };
    world.run(LIMIT, test).unwrap();
}

/// What is done to a copy of a store is done to no other, and a copy of the durable part has nothing else.
#[test]
fn scratch_copies() {
    let host = host(9);
    let world = host.world().clone();
    let test = async {
        let kv = host.boot().kvs().open("a", &[ONE]).await.unwrap();
        put(&kv, "1");
        kv.flush().await.unwrap();
        put(&kv, "2");
        let device = host.kvs();
        let (now, durable) =
            (device.forensic("a").unwrap().scratch(), device.durable("a").unwrap().scratch());
        now.write(batch("3")).unwrap();
        assert_eq!((keys(&now), keys(&durable), keys(&kv)), ("1 2 3".into(), "1".into(), "1 2".into()));
    };
    world.run(LIMIT, test).unwrap();
}

/// A store can be taken away while no process has it open.
#[test]
fn stores_are_removed_at_rest() {
    let host = host(10);
    let world = host.world().clone();
    let test = async {
        let kv = host.boot().kvs().open("a", &[ONE]).await.unwrap();
        put(&kv, "1");
        assert!(!host.kvs().remove_at_rest("a"), "it is open");
        host.kill(Death::Process);
        assert!(host.kvs().remove_at_rest("a"));
        assert!(!host.kvs().remove_at_rest("a"));
        let kv = host.boot().kvs().open("a", &[ONE]).await.unwrap();
        assert_eq!(keys(&kv), "");
    };
    world.run(LIMIT, test).unwrap();
}
