//! What to repair next, as far as somebody has to decide it.
//!
//! Extents to fill, slots to rebuild and shards to drop need no decision: nodes read them off the tables
//! ([`take_work`](crate::state::take::take_work)). Left to decide are moves: groups that were formed
//! below their policy go back to legal places, one slot at a time, once these are there. Each round is
//! bounded, looks at the state alone, and goes on where the round before ended; a leader that forgets
//! where it was begins again, without harm.

use std::ops::Bound;

use env::{KvRead, StorageError};
use placement::{Group, Legalize, SlotState, legalize};
use proto::{GroupId, Timestamp, wire};
use wire::command::Action;

use crate::state::{Machine, leftover_disks};

/// Moves of one round.
const MOVES_MAX: usize = 16;
/// Groups that one round looks at.
const GROUPS_MAX: usize = 256;
/// Slots that may be rebuilding in the whole cluster before more are moved by choice.
const REBUILDING_MAX: usize = 256;

/// Remembers where the last round ended.
#[derive(Clone, Debug, Default)]
pub struct Healer {
    after: Option<GroupId>,
}

impl Healer {
    /// Begins with the first group.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next commands to propose; to be asked again once they are applied. `now` is the leader's
    /// clock. Refusals of what this proposed are no news: the state has changed meanwhile.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub fn next(
        &mut self,
        machine: &Machine,
        kv: &impl KvRead,
        now: Timestamp,
    ) -> Result<Vec<Action>, StorageError> {
        let mut actions = Vec::new();
        if machine.has_expired_commands(now) {
            actions.push(Action::Tick(wire::Tick {}));
        }
        let room = REBUILDING_MAX.saturating_sub(machine.slots_rebuilding()).min(MOVES_MAX);
        let mut moves = 0;
        for group in self.look_at(machine) {
            if moves >= room {
                break;
            }
            self.after = Some(group.id);
            if let Some(to) = next_move(machine, kv, group)? {
                actions.push(Action::MoveSlot(to));
                moves += 1;
            }
        }
        Ok(actions)
    }

    /// Groups below policy behind the last one, and around.
    fn look_at<'a>(&self, machine: &'a Machine) -> Vec<&'a Group> {
        let below = machine.groups_below_policy();
        let behind = self.after.map_or(Bound::Unbounded, Bound::Excluded);
        let before = self.after.map_or(Bound::Excluded(GroupId(0)), Bound::Included);
        let ids = below.range((behind, Bound::Unbounded)).chain(below.range((Bound::Unbounded, before)));
        ids.take(GROUPS_MAX).filter_map(|id| machine.map().groups().get(id)).collect()
    }
}

/// The move that brings a group closer to its policy, if one can be made now.
fn next_move(
    machine: &Machine,
    kv: &impl KvRead,
    group: &Group,
) -> Result<Option<wire::MoveSlot>, StorageError> {
    if group.slots.iter().any(|slot| slot.state != SlotState::Whole) {
        return Ok(None);
    }
    let Legalize::Move(to) = legalize(machine.map(), group) else { return Ok(None) };
    if leftover_disks(kv, group.id)?.contains(&to.to) {
        return Ok(None);
    }
    Ok(Some(wire::MoveSlot {
        group: group.id.0,
        slot: u32::from(to.slot.0),
        epoch: group.epoch.0,
        to_disk: to.to.0,
    }))
}
