//! `cadoled dev`: a cluster of separate processes on loopback, for development and tests.

mod found;
mod layout;
mod process;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use rustix::fs::{FlockOperation, flock};

pub use found::{connect, found};
pub use layout::{Layout, MetaServer, Shape, StorageNode};
pub use process::Daemon;

/// The tenant that a new development cluster has.
pub const TENANT: &str = "demo";
/// Its bucket.
pub const BUCKET: &str = "files";
/// Its profile.
pub const PROFILE: &str = "rs-4-2";

/// A development cluster, and what to do with it.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where its files are.
    #[arg(long, default_value = ".cadole/dev", global = true)]
    dir: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    shape: ShapeArguments,
}

#[derive(Debug, Args)]
struct ShapeArguments {
    /// Metadata servers of a new cluster.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    metas: u32,
    /// Racks of a new cluster.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    racks: u32,
    /// Storage nodes in each rack of a new cluster.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=20))]
    nodes_per_rack: u32,
    /// Disks of each node of a new cluster.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=20))]
    disks: u32,
    /// First port of a new cluster; 0 takes any free ones.
    #[arg(long, default_value_t = 7101)]
    base_port: u16,
    /// What the daemons of a new cluster log.
    #[arg(long, default_value = crate::config::DEFAULT_LOG)]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the cluster and keep it until Ctrl-C (this is what `cadoled dev` does by itself).
    Up,
    /// Kill daemons as a power cut would: meta-1, node-3, rack-2, metas, nodes, all.
    Kill {
        /// Which ones.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Start daemons that do not run.
    Start {
        /// Which ones.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Say which daemons run.
    Ps,
}

/// Carries out the command; what it returns is printed.
///
/// # Errors
///
/// When the cluster cannot be started, or there is none.
pub fn run(arguments: &Arguments) -> anyhow::Result<String> {
    let dir = std::path::absolute(&arguments.dir)?;
    match &arguments.command {
        None | Some(Command::Up) => up(&dir, &arguments.shape.shape()),
        Some(Command::Kill { names }) => {
            let daemons = select(&dir, names)?;
            daemons.iter().try_for_each(Daemon::kill)?;
            Ok(listed("killed", &daemons))
        }
        Some(Command::Start { names }) => {
            let daemons = select(&dir, names)?;
            let program = std::env::current_exe()?;
            for daemon in &daemons {
                daemon.start(&program)?;
            }
            Ok(listed("started", &daemons))
        }
        Some(Command::Ps) => {
            let line = |daemon: &Daemon| match daemon.pid() {
                Some(pid) => format!("{:<8} runs as process {pid}", daemon.name()),
                None => format!("{:<8} does not run", daemon.name()),
            };
            Ok(select(&dir, &["all".to_owned()])?.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
    }
}

impl ShapeArguments {
    fn shape(&self) -> Shape {
        Shape {
            metas: self.metas,
            racks: self.racks,
            nodes_per_rack: self.nodes_per_rack,
            disks: self.disks,
            base_port: self.base_port,
            log: self.log.clone(),
            suspect_after_ms: 3_000,
            down_after_ms: 15_000,
            snapshot_every_entries: 20_000,
        }
    }
}

fn select(dir: &Path, names: &[String]) -> anyhow::Result<Vec<Daemon>> {
    let layout = Layout::open(dir)?;
    let mut daemons = Vec::new();
    for name in names {
        daemons.extend(layout.select(name)?.iter().map(|name| Daemon::new(dir, name)));
    }
    Ok(daemons)
}

fn listed(what: &str, daemons: &[Daemon]) -> String {
    format!("{what}: {}", daemons.iter().map(Daemon::name).collect::<Vec<_>>().join(" "))
}

fn up(dir: &Path, shape: &Shape) -> anyhow::Result<String> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let lock = File::options().create(true).truncate(false).write(true).open(dir.join("lock"))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!(
            "another `cadoled dev` keeps the cluster in {}: stop it first, or choose another --dir",
            dir.display()
        );
    }
    let layout = Layout::open_or_make(dir, shape)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(supervise(dir, &layout))?;
    drop(lock);
    Ok(String::new())
}

async fn supervise(dir: &Path, layout: &Layout) -> anyhow::Result<()> {
    let mut family = Family::start(dir, layout)?;
    let outcome = tokio::select! {
        biased;
        () = stop_signal() => Ok(()),
        outcome = family.keep(dir, layout) => outcome,
    };
    eprintln!("stopping the cluster; its data stays under {}", dir.display());
    drop(family);
    outcome
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupt = signal(SignalKind::interrupt());
    let terminate = signal(SignalKind::terminate());
    match (interrupt, terminate) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                biased;
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}

/// The daemons of a cluster under one supervisor; stopped when dropped.
struct Family {
    daemons: Vec<Daemon>,
    children: Vec<(String, Child)>,
}

impl Family {
    fn start(dir: &Path, layout: &Layout) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot tell where cadoled is")?;
        let names = layout.select("all")?;
        let mut family =
            Self { daemons: names.iter().map(|name| Daemon::new(dir, name)).collect(), children: Vec::new() };
        for daemon in &family.daemons {
            if let Some(child) = daemon.start(&program)? {
                family.children.push((daemon.name().to_owned(), child));
            }
        }
        Ok(family)
    }

    /// Founds the cluster if that is still to do, says how to use it, and tells of daemons that end.
    async fn keep(&mut self, dir: &Path, layout: &Layout) -> anyhow::Result<()> {
        {
            let founding = found::found(dir, layout);
            tokio::pin!(founding);
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut founding => break outcome?,
                    () = tokio::time::sleep(Duration::from_millis(500)) => self.fail_when_one_ended(dir)?,
                }
            }
        }
        // Who started us may not read on.
        let _ = writeln!(std::io::stdout(), "{}", commands(dir));
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            for name in self.ended() {
                eprintln!(
                    "{name} has ended; its log: {}; start it again: cadoled dev --dir {} start {name}",
                    Daemon::new(dir, &name).log().display(),
                    dir.display()
                );
            }
        }
    }

    fn fail_when_one_ended(&mut self, dir: &Path) -> anyhow::Result<()> {
        match self.ended().first() {
            None => Ok(()),
            Some(name) => {
                let log = Daemon::new(dir, name).log();
                let text = fs::read_to_string(&log).unwrap_or_default();
                let last = text.lines().last().unwrap_or("(its log is empty)");
                bail!("{name} ended while the cluster was starting: {last}\nits log: {}", log.display())
            }
        }
    }

    fn ended(&mut self) -> Vec<String> {
        let ended = |child: &mut Child| matches!(child.try_wait(), Ok(Some(_)));
        self.children.extract_if(.., |(_, child)| ended(child)).map(|(name, _)| name).collect()
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        use rustix::process::Signal;
        // Storage nodes first, while somebody still listens to them; then all metadata servers.
        let (metas, nodes): (Vec<_>, Vec<_>) =
            self.daemons.iter().partition(|daemon| daemon.name().starts_with("meta-"));
        for group in [nodes, metas] {
            group.iter().for_each(|daemon| daemon.signal(Signal::TERM));
            for daemon in group {
                if let Err(error) = daemon.stop() {
                    eprintln!("{error:#}");
                }
            }
        }
        self.ended();
    }
}

fn commands(dir: &Path) -> String {
    let config = Layout::clusterctl_config(dir);
    let ctl = std::env::current_exe()
        .ok()
        .and_then(|cadoled| cadoled.parent().map(|bin| bin.join("clusterctl")))
        .filter(|ctl| ctl.exists())
        .map_or_else(|| "clusterctl".to_owned(), |ctl| ctl.display().to_string());
    let dir = dir.display();
    format!(
        "the cluster is ready; its data is under {dir}\n\n\
         try, in another terminal:\n\
         \x20 export CADOLE_CONFIG={config}\n\
         \x20 {ctl} status\n\
         \x20 {ctl} object put README.md {BUCKET}/README.md\n\
         \x20 {ctl} object explain {BUCKET}/README.md\n\
         \x20 cadoled dev --dir {dir} kill rack-2\n\
         \x20 {ctl} object get {BUCKET}/README.md -\n\
         \x20 cadoled dev --dir {dir} start rack-2\n\n\
         Ctrl-C stops it.",
        config = config.display(),
    )
}
