//! The stores under the metadata service, and the operators' tool from outside.

// A panic is how a test fails; real processes, files and clocks are what is tested here.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, clippy::disallowed_types)]

use std::fs;
use std::path::Path;
use std::process::Command;

use os::kv::OsKvs;
use os::spawn::OsSpawn;
use serde_json::Value;
use tests::program::{self, Said};
use tests::{Content, SharedCluster, TestCluster};

/// openraft's own storage suite passes on the store that servers run on: RocksDB on a real disk.
#[test]
fn openraft_suite_on_rocksdb() {
    meta::testing::block_on(async {
        let make = || async {
            let dir = tempfile::tempdir().expect("a directory");
            let stores = OsKvs::new(Some(dir.path().to_owned()));
            (dir, stores)
        };
        meta::raft::testing::run_suite(OsSpawn::new(), make).await.expect("the suite passes");
    });
}

fn ctl(cluster: &TestCluster, arguments: &[&str]) -> Said {
    program::run(cluster.clusterctl().args(arguments))
}

fn json(cluster: &TestCluster, arguments: &[&str]) -> Value {
    ctl(cluster, &[arguments, &["--json"]].concat()).ok().json()
}

/// Tenants, buckets, profiles, nodes, disks, groups and servers: every listing is there for people and as
/// JSON, making what exists is a success, and what does not exist has its exit status.
#[tokio::test(flavor = "multi_thread")]
async fn clusterctl_names_and_listings() {
    let cluster = SharedCluster::join().await;
    for _ in 0..2 {
        ctl(&cluster, &["tenant", "create", "dijon"]).ok();
        ctl(&cluster, &["bucket", "create", "archives", "--profile", "rs-4-2", "--tenant", "dijon"]).ok();
    }
    let tenants = json(&cluster, &["tenant", "ls"]);
    let names: Vec<&str> =
        tenants.as_array().expect("a list").iter().filter_map(|t| t["name"].as_str()).collect();
    assert!(names.contains(&"dijon") && names.contains(&"demo"), "{names:?}");
    let buckets = json(&cluster, &["bucket", "ls", "--tenant", "dijon"]);
    assert_eq!(buckets[0]["name"], "archives", "{buckets}");
    for (what, count) in [("node", 6), ("disk", 12), ("meta", 3)] {
        let list = json(&cluster, &[what, "ls"]);
        assert_eq!(list.as_array().map(Vec::len), Some(count), "{what}: {list}");
        let text = ctl(&cluster, &[what, "ls"]).ok().out;
        assert!(text.lines().count() > count, "{what}: {text}");
    }
    assert!(json(&cluster, &["group", "ls"]).as_array().is_some_and(|groups| groups.len() > 10));
    let profiles = json(&cluster, &["profile", "ls"]);
    let coded = profiles.as_array().expect("a list").iter().find(|profile| profile["name"] == "rs-4-2");
    assert_eq!(coded.expect("the cluster's profile")["k"], 4, "{profiles}");
    let status = json(&cluster, &["status", "--wait", "60"]);
    assert_eq!(status["whole"], true, "{status:#}");
    assert_eq!(status["nodes_up"], 6, "{status:#}");

    let missing = ctl(&cluster, &["bucket", "ls", "--tenant", "nobody"]);
    assert_eq!(missing.code, Some(3), "{missing:?}");
    let wrong = ctl(&cluster, &["bucket", "creat"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    let bad = ctl(&cluster, &["tenant", "create", "Évian"]);
    bad.failed_with(&["allowed are"]);
    let profile = ["profile", "create", "rs-16-8", "--k", "16", "--m", "8"];
    ctl(&cluster, &profile).failed_with(&["rack"]);
    let mut elsewhere = Command::new(program::path("clusterctl"));
    let nothing = program::run(elsewhere.args(["--config", "/absent.toml", "status"]));
    nothing.failed_with(&["/absent.toml"]);
}

/// Completions are made for the shells, and the one for bash is valid bash.
#[test]
fn clusterctl_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let said = program::run(Command::new(program::path("clusterctl")).args(["completions", shell])).ok();
        assert!(said.out.contains("clusterctl"), "{shell}: {}", said.out);
        if shell == "bash" {
            let dir = tempfile::tempdir().expect("a directory");
            let file = dir.path().join("completions");
            fs::write(&file, &said.out).expect("written");
            program::run(Command::new("bash").arg("-n").arg(&file)).ok();
        }
    }
}

