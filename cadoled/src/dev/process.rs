//! The processes of a development cluster, known by their pid files.
//!
//! A pid file holds the process id and the time at which that process started, so that a number
//! that was given to another process meanwhile is never signalled.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a daemon may take for a clean stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// One daemon of the cluster.
#[derive(Clone, Debug)]
pub struct Daemon {
    home: PathBuf,
    name: String,
}

impl Daemon {
    /// The daemon `name` of the cluster in `dir`.
    pub fn new(dir: &Path, name: &str) -> Self {
        Self { home: dir.join(name), name: name.to_owned() }
    }

    /// `meta-1`, `node-3`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    /// Its process id, if it runs.
    pub fn pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.home.join("pid")).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let pid = pid.parse().ok()?;
        (started_at(pid)? == started).then_some(pid)
    }

    /// Starts it, unless it runs. Its log is appended to.
    ///
    /// # Errors
    ///
    /// When the process cannot be started.
    pub fn start(&self, program: &Path) -> anyhow::Result<Option<Child>> {
        if self.pid().is_some() {
            return Ok(None);
        }
        let role = self.name.split('-').next().unwrap_or_default();
        let log = File::options().append(true).create(true).open(self.log());
        let log = log.with_context(|| format!("cannot write {}", self.log().display()))?;
        let child = Command::new(program)
            .arg(role)
            .arg("--config")
            .arg(self.home.join(role).with_extension("toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C in the terminal is for the supervisor alone.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id();
        let Some(started) = started_at(pid) else {
            bail!("{} ended at once: see {}", self.name, self.log().display());
        };
        fs::write(self.home.join("pid"), format!("{pid} {started}\n"))?;
        Ok(Some(child))
    }

    /// Ends it as a power cut would.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.signal(Signal::KILL);
        self.wait_gone(STOP_TIMEOUT)
    }

    /// Asks it to stop, and ends it when it does not.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM);
        self.wait_gone(STOP_TIMEOUT).or_else(|_| self.kill())
    }

    /// Sends a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended meanwhile: that is what was wanted.
            let _ = kill_process(pid, signal);
        }
    }

    fn wait_gone(&self, timeout: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        while let Some(pid) = self.pid() {
            if start.elapsed() > timeout {
                bail!("{} (process {pid}) does not end", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// When a process started, in the kernel's own unit; none when it does not run. From
/// `/proc/PID/stat`, proc(5): the fields behind the name in parentheses are the state and, 19 fields
/// later, the start time.
fn started_at(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process is known while it runs, and not after, nor is one with another start time.
    #[test]
    fn pid_files_know_their_process() {
        let dir = tempfile::tempdir().expect("a directory");
        let daemon = Daemon::new(dir.path(), "node-1");
        fs::create_dir(dir.path().join("node-1")).expect("made");
        let own = std::process::id();
        let started = started_at(own).expect("we run");
        assert_eq!(daemon.pid(), None);
        fs::write(dir.path().join("node-1/pid"), format!("{own} {started}\n")).expect("written");
        assert_eq!(daemon.pid(), Some(own));
        fs::write(dir.path().join("node-1/pid"), format!("{own} 1{started}\n")).expect("written");
        assert_eq!(daemon.pid(), None);
    }
}
