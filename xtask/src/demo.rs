//! `cargo xtask demo`: what Cadole promises, shown on this machine with real files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use comfy_table::{CellAlignment, Table};

use crate::cluster::Cluster;
use crate::tree::{self, Tree};
use crate::{packages, run};

/// How long the healing may take.
const HEAL_TIMEOUT: Duration = Duration::from_secs(300);
/// The rack that is lost.
const RACK: &str = "rack-2";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Directory tree to store; the Rust toolchain when not given.
    #[arg(long)]
    tree: Option<PathBuf>,
    /// Files to take from it, at least.
    #[arg(long, default_value_t = 1000)]
    files: usize,
    /// Megabytes to take from it, at least.
    #[arg(long, default_value_t = 300)]
    megabytes: u64,
    /// Keep the cluster's data afterwards.
    #[arg(long)]
    keep: bool,
}

/// Files on both sides of the cluster.
struct Place {
    original: PathBuf,
    copy: PathBuf,
    key: &'static str,
    tree: Tree,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    packages::ensure()?;
    let bin = run::build()?;
    let dir = std::path::absolute(".cadole/demo")?;
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    let (first, second) = stage(arguments, &dir)?;
    let cluster = Cluster::start(&bin, &dir.join("cluster"))?;
    let mut report = Report::default();
    show(&cluster, &first, &second, &mut report)?;
    drop(cluster);
    report.print();
    if !arguments.keep {
        fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

/// Takes the files to store: most for before the loss, some for while the rack is gone.
fn stage(arguments: &Arguments, dir: &Path) -> anyhow::Result<(Place, Place)> {
    let source = arguments.tree.clone().map_or_else(tree::toolchain, Ok)?;
    let all = Tree::of(&source)?.mix(arguments.files, arguments.megabytes * 1_000_000);
    let (some, most) = all.split(5);
    let place = |name: &'static str, tree: Tree| {
        let place = Place {
            original: dir.join("original").join(name),
            copy: dir.join("copy").join(name),
            key: name,
            tree,
        };
        place.tree.copy(&source, &place.original)?;
        anyhow::Ok(place)
    };
    println!("{} files, {} MB, from {}", all.files.len(), all.bytes() / 1_000_000, source.display());
    Ok((place("before", most)?, place("meanwhile", some)?))
}

fn show(cluster: &Cluster, first: &Place, second: &Place, report: &mut Report) -> anyhow::Result<()> {
    report.phase("store", first, || put(cluster, first))?;
    report.phase("read back", first, || get(cluster, first))?;

    cluster.dev(&["kill", RACK])?;
    println!("killed every process of {RACK}");
    report.phase("read, rack gone", first, || get(cluster, first))?;
    report.phase("store, rack gone", second, || put(cluster, second))?;
    report.phase("read those, rack gone", second, || get(cluster, second))?;

    cluster.dev(&["start", RACK])?;
    println!("started {RACK} again");
    report.healed = cluster.wait_whole(HEAL_TIMEOUT)?;
    report.phase("read all after healing (1)", first, || get(cluster, first))?;
    report.phase("read all after healing (2)", second, || get(cluster, second))
}

fn put(cluster: &Cluster, place: &Place) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let target = format!("files/{}", place.key);
    run::check(cluster.clusterctl().args(["object", "put", "--recursive"]).arg(&place.original).arg(target))?;
    Ok(start.elapsed())
}

/// Reads everything into an empty directory and compares; the time is that of the reading.
fn get(cluster: &Cluster, place: &Place) -> anyhow::Result<Duration> {
    if place.copy.exists() {
        fs::remove_dir_all(&place.copy)?;
    }
    let start = Instant::now();
    let source = format!("files/{}", place.key);
    run::check(cluster.clusterctl().args(["object", "get", "--recursive"]).arg(source).arg(&place.copy))?;
    let took = start.elapsed();
    place.tree.compare(&place.original, &place.copy)?;
    Ok(took)
}

/// What was done, for the table at the end.
#[derive(Default)]
struct Report {
    rows: Vec<(String, usize, u64, Duration)>,
    healed: Duration,
}

impl Report {
    fn phase(
        &mut self,
        name: &str,
        place: &Place,
        work: impl FnOnce() -> anyhow::Result<Duration>,
    ) -> anyhow::Result<()> {
        println!("{name}: {} files", place.tree.files.len());
        let took = work().with_context(|| format!("phase {name:?}"))?;
        self.rows.push((name.to_owned(), place.tree.files.len(), place.tree.bytes(), took));
        Ok(())
    }

    #[allow(clippy::cast_precision_loss)]
    fn print(&self) {
        let mut table = Table::new();
        table.load_preset(comfy_table::presets::UTF8_BORDERS_ONLY);
        table.set_header(["phase", "files", "bytes", "seconds", "MB/s", "lost"]);
        for (name, files, bytes, took) in &self.rows {
            let rate = *bytes as f64 / 1e6 / took.as_secs_f64();
            table.add_row([
                name.clone(),
                files.to_string(),
                bytes.to_string(),
                format!("{:.1}", took.as_secs_f64()),
                format!("{rate:.0}"),
                // A phase that lost anything ends the demo with an error.
                "nothing".to_owned(),
            ]);
        }
        for column in 1..5 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{table}");
        println!("healed in {:.1} s: every stripe is whole and in a legal place", self.healed.as_secs_f64());
        println!("every byte that was read was compared with its original: nothing was lost");
    }
}
