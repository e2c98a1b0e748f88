//! `cargo xtask bench store`: one shard store beside fio, on the same file system, one after the other in each round.

// Sizes and counts become ratios for people.
#![allow(clippy::cast_precision_loss)]

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use anyhow::{Context, bail};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::Value;

use super::machine;
use crate::run;

/// Bytes of a large shard, and of fio's large blocks.
const LARGE: u64 = 1 << 20;
/// In flight with large ones.
const DEPTH: u64 = 16;
const SMALL_WRITERS: u64 = 64;
const SMALL_SHARDS: u64 = 100_000;
/// Shard lengths of the curve of overheads. An object of one byte has shards of 64.
const CURVE: [u64; 9] = [64, 512, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 256 << 10, 1 << 20];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Directory on the disk to measure; a place below the working directory unless given.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// MiB that a round writes and reads.
    #[arg(long, default_value_t = 4096)]
    mebibytes: u64,
    /// Rounds, of which the medians count.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Small shards for the start after a crash and the rebuild of the index; 2000000 need 17 GB.
    #[arg(long, default_value_t = 200_000)]
    shards: u64,
    /// A `bench-store` that was built before.
    #[arg(long)]
    program: Option<PathBuf>,
}

/// What was measured in one round.
#[derive(Clone, Copy, Debug)]
struct Pair {
    fio: f64,
    ours: f64,
    cpu_seconds_per_gb: f64,
}

/// What runs the parts.
struct Bench<'a> {
    program: PathBuf,
    dir: &'a Path,
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
    std::fs::create_dir_all(&dir)?;
    let bench = Bench { program, dir: &dir };
    println!("{}", machine());
    let done = bench.all(arguments);
    std::fs::remove_dir_all(&dir)?;
    done
}

impl Bench<'_> {
    fn all(&self, arguments: &Arguments) -> anyhow::Result<()> {
        let count = (arguments.mebibytes << 20) / LARGE;
        let mut rounds: [Vec<Pair>; 3] = Default::default();
        for _ in 0..arguments.rounds.max(1) {
            self.empty()?;
            let fio = self.fio(&["--rw=write", "--end_fsync=1"], LARGE, DEPTH, arguments.mebibytes)?;
            let read = self.fio(&["--rw=randread"], LARGE, DEPTH, arguments.mebibytes)?;
            std::fs::remove_file(self.dir.join("fio"))?;
            let wrote = self.ours("large", "write", LARGE, count, DEPTH)?;
            rounds[0].push(Pair::bandwidth(&fio["write"], &wrote, LARGE)?);
            let ours = self.ours("large", "read", LARGE, count, DEPTH)?;
            rounds[1].push(Pair::bandwidth(&read["read"], &ours, LARGE)?);
            // Over bytes that are there already, which is the harder case to be compared with.
            let sync =
                self.fio(&["--rw=write", "--fdatasync=1", "--overwrite=1", "--runtime=5"], 4096, 1, 64)?;
            let ours = self.ours("small", "write", 4096, SMALL_SHARDS, SMALL_WRITERS)?;
            rounds[2].push(Pair::rate(&sync["write"], &ours)?);
            println!(
                "a flush of the device for {:.2} batches of 1 MiB shards, {:.2} of 4 KiB shards",
                number(&wrote, "device_writes")? / number(&wrote, "device_flushes")?,
                number(&ours, "device_writes")? / number(&ours, "device_flushes")?,
            );
        }
        table(&rounds);
        self.curve()?;
        self.latency(count.min(1024))?;
        self.scale(arguments.shards)
    }

    /// Bytes that the disk gets per byte that is stored, by the length of shards.
    fn curve(&self) -> anyhow::Result<()> {
        let mut table = plain(&["shard", "record bytes / byte", "device bytes / byte", "with the index"]);
        for bytes in CURVE {
            self.empty()?;
            let count = ((64 << 20) / bytes).clamp(64, 20_000);
            let told = self.ours("curve", "write", bytes, count, SMALL_WRITERS)?;
            let stored = (bytes * count) as f64;
            table.add_row([
                bytes.to_string(),
                format!("{:.3}", number(&told, "used_bytes")? / stored),
                format!("{:.3}", number(&told, "device_bytes")? / stored),
                format!("{:.3}", number(&told, "process_written_bytes")? / stored),
            ]);
        }
        println!("{table}");
        Ok(())
    }

    /// 64 KiB reads, alone and while the store is verified and compacted.
    fn latency(&self, count: u64) -> anyhow::Result<()> {
        self.empty()?;
        self.ours("latency", "write", LARGE, count, DEPTH)?;
        // A third of it is dead, so that there is something to compact.
        self.ours("latency", "delete", LARGE, count / 3, DEPTH)?;
        let told = self.work("latency", "latency", LARGE, count - count / 3, 1, count / 3)?;
        let of = |which: &str, key: &str| number(&told[which], key);
        println!(
            "64 KiB reads: p50 {} us, p99 {} us alone; p50 {} us, p99 {} us ({:.1} x) while {} shards were \
             verified and {} segments freed",
            of("idle", "p50_us")?,
            of("idle", "p99_us")?,
            of("busy", "p50_us")?,
            of("busy", "p99_us")?,
            of("busy", "p99_us")? / of("idle", "p99_us")?,
            told["verified"],
            told["segments_freed"],
        );
        Ok(())
    }

    /// A store of many shards: memory, start after a kill, rebuild of the index.
    fn scale(&self, shards: u64) -> anyhow::Result<()> {
        self.empty()?;
        let wrote = self.ours("scale", "write", 64, shards, SMALL_WRITERS)?;
        println!(
            "{shards} shards: {:.0} MiB of memory at most while they were written",
            number(&wrote, "memory_peak_bytes")? / 1_048_576.0
        );
        // Killed in the middle of writing more.
        let mut child = self
            .command("scale", "write", 64, 10_000_000, SMALL_WRITERS, shards)
            .stdout(std::process::Stdio::null())
            .spawn()?;
        std::thread::sleep(std::time::Duration::from_secs(3));
        child.kill()?;
        child.wait()?;
        let told = answer(Process::new(&self.program).arg(self.dir.join("scale")).arg("open"))?;
        println!(
            "after kill -9: open in {:.2} s with {} shards, {:.0} MiB of memory",
            number(&told, "open_seconds")?,
            told["shards"],
            number(&told, "memory_peak_bytes")? / 1_048_576.0
        );
        std::fs::remove_dir_all(self.dir.join("scale/data"))?;
        let told = answer(Process::new(&self.program).arg(self.dir.join("scale")).arg("open"))?;
        let (seconds, used) = (number(&told, "open_seconds")?, number(&told, "used_bytes")?);
        let read = self.fio(&["--rw=read"], LARGE, DEPTH, 1024)?;
        let fio = number(&read["read"], "bw_bytes")?;
        println!(
            "index rebuilt from {} shards in {seconds:.1} s: {:.0} MB/s of log, {:.2} of fio's sequential read",
            told["shards"],
            used / seconds / 1e6,
            used / seconds / fio,
        );
        Ok(())
    }

    fn empty(&self) -> anyhow::Result<()> {
        if self.dir.exists() {
            std::fs::remove_dir_all(self.dir)?;
        }
        Ok(std::fs::create_dir_all(self.dir)?)
    }

    fn ours(&self, name: &str, work: &str, bytes: u64, shards: u64, in_flight: u64) -> anyhow::Result<Value> {
        self.work(name, work, bytes, shards, in_flight, 0)
    }

    fn work(
        &self,
        name: &str,
        work: &str,
        bytes: u64,
        shards: u64,
        in_flight: u64,
        first: u64,
    ) -> anyhow::Result<Value> {
        answer(&mut self.command(name, work, bytes, shards, in_flight, first))
    }

    fn command(
        &self,
        name: &str,
        work: &str,
        bytes: u64,
        shards: u64,
        in_flight: u64,
        first: u64,
    ) -> Process {
        let mut command = Process::new(&self.program);
        command.arg(self.dir.join(name)).arg(work);
        for (option, value) in
            [("shard-bytes", bytes), ("shards", shards), ("in-flight", in_flight), ("first", first)]
        {
            command.arg(format!("--{option}")).arg(value.to_string());
        }
        command
    }

    /// What fio did, of its only job.
    fn fio(&self, options: &[&str], block: u64, depth: u64, mebibytes: u64) -> anyhow::Result<Value> {
        let mut command = Process::new("fio");
        command
            .args(["--name=bench", "--direct=1", "--ioengine=io_uring", "--output-format=json"])
            .arg(format!("--filename={}", self.dir.join("fio").display()))
            .args([format!("--bs={block}"), format!("--iodepth={depth}"), format!("--size={mebibytes}M")])
            .args(options);
        let mut told = answer(&mut command)?;
        Ok(told["jobs"][0].take())
    }
}

