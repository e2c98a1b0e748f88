//! Requests about what takes long: drains, replacements, rebalances.

use env::Env;
use proto::wire::command::Action;
use proto::wire::outcome::Outcome;
use proto::{ErrorCode, Failure, wire};

use super::service::{Shared, failed};
use crate::plan::{Fills, plan};
use crate::state::begin::Found;

impl<E: Env> Shared<E> {
    /// Begins a task, or answers with the one that does the same already. A drain that could not end is refused,
    /// with what is missing.
    pub(super) async fn begin_task(
        &self,
        mut begin: wire::BeginTask,
    ) -> Result<wire::BeginTaskReply, Failure> {
        self.node.linearize().await?;
        let id = &begin.command_id;
        let is_carried_out = || self.node.replica().read(|machine, kv| machine.is_carried_out(kv, id));
        if !begin.dry_run && is_carried_out().map_err(failed)? {
            // Whatever has become of it meanwhile.
            let task = self.task_of(Action::BeginTask(begin)).await?;
            return Ok(wire::BeginTaskReply { task: Some(task), plan: None });
        }
        let fills = self.fills();
        let mut planned =
            self.node.replica().read(|machine, _| plan(machine, &begin, &fills)).map_err(failed)?;
        if let Some(plan) = &mut planned.plan {
            plan.limit_bytes_per_s = self.limit(begin.limit_bytes_per_s);
        }
        if begin.dry_run {
            let running = match planned.found {
                Found::Runs(task) => {
                    self.node.replica().read(|machine, _| machine.tasks().get(task).cloned())
                }
                Found::TakesOver(_) | Found::New(_) => None,
            };
            return Ok(wire::BeginTaskReply { task: running, plan: planned.plan });
        }
        if let Some(refused) = planned.refused {
            return Err(refused);
        }
        let counted = planned.plan.as_ref().map(|plan| (plan.slots, plan.bytes)).unwrap_or_default();
        (begin.slots_total, begin.bytes_total) = counted;
        let task = self.task_of(Action::BeginTask(begin)).await?;
        Ok(wire::BeginTaskReply { task: Some(task), plan: planned.plan })
    }

    pub(super) async fn set_task(&self, set: wire::SetTask) -> Result<wire::SetTaskReply, Failure> {
        Ok(wire::SetTaskReply { task: Some(self.task_of(Action::SetTask(set)).await?) })
    }

    pub(super) async fn undrain(&self, undrain: wire::Undrain) -> Result<wire::UndrainReply, Failure> {
        self.propose_asked(Action::Undrain(undrain)).await.map(|_| wire::UndrainReply {})
    }

    pub(super) async fn forget_node(
        &self,
        forget: wire::ForgetNode,
    ) -> Result<wire::ForgetNodeReply, Failure> {
        self.propose_asked(Action::ForgetNode(forget)).await.map(|_| wire::ForgetNodeReply {})
    }

    pub(super) async fn list_tasks(&self) -> Result<wire::ListTasksReply, Failure> {
        self.node.linearize().await?;
        let term = self.node.standing().term;
        self.node.replica().read(|machine, _| {
            machine.founded()?;
            Ok(wire::ListTasksReply {
                tasks: machine.tasks().all().cloned().collect(),
                cluster_time_ms: machine.totals().cluster_time_ms,
                paces: self.watch(term).pace.all(),
            })
        })
    }

    async fn task_of(&self, action: Action) -> Result<wire::Task, Failure> {
        match self.propose_asked(action).await? {
            Outcome::Task(task) => Ok(task),
            _ => Err(Failure::new(ErrorCode::Internal, "a task was answered with something else")),
        }
    }

    /// How fast all nodes together may move slots of a task with this limit; 0 for no limit.
    fn limit(&self, asked_bytes_per_s: u64) -> u64 {
        if asked_bytes_per_s > 0 {
            return asked_bytes_per_s;
        }
        let up = |node: &&placement::Node| node.health == placement::Health::Up;
        let nodes = self.node.replica().read(|machine, _| machine.map().nodes().values().filter(up).count());
        let nodes = u64::try_from(nodes).unwrap_or(u64::MAX);
        self.options.throttle.move_bytes_per_s.saturating_mul(nodes)
    }

    /// As disks have reported to this leader.
    fn fills(&self) -> Fills {
        let watch = self.watch(self.node.standing().term);
        let percent = self.options.fullness.backfill_full_percent;
        Fills {
            used: watch.liveness.used_bytes().collect(),
            full: watch.liveness.full_disks(percent).collect(),
            full_permille: u32::from(percent) * 10,
        }
    }
}
