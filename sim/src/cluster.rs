//! The cluster of a run: its machines, what runs on them, and the operators' hand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Admin, Cluster as Client};
use placement::FailureDomain;
use proto::wire::command::Action;
use proto::wire::outcome::Outcome;
use proto::{BucketName, Failure, Identity, Label, MetaId, NodeId, TenantName, wire};
use simhost::{Death, Host, SimEnv, World};

use crate::history::Ledger;
use crate::plan::{NodePlan, Plan};
use crate::process::{Process, lock};
use crate::scars::Scars;
use crate::tap::Wire;
use crate::verdict::Findings;
use crate::{late, nemesis};

/// The tenant that all clients work for.
pub const TENANT: &str = "dijon";
/// Its bucket.
pub const BUCKET: &str = "archive";
/// The profile's name.
pub const PROFILE: &str = "coded";
/// Disks down at once above which nothing is taken for lost.
const OUT_SHARE_MAX_PERCENT: u8 = 50;
/// Port of metadata servers.
const META_PORT: u16 = 7000;
/// Port of storage nodes.
const NODE_PORT: u16 = 7100;
/// How long a proposal is waited for.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(3);

/// A running metadata server, and the life of its host.
type RunningMeta = Option<(u64, Arc<meta::Server<SimEnv>>)>;
/// A running node, and the life of its host.
type RunningNode = Option<(u64, node::Server<SimEnv>)>;

/// The machine of a metadata server.
pub struct MetaHost {
    /// Its id, never used again.
    pub id: MetaId,
    /// Its process.
    pub process: Process,
    running: Arc<Mutex<RunningMeta>>,
}

/// The machine of a storage node.
pub struct NodeHost {
    /// Its id.
    pub id: NodeId,
    /// In which rack it really stands.
    pub rack: u32,
    /// Paths of its disks.
    pub disks: Vec<String>,
    /// Its process.
    pub process: Process,
    running: Arc<Mutex<RunningNode>>,
}

/// The cluster of a run. Shared by the load, the faults and the checkers.
pub struct Cluster {
    /// Time, tasks, network.
    pub world: World,
    /// What the seed means.
    pub plan: Plan,
    /// Broken promises.
    pub findings: Findings,
    /// Every operation of every client.
    pub ledger: Mutex<Ledger>,
    metas: Mutex<Vec<Arc<MetaHost>>>,
    nodes: Mutex<Vec<Arc<NodeHost>>>,
    clients: Mutex<Vec<Process>>,
    /// What is said on the wire goes through it.
    pub tap: Mutex<Option<Arc<Wire>>>,
    /// What faults have done to disks at rest.
    pub scars: Mutex<Scars>,
    /// What faults remember.
    pub nemesis: nemesis::State,
    /// Those who speak too late.
    pub late: late::State,
    /// When the power last failed under a metadata server.
    meta_power_lost: Mutex<Option<Duration>>,
    /// The greatest entry that any look at the servers' states has seen applied.
    furthest_applied: Mutex<u64>,
    operator: Host,
    admin: Mutex<Option<Client<SimEnv>>>,
    next_meta: AtomicU64,
}

/// The key-value store in which a node has the index of the disk at this path.
pub fn index_of(path: &str) -> String {
    format!("index-{}", path.trim_start_matches('/'))
}

fn identity(text: &str) -> Identity {
    // The names above are well-formed.
    text.parse().unwrap_or_else(|error| unreachable!("{text}: {error}"))
}

impl Cluster {
    /// Machines and processes of the plan; nothing is founded yet.
    pub fn build(world: &World, plan: Plan) -> Arc<Self> {
        let operator = world.add_host("operator", identity("operator/alice"));
        let late = late::State::new(world, &plan);
        let cluster = Arc::new(Self {
            world: world.clone(),
            plan,
            findings: Findings::default(),
            ledger: Mutex::default(),
            metas: Mutex::default(),
            nodes: Mutex::default(),
            clients: Mutex::default(),
            tap: Mutex::default(),
            scars: Mutex::default(),
            nemesis: nemesis::State::default(),
            late,
            meta_power_lost: Mutex::default(),
            furthest_applied: Mutex::default(),
            operator,
            admin: Mutex::default(),
            next_meta: AtomicU64::new(1),
        });
        for _ in 0..cluster.plan.metas {
            cluster.add_meta();
        }
        let racks = cluster.plan.racks.clone();
        for (rack, nodes) in (1..).zip(racks) {
            for node in nodes {
                cluster.add_node(rack, &node);
            }
        }
        cluster
    }

