//! `cargo xtask bench store`: one shard store beside fio, on the same file system, one after the other in each round.

// Sizes and counts become ratios for people.
#![allow(clippy::cast_precision_loss)]

mod figures;
mod programs;

use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::Duration;

use anyhow::{Context, bail};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::Value;

use self::figures::{Figures, Goal};
use self::programs::{Load, Programs, number};
use super::machine;
use crate::run;
use crate::sim::stop::Stop;

/// Bytes of a large shard, and of fio's large blocks.
const LARGE: u64 = 1 << 20;
/// In flight with large ones.
const DEPTH: u64 = 16;
const SMALL_WRITERS: u64 = 64;
const SMALL_SHARDS: u64 = 100_000;
/// The shortest shard, and what it takes of the disk.
const LEAST: u64 = 64;
const LEAST_RECORD: u64 = 8192;
/// Of the index for a shard, about, with what waits to be merged.
const INDEX_ROW: u64 = 200;
/// How long more shards are written before the store is killed, and how many these are at most, about.
const KILLED_AFTER: Duration = Duration::from_secs(2);
const KILLED_SHARDS: u64 = 120_000;
/// Bytes of the curve of overheads; shards are as long, or 64 bytes at least.
const CURVE: [u64; 13] =
    [1, 4, 16, 64, 256, 1 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 256 << 10, 1 << 20];
/// From here on the curve has a goal.
const CURVE_GOAL_FROM: u64 = 64 << 10;
/// The cache of all indexes, which its settings allow.
const INDEX_CACHE_MIB: f64 = 64.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Directory on the disk to measure; a place below the working directory unless given. What is made in it is
    /// removed.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// MiB that a round writes and reads.
    #[arg(long, default_value_t = 4096)]
    mebibytes: u64,
    /// Rounds, of which the medians count.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Small shards for the start after a crash and the rebuild of the index; 2000000 need 20 GB free.
    #[arg(long, default_value_t = 200_000)]
    shards: u64,
    /// A `bench-store` that was built before.
    #[arg(long)]
    program: Option<PathBuf>,
}

impl Arguments {
    /// Bytes that the largest of the parts takes, with the sixteenth that a store leaves free, its spare segments, and
    /// something to spare.
    fn bytes_max(&self) -> u64 {
        let rounds = (self.mebibytes << 20) + SMALL_SHARDS * LEAST_RECORD;
        let scale = self.shards.saturating_add(KILLED_SHARDS).saturating_mul(LEAST_RECORD + INDEX_ROW);
        let most = rounds.max(scale);
        most.saturating_add(most / 15).saturating_add(512 << 20)
    }
}

/// What was measured in one round.
#[derive(Clone, Copy, Debug)]
struct Pair {
    fio: f64,
    ours: f64,
    cpu_seconds_per_gb: f64,
    /// Of files, a batch; none of it for those who do not write.
    flushes: f64,
    /// And those of names, for new segments.
    all_flushes: f64,
}

/// The parts, and what they found.
struct Bench {
    programs: Programs,
    figures: Figures,
}

pub(crate) fn run(arguments: &Arguments, below: &Path) -> anyhow::Result<()> {
    if Process::new("fio").arg("--version").output().is_err() {
        bail!("fio is not installed: sudo apt-get install fio");
    }
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => run::build()?.join("bench-store"),
    };
    let dir = arguments.dir.as_deref().unwrap_or(below).join("store");
    // Ctrl-C and SIGTERM end it like an error: what it made is removed.
    let programs = Programs::new(program, dir, Stop::on_signals()?)?;
    check_room(programs.dir(), arguments.bytes_max())?;
    println!("{}", machine());
    let mut bench = Bench { programs, figures: Figures::default() };
    bench.all(arguments)?;
    bench.figures.print();
    Ok(())
}

fn check_room(dir: &Path, needed: u64) -> anyhow::Result<()> {
    let stat = rustix::fs::statvfs(dir)?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < needed {
        let gb = |bytes: u64| bytes as f64 / 1e9;
        bail!(
            "it needs {:.1} GB below {}, and {:.1} GB are free: name another --dir, or less --mebibytes or --shards",
            gb(needed),
            dir.display(),
            gb(free)
        );
    }
    Ok(())
}

impl Bench {
    fn all(&mut self, arguments: &Arguments) -> anyhow::Result<()> {
        let count = (arguments.mebibytes << 20) / LARGE;
        let mut rounds: [Vec<Pair>; 3] = Default::default();
        for _ in 0..arguments.rounds.max(1) {
            self.round(arguments.mebibytes, &mut rounds)?;
        }
        self.rounds(&rounds);
        self.curve()?;
        self.latency(count.min(1024))?;
        self.scale(arguments.shards)
    }

