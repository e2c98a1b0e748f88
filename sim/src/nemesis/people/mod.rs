//! People who look after disks: they empty some and bring others back, give up what fails, put new ones in, even
//! out, and change their mind, in the middle of all that goes wrong.
//!
//! What they ask for is what the service takes from anybody: whether it can be done it has to know itself. None of
//! this loses anything: a disk leaves its machine only once the metadata say that nobody needs it, or when it was lost before.
//! In the calm they resume or cancel what they paused, lift small limits, and give up what is lost
//! ([`conclude`]); what runs then has to end.

mod begin;
mod conclude;
mod leave;
mod order;

use std::sync::Arc;

use meta::state::Machine;
use placement::Duty;
use proto::wire::request::Call;
use proto::wire::response::Result as Reply;
use proto::{DiskId, wire};

use super::operators::operate;
use super::strike::{Outcome, Strike};
use super::victims::DiskAt;
use crate::cluster::Cluster;
use crate::oracle;

pub(super) use begin::{drain, fail_disk, rebalance, set_task, undrain};
pub(super) use conclude::conclude;
pub(super) use leave::{replace_disk, retire_node};

/// Limits of tasks, in bytes per second; 0 for the default.
const LIMITS: [u64; 6] = [0, 0, 0, 64 << 10, 1 << 20, 16 << 20];
/// Disks of the map of which so many are in service, percent, before people give up another one.
const IN_SERVICE_MIN_PERCENT: usize = 70;

fn limit(strike: &Strike<'_>) -> u64 {
    strike.pick(&LIMITS).unwrap_or(0)
}

/// Begins a task, whatever comes of it.
fn begin(strike: &Strike<'_>, what: &str, begin: wire::BeginTask) -> Outcome {
    let outcome = strike.hits(None, || format!("{what}: {begin:?}"));
    let (cluster, draws) = (strike.cluster.clone(), strike.draws.fork("order"));
    operate(strike.cluster, async move {
        let make = |command_id| Call::BeginTask(wire::BeginTask { command_id, ..begin });
        order::order(&cluster, &draws, false, make).await;
    });
    outcome
}

/// Disks of this duty, or of another one when `is_not`.
fn disks_in(machine: &Machine, is_wanted: impl Fn(Duty) -> bool) -> Vec<DiskId> {
    machine.map().disks().values().filter(|disk| is_wanted(disk.duty)).map(|disk| disk.id).collect()
}

/// Would enough disks be left if one more went?
fn may_give_up(machine: &Machine) -> Result<(), Outcome> {
    let map = machine.map();
    let known = map.disks().values().filter(|disk| disk.duty != Duty::Retired).count();
    let left = map.disks().values().filter(|disk| map.is_usable(disk)).count().saturating_sub(1);
    if left.saturating_mul(100) < known.saturating_mul(IN_SERVICE_MIN_PERCENT) {
        return Err(Outcome::Refused(format!("{left} of {known} disks would be left in service")));
    }
    Ok(())
}

/// The machine and the place of a disk, if it is there.
fn place_of(cluster: &Cluster, machine: &Machine, disk: DiskId) -> Option<DiskAt> {
    let uuid = machine.map().disks().get(&disk)?.uuid;
    let disks = oracle::disks(cluster);
    let there = disks.by_uuid.get(&uuid)?;
    let node = cluster.nodes().into_iter().find(|node| node.id == there.node)?;
    Some(DiskAt { host: node.process.host().clone(), node: node.id, path: there.path.clone() })
}

/// Asks the leader as an operator, once. None when nobody answers.
pub(crate) async fn ask(cluster: &Arc<Cluster>, call: Call) -> Option<Reply> {
    order::ask(cluster, call).await.ok()
}
