//! One server's part in Raft, in the words of this crate.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use env::rpc::{Caller, Payload};
use env::{Clock, Connection, Elapsed, Env, Net};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{
    ClientWriteError, Fatal, ForwardToLeader, InitializeError, LinearizableReadError, RaftError,
};
use openraft::metrics::RaftServerMetrics;
use openraft::raft::TransferLeaderRequest;
use openraft::storage::Snapshot;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{ChangeMembers, Config, Instant, RaftMetrics, ReadPolicy, SnapshotPolicy};
use proto::{Detail, ErrorCode, Failure, InvalidInput, MetaId, wire};

use super::core::Core;
use super::encoding;
use super::handle::User;
use super::log::LogStore;
use super::machine::StateMachine;
use super::network::Network;
use super::replica::Replica;
use super::root::Root;
use super::snapshot::{SnapshotData, Source};
use super::transfer;
use super::types::{Proposal, RaftPeer, TypeConfig};
use crate::options::RaftTimings;

/// Entries that one append may carry; their bytes are bounded as well, by the log's reader.
const PAYLOAD_ENTRIES_MAX: u64 = 512;
/// Entries kept behind a snapshot, for followers that are a little behind.
const ENTRIES_KEPT_MAX: u64 = 5_000;
/// Requests that may wait before openraft; what comes beyond waits outside.
const CORE_QUEUE: u64 = 4096;
/// Time for one transfer of a snapshot: the longest that a request may take.
const SNAPSHOT_TIMEOUT_MS: u64 = proto::limits::TIMEOUT_MS_MAX;

type RecvOf<E> = <<<E as Env>::Net as Net>::Connection as Connection>::Recv;

/// One server's part in Raft. Clones are the same.
pub struct Node<E: Env> {
    env: E,
    id: MetaId,
    core: Core<E>,
    machine: StateMachine<E::Kvs>,
}

impl<E: Env> Clone for Node<E> {
    fn clone(&self) -> Self {
        Self { env: self.env.clone(), id: self.id, core: self.core.clone(), machine: self.machine.clone() }
    }
}

/// Who leads, as this server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The term; each has one leader at most.
    pub term: u64,
    /// The leader, if one is known.
    pub leader: Option<MetaId>,
    /// Is it this server?
    pub leads: bool,
}

/// Waits for the end of openraft.
pub(crate) struct Ending {
    metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    /// Closed at the end. The metrics themselves would wake whoever waits at each entry of the log.
    open: WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>,
}

impl Ending {
    /// Returns when openraft has ended, with the reason.
    pub(crate) async fn reason(&self) -> String {
        let mut open = self.open.clone();
        while open.changed().await.is_ok() {}
        match &self.metrics.borrow_watched().running_state {
            Err(fatal) => fatal.to_string(),
            Ok(()) => "its task is gone".to_owned(),
        }
    }
}

impl<E: Env> Node<E> {
    /// Opens the stores and takes part from now on.
    pub(crate) async fn start(
        env: E,
        id: MetaId,
        timings: &RaftTimings,
        root: Root<<E::Kvs as env::Kvs>::Kv>,
        user: &User,
        caller: Caller<E>,
    ) -> io::Result<Self> {
        let config = config(timings).validate().map_err(io::Error::other)?;
        let log = LogStore::open(env.spawn(), &root)?;
        let machine = StateMachine::open(env.kvs().clone(), root, user).await?;
        let network = Network::new(id, caller, timings.election_min.max(Duration::from_secs(1)));
        let core = Core::start(env.clone(), id.0, config, network, log, machine.clone()).await?;
        Ok(Self { env, id, core, machine })
    }

    /// The state, for questions.
    pub fn replica(&self) -> &Replica<<E::Kvs as env::Kvs>::Kv> {
        self.machine.replica()
    }

    /// Who leads.
    pub fn standing(&self) -> Standing {
        let metrics = self.core.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader.map(MetaId);
        let leads = leader == Some(self.id) && metrics.state.is_leader();
        Standing { term: metrics.current_term, leader, leads }
    }

