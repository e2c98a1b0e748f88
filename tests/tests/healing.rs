//! What operators do to a running cluster: drain and remove a node, even out disks, replace one that died. Writers go on
//! meanwhile, and the metadata leader and `clusterctl` itself are killed.

// A panic is how a test fails; real processes, files and clocks are what is tested here.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, clippy::disallowed_types)]

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use serde_json::Value;
use tests::program::{self, Said};
use tests::{Content, Ledger, TestCluster, put, shape};
use tokio::task::JoinHandle;

/// Within this, whatever was begun is done, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(200);
const SIZES: [u64; 5] = [100, 5_000, 60_000, 300_000, 1_500_000];

/// A writer that goes on until it is told to stop, and what it was told.
struct Writer {
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<(u64, u64)>,
}

impl Writer {
    /// Pauses after each put, so that small disks do not fill up.
    async fn start(cluster: &TestCluster, ledger: Ledger, pause: Duration) -> Self {
        let (ledger, stop) = (Arc::new(Mutex::new(ledger)), Arc::new(AtomicBool::new(false)));
        let bucket = cluster.bucket().await;
        let (book, stopped) = (ledger.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let (mut written, mut failed) = (0_u64, 0_u64);
            while !stopped.load(Ordering::Relaxed) {
                let (name, round) = (format!("writer/{written}-{failed}"), written + failed);
                let size = SIZES[usize::try_from(round % 5).expect("small")];
                let content = Content::new(1_000_000 + round, size);
                book.lock().expect("not poisoned").begin(&name, content);
                match put(&bucket, &name, content).await {
                    Ok(_) => {
                        book.lock().expect("not poisoned").acknowledge(&name, content);
                        written += 1;
                    }
                    Err(error) => {
                        eprintln!("{name}: {error}");
                        failed += 1;
                    }
                }
                tokio::time::sleep(pause).await;
            }
            (written, failed)
        });
        Self { ledger, stop, task }
    }

    /// No put has failed; what was promised.
    async fn finish(self, when: &str) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let (written, failed) = self.task.await.expect("a writer");
        eprintln!("{when}: {written} puts, {failed} failed");
        assert!(written > 0 && failed == 0, "{when}: {written} puts, {failed} failed");
        std::mem::take(&mut *self.ledger.lock().expect("not poisoned"))
    }
}

async fn fill(cluster: &TestCluster, count: u64, size: u64) -> Ledger {
    let (bucket, mut ledger) = (cluster.bucket().await, Ledger::new());
    let objects: Vec<_> = (0..count).map(|i| (format!("before/{i}"), Content::new(i, size))).collect();
    let puts = objects.iter().map(|(name, content)| {
        let bucket = &bucket;
        async move { (name, content, put(bucket, name, *content).await) }
    });
    let mut puts = stream::iter(puts).buffer_unordered(4);
    while let Some((name, content, receipt)) = puts.next().await {
        receipt.expect("a put of a cluster that can serve");
        ledger.acknowledge(name, *content);
    }
    ledger
}

fn ctl(cluster: &TestCluster, arguments: &str) -> Command {
    let mut command = cluster.clusterctl();
    command.args(arguments.split_whitespace());
    command
}

fn run(cluster: &TestCluster, arguments: &str) -> Said {
    program::run(&mut ctl(cluster, arguments))
}

/// Runs to its end beside what else goes on here.
async fn run_beside(cluster: &TestCluster, arguments: &str) -> Said {
    let mut command = ctl(cluster, arguments);
    let start = Instant::now();
    let said = tokio::task::spawn_blocking(move || program::run(&mut command)).await.expect("it ran");
    eprintln!("clusterctl {arguments}: after {} ms, {:?}", start.elapsed().as_millis(), said.code);
    said
}

