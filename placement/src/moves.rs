//! Moving one slot of a group: toward the policy, off a disk, and what becomes of the group.

use proto::{DiskId, Epoch, InvalidInput, SlotIndex};
use serde::Serialize;

use crate::check::{Violation, check_disks, check_group, excess};
use crate::create::legal_rule;
use crate::group::{Group, Slot, SlotState, slot_index};
use crate::hash::{Purpose, rank};
use crate::map::ClusterMap;
use crate::pool::{Pool, Rule, disk_load};
use crate::profile::Profile;
use crate::reject::{NoLegalPlace, Rejected, Shortage};
use crate::topology::{Duty, Health};

/// One slot goes from a disk to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Move {
    /// The slot.
    pub slot: SlotIndex,
    /// The disk that it leaves.
    pub from: DiskId,
    /// The disk that takes it.
    pub to: DiskId,
}

/// What [`legalize`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Legalize {
    /// The group keeps the policy.
    Legal,
    /// This move brings it one step closer.
    Move(Move),
    /// It breaks the policy, and no move helps now.
    Stuck {
        /// The rules that it breaks.
        violations: Vec<Violation>,
        /// The disks, and why none helps.
        rejected: Rejected,
    },
}

/// The next move that brings `group` closer to its policy. Applied again and again (each moved slot
/// being rebuilt before it moves once more) this ends in a legal group whenever the healthy disks allow
/// one, after as many moves as there were slots too many: never more than `k + m`.
pub fn legalize(map: &ClusterMap, group: &Group) -> Legalize {
    legalize_except(map, group, &[])
}

/// [`legalize`], but not to the disks `barred`, such as those that are full.
pub fn legalize_except(map: &ClusterMap, group: &Group, barred: &[DiskId]) -> Legalize {
    let leaving = |from| {
        let mut leaving = leaving(group, from);
        leaving.extend(barred);
        leaving
    };
    let stuck = |violations, profile: Option<&Profile>| {
        let rejected = profile.map(|profile| {
            let slots: Vec<DiskId> = group.slots.iter().map(|slot| slot.disk).collect();
            Rejected::collect(map, profile, &slots, &leaving(None), &[])
        });
        Legalize::Stuck { violations, rejected: rejected.unwrap_or_default() }
    };
    let Some(profile) = map.profiles().get(&group.profile) else { return stuck(Vec::new(), None) };
    let Err(violations) = check_group(map, profile, &group.slots) else { return Legalize::Legal };
    let mut pool = Pool::new(map, profile.id());
    for slot in movers(map, &pool, group, &violations) {
        let Some(from) = group.slots.get(usize::from(slot.0)).map(|slot| slot.disk) else { continue };
        let (others, leaving) = (others(group, slot), leaving(Some(from)));
        let mut draft = pool.draft(group.id, &others, &leaving);
        if let Some(to) = pool.pick(&mut draft, legal_rule(profile)) {
            return Legalize::Move(Move { slot, from, to });
        }
    }
    stuck(violations, Some(profile))
}

/// Where `slot` goes when its disk is to be left: drained, or down for good.
///
/// To a legal place; for a group below policy, if there is none, to another disk of the same failure
/// domain, which makes it no worse. A slot whose new disk is down while its source is not goes back to
/// the source: that disk has all older shards, and giving it up would give up a whole slot.
///
/// # Errors
///
/// When no disk can take it, the slot is still being filled on a disk that is not down, the group has no
/// such slot, or its profile is unknown.
pub fn relocate(map: &ClusterMap, group: &Group, slot: SlotIndex) -> Result<Move, RelocateError> {
    relocate_except(map, group, slot, &[])
}

