//! What happened: a hash of all of it, and a story of it for people.

use std::collections::VecDeque;
use std::io::Write;
use std::time::Duration;

use crate::rng::mix;

/// Lines of the story that are kept for the report of a failure.
const KEPT_LINES: usize = 60;

/// Where the story goes.
pub enum Story {
    /// Nobody reads it: only the hash is kept.
    Untold,
    /// The last lines are kept for a report.
    Kept,
    /// All of it is written down.
    Told(Box<dyn Write + Send>),
}

/// See the module.
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    story: Story,
    last: VecDeque<String>,
}

impl Trace {
    pub(crate) fn new(story: Story) -> Self {
        Self { hash: 0, events: 0, story, last: VecDeque::new() }
    }

    pub(crate) fn add(&mut self, at: Duration, who: u32, what: &str, numbers: &[u64]) {
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        let what = what.bytes().fold(0, |hash: u64, byte| {
            hash.rotate_left(8) ^ u64::from(byte).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        let words = [nanos, u64::from(who), what];
        self.hash =
            words.iter().chain(numbers).fold(self.hash, |hash, word| mix(hash ^ word).wrapping_add(1));
        self.events += 1;
    }

    pub(crate) fn wants_story(&self) -> bool {
        !matches!(self.story, Story::Untold)
    }

    pub(crate) fn tell(&mut self, at: Duration, who: &str, line: &str) {
        let line = format!("{:>12.6} {who:<10} {line}", at.as_secs_f64());
        if let Story::Told(out) = &mut self.story {
            // A story that cannot be written down is still kept.
            drop(writeln!(out, "{line}"));
        }
        if self.last.len() == KEPT_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    pub(crate) fn hash(&self) -> (u64, u64) {
        (self.hash, self.events)
    }

    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}
