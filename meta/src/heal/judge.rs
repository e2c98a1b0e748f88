//! What follows from the state without a move: tasks that are over, disks that are given up, leftovers that nobody
//! will drop.

use placement::{Disk, Duty, Health};
use proto::{Timestamp, wire};
use tracing::warn;
use wire::command::Action;
use wire::{TaskKind, TaskState};

use super::Ailing;
use crate::state::{Machine, damage_is_old};

/// A disk that damages more extents than this within a day is given up.
const DAMAGED_MAX: u32 = 16;

/// Commands that only say what the state shows.
pub(super) fn verdicts(machine: &Machine, now: Timestamp, ailing: &Ailing) -> Vec<Action> {
    let over = machine.tasks().active().filter(|task| task.kind() != TaskKind::Rebalance);
    let over = over.filter(|task| machine.is_finished(task));
    let end = |task: &wire::Task| {
        let state = TaskState::Done.into();
        Action::EndTask(wire::EndTask { id: task.id, state, reason: String::new() })
    };
    let mut verdicts: Vec<Action> = over.map(end).collect();
    let retired = machine.map().disks().values().filter(|disk| disk.duty == Duty::Retired);
    let keeps = |disk: &&Disk| machine.work().drops(disk.id).next().is_some();
    let forget = |disk: &Disk| Action::ForgetLeftovers(wire::ForgetLeftovers { disk: disk.id.0 });
    verdicts.extend(retired.filter(keeps).map(forget));
    verdicts.extend(failing(machine, now, ailing).map(Action::FailDisk));
    verdicts
}

/// A disk that keeps damaging what it holds; one at a time, and none while so many are away or given up that the
/// others may be needed more than they harm.
fn failing(machine: &Machine, now: Timestamp, ailing: &Ailing) -> Option<wire::FailDisk> {
    let map = machine.map();
    let now = now.max(machine.cluster_time());
    let harms = |disk: &&Disk| {
        disk.duty == Duty::InService && disk.damaged_shards > DAMAGED_MAX && !damage_is_old(disk, now)
    };
    let disk = map.disks().values().find(harms)?;
    let in_use = |disk: &&Disk| map.groups_on(disk.id).next().is_some();
    let gone = |disk: &&Disk| disk.duty.is_given_up() || map.disk_health(disk.id) == Health::Down;
    let gone = map.disks().values().filter(gone).filter(in_use).count().saturating_add(1);
    let disks = map.disks().values().filter(|disk| disk.duty != Duty::Retired).count();
    if gone.saturating_mul(100) > disks.saturating_mul(usize::from(ailing.share_max_percent)) {
        return None;
    }
    let damaged = disk.damaged_shards;
    warn!(disk = %disk.id, damaged, "disk keeps damaging shards: it is given up");
    let reason = format!("{damaged} extents were found damaged on it within a day");
    Some(wire::FailDisk { disk: disk.id.0, reason })
}

/// Disks that somebody has given up are out as soon as they are down: nobody waits for their return. Whoever
/// pauses their task spares the disks that are up; what is lost is made again all the same.
pub(super) fn with_given_up(machine: &Machine, ailing: &Ailing) -> Ailing {
    let map = machine.map();
    let in_use = |disk: &&Disk| map.groups_on(disk.id).next().is_some();
    let lost =
        |disk: &&Disk| disk.duty.is_given_up() && map.disk_health(disk.id) == Health::Down && in_use(disk);
    let mut ailing = ailing.clone();
    ailing.out.extend(map.disks().values().filter(lost).map(|disk| disk.id));
    ailing
}
