//! Watching a task to its end.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::bail;
use client::Admin;
use indicatif::{ProgressBar, ProgressStyle};
use os::Host;
use proto::wire;
use wire::TaskState;

use super::progress::progress;
use super::{line, pace, what};
use crate::Session;
use crate::output::Format;

/// Between two looks.
const POLL: Duration = Duration::from_secs(1);
/// Between two lines where there is no terminal.
const LINE_PAUSE: Duration = Duration::from_secs(10);
/// Looks in a row that may fail: a metadata service that elects a leader answers before.
const FAILURES_MAX: u32 = 5;

/// Waits until the task has ended; as it is then.
///
/// # Errors
///
/// When it was cancelled or has failed, when it is no longer listed, or nobody answers: the task goes on then.
pub(super) async fn watch(session: &Session, admin: &Admin<Host>, id: u32) -> anyhow::Result<wire::Task> {
    let mut shown = Line::new(session);
    let mut failures = 0;
    loop {
        let tasks = match admin.tasks().await {
            Ok(tasks) => tasks,
            Err(_) if failures < FAILURES_MAX => {
                failures += 1;
                shown.say("nobody answers just now; the task goes on".to_owned());
                tokio::time::sleep(POLL).await;
                continue;
            }
            Err(error) => {
                return Err(anyhow::Error::new(error)
                    .context(format!("task {id} goes on; type the same again to watch it")));
            }
        };
        failures = 0;
        let Some(task) = tasks.tasks.iter().find(|task| task.id == id) else {
            bail!("task {id} has ended long ago and is no longer listed: see `clusterctl task ls`");
        };
        shown.show(task, pace(&tasks, id));
        match task.state() {
            TaskState::Running | TaskState::Paused | TaskState::Unspecified => {
                tokio::time::sleep(POLL).await;
            }
            TaskState::Done => {
                shown.end();
                return Ok(task.clone());
            }
            TaskState::Cancelled => {
                bail!("task {id} ({}) was cancelled: {}", what(task), progress(task, None))
            }
            TaskState::Failed => bail!("task {id} ({}) has failed: {}", what(task), task.reason),
        }
    }
}

/// A bar on a terminal; elsewhere a line now and then, on standard error.
struct Line {
    bar: Option<ProgressBar>,
    quiet: bool,
    said: Option<(Instant, String)>,
}

impl Line {
    fn new(session: &Session) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, quiet: session.format == Format::Json, said: None }
    }

    fn show(&mut self, task: &wire::Task, bytes_per_s: Option<u64>) {
        let text = format!("task {}", line(task, bytes_per_s));
        if let Some(bar) = &self.bar {
            // Slots without bytes count, too.
            bar.set_length(task.bytes_total.saturating_add(task.slots_total));
            bar.set_position(task.bytes_done.saturating_add(task.slots_done));
        }
        self.say(text);
    }

    fn say(&mut self, text: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(text);
            return;
        }
        let due = self.said.as_ref().is_none_or(|(at, said)| at.elapsed() >= LINE_PAUSE && *said != text);
        if due && !self.quiet {
            eprintln!("{text}");
            self.said = Some((Instant::now(), text));
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
