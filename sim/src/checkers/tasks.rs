//! Tasks tell the truth: their progress never falls and counts each slot once, what is called done is done, and
//! once the cluster is well each of them ends.

use std::collections::BTreeMap;

use env::{KvRead, Order};
use meta::state::{Machine, tables};
use placement::{Duty, SlotState};
use proto::prost::Message;
use proto::wire::{Task, TaskKind, TaskState};
use proto::{DiskId, TaskId, wire};

use crate::cluster::Cluster;
use crate::oracle::{Disks, Metadata};
use crate::verdict::Kind;

/// See [`super::TABLE`].
pub(super) const NAME: &str = "tasks";

/// A task as it was seen.
struct Seen {
    /// Slots that may count, all in all.
    slots_max: u64,
    last: Task,
}

/// All tasks that were ever seen.
#[derive(Default)]
pub(super) struct Tasks {
    applied: u64,
    seen: BTreeMap<u32, Seen>,
    /// Slots that were on their way from each disk when last looked at.
    leaving: BTreeMap<DiskId, u64>,
}

impl Tasks {
    /// Compares with what was seen before, and with where slots are.
    pub(super) fn check(&mut self, cluster: &Cluster, latest: &Metadata) {
        if latest.applied < self.applied {
            // The server that had come furthest has lost what it had applied and not flushed.
            return;
        }
        self.applied = latest.applied;
        let machine = &latest.machine;
        for task in machine.tasks().all() {
            if task.ended_ms > 0 && self.seen.get(&task.id).is_none_or(|seen| seen.last.ended_ms == 0) {
                ending(task).into_iter().for_each(|probe| cluster.world.probe(probe));
            }
            let found = self.compare(machine, task).and_then(|()| is_true(machine, task));
            if let Err(text) = found {
                cluster.findings.report(&cluster.world, Kind::Correctness, NAME, format!("{text}: {task:?}"));
            }
        }
        self.leaving = leaving(machine);
    }

    fn compare(&mut self, machine: &Machine, task: &Task) -> Result<(), String> {
        let now = leaving(machine);
        let Some(seen) = self.seen.get_mut(&task.id) else {
            if let Some((newest, _)) = self.seen.last_key_value().filter(|(newest, _)| **newest > task.id) {
                return Err(format!("it is new, and there was one with id {newest}"));
            }
            // What was on its way as it began may come back, and then has to leave once more.
            let disks = || task.disks.iter().map(|disk| DiskId(*disk));
            let may_return = |disk: DiskId| {
                [&self.leaving, &now].map(|all| all.get(&disk).copied().unwrap_or(0)).into_iter().sum::<u64>()
            };
            let slots_max = task.slots_total.saturating_add(disks().map(may_return).sum());
            self.seen.insert(task.id, Seen { slots_max, last: task.clone() });
            return Ok(());
        };
        let before = std::mem::replace(&mut seen.last, task.clone());
        let fell = task.slots_done < before.slots_done
            || task.bytes_done < before.bytes_done
            || task.slots_total < before.slots_total
            || task.bytes_total < before.bytes_total;
        if fell {
            return Err(format!("its progress fell from {before:?}"));
        }
        if (task.created_ms, task.node) != (before.created_ms, before.node) {
            return Err(format!("another task had its id: {before:?}"));
        }
        if before.ended_ms > 0 && *task != before {
            return Err(format!("it had ended as {before:?}"));
        }
        if task.kind() != TaskKind::Rebalance && task.slots_done > seen.slots_max {
            return Err(format!("{} slots were to leave when it began, so many cannot have", seen.slots_max));
        }
        Ok(())
    }
}

/// The situation that the end of a task is.
fn ending(task: &Task) -> Option<&'static str> {
    match (task.state(), task.kind()) {
        (TaskState::Cancelled, _) => Some("a task was cancelled"),
        (TaskState::Done, TaskKind::DrainNode | TaskKind::DrainDisk) => Some("a drain was done"),
        (TaskState::Done, TaskKind::FailDisk) => Some("a disk that was given up was left"),
        (TaskState::Done, TaskKind::ReplaceDisk) => Some("a replacement was done"),
        (TaskState::Done, TaskKind::Rebalance) => Some("a rebalance was done"),
        _ => None,
    }
}

/// Slots that are on their way from each disk, or not whole on it.
fn leaving(machine: &Machine) -> BTreeMap<DiskId, u64> {
    let mut leaving = BTreeMap::new();
    for slot in machine.map().groups().values().flat_map(|group| &group.slots) {
        let unmade = (slot.state != SlotState::Whole).then_some(slot.disk);
        for disk in slot.source().into_iter().chain(unmade) {
            *leaving.entry(disk).or_insert(0) += 1;
        }
    }
    leaving
}

/// Does it say what is?
fn is_true(machine: &Machine, task: &Task) -> Result<(), String> {
    if task.slots_done > task.slots_total || task.bytes_done > task.bytes_total {
        return Err("more is done than there is to do".to_owned());
    }
    let map = machine.map();
    let has_slots = |disk: &&u32| {
        let disk = DiskId(**disk);
        map.disk_duty(disk) != Duty::InService && map.groups_on(disk).next().is_some()
    };
    // Since then a disk may have come back into service, and be emptied again.
    let is_left_by_another =
        |disk: &&u32| machine.tasks().of_disk(DiskId(**disk)).is_some_and(|other| other.id != task.id);
    let mut disks = task.disks.iter().filter(|_| task.state() == TaskState::Done);
    match disks.find(|disk| has_slots(disk) && !is_left_by_another(disk)) {
        Some(disk) => Err(format!("it is done, and disk {disk} has slots")),
        None => Ok(()),
    }
}

/// What keeps tasks from being over, and disks that are out of service from being clean, in words.
pub(super) fn amiss(latest: &Metadata, disks: &Disks) -> Result<(), String> {
    let machine = &latest.machine;
    if let Some(task) = machine.tasks().active().next() {
        let of = |disk: &u32| {
            let disk = DiskId(*disk);
            let on: Vec<_> = machine.map().groups_on(disk).collect();
            format!("disk {disk}: {on:?}")
        };
        let on: Vec<String> = task.disks.iter().map(of).collect();
        return Err(format!("a task goes on: {task:?}; {}", on.join(", ")));
    }
    let map = machine.map();
    let rows = latest.kv.scan(tables::GARBAGE, &tables::whole_table(), Order::Ascending, usize::MAX);
    for (_, value) in rows.map_err(|error| error.to_string())? {
        let row = wire::GarbageRow::decode(value).map_err(|error| error.to_string())?;
        let mut retired = row.slots.iter().map(|slot| DiskId(slot.disk));
        if let Some(disk) = retired.find(|disk| map.disk_duty(*disk) == Duty::Retired) {
            return Err(format!("disk {disk} is retired, and shall drop something"));
        }
    }
    for disk in map.disks().values().filter(|disk| matches!(disk.duty, Duty::Draining | Duty::Failed)) {
        let Some(there) = disks.by_uuid.get(&disk.uuid) else { continue };
        if let Some(shard) = there.shards.keys().find(|shard| latest.grant_is_over(shard.extent)) {
            return Err(format!("disk {} is {} and empty, and still keeps {shard}", disk.id, disk.duty));
        }
    }
    Ok(())
}

/// The task of this id, with its state.
pub(super) fn state_of(machine: &Machine, id: u32) -> Option<(TaskState, Task)> {
    machine.tasks().get(TaskId(id)).map(|task| (task.state(), task.clone()))
}
