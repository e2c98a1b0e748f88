//! The suite of tasks.

use std::future::pending;

use tokio::sync::oneshot;

use crate::spawn::{Spawn, Task};

/// Checks [`Spawn`], but for panics, which end a real process.
///
/// # Panics
///
/// When a clause does not hold.
pub async fn spawn<S: Spawn>(spawn: &S) {
    let (done, outcome) = oneshot::channel();
    let task = spawn.spawn("conformance-runs", async move {
        let _ = done.send(7);
    });
    assert_eq!(outcome.await, Ok(7), "a task did not run to its end");
    task.join().await;

    dropped_handles_leave_tasks_running(spawn).await;
    abort_drops_the_future(spawn).await;
}

async fn dropped_handles_leave_tasks_running<S: Spawn>(spawn: &S) {
    let (go, gone) = oneshot::channel::<()>();
    let (done, outcome) = oneshot::channel();
    drop(spawn.spawn("conformance-detached", async move {
        let _ = gone.await;
        let _ = done.send(8);
    }));
    go.send(()).expect("a task ended with its handle");
    assert_eq!(outcome.await, Ok(8), "a task ended with its handle");
}

async fn abort_drops_the_future<S: Spawn>(spawn: &S) {
    let (held, dropped) = oneshot::channel::<()>();
    let (started, running) = oneshot::channel();
    let task = spawn.spawn("conformance-aborted", async move {
        let _held = held;
        let _ = started.send(());
        pending::<()>().await;
    });
    running.await.expect("a task did not start");
    task.abort();
    task.join().await;
    assert!(dropped.await.is_err(), "an aborted task's future was not dropped");

    let ended = spawn.spawn("conformance-ended", async {});
    let (seen, wait) = oneshot::channel::<()>();
    spawn.spawn("conformance-other", async move { drop(seen) }).join().await;
    let _ = wait.await;
    ended.abort();
    ended.join().await;
}
