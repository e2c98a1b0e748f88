//! How fast tasks get on, and how fast nodes may work for them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use env::Monotonic;
use proto::{NodeId, TaskId, wire};

use crate::options::Throttle;
use crate::state::Machine;
use crate::state::tasks::Tasks;

/// Progress is watched for so long …
const WINDOW: Duration = Duration::from_mins(1);
/// … and noted this often.
const STEP: Duration = Duration::from_secs(2);

/// What the leader has seen of the progress of tasks that are active. Nothing of it is replicated: a new leader
/// begins to watch anew.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Bytes done, with the time of the look, the oldest first.
    seen: BTreeMap<u32, VecDeque<(Monotonic, u64)>>,
}

impl Pace {
    /// Notes how far tasks have come.
    pub fn note(&mut self, now: Monotonic, tasks: &Tasks) {
        let active: BTreeMap<u32, u64> = tasks.active().map(|task| (task.id, task.bytes_done)).collect();
        self.seen.retain(|task, _| active.contains_key(task));
        for (task, bytes) in active {
            let seen = self.seen.entry(task).or_default();
            if seen.back().is_some_and(|(at, _)| now.since(*at) < STEP) {
                continue;
            }
            seen.push_back((now, bytes));
            while seen.len() > 2 && seen.front().is_some_and(|(at, _)| now.since(*at) > WINDOW) {
                seen.pop_front();
            }
        }
    }

    /// Bytes per second of each task that was watched for some time.
    pub fn all(&self) -> Vec<wire::TaskPace> {
        let pace = |(task, seen): (&u32, &VecDeque<(Monotonic, u64)>)| {
            let ((began, first), (ended, last)) = (seen.front()?, seen.back()?);
            let millis = u64::try_from(ended.since(*began).as_millis()).ok().filter(|millis| *millis > 0)?;
            let bytes = u128::from(last.saturating_sub(*first)).saturating_mul(1000) / u128::from(millis);
            Some(wire::TaskPace { id: *task, bytes_per_s: u64::try_from(bytes).unwrap_or(u64::MAX) })
        };
        self.seen.iter().filter_map(pace).collect()
    }
}

/// How fast a node may work. A task's limit is divided among the nodes that make its slots; a node that works for
/// several tasks has the sum of its parts.
pub fn throttle_of(machine: &Machine, node: NodeId, default: &Throttle) -> Throttle {
    let mut sum = 0u64;
    let mut works = false;
    for task in machine.tasks().active() {
        let disks = machine.work().moving_to(TaskId(task.id)).map(|(disk, _)| disk);
        let nodes: BTreeSet<NodeId> =
            disks.filter_map(|disk| machine.map().disks().get(&disk)).map(|disk| disk.node).collect();
        if !nodes.contains(&node) {
            continue;
        }
        works = true;
        let nodes = u64::try_from(nodes.len()).unwrap_or(1).max(1);
        let part = match task.limit_bytes_per_s {
            0 => default.move_bytes_per_s,
            limit => limit.div_ceil(nodes),
        };
        if part == 0 {
            return *default;
        }
        sum = sum.saturating_add(part);
    }
    Throttle { move_bytes_per_s: if works { sum } else { default.move_bytes_per_s }, ..*default }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(bytes: &[(u32, u64)]) -> Tasks {
        let mut tasks = Tasks::default();
        for (id, bytes_done) in bytes {
            let state = wire::TaskState::Running.into();
            tasks.remember(wire::Task { id: *id, state, bytes_done: *bytes_done, ..Default::default() });
        }
        tasks
    }

    /// The pace is that of the last minute; a task that has ended is forgotten.
    #[test]
    fn paces() {
        let mut pace = Pace::default();
        let at = |seconds| Monotonic::new(Duration::from_secs(seconds));
        pace.note(at(0), &tasks(&[(1, 0), (2, 5)]));
        assert_eq!(pace.all(), []);
        pace.note(at(1), &tasks(&[(1, 100), (2, 5)]));
        assert_eq!(pace.all(), [], "too early");
        pace.note(at(10), &tasks(&[(1, 1000), (2, 5)]));
        let of = |id, bytes_per_s| wire::TaskPace { id, bytes_per_s };
        assert_eq!(pace.all(), [of(1, 100), of(2, 0)]);
        for second in 11..=200 {
            pace.note(at(second), &tasks(&[(1, 1000 + (second - 10) * 7)]));
        }
        assert_eq!(pace.all(), [of(1, 7)]);
        assert!(pace.seen[&1].len() <= 32, "{}", pace.seen[&1].len());
    }
}
