//! A cluster of real processes on loopback.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use cadoled::dev::{self, Daemon, Layout, Shape};
use client::{Bucket, Cluster};
use os::{Credentials, Host, HostOptions};
use proto::wire;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::watchdog::Watchdog;
use crate::{BUCKET, peer, program};

/// One cluster at a time in each test binary: nine daemons are enough for the machine.
static ONE_AT_A_TIME: Semaphore = Semaphore::const_new(1);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// What most tests use: three metadata servers; three racks of two nodes with two disks each; a
/// silent node is given up sooner than in production, so that tests need not wait for it.
pub fn shape() -> Shape {
    Shape {
        metas: 3,
        racks: 3,
        nodes_per_rack: 2,
        disks: 2,
        base_port: 0,
        log: "info".to_owned(),
        suspect_after_ms: 2_500,
        down_after_ms: 5_000,
        snapshot_every_entries: 20_000,
    }
}

/// A running cluster. Dropping it ends all its processes; its files are kept when a test failed.
pub struct TestCluster {
    dir: Option<TempDir>,
    layout: Layout,
    program: PathBuf,
    children: Mutex<BTreeMap<String, Child>>,
    failed: AtomicBool,
    _watchdog: Watchdog,
    _turn: SemaphorePermit<'static>,
}

impl TestCluster {
    /// Starts a cluster and founds it: tenant, bucket and profile are those of `cadoled dev`.
    pub async fn start(shape: Shape) -> Self {
        let cluster = Self::make(shape).await;
        cluster.start_again("all");
        dev::found(cluster.path(), &cluster.layout).await.expect("the cluster is founded");
        cluster
    }

    /// Makes the files of a cluster and starts nothing.
    pub async fn make(shape: Shape) -> Self {
        let program = program::path("cadoled");
        let turn = ONE_AT_A_TIME.acquire().await.expect("never closed");
        let dir = tempfile::Builder::new().prefix("cadole-test-").tempdir().expect("a directory");
        let layout = Layout::open_or_make(dir.path(), &shape).expect("a layout");
        Self {
            _watchdog: Watchdog::start(dir.path()),
            dir: Some(dir),
            layout,
            program,
            children: Mutex::default(),
            failed: AtomicBool::new(false),
            _turn: turn,
        }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.as_ref().expect("kept until the end").path()
    }

    /// What it consists of.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The directory of its authority.
    pub fn ca(&self) -> PathBuf {
        self.path().join("ca")
    }

    /// The daemons that `name` means: `meta-1`, `node-3`, `rack-2`, `metas`, `nodes` or `all`.
    pub fn names(&self, name: &str) -> Vec<String> {
        self.layout.select(name).expect("a name of the layout")
    }

    /// The number in a daemon's name.
    pub fn number(name: &str) -> u64 {
        name.rsplit('-').next().and_then(|number| number.parse().ok()).expect("a daemon's name")
    }

    /// Kills daemons as a power cut would, all at once.
    pub fn kill(&self, name: &str) {
        let names = self.names(name);
        names.iter().for_each(|name| self.daemon(name).signal(Signal::KILL));
        names.iter().for_each(|name| {
            self.reap(name);
        });
    }

    /// Starts daemons that do not run.
    pub fn start_again(&self, name: &str) {
        self.names(name).iter().for_each(|name| self.spawn(name));
    }

    /// Tells daemons to stop and waits until they have; gives back how the last one ended.
    pub fn stop(&self, name: &str) -> Option<ExitStatus> {
        let names = self.names(name);
        names.iter().for_each(|name| self.daemon(name).signal(Signal::TERM));
        names.iter().filter_map(|name| self.reap(name)).last()
    }

    /// Freezes daemons: they answer nothing, and lose nothing.
    pub fn pause(&self, name: &str) {
        self.names(name).iter().for_each(|name| self.daemon(name).signal(Signal::STOP));
    }

    /// Lets frozen daemons go on.
    pub fn resume(&self, name: &str) {
        self.names(name).iter().for_each(|name| self.daemon(name).signal(Signal::CONT));
    }

    /// True while the daemon runs.
    pub fn runs(&self, name: &str) -> bool {
        self.daemon(name).pid().is_some()
    }

    /// One daemon.
    pub fn daemon(&self, name: &str) -> Daemon {
        Daemon::new(self.path(), name)
    }