/// An object's whole life with `clusterctl`: put, stat, explain, list, get to a file and to standard
/// output, remove; what is not there has exit status 3, with and without JSON.
#[tokio::test(flavor = "multi_thread")]
async fn clusterctl_objects() {
    let cluster = SharedCluster::join().await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    for size in [0, 5, 50_000, 6_000_000] {
        let content = Content::new(size, size);
        let key = format!("files/ctl/{size}");
        fs::write(path("in"), content.bytes()).expect("written");
        let put = ctl(&cluster, &["object", "put", &path("in"), &key]).ok();
        // A small object's three copies may happen to lie in three racks: then two may be lost.
        assert!(size <= 4096 || put.out.contains("tolerates: 2 disks, "), "{put:?}");
        ctl(&cluster, &["object", "get", &key, &path("out")]).ok();
        assert_eq!(content.difference(&fs::read(path("out")).expect("read")), None);
        let piped = cluster.clusterctl().args(["object", "get", &key, "-"]).output().expect("clusterctl");
        assert_eq!(content.difference(&piped.stdout), None);
        let stat = json(&cluster, &["object", "stat", &key]);
        assert_eq!(stat["size"], size, "{stat:#}");
        let explained = ctl(&cluster, &["object", "explain", &key]).ok().out;
        let racks = (1..=3).filter(|rack| explained.contains(&format!("rack-{rack} is up"))).count();
        let least = if size <= 4096 {
            0
        } else if size <= 65_536 {
            2
        } else {
            3
        };
        assert!(racks >= least, "{explained}");
        json(&cluster, &["object", "explain", &key]);
    }
    let listed = ctl(&cluster, &["object", "ls", "files/ctl/"]).ok().out;
    assert!(listed.contains("50000") && listed.contains("6000000"), "{listed}");
    assert!(json(&cluster, &["object", "ls", "files/ctl/"]).to_string().contains("ctl/50000"));

    ctl(&cluster, &["object", "rm", "files/ctl/5"]).ok();
    for arguments in [["get", "files/ctl/5", &path("gone")].as_slice(), &["stat", "files/ctl/5"]] {
        let gone = ctl(&cluster, &[&["object"], arguments].concat());
        assert_eq!(gone.code, Some(3), "{gone:?}");
        let gone = ctl(&cluster, &[&["object"], arguments, &["--json"]].concat());
        assert_eq!((gone.code, &gone.json()["code"]), (Some(3), &Value::from("no-such-object")), "{gone:?}");
    }
    assert!(!Path::new(&path("gone")).exists(), "a failed get left a file");
    let absent = ctl(&cluster, &["object", "put", &path("absent"), "files/x"]);
    absent.failed_with(&["absent"]);
}

/// A tree of directories goes up and comes down again unchanged, names with spaces and accents too.
#[tokio::test(flavor = "multi_thread")]
async fn clusterctl_trees() {
    let cluster = SharedCluster::join().await;
    let dir = tempfile::tempdir().expect("a directory");
    let (up, down) = (dir.path().join("up"), dir.path().join("down"));
    for (i, name) in ["a", "deep/er/b", "deep/c d", "deep/é", "z/large"].iter().enumerate() {
        let file = up.join(name);
        fs::create_dir_all(file.parent().expect("a parent")).expect("made");
        let size = if name.ends_with("large") { 5_000_000 } else { 1000 * i as u64 };
        fs::write(file, Content::new(i as u64, size).bytes()).expect("written");
    }
    let (from, to) = (up.to_string_lossy(), down.to_string_lossy());
    ctl(&cluster, &["object", "put", "--recursive", &from, "files/tree/"]).ok();
    ctl(&cluster, &["object", "get", "--recursive", "files/tree/", &to]).ok();
    program::run(Command::new("diff").arg("-r").arg(&up).arg(&down)).ok();
}

/// Half a gigabyte goes up and comes down through `clusterctl` in little memory: it is streamed.
#[tokio::test(flavor = "multi_thread")]
async fn clusterctl_streams_large_objects() {
    const SIZE: u64 = 512 << 20;
    const MEMORY_MAX: u64 = 128 << 20;
    let cluster = SharedCluster::join().await;
    let dir = tempfile::tempdir().expect("a directory");
    let (from, to) = (dir.path().join("in"), dir.path().join("out"));
    write_large(&from, SIZE);
    let start = std::time::Instant::now();
    let (put, put_peak) =
        program::run_measured(cluster.clusterctl().args(["object", "put"]).arg(&from).arg("files/large"));
    let put_time = start.elapsed();
    let _ = put.ok();
    let start = std::time::Instant::now();
    let (got, get_peak) =
        program::run_measured(cluster.clusterctl().args(["object", "get", "files/large"]).arg(&to));
    let get_time = start.elapsed();
    let _ = got.ok();
    eprintln!(
        "512 MiB: put {} ms, {} MiB at most; get {} ms, {} MiB at most",
        put_time.as_millis(),
        put_peak >> 20,
        get_time.as_millis(),
        get_peak >> 20
    );
    program::run(Command::new("cmp").arg(&from).arg(&to)).ok();
    assert!(put_peak > 0 && put_peak < MEMORY_MAX, "put took {} MiB", put_peak >> 20);
    assert!(get_peak > 0 && get_peak < MEMORY_MAX, "get took {} MiB", get_peak >> 20);
}

fn write_large(path: &Path, size: u64) {
    use std::io::Write;
    const PIECE: u64 = 4 << 20;
    let mut file = fs::File::create(path).expect("a file");
    for piece in 0..size / PIECE {
        file.write_all(&Content::new(piece, PIECE).bytes()).expect("written");
    }
}
