//! Raft's messages to the other servers, over the ordinary calls.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use env::rpc::{CallError, Caller, Reply, Target};
use env::{Env, Expect};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use openraft::type_config::alias::CommittedLeaderIdOf;
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use proto::wire::request::Call;
use proto::wire::response::Result as Answer;
use proto::{Identity, InvalidInput, MetaId, wire};

use super::encoding;
use super::snapshot::SnapshotData;
use super::transfer::Chunks;
use super::types::{RaftPeer, TypeConfig, Vote};

/// Makes a client for each member.
#[derive(Clone)]
pub struct Network<E: Env> {
    id: MetaId,
    caller: Caller<E>,
    /// For appends with entries, which wait for the peer's disk.
    append_timeout: Duration,
}

/// Talks to one member. What is under way on one stream never waits for another: a connection has
/// many streams.
pub struct Peer<E: Env> {
    network: Network<E>,
    id: u64,
    target: Target,
}

impl<E: Env> Network<E> {
    /// For the server `id`. An append with entries may take `append_timeout`; all else what openraft
    /// says.
    pub fn new(id: MetaId, caller: Caller<E>, append_timeout: Duration) -> Self {
        Self { id, caller, append_timeout }
    }
}

impl<E: Env> RaftNetworkFactory<TypeConfig> for Network<E> {
    type Network = Peer<E>;

    async fn new_client(&mut self, target: u64, node: &RaftPeer) -> Peer<E> {
        let expect = Expect::Exactly(Identity::Meta(MetaId(target)));
        let address = node.address.clone();
        Peer { network: self.clone(), id: target, target: Target { address, expect } }
    }
}

impl<E: Env> Peer<E> {
    async fn ask(
        &self,
        action: RPCTypes,
        call: Call,
        timeout: Duration,
    ) -> Result<Answer, RPCError<TypeConfig>> {
        let reply = self.network.caller.call(&self.target, call, Vec::new(), timeout).await;
        reply.map(|reply: Reply| reply.result).map_err(|error| self.failed(action, error))
    }

    fn failed(&self, action: RPCTypes, error: CallError) -> RPCError<TypeConfig> {
        match error {
            CallError::TimedOut { after, .. } => {
                Timeout { action, id: self.network.id.0, target: self.id, timeout: after }.into()
            }
            // A peer that cannot be reached, or answers that it cannot: openraft pauses.
            error => Unreachable::new(&error).into(),
        }
    }

    fn unexpected(&self) -> RPCError<TypeConfig> {
        let sentence = format!("{} answered with another reply", self.target.address);
        Unreachable::new(&InvalidInput::new(sentence)).into()
    }

    async fn ask_vote(
        &self,
        request: VoteRequest<TypeConfig>,
        pre_vote: bool,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let call = Call::RaftVote(encoding::vote_request(self.id, &request, pre_vote));
        match self.ask(RPCTypes::Vote, call, option.soft_ttl()).await? {
            Answer::RaftVote(reply) => encoding::parse_vote_reply(reply).map_err(broken),
            _ => Err(self.unexpected()),
        }
    }
}

fn broken(error: InvalidInput) -> RPCError<TypeConfig> {
    Unreachable::new(&error).into()
}

impl<E: Env> RaftNetworkV2<TypeConfig> for Peer<E> {
    type SnapshotData = SnapshotData<E::Kvs>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let timeout =
            if request.entries.is_empty() { option.soft_ttl() } else { self.network.append_timeout };
        let call = Call::RaftAppend(encoding::append_request(self.id, &request));
        match self.ask(RPCTypes::AppendEntries, call, timeout).await? {
            Answer::RaftAppend(reply) => encoding::parse_append_reply(reply).map_err(broken),
            _ => Err(self.unexpected()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(request, false, option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(request, true, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<CommittedLeaderIdOf<TypeConfig>, u64, RaftPeer, SnapshotData<E::Kvs>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let unreadable = |error: io::Error| StreamingError::from(NetworkError::new(&error));
        let call = Call::RaftSnapshot(wire::RaftSnapshot {
            target: self.id,
            vote: Some(encoding::vote(&vote)),
            last_log_id: snapshot.meta.last_log_id.as_ref().map(encoding::log_id),
            membership: Some(encoding::stored_membership(&snapshot.meta.last_membership)),
            snapshot_id: format!("{:?}", snapshot.snapshot),
        });
        let mut chunks = Chunks::new(snapshot.snapshot.open().await.map_err(unreadable)?);
        let sending =
            self.network.caller.call_streaming(&self.target, call, option.soft_ttl(), || chunks.next());
        let reply = tokio::select! {
            biased;
            closed = pin!(cancel) => return Err(closed.into()),
            reply = sending => reply.map_err(|error| self.failed(RPCTypes::InstallSnapshot, error))?,
        };
        match reply.result {
            Answer::RaftSnapshot(reply) => {
                let vote = encoding::require_vote(reply.vote).map_err(broken)?;
                Ok(SnapshotResponse::new(vote))
            }
            _ => Err(self.unexpected().into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let call = Call::RaftHandOver(wire::RaftHandOver {
            target: self.id,
            from_leader: Some(encoding::vote(request.from_leader())),
            to: *request.to_node_id(),
            last_log_id: request.last_log_id().map(encoding::log_id),
        });
        match self.ask(RPCTypes::TransferLeader, call, option.soft_ttl()).await? {
            Answer::RaftHandOver(_) => Ok(Ok(())),
            _ => Err(self.unexpected()),
        }
    }
}
