//! The log of a disk, on a real file system, whose process is killed while it writes and deletes.

// A panic is how a test fails; real processes, files and clocks are what is tested here.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, clippy::disallowed_types)]
// The child tells its parent.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use env::{Disk, Priority};
use node::store::{NewShard, Presence, survey};
use os::disk::EngineChoice;
use proto::{Epoch, TenantTag};
use tests::log_disk::{LogDisk, name};

/// Says where the child's disk is, and with which number it begins.
const CHILD: &str = "CADOLE_TEST_DISK_LOG";
const ROUNDS: u64 = 12;
/// Within this the child has done enough to be killed.
const PATIENCE: Duration = Duration::from_secs(120);
const WRITERS: u64 = 16;
/// A writer's shards are deleted again so many puts later, so that segments are compacted.
const LIVE: u64 = 40;

const DISK: LogDisk = LogDisk { engine: EngineChoice::Best, segment_bytes: 1 << 20, limit_bytes: 4 << 30 };

/// What the parent knows of a shard.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    Put,
    /// The deletion was asked for.
    Leaving,
    Deleted,
}

fn payload(number: u64) -> Vec<u8> {
    let bytes = [64, 4096, 20_032, 70_016, 300_032][usize::try_from(number % 5).expect("small")];
    (0..bytes).map(|at: u64| u8::try_from((number * 37 + at * 11) % 251).expect("a byte")).collect()
}

/// Not a test: the process that is killed. Each line is told when what it says is so.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (first, dir) = told.split_once(' ').expect("a number and a directory");
    let (store, _writer) = DISK.open(Path::new(dir)).await.expect("a store");
    let next = Arc::new(AtomicU64::new(first.parse().expect("a number")));
    let writers = (0..WRITERS).map(|_| {
        let (store, next) = (store.clone(), next.clone());
        async move {
            let mut mine = std::collections::VecDeque::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let bytes = payload(number);
                let mut shard =
                    NewShard::new(name(number), Epoch(1), TenantTag(1), bytes.len()).expect("room");
                shard.push(&bytes).expect("fits");
                store.put(shard.seal().expect("whole"), Priority::Client).await.expect("put");
                tell('+', number);
                mine.push_back(number);
                if mine.len() as u64 > LIVE
                    && let Some(old) = mine.pop_front()
                {
                    tell('?', old);
                    store.delete(name(old)).await.expect("deleted");
                    tell('-', old);
                }
            }
        }
    });
    futures_util::future::join_all(writers.map(tokio::spawn)).await;
}

/// A line in one write: what was acknowledged must not be lost in a buffer.
fn tell(what: char, number: u64) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{what}{number}\n").as_bytes()).expect("told");
    out.flush().expect("told");
}

/// Whatever the moment at which the process is killed: what was acknowledged is there byte for byte, what was deleted is
/// not, both by the index and by the log alone.
#[tokio::test(flavor = "multi_thread")]
async fn survives_kill_9() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
    let mut known: BTreeMap<u64, Known> = BTreeMap::new();
    for round in 0..ROUNDS {
        let first = round * 10_000_000;
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "child", "--nocapture", "--test-threads", "1"])
            .env(CHILD, format!("{first} {}", dir.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child starts");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        let told = std::thread::spawn(move || {
            let parse = |line: String| {
                let mut chars = line.chars();
                let what = chars.next().filter(|what| "+?-".contains(*what))?;
                counted.fetch_add(1, Ordering::Relaxed);
                Some((what, chars.as_str().parse::<u64>().ok()?))
            };
            lines.map_while(Result::ok).filter_map(parse).collect::<Vec<_>>()
        });
        // In the middle of its work, however long that takes here.
        let (enough, begun) = (500 + round * 1_370 % 6_000, Instant::now());
        while count.load(Ordering::Relaxed) < enough && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        let told = told.join().expect("read");
        assert!(told.len() as u64 >= enough, "round {round}: the child did hardly anything: {told:?}");
        for (what, number) in &told {
            let now = match what {
                '+' => Known::Put,
                '?' => Known::Leaving,
                _ => Known::Deleted,
            };
            known.insert(*number, now);
        }
        // What was left over of earlier rounds stays; the next children use other names.
        check(dir.path(), &known).await;
        let puts = told.iter().filter(|(what, _)| *what == '+').count();
        eprintln!("round {round}: {puts} puts, {} deletions, killed", told.len() - puts);
    }
}

async fn check(dir: &Path, known: &BTreeMap<u64, Known>) {
    let (store, writer) = DISK.open(dir).await.expect("a store");
    assert_eq!(store.report().await.damaged_blocks, 0, "nothing is damaged by a kill");
    for (number, known) in known {
        let read = store.read(name(*number), 0, 0, Priority::Client).await;
        match known {
            Known::Put => assert!(read.expect("acknowledged").bytes == payload(*number), "shard {number}"),
            Known::Deleted => assert!(read.is_err(), "shard {number} is back"),
            Known::Leaving => {}
        }
    }
    let used = store.used_bytes();
    drop(store);
    writer.await.expect("the writer ends");
    // The log alone.
    let disk = DISK.disk(dir).await.expect("nobody has it any more");
    assert!(disk.space().await.is_ok());
    let evidence = survey::open(disk).await.expect("a log");
    for (number, known) in known {
        let there = evidence.check(name(*number), Priority::Scrub).await.expect("readable");
        match known {
            Known::Put => assert!(matches!(there, Presence::Whole(_)), "shard {number}: {there:?}"),
            Known::Deleted => assert_eq!(there, Presence::Absent, "shard {number}"),
            Known::Leaving => {}
        }
    }
    assert_eq!(evidence.used_bytes(), used, "the index and the log agree to the byte");
}
