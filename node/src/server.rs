//! A running storage node.

use std::sync::Arc;
use std::time::Duration;

use env::{Clock, Elapsed, Env, Listener, Net, Spawn, Task, rpc};
use tracing::{info, warn};

use crate::node::Node;
use crate::options::{Options, StartError};
use crate::service::ShardService;
use crate::{agent, audit, work};

/// How long writes under way may take when the node stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A running storage node. Dropping the handle leaves it running.
pub struct Server<E: Env> {
    node: Arc<Node<E>>,
    address: String,
    tasks: Vec<<E::Spawn as Spawn>::Task>,
}

impl<E: Env> std::fmt::Debug for Server<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("node", &self.node.options.id)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl<E: Env> Server<E> {
    /// Starts a node: it listens when this returns, and its disks serve as soon as they are open and
    /// registered. Neither metadata servers nor disks need be there yet.
    ///
    /// # Errors
    ///
    /// When an option cannot take effect, or the address cannot be listened on.
    pub async fn start(env: E, options: Options) -> Result<Self, StartError> {
        options.validate()?;
        let listener = env.net().listen(&options.listen).await?;
        let address = listener.address();
        let advertised = options.advertise.clone().unwrap_or_else(|| address.clone());
        info!(node = %options.id, address, advertised, "storage node starts");
        let node = Arc::new(Node::new(env.clone(), options, advertised));
        let service = ShardService::new(node.clone());
        let serving = rpc::serve(env.clone(), node.local.clone(), listener, service);
        let tasks = vec![
            env.spawn().spawn("serve", serving),
            env.spawn().spawn("agent", agent::run(node.clone())),
            env.spawn().spawn("work", work::run(node.clone())),
            env.spawn().spawn("audit", audit::run(node.clone())),
        ];
        Ok(Self { node, address, tasks })
    }

    /// `host:port` that the node listens on.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Stops the node: no new request is served, writes under way end, and the disks are let go.
    /// Dropping this leaves the node half stopped, with nothing lost.
    pub async fn stop(self) {
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            task.join().await;
        }
        let clock = self.node.env.clock();
        let (reads, writes) = (&self.node.reads, &self.node.writes);
        reads.refuse();
        if let Err(Elapsed) = clock.timeout(STOP_TIMEOUT, writes.close()).await {
            warn!("writes under way did not end in time");
        }
        self.node.disks.close();
        info!(node = %self.node.options.id, "storage node stopped");
    }
}
