//! The real implementations keep the contracts of `env`.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the real side of the seam")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;

use env::{Disk, Disks, conformance};
use os::clock::OsClock;
use os::disk::{EngineChoice, OsDisks};
use os::kv::OsKvs;
use os::rng::OsRng;
use os::spawn::OsSpawn;

/// A directory on a disk (as far as the build directory is on one), where direct I/O is likely.
fn on_disk() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A directory in memory, where there is no direct I/O; none when this machine has no such place.
fn in_memory() -> Option<tempfile::TempDir> {
    tempfile::tempdir_in("/dev/shm").ok()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The clock keeps its contract.
#[tokio::test(flavor = "multi_thread")]
async fn clock() {
    conformance::clock(&OsClock::new()).await;
}

/// Randomness keeps its contract.
#[test]
fn rng() {
    conformance::rng(&OsRng::new());
}

/// Tasks keep their contract.
#[tokio::test(flavor = "multi_thread")]
async fn spawn() {
    conformance::spawn(&OsSpawn::new()).await;
}

/// Both engines of disks; the first may fall back on the second, and says so.
const ENGINES: [EngineChoice; 2] = [EngineChoice::Best, EngineChoice::Threads];

/// Checks the contract of disks, and gives the engine's name.
async fn check_disks(choice: EngineChoice, directory: &Path) -> String {
    let disks = OsDisks::new(choice);
    conformance::disks(&disks, text(directory), text(&directory.join("absent"))).await;
    let engine = disks.open(text(directory)).await.unwrap().engine();
    println!("{choice:?}: {engine}");
    let served_by_threads = engine.starts_with("threads (");
    assert!(served_by_threads || engine.starts_with("io_uring, "), "{engine}");
    assert!(served_by_threads || choice == EngineChoice::Best, "{engine}");
    engine
}

/// Disks keep their contract on a disk, whichever engine serves them.
#[tokio::test(flavor = "multi_thread")]
async fn disks_on_disk() {
    for choice in ENGINES {
        check_disks(choice, on_disk().path()).await;
    }
}

/// Disks keep their contract in memory, where the engine must say that it buffers.
#[tokio::test(flavor = "multi_thread")]
async fn disks_in_memory() {
    for choice in ENGINES {
        let Some(directory) = in_memory() else { return };
        let engine = check_disks(choice, directory.path()).await;
        assert!(engine.contains("buffered: "), "{engine}");
    }
}

/// Names that are not files of the disk are neither listed nor in the way.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_names_are_left_alone() {
    let directory = on_disk();
    std::fs::create_dir(directory.path().join("sub")).unwrap();
    std::fs::write(directory.path().join("with space"), b"x").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", directory.path().join("link")).unwrap();
    let disk = OsDisks::default().open(text(directory.path())).await.unwrap();
    assert_eq!(disk.list().await.unwrap(), []);
    disk.open(&"link".parse().unwrap()).await.unwrap_err();
}

/// Key-value stores keep their contract on a disk.
#[tokio::test(flavor = "multi_thread")]
async fn kvs_on_disk() {
    let directory = on_disk();
    conformance::kvs(&OsKvs::new(Some(directory.path().join("stores")))).await;
}

/// Key-value stores keep their contract in memory.
#[tokio::test(flavor = "multi_thread")]
async fn kvs_in_memory() {
    let Some(directory) = in_memory() else { return };
    conformance::kvs(&OsKvs::new(Some(directory.path().join("stores")))).await;
}