    /// Has this server a log, or a place in a cluster?
    ///
    /// # Errors
    ///
    /// `Unavailable` when this server is stopping.
    pub async fn is_initialized(&self) -> Result<bool, Failure> {
        self.core.ask(|raft| raft.is_initialized()).await.map_err(|fatal| stopped(&fatal))
    }

    /// Proposes a command, and waits until it is committed and applied here. Dropping this leaves
    /// open whether it will be.
    ///
    /// # Errors
    ///
    /// `NotLeader` with the leader, if known; the command may have been committed nevertheless when
    /// leadership was lost meanwhile. `Unavailable` when this server is stopping.
    pub async fn propose(&self, command: &wire::Command) -> Result<wire::Outcome, Failure> {
        let proposal = Proposal::new(command);
        match self.core.ask(|raft| raft.client_write(proposal)).await {
            Ok(written) => Ok(written.data.0),
            Err(error) => Err(self.write_failed(error)),
        }
    }

    /// Returns when the state here has all that was committed before the call, proven by a majority.
    ///
    /// # Errors
    ///
    /// `NotLeader`; `Unavailable` when no majority answers.
    pub async fn linearize(&self) -> Result<(), Failure> {
        match self.core.ask(|raft| raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => Err(self.not_leader(&to)),
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(Failure::new(
                ErrorCode::Unavailable,
                "the leader reaches no majority of metadata servers",
            )),
            Err(RaftError::Fatal(fatal)) => Err(stopped(&fatal)),
        }
    }

