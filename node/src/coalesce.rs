//! Work that serves all who asked before it began.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs a piece of work for many at once: one run at a time, and who asked before a run began is
/// served by it. So a flush serves every write that ended before it, without a task of its own.
///
/// Waiters are not bounded here: their owners bound them.
#[derive(Debug, Default)]
pub(crate) struct Coalesced {
    asked: AtomicU64,
    served: tokio::sync::Mutex<u64>,
}

impl Coalesced {
    /// Returns after a run of `work` that began after this call. When the run of somebody else
    /// fails, this one tries its own.
    ///
    /// Dropping this while its own run is under way cancels the run; the next waiter begins another.
    pub(crate) async fn run<F, E>(&self, work: impl FnOnce() -> F) -> Result<(), E>
    where
        F: Future<Output = Result<(), E>>,
    {
        let ticket = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut served = self.served.lock().await;
        if *served >= ticket {
            return Ok(());
        }
        let all = self.asked.load(Ordering::SeqCst);
        work().await?;
        *served = all;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::future::join_all;

    use super::*;
    use crate::testing::{block_on, pause};

    /// Ten who ask together need two runs: the first one's, and one for all the others.
    #[test]
    fn one_run_serves_many() {
        let (coalesced, runs) = (Coalesced::default(), Cell::new(0));
        let work = || async {
            runs.set(runs.get() + 1);
            pause().await;
            Ok::<(), ()>(())
        };
        block_on(join_all((0..10).map(|_| coalesced.run(work))));
        assert_eq!(runs.get(), 2);
        assert_eq!(block_on(coalesced.run(work)), Ok(()));
        assert_eq!(runs.get(), 3);
    }

    /// A failed run serves nobody but tells its own asker.
    #[test]
    fn failure_is_not_shared() {
        let (coalesced, runs) = (Coalesced::default(), Cell::new(0));
        let work = || async {
            runs.set(runs.get() + 1);
            pause().await;
            if runs.get() == 1 { Err(()) } else { Ok(()) }
        };
        let results = block_on(join_all([coalesced.run(work), coalesced.run(work)]));
        assert_eq!(results, [Err(()), Ok(())]);
    }
}
