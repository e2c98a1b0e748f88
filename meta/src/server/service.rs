//! Answers requests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use env::rpc::{Answer, CallError, Caller, Handler, Incoming, Local, Target};
use env::{Clock, Env, Expect, Kvs};
use proto::identity::Service as ServiceKind;
use proto::wire::command::Action;
use proto::wire::request::Call;
use proto::wire::response::Result as Reply;
use proto::{ClusterId, ErrorCode, Failure, Identity, MetaId, wire};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::liveness::Liveness;
use crate::options::Options;
use crate::pace::Pace;
use crate::raft::Node;
use crate::raft::root::Root;

/// Time for a server to answer an invitation.
const INVITATION_TIMEOUT: Duration = Duration::from_secs(3);

/// A service that can be taken away while connections still hold it. Clones are the same.
pub(super) struct Service<E: Env> {
    shared: Arc<RwLock<Option<Arc<Shared<E>>>>>,
    stopping: Arc<AtomicBool>,
}

impl<E: Env> Clone for Service<E> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), stopping: self.stopping.clone() }
    }
}

/// What all requests share.
pub(super) struct Shared<E: Env> {
    pub(super) env: E,
    pub(super) options: Options,
    pub(super) local: Local,
    pub(super) root: Root<<E::Kvs as Kvs>::Kv>,
    pub(super) node: Node<E>,
    caller: Caller<E>,
    pub(super) proposals: Semaphore,
    /// Held while this server learns or makes its cluster.
    pub(super) joining: tokio::sync::Mutex<()>,
    watch: Mutex<Watch>,
    /// People have heard that this server lost its data.
    told_uninvited: AtomicBool,
}

/// What a leader has heard in its term.
pub(super) struct Watch {
    term: u64,
    pub(super) liveness: Liveness,
    pub(super) pace: Pace,
}

impl<E: Env> Service<E> {
    pub(super) fn new(shared: Arc<Shared<E>>) -> Self {
        Self { shared: Arc::new(RwLock::new(Some(shared))), stopping: Arc::default() }
    }

    pub(super) fn shared(&self) -> Option<Arc<Shared<E>>> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on all requests are refused.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.shared.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

impl<E: Env> Handler<E> for Service<E> {
    fn service(&self) -> ServiceKind {
        ServiceKind::Meta
    }

    async fn handle(&self, incoming: Incoming<E>) -> Result<Answer, Failure> {
        let stopping = || Failure::new(ErrorCode::Unavailable, "this metadata server is stopping");
        let shared = self.shared().ok_or_else(stopping)?;
        let result = shared.answer(incoming).await?;
        Ok(Answer { cluster_time_ms: shared.cluster_time_ms(), ..Answer::new(result) })
    }
}

impl<E: Env> Shared<E> {
    pub(super) fn new(
        env: E,
        options: Options,
        local: Local,
        root: Root<<E::Kvs as Kvs>::Kv>,
        node: Node<E>,
        caller: Caller<E>,
    ) -> Self {
        let liveness = fresh(&options);
        Self {
            proposals: Semaphore::new(options.proposals_in_flight_max),
            joining: tokio::sync::Mutex::default(),
            told_uninvited: AtomicBool::new(false),
            watch: Mutex::new(Watch { term: 0, liveness, pace: Pace::default() }),
            env,
            options,
            local,
            root,
            node,
            caller,
        }
    }

    /// Never falls on one server, and never behind what it has applied.
    pub(super) fn cluster_time_ms(&self) -> u64 {
        let applied = self.node.replica().read(|machine, _| machine.cluster_time());
        self.env.clock().wall().max(applied).as_millis()
    }

