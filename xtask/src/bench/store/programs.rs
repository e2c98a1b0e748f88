//! The programs that are measured: `bench-store` and fio, one at a time, in one directory.

use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::sim::stop::Stop;

/// Files of which fio reads at once, at most.
const FIO_FILES_MAX: usize = 64;

/// What `bench-store` is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) shard_bytes: u64,
    pub(super) shards: u64,
    pub(super) in_flight: u64,
    /// The number of the first one.
    pub(super) first: u64,
}

/// Runs programs in a directory, which is removed when this is dropped.
pub(super) struct Programs {
    program: PathBuf,
    dir: PathBuf,
    stop: Stop,
}

impl Drop for Programs {
    fn drop(&mut self) {
        // What cannot be removed is removed by the next run.
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

impl Programs {
    /// `program` is a `bench-store`; whatever is in `dir` is removed.
    pub(super) fn new(program: PathBuf, dir: PathBuf, stop: Stop) -> anyhow::Result<Self> {
        let programs = Self { program, dir, stop };
        programs.empty()?;
        Ok(programs)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Removes all files.
    pub(super) fn empty(&self) -> anyhow::Result<()> {
        if self.dir.exists() {
            std::fs::remove_dir_all(&self.dir)?;
        }
        Ok(std::fs::create_dir_all(&self.dir)?)
    }

    /// What `bench-store` says of its work on the store of this name.
    pub(super) fn ours(&self, store: &str, work: &str, load: Load) -> anyhow::Result<Value> {
        self.answer(&mut self.command(store, work, load))
    }

    /// Opens a store.
    pub(super) fn open(&self, store: &str) -> anyhow::Result<Value> {
        self.answer(Process::new(&self.program).arg(self.dir.join(store)).arg("open"))
    }

    /// Begins work, and kills it (`SIGKILL`) in the middle.
    pub(super) fn killed(&self, store: &str, work: &str, load: Load, after: Duration) -> anyhow::Result<()> {
        let mut command = self.command(store, work, load);
        let mut running = Running(command.stdout(Stdio::null()).spawn().context("cannot start bench-store")?);
        let began = Instant::now();
        while began.elapsed() < after && !self.stop.is_asked() {
            if let Some(status) = running.0.try_wait()? {
                bail!("{command:?} ended by itself: {status}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What fio did with a file of its own, of its only job.
    pub(super) fn fio(
        &self,
        options: &[&str],
        block: u64,
        depth: u64,
        mebibytes: u64,
    ) -> anyhow::Result<Value> {
        let mut command = fio(block, depth, mebibytes << 20);
        command.arg(format!("--filename={}", self.dir.join("fio").display())).args(options);
        self.job(&mut command)
    }

    /// Reads the first segments of a store's disk from front to back.
    pub(super) fn fio_segments(&self, store: &str, block: u64, depth: u64) -> anyhow::Result<Value> {
        let disk = self.dir.join(store).join("disk");
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&disk)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("seg-") {
                files.push((name, entry.metadata()?.len()));
            }
        }
        files.sort();
        // The last one is not full.
        files.truncate(files.len().saturating_sub(1).clamp(1, FIO_FILES_MAX));
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        let mut command = fio(block, depth, files.iter().map(|(_, bytes)| bytes).sum());
        command.current_dir(&disk).arg(format!("--filename={}", names.join(":")));
        self.job(command.args(["--rw=read", "--readonly", "--file_service_type=sequential"]))
    }

    /// Removes fio's own file.
    pub(super) fn remove_fio(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.dir.join("fio"))?)
    }

    fn command(&self, store: &str, work: &str, load: Load) -> Process {
        let Load { shard_bytes, shards, in_flight, first } = load;
        let mut command = Process::new(&self.program);
        command.arg(self.dir.join(store)).arg(work);
        for (option, value) in
            [("shard-bytes", shard_bytes), ("shards", shards), ("in-flight", in_flight), ("first", first)]
        {
            command.arg(format!("--{option}")).arg(value.to_string());
        }
        command
    }

    fn job(&self, command: &mut Process) -> anyhow::Result<Value> {
        let mut told = self.answer(command)?;
        Ok(told["jobs"][0].take())
    }

    /// The JSON that a program prints.
    fn answer(&self, command: &mut Process) -> anyhow::Result<Value> {
        if self.stop.is_asked() {
            bail!("interrupted");
        }
        let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
        if !output.status.success() {
            bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?} printed no JSON"))
    }
}

/// A process that does not outlive this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn fio(block: u64, depth: u64, bytes: u64) -> Process {
    let mut command = Process::new("fio");
    command.args(["--name=bench", "--direct=1", "--ioengine=io_uring", "--output-format=json"]).args([
        format!("--bs={block}"),
        format!("--iodepth={depth}"),
        format!("--size={bytes}"),
    ]);
    command
}

/// A number of an answer.
pub(super) fn number(value: &Value, key: &str) -> anyhow::Result<f64> {
    value[key].as_f64().with_context(|| format!("no {key} in {value}"))
}