    /// Begins a cluster of these members, this server among them. Once it has begun, nothing happens.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` when this server is not a member.
    pub async fn initialize(&self, members: BTreeMap<u64, RaftPeer>) -> Result<(), Failure> {
        match self.core.ask(|raft| raft.initialize(members)).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotInMembers(error))) => {
                Err(InvalidInput::new(error.to_string()).into())
            }
            Err(RaftError::Fatal(fatal)) => Err(stopped(&fatal)),
        }
    }

    /// Members, as the newest configuration that this server has says.
    pub fn members(&self) -> Vec<wire::Member> {
        members_of(&self.core.metrics().borrow_watched())
    }

    /// What an object that lies in the metadata record alone withstands: a minority of the voters may
    /// lose their disks. In which racks metadata servers stand is not known here: none is promised.
    pub fn withstands(&self) -> wire::Tolerance {
        let voters = self.members().iter().filter(|member| member.voter).count();
        let minority = u32::try_from(voters.saturating_sub(1) / 2).unwrap_or(u32::MAX);
        wire::Tolerance { disks: minority, nodes: minority, racks: 0 }
    }

    /// Members, with what the leader knows of them when this server is it.
    pub fn member_status(&self) -> Vec<wire::MemberStatus> {
        let now = self.core.now();
        let metrics = self.core.metrics();
        let metrics = metrics.borrow_watched();
        let matched = |id: u64| {
            let known = metrics.replication.as_ref().and_then(|known| *known.get(&id)?);
            let own = (id == self.id.0).then_some(metrics.last_log_index).flatten();
            own.or_else(|| known.map(|matched| matched.index)).unwrap_or(0)
        };
        let answered = |id: u64| {
            let heard = metrics.heartbeat.as_ref()?.get(&id)?.as_ref()?;
            let ago = now.saturating_duration_since(**heard);
            Some(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))
        };
        let status = |member: wire::Member| wire::MemberStatus {
            matched_index: matched(member.id),
            is_leader: metrics.current_leader == Some(member.id),
            answered_ms_ago: if member.id == self.id.0 { Some(0) } else { answered(member.id) },
            member: Some(member),
        };
        members_of(&metrics).into_iter().map(status).collect()
    }

    /// Index of the last entry applied here; 0 before the first.
    pub fn applied_index(&self) -> u64 {
        self.replica().live().meta().last_log_id.as_ref().map_or(0, |applied| applied.index)
    }

    /// Makes a server a voter: first it gets the log, then a voice. Repeating it finishes what was
    /// begun. Must not be dropped halfway: run it in a task of its own.
    ///
    /// # Errors
    ///
    /// `NotLeader`; `MembershipRefused` when another change is under way or the id has another
    /// address.
    pub async fn add_member(&self, id: MetaId, address: String) -> Result<(), Failure> {
        let known = self.members().into_iter().find(|member| member.id == id.0);
        if let Some(other) = known.as_ref().filter(|member| member.address != address) {
            let sentence = format!(
                "meta-{id} is a member at {}: remove it first, and give the new one a new id",
                other.address
            );
            return Err(Failure::new(ErrorCode::MembershipRefused, sentence));
        }
        if known.is_none_or(|member| !member.voter) {
            let added = self.core.ask(|raft| raft.add_learner(id.0, RaftPeer { address }, true)).await;
            added.map_err(|error| self.write_failed(error))?;
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id.0]))).await
    }

    /// Takes a member out. Its id is never used again. Must not be dropped halfway: run it in a task
    /// of its own.
    ///
    /// # Errors
    ///
    /// `NotLeader`; `MembershipRefused` when it is the last voter or another change is under way.
    pub async fn remove_member(&self, id: MetaId) -> Result<(), Failure> {
        let members = self.members();
        let Some(member) = members.iter().find(|member| member.id == id.0) else {
            // Taken out already; a change that was begun is finished.
            return self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id.0]))).await;
        };
        if member.voter && members.iter().filter(|member| member.voter).count() == 1 {
            let sentence = format!("meta-{id} is the last voter: add another server first");
            return Err(Failure::new(ErrorCode::MembershipRefused, sentence));
        }
        let ids = BTreeSet::from([id.0]);
        self.change(if member.voter {
            ChangeMembers::RemoveVoters(ids)
        } else {
            ChangeMembers::RemoveNodes(ids)
        })
        .await
    }

    /// Finishes a change of membership whose leader was lost halfway.
    pub(crate) async fn settle_membership(&self) -> Result<(), Failure> {
        let metrics = self.core.metrics();
        if metrics.borrow_watched().membership_config.get_joint_config().len() < 2 {
            return Ok(());
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::new())).await
    }

    async fn change(&self, change: ChangeMembers<u64, RaftPeer>) -> Result<(), Failure> {
        let changed = self.core.ask(|raft| raft.change_membership(change, false)).await;
        changed.map(|_| ()).map_err(|error| self.write_failed(error))
    }

    /// Hands leadership to `to`, and waits for it, `timeout` at most.
    ///
    /// # Errors
    ///
    /// `NotLeader`; `InvalidRequest` when `to` is no voter; `Unavailable` when it did not take over
    /// in time, and this server may lead on.
    pub async fn transfer_leader(&self, to: MetaId, timeout: Duration) -> Result<(), Failure> {
        if !self.standing().leads {
            return Err(self.not_leader_now());
        }
        if !self.members().iter().any(|member| member.id == to.0 && member.voter) {
            return Err(InvalidInput::new(format!("meta-{to} is not a voter of this cluster")).into());
        }
        if to == self.id {
            return Ok(());
        }
        let told = self.core.ask(|raft| async { raft.trigger().transfer_leader(to.0).await });
        told.await.map_err(|fatal| stopped(&fatal))?;
        let mut metrics = self.core.metrics();
        let taken_over = async {
            while metrics.borrow_watched().current_leader != Some(to.0) {
                if metrics.changed().await.is_err() {
                    break;
                }
            }
        };
        self.env.clock().timeout(timeout, taken_over).await.map_err(|Elapsed| {
            Failure::new(ErrorCode::Unavailable, format!("meta-{to} has not taken over; look at its log"))
        })
    }

    /// The voter that has most of the log, other than this server.
    pub fn best_successor(&self) -> Option<MetaId> {
        let status = self.member_status();
        let others = status.into_iter().filter_map(|status| {
            let member = status.member.filter(|member| member.voter && member.id != self.id.0)?;
            Some((status.matched_index, member.id))
        });
        others.max().map(|(_, id)| MetaId(id))
    }

    /// Answers a candidate.
    ///
    /// # Errors
    ///
    /// `InvalidRequest`; `Unavailable` when this server is stopping.
    pub async fn on_vote(&self, request: wire::RaftVote) -> Result<wire::RaftVoteReply, Failure> {
        self.check_target(request.target)?;
        let pre_vote = request.pre_vote;
        let request = encoding::parse_vote_request(request)?;
        let reply = self.core.ask(|raft| async {
            if pre_vote { raft.pre_vote(request).await } else { raft.vote(request).await }
        });
        reply.await.map(|reply| encoding::vote_reply(&reply)).map_err(|error| raft_stopped(&error))
    }

    /// Takes entries from the leader.
    ///
    /// # Errors
    ///
    /// As [`on_vote`](Self::on_vote).
    pub async fn on_append(&self, request: wire::RaftAppend) -> Result<wire::RaftAppendReply, Failure> {
        self.check_target(request.target)?;
        let request = encoding::parse_append_request(request)?;
        let reply = self.core.ask(|raft| raft.append_entries(request)).await;
        reply.map(|reply| encoding::append_reply(&reply)).map_err(|error| raft_stopped(&error))
    }

    /// Takes a snapshot from the leader. Dropping this leaves nothing that matters.
    ///
    /// # Errors
    ///
    /// As [`on_vote`](Self::on_vote); `ChecksumMismatch` when it arrived damaged.
    pub async fn on_snapshot(
        &self,
        request: wire::RaftSnapshot,
        payload: &mut Payload<RecvOf<E>>,
    ) -> Result<wire::RaftSnapshotReply, Failure> {
        self.check_target(request.target)?;
        let vote = encoding::require_vote(request.vote)?;
        let own = self.core.metrics().borrow_watched().vote;
        if own > vote {
            // A leader of the past: its rows need not travel.
            return Ok(wire::RaftSnapshotReply { vote: Some(encoding::vote(&own)) });
        }
        let meta = encoding::parse_snapshot_meta(request.last_log_id.as_ref(), request.membership)?;
        tracing::info!(snapshot = request.snapshot_id, %meta, "receiving a snapshot");
        let spare = transfer::receive::<E>(self.machine.spares(), payload).await?;
        let snapshot = Snapshot { meta, snapshot: SnapshotData { source: Source::Received(spare) } };
        let reply = self.core.ask(|raft| raft.install_full_snapshot(vote, snapshot)).await;
        let reply = reply.map_err(|fatal| stopped(&fatal))?;
        tracing::info!(snapshot = request.snapshot_id, "snapshot installed");
        Ok(wire::RaftSnapshotReply { vote: Some(encoding::vote(&reply.vote)) })
    }

    /// Hears that the leader hands over.
    ///
    /// # Errors
    ///
    /// As [`on_vote`](Self::on_vote); `Unavailable` when this server cannot take over now.
    pub async fn on_hand_over(
        &self,
        request: wire::RaftHandOver,
    ) -> Result<wire::RaftHandOverReply, Failure> {
        self.check_target(request.target)?;
        let from = encoding::require_vote(request.from_leader)?;
        let last = request.last_log_id.as_ref().map(encoding::parse_log_id);
        let request = TransferLeaderRequest::new(from, request.to, last);
        match self.core.ask(|raft| raft.handle_transfer_leader(request)).await {
            Ok(Ok(())) => Ok(wire::RaftHandOverReply {}),
            Ok(Err(refused)) => Err(Failure::new(ErrorCode::Unavailable, refused.to_string())),
            Err(fatal) => Err(stopped(&fatal)),
        }
    }

    /// Ends this server's part; returns when openraft has ended.
    pub(crate) async fn shutdown(&self) {
        // An error says that its task was cancelled: it has ended all the same.
        drop(self.core.ask(|raft| raft.shutdown()).await);
    }

    /// What waits for the end of openraft, without holding a store open.
    pub(crate) fn ending(&self) -> Ending {
        Ending { metrics: self.core.metrics(), open: self.core.server_metrics() }
    }

    fn check_target(&self, target: u64) -> Result<(), Failure> {
        if target == self.id.0 {
            return Ok(());
        }
        let sentence =
            format!("this is meta-{}, the request is for meta-{target}: check the addresses", self.id);
        Err(InvalidInput::new(sentence).into())
    }

    fn write_failed(&self, error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Failure {
        match error {
            RaftError::APIError(
                ClientWriteError::ForwardToLeader(to) | ClientWriteError::LogEntryDiscarded(to),
            ) => self.not_leader(&to),
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
                Failure::new(ErrorCode::MembershipRefused, error.to_string())
            }
            RaftError::APIError(ClientWriteError::PreconditionFailed(error)) => {
                Failure::new(ErrorCode::MembershipRefused, error.to_string())
            }
            RaftError::Fatal(fatal) => stopped(&fatal),
        }
    }

    /// What anyone hears who asks this server for what only the leader can say.
    pub(crate) fn not_leader_now(&self) -> Failure {
        let leader = self.standing().leader.filter(|leader| *leader != self.id);
        self.redirect(leader, None)
    }

    fn not_leader(&self, to: &ForwardToLeader<TypeConfig>) -> Failure {
        let address = to.leader_node.as_ref().map(|peer| peer.address.clone());
        self.redirect(to.leader_id.map(MetaId), address)
    }

    fn redirect(&self, leader: Option<MetaId>, address: Option<String>) -> Failure {
        let failure = |text: String| Failure::new(ErrorCode::NotLeader, text);
        let Some(leader) = leader else {
            return failure(format!("meta-{} is not the leader, and knows of none just now", self.id));
        };
        let known = || self.members().into_iter().find(|member| member.id == leader.0);
        let address = address.or_else(|| known().map(|member| member.address)).unwrap_or_default();
        failure(format!("meta-{} is not the leader; meta-{leader} is, at {address}", self.id))
            .with(Detail::Leader { id: leader, address })
    }
}

