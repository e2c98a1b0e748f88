//! Processes that are killed, frozen, wiped and damaged while clients read and write.

// A panic is how a test fails; real processes, files and clocks are what is tested here.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cadoled::dev::Shape;
use client::{Bucket, GetError, GetOptions, ObjectStat, PutOptions};
use futures_util::{StreamExt, stream};
use os::Host;
use proto::wire::request::Call;
use proto::{ExtentId, MetaId, Role, wire};
use tests::peer::Peer;
use tests::{Content, ContentSource, Ledger, Random, TestCluster, get, key, put, shape, shards};
use tokio::task::JoinHandle;

/// Within this, whatever was lost is made good: detection, filling and moving, on a busy machine.
const HEALING: Duration = Duration::from_secs(120);
/// Within this, a cluster whose processes were just started serves again.
const RECOVERY: Duration = Duration::from_secs(60);
/// One of each class: inline, replicated, part of a stripe, a stripe and more.
const SIZES: [u64; 6] = [100, 5_000, 60_000, 300_000, 1_500_000, 5_000_000];

/// Puts `count` objects of mixed sizes, a few at a time, and books them.
async fn fill(bucket: &Bucket<Host>, ledger: &mut Ledger, prefix: &str, count: usize) {
    let objects: Vec<(String, Content)> = (0..count)
        .map(|i| {
            let seed = prefix.bytes().fold(i as u64, |seed, byte| seed * 31 + u64::from(byte));
            (format!("{prefix}/{i}"), Content::new(seed, SIZES[i % SIZES.len()]))
        })
        .collect();
    let puts = objects.iter().map(|(name, content)| async move {
        put(bucket, name, *content).await.map(|receipt| (name, *content, receipt))
    });
    let mut puts = stream::iter(puts).buffer_unordered(4);
    while let Some(done) = puts.next().await {
        let (name, content, _) = done.expect("a put of a cluster that can serve");
        ledger.acknowledge(name, content);
    }
}

/// A whole rack dies: everything is still read, puts succeed and their receipts do not promise what
/// cannot be kept; the rack returns, everything becomes whole, and then another rack may die as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_rack_is_lost_and_then_another() {
    let cluster = TestCluster::start(shape()).await;
    let operator = cluster.operator().await;
    let bucket = cluster.bucket().await;
    let mut ledger = Ledger::new();
    fill(&bucket, &mut ledger, "before", 18).await;

    cluster.kill("rack-2");
    ledger.check(&bucket, "rack-2 just died").await;
    for (i, size) in SIZES.into_iter().enumerate() {
        let (name, content) = (format!("during/{i}"), Content::new(1000 + i as u64, size));
        let receipt = put(&bucket, &name, content).await.expect("two racks are enough to write");
        eprintln!("put with rack-2 dead, {size} bytes: {receipt}");
        let stat = bucket.stat(&key(&name)).await.expect("stat");
        let (disks, racks) = tolerable(&stat, &BTreeSet::from(["rack-2"]));
        assert!(
            receipt.tolerates.disks <= disks && receipt.tolerates.racks <= racks,
            "{receipt}, in truth {disks} disks, {racks} racks"
        );
        ledger.acknowledge(&name, content);
    }
    ledger.check(&bucket, "rack-2 dead").await;

    cluster.start_again("rack-2");
    cluster.wait_whole(&operator, HEALING).await;
    for (name, _) in ledger.acknowledged() {
        let stat = bucket.stat(&key(name)).await.expect("stat");
        assert!(stat.is_inline || stat.tolerates.racks >= 1, "{name}: {}", stat.tolerates);
    }
    cluster.kill("rack-1");
    ledger.check(&bucket, "rack-2 back and whole, rack-1 dead").await;
    cluster.start_again("rack-1");
    cluster.wait_whole(&operator, HEALING).await;
    cluster.kill("rack-3");
    ledger.check(&bucket, "rack-1 back and whole, rack-3 dead").await;
}

