//! Slots that move though nothing is wrong.
//!
//! The leader moves slots off disks that stay away, and back to legal places. Here it is made to move some
//! off a disk that is well, under load, so that epochs change while somebody writes. Each such move is legal,
//! keeps the former disk as the source, and gives up nothing.

use placement::{Health, SlotState, relocate};
use proto::wire::command::Action;
use proto::{DiskId, SlotIndex, wire};

use super::operators::operate;
use super::strike::{Outcome, Strike};
use crate::oracle;

/// Slots of one disk that move at once, at most.
const SLOTS_MAX: u64 = 12;

/// Some or all slots of a disk move elsewhere.
pub(super) fn move_slots(strike: &Strike<'_>) -> Outcome {
    let Some(metadata) = oracle::latest(strike.cluster) else { return Outcome::Nobody };
    let map = metadata.machine.map();
    let is_used = |disk: &DiskId| map.disk_health(*disk) == Health::Up && map.slots_on(*disk) > 0;
    let used: Vec<DiskId> = map.disks().keys().copied().filter(is_used).collect();
    let Some(disk) = strike.pick(&used) else { return Outcome::Nobody };
    let moves = map.groups_on(disk).filter_map(|group| {
        let place =
            group.slots.iter().position(|slot| slot.disk == disk && slot.state == SlotState::Whole)?;
        let to = relocate(map, group, SlotIndex(u8::try_from(place).ok()?)).ok()?;
        let (group, epoch) = (group.id.0, group.epoch.0);
        Some(wire::MoveSlot { group, slot: u32::from(to.slot.0), epoch, to_disk: to.to.0 })
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
            // Proposed once: if the group has changed meanwhile, it stays where it is.
            let done = cluster.propose(Action::MoveSlot(to)).await;
            cluster.world.tell(None, || format!("{to:?}: {done:?}"));
        }
    });
    outcome
}
