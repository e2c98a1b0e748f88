//! A rebalance: slots go from full disks to empty ones, as the planner says of the map as it is now.
//!
//! No plan is kept. The planner is asked again when most of what it had begun is whole, since it looks at every slot
//! of the cluster. When it has no more moves and nothing is under way the task is over; that some disks stay
//! away from the mean, and why, is then its reason.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use env::{KvRead, StorageError};
use placement::{Goal, Group, Health, PlannedMove, Rebalance, Room};
use proto::{DiskId, GroupId, TaskId, wire};
use wire::{TaskKind, TaskState};

use super::{Ailing, move_slot};
use crate::state::{Machine, leftover_disks};

/// While more slots of a rebalance are under way the planner is not asked.
const UNDER_WAY_MAX: u64 = 64;
/// So many rounds, seconds about, without anything to begin end a rebalance whatever else is going on.
const IDLE_ROUNDS_MAX: u32 = 600;
/// Slots that leave one disk, or come to one, at a time.
const PER_DISK_MAX: usize = 4;

/// Moves, or the end of the task.
type Next = (Vec<wire::MoveSlot>, Option<wire::EndTask>);

/// Remembers how long there was nothing to begin.
#[derive(Clone, Debug, Default)]
pub(super) struct Evener {
    idle_rounds: u32,
}

impl Evener {
    /// At most `room` moves, at most one for a group and none of the groups `taken`; or the end of the task.
    pub(super) fn next(
        &mut self,
        machine: &Machine,
        kv: &impl KvRead,
        ailing: &Ailing,
        taken: &BTreeSet<u32>,
        room: usize,
    ) -> Result<Next, StorageError> {
        let Some(task) = running(machine) else {
            *self = Self::default();
            return Ok((Vec::new(), None));
        };
        let under_way = machine.work().moving(TaskId(task.id));
        if room == 0 || under_way >= UNDER_WAY_MAX {
            return Ok((Vec::new(), None));
        }
        let bytes = |group: GroupId| machine.slot_bytes(group);
        let question =
            Rebalance { map: machine.map(), bytes: &bytes, barred: &ailing.full, goal: Goal::default() };
        let (moves, waits) = next_moves(machine, kv, &question, taken, room)?;
        self.idle_rounds =
            if moves.is_empty() && under_way == 0 { self.idle_rounds.saturating_add(1) } else { 0 };
        // What is being made, or has to be dropped, may be in the way of the rest; not for ever.
        let is_quiet = machine.slots_rebuilding() == 0 && !waits;
        if self.idle_rounds > 0 && (is_quiet || self.idle_rounds >= IDLE_ROUNDS_MAX) {
            let reason = question.plan().stuck.map(|stuck| stuck.to_string()).unwrap_or_default();
            let end = wire::EndTask { id: task.id, state: TaskState::Done.into(), reason };
            return Ok((Vec::new(), Some(end)));
        }
        let move_of = |planned: &PlannedMove| {
            let group = machine.map().groups().get(&planned.group)?;
            Some(wire::MoveSlot { task: task.id, ..move_slot(group, planned.step) })
        };
        Ok((moves.iter().filter_map(move_of).collect(), None))
    }
}

fn running(machine: &Machine) -> Option<&wire::Task> {
    let mut running = machine.tasks().active().filter(|task| task.state() == TaskState::Running);
    running.find(|task| task.kind() == TaskKind::Rebalance)
}

/// What can begin now, and whether a group was left out that soon may move.
fn next_moves(
    machine: &Machine,
    kv: &impl KvRead,
    question: &Rebalance<'_>,
    taken: &BTreeSet<u32>,
    room: usize,
) -> Result<(Vec<PlannedMove>, bool), StorageError> {
    let (failed, waits) = (RefCell::new(None), Cell::new(false));
    let is_free = |group: &Group| {
        let kept = leftover_disks(kv, group.id).unwrap_or_else(|error| {
            failed.replace(Some(error));
            BTreeSet::new()
        });
        // What is kept on a disk that answers will soon be dropped; a disk that does not gets no slot anyway.
        let answers = |disk: &DiskId| machine.map().disk_health(*disk) != Health::Down;
        let is_busy = taken.contains(&group.id.0) || kept.iter().any(answers);
        waits.set(waits.get() || is_busy);
        !is_busy
    };
    let moves = question.next_moves(Room { moves: room, per_disk: PER_DISK_MAX, is_free: &is_free });
    match failed.take() {
        Some(error) => Err(error),
        None => Ok((moves, waits.get())),
    }
}
