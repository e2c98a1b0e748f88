//! Requests about the servers themselves: founding a cluster, its members, its status.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use env::{Clock, Env, Rng, Spawn};
use proto::limits::TIMEOUT_MS_MAX;
use proto::wire::command::Action;
use proto::{ClusterId, DiskId, ErrorCode, Failure, InvalidInput, MetaId, NodeId, wire};
use tokio::sync::oneshot;
use tracing::info;

use super::service::{Shared, failed};
use crate::raft::types::RaftPeer;
use crate::state::status;

/// Between two looks at whether the founding is done.
const FOUNDING_PAUSE: Duration = Duration::from_millis(50);
/// How long a founding waits for members that do not answer yet.
const INVITATIONS_TIMEOUT: Duration = Duration::from_secs(15);
/// Time for a change of membership that its caller no longer waits for.
const MEMBERSHIP_TIMEOUT: Duration = Duration::from_millis(TIMEOUT_MS_MAX);
/// Longest wait for a new leader.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);
/// Members that a cluster may be founded with.
const MEMBERS_MAX: usize = 9;

impl<E: Env> Shared<E> {
    pub(super) fn cluster_info(&self) -> wire::ClusterInfoReply {
        wire::ClusterInfoReply {
            cluster_id: self.local.cluster().map(ClusterId::to_wire).unwrap_or_default(),
            leader_id: self.node.standing().leader.map_or(0, |leader| leader.0),
            members: self.node.members(),
        }
    }

    /// Founds a cluster: the one act that makes a cluster id. Asked again after it broke off, with
    /// the same members, it finishes.
    pub(super) async fn bootstrap(&self, request: wire::Bootstrap) -> Result<wire::BootstrapReply, Failure> {
        let members = parse_members(self.options.id, &request)?;
        let cluster = {
            let _joining = self.joining.lock().await;
            let cluster = self.begin_founding(&request).await?;
            self.local.join(cluster)?;
            cluster
        };
        if !self.node.is_initialized().await? {
            self.invite_all(&members).await?;
            self.node.initialize(members).await?;
        }
        while !self.is_founded() {
            if self.node.standing().leads {
                self.found(cluster).await?;
            } else {
                // Fails when this server is stopping.
                self.node.is_initialized().await?;
                self.env.clock().sleep(FOUNDING_PAUSE).await;
            }
        }
        info!(%cluster, "cluster founded");
        Ok(wire::BootstrapReply { cluster_id: cluster.to_wire() })
    }

    /// Invites the other members before there is anything to agree on: from then on each of them knows
    /// that it takes part, and one that later knows nothing has lost its data.
    async fn invite_all(&self, members: &BTreeMap<u64, RaftPeer>) -> Result<(), Failure> {
        let clock = self.env.clock();
        let deadline = clock.now().after(INVITATIONS_TIMEOUT);
        for (id, peer) in members.iter().filter(|(id, _)| **id != self.options.id.0) {
            while let Err(failure) = self.invite(MetaId(*id), &peer.address).await {
                // It may be starting just now.
                if failure.code != ErrorCode::Unavailable || clock.now() >= deadline {
                    return Err(failure);
                }
                clock.sleep(FOUNDING_PAUSE).await;
            }
        }
        Ok(())
    }

    /// The id of the cluster that this server founds, made durable before anybody hears it.
    async fn begin_founding(&self, request: &wire::Bootstrap) -> Result<ClusterId, Failure> {
        let store = |error: &dyn std::fmt::Display| {
            Failure::new(ErrorCode::Internal, format!("the store \"raft\": {error}"))
        };
        let founded = |sentence: String| Failure::new(ErrorCode::AlreadyBootstrapped, sentence);
        let Some(cluster) = self.root.cluster().map_err(|error| store(&error))? else {
            if self.node.is_initialized().await? {
                let sentence = "this metadata server has a log but no cluster: its data is damaged";
                return Err(Failure::new(ErrorCode::Internal, sentence));
            }
            let cluster = ClusterId(self.env.rng().u128());
            self.root.found(cluster, request).await.map_err(|error| store(&error))?;
            return Ok(cluster);
        };
        match self.root.founding().map_err(|error| store(&error))? {
            None => Err(founded(format!("this metadata server belongs to cluster {cluster} already"))),
            Some(_) if self.is_founded() => Err(founded(format!("cluster {cluster} is founded already"))),
            Some(begun) if begun == *request => Ok(cluster),
            Some(begun) => Err(founded(format!(
                "the founding of cluster {cluster} was begun with other members: {}; repeat it with these",
                begun.members.iter().map(|m| format!("{}={}", m.id, m.address)).collect::<Vec<_>>().join(" ")
            ))),
        }
    }

    pub(super) fn is_founded(&self) -> bool {
        self.node.replica().read(|machine, _| !machine.cluster_id().is_empty())
    }

    /// Puts the cluster's id into the state; nothing happens when it is there already.
    pub(super) async fn found(&self, cluster: ClusterId) -> Result<(), Failure> {
        let found = Action::FoundCluster(wire::FoundCluster { cluster_id: cluster.to_wire() });
        match self.propose(found).await {
            // Leadership moved on: whoever leads founds.
            Err(failure) if failure.code == ErrorCode::NotLeader => Ok(()),
            result => result.map(drop),
        }
    }

