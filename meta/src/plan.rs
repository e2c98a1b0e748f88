//! What a task would do to the cluster as it is: asked before it begins.

use std::collections::{BTreeMap, BTreeSet};

use placement::{CannotLeave, DiskFill, Goal, Imbalance, Rebalance, can_leave};
use proto::{DiskId, Failure, GroupId, wire};

use crate::options::Fullness;
use crate::state::begin::{Found, Leave, Wish};
use crate::state::{Error, Machine};

/// What disks report of themselves.
#[derive(Clone, Debug)]
pub struct Fills {
    /// Bytes on each disk; one that has not reported is left out.
    pub used: BTreeMap<DiskId, u64>,
    /// Disks that take nothing.
    pub full: BTreeSet<DiskId>,
    /// No disk is filled above this by slots that leave others, in thousandths of its size.
    pub full_permille: u32,
}

impl Default for Fills {
    fn default() -> Self {
        let full_permille = u32::from(Fullness::default().backfill_full_percent) * 10;
        Self { used: BTreeMap::new(), full: BTreeSet::new(), full_permille }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// What there is of it already.
    pub found: Found,
    /// None when it runs already.
    pub plan: Option<wire::TaskPlan>,
    /// Why it should not begin: a drain that cannot end.
    pub refused: Option<Failure>,
}

/// Plans what the request asks for. Looks at each slot that would move, for a rebalance at all slots.
///
/// # Errors
///
/// Those of [`Machine::look_at_wish`].
pub fn plan(machine: &Machine, begin: &wire::BeginTask, fills: &Fills) -> Result<Planned, Error> {
    let (wish, found) = machine.look_at_wish(begin)?;
    let (plan, refused) = match (wish, &found) {
        (_, Found::Runs(_)) => (None, None),
        (Wish::Rebalance, _) => (Some(plan_rebalance(machine, fills)), None),
        (_, Found::TakesOver(task)) => {
            let disks = machine.tasks().get(*task).map(|task| task.disks.clone()).unwrap_or_default();
            let disks = disks.into_iter().map(DiskId).collect();
            (Some(plan_leave(machine, &disks, fills).0), None)
        }
        (_, Found::New(disks)) => {
            let (plan, shortage) = plan_leave(machine, &disks.iter().copied().collect(), fills);
            // A disk that has failed has failed, wherever its slots may go.
            let may_wait = matches!(wish, Wish::LeaveDisk(_, Leave::Fail | Leave::Replace(_)));
            (Some(plan), shortage.filter(|_| !may_wait).map(Failure::from))
        }
    };
    Ok(Planned { found, plan, refused })
}

fn plan_leave(
    machine: &Machine,
    disks: &BTreeSet<DiskId>,
    fills: &Fills,
) -> (wire::TaskPlan, Option<CannotLeave>) {
    let bytes = |group: GroupId| machine.slot_bytes(group);
    match can_leave(machine.map(), disks, &bytes, &fills.used, fills.full_permille) {
        Ok(plan) => {
            let (fullest_disk, fullest_permille) = to_numbers(plan.fullest);
            let (slots, bytes) = (plan.slots, plan.bytes);
            (wire::TaskPlan { slots, bytes, fullest_disk, fullest_permille, ..Default::default() }, None)
        }
        Err(error) => {
            let disks: Vec<DiskId> = disks.iter().copied().collect();
            let (slots, bytes) = machine.slots_and_bytes(&disks);
            let shortage = error.to_string();
            (wire::TaskPlan { slots, bytes, shortage, ..Default::default() }, Some(error))
        }
    }
}

fn plan_rebalance(machine: &Machine, fills: &Fills) -> wire::TaskPlan {
    let bytes = |group: GroupId| machine.slot_bytes(group);
    let question =
        Rebalance { map: machine.map(), bytes: &bytes, barred: &fills.full, goal: Goal::default() };
    let plan = question.plan();
    let (fullest_disk, fullest_permille) = to_numbers(plan.after.fullest);
    wire::TaskPlan {
        slots: u64::try_from(plan.moves.len()).unwrap_or(u64::MAX),
        bytes: plan.bytes,
        fullest_disk,
        fullest_permille,
        shortage: String::new(),
        before: Some(to_message(&plan.before)),
        after: Some(to_message(&plan.after)),
        stuck: plan.stuck.map(|stuck| stuck.to_string()).unwrap_or_default(),
        limit_bytes_per_s: 0,
    }
}

fn to_message(imbalance: &Imbalance) -> wire::Imbalance {
    let (fullest_disk, fullest_permille) = to_numbers(imbalance.fullest);
    let (emptiest_disk, emptiest_permille) = to_numbers(imbalance.emptiest);
    wire::Imbalance {
        mean_permille: imbalance.mean_permille,
        fullest_disk,
        fullest_permille,
        emptiest_disk,
        emptiest_permille,
    }
}

fn to_numbers(fill: Option<DiskFill>) -> (u32, u32) {
    fill.map_or((0, 0), |fill| (fill.disk.0, fill.permille))
}
