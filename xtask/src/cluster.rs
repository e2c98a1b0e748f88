//! A development cluster that a developer command starts and stops.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::run;

/// A running cluster; stopped when dropped.
pub(crate) struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    supervisor: Child,
}

impl Cluster {
    /// Starts a new cluster in `dir` and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub(crate) fn start(bin: &Path, dir: &Path) -> anyhow::Result<Self> {
        Self::start_as(bin, dir, &[])
    }

    /// The same with more arguments of `cadoled dev`, for the shape of a new cluster; starts one again that is there.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub(crate) fn start_as(bin: &Path, dir: &Path, shape: &[&str]) -> anyhow::Result<Self> {
        let mut supervisor = Command::new(bin.join("cadoled"))
            .args(["dev", "--base-port", "0", "--dir"])
            .arg(dir)
            .args(shape)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start cadoled")?;
        let stdout = supervisor.stdout.take().context("cadoled has no output")?;
        let cluster = Self { bin: bin.to_owned(), dir: dir.to_owned(), supervisor };
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next() {
            if line?.starts_with("the cluster is ready") {
                // What else it says is for people who started it by hand.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(cluster);
            }
        }
        bail!("the cluster did not start")
    }

    /// A `clusterctl` command for this cluster.
    pub(crate) fn clusterctl(&self) -> Command {
        let mut command = Command::new(self.bin.join("clusterctl"));
        command.arg("--config").arg(self.dir.join("clusterctl.toml"));
        command
    }

    /// Runs `cadoled dev` with `arguments` on this cluster.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub(crate) fn dev(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(self.bin.join("cadoled"));
        run::check(command.arg("dev").arg("--dir").arg(&self.dir).args(arguments).stdout(Stdio::null()))
    }

    /// What `clusterctl status --json` says.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub(crate) fn status(&self) -> anyhow::Result<Value> {
        // Its exit status tells whether the cluster is whole; so does what it prints.
        let output =
            self.clusterctl().args(["status", "--json"]).output().context("cannot start clusterctl")?;
        serde_json::from_slice(&output.stdout).context("clusterctl status --json printed no JSON")
    }

    /// Waits until every stripe is whole, in a legal place, and every disk is up.
    ///
    /// # Errors
    ///
    /// When that takes longer than `timeout`.
    pub(crate) fn wait_whole(&self, timeout: Duration) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let bar = ProgressBar::new_spinner()
            .with_style(ProgressStyle::with_template("{spinner} healing: {msg} ({elapsed})")?);
        loop {
            let status = self.status()?;
            let open = |key: &str| status["redundancy"][key].as_u64().unwrap_or(u64::MAX);
            let (missing, rebuilding) = (open("slots_missing"), open("slots_rebuilding"));
            let (below, garbage) = (open("groups_below_policy"), open("garbage_extents"));
            if status["whole"].as_bool() == Some(true) && garbage == 0 {
                bar.finish_and_clear();
                return Ok(start.elapsed());
            }
            let left = format!(
                "{missing} missing, {rebuilding} slots rebuilding, {below} groups below policy, {garbage} extents to drop"
            );
            if start.elapsed() > timeout {
                bail!("not whole after {} s: {left}", timeout.as_secs());
            }
            bar.set_message(left);
            bar.tick();
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    /// User and system CPU time of all the cluster's daemons so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.daemons().into_iter().filter_map(|(_, pid)| cpu_seconds_of(pid)).sum()
    }

    /// What the storage nodes that run have read from and written to devices so far.
    pub(crate) fn node_io(&self) -> Io {
        let nodes = self.daemons().into_iter().filter(|(name, _)| name.starts_with("node-"));
        Io(nodes.filter_map(|(_, pid)| Some((pid, io_of(pid)?))).collect())
    }

    /// Names and processes.
    fn daemons(&self) -> Vec<(String, u32)> {
        let homes = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let daemon = |home: fs::DirEntry| {
            let text = fs::read_to_string(home.path().join("pid")).ok()?;
            let pid = text.split_whitespace().next()?.parse().ok()?;
            Some((home.file_name().to_string_lossy().into_owned(), pid))
        };
        homes.filter_map(daemon).collect()
    }
}

/// Bytes read and written of some processes.
pub(crate) struct Io(BTreeMap<u32, (u64, u64)>);

impl Io {
    /// Read and written since, by those that still run.
    pub(crate) fn since(&self, before: &Self) -> (u64, u64) {
        let since = |(pid, (read, written)): (&u32, &(u64, u64))| {
            let (read_before, written_before) = before.0.get(pid)?;
            Some((read.saturating_sub(*read_before), written.saturating_sub(*written_before)))
        };
        let all = self.0.iter().filter_map(since);
        all.fold((0, 0), |(reads, writes), (read, written)| (reads + read, writes + written))
    }
}

/// From `/proc/PID/io`, proc(5); none when the process does not run.
fn io_of(pid: u32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let of = |key: &str| text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok();
    Some((of("read_bytes:")?, of("write_bytes:")?))
}

/// User and system CPU time of a process so far; none when it does not run. From `/proc/PID/stat`,
/// proc(5): fields 14 and 15, in ticks of 1/100 s on Linux.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn cpu_seconds_of(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks as f64 / 100.0)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = i32::try_from(self.supervisor.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.supervisor.wait();
    }
}
