//! Ending early: by Ctrl-C, or because what was looked for has been found.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// Asks all running processes to end. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    interrupted: AtomicBool,
    halted: AtomicBool,
}

impl Stop {
    /// One that Ctrl-C and SIGTERM set; a second Ctrl-C ends at once.
    ///
    /// # Errors
    ///
    /// When signals cannot be listened to.
    pub(crate) fn on_signals() -> anyhow::Result<Self> {
        let stop = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            let listen = |kind| signal(kind).context("cannot listen to signals");
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?)
        };
        let asked = stop.clone();
        std::thread::spawn(move || {
            let wait = async {
                tokio::select! {
                    biased;
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                asked.interrupt();
                interrupt.recv().await;
                std::process::exit(INTERRUPTED.into());
            };
            runtime.block_on(wait)
        });
        Ok(stop)
    }

    /// Everything ends, and nothing starts any more.
    pub(crate) fn interrupt(&self) {
        self.0.interrupted.store(true, Ordering::Relaxed);
    }

    /// A person wants it to end.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.0.interrupted.load(Ordering::Relaxed)
    }

    /// Ends what is running until [`Stop::resume`].
    pub(crate) fn halt(&self) {
        self.0.halted.store(true, Ordering::Relaxed);
    }

    /// What starts from now on may go on.
    pub(crate) fn resume(&self) {
        self.0.halted.store(false, Ordering::Relaxed);
    }

    /// Should what is running end?
    pub(crate) fn is_asked(&self) -> bool {
        self.is_interrupted() || self.0.halted.load(Ordering::Relaxed)
    }
}

/// Exit status after Ctrl-C, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;