fn spawn(cluster: &TestCluster, arguments: &str) -> Child {
    let mut command = ctl(cluster, arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the program starts")
}

fn json(cluster: &TestCluster, arguments: &str) -> Value {
    run(cluster, &format!("{arguments} --json")).ok().json()
}

/// The task of this kind that was begun last; `None` while there is none, or nobody answers.
fn task(cluster: &TestCluster, kind: &str) -> Option<Value> {
    let said = run(cluster, "task ls --json");
    let tasks = if said.code == Some(0) { said.json() } else { Value::Null };
    let mut found = tasks.as_array().into_iter().flatten().filter(|task| task["kind"] == kind);
    found.next_back().cloned()
}

async fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(POLL).await;
    }
    eprintln!("{what}: after {} ms", start.elapsed().as_millis());
}

fn disks_of(cluster: &TestCluster, node: u64) -> Vec<Value> {
    let disks = json(cluster, "disk ls");
    disks.as_array().expect("disks").iter().filter(|disk| disk["node"] == node).cloned().collect()
}

/// A node is drained while a writer goes on. `clusterctl` is killed in the middle, and so is the metadata leader; the
/// same command typed again finds the task, whose progress has not fallen, and ends with nothing left on the node, which
/// is then removed. Before that it is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_and_removed() {
    let cluster = TestCluster::start(shape()).await;
    let operator = cluster.operator().await;
    let ledger = fill(&cluster, 40, 2_000_000).await;
    let writer = Writer::start(&cluster, ledger, Duration::ZERO).await;

    run(&cluster, "node rm 1 --yes").failed_with(&["clusterctl node drain 1"]);
    run(&cluster, "node drain 1").failed_with(&["--yes"]);
    let plan = json(&cluster, "node drain 1 --dry-run");
    assert!(plan["plan"]["slots"].as_u64() > Some(0), "{plan}");
    assert_eq!(task(&cluster, "drain-node"), None);

    let mut first = spawn(&cluster, "node drain 1 --yes --limit 1MiB/s");
    let done = |task: &Value| task["slots_done"].as_u64().unwrap_or_default();
    wait_until("some slots have moved", || task(&cluster, "drain-node").is_some_and(|task| done(&task) > 0))
        .await;
    first.kill().expect("killed");
    first.wait().expect("reaped");
    let before = task(&cluster, "drain-node").expect("it goes on");
    assert_eq!(before["state"], "running", "{before}");
    let leader = cluster.leader(&operator).await;
    cluster.kill(&leader);
    let said = run_beside(&cluster, "node drain 1 --yes --limit 0").await.ok();
    assert!(said.err.contains("is under way already"), "{}", said.err);
    cluster.start_again(&leader);
    let after = task(&cluster, "drain-node").expect("it is remembered");
    assert_eq!((&after["id"], &after["state"]), (&before["id"], &Value::from("done")), "{after}");
    assert!(done(&after) >= done(&before), "{before} {after}");
    for disk in disks_of(&cluster, 1) {
        assert_eq!((&disk["slots"], &disk["duty"]), (&Value::from(0), &Value::from("draining")), "{disk}");
    }
    let again = run(&cluster, "node drain 1 --yes").ok();
    assert!(again.out.contains("drained already"), "{}", again.out);

    run(&cluster, "node rm 1 --yes").failed_with(&["stop its daemon"]);
    cluster.stop("node-1");
    wait_until("the node is removed", || run(&cluster, "node rm 1 --yes").code == Some(0)).await;
    let ledger = writer.finish("a node was drained and removed").await;
    run_beside(&cluster, "status --wait 120").await.ok();
    run(&cluster, "health").ok();
    ledger.check(&cluster.bucket().await, "without the node").await;
}

