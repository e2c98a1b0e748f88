//! One daemon, from its configuration to its end.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use os::{CredentialPaths, Credentials, Host, HostOptions};
use proto::Identity;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

use crate::config::{self, Config, LogFormat};

/// How long a clean stop may take before the process ends anyway.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a daemon ended; each has its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Stopped,
    /// The machine lets it not go on: a store failed.
    Failed,
}

/// Runs a metadata server until a signal or a failure ends it.
///
/// # Errors
///
/// When it cannot start.
pub fn run_meta(file: &Path) -> anyhow::Result<End> {
    let config = Config::read(file)?;
    let Some(meta) = config.meta.clone() else {
        bail!("{} has no [meta]: start it with `cadoled node`", file.display());
    };
    let credentials = credentials(&config.tls)?;
    if *credentials.identity() != Identity::Meta(meta.id) {
        bail!(
            "{}: the certificate is of {}, but meta.id is {}",
            file.display(),
            credentials.identity(),
            meta.id
        );
    }
    init_log(&config.log)?;
    runtime()?.block_on(async {
        fs::create_dir_all(&meta.data).with_context(|| format!("cannot make {}", meta.data.display()))?;
        let host = Host::start(HostOptions::new(credentials).kv_directory(&meta.data))?;
        let mut options = meta::Options::new(meta.id, meta.listen.clone());
        options.advertise.clone_from(&meta.advertise);
        options.detection.suspect_after = meta.suspect_after();
        options.detection.down_after = meta.down_after();
        options.detection.out_after = meta.out_after();
        options.detection.out_share_max_percent = meta.out_share_max_percent;
        options.throttle = meta::Throttle {
            repair_bytes_per_s: meta.repair_bytes_per_s,
            move_bytes_per_s: meta.move_bytes_per_s,
        };
        options.fullness = meta::Fullness {
            near_full_percent: meta.near_full_percent,
            backfill_full_percent: meta.backfill_full_percent,
            full_percent: meta.full_percent,
        };
        options.raft.snapshot_every_entries = meta.snapshot_every_entries;
        let server = meta::Server::start(host, options).await?;
        info!(id = %meta.id, address = server.address(), "metadata server started");
        let mut signals = Signals::new()?;
        let end = tokio::select! {
            biased;
            () = signals.stop() => End::Stopped,
            reason = server.stopped() => {
                error!(?reason, "metadata server cannot go on; see the reason, mend the machine, start it again");
                End::Failed
            }
        };
        if end == End::Stopped && tokio::time::timeout(STOP_TIMEOUT, server.stop()).await.is_err() {
            error!("the stop took too long; the process ends now, which loses nothing that was acknowledged");
        }
        Ok(end)
    })
}

/// Runs a storage node until a signal ends it.
///
/// # Errors
///
/// When it cannot start.
pub fn run_node(file: &Path) -> anyhow::Result<End> {
    let config = Config::read(file)?;
    let Some(node) = config.node.clone() else {
        bail!("{} has no [node]: start it with `cadoled meta`", file.display());
    };
    let credentials = credentials(&config.tls)?;
    if *credentials.identity() != Identity::Node(node.id) {
        bail!(
            "{}: the certificate is of {}, but node.id is {}",
            file.display(),
            credentials.identity(),
            node.id
        );
    }
    init_log(&config.log)?;
    runtime()?.block_on(async {
        let options =
            HostOptions::new(credentials).disk_engine(node.disk_engine.into()).kv_directory(&node.data);
        let host = Host::start(options)?;
        let server = node::Server::start(host, node_options(&node)).await?;
        info!(id = %node.id, address = server.address(), "storage node started");
        Signals::new()?.stop().await;
        if tokio::time::timeout(STOP_TIMEOUT, server.stop()).await.is_err() {
            error!("the stop took too long; the process ends now, which loses nothing that was acknowledged");
        }
        Ok(End::Stopped)
    })
}

fn node_options(node: &config::Node) -> node::Options {
    let disks = node
        .disks
        .iter()
        .map(|disk| node::DiskOptions {
            name: disk.name.clone(),
            path: disk.path.to_string_lossy().into_owned(),
            capacity: disk.capacity,
        })
        .collect();
    let mut options = node::Options::new(
        node.id,
        node.site.clone(),
        node.rack.clone(),
        node.listen.clone(),
        node.metas.clone(),
        disks,
    );
    options.advertise.clone_from(&node.advertise);
    options.audit_period = node.audit_period();
    options.orphan_period = node.orphan_period();
    options
}

/// Checks a configuration as far as that goes without starting: keys, values, certificates.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn check(file: &Path) -> anyhow::Result<String> {
    let config = Config::read(file)?;
    let credentials = credentials(&config.tls)?;
    let (expected, what) = match (&config.meta, &config.node) {
        (Some(meta), _) => (Identity::Meta(meta.id), "a metadata server"),
        (_, Some(node)) => (Identity::Node(node.id), "a storage node"),
        (None, None) => bail!("{}: neither [meta] nor [node]", file.display()),
    };
    if *credentials.identity() != expected {
        bail!("{}: the certificate is of {}, expected {expected}", file.display(), credentials.identity());
    }
    for disk in config.node.iter().flat_map(|node| &node.disks) {
        if !disk.path.is_dir() {
            bail!(
                "disk {}: {} is not a directory: mount the disk, or correct its path",
                disk.name,
                disk.path.display()
            );
        }
    }
    Ok(format!("{}: good for {what}, {expected}", file.display()))
}

fn credentials(tls: &config::Tls) -> anyhow::Result<Credentials> {
    let paths =
        CredentialPaths { ca: tls.ca.clone(), certificate: tls.certificate.clone(), key: tls.key.clone() };
    Ok(Credentials::load(&paths)?)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}

fn init_log(log: &config::Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level)
        .with_context(|| format!("log.level {:?} is no filter: write for example \"info\"", log.level))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let of = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { interrupt: of(SignalKind::interrupt())?, terminate: of(SignalKind::terminate())? })
    }

    async fn stop(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        info!("told to stop");
    }
}
