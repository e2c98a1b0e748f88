//! A task that panics ends the process.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the real side of the seam")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use env::{Spawn, Task};
use os::spawn::OsSpawn;

const CHILD: &str = "CADOLE_PANICKING_TASK";
const SIGABRT: i32 = 6;

/// The process of a task that panics is aborted, and says which task it was and what it said.
#[test]
fn panicking_task_ends_the_process() {
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        runtime.block_on(async { OsSpawn::new().spawn("careless", async { panic!("oh no") }).join().await });
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "panicking_task_ends_the_process", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.signal(), Some(SIGABRT), "{said}");
    assert!(said.contains("task careless panicked: oh no"), "{said}");
}