impl Pair {
    fn bandwidth(fio: &Value, ours: &Value, bytes: u64) -> anyhow::Result<Self> {
        let gigabytes = number(ours, "operations")? * bytes as f64 / 1e9;
        Ok(Self {
            fio: number(fio, "bw_bytes")? / 1e6,
            ours: gigabytes * 1e3 / number(ours, "seconds")?,
            cpu_seconds_per_gb: number(ours, "cpu_seconds")? / gigabytes,
        })
    }

    fn rate(fio: &Value, ours: &Value) -> anyhow::Result<Self> {
        let operations = number(ours, "operations")?;
        Ok(Self {
            fio: number(fio, "iops")?,
            ours: operations / number(ours, "seconds")?,
            cpu_seconds_per_gb: number(ours, "cpu_seconds")? / (operations * 4096.0 / 1e9),
        })
    }
}

fn table(rounds: &[Vec<Pair>; 3]) {
    let mut table = plain(&["", "fio", "store", "store / fio", "goal", "CPU-s/GB"]);
    let names = [
        ("write 1 MiB x 16, durable, MB/s", "0.85"),
        ("random read 1 MiB x 16, MB/s", "0.90"),
        ("write 4 KiB x 64, durable, 1/s; fio: write + fdatasync x 1", "5"),
    ];
    for ((name, goal), pairs) in names.into_iter().zip(rounds) {
        let of = |value: fn(&Pair) -> f64| median(pairs.iter().map(value).collect());
        table.add_row([
            name.to_owned(),
            format!("{:.0}", of(|pair| pair.fio)),
            format!("{:.0}", of(|pair| pair.ours)),
            format!("{:.2}", of(|pair| pair.ours / pair.fio)),
            goal.to_owned(),
            format!("{:.2}", of(|pair| pair.cpu_seconds_per_gb)),
        ]);
    }
    println!("{table}");
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

fn number(value: &Value, key: &str) -> anyhow::Result<f64> {
    value[key].as_f64().with_context(|| format!("no {key} in {value}"))
}

/// The JSON that a program prints.
fn answer(command: &mut Process) -> anyhow::Result<Value> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?} printed no JSON"))
}
