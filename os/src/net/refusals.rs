//! Who was refused, in the log.
//!
//! Anybody can cause a refusal, so the log takes only so many in a while and counts the rest.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

/// The length of a while.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines in a while.
const LINES_MAX: u32 = 10;

/// Logs refusals at a bounded rate.
pub(super) struct Refusals(Mutex<Window>);

impl Refusals {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Window::new(Instant::now())))
    }

    pub(super) fn refused(&self, address: impl Display, reason: impl Display) {
        let verdict = self.0.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
        if let Some(suppressed) = verdict {
            warn!(%address, %reason, suppressed, "connection refused");
        }
    }
}

/// One while.
struct Window {
    start: Instant,
    lines: u32,
    suppressed: u64,
}

impl Window {
    fn new(start: Instant) -> Self {
        Self { start, lines: 0, suppressed: 0 }
    }

    /// May a line be written? Then with how many were kept back before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.start) >= WINDOW {
            (self.start, self.lines) = (now, 0);
        }
        if self.lines == LINES_MAX {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flood costs ten lines in ten seconds, and the next line says how many are missing.
    #[test]
    fn a_flood_is_counted() {
        let start = Instant::now();
        let mut window = Window::new(start);
        let written = (0..1000).filter(|_| window.admit(start).is_some()).count();
        assert_eq!(written, 10);
        assert_eq!(window.admit(start + WINDOW), Some(990));
        assert_eq!(window.admit(start + WINDOW), Some(0));
    }
}
