//! Tasks.

use std::future::Future;

/// Starts tasks that belong to this host and die with it.
///
/// # Contract
///
/// - A task runs until its future ends, its handle says [`abort`](Task::abort), or its host dies.
///   Dropping the handle leaves it running.
/// - A task that panics is a bug: on a real host the process ends.
pub trait Spawn: Clone + Send + Sync + 'static {
    /// The handle of a task.
    type Task: Task;

    /// Starts `work`. `name` is for people who look at traces.
    fn spawn<F>(&self, name: &'static str, work: F) -> Self::Task
    where
        F: Future<Output = ()> + Send + 'static;
}

/// A running task.
pub trait Task: Send + Sync + 'static {
    /// Drops the task's future at its next await point. No effect when it has ended.
    fn abort(&self);

    /// Waits until the task has ended or was aborted. Dropping this leaves the task running.
    fn join(self) -> impl Future<Output = ()> + Send;
}
