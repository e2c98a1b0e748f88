//! Bugs that are made in what metadata servers store of tasks, and of the slots that move for them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use env::kv::Change;
use meta::state::tables;
use proto::prost::Message;
use proto::wire;
use proto::wire::{Duty, SlotState, TaskKind, TaskState};

use super::hardware::rewrite;
use crate::cluster::Cluster;
use crate::process::lock;

/// See the table.
pub(super) fn progress_doubled(cluster: &Arc<Cluster>) {
    in_tasks(cluster, |task| {
        task.slots_done = task.slots_done.saturating_mul(2);
        task.bytes_done = task.bytes_done.saturating_mul(2);
        task.slots_total = task.slots_total.max(task.slots_done);
        task.bytes_total = task.bytes_total.max(task.bytes_done);
    });
}

/// See the table.
pub(super) fn drain_done_too_early(cluster: &Arc<Cluster>) {
    in_tasks(cluster, |task| {
        if matches!(task.kind(), TaskKind::DrainNode | TaskKind::DrainDisk)
            && task.state() == TaskState::Running
        {
            task.set_state(TaskState::Done);
            task.ended_ms = task.created_ms.saturating_add(1);
        }
    });
}

fn in_tasks(cluster: &Arc<Cluster>, change: fn(&mut wire::Task)) {
    rewrite(cluster, move |store, written| match &written {
        Change::Put(tables::TASKS, key, value) if store.starts_with("state-") => {
            let Ok(mut task) = wire::Task::decode(value.clone()) else { return vec![written] };
            change(&mut task);
            vec![Change::Put(tables::TASKS, key.clone(), task.encode_to_vec().into())]
        }
        _ => vec![written],
    });
}

/// See the table.
pub(super) fn whole_too_early(cluster: &Arc<Cluster>) {
    rewrite(cluster, |store, written| match written {
        Change::Put(tables::GROUPS, key, value) if store.starts_with("state-") => {
            vec![Change::Put(tables::GROUPS, key, all_whole(value))]
        }
        written => vec![written],
    });
}

fn all_whole(value: Bytes) -> Bytes {
    let Ok(mut group) = wire::Group::decode(value.clone()) else { return value };
    for slot in group.slots.iter_mut().filter(|slot| slot.task != 0) {
        slot.set_state(SlotState::Whole);
        (slot.source_disk, slot.task) = (0, 0);
    }
    group.encode_to_vec().into()
}

/// See the table.
pub(super) fn rebalance_ignores_domains(cluster: &Arc<Cluster>) {
    misplace(cluster, |known, group, place| {
        let slot = group.slots.get(place)?;
        if known.tasks.get(&slot.task) != Some(&TaskKind::Rebalance) {
            return None;
        }
        // Where most of the group are already.
        let mut racks: BTreeMap<&str, usize> = BTreeMap::new();
        for other in group.slots.iter().filter(|other| other.disk != slot.disk) {
            *racks.entry(known.rack(other.disk)?).or_insert(0) += 1;
        }
        let (full, _) = racks.into_iter().max_by_key(|(_, slots)| *slots)?;
        known.free(group, |disk| known.rack(disk) == Some(full))
    });
}

/// See the table.
pub(super) fn drained_disk_taken(cluster: &Arc<Cluster>) {
    misplace(cluster, |known, group, _| {
        known.free(group, |disk| known.disks.get(&disk).is_some_and(|(_, duty)| *duty != Duty::Unspecified))
    });
}

/// What was written of the cluster so far.
#[derive(Default)]
struct Known {
    racks: BTreeMap<u32, String>,
    disks: BTreeMap<u32, (u32, Duty)>,
    tasks: BTreeMap<u32, TaskKind>,
    /// Slots that were misplaced, by group, place and epoch.
    misplaced: BTreeMap<(u32, usize, u64), Option<u32>>,
}

impl Known {
    fn learn(&mut self, written: &Change) {
        match written {
            Change::Put(tables::NODES, _, value) => {
                let node = wire::Node::decode(value.clone()).unwrap_or_default();
                self.racks.insert(node.id, node.rack);
            }
            Change::Put(tables::DISKS, _, value) => {
                let disk = wire::Disk::decode(value.clone()).unwrap_or_default();
                self.disks.insert(disk.id, (disk.node, disk.duty()));
            }
            Change::Put(tables::TASKS, _, value) => {
                let task = wire::Task::decode(value.clone()).unwrap_or_default();
                self.tasks.insert(task.id, task.kind());
            }
            _ => {}
        }
    }

    fn rack(&self, disk: u32) -> Option<&str> {
        let (node, _) = self.disks.get(&disk)?;
        self.racks.get(node).map(String::as_str)
    }

    /// A disk of this kind that the group does not use.
    fn free(&self, group: &wire::Group, is_wanted: impl Fn(u32) -> bool) -> Option<u32> {
        let uses = |disk: u32| group.slots.iter().any(|slot| slot.disk == disk || slot.source_disk == disk);
        self.disks.keys().copied().find(|disk| is_wanted(*disk) && !uses(*disk))
    }

    fn rewrite(&mut self, value: Bytes, choose: Choose) -> Bytes {
        let Ok(mut group) = wire::Group::decode(value.clone()) else { return value };
        for place in 0..group.slots.len() {
            let Some(slot) = group.slots.get(place) else { continue };
            let (key, moves) = ((group.id, place, slot.since_epoch), slot.state() == SlotState::Rebuilding);
            let to = match self.misplaced.get(&key) {
                Some(known) => *known,
                None if moves => choose(self, &group, place),
                None => None,
            };
            if moves {
                self.misplaced.insert(key, to);
            }
            if let (Some(to), Some(slot)) = (to, group.slots.get_mut(place)) {
                slot.disk = to;
            }
        }
        group.encode_to_vec().into()
    }
}

/// A wrong place for a slot that moves; none to leave it as it is.
type Choose = fn(&Known, &wire::Group, usize) -> Option<u32>;

/// Slots that move go to other places than were found.
fn misplace(cluster: &Arc<Cluster>, choose: Choose) {
    let known: Arc<Mutex<Known>> = Arc::default();
    rewrite(cluster, move |store, written| {
        if !store.starts_with("state-") {
            return vec![written];
        }
        let mut known = lock(&known);
        known.learn(&written);
        match written {
            Change::Put(tables::GROUPS, key, value) => {
                vec![Change::Put(tables::GROUPS, key, known.rewrite(value, choose))]
            }
            written => vec![written],
        }
    });
}