    fn round(&self, mebibytes: u64, rounds: &mut [Vec<Pair>; 3]) -> anyhow::Result<()> {
        let programs = &self.programs;
        programs.empty()?;
        let load = Load { shard_bytes: LARGE, shards: (mebibytes << 20) / LARGE, in_flight: DEPTH, first: 0 };
        let fio = programs.fio(&["--rw=write", "--end_fsync=1"], LARGE, DEPTH, mebibytes)?;
        let read = programs.fio(&["--rw=randread"], LARGE, DEPTH, mebibytes)?;
        programs.remove_fio()?;
        let ours = programs.ours("large", "write", load)?;
        rounds[0].push(Pair::bandwidth(&fio["write"], &ours, LARGE)?);
        let ours = programs.ours("large", "read", load)?;
        rounds[1].push(Pair::bandwidth(&read["read"], &ours, LARGE)?);
        // Over bytes that are there already, which is the harder case to be compared with.
        let sync = ["--rw=write", "--fdatasync=1", "--overwrite=1", "--runtime=5"];
        let sync = programs.fio(&sync, 4096, 1, 64)?;
        let load = Load { shard_bytes: 4096, shards: SMALL_SHARDS, in_flight: SMALL_WRITERS, first: 0 };
        let ours = programs.ours("small", "write", load)?;
        rounds[2].push(Pair::rate(&sync["write"], &ours)?);
        Ok(())
    }

    fn rounds(&mut self, rounds: &[Vec<Pair>; 3]) {
        let mut table =
            plain(&["", "fio", "store", "store / fio", "CPU-s/GB", "flushes / batch", "and of names"]);
        let names = [
            ("write 1 MiB x 16, durable, MB/s", 0.85),
            ("random read 1 MiB x 16, MB/s", 0.90),
            ("write 4 KiB x 64, durable, 1/s; fio: overwrite + fdatasync x 1", 5.0),
        ];
        for ((name, goal), pairs) in names.into_iter().zip(rounds) {
            let of = |value: fn(&Pair) -> f64| median(pairs.iter().map(value).collect());
            let (ratio, flushes) = (of(|pair| pair.ours / pair.fio), of(|pair| pair.flushes));
            let told =
                |flushes: f64| if flushes.is_finite() { format!("{flushes:.3}") } else { String::new() };
            table.add_row([
                name.to_owned(),
                format!("{:.0}", of(|pair| pair.fio)),
                format!("{:.0}", of(|pair| pair.ours)),
                format!("{ratio:.2}"),
                format!("{:.2}", of(|pair| pair.cpu_seconds_per_gb)),
                told(flushes),
                told(of(|pair| pair.all_flushes)),
            ]);
            self.figures.note(format!("store / fio: {name}"), ratio, Goal::AtLeast(goal));
            if flushes.is_finite() {
                self.figures.note(format!("flushes of files a batch: {name}"), flushes, Goal::AtMost(1.0));
            }
        }
        let cpu = median(rounds[0].iter().map(|pair| pair.cpu_seconds_per_gb).collect());
        self.figures.note("CPU-s/GB written, checksums included", cpu, Goal::AtMost(0.25));
        println!("{table}");
    }

    /// Bytes that the disk gets per byte that is stored.
    fn curve(&mut self) -> anyhow::Result<()> {
        let head = ["bytes", "shard", "record bytes / byte", "device bytes / byte", "with the index"];
        let mut table = plain(&head);
        let mut told = Value::Null;
        for bytes in CURVE {
            let shard_bytes = bytes.max(LEAST);
            let shards = ((64 << 20) / shard_bytes).clamp(64, 20_000);
            if told.is_null() || bytes > LEAST {
                self.programs.empty()?;
                let load = Load { shard_bytes, shards, in_flight: SMALL_WRITERS, first: 0 };
                told = self.programs.ours("curve", "write", load)?;
            }
            let of = |key| anyhow::Ok(number(&told, key)? / (bytes * shards) as f64);
            let device = of("device_bytes")?;
            table.add_row([
                bytes.to_string(),
                shard_bytes.to_string(),
                format!("{:.3}", of("used_bytes")?),
                format!("{device:.3}"),
                format!("{:.3}", of("process_written_bytes")?),
            ]);
            if bytes >= CURVE_GOAL_FROM {
                let name = format!("device bytes per byte of {} KiB", bytes >> 10);
                self.figures.note(name, device, Goal::AtMost(1.15));
            }
        }
        println!("{table}");
        Ok(())
    }