    pub(super) async fn status(&self) -> Result<wire::GetStatusReply, Failure> {
        self.node.linearize().await?;
        let standing = self.node.standing();
        let now = self.env.clock().now();
        let members = self.node.member_status();
        let applied_index = self.node.applied_index();
        let reply = self.node.replica().read(|machine, kv| {
            let mut reply = status::get_status(machine, kv)?;
            let watch = self.watch(standing.term);
            for node in &mut reply.nodes {
                let id = node.node.as_ref().map(|node| NodeId(node.id));
                let heard = id.and_then(|id| watch.liveness.heard_ago(id, now));
                node.heard_ms_ago = heard.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX));
            }
            for disk in &mut reply.disks {
                let id = disk.disk.as_ref().map(|disk| DiskId(disk.id));
                let report = id.and_then(|id| watch.liveness.report(machine.map(), id));
                disk.report = report.cloned().or(disk.report.take());
            }
            Ok(reply)
        });
        let mut reply = reply.map_err(failed)?;
        reply.fullness = Some(self.options.fullness.into());
        reply.leader_id = standing.leader.map_or(0, |leader| leader.0);
        reply.term = standing.term;
        reply.applied_index = applied_index;
        reply.members = members;
        Ok(reply)
    }

    pub(super) async fn add_member(
        self: &Arc<Self>,
        request: wire::AddMember,
    ) -> Result<wire::AddMemberReply, Failure> {
        check_address(&request.address)?;
        if request.id == 0 {
            return Err(InvalidInput::new("a metadata server's id cannot be 0").into());
        }
        if !self.node.standing().leads {
            return Err(self.node.not_leader_now());
        }
        // Only who is no member yet: one that was invited and knows nothing of it has lost its data.
        if !self.node.members().iter().any(|member| member.id == request.id) {
            self.invite(MetaId(request.id), &request.address).await?;
        }
        let node = self.node.clone();
        let work = async move { node.add_member(MetaId(request.id), request.address).await };
        self.unbroken(work).await.map(|()| wire::AddMemberReply {})
    }

    pub(super) async fn remove_member(
        self: &Arc<Self>,
        request: wire::RemoveMember,
    ) -> Result<wire::RemoveMemberReply, Failure> {
        let node = self.node.clone();
        let work = async move { node.remove_member(MetaId(request.id)).await };
        self.unbroken(work).await.map(|()| wire::RemoveMemberReply {})
    }

    pub(super) async fn transfer_leader(
        &self,
        request: wire::TransferLeader,
        timeout: Duration,
    ) -> Result<wire::TransferLeaderReply, Failure> {
        self.node.transfer_leader(MetaId(request.to), timeout.min(TRANSFER_TIMEOUT)).await?;
        Ok(wire::TransferLeaderReply {})
    }

    /// Runs work in a task of its own: it goes on when its caller has gone.
    async fn unbroken<F>(&self, work: F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let (sender, result) = oneshot::channel();
        let clock = self.env.clock().clone();
        self.env.spawn().spawn("membership", async move {
            if let Ok(result) = clock.timeout(MEMBERSHIP_TIMEOUT, work).await {
                // Nobody may be waiting any more.
                drop(sender.send(result));
            }
        });
        let given_up = |_| Failure::new(ErrorCode::Unavailable, "the change took too long and was given up");
        result.await.map_err(given_up)?
    }
}

fn parse_members(own: MetaId, request: &wire::Bootstrap) -> Result<BTreeMap<u64, RaftPeer>, InvalidInput> {
    if request.members.len() > MEMBERS_MAX {
        return Err(InvalidInput::new(format!("a cluster is founded with at most {MEMBERS_MAX} servers")));
    }
    let mut members = BTreeMap::new();
    for member in &request.members {
        check_address(&member.address)?;
        if member.id == 0 || !member.voter {
            return Err(InvalidInput::new(format!(
                "member {} must be a voter with an id above 0",
                member.id
            )));
        }
        if members.insert(member.id, RaftPeer { address: member.address.clone() }).is_some() {
            return Err(InvalidInput::new(format!("member {} is named twice", member.id)));
        }
    }
    if !members.contains_key(&own.0) {
        return Err(InvalidInput::new(format!(
            "this server, meta-{own}, is not among the members: name it too"
        )));
    }
    Ok(members)
}

fn check_address(address: &str) -> Result<(), InvalidInput> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    if address.len() <= 255 && port.and_then(|port| port.parse::<u16>().ok()).is_some_and(|port| port != 0) {
        return Ok(());
    }
    Err(InvalidInput::new(format!("{address:?} is no address: expected host:port")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A founding names this server, each member once, with an address that others can reach.
    #[test]
    fn members_are_checked() {
        let member = |id, address: &str, voter| wire::Member { id, address: address.into(), voter };
        let parse = |members| parse_members(MetaId(1), &wire::Bootstrap { members });
        assert_eq!(parse(vec![member(1, "a:1", true), member(2, "[::1]:2", true)]).map(|m| m.len()), Ok(2));
        for (why, members) in [
            ("empty", vec![]),
            ("without this server", vec![member(2, "a:1", true)]),
            ("twice", vec![member(1, "a:1", true), member(1, "b:1", true)]),
            ("id 0", vec![member(1, "a:1", true), member(0, "b:1", true)]),
            ("learner", vec![member(1, "a:1", false)]),
            ("no port", vec![member(1, "a", true)]),
            ("port 0", vec![member(1, "a:0", true)]),
            ("no host", vec![member(1, ":1", true)]),
        ] {
            assert!(parse(members).is_err(), "{why}");
        }
    }
}