/// How many disks and racks may still be lost, worked out anew from where the shards are and which racks
/// are dead. For an object in the metadata alone: as many as its servers can lose.
fn tolerable(stat: &ObjectStat, dead: &BTreeSet<&str>) -> (u32, u32) {
    let (mut disks, mut racks) = (u32::MAX, u32::MAX);
    for extent in &stat.extents {
        let placement = stat.placements.iter().find(|placement| placement.group == extent.group);
        let placement = placement.expect("a placement for each extent");
        let mut left_by_rack = BTreeMap::<&str, u32>::new();
        for (slot, place) in placement.places.iter().enumerate() {
            let holds = extent.missing & (1 << slot) == 0 && !dead.contains(place.rack.as_str());
            *left_by_rack.entry(&place.rack).or_default() += u32::from(holds);
        }
        let left: u32 = left_by_rack.values().sum();
        disks = disks.min(left.saturating_sub(placement.k));
        let mut by_rack: Vec<u32> = left_by_rack.into_values().filter(|left| *left > 0).collect();
        by_rack.sort_unstable_by(|a, b| b.cmp(a));
        let survives = |lost: &usize| left - by_rack[..*lost].iter().sum::<u32>() >= placement.k;
        let most = (1..=by_rack.len()).take_while(survives).count();
        racks = racks.min(u32::try_from(most).expect("few racks"));
    }
    if stat.is_inline { (1, 1) } else { (disks, racks) }
}

/// Writers that go on, whatever happens.
struct Writers {
    ledger: Arc<Mutex<Ledger>>,
    progress: Arc<Mutex<Progress>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

/// When puts were acknowledged.
struct Progress {
    last: Instant,
    longest_gap: Duration,
    acknowledged: u64,
    failed: u64,
}

impl Writers {
    /// `count` writers, each with a connection and keys of its own.
    async fn start(cluster: &TestCluster, count: u64, prefix: &str, ledger: Ledger) -> Self {
        let now = Instant::now();
        let progress = Progress { last: now, longest_gap: Duration::ZERO, acknowledged: 0, failed: 0 };
        let mut writers = Self {
            ledger: Arc::new(Mutex::new(ledger)),
            progress: Arc::new(Mutex::new(progress)),
            stop: Arc::default(),
            tasks: Vec::new(),
        };
        for writer in 0..count {
            let bucket = cluster.bucket().await;
            let (ledger, progress, stop) =
                (writers.ledger.clone(), writers.progress.clone(), writers.stop.clone());
            let prefix = format!("{prefix}/{writer}");
            writers.tasks.push(tokio::spawn(async move {
                write_on(&bucket, &prefix, writer, &ledger, &progress, &stop).await;
            }));
        }
        writers
    }

    fn acknowledged(&self) -> u64 {
        self.progress.lock().expect("not poisoned").acknowledged
    }

