//! Disks that no daemon serves any more: what `clusterctl offline` finds on them, and saves.

// A panic is how a test fails; real processes, files and clocks are what is tested here.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cadoled::dev;
use client::{PutOptions, Source, SourceError};
use proto::wire;
use serde_json::Value;
use tests::program::{self, Said};
use tests::shards::{self, Shard};
use tests::{Content, ContentSource, PATIENCE, TestCluster, get, key, put, put_with, shape};
use tokio::sync::oneshot;

/// A stripe of `rs-4-2`.
const STRIPE: u64 = 4 * 1024 * 1024;
/// How long it may take until a rack that was killed is known to be down.
const DOWN: Duration = Duration::from_secs(60);
/// Two disks of one rack: no more than two slots of any group, and none of a group that was formed without the rack.
const AWAY: [&str; 2] = ["node-5/disk-0", "node-6/disk-1"];

/// A source that stands still in the middle until it is told to go on.
struct Pausing {
    source: ContentSource,
    given: u64,
    pause_at: u64,
    reached: Option<oneshot::Sender<()>>,
    go_on: Option<oneshot::Receiver<()>>,
}

impl Source for Pausing {
    async fn read(&mut self, max: usize) -> Result<Option<Bytes>, SourceError> {
        if self.given >= self.pause_at
            && let (Some(reached), Some(go_on)) = (self.reached.take(), self.go_on.take())
        {
            reached.send(()).expect("the test waits");
            go_on.await.expect("the test goes on");
        }
        let piece = self.source.read(max).await?;
        self.given += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Ok(piece)
    }
}

/// A cluster with small disks, so that their logs have many segments and take little of this machine's.
async fn start() -> TestCluster {
    let cluster = TestCluster::make(shape()).await;
    for node in cluster.names("nodes") {
        let config = cluster.config_of(&node);
        let text = fs::read_to_string(&config).expect("a configuration");
        let limited = text.replace("path = \"disk-", "capacity = \"256MiB\"\npath = \"disk-");
        assert_ne!(text, limited, "{node} has no disks");
        fs::write(&config, limited).expect("written");
    }
    cluster.start_again("all");
    dev::found(cluster.path(), cluster.layout()).await.expect("the cluster is founded");
    cluster
}

fn ctl(cluster: &TestCluster, arguments: &[&str], paths: &[PathBuf]) -> Said {
    program::run(cluster.clusterctl().arg("offline").args(arguments).args(paths))
}

/// The directories of all disks but those that were taken away.
fn disks(cluster: &TestCluster, without: &[&str]) -> Vec<PathBuf> {
    let all = (1..=6).flat_map(|node| (0..2).map(move |disk| format!("node-{node}/disk-{disk}")));
    all.filter(|disk| !without.contains(&disk.as_str())).map(|disk| cluster.path().join(disk)).collect()
}

/// All objects of which disks have something, by key.
async fn fill(cluster: &TestCluster) -> BTreeMap<String, Content> {
    let bucket = cluster.bucket().await;
    let mut objects = BTreeMap::new();
    let sizes = [
        4097,
        64 * 1024,
        64 * 1024 + 1,
        300_000,
        STRIPE - 1,
        STRIPE,
        2 * STRIPE,
        9 * 1024 * 1024 + 3,
        20_000_000,
    ];
    for (seed, size) in (1..).zip(sizes) {
        let (name, content) = (format!("sizes/{size}"), Content::new(seed, size));
        put(&bucket, &name, content).await.expect("put");
        objects.insert(name, content);
    }
    // Neither of these may be where its key says.
    for (seed, name) in (100..).zip(["../../escape", "/etc/cadole", "sizes", "dir/"]) {
        let content = Content::new(seed, 200_000);
        put(&bucket, name, content).await.expect("put");
        objects.insert(name.to_owned(), content);
    }
    for seed in 200..203 {
        let content = Content::new(seed, 5_000_000);
        put(&bucket, "twice", content).await.expect("put");
        objects.insert("twice".to_owned(), content);
    }
    // A length that is told ends an object of full stripes.
    let told = Content::new(300, 2 * STRIPE);
    let options = PutOptions { size_hint: Some(told.size), ..PutOptions::default() };
    put_with(&bucket, "told", told, options).await.expect("put");
    objects.insert("told".to_owned(), told);
    for (name, size) in [("inline/none", 0), ("inline/some", 4096)] {
        put(&bucket, name, Content::new(size, size)).await.expect("put");
    }
    objects
}

