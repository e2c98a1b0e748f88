//! A process that is killed leaves a prefix of its batches, not shorter than what it had flushed.
//!
//! The test runs itself again as a child, which writes numbered batches and prints the number of
//! each that it has flushed, and kills it in the middle.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the real side of the seam")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use env::{Batch, KeyRange, Kv, KvRead, Kvs, Order, Rng, Table};
use os::kv::{OsKv, OsKvs};
use os::rng::OsRng;

const TABLES: [Table; 2] = ["left", "right"];
const STORE: &str = "crash";
const CHILD: &str = "CADOLE_KV_CRASH_DIRECTORY";
const ROUNDS: usize = 6;
/// Large enough that memory tables are flushed and logs change between a start and its kill.
const VALUE_BYTES: usize = 8 << 10;
/// Batches are numbered on; each leaves its number in both tables, and removes what is this old.
const KEPT: u64 = 500;

fn main_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn open(directory: &Path) -> OsKv {
    OsKvs::new(Some(directory.to_owned())).open(STORE, &TABLES).await.unwrap()
}

/// The number of the last batch; fails unless both tables are just as that batch left them.
fn last_batch(kv: &OsKv) -> u64 {
    let [left, right] = TABLES.map(|table| {
        let rows = kv.scan(table, &KeyRange::all(), Order::Ascending, usize::MAX).unwrap();
        let number = |key: &[u8]| u64::from_be_bytes(key.try_into().unwrap());
        rows.iter().map(|(key, _)| number(key)).collect::<Vec<_>>()
    });
    let last = left.last().copied().unwrap_or(0);
    let expected: Vec<u64> = (last.saturating_sub(KEPT - 1).max(1)..=last).collect();
    let ends = |numbers: &[u64]| (numbers.first().copied(), numbers.last().copied(), numbers.len());
    assert!(left == expected, "the left table is that of no prefix: {:?}", ends(&left));
    assert!(right == expected, "the right table {:?} is not of prefix {last}", ends(&right));
    last
}

fn numbered_batch(number: u64) -> Batch {
    let mut batch = Batch::new();
    let key = number.to_be_bytes().to_vec();
    // Unequal amounts, so that one table's memory fills before the other's.
    batch.put(TABLES[0], key.clone(), vec![7; VALUE_BYTES]);
    batch.put(TABLES[1], key, vec![7; 16]);
    if let Some(old) = number.checked_sub(KEPT) {
        let range = KeyRange { start: Vec::new(), end: Some((old + 1).to_be_bytes().to_vec()) };
        batch.delete_range(TABLES[0], range);
        batch.delete(TABLES[1], old.to_be_bytes().to_vec());
    }
    batch
}

/// The child: writes until it is killed.
async fn write_for_ever(directory: &Path) {
    let kv = open(directory).await;
    let mut number = last_batch(&kv);
    loop {
        number += 1;
        kv.write(numbered_batch(number)).unwrap();
        if number.is_multiple_of(37) {
            kv.flush().await.unwrap();
            println!("flushed {number}");
        }
    }
}

fn start_child(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed_process_leaves_a_prefix", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Lets a child flush a random number of times and kills it; the last number that it flushed.
fn run_and_kill(directory: &Path) -> u64 {
    let mut child = start_child(directory);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut flushed = 0;
    let mut read = |line: String| {
        // The test harness may have begun the line.
        if let Some((_, number)) = line.split_once("flushed ") {
            flushed = number.parse().unwrap();
            return true;
        }
        false
    };
    let mut left = 1 + OsRng::new().below(60);
    while left > 0 {
        let line = lines.next().expect("the child ended by itself").unwrap();
        left -= u64::from(read(line));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it had still said; a last line may be torn.
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    rest.into_iter().rev().skip(1).rev().for_each(|line| {
        read(line);
    });
    flushed
}

/// A process killed at any moment leaves a prefix of its batches over both tables, with all that was
/// flushed, and the next process goes on from there.
#[test]
fn killed_process_leaves_a_prefix() {
    if let Some(directory) = std::env::var_os(CHILD) {
        main_runtime().block_on(write_for_ever(&PathBuf::from(directory)));
        return;
    }
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let directory = temporary.path().join("stores");
    for round in 0..ROUNDS {
        let flushed = run_and_kill(&directory);
        let last = main_runtime().block_on(async { last_batch(&open(&directory).await) });
        println!("round {round}: flushed {flushed}, found {last}");
        assert!(last >= flushed, "round {round}: {flushed} was flushed, {last} is there");
    }
}
