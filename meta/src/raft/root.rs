//! The store `raft`: the log, the vote, and who this server is.
//!
//! ```text
//! table log    index, u64 big endian  -> wire::Entry
//! table meta   "vote"                 -> wire::Vote
//!              "committed", "purged"  -> wire::LogId
//!              "format"               -> format version of all stores of the server, u64 big endian
//!              "server"               -> id of this server, u64 big endian
//!              "cluster"              -> id of its cluster, 16 bytes
//!              "founding"             -> wire::Bootstrap, on the server that founded the cluster
//!              "state"                -> number n of the current store `state-<n>`, u64 big endian
//! ```
//!
//! One store for all of it, so that a crash keeps a prefix of what was written in one order.

use bytes::Bytes;
use env::{Batch, Kv, Kvs, StorageError, StorageErrorKind, Table};
use proto::{ClusterId, InvalidInput, MetaId, wire};

use super::encoding;
use super::handle::{Handle, User};

/// Format of this store, of `state-<n>`, and of snapshots.
const FORMAT_VERSION: u64 = 1;
/// Name of the store.
const STORE: &str = "raft";
/// Entries.
pub(crate) const LOG: Table = "log";
/// Everything else.
pub(crate) const META: Table = "meta";

const FORMAT: &[u8] = b"format";
const SERVER: &[u8] = b"server";
const CLUSTER: &[u8] = b"cluster";
const FOUNDING: &[u8] = b"founding";
pub(super) const STATE: &[u8] = b"state";

/// The store `raft`. Clones are the same store.
#[derive(Clone, Debug)]
pub(crate) struct Root<K> {
    kv: Handle<K>,
}

/// Why a data directory is not this server's.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The store cannot be used.
    #[error("the store {STORE:?}: {0}")]
    Storage(#[from] StorageError),
    /// What the store says cannot be read.
    #[error("the store {STORE:?} is damaged: {0}; restore this server by adding it under a new id")]
    Damaged(InvalidInput),
    /// A newer version of this software has written it.
    #[error(
        "the data directory has format {found}, this version reads up to {FORMAT_VERSION}: upgrade this server"
    )]
    NewerFormat {
        /// As stored.
        found: u64,
    },
    /// Another server's.
    #[error(
        "the data directory belongs to meta-{found}, this server is meta-{own}: correct the id or the \
         directory; a server that lost its data must join under an id that was never used"
    )]
    OtherServer {
        /// As configured.
        own: u64,
        /// As stored.
        found: u64,
    },
}

impl<K: Kv> Root<K> {
    /// Opens the store of server `own`, and makes a new one its. What is found in it is durable.
    ///
    /// # Errors
    ///
    /// See [`RootError`].
    pub(crate) async fn open<S: Kvs<Kv = K>>(
        stores: &S,
        own: MetaId,
        user: &User,
    ) -> Result<Self, RootError> {
        let root = Self { kv: user.holding(stores.open(STORE, &[LOG, META]).await?) };
        match root.number(FORMAT)? {
            Some(found) if found > FORMAT_VERSION => return Err(RootError::NewerFormat { found }),
            Some(_) => {}
            None => root.put_durably(FORMAT, Bytes::copy_from_slice(&FORMAT_VERSION.to_be_bytes())).await?,
        }
        match root.number(SERVER)? {
            Some(found) if found == own.0 => {}
            Some(found) => return Err(RootError::OtherServer { own: own.0, found }),
            None => root.put_durably(SERVER, Bytes::copy_from_slice(&own.0.to_be_bytes())).await?,
        }
        // A process that died alone leaves what it had not flushed. Raft takes what it finds for durable, and
        // acknowledges it.
        root.kv.flush().await?;
        Ok(root)
    }

    pub(crate) fn kv(&self) -> &Handle<K> {
        &self.kv
    }

    /// The cluster that this server belongs to, once known.
    pub(crate) fn cluster(&self) -> Result<Option<ClusterId>, RootError> {
        let stored = self.kv.get(META, CLUSTER)?;
        stored.map(|id| ClusterId::from_wire(&id)).transpose().map_err(RootError::Damaged)
    }

    /// Remembers for good that this server belongs to `cluster`.
    pub(crate) async fn set_cluster(&self, cluster: ClusterId) -> Result<(), StorageError> {
        self.put_durably(CLUSTER, cluster.to_wire()).await
    }

    /// The founding that this server began, if it did.
    pub(crate) fn founding(&self) -> Result<Option<wire::Bootstrap>, RootError> {
        let stored = self.kv.get(META, FOUNDING)?;
        stored.map(|bytes| encoding::message("the founding", bytes)).transpose().map_err(RootError::Damaged)
    }

    /// Remembers for good that this server founds `cluster` with these members.
    pub(crate) async fn found(
        &self,
        cluster: ClusterId,
        founding: &wire::Bootstrap,
    ) -> Result<(), StorageError> {
        let mut batch = Batch::new();
        batch.put(META, CLUSTER, cluster.to_wire());
        batch.put(META, FOUNDING, encoding::bytes(founding));
        self.kv.write(batch)?;
        self.kv.flush().await
    }

