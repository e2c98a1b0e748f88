//! Loads one shard store on this machine's disk, and prints what it did as one line of JSON: `cargo xtask bench
//! store` runs it beside fio.

// A tool for people: it reads clocks and prints.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::print_stdout)]
#![allow(missing_docs, clippy::cast_precision_loss)]

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, anyhow};
use cadole_benches::counted::{Counted, Counts};
use cadole_benches::shards::{formatted, name, payload, shard, shuffled};
use clap::{Parser, Subcommand};
use env::{Disks, Kvs, Priority};
use futures_util::{StreamExt, stream};
use node::store::{INDEX_TABLES, ShardStore};
use os::disk::{EngineChoice, OsDisk, OsDisks};
use os::kv::{OsKv, OsKvs};
use serde_json::json;

#[derive(Parser)]
#[command(about = "Loads one shard store, and prints what it did as JSON.")]
struct Arguments {
    /// Where the store is: its disk and its index are made here.
    dir: PathBuf,
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Writes shards, each acknowledged when it is durable.
    Write(Load),
    /// Reads whole shards that were written, in random order.
    Read(Load),
    /// Deletes shards that were written.
    Delete(Load),
    /// Deletes every third shard, and reads 64 KiB of random others, one after another, alone and while everything is
    /// verified and compacted.
    Latency(Load),
    /// Opens the store, and says how long that took and what it costs.
    Open,
}

#[derive(Clone, Copy, clap::Args)]
struct Load {
    /// Bytes of a shard.
    #[arg(long, default_value_t = 1 << 20)]
    shard_bytes: usize,
    /// Shards.
    #[arg(long)]
    shards: u64,
    /// The number of the first one.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// At the same time.
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
}

/// Reads of each shard while nothing else goes on.
const IDLE_PASSES: usize = 4;

impl Load {
    fn numbers(&self) -> Range<u64> {
        self.first..self.first + self.shards
    }
}

type Store = ShardStore<Counted<OsDisk>, OsKv>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { dir, work } = Arguments::parse();
    let began = Instant::now();
    let (disk, store, writer) = open(&dir).await?;
    let writer = tokio::spawn(writer);
    let open_seconds = began.elapsed().as_secs_f64();
    let cpu = cpu_seconds()?;
    let counted = disk.counts();
    let io = process_written()?;
    let began = Instant::now();
    let mut told = match work {
        Work::Write(load) => write(&store, load).await?,
        Work::Read(load) => read(&store, load).await?,
        Work::Delete(load) => delete(&store, load).await?,
        Work::Latency(load) => latency(&store, load).await?,
        Work::Open => json!({}),
    };
    let seconds = began.elapsed().as_secs_f64();
    let Counts { bytes, writes, flushes, name_flushes } = disk.counts().since(counted);
    let more = json!({
        "seconds": seconds,
        "cpu_seconds": cpu_seconds()? - cpu,
        "open_seconds": open_seconds,
        "device_bytes": bytes,
        "device_writes": writes,
        "device_flushes": flushes,
        "device_name_flushes": name_flushes,
        "process_written_bytes": process_written()? - io,
        "memory_bytes": memory("VmRSS:")?,
        "memory_peak_bytes": memory("VmHWM:")?,
        "shards": store.report().await.shards,
        "used_bytes": store.used_bytes(),
        "engine": store.report().await.engine,
    });
    if let (Some(told), serde_json::Value::Object(more)) = (told.as_object_mut(), more) {
        told.extend(more);
    }
    println!("{told}");
    drop(store);
    writer.await.context("the writer")
}

async fn open(
    dir: &Path,
) -> anyhow::Result<(Counted<OsDisk>, Store, impl Future<Output = ()> + Send + 'static + use<>)> {
    let path = dir.join("disk");
    std::fs::create_dir_all(&path)?;
    let disk = OsDisks::new(EngineChoice::Best).open(path.to_str().context("a path")?).await?;
    let superblock = formatted(&disk).await?;
    let kvs = OsKvs::new(Some(dir.join("data")));
    let index = kvs.open("index-bench", INDEX_TABLES).await?;
    let disk = Counted::new(disk);
    let (store, writer) = ShardStore::open(disk.clone(), index, superblock, None).await?;
    Ok((disk, store, writer))
}

