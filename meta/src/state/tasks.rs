//! Tasks: what somebody began and what takes long.
//!
//! A row says what was asked for and how far it has come; what is left to do is read off the map each time, so
//! that nothing of it can be lost or grow old. Progress is counted where slots become whole, by `apply` alone: it
//! never falls, and no leader has to remember it. A task that empties disks counts whatever leaves them, whoever
//! moved it; it is done when a look at the map finds them empty.

use std::collections::BTreeMap;

use env::KvRead;
use placement::{Duty, REASON_BYTES_MAX, Slot};
use proto::{DiskId, GroupId, TaskId, wire};
use wire::outcome::Outcome as Answer;
use wire::{TaskKind, TaskState};

use crate::state::error::{Error, invalid};
use crate::state::{Machine, Tx, shortened, tables as t};

/// Tasks that have ended and are kept, for people.
const ENDED_MAX: usize = 100;

/// All tasks, by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tasks {
    rows: BTreeMap<u32, wire::Task>,
}

/// How a task ends.
pub(super) struct Ending {
    state: TaskState,
    reason: String,
}

impl Ending {
    pub(super) fn done() -> Self {
        Self { state: TaskState::Done, reason: String::new() }
    }

    pub(super) fn cancelled() -> Self {
        Self { state: TaskState::Cancelled, reason: String::new() }
    }
}

impl Tasks {
    /// By id.
    pub fn all(&self) -> impl Iterator<Item = &wire::Task> {
        self.rows.values()
    }

    /// Those that run or are paused, by id.
    pub fn active(&self) -> impl Iterator<Item = &wire::Task> {
        self.rows.values().filter(|task| is_active(task))
    }

    /// The task of this id.
    pub fn get(&self, id: TaskId) -> Option<&wire::Task> {
        self.rows.get(&id.0)
    }

    /// The active task that empties the disk.
    pub fn of_disk(&self, disk: DiskId) -> Option<&wire::Task> {
        self.active().find(|task| task.disks.binary_search(&disk.0).is_ok())
    }

    pub(crate) fn remember(&mut self, task: wire::Task) {
        self.rows.insert(task.id, task);
    }
}

/// Does it run, or is it paused?
pub(crate) fn is_active(task: &wire::Task) -> bool {
    matches!(task.state(), TaskState::Running | TaskState::Paused)
}

/// `task 4 (drain of node 3)`.
pub(crate) fn describe(task: &wire::Task) -> String {
    let disk = task.disks.first().copied().unwrap_or_default();
    let what = match task.kind() {
        TaskKind::DrainNode => format!("drain of node {}", task.node),
        TaskKind::DrainDisk => format!("drain of disk {disk}"),
        TaskKind::FailDisk => format!("disk {disk} has failed"),
        TaskKind::ReplaceDisk => format!("replacement of disk {disk}"),
        TaskKind::Rebalance => "rebalance".to_owned(),
        TaskKind::Unspecified => "of an unknown kind".to_owned(),
    };
    format!("task {} ({what})", task.id)
}