    /// Waits until `more` further puts are acknowledged.
    async fn wait_for(&self, more: u64, what: &str) {
        let (start, from) = (Instant::now(), self.acknowledged());
        while self.acknowledged() < from + more {
            assert!(start.elapsed() < RECOVERY, "no more puts are acknowledged: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lets each finish its put, then gives back what they know.
    async fn finish(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a writer");
        }
        std::mem::take(&mut *self.ledger.lock().expect("not poisoned"))
    }

    /// Ends them wherever they are, as if their machine had died too.
    async fn abort(self) -> Ledger {
        for task in self.tasks {
            task.abort();
            // Aborted, which is an error to the one who waits.
            let _ = task.await;
        }
        std::mem::take(&mut *self.ledger.lock().expect("not poisoned"))
    }
}

async fn write_on(
    bucket: &Bucket<Host>,
    prefix: &str,
    writer: u64,
    ledger: &Mutex<Ledger>,
    progress: &Mutex<Progress>,
    stop: &AtomicBool,
) {
    let mut round = 0_usize;
    while !stop.load(Ordering::Relaxed) {
        // A key whose put was not acknowledged is left alone: it may still appear later.
        let (name, seed) = (format!("{prefix}/{round}"), writer * 1_000_000 + round as u64);
        let content = Content::new(seed, SIZES[round % 5]);
        ledger.lock().expect("not poisoned").begin(&name, content);
        let outcome = put(bucket, &name, content).await;
        let mut progress = progress.lock().expect("not poisoned");
        match outcome {
            Ok(_) => {
                ledger.lock().expect("not poisoned").acknowledge(&name, content);
                progress.acknowledged += 1;
                progress.longest_gap = progress.longest_gap.max(progress.last.elapsed());
                progress.last = Instant::now();
            }
            Err(error) => {
                progress.failed += 1;
                eprintln!("{name}: {error}");
            }
        }
        round += 1;
    }
}

/// Each metadata server in turn, the leader first, is killed while clients write: writes go on with the
/// other two, nothing acknowledged is lost, and the killed one comes back. Prints the longest gap.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_servers_are_killed_in_turn() {
    let cluster = TestCluster::start(shape()).await;
    let operator = cluster.operator().await;
    let writers = Writers::start(&cluster, 4, "turn", Ledger::new()).await;
    writers.wait_for(20, "in good health").await;
    let leader = cluster.leader(&operator).await;
    let mut order = cluster.names("metas");
    order.sort_by_key(|name| *name != leader);
    for name in order {
        let led = cluster.leader(&operator).await == name;
        cluster.kill(&name);
        writers.wait_for(30, &format!("{name} is dead")).await;
        cluster.start_again(&name);
        cluster.wait_for(&operator, RECOVERY, &format!("{name} follows again"), all_members_follow).await;
        let mut progress = writers.progress.lock().expect("not poisoned");
        eprintln!(
            "killed {name}{}: the longest time without an acknowledged put was {} ms",
            if led { ", the leader" } else { "" },
            progress.longest_gap.as_millis()
        );
        progress.longest_gap = Duration::ZERO;
    }
    let failed = writers.progress.lock().expect("not poisoned").failed;
    let ledger = writers.finish().await;
    assert_eq!(failed, 0, "puts failed though a majority was always there");
    ledger.check(&cluster.bucket().await, "after each metadata server was killed").await;
}

/// Every member has answered just now and has all but the last entries.
fn all_members_follow(status: &wire::GetStatusReply) -> Option<String> {
    let lagging = |member: &&wire::MemberStatus| {
        let silent = member.answered_ms_ago.is_none_or(|ms| ms > 2_000);
        !member.is_leader && (silent || member.matched_index + 50 < status.applied_index)
    };
    let lagging: Vec<String> = status
        .members
        .iter()
        .filter(lagging)
        .map(|member| {
            let id = member.member.as_ref().map_or(0, |member| member.id);
            format!("meta-{id} at {} of {}", member.matched_index, status.applied_index)
        })
        .collect();
    (!lagging.is_empty()).then(|| lagging.join(", "))
}

/// A leader that is told to stop hands over first: it ends by itself with success, and writes go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_hands_over() {
    let cluster = TestCluster::start(shape()).await;
    let operator = cluster.operator().await;
    let writers = Writers::start(&cluster, 2, "handover", Ledger::new()).await;
    writers.wait_for(10, "in good health").await;
    writers.progress.lock().expect("not poisoned").longest_gap = Duration::ZERO;
    let leader = cluster.leader(&operator).await;
    let start = Instant::now();
    let status = cluster.stop(&leader).expect("it ran");
    eprintln!("{leader} stopped within {} ms", start.elapsed().as_millis());
    assert!(status.success(), "{leader} ended with {status}:\n{}", cluster.log_of(&leader));
    writers.wait_for(20, "the leader stopped").await;
    let gap = writers.progress.lock().expect("not poisoned").longest_gap;
    eprintln!("the longest time without an acknowledged put was {} ms", gap.as_millis());
    assert_ne!(cluster.leader(&operator).await, leader);
    writers.finish().await.check(&cluster.bucket().await, "after the leader stopped").await;
    for name in cluster.names("nodes") {
        let status = cluster.stop(&name).expect("it ran");
        assert!(status.success(), "{name} ended with {status}:\n{}", cluster.log_of(&name));
    }
}

/// Everything is killed at a random moment of a write load, ten times: whatever was acknowledged reads
/// back after the restart, and what was not is there as a whole or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn everything_is_killed_ten_times() {
    let cluster = TestCluster::start(shape()).await;
    let mut random = Random::start("everything_is_killed_ten_times");
    let mut ledger = Ledger::new();
    for round in 0..10 {
        let writers = Writers::start(&cluster, 4, &format!("round-{round}"), ledger).await;
        tokio::time::sleep(Duration::from_millis(100 + random.below(1500))).await;
        cluster.kill("all");
        let acknowledged = writers.acknowledged();
        ledger = writers.abort().await;
        cluster.start_again("all");
        let operator = cluster.operator().await;
        let took = cluster.wait_for(&operator, RECOVERY, "all nodes are up again", nodes_not_up).await;
        let when = format!("round {round}: {acknowledged} puts, killed, back after {} ms", took.as_millis());
        ledger.check(&cluster.bucket().await, &when).await;
    }
    let operator = cluster.operator().await;
    cluster.wait_whole(&operator, HEALING).await;
    for name in cluster.names("all") {
        assert!(cluster.runs(&name), "{name} has ended:\n{}", cluster.log_of(&name));
    }
}