    /// Number of the current state store; 0 for a new server.
    pub(crate) fn state_number(&self) -> Result<u64, RootError> {
        Ok(self.number(STATE)?.unwrap_or(0))
    }

    /// Makes another state store the current one.
    pub(crate) async fn set_state_number(&self, number: u64) -> Result<(), StorageError> {
        self.put_durably(STATE, Bytes::copy_from_slice(&number.to_be_bytes())).await
    }

    fn number(&self, key: &'static [u8]) -> Result<Option<u64>, RootError> {
        let Some(stored) = self.kv.get(META, key)? else { return Ok(None) };
        let bytes = <[u8; 8]>::try_from(&stored[..]).map_err(|_| {
            RootError::Damaged(InvalidInput::new(format!(
                "{} has {} bytes, expected 8",
                key.escape_ascii(),
                stored.len()
            )))
        })?;
        Ok(Some(u64::from_be_bytes(bytes)))
    }

    async fn put_durably(&self, key: &'static [u8], value: Bytes) -> Result<(), StorageError> {
        let mut batch = Batch::new();
        batch.put(META, key, value);
        self.kv.write(batch)?;
        self.kv.flush().await
    }
}

impl From<RootError> for StorageError {
    fn from(error: RootError) -> Self {
        match error {
            RootError::Storage(error) => error,
            other => Self::new(StorageErrorKind::Corrupt, other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use env::KvRead;

    use super::*;
    use crate::testing::{MemoryKvs, block_on};

    /// A directory stays its server's over a crash, another id is refused, and so is damage.
    #[test]
    fn directory_belongs_to_one_server() {
        block_on(async {
            let stores = MemoryKvs::new();
            let (user, _closed) = User::first();
            drop(Root::open(&stores, MetaId(1), &user).await.expect("new"));
            let stores = stores.crashed();
            let other = Root::open(&stores, MetaId(2), &user).await.expect_err("another id");
            assert!(matches!(other, RootError::OtherServer { own: 2, found: 1 }), "{other}");
            let root = Root::open(&stores, MetaId(1), &user).await.expect("same id");
            let mut batch = Batch::new();
            batch.put(META, SERVER, &b"x"[..]);
            root.kv.write(batch).expect("write");
            drop(root);
            let damaged = Root::open(&stores, MetaId(1), &user).await.expect_err("damaged");
            assert!(matches!(damaged, RootError::Damaged(_)), "{damaged}");
        });
    }

    /// A directory that a newer version has written is refused, not guessed at.
    #[test]
    fn newer_format_is_refused() {
        block_on(async {
            let stores = MemoryKvs::new();
            let (user, _closed) = User::first();
            let root = Root::open(&stores, MetaId(1), &user).await.expect("new");
            let newer = (FORMAT_VERSION + 1).to_be_bytes();
            root.put_durably(FORMAT, Bytes::copy_from_slice(&newer)).await.expect("written");
            drop(root);
            let refused = Root::open(&stores, MetaId(1), &user).await.expect_err("newer");
            assert!(matches!(refused, RootError::NewerFormat { found: 2 }), "{refused}");
        });
    }

    /// What a process wrote that died before its flush is durable once the next one has opened the store.
    #[test]
    fn what_is_found_is_durable() {
        block_on(async {
            let stores = MemoryKvs::new();
            let (user, _closed) = User::first();
            let root = Root::open(&stores, MetaId(1), &user).await.expect("new");
            let mut batch = Batch::new();
            batch.put(LOG, &b"entry"[..], &b"x"[..]);
            root.kv.write(batch).expect("write");
            drop(root);
            drop(Root::open(&stores, MetaId(1), &user).await.expect("again"));
            let root = Root::open(&stores.crashed(), MetaId(1), &user).await.expect("after a crash");
            assert_eq!(root.kv.get(LOG, b"entry").expect("read").as_deref(), Some(&b"x"[..]));
        });
    }

    /// What a server learned of its cluster survives a crash.
    #[test]
    fn cluster_survives_a_crash() {
        block_on(async {
            let stores = MemoryKvs::new();
            let (user, _closed) = User::first();
            let root = Root::open(&stores, MetaId(1), &user).await.expect("new");
            assert_eq!(root.cluster().expect("read"), None);
            assert_eq!(root.state_number().expect("read"), 0);
            let founding =
                wire::Bootstrap { members: vec![wire::Member { id: 1, address: "a:1".into(), voter: true }] };
            root.found(ClusterId(7), &founding).await.expect("found");
            root.set_state_number(3).await.expect("set");
            let root = Root::open(&stores.crashed(), MetaId(1), &user).await.expect("again");
            assert_eq!(root.cluster().expect("read"), Some(ClusterId(7)));
            assert_eq!(root.founding().expect("read"), Some(founding));
            assert_eq!(root.state_number().expect("read"), 3);
        });
    }
}
