//! `clusterctl task` and `clusterctl rebalance status|pause|resume|cancel`.

use anyhow::{Context, bail};
use proto::wire;
use serde_json::Value;
use wire::{TaskKind, TaskState};

use super::progress::progress;
use super::{Rate, is_active, kind_name, pace, state_name, to_json, what};
use crate::Session;
use crate::output::{size, table};
use crate::status::time;

/// Prints the tasks that are under way, and the last that have ended.
///
/// # Errors
///
/// When no metadata server answers.
pub(crate) async fn list(session: &Session) -> anyhow::Result<()> {
    let tasks = session.connect().await?.admin().tasks().await?;
    let json = tasks.tasks.iter().map(|task| to_json(task, pace(&tasks, task.id))).collect::<Value>();
    session.format.print(&json, || list_text(&tasks));
    Ok(())
}

fn list_text(tasks: &wire::ListTasksReply) -> String {
    if tasks.tasks.is_empty() {
        return "no task is under way, and none has ended lately".to_owned();
    }
    let row = |task: &wire::Task| {
        let left = if is_active(task) { progress(task, pace(tasks, task.id)) } else { progress(task, None) };
        vec![
            task.id.to_string(),
            what(task),
            state_name(task.state()).to_owned(),
            time(task.created_ms),
            left,
        ]
    };
    let header = ["task", "what", "state", "since", "progress"];
    table(&header, &[0], tasks.tasks.iter().map(row).collect())
}

/// Prints one task.
///
/// # Errors
///
/// When there is none, or no metadata server answers.
pub(crate) async fn show(session: &Session, id: u32) -> anyhow::Result<()> {
    let tasks = session.connect().await?.admin().tasks().await?;
    let found = tasks.tasks.iter().find(|task| task.id == id);
    let task = found.with_context(|| format!("there is no task {id}: see `clusterctl task ls`"))?;
    print(session, task, pace(&tasks, id));
    Ok(())
}

/// Prints the rebalance that is under way, or the last one.
///
/// # Errors
///
/// When there was none, or no metadata server answers.
pub(crate) async fn rebalance_status(session: &Session) -> anyhow::Result<()> {
    let tasks = session.connect().await?.admin().tasks().await?;
    let rebalances = tasks.tasks.iter().filter(|task| task.kind() == TaskKind::Rebalance);
    let Some(task) = rebalances.max_by_key(|task| (is_active(task), task.id)) else {
        bail!("no rebalance is known: begin one with `clusterctl rebalance`");
    };
    print(session, task, pace(&tasks, task.id));
    Ok(())
}

/// Pauses, resumes or cancels a task.
///
/// # Errors
///
/// What the cluster refused.
pub(crate) async fn set(session: &Session, id: u32, state: TaskState) -> anyhow::Result<()> {
    let set = wire::SetTask { id, state: state.into(), ..Default::default() };
    print(session, &session.connect().await?.admin().set_task(set).await?, None);
    Ok(())
}

/// Pauses, resumes or cancels the rebalance that is under way.
///
/// # Errors
///
/// When there is none, or what the cluster refused.
pub(crate) async fn set_rebalance(session: &Session, state: TaskState) -> anyhow::Result<()> {
    let tasks = session.connect().await?.admin().tasks().await?;
    let mut active = tasks.tasks.iter().filter(|task| is_active(task));
    let Some(task) = active.find(|task| task.kind() == TaskKind::Rebalance) else {
        bail!("no rebalance is under way: see `clusterctl task ls`");
    };
    set(session, task.id, state).await
}

/// Sets how fast a task may go.
///
/// # Errors
///
/// What the cluster refused.
pub(crate) async fn set_limit(session: &Session, id: u32, limit: Rate) -> anyhow::Result<()> {
    let set = wire::SetTask { id, limit_bytes_per_s: Some(limit.0), ..Default::default() };
    print(session, &session.connect().await?.admin().set_task(set).await?, None);
    Ok(())
}

fn print(session: &Session, task: &wire::Task, bytes_per_s: Option<u64>) {
    session.format.print(&to_json(task, bytes_per_s), || show_text(task, bytes_per_s));
}

fn show_text(task: &wire::Task, bytes_per_s: Option<u64>) -> String {
    let limit = match task.limit_bytes_per_s {
        0 => "the cluster's default".to_owned(),
        limit => format!("{}/s", size(limit)),
    };
    let disks: Vec<String> = task.disks.iter().map(u32::to_string).collect();
    let rows = [
        ("task", format!("{} ({})", task.id, kind_name(task.kind()))),
        ("what", what(task)),
        ("state", state_name(task.state()).to_owned()),
        ("reason", task.reason.clone()),
        ("disks", disks.join(" ")),
        ("new disk", if task.to_disk == 0 { String::new() } else { task.to_disk.to_string() }),
        ("since", time(task.created_ms)),
        ("ended", time(task.ended_ms)),
        ("limit", limit),
        ("progress", progress(task, bytes_per_s)),
    ];
    let rows = rows.iter().filter(|(_, value)| !value.is_empty());
    rows.map(|(key, value)| format!("{key:<10}{value}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: u32, kind: TaskKind, state: TaskState) -> wire::Task {
        wire::Task {
            id,
            kind: kind.into(),
            state: state.into(),
            node: 3,
            disks: vec![5, 6],
            created_ms: 1_000,
            slots_total: 10,
            slots_done: 4,
            bytes_total: 10 << 20,
            bytes_done: 4 << 20,
            ..Default::default()
        }
    }

    /// A task has its estimate while it runs, and only then.
    #[test]
    fn tasks_in_a_table() {
        let tasks = wire::ListTasksReply {
            tasks: vec![
                task(1, TaskKind::DrainNode, TaskState::Done),
                task(2, TaskKind::Rebalance, TaskState::Running),
            ],
            paces: vec![
                wire::TaskPace { id: 1, bytes_per_s: 1 },
                wire::TaskPace { id: 2, bytes_per_s: 1 << 20 },
            ],
            ..Default::default()
        };
        let text = list_text(&tasks);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert!(lines[1].starts_with("1  drain of node 3  done"), "{text}");
        assert!(lines[1].ends_with("4 of 10 slots, 4 MiB of 10 MiB"), "{text}");
        assert!(lines[2].ends_with("4 of 10 slots, 4 MiB of 10 MiB, 1 MiB/s, about 6 s left"), "{text}");
        assert!(list_text(&wire::ListTasksReply::default()).contains("no task"));
    }

    /// What does not apply is left out.
    #[test]
    fn a_task_in_full() {
        let mut task = task(7, TaskKind::ReplaceDisk, TaskState::Running);
        task.disks.truncate(1);
        let text = show_text(&task, None);
        let expected = "task      7 (replace-disk)\nwhat      replacement of disk 5\nstate     running\ndisks     5\n\
                        since     1970-01-01T00:00:01Z\nlimit     the cluster's default\n\
                        progress  4 of 10 slots, 4 MiB of 10 MiB";
        assert_eq!(text, expected);
    }
}