/// [`relocate`], but not to the disks `barred`, such as those that still keep an older copy of the slot.
///
/// # Errors
///
/// Those of [`relocate`].
pub fn relocate_except(
    map: &ClusterMap,
    group: &Group,
    slot: SlotIndex,
    barred: &[DiskId],
) -> Result<Move, RelocateError> {
    let Some(profile) = map.profiles().get(&group.profile) else {
        let text = format!("group {}: its profile {} is unknown", group.id, group.profile);
        return Err(InvalidInput::new(text).into());
    };
    let current = group.slot(slot)?;
    let from = current.disk;
    if current.state != SlotState::Whole && map.disk_health(from) != Health::Down {
        return Err(still_filling(from).into());
    }
    if let Some(to) = way_back(map, current) {
        return Ok(Move { slot, from, to });
    }
    let (others, mut leaving) = (others(group, slot), leaving(group, Some(from)));
    leaving.extend(barred);
    let mut pool = Pool::new(map, profile.id());
    let legal = legal_rule(profile);
    let same_domain = Rule { beside: Some(from), ..legal };
    for rule in [legal, same_domain] {
        let mut draft = pool.draft(group.id, &others, &leaving);
        if let Some(to) = pool.pick(&mut draft, rule) {
            return Ok(Move { slot, from, to });
        }
    }
    let rejected = Rejected::collect(map, profile, &others, &leaving, &[]);
    Err(NoLegalPlace::new(profile, Shortage::Slot(slot), rejected).into())
}

/// Why [`relocate`] has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelocateError {
    /// No disk can take the slot: add one, or wait for one to return.
    #[error(transparent)]
    NoLegalPlace(#[from] NoLegalPlace),
    /// The question does not fit the map.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
}

/// The group after `slot` has moved to disk `to`: the epoch is one higher, the slot is rebuilding since
/// then, from its former disk if that is not down, and `below_policy` is as the validator finds. Its task stays
/// what it was.
///
/// # Errors
///
/// The one gate for every move, so it refuses: an unknown group profile, slot or disk; a disk that is not
/// up, not in service or that the group uses; a slot that is still rebuilding, unless its disk is down; giving up a source
/// that is not down, except for the source itself; and a move that adds a violation of the policy.
pub fn apply_move(
    map: &ClusterMap,
    group: &Group,
    slot: SlotIndex,
    to: DiskId,
) -> Result<Group, InvalidInput> {
    let bad = |rule: String| InvalidInput::new(format!("group {}, slot {slot}: {rule}", group.id));
    let profile = map.profiles().get(&group.profile);
    let profile = profile.ok_or_else(|| bad(format!("profile {} is unknown", group.profile)))?;
    let current = *group.slot(slot)?;
    let epoch = group.epoch.0.checked_add(1).map(Epoch).ok_or_else(|| bad("epochs are used up".into()))?;
    let back = current.source() == Some(to);
    check_target(map, group, slot, to).map_err(bad)?;
    check_leaves(map, &current, to).map_err(bad)?;

    let disks_before: Vec<DiskId> = group.slots.iter().map(|slot| slot.disk).collect();
    let mut after = group.clone();
    after.epoch = epoch;
    if let Some(moved) = after.slots.get_mut(usize::from(slot.0)) {
        let kept = matches!(current.state, SlotState::Whole) && map.disk_health(current.disk) != Health::Down;
        let source = kept.then_some(current.disk);
        *moved = Slot {
            disk: to,
            state: SlotState::Rebuilding { source },
            since_epoch: epoch,
            task: current.task,
        };
    }
    let disks_after: Vec<DiskId> = after.slots.iter().map(|slot| slot.disk).collect();
    if !back && excess(map, profile, &disks_after) > excess(map, profile, &disks_before) {
        let broken = check_disks(map, profile, &disks_after).err().unwrap_or_default();
        let broken: Vec<String> = broken.iter().map(ToString::to_string).collect();
        return Err(bad(format!("disk {to} would make the group worse: {}", broken.join("; "))));
    }
    after.below_policy = check_disks(map, profile, &disks_after).is_err();
    Ok(after)
}