fn members_of(metrics: &RaftMetrics<TypeConfig>) -> Vec<wire::Member> {
    let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
    let member = |(id, peer): (&u64, &RaftPeer)| wire::Member {
        id: *id,
        address: peer.address.clone(),
        voter: voters.contains(id),
    };
    metrics.membership_config.nodes().map(member).collect()
}

fn stopped(fatal: &Fatal<TypeConfig>) -> Failure {
    Failure::new(ErrorCode::Unavailable, format!("this metadata server is stopping: {fatal}"))
}

fn raft_stopped(error: &RaftError<TypeConfig>) -> Failure {
    Failure::new(ErrorCode::Unavailable, format!("this metadata server is stopping: {error}"))
}

fn config(timings: &RaftTimings) -> Config {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Config {
        cluster_name: "cadole".to_owned(),
        heartbeat_interval: millis(timings.heartbeat),
        // A follower that has just answered an append need not be asked whether it is there. A follower is
        // silent for less than two intervals all the same, which is what an election waits for at least.
        heartbeat_min_interval: Some(millis(timings.heartbeat) / 2),
        election_timeout_min: millis(timings.election_min),
        election_timeout_max: millis(timings.election_max),
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        max_payload_entries: PAYLOAD_ENTRIES_MAX,
        replication_lag_threshold: timings.snapshot_every_entries.saturating_mul(2),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(timings.snapshot_every_entries),
        max_in_snapshot_log_to_keep: timings.snapshot_every_entries.min(ENTRIES_KEPT_MAX),
        purge_batch_size: 256,
        api_channel_size: Some(CORE_QUEUE),
        notification_channel_size: Some(CORE_QUEUE),
        enable_pre_vote: Some(true),
        // The commit mark is not flushed: a leader that comes back must be elected again, so that it
        // commits an entry of its own before it answers a read.
        enable_leader_restore: Some(false),
        ..Config::default()
    }
}
