//! The beginning of a task: what is asked for, what of it runs already, and what stands in its way.
//!
//! Whether the cluster has room for it is not asked here: that takes a look at every slot and at what disks
//! report, which the leader does before it proposes anything.

use env::KvRead;
use placement::{Duty, REASON_BYTES_MAX};
use proto::{DiskId, NodeId, TaskId, wire};
use wire::outcome::Outcome as Answer;
use wire::{TaskKind, TaskState};

use crate::state::error::{Error, invalid};
use crate::state::tasks::describe;
use crate::state::tenancy::next_id;
use crate::state::{Machine, Tx, shortened};

/// Tasks that run or are paused at once.
const ACTIVE_MAX: usize = 256;

/// What a task is to do, with things that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// All slots leave the node's disks.
    DrainNode(NodeId),
    /// All slots leave the disk, for this reason.
    LeaveDisk(DiskId, Leave),
    /// Slots go from full disks to empty ones.
    Rebalance,
}

/// Why a disk is left; a stronger reason takes over the task of a weaker one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leave {
    /// It is wanted elsewhere.
    Drain,
    /// It is not to be relied on.
    Fail,
    /// It goes, and another may have come in its place.
    Replace(Option<DiskId>),
}

/// What there is already of a wish.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// It runs.
    Runs(TaskId),
    /// A task for a weaker reason, which it takes over.
    TakesOver(TaskId),
    /// Nothing; these disks would be emptied.
    New(Vec<DiskId>),
}

impl Leave {
    fn kind(self) -> TaskKind {
        match self {
            Self::Drain => TaskKind::DrainDisk,
            Self::Fail => TaskKind::FailDisk,
            Self::Replace(_) => TaskKind::ReplaceDisk,
        }
    }

    fn duty(self) -> Duty {
        match self {
            Self::Drain => Duty::Draining,
            Self::Fail | Self::Replace(_) => Duty::Failed,
        }
    }

    fn of(task: &wire::Task) -> Option<Self> {
        match task.kind() {
            TaskKind::DrainDisk => Some(Self::Drain),
            TaskKind::FailDisk => Some(Self::Fail),
            TaskKind::ReplaceDisk => Some(Self::Replace(None)),
            TaskKind::DrainNode | TaskKind::Rebalance | TaskKind::Unspecified => None,
        }
    }
}

impl Machine {
    /// What a request asks for, and what there is of it.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` for a node or disk that is not there or has nothing to leave, or when another task is
    /// in the way, which is named.
    pub fn look_at_wish(&self, begin: &wire::BeginTask) -> Result<(Wish, Found), Error> {
        self.founded()?;
        let wish = self.parse_wish(begin)?;
        let found = match wish {
            Wish::Rebalance => {
                let running = self.tasks.active().find(|task| task.kind() == TaskKind::Rebalance);
                running.map_or(Found::New(Vec::new()), |task| Found::Runs(TaskId(task.id)))
            }
            Wish::DrainNode(node) => self.look_at_node(node)?,
            Wish::LeaveDisk(disk, why) => self.look_at_disk(disk, why)?,
        };
        if matches!(found, Found::New(_)) && self.tasks.active().count() >= ACTIVE_MAX {
            return Err(invalid(format!("{ACTIVE_MAX} tasks run at once: wait for some, or cancel them")));
        }
        Ok((wish, found))
    }

    fn parse_wish(&self, begin: &wire::BeginTask) -> Result<Wish, Error> {
        let disk = || Ok::<DiskId, Error>(self.known_disk(begin.disk)?.id);
        let wish = match TaskKind::try_from(begin.kind) {
            Ok(TaskKind::DrainNode) => Wish::DrainNode(self.known_node(begin.node)?),
            Ok(TaskKind::DrainDisk) => Wish::LeaveDisk(disk()?, Leave::Drain),
            Ok(TaskKind::FailDisk) => Wish::LeaveDisk(disk()?, Leave::Fail),
            Ok(TaskKind::ReplaceDisk) => {
                Wish::LeaveDisk(disk()?, Leave::Replace(self.parse_new_disk(begin)?))
            }
            Ok(TaskKind::Rebalance) => Wish::Rebalance,
            Ok(TaskKind::Unspecified) | Err(_) => {
                return Err(invalid(format!("tasks of kind {} are unknown: expected 1 to 5", begin.kind)));
            }
        };
        let (has_node, has_disk) = match wish {
            Wish::DrainNode(_) => (true, false),
            Wish::LeaveDisk(..) => (false, true),
            Wish::Rebalance => (false, false),
        };
        if (begin.node != 0) != has_node || (begin.disk != 0) != has_disk {
            return Err(invalid("a task is for a node, for a disk, or for the cluster: name one of them"));
        }
        Ok(wish)
    }

    fn parse_new_disk(&self, begin: &wire::BeginTask) -> Result<Option<DiskId>, Error> {
        if begin.to_disk == 0 {
            return Ok(None);
        }
        let new = self.known_disk(begin.to_disk)?;
        if begin.to_disk == begin.disk || new.duty != Duty::InService {
            let sentence =
                format!("disk {} cannot replace disk {}: name a new one, in service", new.id, begin.disk);
            return Err(invalid(sentence));
        }
        Ok(Some(new.id))
    }

    fn look_at_node(&self, node: NodeId) -> Result<Found, Error> {
        let mut disks = Vec::new();
        for disk in self.map.disks_of(node).filter(|disk| disk.duty != Duty::Retired) {
            match self.tasks.of_disk(disk.id) {
                Some(task) if task.node == node.0 => return Ok(Found::Runs(TaskId(task.id))),
                Some(task) if task.kind() == TaskKind::DrainDisk => return Err(in_the_way(task)),
                // Its slots leave it for a better reason.
                Some(_) => {}
                None if disk.duty.is_given_up() => {}
                None => disks.push(disk.id),
            }
        }
        if disks.is_empty() {
            return Err(invalid(format!("node {node} has no disk in service: there is nothing to drain")));
        }
        Ok(Found::New(disks))
    }