    /// What a daemon has logged so far.
    pub fn log_of(&self, name: &str) -> String {
        std::fs::read_to_string(self.daemon(name).log()).unwrap_or_default()
    }

    /// A new connection as the cluster's operator. It works on within the calling test's runtime.
    pub async fn operator(&self) -> Cluster<Host> {
        dev::connect(self.path(), &self.layout).await.expect("connected")
    }

    /// A new connection with a certificate of this holder, for example `tenant/beaune`.
    pub async fn client(&self, identity: &str) -> Cluster<Host> {
        let credentials = Credentials::load(&peer::issue(&self.ca(), identity)).expect("credentials");
        let host = Host::start(HostOptions::new(credentials)).expect("a host");
        let options = client::Options::new(self.layout.meta_addresses());
        Cluster::connect(host, options).await.expect("connected")
    }

    /// The bucket, over a new connection as the operator.
    pub async fn bucket(&self) -> Bucket<Host> {
        let tenant = dev::TENANT.parse().expect("a name");
        self.operator().await.tenant(tenant).bucket(BUCKET.parse().expect("a name"))
    }

    /// The address of a daemon.
    pub fn address(&self, name: &str) -> String {
        let metas = self.layout.metas.iter().map(|meta| (format!("meta-{}", meta.id), &meta.address));
        let nodes = self.layout.nodes.iter().map(|node| (format!("node-{}", node.id), &node.address));
        let found = metas.chain(nodes).find(|(daemon, _)| daemon == name);
        found.map(|(_, address)| address.clone()).expect("a daemon of the layout")
    }

    /// The daemon that leads the metadata service.
    pub async fn leader(&self, cluster: &Cluster<Host>) -> String {
        let status = cluster.admin().status().await.expect("a leader");
        format!("meta-{}", status.leader_id)
    }

    /// Waits until the metadata service knows of nothing that is missing, out of place or silent.
    pub async fn wait_whole(&self, cluster: &Cluster<Host>, limit: Duration) -> Duration {
        self.wait_for(cluster, limit, "the cluster is whole", not_whole).await
    }