fn nodes_not_up(status: &wire::GetStatusReply) -> Option<String> {
    let up = i32::from(wire::Health::Up);
    let silent = status.nodes.iter().filter_map(|node| node.node.as_ref()).filter(|node| node.health != up);
    let silent: Vec<String> = silent.map(|node| format!("node {}", node.id)).collect();
    (!silent.is_empty()).then(|| silent.join(", "))
}

/// Any two of the six nodes freeze or die: every object is read. Three do: what has fewer than `k`
/// shards left ends in an error, in time and never in wrong bytes, and the rest is read.
#[tokio::test(flavor = "multi_thread")]
async fn any_two_nodes_are_gone_and_then_three() {
    // Nothing shall be moved away: this is about reading with what is left.
    let cluster = TestCluster::start(Shape { down_after_ms: 300_000, ..shape() }).await;
    let operator = cluster.operator().await;
    let bucket = cluster.bucket().await;
    let mut ledger = Ledger::new();
    fill(&bucket, &mut ledger, "pairs", 12).await;
    for a in 1..=6_u32 {
        for b in a + 1..=6 {
            let names = [format!("node-{a}"), format!("node-{b}")];
            let dies = (a + b) % 4 == 0;
            let start = Instant::now();
            names.iter().for_each(|name| if dies { cluster.kill(name) } else { cluster.pause(name) });
            let done = if dies { "dead" } else { "frozen" };
            ledger.check(&bucket, &format!("{} and {} {done}", names[0], names[1])).await;
            eprintln!("  all read within {} ms", start.elapsed().as_millis());
            names.iter().for_each(|name| if dies { cluster.start_again(name) } else { cluster.resume(name) });
            cluster.wait_for(&operator, RECOVERY, "both are back", nodes_not_up).await;
        }
    }
    three_are_gone(&cluster, &bucket, &ledger).await;
    cluster.wait_for(&operator, RECOVERY, "all are back", nodes_not_up).await;
    ledger.check(&bucket, "all are back").await;
}

