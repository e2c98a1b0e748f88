//! Slots that move though nothing is wrong.
//!
//! The leader moves slots off disks that stay away, and back to legal places. Here it is made to move some
//! off a disk that is well, under load, so that epochs change while somebody writes. Each such move is legal,
//! keeps the former disk as the source, and gives up nothing.

use std::time::Duration;

use placement::{ClusterMap, Group, Health, SlotState, relocate};
use proto::wire::command::Action;
use proto::{DiskId, GroupId, SlotIndex, wire};
use simhost::Stream;

use super::operators::operate;
use super::strike::{Outcome, Strike};
use crate::cluster::Cluster;
use crate::oracle;

/// Slots of one disk that move at once, at most.
const SLOTS_MAX: u64 = 12;
/// How often a move is proposed that nobody answers.
const ATTEMPTS: u32 = 20;
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(250);

/// Some or all slots of a disk move elsewhere.
pub(super) fn move_slots(strike: &Strike<'_>) -> Outcome {
    let Some(metadata) = oracle::latest(strike.cluster) else { return Outcome::Nobody };
    let map = metadata.machine.map();
    let is_used = |disk: &DiskId| map.disk_health(*disk) == Health::Up && map.slots_on(*disk) > 0;
    let used: Vec<DiskId> = map.disks().keys().copied().filter(is_used).collect();
    let Some(disk) = strike.pick(&used) else { return Outcome::Nobody };
    let moves = map.groups_on(disk).filter_map(|group| {
        let place = group.slots.iter().position(|slot| slot.disk == disk)?;
        move_of(map, group, SlotIndex(u8::try_from(place).ok()?))
    });
    let mut moves: Vec<wire::MoveSlot> = moves.collect();
    if moves.is_empty() {
        return Outcome::Nobody;
    }
    strike.draws.shuffle(&mut moves);
    moves.truncate(usize::try_from(strike.draws.between(1, SLOTS_MAX)).unwrap_or(1));
    let outcome = strike.hits(None, || format!("{} slots leave disk {disk}", moves.len()));
    let cluster = strike.cluster.clone();
    operate(strike.cluster, async move {
        for to in moves {
            decide(&cluster, to).await;
        }
    });
    outcome
}

/// A slot of the group moves elsewhere, if one can.
pub(crate) async fn move_one(cluster: &Cluster, draws: &Stream, group: GroupId) {
    let to = oracle::latest(cluster).and_then(|metadata| {
        let map = metadata.machine.map();
        let group = map.groups().get(&group)?;
        let mut slots: Vec<u8> = (0..u8::try_from(group.slots.len()).ok()?).collect();
        draws.shuffle(&mut slots);
        slots.into_iter().find_map(|slot| move_of(map, group, SlotIndex(slot)))
    });
    if let Some(to) = to {
        decide(cluster, to).await;
    }
}

/// Where a slot that is whole on a disk that is well may go.
fn move_of(map: &ClusterMap, group: &Group, slot: SlotIndex) -> Option<wire::MoveSlot> {
    let at = group.slot(slot).ok()?;
    if at.state != SlotState::Whole || map.disk_health(at.disk) != Health::Up {
        return None;
    }
    let to = relocate(map, group, slot).ok()?;
    let (group, epoch) = (group.id.0, group.epoch.0);
    Some(wire::MoveSlot { group, slot: u32::from(to.slot.0), epoch, to_disk: to.to.0, ..Default::default() })
}

/// Has the leader decide a move. If the group has changed meanwhile, it stays where it is.
async fn decide(cluster: &Cluster, to: wire::MoveSlot) {
    for _ in 0..ATTEMPTS {
        if cluster.nemesis.is_calm() {
            return;
        }
        if let Some(done) = cluster.propose(Action::MoveSlot(to)).await {
            cluster.world.tell(None, || format!("{to:?}: {done:?}"));
            return;
        }
        cluster.world.sleep(RETRY).await;
    }
}