impl Machine {
    /// What operators and the cluster itself have begun.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(super) fn put_task<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, task: wire::Task) {
        tx.put(t::TASKS, t::number_key(task.id), &task);
        self.tasks.remember(task);
    }

    /// Ends a task; its disks are the caller's business. The oldest that have ended are forgotten.
    pub(super) fn finish_task<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, id: u32, ending: &Ending) {
        let Some(mut task) = self.tasks.rows.get(&id).filter(|task| is_active(task)).cloned() else { return };
        task.set_state(ending.state);
        if !ending.reason.is_empty() {
            task.reason.clone_from(&ending.reason);
        }
        task.ended_ms = tx.now.as_millis();
        self.put_task(tx, task);
        let ended = self.tasks.all().filter(|task| !is_active(task));
        let mut ended: Vec<(u64, u32)> = ended.map(|task| (task.ended_ms, task.id)).collect();
        ended.sort_unstable();
        for (_, id) in ended.iter().take(ended.len().saturating_sub(ENDED_MAX)) {
            self.tasks.rows.remove(id);
            tx.delete(t::TASKS, t::number_key(*id));
        }
    }

    /// Pauses, resumes, cancels, or sets the limit.
    pub(super) fn set_task<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        set: &wire::SetTask,
    ) -> Result<Answer, Error> {
        let task = self.tasks.rows.get(&set.id);
        let mut task = task
            .ok_or_else(|| invalid(format!("there is no task {}: see `clusterctl task ls`", set.id)))?
            .clone();
        let wanted = match TaskState::try_from(set.state) {
            Ok(TaskState::Unspecified) if set.limit_bytes_per_s.is_none() => {
                return Err(invalid("nothing is asked for: name a state or a limit"));
            }
            Ok(TaskState::Unspecified) => task.state(),
            Ok(state @ (TaskState::Running | TaskState::Paused | TaskState::Cancelled)) => state,
            Ok(TaskState::Done | TaskState::Failed) | Err(_) => {
                return Err(invalid("a task can be paused, resumed or cancelled, nothing else"));
            }
        };
        if !is_active(&task) {
            if wanted == task.state() && set.limit_bytes_per_s.is_none() {
                return Ok(Answer::Task(task));
            }
            let sentence = format!("{} has ended ({}): begin a new one", describe(&task), state_name(&task));
            return Err(invalid(sentence));
        }
        task.limit_bytes_per_s = set.limit_bytes_per_s.unwrap_or(task.limit_bytes_per_s);
        if wanted == TaskState::Cancelled {
            let (id, disks) = (task.id, task.disks.clone());
            self.put_task(tx, task);
            self.finish_task(tx, id, &Ending::cancelled());
            self.set_duty(tx, &disks, Duty::InService, "")?;
            return Ok(Answer::Task(self.tasks.rows.get(&id).cloned().unwrap_or_default()));
        }
        task.set_state(wanted);
        if self.tasks.rows.get(&task.id) != Some(&task) {
            self.put_task(tx, task.clone());
        }
        Ok(Answer::Task(task))
    }

    /// A task has nothing left to do, as the leader found and as is looked at here again.
    pub(super) fn end_task<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        end: &wire::EndTask,
    ) -> Result<Answer, Error> {
        let task = self.tasks.rows.get(&end.id).filter(|task| is_active(task));
        let Some(task) = task.cloned() else { return Ok(Answer::Done(true)) };
        let state = match end.state() {
            TaskState::Done if self.is_finished(&task) => TaskState::Done,
            TaskState::Done => return Err(invalid(format!("{} is not done", describe(&task)))),
            TaskState::Failed if task.kind() == TaskKind::Rebalance => TaskState::Failed,
            _ => return Err(invalid(format!("{} cannot end so", describe(&task)))),
        };
        let reason = shortened(&end.reason, REASON_BYTES_MAX);
        self.finish_task(tx, task.id, &Ending { state, reason });
        if task.kind() == TaskKind::ReplaceDisk {
            let reason = match task.to_disk {
                0 => format!("task {}: replaced", task.id),
                new => format!("task {}: replaced by disk {new}", task.id),
            };
            self.set_duty(tx, &task.disks, Duty::Retired, &reason)?;
        }
        Ok(Answer::Done(true))
    }

    /// Are the disks of the task empty, and is all that it moved whole? Of a rebalance only the leader can tell
    /// what is left.
    pub(crate) fn is_finished(&self, task: &wire::Task) -> bool {
        self.work.moving(TaskId(task.id)) == 0
            && task.disks.iter().all(|disk| self.is_empty_disk(DiskId(*disk)))
    }

    /// The task that a slot belongs to once it has moved from where it was to disk `to`.
    pub(super) fn task_of_move(&self, before: &Slot, to: DiskId, asked: u32) -> Option<TaskId> {
        let by_disk = self.tasks.of_disk(before.disk).map(|task| TaskId(task.id));
        let asked = self.tasks.get(TaskId(asked));
        let asked = asked.filter(|task| is_active(task) && task.kind() == TaskKind::Rebalance);
        let task = by_disk.or(before.task).or(asked.map(|task| TaskId(task.id)))?;
        // Back on a disk that it is to leave, it has not come any further.
        let leaves = self.tasks.get(task).is_some_and(|row| row.disks.binary_search(&to.0).is_ok());
        (!leaves).then_some(task)
    }

    /// A slot that the task moved has become whole.
    pub(super) fn count_moved<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, task: TaskId, group: GroupId) {
        let bytes = self.slot_bytes(group);
        let Some(mut task) = self.tasks.get(task).filter(|task| is_active(task)).cloned() else { return };
        task.slots_done = task.slots_done.saturating_add(1);
        task.bytes_done = task.bytes_done.saturating_add(bytes);
        task.slots_total = task.slots_total.max(task.slots_done);
        task.bytes_total = task.bytes_total.max(task.bytes_done);
        self.put_task(tx, task);
    }
}

fn state_name(task: &wire::Task) -> &'static str {
    match task.state() {
        TaskState::Running => "running",
        TaskState::Paused => "paused",
        TaskState::Done => "done",
        TaskState::Cancelled => "cancelled",
        TaskState::Failed => "failed",
        TaskState::Unspecified => "unknown",
    }
}