    /// All machines of metadata servers, those that were given up included.
    pub fn metas(&self) -> Vec<Arc<MetaHost>> {
        lock(&self.metas).clone()
    }

    /// All machines of nodes, those that were given up included.
    pub fn nodes(&self) -> Vec<Arc<NodeHost>> {
        lock(&self.nodes).clone()
    }

    /// All machines of clients.
    pub fn clients(&self) -> Vec<Process> {
        lock(&self.clients).clone()
    }

    /// One more machine of a client.
    pub fn add_client(&self, client: Process) {
        lock(&self.clients).push(client);
    }

    /// Did the power fail under a metadata server within this time, or before and it has not come back since?
    pub fn meta_lost_power_within(&self, time: Duration) -> bool {
        let now = self.world.now();
        let mut last = lock(&self.meta_power_lost);
        for meta in self.metas().iter().filter(|meta| meta.process.is_wanted()) {
            let host = meta.process.host();
            let failed = host.last_power_failure();
            *last = (*last).max(if host.is_alive() { failed } else { failed.map(|_| now) });
        }
        last.is_some_and(|last| now.saturating_sub(last) < time)
    }

    /// Have metadata servers, as far as somebody looked, ever applied more than this?
    pub fn knew_more_than(&self, applied: u64) -> bool {
        let mut furthest = lock(&self.furthest_applied);
        *furthest = applied.max(*furthest);
        applied < *furthest
    }

    /// What a metadata server has not told others is lost with it, just now.
    pub fn note_meta_lost(&self) {
        *lock(&self.meta_power_lost) = Some(self.world.now());
    }

    /// Addresses of all metadata servers that should run.
    pub fn meta_addresses(&self) -> Vec<String> {
        self.metas().iter().filter(|meta| meta.process.is_wanted()).map(|meta| meta.address()).collect()
    }

    /// A new machine with a metadata server of a new id. It takes part once an operator adds it.
    pub fn add_meta(&self) -> Arc<MetaHost> {
        let id = MetaId(self.next_meta.fetch_add(1, Ordering::Relaxed));
        let host = self.world.add_host(&format!("meta-{id}"), identity(&format!("meta/{id}")));
        let running: Arc<Mutex<RunningMeta>> = Arc::default();
        let options = self.meta_options(id, &host);
        let (shared, machine) = (running.clone(), host.clone());
        let process = Process::supervise(host, move |env| {
            let (shared, machine, options) = (shared.clone(), machine.clone(), options.clone());
            let main = run_meta(env.clone(), machine, options, shared);
            env::Spawn::spawn(env::Env::spawn(&env), "main", main);
        });
        let meta = Arc::new(MetaHost { id, process, running });
        lock(&self.metas).push(meta.clone());
        meta
    }

    fn meta_options(&self, id: MetaId, host: &Host) -> meta::Options {
        let tunables = &self.plan.tunables;
        let mut options = meta::Options::new(id, format!("{}:{META_PORT}", host.address()));
        options.raft.heartbeat = tunables.raft_heartbeat;
        options.raft.election_min = tunables.election_min;
        options.raft.election_max = tunables.election_max;
        options.raft.snapshot_every_entries = tunables.snapshot_every;
        options.detection.suspect_after = tunables.suspect_after;
        options.detection.down_after = tunables.down_after;
        options.detection.out_after = tunables.out_after;
        // The atlas and the operators of a run keep what is lost below the usual share. Whether it still is
        // when machines that only stood still count too is left to chance, so here is some room.
        options.detection.out_share_max_percent = OUT_SHARE_MAX_PERCENT;
        options
    }

    /// A new machine with a storage node and empty disks.
    pub fn add_node(&self, rack: u32, plan: &NodePlan) -> Arc<NodeHost> {
        let id = NodeId(u32::try_from(lock(&self.nodes).len()).unwrap_or(u32::MAX) + 1);
        let host = self.world.add_host(&format!("node-{id}"), identity(&format!("node/{id}")));
        let mut disks = Vec::new();
        for (number, capacity) in plan.disks.iter().enumerate() {
            let path = format!("/disk-{number}");
            self.insert_disk(&host, &path, *capacity);
            disks.push(path);
        }
        let running: Arc<Mutex<RunningNode>> = Arc::default();
        let options = self.node_options(id, rack, &host, &disks);
        let (shared, machine) = (running.clone(), host.clone());
        let process = Process::supervise(host, move |env| {
            let (shared, machine, options) = (shared.clone(), machine.clone(), options.clone());
            let main = run_node(env.clone(), machine, options, shared);
            env::Spawn::spawn(env::Env::spawn(&env), "main", main);
        });
        let node = Arc::new(NodeHost { id, rack, disks, process, running });
        lock(&self.nodes).push(node.clone());
        node
    }