/// Three nodes join; a rebalance is planned, begun slowly, paused, resumed, let go, and fills them while a writer goes
/// on. A second one finds nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn disks_are_evened_out_after_nodes_join() {
    let cluster = TestCluster::make(shape()).await;
    cluster.limit_disks("256MiB");
    cluster.start_again("all");
    cluster.found().await;
    let ledger = fill(&cluster, 60, 5_000_000).await;
    for (id, rack) in [(7, "rack-1"), (8, "rack-2"), (9, "rack-3")] {
        cluster.add_node(id, rack);
        cluster.spawn(&format!("node-{id}"));
    }
    wait_until("the new nodes serve", || {
        let disks = json(&cluster, "disk ls");
        disks.as_array().expect("disks").iter().filter(|disk| disk["health"] == "up").count() == 18
    })
    .await;
    let writer = Writer::start(&cluster, ledger, Duration::from_millis(200)).await;

    run(&cluster, "rebalance").failed_with(&["--yes"]);
    let plan = json(&cluster, "rebalance --dry-run");
    let (before, after) = (&plan["plan"]["before"], &plan["plan"]["after"]);
    assert_eq!(before["emptiest_permille"], 0, "{plan}");
    assert!(
        after["emptiest_permille"].as_u64() > Some(0) && plan["plan"]["bytes"].as_u64() > Some(0),
        "{plan}"
    );
    run(&cluster, "rebalance --yes --no-wait --limit 1MiB/s").ok();
    let paused = json(&cluster, "rebalance pause");
    assert_eq!(paused["state"], "paused", "{paused}");
    let shown = run(&cluster, "rebalance status").ok();
    assert!(shown.out.contains("paused") && shown.out.contains("task resume"), "{}", shown.out);
    assert_eq!(json(&cluster, "rebalance resume")["state"], "running");
    let limited = json(&cluster, &format!("task limit {} 200MB/s", paused["id"]));
    assert_eq!(limited["limit_bytes_per_s"], 200_000_000);
    let said = run_beside(&cluster, "rebalance --yes").await.ok();
    assert!(said.err.contains("is under way already"), "{}", said.err);
    let ledger = writer.finish("disks were evened out").await;
    let done = json(&cluster, "rebalance status");
    assert_eq!(done["state"], "done", "{done}");
    eprintln!("{} bytes planned, {} moved", plan["plan"]["bytes"], done["bytes_done"]);
    for id in [7, 8, 9] {
        let slots: u64 = disks_of(&cluster, id).iter().filter_map(|disk| disk["slots"].as_u64()).sum();
        assert!(slots > 0, "node {id} has no slot");
    }
    run(&cluster, "rebalance --dry-run").ok();
    run(&cluster, "rebalance cancel").failed_with(&["no rebalance is under way"]);
    run_beside(&cluster, "status --wait 120").await.ok();
    ledger.check(&cluster.bucket().await, "evened out").await;
}

/// A disk dies with all that was on it; `disk replace` says what to do, waits for the new disk and for redundancy. The
/// old one is retired, and the command typed once more finds everything done.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_disk_is_replaced() {
    let cluster = TestCluster::start(shape()).await;
    let ledger = fill(&cluster, 20, 1_500_000).await;
    let old = disks_of(&cluster, 1)[0].clone();
    cluster.kill("node-1");
    let path = cluster.path().join("node-1").join(old["name"].as_str().expect("a name"));
    std::fs::remove_dir_all(&path).expect("the disk dies");
    let plan = run(&cluster, &format!("disk replace {} --dry-run", old["id"])).ok();
    assert!(plan.err.contains("mount the new disk, empty"), "{}", plan.err);
    assert_eq!(task(&cluster, "replace-disk"), None);
    std::fs::create_dir(&path).expect("a new disk");
    cluster.start_again("node-1");
    let said = run_beside(&cluster, &format!("disk replace {} --yes", old["id"])).await.ok();
    assert!(said.out.contains("is replaced by disk"), "{}", said.out);
    let again = json(&cluster, &format!("disk replace {}", old["id"]));
    assert_ne!(again["new_disk"], old["id"], "{again}");
    let disks = disks_of(&cluster, 1);
    let found = disks.iter().find(|disk| disk["id"] == old["id"]).expect("it is remembered");
    assert_eq!((&found["duty"], &found["slots"]), (&Value::from("retired"), &Value::from(0)), "{found}");
    run_beside(&cluster, "status --wait 120").await.ok();
    ledger.check(&cluster.bucket().await, "with the new disk").await;
}
