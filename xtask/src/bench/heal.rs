//! `cargo xtask bench heal`: a node is lost for good, and nobody does anything.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use super::{machine, random_file};
use crate::cluster::Cluster;
use crate::run;
use crate::tree::Tree;

/// Different contents: the others are links to these.
const CONTENTS: u64 = 16;
/// The cluster waits this long for a node that is silent, instead of the ten minutes that it should give one.
const OUT_AFTER_MS: u64 = 20_000;
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// For all of the healing.
const PATIENCE: Duration = Duration::from_hours(1);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// MiB of objects in the cluster.
    #[arg(long, default_value_t = 5120)]
    mebibytes: u64,
    /// KiB of each object.
    #[arg(long, default_value_t = 4096)]
    object_kibibytes: u64,
    /// The node that is lost, of nine with two disks each, in three racks.
    #[arg(long, default_value = "node-5")]
    node: String,
}

pub(super) fn run(arguments: &Arguments, dir: &Path) -> anyhow::Result<()> {
    let original = dir.join("objects");
    let files = (arguments.mebibytes << 10) / arguments.object_kibibytes.max(1);
    stage(&original, files, arguments.object_kibibytes)?;
    let tree = Tree::of(&original)?;
    println!("{}", machine());
    let bin = run::build()?;
    let home = dir.join("cluster");
    let shape = ["--racks", "3", "--nodes-per-rack", "3"];
    drop(Cluster::start_as(&bin, &home, &shape)?);
    be_impatient(&home)?;
    let cluster = Cluster::start_as(&bin, &home, &[])?;
    let target = "files/objects";
    let began = Instant::now();
    run::check(cluster.clusterctl().args(["object", "put", "--recursive"]).arg(&original).arg(target))?;
    println!(
        "put {files} objects, {} MB, in {:.1} s",
        tree.bytes() / 1_000_000,
        began.elapsed().as_secs_f64()
    );
    lose(&cluster, &arguments.node)?;
    let copy = dir.join("copy");
    run::check(cluster.clusterctl().args(["object", "get", "--recursive"]).arg(target).arg(&copy))?;
    tree.compare(&original, &copy)?;
    println!("every byte was read again and compared with its original");
    Ok(())
}

/// Kills the node, and follows what the others do.
#[allow(clippy::cast_precision_loss)]
fn lose(cluster: &Cluster, node: &str) -> anyhow::Result<()> {
    let lost = used_bytes(cluster, node)?;
    let (io, cpu) = (cluster.node_io(), cluster.cpu_seconds());
    cluster.dev(&["kill", node])?;
    let killed = Instant::now();
    let begun = wait(cluster, killed, |open| open["slots_rebuilding"] > 0)?;
    let healed = wait(cluster, killed, |open| open.values().sum::<u64>() == 0)?;
    let (read, written) = cluster.node_io().since(&io);
    let (lost_mb, took) = (lost as f64 / 1e6, (healed - begun).as_secs_f64());
    println!(
        "{node} is gone, with {lost_mb:.0} MB on its disks; given up after {:.1} s",
        begun.as_secs_f64()
    );
    println!("fully redundant again after another {took:.1} s: {:.0} MB/s made again", lost_mb / took);
    println!(
        "the other nodes read {:.2} and wrote {:.3} bytes from and to their disks for each byte lost, with {:.1} CPU-s/GB",
        read as f64 / lost as f64,
        written as f64 / lost as f64,
        (cluster.cpu_seconds() - cpu) / (lost as f64 / 1e9),
    );
    Ok(())
}

/// What is not redundant yet, by name.
type Open = std::collections::BTreeMap<&'static str, u64>;

/// Waits until what is not redundant is as wanted; the time since `killed`.
fn wait(cluster: &Cluster, killed: Instant, is_reached: impl Fn(&Open) -> bool) -> anyhow::Result<Duration> {
    loop {
        let status = cluster.status()?;
        let keys = ["slots_rebuilding", "slots_missing", "extents_incomplete", "groups_below_policy"];
        let open = keys.map(|key| (key, status["redundancy"][key].as_u64().unwrap_or(u64::MAX >> 8)));
        let mut open = Open::from(open);
        // Groups that withstand less than the best do.
        let tolerated = status["redundancy"]["groups_by_disks_tolerated"].as_array();
        let less = tolerated.and_then(|all| all.split_last()).map(|(_, less)| less).unwrap_or_default();
        open.insert("groups_exposed", less.iter().filter_map(serde_json::Value::as_u64).sum());
        if is_reached(&open) {
            return Ok(killed.elapsed());
        }
        if killed.elapsed() > PATIENCE {
            bail!("still not redundant after {} s: {open:?}", PATIENCE.as_secs());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Bytes on the node's disks, as they report.
fn used_bytes(cluster: &Cluster, node: &str) -> anyhow::Result<u64> {
    let output =
        cluster.clusterctl().args(["disk", "ls", "--json"]).output().context("cannot start clusterctl")?;
    let disks: Value =
        serde_json::from_slice(&output.stdout).context("clusterctl disk ls --json printed no JSON")?;
    let number = node.rsplit('-').next().and_then(|number| number.parse::<u64>().ok());
    let disks = disks.as_array().context("disk ls printed no list")?;
    let of_node = disks.iter().filter(|disk| disk["node"].as_u64() == number);
    let used: u64 = of_node.filter_map(|disk| disk["used_bytes"].as_u64()).sum();
    if used == 0 {
        bail!("there is nothing on the disks of {node}");
    }
    Ok(used)
}

fn stage(dir: &Path, files: u64, kibibytes: u64) -> anyhow::Result<()> {
    fs::create_dir_all(dir)?;
    for number in 0..files {
        let path = dir.join(format!("{number:06}"));
        if number < CONTENTS {
            random_file(&path, kibibytes << 10)?;
        } else {
            fs::hard_link(dir.join(format!("{:06}", number % CONTENTS)), path)?;
        }
    }
    Ok(())
}

/// Has the metadata servers give up silent nodes soon.
fn be_impatient(home: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(home)? {
        let path = entry?.path().join("meta.toml");
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let lines = text.lines().map(|line| match line.strip_prefix("out_after_ms = ") {
            Some(_) => format!("out_after_ms = {OUT_AFTER_MS}"),
            None => line.to_owned(),
        });
        fs::write(&path, lines.collect::<Vec<_>>().join("\n"))?;
    }
    Ok(())
}
