//! `cargo xtask bench`: measurements, with what they were made on.

mod heal;
mod store;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command as Process;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Subcommand;

use crate::cluster::{Cluster, cpu_seconds_of};
use crate::{packages, run};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Put and get one large object on a development cluster: MB/s, CPU seconds, client memory.
    Object {
        /// Size in MiB.
        #[arg(long, default_value_t = 1024)]
        mebibytes: u64,
    },
    /// A node of a development cluster is lost for good: how long until all is redundant again, and what it costs.
    Heal(heal::Arguments),
    /// One shard store beside fio, in the same directory in turn: bandwidth, rates, flushes, latency, starts.
    Store(store::Arguments),
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    packages::ensure()?;
    let dir = std::path::absolute(".cadole/bench")?;
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    match command {
        Command::Object { mebibytes } => {
            let bin = run::build()?;
            let cluster = Cluster::start(&bin, &dir.join("cluster"))?;
            object(&cluster, &dir, *mebibytes)?;
        }
        Command::Heal(arguments) => heal::run(arguments, &dir)?,
        Command::Store(arguments) => store::run(arguments, &dir)?,
    }
    fs::remove_dir_all(&dir)?;
    Ok(())
}

fn object(cluster: &Cluster, dir: &Path, mebibytes: u64) -> anyhow::Result<()> {
    let original = dir.join("object");
    random_file(&original, mebibytes << 20)?;
    println!("{}", machine());
    let put = |cluster: &Cluster| {
        cluster.clusterctl().args(["object", "put"]).arg(&original).arg("files/object").spawn()
    };
    measure(cluster, "put", mebibytes, put)?;
    let copy = dir.join("copy");
    let get =
        |cluster: &Cluster| cluster.clusterctl().args(["object", "get", "files/object"]).arg(&copy).spawn();
    measure(cluster, "get", mebibytes, get)?;
    run::check(Process::new("cmp").arg(&original).arg(&copy)).context("the object came back changed")
}

/// Runs a client process and prints its rate, the CPU seconds of client and servers, and its memory.
#[allow(clippy::cast_precision_loss)]
fn measure(
    cluster: &Cluster,
    name: &str,
    mebibytes: u64,
    start: impl FnOnce(&Cluster) -> std::io::Result<std::process::Child>,
) -> anyhow::Result<()> {
    let servers_before = cluster.cpu_seconds();
    let begun = Instant::now();
    let child = start(cluster).context("cannot start clusterctl")?;
    let usage = wait_with_usage(child)?;
    let took = begun.elapsed().as_secs_f64();
    let gigabytes = (mebibytes << 20) as f64 / 1e9;
    println!(
        "{name} {mebibytes} MiB: {:.0} MB/s; CPU-s/GB: client {:.2}, servers {:.2}; client memory at most {} MiB",
        gigabytes * 1000.0 / took,
        usage.cpu_seconds / gigabytes,
        (cluster.cpu_seconds() - servers_before) / gigabytes,
        usage.memory_kib_max / 1024,
    );
    Ok(())
}

struct Usage {
    cpu_seconds: f64,
    memory_kib_max: u64,
}

/// Samples /proc until the process ends: its CPU time and the peak of its resident memory.
fn wait_with_usage(mut child: std::process::Child) -> anyhow::Result<Usage> {
    let pid = child.id();
    let mut usage = Usage { cpu_seconds: 0.0, memory_kib_max: 0 };
    loop {
        usage.cpu_seconds = cpu_seconds_of(pid).unwrap_or_default().max(usage.cpu_seconds);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        usage.memory_kib_max = usage.memory_kib_max.max(peak);
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("clusterctl failed: {status}");
            }
            return Ok(usage);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn random_file(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut random = File::open("/dev/urandom")?.take(bytes);
    let mut file = File::create(path)?;
    std::io::copy(&mut random, &mut file)?;
    Ok(file.flush()?)
}

/// Processor, cores, memory and kernel, for the record.
fn machine() -> String {
    let of = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split(':').nth(1).unwrap_or("?").trim().to_owned()
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {} cores, {} of memory, Linux {}",
        of("/proc/cpuinfo", "model name"),
        std::thread::available_parallelism().map_or(1, usize::from),
        of("/proc/meminfo", "MemTotal"),
        kernel.trim()
    )
}