async fn three_are_gone(cluster: &TestCluster, bucket: &Bucket<Host>, ledger: &Ledger) {
    const LIMIT: Duration = Duration::from_secs(4);
    let gone = BTreeSet::from([1, 3, 5]);
    let objects: Vec<(&str, Content)> = ledger.acknowledged().collect();
    let mut stats = Vec::new();
    for (name, _) in &objects {
        stats.push(bucket.stat(&key(name)).await.expect("stat"));
    }
    gone.iter().for_each(|node| cluster.pause(&format!("node-{node}")));
    let mut lost = 0;
    for ((name, content), stat) in objects.iter().zip(&stats) {
        let start = Instant::now();
        let read = read_within(bucket, name, LIMIT).await;
        assert!(start.elapsed() < LIMIT + Duration::from_secs(20), "{name} took {:?}", start.elapsed());
        match read {
            Ok(bytes) => assert_eq!(content.difference(&bytes), None, "{name}"),
            Err(error) => {
                assert!(!readable(stat, &gone), "{name} has enough shards left, but: {error}");
                lost += 1;
                if lost == 1 {
                    eprintln!("{name}: {error}");
                }
            }
        }
    }
    assert!(lost > 0, "three nodes were gone and everything could be read: the test tests nothing");
    eprintln!("three nodes frozen: {lost} of {} objects out of reach", objects.len());
    gone.iter().for_each(|node| cluster.resume(&format!("node-{node}")));
}

async fn read_within(bucket: &Bucket<Host>, name: &str, limit: Duration) -> Result<Vec<u8>, GetError> {
    let mut object =
        bucket.get(&key(name), GetOptions { timeout: Some(limit), ..Default::default() }).await?;
    let mut all = Vec::new();
    while let Some(bytes) = object.next().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

/// Does each extent have `k` slots on other nodes than these?
fn readable(stat: &ObjectStat, gone: &BTreeSet<u32>) -> bool {
    stat.extents.iter().all(|extent| {
        let placement = stat.placements.iter().find(|placement| placement.group == extent.group);
        let placement = placement.expect("a placement for each extent");
        let left = placement.places.iter().filter(|place| !gone.contains(&place.node)).count();
        left >= placement.k as usize
    })
}

/// A node that was killed and started again tells those who still use its old connections that these are
/// gone; they need not wait until they have heard nothing for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_disowns_its_old_connections() {
    let cluster = TestCluster::start(shape()).await;
    let peer = Peer::of(&cluster.ca(), "operator/patient");
    let address = cluster.address("node-1");
    let info = || peer.call(&address, Role::Node, Call::NodeInfo(wire::NodeInfo {}));
    info().await.expect("an answer");
    let started = || cluster.log_of("node-1").matches("storage node started").count();
    let before = started();
    cluster.kill("node-1");
    cluster.start_again("node-1");
    while started() == before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    match info().await {
        // The connection was known to be gone before the call.
        Ok(_) => {}
        Err(error) => {
            let told = error.to_string();
            assert!(told.contains("the peer has restarted"), "{told}");
        }
    }
    info().await.expect("an answer over a new connection");
}

/// Shards are damaged or vanish on the disk, under a running node and under a stopped one: every read
/// still gives the right bytes, and the shards come back as they were.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_deleted_shards_are_made_again() {
    let cluster = TestCluster::start(shape()).await;
    let bucket = cluster.bucket().await;
    for (size, harm) in [
        (3_000_000, Harm::FlipPayload),
        (3_000_001, Harm::FlipHeader),
        (3_000_002, Harm::LoseHalf),
        (3_000_003, Harm::LoseAll),
        (50_000, Harm::FlipPayload),
        (50_001, Harm::RemoveSegment),
    ] {
        for stopped in [false, true] {
            if !stopped && harm == Harm::RemoveSegment {
                // A node that runs has the file open, and misses it at its next start alone.
                continue;
            }
            let (name, content) = (format!("{harm:?}/{size}/{stopped}"), Content::new(size, size));
            put(&bucket, &name, content).await.expect("put");
            let before = shards_of(&cluster, &bucket, &name).await;
            let victim = before.first().expect("slot 0 has a shard").clone();
            let original = victim.payload();
            if stopped {
                cluster.kill(&victim.node);
            }
            harm.inflict(&victim);
            if stopped {
                cluster.start_again(&victim.node);
            }
            let bytes = get(&bucket, &name).await.expect(&name);
            assert_eq!(content.difference(&bytes), None, "{name}: {harm:?}");
            made_again(&cluster, &bucket, &name, &victim, &original).await;
        }
    }
    let operator = cluster.operator().await;
    cluster.wait_whole(&operator, HEALING).await;
}