    fn look_at_disk(&self, disk: DiskId, why: Leave) -> Result<Found, Error> {
        if let Some(task) = self.tasks.of_disk(disk) {
            return match Leave::of(task) {
                Some(Leave::Replace(_)) if why >= Leave::Fail => Ok(Found::Runs(TaskId(task.id))),
                Some(known) if known == why => Ok(Found::Runs(TaskId(task.id))),
                Some(known) if known < why => Ok(Found::TakesOver(TaskId(task.id))),
                // One disk of a node that is drained has failed: its slots leave it as they would, only sooner.
                None if why == Leave::Fail && self.map.disk_duty(disk).is_given_up() => {
                    Ok(Found::Runs(TaskId(task.id)))
                }
                None if why == Leave::Fail => Ok(Found::TakesOver(TaskId(task.id))),
                _ => Err(in_the_way(task)),
            };
        }
        match self.map.disk_duty(disk) {
            Duty::Retired => Err(invalid(format!("disk {disk} is retired: it has nothing to leave"))),
            Duty::Failed if why == Leave::Drain => {
                Err(invalid(format!("disk {disk} has failed, and its slots have left it: replace it")))
            }
            _ => Ok(Found::New(vec![disk])),
        }
    }

    pub(super) fn begin_task<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        begin: &wire::BeginTask,
    ) -> Result<Answer, Error> {
        if begin.dry_run {
            return Err(invalid("a dry run changes nothing: it is no command"));
        }
        let (wish, found) = self.look_at_wish(begin)?;
        let task = match found {
            Found::Runs(task) => self.tasks.get(task).cloned().unwrap_or_default(),
            Found::TakesOver(task) => self.take_over(tx, wish, task)?,
            Found::New(disks) => self.new_task(tx, begin, wish, &disks)?,
        };
        Ok(Answer::Task(task))
    }

    /// The cluster itself gives up a disk.
    pub(super) fn fail_disk<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        fail: wire::FailDisk,
    ) -> Result<Answer, Error> {
        let kind = TaskKind::FailDisk.into();
        let begin = wire::BeginTask { kind, disk: fail.disk, reason: fail.reason, ..Default::default() };
        self.begin_task(tx, &begin)
    }

    fn take_over<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        wish: Wish,
        task: TaskId,
    ) -> Result<wire::Task, Error> {
        let mut task = self.tasks.get(task).cloned().unwrap_or_default();
        if let Wish::LeaveDisk(disk, why) = wish {
            if task.kind() == TaskKind::DrainNode {
                self.set_duty(tx, &[disk.0], why.duty(), &describe(&task))?;
                return Ok(task);
            }
            task.set_kind(why.kind());
            // The weaker reason may have had time.
            task.set_state(TaskState::Running);
            if let Leave::Replace(Some(new)) = why {
                task.to_disk = new.0;
            }
            self.put_task(tx, task.clone());
            self.set_duty(tx, &task.disks, why.duty(), &describe(&task))?;
        }
        Ok(task)
    }

    fn new_task<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        begin: &wire::BeginTask,
        wish: Wish,
        disks: &[DiskId],
    ) -> Result<wire::Task, Error> {
        let (id, next) = next_id(self.totals.next_task, "tasks")?;
        let (slots, bytes) = match wish {
            Wish::Rebalance => (begin.slots_total, begin.bytes_total),
            Wish::DrainNode(_) | Wish::LeaveDisk(..) => self.slots_and_bytes(disks),
        };
        let mut task = wire::Task {
            id,
            kind: begin.kind,
            state: TaskState::Running.into(),
            reason: shortened(&begin.reason, REASON_BYTES_MAX),
            created_ms: tx.now.as_millis(),
            limit_bytes_per_s: begin.limit_bytes_per_s,
            node: begin.node,
            disks: disks.iter().map(|disk| disk.0).collect(),
            slots_total: slots,
            bytes_total: bytes,
            ..Default::default()
        };
        task.disks.sort_unstable();
        let mut duty = Duty::Draining;
        if let Wish::LeaveDisk(_, why) = wish {
            duty = why.duty();
            if let Leave::Replace(Some(new)) = why {
                task.to_disk = new.0;
            }
        }
        self.totals.next_task = next;
        self.put_task(tx, task.clone());
        let why = match begin.reason.as_str() {
            "" => describe(&task),
            _ => shortened(&format!("{}: {}", describe(&task), task.reason), REASON_BYTES_MAX),
        };
        self.set_duty(tx, &task.disks, duty, &why)?;
        Ok(task)
    }

    /// Slots on these disks, and their bytes.
    pub(crate) fn slots_and_bytes(&self, disks: &[DiskId]) -> (u64, u64) {
        let (mut slots, mut bytes) = (0u64, 0u64);
        for disk in disks {
            for group in
                self.map.groups_on(*disk).filter(|group| group.slots.iter().any(|slot| slot.disk == *disk))
            {
                slots = slots.saturating_add(1);
                bytes = bytes.saturating_add(self.slot_bytes(group.id));
            }
        }
        (slots, bytes)
    }
}

fn in_the_way(task: &wire::Task) -> Error {
    let sentence = format!(
        "{} is in the way: wait until it is done, or cancel it with `clusterctl task cancel {}`",
        describe(task),
        task.id
    );
    invalid(sentence)
}
