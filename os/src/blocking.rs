//! System calls that wait for a device, on threads where waiting harms nobody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use env::{StorageError, StorageErrorKind};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::fatal;

/// Starts `work` on a thread for blocking calls. It runs to its end even when nobody waits for it;
/// what it owns is dropped before its result is known.
pub(crate) fn start<T, F>(work: F) -> JoinHandle<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    tokio::task::spawn_blocking(work)
}

/// The result of what [`start`] started. A panic in it is a bug and ends the process.
///
/// # Errors
///
/// `Io` when the runtime shut down before it ran.
pub(crate) async fn finish<T>(handle: JoinHandle<Result<T, StorageError>>) -> Result<T, StorageError> {
    let ended = || StorageError::new(StorageErrorKind::Io, "the process is shutting down");
    join(handle).await.unwrap_or_else(|| Err(ended()))
}

/// The same for other results: none when the runtime shut down before it ran.
pub(crate) async fn join<T>(handle: JoinHandle<T>) -> Option<T> {
    match handle.await {
        Ok(result) => Some(result),
        Err(error) if error.is_panic() => {
            fatal::end(&format!("blocking work panicked: {}", fatal::panic_message(&*error.into_panic())))
        }
        Err(_) => None,
    }
}

/// Runs `work` on a thread for blocking calls.
///
/// # Errors
///
/// Its own, and `Io` when the runtime shuts down.
pub(crate) async fn run<T, F>(work: F) -> Result<T, StorageError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, StorageError> + Send + 'static,
{
    finish(start(work)).await
}

/// One failure for good. After a flush of the device has failed, the kernel may have dropped the dirty
/// pages and call the next flush a success, so every flush that this mark covers fails from then on.
#[derive(Debug, Default)]
pub(crate) struct Broken(OnceLock<(StorageErrorKind, String)>);

impl Broken {
    /// The first failure again, if there was one.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        let again = |(kind, what): &(StorageErrorKind, String)| {
            Err(StorageError::new(*kind, format!("an earlier flush failed: {what}")))
        };
        self.0.get().map_or(Ok(()), again)
    }

    pub(crate) fn mark(&self, error: &StorageError) {
        // Only the first failure counts.
        let _ = self.0.set((error.kind(), error.to_string()));
    }
}

/// Group commit: calls that wait together share one flush of the device, begun after all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupFlush(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Calls so far; a call's number is its place among them.
    called: AtomicU64,
    /// All calls up to this one are covered by a flush that succeeded.
    covered: AtomicU64,
    /// Held by the flush under way, to its end even when its caller goes away: two at once could share
    /// out one error of the device, so that one of them misses it.
    turn: Arc<Mutex<()>>,
}

impl GroupFlush {
    /// Makes durable what was written before this call, by `flush` or by another call's flush that
    /// began later. Dropping it cancels no flush under way; if that fails, `broken` knows.
    ///
    /// # Errors
    ///
    /// What `flush` says, and from then on for ever.
    pub(crate) async fn flush<F>(&self, broken: &Arc<Broken>, flush: F) -> Result<(), StorageError>
    where
        F: FnOnce() -> Result<(), StorageError> + Send + 'static,
    {
        let call = self.0.called.fetch_add(1, Ordering::AcqRel) + 1;
        let turn = Arc::clone(&self.0.turn).lock_owned().await;
        broken.check()?;
        if self.0.covered.load(Ordering::Acquire) >= call {
            return Ok(());
        }
        // Whoever called until now wrote before this flush begins.
        let covers = self.0.called.load(Ordering::Acquire);
        let (shared, broken) = (Arc::clone(&self.0), Arc::clone(broken));
        // The marks are set on the flushing thread: the caller may be gone when it ends.
        run(move || {
            flush().inspect_err(|error| broken.mark(error))?;
            shared.covered.fetch_max(covers, Ordering::AcqRel);
            drop(turn);
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Result<(), StorageError> {
        Err(StorageError::new(StorageErrorKind::Io, "the device is gone"))
    }

    /// Calls that wait while one flush is under way share the next one.
    #[tokio::test]
    async fn calls_share_a_flush() {
        let (group, broken) = (GroupFlush::default(), Arc::new(Broken::default()));
        let flushes = Arc::new(AtomicU64::new(0));
        // Nobody gets a turn before all have called.
        let turn = group.0.turn.lock().await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (group, broken, flushes) = (group.clone(), Arc::clone(&broken), Arc::clone(&flushes));
            calls.spawn(async move {
                let count = move || {
                    flushes.fetch_add(1, Ordering::AcqRel);
                    Ok(())
                };
                group.flush(&broken, count).await.unwrap();
            });
        }
        while group.0.called.load(Ordering::Acquire) < 20 {
            tokio::task::yield_now().await;
        }
        drop(turn);
        calls.join_all().await;
        assert_eq!(flushes.load(Ordering::Acquire), 1);
        // A later call is not covered by what came before it.
        group.flush(&broken, failed).await.unwrap_err();
    }

    /// After one failure no flush succeeds, whatever the device says.
    #[tokio::test]
    async fn failure_is_for_good() {
        let (group, broken) = (GroupFlush::default(), Arc::new(Broken::default()));
        group.flush(&broken, || Ok(())).await.unwrap();
        group.flush(&broken, failed).await.unwrap_err();
        let error = group.flush(&broken, || Ok(())).await.unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Io);
        assert!(error.to_string().contains("the device is gone"), "{error}");
    }
}