    /// Waits until `missing` says nothing; fails with what it said last.
    pub async fn wait_for(
        &self,
        cluster: &Cluster<Host>,
        limit: Duration,
        what: &str,
        missing: impl Fn(&wire::GetStatusReply) -> Option<String>,
    ) -> Duration {
        let start = Instant::now();
        loop {
            let said = match cluster.admin().status().await {
                Ok(status) => missing(&status),
                Err(error) => Some(error.to_string()),
            };
            match said {
                None => {
                    eprintln!("{what}: after {} ms", start.elapsed().as_millis());
                    return start.elapsed();
                }
                Some(said) if start.elapsed() > limit => {
                    panic!("waited {} s in vain until {what}: {said}", limit.as_secs())
                }
                Some(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// `clusterctl` as this cluster's operator.
    pub fn clusterctl(&self) -> std::process::Command {
        let mut command = std::process::Command::new(program::path("clusterctl"));
        command.arg("--config").arg(Layout::clusterctl_config(self.path()));
        command
    }

    /// Makes the files of one more metadata server, as alike to the first one as a new one can be, and
    /// gives back its address.
    pub fn add_meta(&self, id: u64) -> String {
        let name = format!("meta-{id}");
        let address = free_address();
        let issued = peer::issue(&self.ca(), &format!("meta/{id}"));
        let certs = self.path().join("certs");
        std::fs::copy(issued.certificate, certs.join(format!("{name}.crt"))).expect("copied");
        std::fs::copy(issued.key, certs.join(format!("{name}.key"))).expect("copied");
        let model = std::fs::read_to_string(self.config_of("meta-1")).expect("a configuration");
        let text = model
            .replace("meta-1", &name)
            .replace("id = 1\n", &format!("id = {id}\n"))
            .replace(&self.address("meta-1"), &address);
        std::fs::create_dir(self.path().join(&name)).expect("made");
        std::fs::write(self.config_of(&name), text).expect("written");
        address
    }

    /// Makes the files of one more storage node, as alike to the first one as a new one can be, in this rack.
    pub fn add_node(&self, id: u64, rack: &str) {
        let name = format!("node-{id}");
        let issued = peer::issue(&self.ca(), &format!("node/{id}"));
        let certs = self.path().join("certs");
        std::fs::copy(issued.certificate, certs.join(format!("{name}.crt"))).expect("copied");
        std::fs::copy(issued.key, certs.join(format!("{name}.key"))).expect("copied");
        let model = std::fs::read_to_string(self.config_of("node-1")).expect("a configuration");
        let text = model
            .replace("node-1", &name)
            .replace("id = 1\n", &format!("id = {id}\n"))
            .replace("rack = \"rack-1\"", &format!("rack = \"{rack}\""))
            .replace(&self.address("node-1"), &free_address());
        for disk in model.lines().filter_map(|line| line.strip_prefix("path = \"")?.strip_suffix('"')) {
            std::fs::create_dir_all(self.path().join(&name).join(disk)).expect("made");
        }
        std::fs::write(self.config_of(&name), text).expect("written");
    }

    /// Lets each disk of the layout's nodes hold no more than this; before they start.
    pub fn limit_disks(&self, capacity: &str) {
        for node in self.names("nodes") {
            let config = self.config_of(&node);
            let text = std::fs::read_to_string(&config).expect("a configuration");
            let limited =
                text.replace("path = \"disk-", &format!("capacity = \"{capacity}\"\npath = \"disk-"));
            assert_ne!(text, limited, "{node} has no disks");
            std::fs::write(&config, limited).expect("written");
        }
    }

    /// Founds a cluster whose daemons were started one by one.
    pub async fn found(&self) {
        dev::found(self.path(), &self.layout).await.expect("the cluster is founded");
    }

    /// The configuration file of a daemon.
    pub fn config_of(&self, name: &str) -> PathBuf {
        let role = name.split('-').next().unwrap_or_default();
        self.path().join(name).join(role).with_extension("toml")
    }

    /// Starts a daemon, of the layout or not, unless it runs.
    pub fn spawn(&self, name: &str) {
        if let Some(child) = self.daemon(name).start(&self.program).expect("started") {
            self.children().insert(name.to_owned(), child);
        }
    }

    fn reap(&self, name: &str) -> Option<ExitStatus> {
        let mut child = self.children().remove(name)?;
        Some(child.wait().expect("a child"))
    }

    fn children(&self) -> MutexGuard<'_, BTreeMap<String, Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        let children = std::mem::take(&mut *self.children());
        for (name, mut child) in children {
            // One that has ended already is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
            let _ = std::fs::remove_file(self.path().join(name).join("pid"));
        }
        if std::thread::panicking() || self.failed.load(Ordering::Relaxed) {
            let kept = self.dir.take().map(TempDir::keep);
            eprintln!("the cluster's files and logs are kept: {}", kept.unwrap_or_default().display());
        }
    }
}

/// An address that is free just now.
fn free_address() -> String {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("bound").to_string()
}

/// Why the cluster is not whole, if it is not.
fn not_whole(status: &wire::GetStatusReply) -> Option<String> {
    let up = i32::from(wire::Health::Up);
    let nodes = status.nodes.iter().filter_map(|node| node.node.as_ref());
    let disks = status.disks.iter().filter_map(|disk| disk.disk.as_ref());
    let silent_nodes = nodes.filter(|node| node.health != up).count();
    let silent_disks = disks.filter(|disk| disk.health != up).count();
    let counts = [
        ("nodes not up", silent_nodes as u64),
        ("disks not up", silent_disks as u64),
        ("slots missing", status.slots_missing),
        ("slots rebuilding", status.slots_rebuilding),
        ("groups below policy", status.groups_below_policy),
        ("extents to drop", status.garbage_extents),
    ];
    let open: Vec<String> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    (!open.is_empty()).then(|| open.join(", "))
}

/// One cluster for several tests that do it no harm. It ends with the last of them that holds it.
pub struct SharedCluster(Arc<TestCluster>);

impl SharedCluster {
    /// Joins the tests that use it now, or starts it for them.
    pub async fn join() -> Self {
        static SHARED: tokio::sync::Mutex<Weak<TestCluster>> = tokio::sync::Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(running) = shared.upgrade() {
            return Self(running);
        }
        let started = Arc::new(TestCluster::start(shape()).await);
        *shared = Arc::downgrade(&started);
        Self(started)
    }
}

impl Deref for SharedCluster {
    type Target = TestCluster;

    fn deref(&self) -> &TestCluster {
        &self.0
    }
}

impl Drop for SharedCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::Relaxed);
        }
    }
}
