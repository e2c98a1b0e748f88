//! What operators do while all this goes on, and how they insist.
//!
//! What an operator began is finished, whatever fails meanwhile: a command is repeated until it succeeds,
//! as the commands' contract allows. The calm waits for it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use client::Admin;
use proto::MetaId;
use simhost::SimEnv;

use super::ailments;
use super::metas::{self, Change};
use super::strike::{Outcome, Strike};
use super::victims;
use crate::cluster::Cluster;
use crate::plan::NodePlan;

/// Between two attempts.
const RETRY: Duration = Duration::from_secs(1);
/// Nodes that are added in a run, at most.
const NODES_ADDED_MAX: usize = 4;

/// While it lives, an operator is busy.
struct Busy(Arc<Cluster>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.nemesis.operators.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An operator does something, until it is done.
pub(super) fn operate(cluster: &Arc<Cluster>, work: impl Future<Output = ()> + Send + 'static) {
    cluster.nemesis.operators.fetch_add(1, Ordering::Relaxed);
    let busy = Busy(cluster.clone());
    cluster.world.spawn("operator", async move {
        work.await;
        drop(busy);
    });
}

/// Repeats a command until it succeeds. `what` is for the story.
pub(super) async fn insist<F, W>(cluster: &Arc<Cluster>, what: &str, command: W)
where
    W: Fn(Admin<SimEnv>) -> F,
    F: Future<Output = Result<(), client::Error>>,
{
    loop {
        let done = match cluster.admin().await {
            Ok(admin) => command(admin).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => {
                cluster.world.event(None, "operator", &[], || format!("{what}: done"));
                return;
            }
            Err(error) => cluster.world.tell(None, || format!("operator {what}: {error}; tries again")),
        }
        cluster.world.sleep(RETRY).await;
    }
}

/// A node is added, in a rack that exists or in a new one.
pub(super) fn add_node(strike: &Strike<'_>) -> Outcome {
    let cluster = strike.cluster;
    if cluster.nodes().len() >= cluster.plan.nodes() + NODES_ADDED_MAX {
        return Outcome::Refused("there are enough nodes".to_owned());
    }
    let mut racks = victims::racks(cluster);
    racks.push(racks.last().map_or(1, |last| last + 1));
    let Some(rack) = strike.pick(&racks) else { return Outcome::Nobody };
    let plan = NodePlan::draw(&strike.draws, 1, cluster.plan.disk_bytes_min);
    let outcome = strike.hits(None, || format!("a node in rack {rack}: {plan:?}"));
    cluster.add_node(rack, &plan);
    ailments::weather(cluster);
    outcome
}

/// A metadata server that is well is replaced by a new one: added before the other is removed, or after.
pub(super) fn swap_meta(strike: &Strike<'_>) -> Outcome {
    let old = match metas::choose(strike) {
        Ok(old) => old,
        Err(outcome) => return outcome,
    };
    let only = metas::voters(strike.cluster).len() == 1;
    let change = if only || strike.draws.chance(500_000) { Change::AddFirst } else { Change::RemoveFirst };
    let outcome = strike.hits(Some(old.process.host()), || format!("replaced by another: {change:?}"));
    metas::replace(strike.cluster, &old, change);
    outcome
}

/// Another metadata server shall lead.
pub(super) fn transfer_leader(strike: &Strike<'_>) -> Outcome {
    let voters: Vec<MetaId> = metas::voters(strike.cluster).into_iter().collect();
    let Some(to) = strike.pick(&voters) else { return Outcome::Nobody };
    let outcome = strike.hits(None, || format!("meta-{to} shall lead"));
    let cluster = strike.cluster.clone();
    // Asked once: whether it comes to that does not matter.
    operate(strike.cluster, async move {
        let asked = match cluster.admin().await {
            Ok(admin) => admin.transfer_leader(to).await,
            Err(error) => Err(error),
        };
        cluster.world.tell(None, || format!("operator asked meta-{to} to lead: {asked:?}"));
    });
    outcome
}