    /// What was heard in this term; nothing at its beginning. An earlier term's is gone.
    pub(super) fn watch(&self, term: u64) -> MutexGuard<'_, Watch> {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.term < term {
            *watch = Watch { term, liveness: fresh(&self.options), pace: Pace::default() };
        }
        watch
    }

    async fn answer(self: &Arc<Self>, incoming: Incoming<E>) -> Result<Reply, Failure> {
        let Incoming { peer_cluster, call, mut payload, timeout, .. } = incoming;
        match call {
            Call::Bootstrap(_) | Call::ClusterInfo(_) | Call::RaftJoin(_) => {}
            Call::RaftVote(_) | Call::RaftAppend(_) | Call::RaftSnapshot(_) | Call::RaftHandOver(_) => {
                self.invited()?;
            }
            _ => self.bootstrapped()?,
        }
        match call {
            Call::RaftVote(request) => self.node.on_vote(request).await.map(Reply::RaftVote),
            Call::RaftAppend(request) => self.node.on_append(request).await.map(Reply::RaftAppend),
            Call::RaftSnapshot(request) => {
                self.node.on_snapshot(request, &mut payload).await.map(Reply::RaftSnapshot)
            }
            Call::RaftHandOver(request) => self.node.on_hand_over(request).await.map(Reply::RaftHandOver),
            Call::RaftJoin(_) => self.join(peer_cluster).await.map(Reply::RaftJoin),

            Call::Bootstrap(request) => self.bootstrap(request).await.map(Reply::Bootstrap),
            Call::ClusterInfo(_) => Ok(Reply::ClusterInfo(self.cluster_info())),
            Call::GetStatus(_) => self.status().await.map(Reply::GetStatus),
            Call::AddMember(request) => self.add_member(request).await.map(Reply::AddMember),
            Call::RemoveMember(request) => self.remove_member(request).await.map(Reply::RemoveMember),
            Call::TransferLeader(request) => {
                self.transfer_leader(request, timeout).await.map(Reply::TransferLeader)
            }

            Call::CommitObject(request) => self.change(Action::CommitObject(request)).await,
            Call::DeleteObject(request) => self.change(Action::DeleteObject(request)).await,
            Call::CreateBucket(request) => self.change(Action::CreateBucket(request)).await,
            Call::CreateTenant(request) => self.change(Action::CreateTenant(request)).await,
            Call::CreateProfile(request) => self.change(Action::CreateProfile(request)).await,
            Call::RegisterNode(request) => self.change(Action::RegisterNode(request)).await,
            Call::ReportWork(request) => self.change(Action::ReportWork(request)).await,

            Call::BeginTask(request) => self.begin_task(request).await.map(Reply::BeginTask),
            Call::ListTasks(_) => self.list_tasks().await.map(Reply::ListTasks),
            Call::SetTask(request) => self.set_task(request).await.map(Reply::SetTask),
            Call::Undrain(request) => self.undrain(request).await.map(Reply::Undrain),
            Call::ForgetNode(request) => self.forget_node(request).await.map(Reply::ForgetNode),

            question => self.ask(question).await,
        }
    }

    fn bootstrapped(&self) -> Result<(), Failure> {
        if self.local.cluster().is_some() {
            return Ok(());
        }
        let sentence = "this metadata server belongs to no cluster yet: found one with \
                        `clusterctl meta bootstrap`, or have it added to one with `clusterctl meta add`, \
                        under an id that was never used: one that lost its data cannot have its old id back";
        Err(Failure::new(ErrorCode::NotBootstrapped, sentence))
    }

    fn invited(&self) -> Result<(), Failure> {
        let known = self.bootstrapped();
        if known.is_err() && !self.told_uninvited.swap(true, Ordering::Relaxed) {
            warn!(
                "a cluster takes this server for a member, but its data directory is new: it has lost its data, \
                 takes no part, and must be replaced under an id that was never used (`clusterctl meta rm`, \
                 `clusterctl meta add`)"
            );
        }
        known
    }

    /// A server without cluster belongs to that of the metadata server that invites it. One with a
    /// cluster has refused others at the greeting.
    async fn join(&self, peer_cluster: Option<ClusterId>) -> Result<wire::RaftJoinReply, Failure> {
        let wrong = |text: &str| Failure::new(ErrorCode::WrongCluster, text);
        let peer = peer_cluster.ok_or_else(|| wrong("the peer does not say which cluster it belongs to"))?;
        let _joining = self.joining.lock().await;
        if self.local.cluster().is_none() {
            let kept = self.root.set_cluster(peer).await;
            kept.map_err(|error| Failure::new(ErrorCode::Internal, format!("the store \"raft\": {error}")))?;
            info!(cluster = %peer, "this metadata server belongs to a cluster from now on");
        }
        self.local.join(peer)?;
        Ok(wire::RaftJoinReply {})
    }

    /// Has a server with an empty data directory belong to this cluster. One that does already has no
    /// objection.
    ///
    /// # Errors
    ///
    /// `Unavailable` when it does not answer, with the reason; what it says when it belongs to another.
    pub(super) async fn invite(&self, id: MetaId, address: &str) -> Result<(), Failure> {
        let target = Target { address: address.to_owned(), expect: Expect::Exactly(Identity::Meta(id)) };
        let call = Call::RaftJoin(wire::RaftJoin {});
        match self.caller.call(&target, call, Vec::new(), INVITATION_TIMEOUT).await {
            Ok(_) => Ok(()),
            Err(CallError::Failed(failure)) => Err(failure),
            Err(error) => {
                let sentence = format!("meta-{id} cannot be invited, start it and try again: {error}");
                Err(Failure::new(ErrorCode::Unavailable, sentence))
            }
        }
    }
}

fn fresh(options: &Options) -> Liveness {
    Liveness::new(&options.detection)
}

/// What the state answers when it was asked for something wrong, or cannot be read.
pub(super) fn failed(error: crate::state::Error) -> Failure {
    match error {
        crate::state::Error::Refused(failure) => failure,
        crate::state::Error::Storage(error) => {
            tracing::error!(%error, "the state cannot be read: replace the disk of this metadata server");
            Failure::new(ErrorCode::Internal, format!("the state cannot be read: {error}"))
        }
    }
}
