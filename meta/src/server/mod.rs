//! A metadata server: its start and end, and how others reach it.
//!
//! [`service`] answers requests; [`changes`] are those that go through the log, [`questions`] those
//! that are answered from the state, [`operations`] those about the servers themselves, [`tasks`] those about
//! what takes long. [`leading`] is what the leader does on its own.

mod changes;
mod leading;
mod operations;
mod questions;
mod service;
mod tasks;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use env::rpc::{Caller, Local, serve};
use env::{Clock, Env, Kvs, Listener, Net, NetError, Spawn, Task};
use proto::wire::command::Action;
use proto::wire::outcome::Outcome;
use proto::{ErrorCode, Failure, InvalidInput};
use tracing::{info, warn};

use crate::options::Options;
use crate::raft::handle::{Closed, User};
use crate::raft::node::Ending;
use crate::raft::root::Root;
pub use crate::raft::root::RootError;
use crate::raft::{Node, Replica, Standing};
use service::{Service, Shared};

/// How long a stopping leader waits for its successor.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a stopping server waits for the last user of its stores.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

type TaskOf<E> = <<E as Env>::Spawn as Spawn>::Task;

/// A metadata server that runs. Dropping it leaves it running until its host ends: use
/// [`stop`](Server::stop).
pub struct Server<E: Env> {
    env: E,
    address: String,
    service: Service<E>,
    ending: Ending,
    running: Mutex<Option<Running<E>>>,
}

/// What ends with the server.
struct Running<E: Env> {
    tasks: Vec<TaskOf<E>>,
    node: Node<E>,
    closed: Closed,
}

/// A metadata server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings do not fit together.
    #[error("the settings of this metadata server: {0}")]
    Options(#[from] InvalidInput),
    /// The data directory cannot be used, or is another server's.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The cluster that the stores name cannot be joined.
    #[error(transparent)]
    Cluster(Failure),
    /// Nothing can be reached at the address.
    #[error(transparent)]
    Listen(#[from] NetError),
    /// Log or state cannot be read.
    #[error("the stores of this metadata server: {0}")]
    Stores(#[source] io::Error),
}

/// Why a server has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was asked to.
    Requested,
    /// It cannot go on: the process should end with an error, and be started again.
    Failed(String),
}

impl<E: Env> Server<E> {
    /// Opens the stores, listens, and takes part in Raft. A server whose stores are new waits until
    /// it is bootstrapped, or until the leader of a cluster adds it.
    ///
    /// Dropping this may leave the stores open for a moment.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub async fn start(env: E, options: Options) -> Result<Self, StartError> {
        options.check()?;
        let (user, closed) = User::first();
        let root = Root::open(env.kvs(), options.id, &user).await?;
        let local = Local::new();
        if let Some(cluster) = root.cluster()? {
            local.join(cluster).map_err(StartError::Cluster)?;
        }
        let listener = env.net().listen(&options.listen).await?;
        let address = listener.address();
        let caller = Caller::new(env.clone(), local.clone());
        let node = Node::start(env.clone(), options.id, &options.raft, root.clone(), &user, caller.clone());
        let node = node.await.map_err(StartError::Stores)?;
        drop(user);
        let advertised = options.advertise.clone().unwrap_or_else(|| address.clone());
        info!(id = %options.id, address, advertised, cluster = ?local.cluster(), "metadata server started");

        let ending = node.ending();
        let shared = Shared::new(env.clone(), options, local.clone(), root, node.clone(), caller);
        let service = Service::new(Arc::new(shared));
        let tasks = vec![
            env.spawn().spawn("meta-serve", serve(env.clone(), local, listener, service.clone())),
            env.spawn().spawn("meta-lead", leading::lead(service.clone())),
        ];
        let running = Mutex::new(Some(Running { tasks, node, closed }));
        Ok(Self { env, address, service, ending, running })
    }

    /// `host:port` that it listens on.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// This server's copy of the state, for questions of tests and of the simulator; `None` once it has
    /// been stopped. It may lie behind the leader's. Whoever keeps it keeps the stores open: drop it
    /// before [`stop`](Self::stop).
    pub fn replica(&self) -> Option<Replica<<E::Kvs as Kvs>::Kv>> {
        self.running().as_ref().map(|running| running.node.replica().clone())
    }

    /// Term and leader as this server knows them, which may be out of date; `None` once it has been
    /// stopped.
    pub fn standing(&self) -> Option<Standing> {
        self.running().as_ref().map(|running| running.node.standing())
    }

    /// Proposes a command as the leader's rounds do, and waits for what came of it: for tests, and for the
    /// simulator, whose leaders decide too late. Dropping this leaves open whether it will be carried out.
    ///
    /// # Errors
    ///
    /// What was refused when it was applied; `NotLeader`; `Unavailable` when this server is stopping.
    pub async fn propose(&self, action: Action) -> Result<Outcome, Failure> {
        let stopping = || Failure::new(ErrorCode::Unavailable, "this metadata server is stopping");
        let shared = self.service.shared().ok_or_else(stopping)?;
        shared.propose(action).await
    }

    /// Returns when the server has ended, by [`stop`](Self::stop) or because it cannot go on.
    pub async fn stopped(&self) -> Stopped {
        let reason = self.ending.reason().await;
        if self.service.is_stopping() { Stopped::Requested } else { Stopped::Failed(reason) }
    }

    /// Ends the server: hands leadership over, lets openraft end, and closes the stores, so that they
    /// can be opened again. The second call does nothing.
    ///
    /// Must not be dropped before it returns: the server would be left half stopped.
    pub async fn stop(&self) {
        let running = self.running().take();
        let Some(Running { tasks, node, mut closed }) = running else { return };
        if node.standing().leads
            && let Some(successor) = node.best_successor()
            && let Err(error) = node.transfer_leader(successor, HAND_OVER_TIMEOUT).await
        {
            warn!(%error, "leadership could not be handed over: there will be an election");
        }
        self.service.stop();
        for task in tasks {
            task.abort();
            task.join().await;
        }
        node.shutdown().await;
        drop(node);
        if self.env.clock().timeout(CLOSE_TIMEOUT, closed.wait()).await.is_err() {
            warn!("the stores are still in use: they close when the process ends");
        }
        info!("metadata server stopped");
    }

    fn running(&self) -> MutexGuard<'_, Option<Running<E>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