/// Runs one task for each number, so many at a time; the time of each in microseconds, sorted.
async fn run<F, T>(numbers: impl Iterator<Item = u64>, in_flight: usize, one: F) -> anyhow::Result<Vec<u64>>
where
    F: Fn(u64) -> T,
    T: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let tasks = stream::iter(numbers).map(|number| {
        let work = one(number);
        tokio::spawn(async move {
            let began = Instant::now();
            work.await.map(|()| u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX))
        })
    });
    let mut tasks = tasks.buffer_unordered(in_flight);
    let mut took = Vec::new();
    while let Some(done) = tasks.next().await {
        took.push(done??);
    }
    took.sort_unstable();
    Ok(took)
}

fn percentiles(took: &[u64]) -> serde_json::Value {
    let at =
        |thousandths: usize| took.get((took.len() * thousandths / 1000).min(took.len().saturating_sub(1)));
    json!({ "operations": took.len(), "p50_us": at(500), "p99_us": at(990), "max_us": took.last() })
}

async fn write(store: &Store, load: Load) -> anyhow::Result<serde_json::Value> {
    let payload: Arc<[u8]> = payload(load.shard_bytes).into();
    let one = |number| {
        let (store, payload) = (store.clone(), payload.clone());
        async move { Ok(store.put(shard(number, &payload)?, Priority::Client).await.map(drop)?) }
    };
    let took = run(load.numbers(), load.in_flight, one).await?;
    Ok(percentiles(&took))
}

async fn read(store: &Store, load: Load) -> anyhow::Result<serde_json::Value> {
    let one = |number| {
        let store = store.clone();
        async move {
            let read = store.read(name(number), 0, 0, Priority::Client).await?;
            anyhow::ensure!(read.bytes.len() == load.shard_bytes, "{} bytes", read.bytes.len());
            Ok(())
        }
    };
    Ok(percentiles(&run(shuffled(load.numbers()).into_iter(), load.in_flight, one).await?))
}

async fn delete(store: &Store, load: Load) -> anyhow::Result<serde_json::Value> {
    let one = |number| {
        let store = store.clone();
        async move { Ok(store.delete(name(number)).await.map(drop)?) }
    };
    Ok(percentiles(&run(load.numbers(), load.in_flight, one).await?))
}

/// Every third shard dies first, so that compaction has something to copy; reads go on until it has nothing left.
async fn latency(store: &Store, load: Load) -> anyhow::Result<serde_json::Value> {
    let (dead, live): (Vec<u64>, Vec<u64>) =
        shuffled(load.numbers()).into_iter().partition(|number| number.is_multiple_of(3));
    for number in dead {
        store.delete(name(number)).await?;
    }
    let one = |number| {
        let store = store.clone();
        async move { Ok(store.read(name(number), 0, 1, Priority::Client).await.map(drop)?) }
    };
    let numbers = || live.iter().copied().cycle();
    let idle = run(numbers().take(IDLE_PASSES * live.len()), 1, one).await?;
    let counts = Arc::new(Background::default());
    let (scrubbed, count, order) = (store.clone(), counts.clone(), live.clone());
    let scrub = tokio::spawn(async move {
        for number in order.into_iter().cycle() {
            if scrubbed.check(name(number), Priority::Scrub).await.is_ok() {
                count.verified.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let (compacted, count) = (store.clone(), counts.clone());
    let compaction = tokio::spawn(async move {
        while compacted.compact().await? {
            count.freed.fetch_add(1, Ordering::Relaxed);
        }
        anyhow::Ok(())
    });
    let busy = run(numbers().take_while(|_| !compaction.is_finished()), 1, one).await?;
    scrub.abort();
    compaction.await??;
    Ok(json!({
        "idle": percentiles(&idle),
        "busy": percentiles(&busy),
        "verified": counts.verified.load(Ordering::Relaxed),
        "segments_freed": counts.freed.load(Ordering::Relaxed),
    }))
}

/// What went on beside the reads.
#[derive(Default)]
struct Background {
    verified: AtomicU64,
    freed: AtomicU64,
}

/// Of this process, to a hundredth.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().context("fields")?.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse().unwrap_or(0_u64)).sum();
    Ok(ticks as f64 / 100.0)
}

fn memory(key: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).ok_or_else(|| anyhow!("no {key}"))?;
    let kib: u64 = line.split_whitespace().next().context("a number")?.parse()?;
    Ok(kib << 10)
}

/// What the process has had written, the index's files included.
fn process_written() -> anyhow::Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes:")).context("write_bytes")?;
    Ok(line.trim().parse()?)
}
