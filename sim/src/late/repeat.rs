//! An old process: it waits for groups to come to a new epoch, and then says what belonged to the one before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use placement::{Group, relocate};
use proto::wire::command::Action;
use proto::wire::request::Call;
use proto::{Epoch, ErrorCode, GroupId, SlotIndex, wire};
use simhost::Stream;

use super::claims;
use super::ghost::Ghost;
use super::memory::Recorded;
use crate::cluster::Cluster;
use crate::nemesis;
use crate::oracle::{self, Metadata};
use crate::process::lock;
use crate::tap::rules::FENCING;
use crate::verdict::Kind;

/// Between two looks, in milliseconds.
const LOOK_MS: (u64, u64) = (20, 200);
/// Groups that are answered at one look, of those that have changed.
const GROUPS_MAX: usize = 4;
/// Requests that are sent again at one look, for each of them.
const REPEATS_MAX: usize = 4;
/// Claims for each of them.
const CLAIMS_MAX: usize = 6;
/// Looks at which something comes again though nothing has changed, in a million.
const IDLE_PPM: u32 = 100_000;
/// Looks at which a slot of a group moves of which something could come again, in a million.
const MOVES_PPM: u32 = 50_000;

/// An old process, until then or until all is calm.
pub(crate) async fn repeat(cluster: Arc<Cluster>, draws: Stream, until: Duration) {
    let Some(wire) = cluster.wire() else { return };
    let mut seen = 0;
    drop(wire.places(|places| places.changed_since(&mut seen)));
    while cluster.world.now() < until && !cluster.nemesis.is_calm() {
        cluster.world.sleep(Duration::from_millis(draws.between(LOOK_MS.0, LOOK_MS.1))).await;
        let changed = wire.places(|places| places.changed_since(&mut seen));
        let changed: BTreeSet<u32> = changed.into_iter().collect();
        if !changed.is_empty() {
            let mut some: Vec<u32> = changed.into_iter().collect();
            draws.shuffle(&mut some);
            some.truncate(GROUPS_MAX);
            answer(&cluster, &draws, &some).await;
        } else if draws.chance(IDLE_PPM) {
            let some = old(&cluster, &draws, None, 1);
            join_all(some.into_iter().map(|recorded| send(&cluster, recorded))).await;
        } else if draws.chance(MOVES_PPM) {
            let written = lock(&cluster.late.memory).written(&draws);
            if let Some(group) = written {
                nemesis::move_one(&cluster, &draws, GroupId(group)).await;
            }
        }
    }
}

/// Says all that belonged to epochs of before, at once.
async fn answer(cluster: &Cluster, draws: &Stream, changed: &[u32]) {
    let Some(metadata) = oracle::latest(cluster) else { return };
    let mut all: Vec<BoxFuture<'_, ()>> = Vec::new();
    for id in changed {
        let Some(group) = metadata.machine.map().groups().get(&GroupId(*id)) else { continue };
        let mut claims = claims::of_group(cluster, draws, &metadata, group);
        draws.shuffle(&mut claims);
        claims.truncate(CLAIMS_MAX);
        all.extend(claims.into_iter().map(|claim| claims::make(cluster, claim).boxed()));
        all.extend(old_move(draws, &metadata, group).map(|to| decide(cluster, to).boxed()));
        let repeats = old(cluster, draws, Some(*id), REPEATS_MAX);
        all.extend(repeats.into_iter().map(|recorded| send(cluster, recorded).boxed()));
    }
    drop(metadata);
    join_all(all).await;
}

fn old(cluster: &Cluster, draws: &Stream, group: Option<u32>, most: usize) -> Vec<Recorded> {
    let memory = lock(&cluster.late.memory);
    let of = |wire: Arc<crate::tap::Wire>| wire.places(|places| memory.old(draws, places, group, most));
    cluster.wire().map(of).unwrap_or_default()
}

/// Sends a request again. What must not be accepted is known where all requests pass.
async fn send(cluster: &Cluster, recorded: Recorded) {
    let Recorded { call, payload, to } = recorded;
    match call {
        Call::WriteShard(_) => {
            let nodes = cluster.nodes();
            let Some(node) = nodes.iter().find(|node| node.process.host().id() == to) else { return };
            cluster.world.probe("a write came again under an old epoch");
            let ghost = Ghost::of_tenant(cluster);
            drop(ghost.ask_node(cluster, node.id, call, payload).await);
        }
        Call::ReportWork(report) => {
            cluster.world.probe("a report of work came again under an old epoch");
            let ghost = Ghost::of_node(cluster, proto::NodeId(report.node));
            drop(ghost.ask_meta(cluster, Call::ReportWork(report)).await);
        }
        call => {
            cluster.world.probe("a command came again");
            drop(Ghost::of_tenant(cluster).ask_meta(cluster, call).await);
        }
    }
}

/// A move that fits the group as it is, but for the epoch: decided when the group was in the one before.
fn old_move(draws: &Stream, metadata: &Metadata, group: &Group) -> Option<wire::MoveSlot> {
    let mut slots: Vec<u8> = (0..u8::try_from(group.slots.len()).ok()?).collect();
    draws.shuffle(&mut slots);
    let map = metadata.machine.map();
    let to = slots.into_iter().find_map(|slot| relocate(map, group, SlotIndex(slot)).ok())?;
    let Epoch(epoch) = group.epoch;
    let epoch = epoch.checked_sub(1).filter(|epoch| *epoch > 0)?;
    Some(wire::MoveSlot {
        group: group.id.0,
        slot: u32::from(to.slot.0),
        epoch,
        to_disk: to.to.0,
        ..Default::default()
    })
}

/// Has the leader propose a move that was decided long ago.
async fn decide(cluster: &Cluster, to: wire::MoveSlot) {
    let proposed = cluster.propose(Action::MoveSlot(to)).await;
    match proposed {
        Some(Ok(_)) => {
            let text = format!("the metadata service made a move that was decided in an older epoch: {to:?}");
            cluster.findings.report(&cluster.world, Kind::Correctness, FENCING, text);
        }
        Some(Err(failure)) if failure.code == ErrorCode::StaleEpoch => {
            cluster.world.probe("a move came too late");
        }
        _ => {}
    }
}
