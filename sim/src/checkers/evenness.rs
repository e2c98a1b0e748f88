//! A rebalance of a cluster that is left alone does what its plan says: not many more bytes move, and afterwards
//! there is nothing left to plan.

use std::sync::Arc;
use std::time::Duration;

use proto::wire;
use proto::wire::TaskKind;
use proto::wire::TaskState;
use proto::wire::request::Call;
use proto::wire::response::Result as Reply;

use super::tasks::state_of;
use crate::cluster::Cluster;
use crate::nemesis::{FaultClass, ask};
use crate::oracle;
use crate::verdict::Kind;

/// See [`super::TABLE`].
pub(super) const NAME: &str = "evenness";

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// It has ended within this time.
const LIMIT: Duration = Duration::from_secs(600);
/// So much of the plan may move, in percent, …
const MARGIN_PERCENT: u64 = 110;
/// … and so many slots more: the order may be another.
const SLOTS_MORE: u64 = 2;

/// Rebalances, if the plan of the run has people do such things.
pub(super) async fn check(cluster: &Arc<Cluster>) {
    if cluster.plan.beyond
        || !cluster.plan.faults.contains_key(&FaultClass::Rebalance)
        || !cluster.findings.is_empty()
    {
        return;
    }
    if let Err(text) = rebalance(cluster).await {
        cluster.findings.report(&cluster.world, Kind::Liveness, NAME, text);
    }
}

async fn rebalance(cluster: &Arc<Cluster>) -> Result<(), String> {
    let plan = plan(cluster).await?;
    let slot_bytes_max = oracle::latest(cluster).map_or(0, |latest| {
        let groups = latest.machine.map().groups().keys();
        groups.map(|group| latest.machine.slot_bytes(*group)).max().unwrap_or(0)
    });
    let begun = ask(cluster, Call::BeginTask(begin(cluster, false))).await;
    let Some(Reply::BeginTask(wire::BeginTaskReply { task: Some(task), .. })) = begun else {
        return Err(format!("a rebalance could not be begun: {begun:?}"));
    };
    let task = ended(cluster, task.id).await?;
    if task.state() != TaskState::Done {
        return Err(format!("it ended as {task:?}"));
    }
    cluster.world.probe("a cluster that was left alone was made even");
    if task.slots_done > 0 {
        cluster.world.probe("slots moved to make it even");
    }
    let bytes_max = plan.bytes.saturating_mul(MARGIN_PERCENT) / 100;
    let bytes_max = bytes_max.saturating_add(slot_bytes_max.saturating_mul(SLOTS_MORE));
    if task.bytes_done > bytes_max {
        return Err(format!("it moved {} bytes, at most {bytes_max} by {plan:?}: {task:?}", task.bytes_done));
    }
    let left = self::plan(cluster).await?;
    if left.slots > 0 {
        return Err(format!("it is done, and there is more to plan: {left:?}; {task:?}, by {plan:?}"));
    }
    Ok(())
}

/// What it would move now.
async fn plan(cluster: &Arc<Cluster>) -> Result<wire::TaskPlan, String> {
    match ask(cluster, Call::BeginTask(begin(cluster, true))).await {
        Some(Reply::BeginTask(wire::BeginTaskReply { plan: Some(plan), task: None })) => Ok(plan),
        other => Err(format!("a dry run was answered with {other:?}")),
    }
}

fn begin(cluster: &Cluster, dry_run: bool) -> wire::BeginTask {
    let now = oracle::latest(cluster).map(|latest| latest.machine.cluster_time()).unwrap_or_default();
    let id = proto::CommandId::new(now, u128::from(cluster.world.stream("evenness").u64()));
    let kind = TaskKind::Rebalance.into();
    wire::BeginTask { kind, dry_run, command_id: id.to_wire(), ..Default::default() }
}

async fn ended(cluster: &Cluster, id: u32) -> Result<wire::Task, String> {
    let deadline = cluster.world.now() + LIMIT;
    loop {
        let known = oracle::latest(cluster).and_then(|latest| state_of(&latest.machine, id));
        match known {
            Some((TaskState::Running | TaskState::Paused, task)) if cluster.world.now() > deadline => {
                return Err(format!("{} s after its beginning it goes on: {task:?}", LIMIT.as_secs()));
            }
            None if cluster.world.now() > deadline => return Err("nobody knows it".to_owned()),
            None | Some((TaskState::Running | TaskState::Paused, _)) => cluster.world.sleep(LOOK).await,
            Some((_, task)) => return Ok(task),
        }
    }
}