    /// Puts an empty disk into a machine, with as much room as the plan gives it.
    pub(crate) fn insert_disk(&self, host: &Host, path: &str, capacity_bytes: u64) {
        let device = host.insert_disk(path, capacity_bytes);
        if let Some(room) = self.plan.room.filter(|_| !self.nemesis.is_calm()) {
            device.set_occupied(capacity_bytes.saturating_sub(room.of(capacity_bytes)));
        }
    }

    fn node_options(&self, id: NodeId, rack: u32, host: &Host, disks: &[String]) -> node::Options {
        let tunables = &self.plan.tunables;
        let disk = |path: &String| node::DiskOptions {
            name: label(path.trim_start_matches('/')),
            path: path.clone(),
            capacity: None,
        };
        let mut options = node::Options::new(
            id,
            label("s1"),
            label(&format!("r{rack}")),
            format!("{}:{NODE_PORT}", host.address()),
            self.meta_addresses(),
            disks.iter().map(disk).collect(),
        );
        options.heartbeat = tunables.node_heartbeat;
        options.disk_retry = tunables.disk_retry;
        options.repair_stripes_in_flight = tunables.repair_stripes;
        options.audit_period = tunables.audit_period;
        options.orphan_period = tunables.orphan_period;
        options
    }

    /// The operators' connection, made anew when the last one was given up.
    ///
    /// # Errors
    ///
    /// When no metadata server answers.
    pub async fn operator(&self) -> Result<Client<SimEnv>, client::Error> {
        if let Some(known) = lock(&self.admin).clone() {
            return Ok(known);
        }
        if !self.operator.is_alive() {
            self.operator.boot();
        }
        let env = self.operator_env();
        let mut options = client::Options::new(self.meta_addresses());
        options.timeout = self.plan.tunables.timeout;
        let made = Client::connect(env, options).await?;
        lock(&self.admin).replace(made.clone());
        Ok(made)
    }

    fn operator_env(&self) -> SimEnv {
        if self.operator.is_alive() {
            self.operator.kill(Death::Process);
        }
        self.operator.boot()
    }

    /// The tap, once it is installed.
    pub(crate) fn wire(&self) -> Option<Arc<Wire>> {
        lock(&self.tap).clone()
    }

    /// Has the leader of the metadata servers propose a command, as its own rounds do. None when nobody leads,
    /// or nobody answers for a while; it may come to be all the same.
    pub(crate) async fn propose(&self, action: Action) -> Option<Result<Outcome, Failure>> {
        let leader = nemesis::leader(self)?.server()?;
        tokio::select! {
            biased;
            proposed = leader.propose(action) => Some(proposed),
            () = self.world.sleep(PROPOSAL_TIMEOUT) => None,
        }
    }

    /// The operators' machine.
    pub fn operator_host(&self) -> &Host {
        &self.operator
    }

    /// Operators' calls.
    ///
    /// # Errors
    ///
    /// As [`operator`](Self::operator).
    pub async fn admin(&self) -> Result<Admin<SimEnv>, client::Error> {
        Ok(self.operator().await?.admin())
    }

    /// Founds the cluster, with its tenant, profile and bucket; waits for all nodes.
    ///
    /// # Errors
    ///
    /// What was refused, in words. Without faults nothing may be.
    pub async fn found(&self) -> Result<(), String> {
        let text = |error: client::Error| error.to_string();
        let admin = self.admin().await.map_err(text)?;
        let members = self.metas().iter().map(|meta| meta.member()).collect();
        admin.bootstrap(members).await.map_err(text)?;
        let operator = self.operator().await.map_err(text)?;
        let tenant: TenantName = TENANT.parse().map_err(|error| format!("{error}"))?;
        admin.create_tenant(&tenant).await.map_err(text)?;
        self.wait_for_nodes(&admin).await?;
        admin.create_profile(self.profile()).await.map_err(text)?;
        let bucket: BucketName = BUCKET.parse().map_err(|error| format!("{error}"))?;
        let profile = PROFILE.parse().map_err(|error| format!("{error}"))?;
        let tenant = operator.tenant(tenant);
        tenant.create_bucket(&bucket, &profile).await.map_err(text)?;
        let bucket: BucketName = late::BUCKET.parse().map_err(|error| format!("{error}"))?;
        tenant.create_bucket(&bucket, &profile).await.map_err(text)?;
        Ok(())
    }

