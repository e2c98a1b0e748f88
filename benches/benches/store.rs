//! The shard store of one disk, and the bare engine writing and reading the same bytes as the yardstick.
//!
//! The disk is a directory of its own below `CADOLE_BENCH_DIR`, or below the target directory, never holds more than
//! 1 GB, and is removed at the end. Segments and the yardstick's files are new ones, as on a new disk. One iteration
//! is a round: many shards, so many in flight as the name says.
#![allow(missing_docs, clippy::expect_used)]
// It is about time.
#![allow(clippy::disallowed_methods)]

use std::cell::Cell;
use std::future::Future;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cadole_benches::bare::{self, Bare, Pieces};
use cadole_benches::memory::MemoryDisk;
use cadole_benches::shards::{GROUP, SLOT, STRIPES, extent, formatted, name, payload, shard, shuffled};
use codec::block_checksums;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use env::{Disk, Disks, Kv, Kvs, MemoryKv, Priority};
use futures_util::{StreamExt, stream};
use node::store::{HEADER_BYTES, INDEX_TABLES, ShardStore};
use node::superblock::Superblock;
use os::disk::{EngineChoice, OsDisk, OsDisks};
use os::kv::{OsKv, OsKvs};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

const LARGE: usize = 1 << 20;
const BLOCK: usize = 64 << 10;
const SMALL: usize = 4 << 10;
/// The shortest shard, and its record.
const LEAST: usize = 64;
const LEAST_RECORD: usize = 2 * HEADER_BYTES;
const DEPTH: usize = 16;
const WRITERS: usize = 64;
/// A disk to which more was written is given up for a new one.
const WRITTEN_BYTES_MAX: u64 = 512 << 20;
/// Large shards to read from, and of them in a round.
const READABLE: u64 = 256;
const READ: usize = 64;
const DELETED: u64 = STRIPES;
const SCANNED: u64 = 8192;
const IN_MEMORY: u64 = 1024;

/// Where disks are made, and what runs them.
struct Bench {
    runtime: Runtime,
    dir: PathBuf,
    made: Cell<u64>,
}

