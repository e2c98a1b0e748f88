//! The progress of a campaign, on a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::summary::{Summary, ratio};

/// A bar that shows seeds, or time where the number of seeds is open.
pub(crate) struct Progress {
    bar: ProgressBar,
    began: Instant,
    /// The bar's length is time.
    timed: bool,
}

impl Progress {
    /// A bar for `seeds`, or for `time` when their number is open.
    ///
    /// # Errors
    ///
    /// When a template of the bar is wrong.
    pub(crate) fn new(name: &str, seeds: Option<u64>, time: Option<Duration>) -> anyhow::Result<Self> {
        let length = seeds.or(time.map(|time| time.as_secs()));
        let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let template = if length.is_some() {
            "{prefix} {wide_bar} {elapsed} {msg}"
        } else {
            "{spinner} {prefix} {elapsed} {msg}"
        };
        bar.set_style(ProgressStyle::with_template(template)?);
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(500));
        Ok(Self { bar, began: Instant::now(), timed: seeds.is_none() && time.is_some() })
    }

    /// Shows how far it is.
    pub(crate) fn show(&self, summary: &Summary) {
        let elapsed = self.began.elapsed();
        self.bar.set_position(if self.timed { elapsed.as_secs() } else { summary.seeds });
        let seconds = elapsed.as_secs_f64();
        let seeds = f64::from(u32::try_from(summary.seeds).unwrap_or(u32::MAX));
        self.bar.set_message(format!(
            "{} seeds, {:.1}/s, {:.0} s simulated per s, {} failed",
            summary.seeds,
            ratio(seeds, seconds),
            ratio(summary.simulated_s, seconds),
            summary.failed
        ));
    }

    /// Shows a position, and what is being done.
    pub(crate) fn note(&self, position: usize, message: String) {
        self.bar.set_position(u64::try_from(position).unwrap_or(u64::MAX));
        self.bar.set_message(message);
    }

    /// Prints a line above the bar, also when there is no terminal for a bar.
    pub(crate) fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Real time since it began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
