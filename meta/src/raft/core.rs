//! openraft itself, and the only way to ask it anything.
//!
//! Some of openraft's methods look at the clock, or wait for a while, in the task of whoever calls
//! them. [`Core::ask`] makes that the clock of this host.

use std::future::Future;
use std::io;
use std::sync::Arc;

use env::{Clock, Env, Rng};
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Config, Raft, RaftMetrics};

use super::log::LogStore;
use super::machine::StateMachine;
use super::network::Network;
use super::runtime::{Host, HostInstant, host, scope};
use super::types::TypeConfig;

type RaftOf<E> = Raft<TypeConfig, StateMachine<<E as Env>::Kvs>>;

/// openraft on one host. Clones are the same.
pub(crate) struct Core<E: Env> {
    env: E,
    host: Arc<dyn Host>,
    raft: RaftOf<E>,
}

impl<E: Env> Clone for Core<E> {
    fn clone(&self) -> Self {
        Self { env: self.env.clone(), host: self.host.clone(), raft: self.raft.clone() }
    }
}

impl<E: Env> Core<E> {
    /// Starts openraft.
    pub(crate) async fn start(
        env: E,
        id: u64,
        config: Config,
        network: Network<E>,
        log: LogStore<<E::Kvs as env::Kvs>::Kv>,
        machine: StateMachine<E::Kvs>,
    ) -> io::Result<Self> {
        let host = host(env.spawn().clone(), env.clock().clone());
        let starting = Raft::new(id, Arc::new(config), network, log, machine);
        let raft = scope(host.clone(), env.rng().u64(), starting).await.map_err(io::Error::other)?;
        Ok(Self { env, host, raft })
    }

    /// Asks openraft, in the scope of this host. What dropping it leaves is for the question to say.
    pub(crate) async fn ask<'a, F: Future>(&'a self, question: impl FnOnce(&'a RaftOf<E>) -> F) -> F::Output {
        let asking = async move { question(&self.raft).await };
        scope(self.host.clone(), self.env.rng().u64(), asking).await
    }

    /// What openraft says of itself.
    pub(crate) fn metrics(&self) -> WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>> {
        self.raft.metrics()
    }

    /// The part of it that changes with elections and memberships only. Its channel is closed when openraft
    /// has ended; [`metrics`](Self::metrics) have the reason by then.
    pub(crate) fn server_metrics(&self) -> WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>> {
        self.raft.server_metrics()
    }

    /// The host's clock, to compare with times in [`metrics`](Self::metrics).
    pub(crate) fn now(&self) -> HostInstant {
        HostInstant::new(self.env.clock().now())
    }
}
