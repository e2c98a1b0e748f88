//! Real time spent in tasks, for whoever wants to know where it goes.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use super::lock;
use crate::host::HostId;

/// What tasks have cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Polls.
    pub polls: u64,
    /// Real time.
    pub time: Duration,
}

/// A clock outside of the world, and what it has measured.
pub(super) struct Stopwatch {
    clock: fn() -> Duration,
    spent: Mutex<BTreeMap<(Option<HostId>, &'static str), Spent>>,
}

impl Stopwatch {
    pub(super) fn new(clock: fn() -> Duration) -> Self {
        Self { clock, spent: Mutex::default() }
    }

    pub(super) fn now(&self) -> Duration {
        (self.clock)()
    }

    pub(super) fn spent(&self) -> BTreeMap<(Option<HostId>, &'static str), Spent> {
        lock(&self.spent).clone()
    }

    /// A task was polled from `began` until now.
    pub(super) fn charge(&self, host: Option<HostId>, name: &'static str, began: Duration) {
        let time = self.now().saturating_sub(began);
        let mut spent = lock(&self.spent);
        let spent = spent.entry((host, name)).or_default();
        spent.polls += 1;
        spent.time += time;
    }
}
