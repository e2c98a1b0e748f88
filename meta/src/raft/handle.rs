//! Stores whose last user can be waited for: a directory can be opened again only when nobody, some
//! task of openraft included, has it open any more.

use std::convert::Infallible;
use std::io;
use std::ops::Deref;

use env::StorageError;
use tokio::sync::mpsc;

/// An open store. Clones are the same store.
#[derive(Clone, Debug)]
pub(crate) struct Handle<K> {
    // Dropped first: when the last user is gone, the store is closed.
    kv: K,
    _user: User,
}

/// Somebody who uses the stores of a server.
#[derive(Clone, Debug)]
pub(crate) struct User {
    // Held; nothing can be sent.
    _alive: mpsc::Sender<Infallible>,
}

/// Waits for the last [`User`].
#[derive(Debug)]
pub(crate) struct Closed(mpsc::Receiver<Infallible>);

impl User {
    /// The first user, and how to wait for the last.
    pub(crate) fn first() -> (Self, Closed) {
        let (sender, receiver) = mpsc::channel(1);
        (Self { _alive: sender }, Closed(receiver))
    }

    /// A store in use.
    pub(crate) fn holding<K>(&self, kv: K) -> Handle<K> {
        Handle { kv, _user: self.clone() }
    }
}

impl Closed {
    /// Returns when nobody uses a store any more.
    pub(crate) async fn wait(&mut self) {
        while self.0.recv().await.is_some() {}
    }
}

impl<K> Deref for Handle<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.kv
    }
}

/// As openraft wants errors of storage: any of them stops it.
pub(crate) fn io_error(error: StorageError) -> io::Error {
    io::Error::other(error)
}

/// What was read cannot be what was written.
pub(crate) fn corrupt(error: proto::InvalidInput) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
