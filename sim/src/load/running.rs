//! What is under way, and how long it may take.
//!
//! Limits are of the client's own clock, as its timeouts are; what passed while its machine stood still
//! does not count. They come from the promises of the client library: a short call ends within its
//! timeout; a put or get fails when nothing moves for so long, and what moves is bounded by the number of
//! stripes and by how often another group is tried.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use env::{Clock, Env, Monotonic};
use simhost::{HostId, SimEnv};

use super::Workload;
use super::source::Ended;
use crate::cluster::Cluster;
use crate::history::{Ledger, OpIndex, Operation, Outcome, Page, PageIndex};
use crate::process::lock;
use crate::verdict::millis;

/// What is added to each limit: rounding, and the list of servers that is asked for by the way.
const SLACK: Duration = Duration::from_secs(2);
/// Stripes of a put that are counted for the groups that are tried in vain.
const FRUITLESS: u32 = 20;
/// Idle limits for each stripe: its shards, its group's new epochs, a new grant.
const PER_STRIPE: u32 = 8;
/// Without faults a stripe takes one idle limit at the most, and the rest of the operation so many.
const CALM: u32 = 4;

/// Clocks of clients run too fast or too slow by less than this part of their time.
const DRIFT: u32 = 5;

/// How long an operation may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// In all, by the client's clock.
    whole: Duration,
    /// Once faults have ended, in virtual time.
    calm: Duration,
}

impl Limit {
    /// One call of the metadata service.
    pub(super) fn call(timeout: Duration) -> Self {
        Self::of(timeout, timeout)
    }

    /// A put or get of so many stripes, which takes `extra` by itself.
    pub(super) fn stripes(timeout: Duration, stripes: u32, extra: Duration) -> Self {
        if stripes == 0 {
            // In the metadata: the bytes come, the commit goes.
            return Self::of(timeout + extra, timeout + extra);
        }
        let whole = timeout.saturating_mul(stripes.saturating_mul(PER_STRIPE).saturating_add(FRUITLESS));
        let calm = timeout.saturating_mul(stripes.saturating_add(CALM));
        Self::of(whole + extra, calm + extra)
    }

    fn of(whole: Duration, calm: Duration) -> Self {
        Self { whole: whole + SLACK, calm: calm + calm / DRIFT + SLACK }
    }
}

/// What an entry of the table is.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Operation(OpIndex),
    Page(PageIndex),
}

#[derive(Clone, Debug)]
struct Entry {
    host: HostId,
    what: What,
    limit: Limit,
    began: Duration,
}

/// An operation that took long, and what it took of its client's clock.
struct Slow {
    entry: Entry,
    ended: Duration,
    took: Duration,
}

/// All that is under way, and what took too long.
#[derive(Default)]
pub(super) struct Running(Mutex<Table>);

#[derive(Default)]
struct Table {
    next: u64,
    entries: BTreeMap<u64, Entry>,
    slow: Vec<Slow>,
    /// When a host stood still.
    pauses: Vec<(HostId, Duration, Duration)>,
}

impl Running {
    /// The host stood still.
    pub(super) fn paused(&self, host: HostId, from: Duration, to: Duration) {
        lock(&self.0).pauses.push((host, from, to));
    }

    /// Is there anything that may still take its time, faults having ended at `since`?
    pub(super) fn is_any_in_time(&self, since: Duration, now: Duration) -> bool {
        lock(&self.0).entries.values().any(|entry| entry.due(since) > now)
    }

    /// What took longer than its limit, in words, and what has not ended, faults having ended at `since`.
    pub(super) fn too_long(&self, ledger: &Ledger, since: Duration, now: Duration) -> Vec<String> {
        let table = lock(&self.0);
        let mut texts = Vec::new();
        for Slow { entry, ended, took } in &table.slow {
            let stood = table.stood(entry.host, entry.began, *ended);
            if took.saturating_sub(stood + stood / DRIFT) > entry.limit.whole {
                let (took, stood) = (millis(*took), millis(stood));
                let text = format!(
                    "{} took {took} ms of its client's clock, {stood} ms of which that stood still; its limit is {} ms",
                    entry.describe(ledger),
                    millis(entry.limit.whole)
                );
                texts.push(text);
            }
        }
        for entry in table.entries.values() {
            let (passed, limit) = (millis(now.saturating_sub(since)), millis(entry.limit.calm));
            let told = entry.describe(ledger);
            texts.push(format!("{told} has not ended {passed} ms after the faults; its limit is {limit} ms"));
        }
        texts
    }
}

impl Table {
    fn stood(&self, host: HostId, from: Duration, to: Duration) -> Duration {
        let of_host = self.pauses.iter().filter(|(paused, _, _)| *paused == host);
        of_host.map(|(_, began, ended)| (*ended).min(to).saturating_sub((*began).max(from))).sum()
    }
}

impl Entry {
    /// When it must have ended, faults having ended at `since`.
    fn due(&self, since: Duration) -> Duration {
        since.max(self.began) + self.limit.calm
    }

    fn describe(&self, ledger: &Ledger) -> String {
        match self.what {
            What::Operation(index) => {
                let told = |operation: &Operation| format!("{}: {operation}", operation.key);
                ledger.operations().get(index.0).map_or_else(String::new, told)
            }
            What::Page(index) => format!("page {} of a listing", index.0),
        }
    }
}

/// An operation that was begun. Dropping it, with its client or by its client's will, ends it as far as
/// can be told then.
pub(super) struct Begun {
    cluster: Arc<Cluster>,
    workload: Arc<Workload>,
    env: SimEnv,
    started: Monotonic,
    number: u64,
    what: What,
    /// Of a put: may it have been committed yet?
    source: Option<Ended>,
    has_ended: bool,
}

