//! What openraft's own storage suite needs, for any [`Kvs`].

use std::future::Future;
use std::io;

use env::{Kvs, Spawn};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use proto::MetaId;

use super::handle::User;
use super::log::LogStore;
use super::machine::StateMachine;
use super::root::Root;
use super::types::TypeConfig;

/// Opens log and state machine as a server does.
///
/// # Errors
///
/// Those of the stores.
pub async fn open<S: Kvs>(stores: S, spawn: &impl Spawn) -> io::Result<(LogStore<S::Kv>, StateMachine<S>)> {
    let (user, _closed) = User::first();
    let root = Root::open(&stores, MetaId(1), &user).await.map_err(io::Error::other)?;
    let log = LogStore::open(spawn, &root)?;
    let machine = StateMachine::open(stores, root, &user).await?;
    Ok((log, machine))
}

struct Builder<P, F> {
    spawn: P,
    make: F,
}

impl<S, G, P, F, Made> StoreBuilder<TypeConfig, LogStore<S::Kv>, StateMachine<S>, G> for Builder<P, F>
where
    S: Kvs,
    G: Send + Sync + 'static,
    P: Spawn,
    F: Fn() -> Made + Send + Sync,
    Made: Future<Output = (G, S)> + Send,
{
    async fn build(&self) -> Result<(G, LogStore<S::Kv>, StateMachine<S>), StorageError<TypeConfig>> {
        let (guard, stores) = (self.make)().await;
        let opened = open(stores, &self.spawn).await;
        let (log, machine) = opened.map_err(|error| StorageError::read(boxed(&error)))?;
        Ok((guard, log, machine))
    }
}

fn boxed(error: &io::Error) -> openraft::type_config::alias::ErrorSourceOf<TypeConfig> {
    openraft::errors::ErrorSource::from_error(error)
}

/// Runs openraft's storage suite. `make` gives fresh stores each time, with a guard that is dropped
/// after them.
///
/// # Errors
///
/// The first test that fails by an error; the others fail by panic.
pub async fn run_suite<S, G, F, Made>(spawn: impl Spawn, make: F) -> Result<(), StorageError<TypeConfig>>
where
    S: Kvs,
    G: Send + Sync + 'static,
    F: Fn() -> Made + Send + Sync,
    Made: Future<Output = (G, S)> + Send,
{
    Suite::test_all(Builder { spawn, make }).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{MemoryKvs, RuntimeSpawn, block_on};

    /// openraft's storage suite passes on stores in memory.
    #[test]
    fn openraft_suite() {
        block_on(async {
            run_suite(RuntimeSpawn, || async { ((), MemoryKvs::new()) }).await.expect("suite");
        });
    }
}
