//! A lock for each key, for as long as somebody wants it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks by key; those that nobody holds or waits for take no memory.
#[derive(Debug)]
pub(crate) struct KeyedLocks<K: Ord> {
    locks: Mutex<BTreeMap<K, Arc<tokio::sync::Mutex<()>>>>,
}

impl<K: Ord + Clone> KeyedLocks<K> {
    pub(crate) fn new() -> Self {
        Self { locks: Mutex::new(BTreeMap::new()) }
    }

    /// Waits until nobody else holds `key`. First come, first served.
    pub(crate) async fn lock(&self, key: K) -> KeyGuard<'_, K> {
        let lock = self.locks().entry(key.clone()).or_default().clone();
        // Made before the wait, so that a dropped wait leaves nothing behind.
        let mut guard = KeyGuard { locks: self, key, held: None };
        guard.held = Some(lock.lock_owned().await);
        guard
    }

    fn locks(&self) -> MutexGuard<'_, BTreeMap<K, Arc<tokio::sync::Mutex<()>>>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds a key until dropped.
#[derive(Debug)]
pub(crate) struct KeyGuard<'a, K: Ord + Clone> {
    locks: &'a KeyedLocks<K>,
    key: K,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl<K: Ord + Clone> Drop for KeyGuard<'_, K> {
    fn drop(&mut self) {
        let mut locks = self.locks.locks();
        self.held = None;
        if locks.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// One key is held once, others are free, and nothing is left behind, even by a dropped wait.
    #[test]
    fn keys_are_apart() {
        let locks = KeyedLocks::new();
        let first = locks.lock(1).now_or_never();
        assert!(first.is_some() && locks.lock(2).now_or_never().is_some());
        assert!(locks.lock(1).now_or_never().is_none());
        drop(first);
        assert!(locks.lock(1).now_or_never().is_some());
        assert!(locks.locks().is_empty());
    }
}