impl Begun {
    pub(super) fn new(
        cluster: &Arc<Cluster>,
        workload: &Arc<Workload>,
        env: &SimEnv,
        what: What,
        limit: Limit,
    ) -> Self {
        let host = env.life().host().id();
        let entry = Entry { host, what, limit, began: cluster.world.now() };
        let number = {
            let mut table = lock(&workload.running.0);
            table.next += 1;
            let number = table.next;
            table.entries.insert(number, entry);
            number
        };
        Self {
            cluster: cluster.clone(),
            workload: workload.clone(),
            env: env.clone(),
            started: env.clock().now(),
            number,
            what,
            source: None,
            has_ended: false,
        }
    }

    /// Its bytes come from there.
    pub(super) fn fed_by(&mut self, source: Ended) {
        self.source = Some(source);
    }

    /// More is known of how long it may take.
    pub(super) fn set_limit(&self, limit: Limit) {
        if let Some(entry) = lock(&self.workload.running.0).entries.get_mut(&self.number) {
            entry.limit = limit;
        }
    }

    /// It has ended.
    pub(super) fn end(mut self, outcome: Outcome) {
        self.settle(outcome, None);
    }

    /// The page has come, or has not.
    pub(super) fn end_page(mut self, page: Option<Page>) {
        self.settle(Outcome::Failed, page);
    }

    fn settle(&mut self, outcome: Outcome, page: Option<Page>) {
        self.has_ended = true;
        let (host, now) = (self.env.life().host().id(), self.cluster.world.now());
        let number = |index: usize| u64::try_from(index).unwrap_or(u64::MAX);
        match self.what {
            What::Operation(index) => {
                let mut ledger = lock(&self.cluster.ledger);
                ledger.end(index, outcome, now);
                let operation =
                    ledger.operations().get(index.0).filter(|_| self.cluster.world.wants_story()).cloned();
                drop(ledger);
                let story = || operation.map_or_else(String::new, |it| format!("on {}: {it}", it.key));
                self.cluster.world.event(Some(host), "ended", &[number(index.0), digest(&outcome)], story);
            }
            What::Page(index) => {
                let entries = page.as_ref().map_or(0, |page| page.objects.len() + page.prefixes.len() + 1);
                let story = || format!("page {}: {page:?}", index.0);
                self.cluster.world.event(Some(host), "page", &[number(index.0), number(entries)], story);
                lock(&self.cluster.ledger).end_page(index, page, now);
            }
        }
        self.leave(now);
    }

    fn leave(&self, now: Duration) {
        let took = self.env.clock().now().since(self.started);
        let mut table = lock(&self.workload.running.0);
        let Some(entry) = table.entries.remove(&self.number) else { return };
        if took > entry.limit.whole {
            table.slow.push(Slow { entry, ended: now, took });
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let is_write = match self.what {
            What::Operation(index) => {
                lock(&self.cluster.ledger).operations().get(index.0).is_some_and(|it| it.op.is_write())
            }
            What::Page(_) => false,
        };
        let may_be_done = self.source.as_ref().is_none_or(|source| source.load(Ordering::Relaxed));
        let outcome = if is_write && may_be_done { Outcome::Unknown } else { Outcome::Failed };
        self.settle(outcome, None);
    }
}

/// An outcome as a number, for the trace.
fn digest(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Failed => 0,
        Outcome::Unknown => 1,
        Outcome::Refused => 2,
        Outcome::Read(None) => 3,
        Outcome::Deleted { existed } => 4 + u64::from(*existed),
        Outcome::Acknowledged(receipt) => receipt.version.0.wrapping_mul(8) + 6,
        Outcome::Read(Some(found)) => found.version.0.wrapping_mul(8) + 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: HostId = HostId(7);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn running(pauses: &[(u64, u64)], took: u64) -> Vec<String> {
        let running = Running::default();
        pauses.iter().for_each(|(from, to)| running.paused(HOST, s(*from), s(*to)));
        running.paused(HostId(8), s(0), s(1_000));
        let limit = Limit::call(s(8));
        let entry = Entry { host: HOST, what: What::Page(PageIndex(0)), limit, began: s(100) };
        lock(&running.0).slow.push(Slow { entry, ended: s(100 + took), took: s(took) });
        running.too_long(&Ledger::new(), s(0), s(0))
    }

    /// An operation is too long by what it took while its own machine did not stand still.
    #[test]
    fn pauses_do_not_count() {
        assert!(running(&[], 11).len() == 1);
        assert!(running(&[(101, 103)], 11).is_empty());
        assert!(running(&[(0, 100), (111, 150)], 11).len() == 1, "before and after do not help");
        assert!(running(&[(90, 103), (110, 150)], 14).is_empty());
    }

    /// What has not ended is waited for until its time without faults is over, and then told.
    #[test]
    fn what_does_not_end_is_told() {
        let running = Running::default();
        assert!(!running.is_any_in_time(s(0), s(0)));
        // (3 stripes + 4) × 10 s, and 1 s, and a fifth for its clock, and 2 s.
        let limit = Limit::stripes(s(10), 3, s(4));
        let entry = Entry { host: HOST, what: What::Page(PageIndex(0)), limit, began: s(100) };
        lock(&running.0).entries.insert(1, entry);
        assert!(running.is_any_in_time(s(200), s(290)));
        assert!(!running.is_any_in_time(s(200), s(291)));
        assert_eq!(running.too_long(&Ledger::new(), s(200), s(291)).len(), 1);
    }
}
