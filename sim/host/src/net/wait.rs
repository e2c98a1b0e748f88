//! Who waits for something of the network, and the one timer that each of them has.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use crate::world::{Sleep, World};

/// When something arrives that is held up by a link that is cut.
pub(super) const STALLED: Duration = Duration::MAX;

/// Wakers that are due once no lock is held any more.
#[derive(Default)]
#[must_use]
pub(super) struct Wakes {
    due: Vec<Waker>,
    spare: Option<Waiter>,
}

impl Wakes {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn add(&mut self, waiter: Option<Waiter>) {
        self.due.extend(waiter.map(|waiter| waiter.waker));
    }

    pub(super) fn add_all(&mut self, waiters: &mut Vec<Waiter>) {
        self.due.extend(waiters.drain(..).map(|waiter| waiter.waker));
    }

    /// A waiter that has what it waited for: it is dropped, not woken.
    pub(super) fn spare(&mut self, waiter: Option<Waiter>) {
        if waiter.is_some() {
            self.spare = waiter;
        }
    }

    /// No lock may be held here.
    pub(super) fn wake(self) {
        self.due.into_iter().for_each(Waker::wake);
    }
}

/// A future that waits, with a timer for what is on its way to it.
pub(super) struct Waiter {
    waker: Waker,
    timer: Option<(Duration, Sleep)>,
}

impl Waiter {
    fn new(waker: &Waker) -> Self {
        Self { waker: waker.clone(), timer: None }
    }

    /// It was polled, and is to be woken at `at` and no earlier.
    fn wait(&mut self, world: &World, at: Duration) {
        if self.timer.as_ref().is_none_or(|(armed, _)| *armed != at) {
            self.timer = None;
            self.arm(world, at);
        }
    }

    /// Something arrives at `at`: it is woken then at the latest.
    fn arm(&mut self, world: &World, at: Duration) {
        if at == STALLED || self.timer.as_ref().is_some_and(|(armed, _)| *armed <= at) {
            return;
        }
        let mut sleep = world.sleep_until(at);
        // Only registers the waker: what is on its way is never there already.
        let _ = Pin::new(&mut sleep).poll(&mut Context::from_waker(&self.waker));
        self.timer = Some((at, sleep));
    }
}

/// The one future that waits here.
#[derive(Default)]
pub(super) struct Slot(Option<Waiter>);

impl Slot {
    /// The future of `context` waits, until `at` at the latest.
    pub(super) fn wait(&mut self, context: &Context<'_>, world: &World, at: Duration) {
        let waiter = match &mut self.0 {
            Some(waiter) if waiter.waker.will_wake(context.waker()) => waiter,
            slot => slot.insert(Waiter::new(context.waker())),
        };
        waiter.wait(world, at);
    }

    /// Something arrives at `at`, for whoever waits.
    pub(super) fn arm(&mut self, world: &World, at: Duration) {
        if let Some(waiter) = &mut self.0 {
            waiter.arm(world, at);
        }
    }

    /// Nobody waits any more.
    pub(super) fn take(&mut self) -> Option<Waiter> {
        self.0.take()
    }
}

/// The futures that wait here: one for each task that accepts or opens at once.
#[derive(Default)]
pub(super) struct Crowd(pub(super) Vec<Waiter>);

impl Crowd {
    /// The future of `context` waits too, until `at` at the latest.
    pub(super) fn wait(&mut self, context: &Context<'_>, world: &World, at: Duration) {
        let known = self.0.iter().position(|waiter| waiter.waker.will_wake(context.waker()));
        let index = known.unwrap_or_else(|| {
            self.0.push(Waiter::new(context.waker()));
            self.0.len() - 1
        });
        self.0[index].wait(world, at);
    }

    /// Something arrives at `at`, for all of them.
    pub(super) fn arm(&mut self, world: &World, at: Duration) {
        self.0.iter_mut().for_each(|waiter| waiter.arm(world, at));
    }
}
