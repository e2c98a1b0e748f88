//! One process of the simulator, from its start to its end.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use super::stop::Stop;

/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(5);
/// Lines kept of what it said last.
pub(crate) const LINES_KEPT: usize = 40;

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How.
    pub(crate) status: ExitStatus,
    /// It was killed because it took longer than it may.
    pub(crate) overdue: bool,
    /// It was killed because all was to stop.
    pub(crate) stopped: bool,
    /// The last lines of standard output, one more than [`LINES_KEPT`].
    pub(crate) lines: VecDeque<String>,
    /// The last lines of standard error.
    pub(crate) errors: VecDeque<String>,
    /// Real time.
    pub(crate) took: Duration,
}

/// Runs `command` to its end, for `limit` at most, and shows each line of its standard output to `heed`,
/// which says whether it is one to keep.
///
/// # Errors
///
/// When it cannot be started or watched.
pub(crate) fn run(
    command: &mut Command,
    limit: Duration,
    stop: &Stop,
    heed: &mut (dyn FnMut(&str) -> bool + Send),
) -> anyhow::Result<Ended> {
    let name = command.get_program().to_string_lossy().into_owned();
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let lines = scope.spawn(move || last_lines(stdout, LINES_KEPT + 1, heed));
        let errors = scope.spawn(move || last_lines(stderr, LINES_KEPT, &mut |_| true));
        let (mut overdue, mut stopped) = (false, false);
        let status = wait(&mut child, || {
            overdue = began.elapsed() > limit;
            stopped = stop.is_asked();
            overdue || stopped
        })?;
        let broken = |_| anyhow!("cannot read what {name} says");
        let (lines, errors) = (lines.join().map_err(broken)?, errors.join().map_err(broken)?);
        Ok(Ended { status, overdue, stopped, lines, errors, took: began.elapsed() })
    })
}

/// Waits for the child's end, and kills it as soon as `is_over` says so.
///
/// # Errors
///
/// When it cannot be watched or killed.
pub(crate) fn wait(child: &mut Child, mut is_over: impl FnMut() -> bool) -> anyhow::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if is_over() {
            return kill(child);
        }
        // The standard library waits for ever or not at all.
        std::thread::sleep(LOOK);
    }
}

/// Kills the child by its id; it has not been waited for, so the id is still its own.
fn kill(child: &mut Child) -> anyhow::Result<ExitStatus> {
    child.kill().context("cannot kill a process of the simulator")?;
    Ok(child.wait()?)
}

/// Reads to the end, or to the first failure: what has come by then counts.
fn last_lines(
    from: Option<impl Read>,
    kept: usize,
    heed: &mut (dyn FnMut(&str) -> bool + Send),
) -> VecDeque<String> {
    let mut last = VecDeque::with_capacity(kept);
    let Some(from) = from else { return last };
    let (mut reader, mut bytes) = (BufReader::new(from), Vec::new());
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
        let line = String::from_utf8_lossy(bytes.strip_suffix(b"\n").unwrap_or(&bytes)).into_owned();
        bytes.clear();
        if !heed(&line) {
            continue;
        }
        if last.len() == kept {
            last.pop_front();
        }
        last.push_back(line);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration, stop: &Stop) -> (Ended, usize) {
        let mut seen = 0;
        let mut heed = |line: &str| {
            seen += 1;
            line != "999"
        };
        let ended = run(Command::new("sh").args(["-c", script]), limit, stop, &mut heed);
        (ended.expect("run"), seen)
    }

    /// The last lines are kept but those that are not wanted, all are shown, and the exit status comes through.
    #[test]
    fn the_last_lines_are_kept() {
        let limit = Duration::from_secs(60);
        let (ended, seen) = shell("seq 1 1000; echo oh >&2; exit 3", limit, &Stop::default());
        assert_eq!((ended.status.code(), seen), (Some(3), 1_000));
        assert_eq!(
            (ended.lines.len(), ended.lines.back().map(String::as_str)),
            (LINES_KEPT + 1, Some("1000"))
        );
        assert_eq!(ended.lines.iter().rev().nth(1).map(String::as_str), Some("998"));
        assert_eq!(ended.errors, ["oh"]);
        assert!(!ended.overdue && !ended.stopped);
    }

    /// A process that does not end is killed: at its limit, and when all stops.
    #[test]
    fn what_does_not_end_is_killed() {
        let (ended, _) = shell("exec sleep 1000", Duration::from_millis(20), &Stop::default());
        assert!(ended.overdue && !ended.status.success());
        let stop = Stop::default();
        stop.interrupt();
        let (ended, _) = shell("exec sleep 1000", Duration::from_secs(1_000), &stop);
        assert!(ended.stopped && !ended.overdue);
    }
}