/// What happens to a shard's record.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Harm {
    FlipPayload,
    FlipHeader,
    LoseHalf,
    LoseAll,
    /// With all that lies in it.
    RemoveSegment,
}

impl Harm {
    fn inflict(self, shard: &shards::Shard) {
        match self {
            Self::FlipPayload => shard.damage(shards::HEADER_BYTES + 1234),
            Self::FlipHeader => shard.damage(40),
            Self::LoseHalf => shard.zero(shard.bytes / 2),
            Self::LoseAll => shard.zero(0),
            Self::RemoveSegment => shard.remove_file(),
        }
    }
}

/// The shards of an object's only extent, by slot.
async fn shards_of(cluster: &TestCluster, bucket: &Bucket<Host>, name: &str) -> Vec<shards::Shard> {
    let stat = bucket.stat(&key(name)).await.expect("stat");
    let extent = ExtentId::from_wire(&stat.extents[0].id).expect("an extent");
    let mut found = shards::all(cluster.path());
    found.retain(|shard| shard.name.extent == extent);
    found.sort_by_key(|shard| shard.name);
    found
}

/// Reads until the damage is noticed and the shard is again what it was: a read may have asked other
/// slots than the damaged one.
async fn made_again(
    cluster: &TestCluster,
    bucket: &Bucket<Host>,
    name: &str,
    victim: &shards::Shard,
    original: &[u8],
) {
    let start = Instant::now();
    loop {
        let there = shards_of(cluster, bucket, name).await;
        let found = there.iter().find(|shard| shard.name == victim.name && shard.whole);
        if found.is_some_and(|shard| shard.payload() == original) {
            eprintln!("{name}: made again after {} ms", start.elapsed().as_millis());
            return;
        }
        assert!(start.elapsed() < HEALING, "{name}: {victim:?} was not made again");
        get(bucket, name).await.expect("still readable");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A client vanishes in the middle of a put, three ways: nothing of it is ever seen, what was there
/// before stays, and the next put of the same key works.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_vanishes_in_the_middle_of_a_put() {
    let cluster = TestCluster::start(shape()).await;
    let bucket = cluster.bucket().await;
    let before = Content::new(1, 10_000);
    put(&bucket, "kept", before).await.expect("put");

    // Its future is dropped.
    for name in ["kept", "dropped"] {
        let vanishing = cluster.bucket().await;
        let endless = Stalling(Content::new(2, 40_000_000).source(), 0);
        let putting = async { vanishing.put(&key(name), endless, PutOptions::default()).await };
        let outcome = tokio::time::timeout(Duration::from_secs(2), putting).await;
        assert!(outcome.is_err(), "{name}: the put ended by itself: {outcome:?}");
    }
    // Its source breaks off.
    let source = Content::new(3, 20_000_000).source().failing_at(10_000_000);
    let error =
        bucket.put(&key("broken"), source, PutOptions::default()).await.expect_err("the source failed");
    assert!(error.to_string().contains("hung up"), "{error}");
    // Its process dies.
    killed_upload(&cluster, "killed").await;

    assert_eq!(before.difference(&get(&bucket, "kept").await.expect("still there")), None);
    for name in ["dropped", "broken", "killed"] {
        let error = get(&bucket, name).await.expect_err("never finished");
        assert!(matches!(error, GetError::NoSuchObject(_)), "{name}: {error}");
        let after = Content::new(4, 9_000_000);
        put(&bucket, name, after).await.expect("put");
        assert_eq!(after.difference(&get(&bucket, name).await.expect("get")), None);
    }
}

/// Gives some stripes, then nothing any more.
struct Stalling(ContentSource, u64);

impl client::Source for Stalling {
    async fn read(&mut self, max: usize) -> Result<Option<bytes::Bytes>, client::SourceError> {
        if self.1 > 20_000_000 {
            std::future::pending::<()>().await;
        }
        let piece = self.0.read(max).await?;
        self.1 += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Ok(piece)
    }
}

/// `clusterctl object put` reads from a pipe that never ends, and is killed.
async fn killed_upload(cluster: &TestCluster, name: &str) {
    use std::io::Write;
    let mut command = cluster.clusterctl();
    command.args(["object", "put", "-", &format!("files/{name}")]).stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().expect("clusterctl starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    let written = pipe.write_all(&Content::new(5, 13_000_000).bytes());
    let early = child.try_wait().expect("a child");
    assert!(written.is_ok() && early.is_none(), "clusterctl ended early: {early:?}, {written:?}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    child.kill().expect("killed");
    child.wait().expect("ended");
    drop(pipe);
}

/// A metadata server lags behind by more than the log keeps, and catches up from a snapshot. One loses
/// its disk: it is replaced by a new member under a new id, and may not come back under the old one.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_servers_catch_up_and_are_replaced() {
    let cluster = TestCluster::start(Shape { snapshot_every_entries: 500, ..shape() }).await;
    let operator = cluster.operator().await;
    let bucket = cluster.bucket().await;
    let mut ledger = Ledger::new();

    // The one that lags is a follower: the leader stays.
    let leader = cluster.leader(&operator).await;
    let follower = cluster.names("metas").into_iter().find(|name| *name != leader).expect("three");
    cluster.kill(&follower);
    many_small(&bucket, &mut ledger, "lag", 3000).await;
    cluster.start_again(&follower);
    cluster.wait_for(&operator, RECOVERY, "the lagging server follows", all_members_follow).await;

    // Its disk is lost. Under its old id it must not vote again, and does not.
    cluster.kill(&follower);
    std::fs::remove_dir_all(cluster.path().join(&follower).join("data")).expect("removed");
    cluster.start_again(&follower);
    // Time for the others to notice that it answers again, and to send it what they think it lacks.
    tokio::time::sleep(Duration::from_secs(10)).await;
    many_small(&bucket, &mut ledger, "with-wiped", 50).await;
    let told = cluster.log_of(&follower);
    assert!(told.contains("it has lost its data"), "{told}");
    let status = operator.admin().status().await.expect("status");
    let silent = status.members.iter().filter(|member| member.answered_ms_ago.is_none_or(|ms| ms > 2_000));
    let silent: Vec<u64> = silent.filter_map(|member| Some(member.member.as_ref()?.id)).collect();
    assert_eq!(silent, [TestCluster::number(&follower)], "the wiped server must not count: {status:?}");
    cluster.kill(&follower);
    many_small(&bucket, &mut ledger, "wiped", 50).await;

    // A new one takes its place.
    let address = cluster.add_meta(4);
    cluster.spawn("meta-4");
    let admin = operator.admin();
    admin.add_member(MetaId(4), address).await.expect("added");
    let old = TestCluster::number(&follower);
    admin.remove_member(MetaId(old)).await.expect("removed");
    cluster.wait_for(&operator, RECOVERY, "the new server follows", all_members_follow).await;
    let members = operator.admin().cluster_info().await.expect("an answer").members;
    let ids: BTreeSet<u64> = members.iter().filter(|m| m.voter).map(|m| m.id).collect();
    assert!(ids.contains(&4) && !ids.contains(&old) && ids.len() == 3, "{members:?}");

    // And is as good as any: with another one dead, the majority needs it.
    cluster.kill(&leader);
    many_small(&bucket, &mut ledger, "after", 50).await;
    ledger.check(&bucket, "the new server is part of the majority").await;
}

async fn many_small(bucket: &Bucket<Host>, ledger: &mut Ledger, prefix: &str, count: u64) {
    let objects: Vec<_> = (0..count).map(|i| (format!("{prefix}/{i}"), Content::new(i, 20))).collect();
    let puts = objects.iter().map(|(name, content)| put(bucket, name, *content));
    let outcomes: Vec<_> = stream::iter(puts).buffered(64).collect().await;
    for ((name, content), outcome) in objects.iter().zip(outcomes) {
        outcome.expect("a put of a cluster that can serve");
        ledger.acknowledge(name, *content);
    }
}
