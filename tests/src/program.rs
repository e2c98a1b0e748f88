//! The binaries under test, run as a person or a script runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The binary `name` that was built together with this test.
pub fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test's own path");
    // target/debug/deps/objects-0123 lies two levels below target/debug/cadoled.
    let program = test.parent().and_then(Path::parent).expect("a target directory").join(name);
    assert!(
        program.exists(),
        "{} is missing: build the binaries first, with `cargo build --workspace --bins`",
        program.display()
    );
    program
}

/// What a finished program said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Exit status; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Fails unless the program succeeded.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "out: {}\nerr: {}", self.out, self.err);
        self
    }

    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.out))
    }

    /// Fails unless the program failed and said each of `parts` on either output.
    pub fn failed_with(&self, parts: &[&str]) {
        assert_ne!(self.code, Some(0), "succeeded: {}", self.out);
        for part in parts {
            assert!(
                self.out.contains(part) || self.err.contains(part),
                "it did not say {part:?} but\nout: {}\nerr: {}",
                self.out,
                self.err
            );
        }
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    said(&output)
}

fn said(output: &Output) -> Said {
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a command to its end, and also returns the most memory that it had at once, in bytes
/// (`VmHWM` of proc(5), looked at every few milliseconds).
pub fn run_measured(command: &mut Command) -> (Said, u64) {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("the program starts");
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let done = std::sync::atomic::AtomicBool::new(false);
    let (output, peak) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                peak = peak.max(peak_bytes(&status).unwrap_or(0));
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            peak
        });
        let output = child.wait_with_output().expect("the program ends");
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        (output, watcher.join().expect("the watcher ends"))
    });
    (said(&output), peak)
}

fn peak_bytes(status: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}