    async fn wait_for_nodes(&self, admin: &Admin<SimEnv>) -> Result<(), String> {
        let wanted: usize = self.nodes().iter().map(|node| node.disks.len()).sum();
        for _ in 0..600 {
            let status = admin.status().await.map_err(|error| error.to_string())?;
            if status.disks.len() == wanted {
                return Ok(());
            }
            self.world.sleep(Duration::from_millis(100)).await;
        }
        Err("the nodes did not register within a minute, though nothing is wrong with them".to_owned())
    }

    fn profile(&self) -> wire::CreateProfile {
        let plan = &self.plan.profile;
        let domain = match plan.domain {
            "rack" => FailureDomain::Rack,
            "node" => FailureDomain::Node,
            _ => FailureDomain::Disk,
        };
        wire::CreateProfile {
            name: PROFILE.to_owned(),
            k: plan.k,
            m: plan.m,
            shard_bytes: plan.shard_bytes,
            failure_domain: domain.to_wire(),
            small_bytes_max: plan.small_bytes_max,
            min_durable: plan.min_durable,
            refuse_below_policy: plan.refuse_below_policy,
            slots_per_disk: plan.slots_per_disk,
            ..Default::default()
        }
    }
}

fn label(text: &str) -> Label {
    text.parse().unwrap_or_else(|error| unreachable!("{text}: {error}"))
}

impl MetaHost {
    /// `host:port`.
    pub fn address(&self) -> String {
        format!("{}:{META_PORT}", self.process.host().address())
    }

    /// As operators name it.
    pub fn member(&self) -> wire::Member {
        wire::Member { id: self.id.0, address: self.address(), voter: true }
    }

    /// The server, while it runs.
    pub fn server(&self) -> Option<Arc<meta::Server<SimEnv>>> {
        let host = self.process.host();
        let running = lock(&self.running);
        let (life, server) = running.as_ref()?;
        (host.is_alive() && *life == host.lives()).then(|| server.clone())
    }

    /// Asks the process to end as an operator would.
    pub fn stop(&self) {
        let Some(server) = self.server() else { return };
        let host = self.process.host().clone();
        let life = host.lives();
        // A world's task: the process ends under it.
        self.process.host().world().spawn("stop-meta", async move {
            server.stop().await;
            if host.lives() == life {
                host.kill(Death::Process);
            }
        });
    }
}

impl NodeHost {
    /// `host:port`.
    pub fn address(&self) -> String {
        format!("{}:{NODE_PORT}", self.process.host().address())
    }

    /// Asks the process to end as an operator would.
    pub fn stop(&self) {
        let host = self.process.host().clone();
        let life = host.lives();
        let running = lock(&self.running).take();
        let Some((_, server)) = running.filter(|(started, _)| host.is_alive() && *started == life) else {
            return;
        };
        self.process.host().world().spawn("stop-node", async move {
            server.stop().await;
            if host.lives() == life {
                host.kill(Death::Process);
            }
        });
    }
}

async fn run_meta(env: SimEnv, host: Host, options: meta::Options, running: Arc<Mutex<RunningMeta>>) {
    let life = host.lives();
    match meta::Server::start(env, options).await {
        Ok(server) => {
            let server = Arc::new(server);
            lock(&running).replace((life, server.clone()));
            let ended = server.stopped().await;
            if let meta::Stopped::Failed(reason) = ended {
                host.world().tell(Some(host.id()), || format!("the metadata server cannot go on: {reason}"));
                host.world().probe("a metadata server could not go on");
                host.kill(Death::Process);
            }
        }
        Err(error) => {
            host.world().tell(Some(host.id()), || format!("the metadata server did not start: {error}"));
            host.kill(Death::Process);
        }
    }
}

async fn run_node(env: SimEnv, host: Host, options: node::Options, running: Arc<Mutex<RunningNode>>) {
    let life = host.lives();
    match node::Server::start(env, options).await {
        Ok(server) => {
            lock(&running).replace((life, server));
        }
        Err(error) => {
            host.world().tell(Some(host.id()), || format!("the node did not start: {error}"));
            host.kill(Death::Process);
        }
    }
}