/// An object of which a rack has seen the beginning, and not the end: it goes on in another group.
async fn put_while_a_rack_dies(cluster: &TestCluster) -> (String, Content) {
    let bucket = cluster.bucket().await;
    let content = Content::new(400, 6 * STRIPE + 12_345);
    let (reached, has_reached) = oneshot::channel();
    let (may_go_on, go_on) = oneshot::channel();
    let source = Pausing {
        source: content.source(),
        given: 0,
        pause_at: 3 * STRIPE + 1,
        reached: Some(reached),
        go_on: Some(go_on),
    };
    let putting = tokio::spawn(async move {
        let options = PutOptions { timeout: Some(2 * PATIENCE), ..PutOptions::default() };
        let receipt = bucket.put(&key("two-extents"), source, options).await.expect("two racks are enough");
        let stat = bucket.stat(&key("two-extents")).await.expect("stat");
        (receipt, stat.extents.len())
    });
    has_reached.await.expect("the put begins");
    cluster.kill("rack-3");
    let down = |status: &wire::GetStatusReply| {
        let nodes = status.nodes.iter().filter_map(|node| node.node.as_ref());
        let down = nodes.filter(|node| node.health == i32::from(wire::Health::Down)).count();
        (down < 2).then(|| format!("{down} nodes are down"))
    };
    cluster.wait_for(&cluster.operator().await, DOWN, "a rack is down", down).await;
    may_go_on.send(()).expect("the put waits");
    let (receipt, extents) = putting.await.expect("no panic");
    eprintln!("two-extents: {extents} extents, {receipt}");
    assert!(extents > 1, "the put did not go to another group");
    ("two-extents".to_owned(), content)
}

