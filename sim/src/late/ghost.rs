//! The machine of an old process. It has the certificate of somebody who has a machine already.

use std::time::Duration;

use bytes::Bytes;
use env::Expect;
use env::rpc::{CallError, Caller, Leader, Local, Reply, Target};
use proto::wire::request::Call;
use proto::{Identity, NodeId};
use simhost::{Host, SimEnv};

use crate::cluster::{Cluster, TENANT};
use crate::process::lock;

/// Time for a call to a node.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for a call of the metadata service, all attempts together.
const META_TIMEOUT: Duration = Duration::from_secs(4);

/// A machine that no fault touches. Clones are the same.
#[derive(Clone)]
pub(super) struct Ghost {
    caller: Caller<SimEnv>,
    host: Host,
}

impl Ghost {
    /// The one with the tenant's certificate.
    pub(super) fn of_tenant(cluster: &Cluster) -> Self {
        // The tenant's name is well-formed.
        let identity = format!("tenant/{TENANT}").parse().unwrap_or_else(|error| unreachable!("{error}"));
        Self::of(cluster, identity)
    }

    /// The one with a node's certificate.
    pub(super) fn of_node(cluster: &Cluster, node: NodeId) -> Self {
        Self::of(cluster, Identity::Node(node))
    }

    fn of(cluster: &Cluster, identity: Identity) -> Self {
        let mut ghosts = lock(&cluster.late.ghosts);
        if let Some(known) = ghosts.get(&identity) {
            return known.clone();
        }
        let host = cluster.world.add_host(&format!("late-{identity}"), identity.clone());
        lock(&cluster.late.hosts).insert(host.id());
        let made = Self { caller: Caller::new(host.boot(), Local::new()), host };
        ghosts.insert(identity, made.clone());
        made
    }

    /// The machine.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// Asks whoever leads the metadata servers.
    pub(super) async fn ask_meta(&self, cluster: &Cluster, call: Call) -> Result<Reply, CallError> {
        let leader = Leader::new(self.caller.clone(), cluster.meta_addresses());
        leader.call(call, META_TIMEOUT).await
    }

    /// Asks a node, once. None when there is no such node.
    pub(super) async fn ask_node(
        &self,
        cluster: &Cluster,
        node: NodeId,
        call: Call,
        payload: Vec<Bytes>,
    ) -> Option<Result<Reply, CallError>> {
        let address = cluster.nodes().iter().find(|known| known.id == node)?.address();
        let target = Target { address, expect: Expect::Exactly(Identity::Node(node)) };
        Some(self.caller.call(&target, call, payload, NODE_TIMEOUT).await)
    }
}
