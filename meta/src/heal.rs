//! What to repair next, as far as somebody has to decide it.
//!
//! Extents to fill, slots to rebuild and shards to drop need no decision: nodes read them off the tables
//! ([`take_work`](crate::state::take::take_work)). Left to decide are moves: slots on disks that stay away
//! go to other disks ([`replace`]), slots leave disks that somebody wants empty ([`drain`]), slots that miss what
//! their disk has no room for leave it ([`relieve`]), groups that were formed below their policy go back to legal
//! places, one slot at a time, once these are there, and full disks give slots to empty ones ([`even`]). Then what
//! tasks are over, and which disks are not to be relied on ([`judge`]). Each round is bounded, looks at the state and at what the leader knows of disks
//! ([`Ailing`]), and goes on where the round before ended; a leader that forgets where it was begins
//! again, without harm.

mod drain;
mod even;
mod judge;
mod relieve;
mod replace;

use std::collections::BTreeSet;
use std::ops::Bound;

use env::{KvRead, StorageError};
use placement::{Group, Health, Legalize, Move, SlotState, legalize_except};
use proto::{DiskId, GroupId, Timestamp, wire};
use wire::command::Action;

use drain::Drainer;
use even::Evener;
use relieve::Reliever;
use replace::Replacer;

use crate::state::take::can_be_made;
use crate::state::{Machine, leftover_disks};

/// Moves of one round.
const MOVES_MAX: usize = 16;
/// Groups that one round looks at.
const GROUPS_MAX: usize = 256;
/// Slots that may be rebuilding in the whole cluster before more are moved.
const REBUILDING_MAX: usize = 256;

/// Remembers where the last round ended.
#[derive(Clone, Debug, Default)]
pub struct Healer {
    after: Option<GroupId>,
    replacer: Replacer,
    drainer: Drainer,
    reliever: Reliever,
    evener: Evener,
}

/// What the leader knows of disks that the state does not tell: it is by reports, and by its own clock.
#[derive(Clone, Debug, Default)]
pub struct Ailing {
    /// Given up for now: they have been down for long.
    pub out: BTreeSet<DiskId>,
    /// Full: no slot goes there.
    pub full: BTreeSet<DiskId>,
    /// Disks without room for what they should make again, and for which groups.
    pub without_room: BTreeSet<(DiskId, GroupId)>,
    /// The part of the disks, percent, beyond which the cluster gives up none of its own accord.
    pub share_max_percent: u8,
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
        ailing: &Ailing,
    ) -> Result<Vec<Action>, StorageError> {
        let mut actions = Vec::new();
        if machine.has_expired_commands(now) {
            actions.push(Action::Tick(wire::Tick {}));
        }
        actions.extend(judge::verdicts(machine, now, ailing));
        let ailing = &judge::with_given_up(machine, ailing);
        let room = room(machine, &ailing.out);
        if room == 0 {
            return Ok(actions);
        }
        let mut moves = self.replacer.next(machine, kv, ailing, room)?;
        let left = room.saturating_sub(moves.len());
        moves.extend(self.drainer.next(machine, kv, ailing, &groups_of(&moves), left)?);
        let left = room.saturating_sub(moves.len());
        moves.extend(self.reliever.next(machine, kv, ailing, &groups_of(&moves), left)?);
        for group in self.look_at(machine) {
            if moves.len() >= room {
                break;
            }
            self.after = Some(group.id);
            if moves.iter().all(|to| to.group != group.id.0) {
                moves.extend(next_move(machine, kv, ailing, group)?);
            }
        }
        let left = room.saturating_sub(moves.len());
        let (evening, end) = self.evener.next(machine, kv, ailing, &groups_of(&moves), left)?;
        actions.extend(moves.into_iter().chain(evening).map(Action::MoveSlot));
        actions.extend(end.map(Action::EndTask));
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

/// How many moves this round may propose. Slots that are being filled on a disk that is out are not being
/// filled: they must not keep others, and themselves, from moving.
fn room(machine: &Machine, out: &BTreeSet<DiskId>) -> usize {
    let stranded: usize = out.iter().map(|disk| machine.work().rebuilds(*disk).count()).sum();
    let rebuilding = machine.slots_rebuilding().saturating_sub(stranded);
    REBUILDING_MAX.saturating_sub(rebuilding).min(MOVES_MAX)
}

fn groups_of(moves: &[wire::MoveSlot]) -> BTreeSet<u32> {
    moves.iter().map(|to| to.group).collect()
}

/// The move that brings a group closer to its policy, if one can be made now.
fn next_move(
    machine: &Machine,
    kv: &impl KvRead,
    ailing: &Ailing,
    group: &Group,
) -> Result<Option<wire::MoveSlot>, StorageError> {
    if group.slots.iter().any(|slot| slot.state != SlotState::Whole) {
        return Ok(None);
    }
    let barred = barred(kv, ailing, group)?;
    let Legalize::Move(to) = legalize_except(machine.map(), group, &barred) else { return Ok(None) };
    // Off a disk that is down nothing can be copied.
    if machine.map().disk_health(to.from) == Health::Down && !can_be_made(machine, kv, group)? {
        return Ok(None);
    }
    Ok(Some(move_slot(group, to)))
}

/// Disks that can take no slot of the group now: those that are full, and those that still have to drop what
/// they kept of it. These drop it only once the slot is whole, which would wait for the disk.
fn barred(kv: &impl KvRead, ailing: &Ailing, group: &Group) -> Result<Vec<DiskId>, StorageError> {
    Ok(leftover_disks(kv, group.id)?.into_iter().chain(ailing.full.iter().copied()).collect())
}

fn move_slot(group: &Group, to: Move) -> wire::MoveSlot {
    wire::MoveSlot {
        group: group.id.0,
        slot: u32::from(to.slot.0),
        epoch: group.epoch.0,
        to_disk: to.to.0,
        task: 0,
    }
}