    /// 64 KiB reads, alone and while the store is verified and compacted.
    fn latency(&mut self, count: u64) -> anyhow::Result<()> {
        let programs = &self.programs;
        programs.empty()?;
        let load = Load { shard_bytes: LARGE, shards: count, in_flight: DEPTH, first: 0 };
        programs.ours("latency", "write", load)?;
        let told = programs.ours("latency", "latency", load)?;
        let of = |which: &str, key: &str| number(&told[which], key);
        let ratio = of("busy", "p99_us")? / of("idle", "p99_us")?;
        println!(
            "64 KiB reads: p50 {} us, p99 {} us alone; p50 {} us, p99 {} us ({ratio:.1} x) while {} shards were \
             verified and {} segments freed",
            of("idle", "p50_us")?,
            of("idle", "p99_us")?,
            of("busy", "p50_us")?,
            of("busy", "p99_us")?,
            told["verified"],
            told["segments_freed"],
        );
        let name = "p99 of a 64 KiB read while the store is verified and compacted / alone";
        self.figures.note(name, ratio, Goal::AtMost(2.0));
        Ok(())
    }

    /// A store of many shards: memory, start after a kill, rebuild of the index.
    fn scale(&mut self, shards: u64) -> anyhow::Result<()> {
        self.programs.empty()?;
        let load = Load { shard_bytes: LEAST, shards, in_flight: SMALL_WRITERS, first: 0 };
        let wrote = self.programs.ours("scale", "write", load)?;
        self.memory(format!("while {shards} shards were written"), &wrote)?;
        let more = Load { shards: 10_000_000, first: shards, ..load };
        self.programs.killed("scale", "write", more, KILLED_AFTER)?;
        let told = self.programs.open("scale")?;
        let seconds = number(&told, "open_seconds")?;
        println!("after kill -9: open in {seconds:.2} s with {} shards", told["shards"]);
        self.figures.note("seconds from kill -9 to an open store", seconds, Goal::AtMost(2.0));
        self.memory(format!("after a start with {} shards", told["shards"]), &told)?;
        self.rebuild()
    }

    fn memory(&mut self, when: String, told: &Value) -> anyhow::Result<()> {
        let mebibytes = number(told, "memory_peak_bytes")? / 1_048_576.0;
        let name = format!("MiB of memory at most, {when}; 64 and {INDEX_CACHE_MIB} of cache");
        self.figures.note(name, mebibytes, Goal::AtMost(64.0 + INDEX_CACHE_MIB));
        Ok(())
    }

    fn rebuild(&mut self) -> anyhow::Result<()> {
        let data = self.programs.dir().join("scale/data");
        std::fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
        let told = self.programs.open("scale")?;
        let (seconds, used) = (number(&told, "open_seconds")?, number(&told, "used_bytes")?);
        let read = self.programs.fio_segments("scale", LARGE, DEPTH)?;
        let ratio = used / seconds / number(&read["read"], "bw_bytes")?;
        println!(
            "index rebuilt from {} shards in {seconds:.1} s: {:.0} MB/s of log, {ratio:.2} of fio's sequential read",
            told["shards"],
            used / seconds / 1e6,
        );
        self.figures.note("index rebuilt / fio's sequential read of the log", ratio, Goal::AtLeast(0.8));
        Ok(())
    }
}

impl Pair {
    fn bandwidth(fio: &Value, ours: &Value, bytes: u64) -> anyhow::Result<Self> {
        let gigabytes = number(ours, "operations")? * bytes as f64 / 1e9;
        let (fio, rate) = (number(fio, "bw_bytes")? / 1e6, gigabytes * 1e3 / number(ours, "seconds")?);
        Self::new(fio, rate, gigabytes, ours)
    }

    fn rate(fio: &Value, ours: &Value) -> anyhow::Result<Self> {
        let operations = number(ours, "operations")?;
        let (fio, rate) = (number(fio, "iops")?, operations / number(ours, "seconds")?);
        Self::new(fio, rate, operations * 4096.0 / 1e9, ours)
    }

    fn new(fio: f64, rate: f64, gigabytes: f64, ours: &Value) -> anyhow::Result<Self> {
        let (flushes, writes) = (number(ours, "device_flushes")?, number(ours, "device_writes")?);
        Ok(Self {
            fio,
            ours: rate,
            cpu_seconds_per_gb: number(ours, "cpu_seconds")? / gigabytes,
            flushes: flushes / writes,
            all_flushes: (flushes + number(ours, "device_name_flushes")?) / writes,
        })
    }
}

fn plain(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(head);
    table
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