/// A shard of an object is damaged and made again; which one.
async fn make_again(cluster: &TestCluster, name: &str) -> Shard {
    let bucket = cluster.bucket().await;
    let extent = bucket.stat(&key(name)).await.expect("stat").extents[0].id.clone();
    // The first data shard: a get reads it.
    let is_read = |shard: &Shard| shard.name.extent.to_wire() == extent && shard.name.slot.0 == 0;
    let victim = shards::all(cluster.path()).into_iter().find(is_read).expect("a shard");
    let original = victim.payload();
    victim.damage(shards::HEADER_BYTES + 5);
    let start = Instant::now();
    loop {
        get(&bucket, name).await.expect("still readable");
        let there =
            shards::all(cluster.path()).into_iter().find(|shard| shard.name == victim.name && shard.whole);
        if let Some(shard) = there.filter(|shard| shard.payload() == original) {
            return shard;
        }
        assert!(start.elapsed() < DOWN, "{victim:?} was not made again");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What a salvage says it saved, as key and file, without other versions of the same key.
fn saved(report: &Value) -> BTreeMap<String, PathBuf> {
    let all = report["saved"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    all.filter(|one| one["best"] == true).map(|one| (text(&one["key"]), text(&one["file"]).into())).collect()
}

fn check_saved(report: &Value, objects: &BTreeMap<String, Content>, to: &Path) {
    let saved = saved(report);
    assert_eq!(saved.keys().collect::<Vec<_>>(), objects.keys().collect::<Vec<_>>(), "{report:#}");
    for (name, content) in objects {
        let file = &saved[name];
        assert!(file.starts_with(to), "{name}: {file:?}");
        assert_eq!(content.difference(&fs::read(file).expect("read")), None, "{name}: {file:?}");
    }
}

/// Inverts the first byte of a shard.
fn damage(file: &Path, record: u64) {
    let file = File::options().read(true).write(true).open(file).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, record + 4096).expect("a byte");
    file.write_all_at(&[!byte[0]], record + 4096).expect("damaged");
}

/// Power fails, all metadata and the indexes of all disks are lost, and two disks: every object that was ever
/// acknowledged, and was larger than metadata keeps, is saved byte for byte from what is left, under its key or, where
/// that is no path, apart; nothing is written over, and what cannot be saved is named with what it lacks.
#[tokio::test(flavor = "multi_thread")]
async fn objects_come_back_without_metadata() {
    let cluster = start().await;
    let mut objects = fill(&cluster).await;
    let made = make_again(&cluster, "sizes/9437187").await;
    objects.extend([put_while_a_rack_dies(&cluster).await]);
    let served = ctl(&cluster, &["list"], &disks(&cluster, &[])[..1]);
    served.failed_with(&["in use"]);
    cluster.kill("all");
    for meta in 1..=3 {
        fs::remove_dir_all(cluster.path().join(format!("meta-{meta}/data"))).expect("removed");
    }
    for node in 1..=6 {
        fs::remove_dir_all(cluster.path().join(format!("node-{node}/data"))).expect("removed");
    }

    damage_is_found(&cluster);
    hints_are_passed_on(&cluster, &made, "sizes/9437187");
    salvage(&cluster, &objects);
    what_is_lost_is_named(&cluster, &objects);
}

/// All disks are whole after the power failed; of a damaged shard the place is said, and extracting it is refused.
fn damage_is_found(cluster: &TestCluster) {
    let all = disks(cluster, &[]);
    let whole = ctl(cluster, &["check", "--json"], &all).ok().json();
    assert_eq!(whole["whole"], true, "{whole:#}");
    let listed = ctl(cluster, &["list", "--json"], &all[..1]).ok().json();
    let shards = listed["disks"][0]["shards"].as_array().expect("a list");
    assert_eq!(whole["disks"][0]["shards"], shards.len(), "{listed:#}");
    // One of the first that were written: the end of a log may have been torn by the crash, as far as can be known.
    let place = |shard: &&Value| (shard["segment"].as_str().map(str::to_owned), shard["offset"].as_u64());
    let shard = shards.iter().min_by_key(place).expect("a shard");
    let (name, offset) =
        (shard["shard"].as_str().expect("text"), shard["offset"].as_u64().expect("a number"));
    let file = all[0].join(shard["segment"].as_str().expect("text"));
    let out = cluster.path().join("extracted");
    let (to, one) = (out.to_string_lossy(), out.join("one"));
    let extract = |to: &str| ctl(cluster, &["extract", "--shard", name, "--to", to], &all[..1]);
    extract(&one.to_string_lossy()).ok();
    assert_eq!(fs::read(&one).expect("read").len() as u64, shard["bytes"].as_u64().expect("a number"));
    extract(&one.to_string_lossy()).failed_with(&["already"]);

    damage(&file, offset);
    let found = ctl(cluster, &["check", "--json"], &all);
    assert_eq!(found.code, Some(1), "{found:?}");
    let found = found.json();
    let damaged = &found["disks"][0]["damage"];
    assert_eq!(damaged.as_array().map(Vec::len), Some(1), "{found:#}");
    assert_eq!(damaged[0]["file"].as_str().map(Path::new), Some(&*file), "{found:#}");
    assert_eq!(
        (&damaged[0]["offset"], &damaged[0]["shard"]),
        (&shard["offset"], &shard["shard"]),
        "{found:#}"
    );
    extract(&out.join("two").to_string_lossy()).failed_with(&["damaged"]);
    let rest = ctl(cluster, &["extract", "--all", "--to", &to, "--json"], &all[..1]);
    assert_eq!((rest.code, &rest.json()["shards"]), (Some(1), &Value::from(shards.len() - 1)), "{rest:?}");
    damage(&file, offset);
    ctl(cluster, &["check"], &all).ok();
}

/// A shard that was made again says of which object it is.
fn hints_are_passed_on(cluster: &TestCluster, made: &Shard, name: &str) {
    let disk = made.path.parent().expect("a disk").to_owned();
    let (shard, to) = (made.name.to_string(), cluster.path().join("extracted/made"));
    let arguments = ["extract", "--json", "--shard", &shard, "--to", &to.to_string_lossy()];
    let said = ctl(cluster, &arguments, &[disk]).ok().json();
    assert_eq!(
        (&said["object"]["tenant"], &said["object"]["key"]),
        (&"demo".into(), &name.into()),
        "{said:#}"
    );
}

fn salvage(cluster: &TestCluster, objects: &BTreeMap<String, Content>) {
    for disk in AWAY {
        fs::remove_dir_all(cluster.path().join(disk)).expect("taken away");
    }
    let left = disks(cluster, &AWAY);
    let home = tempfile::tempdir().expect("a directory");
    let to = home.path().join("saved");
    let text = to.to_string_lossy();
    let dry = ctl(cluster, &["salvage", "--dry-run", "--json", "--to", &text], &left).ok().json();
    assert!(!to.exists(), "a dry run wrote something");
    assert_eq!(saved(&dry).keys().collect::<Vec<_>>(), objects.keys().collect::<Vec<_>>(), "{dry:#}");
    let report = ctl(cluster, &["salvage", "--json", "--to", &text], &left).ok().json();
    check_saved(&report, objects, &to);
    assert_eq!(saved(&report), saved(&dry));
    let saved = saved(&report);
    assert_eq!(saved["sizes/300000"], to.join("demo/files/sizes/300000"));
    for odd in ["../../escape", "/etc/cadole", "sizes", "dir/"] {
        assert!(saved[odd].starts_with(to.join("demo/files%odd")), "{odd}: {:?}", saved[odd]);
    }
    let beside: Vec<_> =
        fs::read_dir(home.path()).expect("read").flatten().map(|entry| entry.path()).collect();
    assert_eq!(beside, std::slice::from_ref(&to), "something was written outside");
    let below: Vec<_> = fs::read_dir(&to).expect("read").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(below, ["demo"], "something unfinished was left");

    // Once more: all is there; what was changed meanwhile stays as it is, and is said.
    let again = ctl(cluster, &["salvage", "--json", "--to", &text], &left).ok().json();
    assert!(
        again["saved"].as_array().expect("a list").iter().all(|one| one["was_there"] == true),
        "{again:#}"
    );
    fs::write(&saved["sizes/300000"], "mine").expect("written");
    let other = ctl(cluster, &["salvage", "--to", &text, "--prefix", "sizes/3"], &left);
    other.failed_with(&["is there already", "sizes/300000", "4 KiB"]);
    assert_eq!(fs::read(&saved["sizes/300000"]).expect("read"), b"mine");
    let nothing = ctl(cluster, &["salvage", "--dry-run", "--json", "--tenant", "beaune"], &left).ok().json();
    assert_eq!(nothing["saved"].as_array().map(Vec::len), Some(0), "{nothing:#}");
}

/// From the disks of one rack alone only what lies there whole is saved: replicated objects; all others are named.
fn what_is_lost_is_named(cluster: &TestCluster, objects: &BTreeMap<String, Content>) {
    let rack = &disks(cluster, &AWAY)[..4];
    let home = tempfile::tempdir().expect("a directory");
    let text = home.path().to_string_lossy();
    let said = ctl(cluster, &["salvage", "--json", "--to", &text], rack);
    assert_eq!(said.code, Some(1), "{said:?}");
    let report = said.json();
    for (name, file) in saved(&report) {
        assert_eq!(objects[&name].difference(&fs::read(file).expect("read")), None, "{name}");
    }
    let lost = report["lost"].as_array().expect("a list");
    let named: BTreeSet<&str> = lost.iter().filter_map(|one| one["key"].as_str()).collect();
    assert!(named.contains("sizes/20000000") && named.contains("two-extents"), "{report:#}");
    let one = lost.iter().find(|one| one["key"] == "sizes/20000000").expect("named");
    let missing = one["missing"].as_array().expect("a list");
    assert_eq!(missing.len(), 5, "{one:#}");
    for stripe in missing {
        let found = stripe["shards"].as_u64().expect("a number");
        assert!((1..=2).contains(&found) && stripe["needed"] == 4, "{one:#}");
    }
}
