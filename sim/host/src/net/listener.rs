//! Listening.

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use env::Listener;

use super::connection::SimConnection;
use super::wait::{STALLED, Slot, Wakes};
use crate::host::Life;
use crate::world::lock;

/// Connections that are made and not accepted yet, as in `os`.
const BACKLOG: usize = 64;

/// What has arrived at an address.
pub(super) struct Inbox {
    life: Life,
    port: u16,
    state: Mutex<InboxState>,
}

#[derive(Default)]
struct InboxState {
    closed: bool,
    queue: VecDeque<SimConnection>,
    waiting: Slot,
}

impl Inbox {
    pub(super) fn new(life: Life, port: u16) -> Self {
        Self { life, port, state: Mutex::default() }
    }

    pub(super) fn life(&self) -> &Life {
        &self.life
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Can anything still arrive?
    pub(super) fn is_open(&self) -> bool {
        self.life.is_alive() && !lock(&self.state).closed
    }

    /// Does its host answer just now?
    pub(super) fn answers(&self) -> bool {
        self.is_open() && !self.life.host.is_paused() && lock(&self.state).queue.len() < BACKLOG
    }

    pub(super) fn push(&self, connection: SimConnection) {
        let mut wakes = Wakes::new();
        {
            let mut state = lock(&self.state);
            state.queue.push_back(connection);
            wakes.add(state.waiting.take());
        }
        wakes.wake();
    }

    fn poll(&self, context: &Context<'_>) -> Poll<SimConnection> {
        let mut state = lock(&self.state);
        if let Some(connection) = state.queue.pop_front() {
            return Poll::Ready(connection);
        }
        state.waiting.wait(context, self.life.world(), STALLED);
        Poll::Pending
    }

    fn close(&self) {
        let left = {
            let mut state = lock(&self.state);
            state.closed = true;
            (std::mem::take(&mut state.queue), state.waiting.take())
        };
        drop(left);
    }
}

/// Where connections arrive. Dropping it frees the port; connections that were not accepted are closed.
pub struct SimListener(pub(super) Arc<Inbox>);

impl Listener for SimListener {
    type Connection = SimConnection;

    async fn accept(&mut self) -> Option<SimConnection> {
        if !self.0.life.is_alive() {
            pending::<()>().await;
        }
        Some(poll_fn(|context| self.0.poll(context)).await)
    }

    fn address(&self) -> String {
        format!("{}:{}", self.0.life.host().address(), self.0.port)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.0.close();
    }
}
