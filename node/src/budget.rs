//! A bound on the memory that payloads take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proto::{ErrorCode, Failure};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many bytes in use at once; who wants more waits, and who would be one waiter too many is
/// refused.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    bytes: u32,
    free: Arc<Semaphore>,
    waiters: Arc<AtomicUsize>,
    waiters_max: usize,
}

/// Bytes that are in use until this is dropped.
#[derive(Debug)]
pub(crate) struct Spent {
    _permit: OwnedSemaphorePermit,
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Budget {
    pub(crate) fn new(bytes: u32, waiters_max: usize) -> Self {
        let free = Arc::new(Semaphore::new(usize::try_from(bytes).unwrap_or(usize::MAX)));
        Self { bytes, free, waiters: Arc::default(), waiters_max }
    }

    /// Waits until `bytes` are free; more than there are altogether counts as all of them. First
    /// come, first served, whatever the size.
    ///
    /// # Errors
    ///
    /// `Overloaded` when too many wait already, `Unavailable` when the node stops.
    pub(crate) async fn spend(&self, bytes: usize) -> Result<Spent, Failure> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes);
        if self.waiters.fetch_add(1, Ordering::SeqCst) >= self.waiters_max {
            self.waiters.fetch_sub(1, Ordering::SeqCst);
            return Err(Failure::new(ErrorCode::Overloaded, "too many requests wait for memory"));
        }
        let _waiting = Waiting(&self.waiters);
        match self.free.clone().acquire_many_owned(bytes).await {
            Ok(permit) => Ok(Spent { _permit: permit }),
            Err(_) => Err(Failure::new(ErrorCode::Unavailable, "the node is stopping")),
        }
    }

    /// Waits until nothing is in use, and refuses from then on.
    pub(crate) async fn close(&self) {
        let all = self.free.acquire_many(self.bytes).await;
        self.refuse();
        drop(all);
    }

    /// Refuses from now on; what is in use stays so.
    pub(crate) fn refuse(&self) {
        self.free.close();
    }
}

impl Spent {
    /// Keeps the bytes in use for as long as `bytes` lives.
    pub(crate) fn attach(self, bytes: Bytes) -> Bytes {
        struct Owner {
            bytes: Bytes,
            _spent: Spent,
        }
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        Bytes::from_owner(Owner { bytes, _spent: self })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// What is in use is bounded, waiters too, and freed bytes serve the next.
    #[test]
    fn bytes_and_waiters_are_bounded() {
        let budget = Budget::new(100, 1);
        let first = budget.spend(1000).now_or_never().unwrap().unwrap();
        let bytes = first.attach(Bytes::from_static(b"x"));
        let mut waiting = Box::pin(budget.spend(1));
        assert!(waiting.as_mut().now_or_never().is_none());
        let refused = budget.spend(1).now_or_never().unwrap().unwrap_err();
        assert_eq!(refused.code, ErrorCode::Overloaded);
        drop(bytes);
        assert!(waiting.as_mut().now_or_never().unwrap().is_ok());
        drop(waiting);
        assert!(budget.close().now_or_never().is_some());
        assert_eq!(budget.spend(1).now_or_never().unwrap().unwrap_err().code, ErrorCode::Unavailable);
    }
}