impl Bench {
    fn new() -> Self {
        let below =
            std::env::var_os("CADOLE_BENCH_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
        let dir = PathBuf::from(below).join(format!("bench-store-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        Self { runtime: Runtime::new().expect("a runtime"), dir, made: Cell::new(0) }
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// A directory that is not there.
    fn unused(&self) -> PathBuf {
        self.made.set(self.made.get() + 1);
        self.dir.join(self.made.get().to_string())
    }

    fn log(&self) -> Log<OsDisk, OsKv> {
        let dir = self.unused();
        self.run(async {
            let (disk, index) = (os_disk(&dir).await, os_index(&dir, "index").await);
            Log::open(disk, index, Removed(dir)).await
        })
    }

    fn memory_log(&self) -> Log<MemoryDisk, MemoryKv> {
        let disk = MemoryDisk::new(2 * WRITTEN_BYTES_MAX);
        self.run(Log::open(disk, MemoryKv::new(INDEX_TABLES), Removed(self.unused())))
    }

    fn bare(&self) -> (Bare<OsDisk>, Removed) {
        let dir = self.unused();
        (Bare::new(self.run(os_disk(&dir))), Removed(dir))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// A directory that goes with its owner, if it is there.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

async fn os_disk(dir: &Path) -> OsDisk {
    let path = dir.join("disk");
    std::fs::create_dir_all(&path).expect("a directory");
    OsDisks::new(EngineChoice::Best).open(path.to_str().expect("a path")).await.expect("a disk")
}

async fn os_index(dir: &Path, name: &str) -> OsKv {
    OsKvs::new(Some(dir.join("data"))).open(name, INDEX_TABLES).await.expect("an index")
}

/// A store, and its shards: numbers from 0 to `next`.
struct Log<D: Disk, K: Kv> {
    disk: D,
    superblock: Superblock,
    store: ShardStore<D, K>,
    writer: JoinHandle<()>,
    next: u64,
    written_bytes: u64,
    dir: Removed,
}

impl<D: Disk, K: Kv> Log<D, K> {
    async fn open(disk: D, index: K, dir: Removed) -> Self {
        let superblock = formatted(&disk).await.expect("a superblock");
        let opened = ShardStore::open(disk.clone(), index, superblock, None).await;
        let (store, writer) = opened.expect("a store");
        Self { disk, superblock, store, writer: tokio::spawn(writer), next: 0, written_bytes: 0, dir }
    }

    /// Puts so many new shards, each in a task of its own.
    async fn put(&mut self, count: u64, payload: &Arc<[u8]>, in_flight: usize) -> Duration {
        let numbers = self.next..self.next + count;
        self.next += count;
        let record = HEADER_BYTES + payload.len().next_multiple_of(HEADER_BYTES);
        self.written_bytes += count * record as u64;
        let put = |number| {
            let (store, payload) = (self.store.clone(), payload.clone());
            tokio::spawn(async move {
                let shard = shard(number, &payload).expect("a shard");
                store.put(shard, Priority::Client).await.expect("put");
            })
        };
        in_turn(numbers.map(put), in_flight).await
    }

    /// Reads so many blocks of each shard, 0 for all.
    async fn read(&self, numbers: &[u64], blocks: u32, in_flight: usize) -> Duration {
        let read = |number: &u64| {
            let (store, name) = (self.store.clone(), name(*number));
            tokio::spawn(async move {
                black_box(store.read(name, 0, blocks, Priority::Client).await.expect("read"));
            })
        };
        in_turn(numbers.iter().map(read), in_flight).await
    }

    /// The same bytes of the disk without the store.
    async fn read_bare(&self, numbers: &[u64], bytes: usize, in_flight: usize) -> Duration {
        let mut reads = Vec::new();
        for number in numbers {
            let place = self.store.place(name(*number)).expect("an index").expect("a shard");
            reads.push((self.disk.open(&place.file).await.expect("a segment"), place.offset, bytes));
        }
        let began = Instant::now();
        black_box(bare::read(reads, in_flight).await.expect("read"));
        began.elapsed()
    }

    /// Closes the store; its disk stays as long as the directory.
    async fn close(self) -> (D, Superblock, Removed) {
        let Self { disk, superblock, store, writer, dir, .. } = self;
        drop(store);
        writer.await.expect("the writer");
        (disk, superblock, dir)
    }
}

/// Runs tasks, so many at a time.
async fn in_turn(tasks: impl Iterator<Item = JoinHandle<()>>, in_flight: usize) -> Duration {
    let began = Instant::now();
    let mut tasks = stream::iter(tasks).buffer_unordered(in_flight);
    while let Some(done) = tasks.next().await {
        done.expect("a task");
    }
    began.elapsed()
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// Benches that take some three seconds each.
fn group<'a>(c: &'a mut Criterion, name: &str, throughput: Throughput) -> Group<'a> {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(throughput);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group
}

/// A bench of rounds on a log, which is another one when it has grown too large.
fn on_logs<D: Disk, K: Kv>(
    group: &mut Group<'_>,
    (name, bench): (&str, &Bench),
    make: impl Fn() -> Log<D, K>,
    mut round: impl FnMut(&mut Log<D, K>) -> Duration,
) {
    let mut log: Option<Log<D, K>> = None;
    group.bench_function(name, |b| {
        b.iter_custom(|rounds| {
            let one = |_| {
                if let Some(large) = log.take_if(|log| log.written_bytes > WRITTEN_BYTES_MAX) {
                    drop(bench.run(large.close()));
                }
                round(log.get_or_insert_with(&make))
            };
            (0..rounds).map(one).sum()
        });
    });
    if let Some(log) = log {
        drop(bench.run(log.close()));
    }
}

/// The same without a store: so many pieces a round.
fn on_files(group: &mut Group<'_>, bench: &Bench, pieces: Pieces) {
    let mut bare: Option<(Bare<OsDisk>, Removed)> = None;
    group.bench_function("engine", |b| {
        b.iter_custom(|rounds| {
            let one = |_| {
                bare.take_if(|(bare, _)| bare.written_bytes() > WRITTEN_BYTES_MAX);
                let (bare, _) = bare.get_or_insert_with(|| bench.bare());
                let began = Instant::now();
                bench.run(bare.write(pieces)).expect("written");
                began.elapsed()
            };
            (0..rounds).map(one).sum()
        });
    });
}

/// Large shards, durable; the engine flushes once a round.
fn put_large(c: &mut Criterion) {
    let (bench, count) = (Bench::new(), 128);
    let mut group = group(c, "put 1 MiB x 16", Throughput::Bytes(count * LARGE as u64));
    let payload: Arc<[u8]> = payload(LARGE).into();
    let put = |log: &mut Log<_, _>| bench.run(log.put(count, &payload, DEPTH));
    on_logs(&mut group, ("store", &bench), || bench.log(), put);
    let record = HEADER_BYTES + LARGE;
    on_files(&mut group, &bench, Pieces { count, bytes: record, in_flight: DEPTH, flush_each: false });
    group.finish();
}

/// Small shards, durable; the engine writes and flushes as many as there are writers, then as many more.
fn put_small(c: &mut Criterion) {
    let (bench, batches) = (Bench::new(), 32);
    let count = batches * WRITERS as u64;
    let mut group = group(c, "put 4 KiB x 64", Throughput::Bytes(count * SMALL as u64));
    let payload: Arc<[u8]> = payload(SMALL).into();
    let put = |log: &mut Log<_, _>| bench.run(log.put(count, &payload, WRITERS));
    on_logs(&mut group, ("store", &bench), || bench.log(), put);
    let batch = WRITERS * (HEADER_BYTES + SMALL);
    on_files(&mut group, &bench, Pieces { count: batches, bytes: batch, in_flight: 1, flush_each: true });
    group.finish();
}

/// Reads of random shards, each verified; the engine reads the same bytes.
fn get(c: &mut Criterion) {
    let bench = Bench::new();
    let mut log = bench.log();
    bench.run(log.put(READABLE, &payload(LARGE).into(), DEPTH));
    println!("the disk's engine: {}", bench.run(log.store.report()).engine);
    let order = shuffled(0..READABLE);
    let mut at = order.chunks(READ).cycle();
    let mut next = || at.next().expect("it never ends");
    let whole = [("get 1 MiB x 16", LARGE, 0, DEPTH), ("get 64 KiB alone", BLOCK, 1, 1)];
    for (name, bytes, blocks, in_flight) in whole {
        let mut group = group(c, name, Throughput::Bytes((READ * bytes) as u64));
        group.bench_function("store", |b| {
            let mut round = || bench.run(log.read(next(), blocks, in_flight));
            b.iter_custom(|rounds| (0..rounds).map(|_| round()).sum());
        });
        group.bench_function("engine", |b| {
            let mut round = || bench.run(log.read_bare(next(), HEADER_BYTES + bytes, in_flight));
            b.iter_custom(|rounds| (0..rounds).map(|_| round()).sum());
        });
        group.finish();
    }
    drop(bench.run(log.close()));
}

/// All shards of an extent; the engine writes and flushes as many tombstones.
fn delete(c: &mut Criterion) {
    let bench = Bench::new();
    let mut group = group(c, "delete 256 shards", Throughput::Elements(DELETED));
    let payload: Arc<[u8]> = payload(LEAST).into();
    let round = async |log: &mut Log<_, _>| {
        let extent = extent(log.next);
        log.put(DELETED, &payload, WRITERS).await;
        let began = Instant::now();
        let removed = log.store.delete_extent(GROUP, extent, SLOT).await.expect("deleted");
        let took = began.elapsed();
        assert_eq!(removed.get().shards, DELETED);
        took
    };
    on_logs(&mut group, ("store", &bench), || bench.log(), |log| bench.run(round(log)));
    let record = HEADER_BYTES + usize::try_from(DELETED).expect("few") * 48;
    on_files(&mut group, &bench, Pieces { count: 1, bytes: record, in_flight: 1, flush_each: true });
    group.finish();
}

/// The index from nothing but the log, which is read from front to back; the engine reads the same records.
fn rebuild(c: &mut Criterion) {
    let bench = Bench::new();
    let mut log = bench.log();
    bench.run(log.put(SCANNED, &payload(LEAST).into(), WRITERS));
    let mut group = group(c, "rebuild 8192 shards", Throughput::Bytes(SCANNED * LEAST_RECORD as u64));
    let chunk = LARGE / LEAST_RECORD;
    let chunks: Vec<u64> = (0..SCANNED).step_by(chunk).collect();
    group.bench_function("engine", |b| {
        let round = || bench.run(log.read_bare(&chunks, LARGE, DEPTH));
        b.iter_custom(|rounds| (0..rounds).map(|_| round()).sum());
    });
    let (disk, superblock, dir) = bench.run(log.close());
    group.bench_function("store", |b| {
        let round = || {
            bench.run(async {
                let data = Removed(bench.unused());
                let took = reopen(&disk, os_index(&data.0, "index").await, superblock).await;
                drop(data);
                took
            })
        };
        b.iter_custom(|rounds| (0..rounds).map(|_| round()).sum());
    });
    group.bench_function("store, index in memory", |b| {
        let round = || bench.run(reopen(&disk, MemoryKv::new(INDEX_TABLES), superblock));
        b.iter_custom(|rounds| (0..rounds).map(|_| round()).sum());
    });
    group.finish();
    drop((disk, dir));
}

/// Opens the store of a disk with an empty index.
async fn reopen<K: Kv>(disk: &OsDisk, index: K, superblock: Superblock) -> Duration {
    let began = Instant::now();
    let opened = ShardStore::open(disk.clone(), index, superblock, None).await;
    let took = began.elapsed();
    let (store, _) = opened.expect("a store");
    assert_eq!(store.report().await.shards, SCANNED);
    took
}

/// What is left of a record when disk and index take no time: the header made and laid out, or read and checked. The
/// checksum of a page is the least that either can cost.
fn records(c: &mut Criterion) {
    let bench = Bench::new();
    let mut group = group(c, "records in memory", Throughput::Elements(IN_MEMORY));
    let payload: Arc<[u8]> = payload(LEAST).into();
    let put = |log: &mut Log<_, _>| bench.run(log.put(IN_MEMORY, &payload, WRITERS));
    on_logs(&mut group, ("put", &bench), || bench.memory_log(), put);
    let mut log = bench.memory_log();
    bench.run(log.put(IN_MEMORY, &payload, WRITERS));
    group.bench_function("header read", |b| {
        let about = async |log: &Log<_, _>| {
            for number in 0..IN_MEMORY {
                black_box(
                    log.store.about(name(number), Priority::Client).await.expect("read").expect("there"),
                );
            }
        };
        b.iter(|| bench.run(about(&log)));
    });
    let page = [7; HEADER_BYTES];
    group.bench_function("checksum of a page", |b| {
        b.iter(|| (0..IN_MEMORY).for_each(|_| drop(black_box(block_checksums(black_box(&page))))));
    });
    group.finish();
    drop(bench.run(log.close()));
}

criterion_group!(benches, put_large, put_small, get, delete, rebuild, records);
criterion_main!(benches);