fn check_target(map: &ClusterMap, group: &Group, slot: SlotIndex, to: DiskId) -> Result<(), String> {
    let Some(disk) = map.disks().get(&to) else { return Err(format!("disk {to} is unknown")) };
    let back = group.slot(slot).is_ok_and(|slot| slot.source() == Some(to));
    let health = map.disk_health(to);
    if health == Health::Down || (health == Health::Suspect && !back) {
        return Err(format!("disk {to} is {health}; choose one that is up"));
    }
    if disk.duty != Duty::InService && !back {
        return Err(format!("disk {to} is {}; choose one in service", disk.duty));
    }
    if disk.capacity_bytes == 0 && !back {
        return Err(format!("disk {to} has no capacity"));
    }
    let elsewhere =
        group.slots.iter().enumerate().any(|(place, other)| {
            other.disk == to || (slot_index(place) != slot && other.source() == Some(to))
        });
    if elsewhere { Err(format!("the group uses disk {to} already")) } else { Ok(()) }
}

fn check_leaves(map: &ClusterMap, current: &Slot, to: DiskId) -> Result<(), String> {
    if current.state == SlotState::Whole {
        return Ok(());
    }
    if map.disk_health(current.disk) != Health::Down {
        return Err(still_filling(current.disk).to_string());
    }
    match way_back(map, current) {
        Some(source) if source != to => {
            Err(format!("disk {source} still has the older shards; move the slot back there"))
        }
        _ => Ok(()),
    }
}

fn still_filling(disk: DiskId) -> InvalidInput {
    InvalidInput::new(format!("disk {disk} is still being filled; wait until it is whole"))
}

/// The source of a slot whose own disk is down, if the source is not.
fn way_back(map: &ClusterMap, slot: &Slot) -> Option<DiskId> {
    let source = slot.source()?;
    let lost = map.disk_health(slot.disk) == Health::Down;
    (lost && map.disk_health(source) != Health::Down).then_some(source)
}

/// The disks of all other slots.
fn others(group: &Group, slot: SlotIndex) -> Vec<DiskId> {
    let others = group.slots.iter().enumerate().filter(|(place, _)| slot_index(*place) != slot);
    others.map(|(_, slot)| slot.disk).collect()
}

/// Disks that still hold shards of the group, and get no slot of it before these are gone.
fn leaving(group: &Group, from: Option<DiskId>) -> Vec<DiskId> {
    group.slots.iter().filter_map(Slot::source).chain(from).collect()
}

/// The slots that may move to mend `violations`, best first: from disks in the worst health, then from
/// the nodes with the most slots of the group, then from the fullest disks, then by lot.
fn movers(map: &ClusterMap, pool: &Pool<'_>, group: &Group, violations: &[Violation]) -> Vec<SlotIndex> {
    let mut slots: Vec<SlotIndex> = violations.iter().flat_map(Violation::slots).copied().collect();
    slots.sort_unstable();
    slots.dedup();
    let disks: Vec<DiskId> = group.slots.iter().map(|slot| slot.disk).collect();
    let draft = pool.draft(group.id, &disks, &[]);
    let mut movers: Vec<(SlotIndex, DiskId)> = slots
        .into_iter()
        .filter_map(|slot| Some((slot, group.slots.get(usize::from(slot.0))?)))
        .filter(|(_, slot)| slot.state == SlotState::Whole || lost_for_good(map, slot))
        .map(|(index, slot)| (index, slot.disk))
        .collect();
    let load = |disk: DiskId| disk_load(map, group.profile, disk);
    movers.sort_by(|(left_slot, left), (right_slot, right)| {
        let by_health = map.disk_health(*right).cmp(&map.disk_health(*left));
        let by_node = draft.slots_beside(pool, *right).cmp(&draft.slots_beside(pool, *left));
        let by_load = load(*right).compare(load(*left));
        let lot = |disk: DiskId| rank(Purpose::Mover, group.id, disk.0);
        let by_lot = (lot(*left), left, left_slot).cmp(&(lot(*right), right, right_slot));
        by_health.then(by_node).then(by_load).then(by_lot)
    });
    movers.into_iter().map(|(slot, _)| slot).collect()
}

/// Rebuilding on a disk that is down, with nowhere to go back to.
fn lost_for_good(map: &ClusterMap, slot: &Slot) -> bool {
    map.disk_health(slot.disk) == Health::Down && way_back(map, slot).is_none()
}
