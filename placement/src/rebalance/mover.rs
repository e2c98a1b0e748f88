//! Makes moves, one after another, as if each were done before the next of the same group.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use proto::{DiskId, GroupId, ProfileId};

use crate::fill::{Fill, Imbalance, imbalance};
use crate::group::{Group, Slot, SlotState, slot_index};
use crate::hash::{Purpose, hash, rank};
use crate::moves::Move;
use crate::topology::Health;

use super::levels::Levels;
use super::offer::{Kept, Offer, Sweep};
use super::rule::{Rule, Spread};
use super::seats::{End, Seats};
use super::takers::Takers;
use super::{PlannedMove, Rebalance, Room};

/// Times that all disks are looked at, at most: each time was worth it while something moved.
const ROUNDS_MAX: usize = 16;
/// A slot with less than this part of what the slots of its disk have on average is not worth a move.
const GRAIN: u64 = 16;
/// Clusters of at most so many nodes have groups with several slots on one; these go first.
const FEW_NODES: usize = 4 * proto::limits::SLOTS_MAX;

/// What the loads are loads of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Bytes,
    /// Slots of a profile, each as heavy as this; those without a byte move.
    Slots(ProfileId, u64),
}

/// A group that moved: where its slots are, and which of them moved.
#[derive(Clone, Debug)]
struct Moved {
    seats: Vec<usize>,
    places: u32,
}

/// See the module.
pub(super) struct Mover<'a> {
    ask: &'a Rebalance<'a>,
    room: Option<Room<'a>>,
    seats: Seats,
    measure: Measure,
    /// Of each disk, the slots that leave it and that come to it.
    under_way: Vec<(usize, usize)>,
    /// Slots under way when this began.
    pub(super) moving: usize,
    /// Of each profile, groups without a byte.
    empty: BTreeMap<ProfileId, usize>,
    moved: BTreeMap<GroupId, Moved>,
    pub(super) moves: Vec<PlannedMove>,
    pub(super) kept: Kept,
}

impl<'a> Mover<'a> {
    /// Looks at each slot of the map once.
    pub(super) fn new(ask: &'a Rebalance<'a>, room: Option<Room<'a>>) -> Self {
        let seats = Seats::new(ask.map, ask.barred);
        let mut mover = Self {
            ask,
            room,
            measure: Measure::Bytes,
            under_way: vec![(0, 0); seats.len()],
            seats,
            moving: 0,
            empty: BTreeMap::new(),
            moved: BTreeMap::new(),
            moves: Vec::new(),
            kept: Kept::default(),
        };
        for group in ask.map.groups().values() {
            mover.count(group);
        }
        mover
    }

    fn count(&mut self, group: &Group) {
        let bytes = (self.ask.bytes)(group.id);
        if bytes == 0 {
            *self.empty.entry(group.profile).or_default() += 1;
        }
        for slot in &group.slots {
            let Some(at) = self.seats.find(slot.disk) else { continue };
            self.seats.add(at, bytes);
            if let Some(from) = slot.source() {
                let from = self.seats.find(from);
                self.moving += 1;
                self.note_under_way(from, at);
            }
        }
    }

    fn note_under_way(&mut self, from: Option<usize>, to: usize) {
        if let Some((leaving, _)) = from.and_then(|from| self.under_way.get_mut(from)) {
            *leaving += 1;
        }
        if let Some((_, coming)) = self.under_way.get_mut(to) {
            *coming += 1;
        }
    }

    /// How the bytes lie now. Only while bytes are the measure.
    pub(super) fn imbalance(&self) -> Imbalance {
        let fills = self.seats.usable().map(|(_, end)| (end.seat.disk, end.fill()));
        imbalance(fills, self.seats.mean(), self.ask.goal.fill())
    }

    /// The disk farthest beyond the goal.
    pub(super) fn worst(&self) -> Option<DiskId> {
        let (mean, points) = (self.seats.mean(), self.ask.goal.fill());
        let fills = self.seats.usable().map(|(_, end)| (end.fill(), end.seat.disk));
        let beyond = fills.filter(|(fill, _)| fill.is_beyond(mean, points));
        let distance = |fill: Fill| fill.minus(mean).max(mean.minus(fill));
        beyond.max_by_key(|(fill, disk)| (distance(*fill), Reverse(*disk))).map(|(_, disk)| disk)
    }

    /// True when the disk would take, were it not barred.
    pub(super) fn is_barred(&self, disk: DiskId) -> bool {
        let seat = self.seats.find(disk).and_then(|at| self.seats.get(at));
        seat.is_some_and(|seat| seat.usable && !seat.takes)
    }

    /// Evens the bytes.
    pub(super) fn even_bytes(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if self.gentle(self.ask.goal.slack(self.seats.mean())) > 0 {
                continue;
            }
            // What is under way may make the firm hand needless.
            let waits = self.room.is_some() && self.moving + self.moves.len() > 0;
            if waits || self.firm() == 0 {
                return;
            }
        }
    }

    /// Evens the slots of each profile, by moving those without a byte. To be called last: the measure is
    /// not bytes any more.
    pub(super) fn even_slots(&mut self) {
        let profiles: Vec<ProfileId> = self.empty.keys().copied().collect();
        for profile in profiles {
            self.measure_slots(profile);
            for _ in 0..ROUNDS_MAX {
                if self.gentle(self.seats.mean().divided(GRAIN)) == 0 {
                    break;
                }
            }
        }
    }

    /// From here on, loads are slots of the profile: each as heavy as makes the mean fill one half.
    fn measure_slots(&mut self, profile: ProfileId) {
        let map = self.ask.map;
        self.seats.set_loads(|seat| map.profile_slots_on(profile, seat.disk));
        for PlannedMove { group, step, .. } in &self.moves {
            if map.groups().get(group).is_some_and(|group| group.profile == profile) {
                self.seats.find(step.from).into_iter().for_each(|at| self.seats.take(at, 1));
                self.seats.find(step.to).into_iter().for_each(|at| self.seats.add(at, 1));
            }
        }
        let (mut slots, mut capacity) = (0u128, 0u128);
        for (_, end) in self.seats.usable() {
            slots += u128::from(end.load);
            capacity += u128::from(end.seat.capacity);
        }
        let weight = u64::try_from(capacity / 2 / slots.max(1)).unwrap_or(u64::MAX).max(1);
        self.seats.scale_loads(weight);
        self.measure = Measure::Slots(profile, weight);
    }

    /// As few moves as bring all within `slack`; how many were made.
    fn gentle(&mut self, slack: Fill) -> usize {
        let before = self.moves.len();
        let few = self.seats.nodes() <= FEW_NODES;
        for spread in [Some(Spread::Better).filter(|_| few), Some(Spread::NoWorse)].into_iter().flatten() {
            let Some(levels) = Levels::find(&self.seats, slack) else { break };
            self.sweep(Rule::Gentle(levels), spread);
        }
        self.moves.len() - before
    }

    /// Whatever helps those that are beyond the goal; how many moves were made.
    fn firm(&mut self) -> usize {
        let (before, mean, points) = (self.moves.len(), self.seats.mean(), self.ask.goal.fill());
        let fills = || self.seats.usable().map(|(_, end)| (end.seat.takes, end.fill()));
        let lowest = fills().filter(|(takes, _)| *takes).map(|(_, fill)| fill).min().unwrap_or(Fill::MAX);
        if fills().any(|(takes, fill)| fill > mean.plus(points) || (takes && fill.plus(points) < mean)) {
            self.kept = Kept::default();
            self.sweep(Rule::Firm { mean, points, lowest }, Spread::Any);
        }
        self.moves.len() - before
    }

    fn sweep(&mut self, rule: Rule, spread: Spread) {
        let mut sweep = Sweep { rule, spread, takers: Takers::new(&self.seats) };
        let all = 0..self.seats.len();
        all.for_each(|at| self.file(&mut sweep, at));
        let giving = self.seats.usable().filter(|(_, end)| rule.gives(end.fill()));
        let lot = |disk: DiskId| hash(Purpose::Rebalance, u64::from(disk.0), 0);
        let mut giving: Vec<_> =
            giving.map(|(at, end)| (Reverse(end.fill()), lot(end.seat.disk), at)).collect();
        giving.sort_unstable();
        for (_, _, from) in giving {
            if sweep.takers.lowest().is_none() || self.is_used_up() {
                return;
            }
            self.relieve(&mut sweep, from);
        }
    }

    /// Moves slots off one disk, chosen by lot: so that those that go have, together, what such slots have,
    /// and the slots get even with the bytes.
    fn relieve(&mut self, sweep: &mut Sweep, from: usize) {
        let Some(End { seat, load }) = self.seats.end(from) else { return };
        let disk = seat.disk;
        let mut groups: Vec<&Group> = self.ask.map.groups_on(disk).collect();
        groups.sort_by_cached_key(|group| (rank(Purpose::Rebalance, group.id, disk.0), group.id));
        let slots = u64::try_from(groups.len()).unwrap_or(u64::MAX);
        let least = (load / slots.saturating_mul(GRAIN).max(1)).max(1);
        for group in groups {
            let fill = self.seats.end(from).map(|end| end.fill());
            if !fill.is_some_and(|fill| sweep.rule.gives(fill)) || self.is_full_up(from) {
                return;
            }
            let Some(offer) = self.offer(sweep, group, from, least) else { continue };
            match offer.taker(&self.seats, sweep) {
                Ok(to) => self.make(sweep, offer, to),
                Err(kept) if fill > Some(sweep.rule.mean()) => {
                    self.kept.by_policy += kept.by_policy;
                    self.kept.by_size += kept.by_size;
                }
                Err(_) => {}
            }
        }
    }

    /// The slot of the group on the disk, if it may go.
    fn offer(&self, sweep: &Sweep, group: &'a Group, from: usize, least: u64) -> Option<Offer<'a>> {
        let bytes = (self.ask.bytes)(group.id);
        let load = match self.measure {
            Measure::Bytes => bytes,
            Measure::Slots(profile, weight) if group.profile == profile && bytes == 0 => weight,
            Measure::Slots(..) => return None,
        };
        if load < least || !sweep.rule.lets_go(self.seats.end(from)?, load) {
            return None;
        }
        let profile = self.ask.map.profiles().get(&group.profile)?;
        let moved = self.moved.get(&group.id);
        let seats: Option<Vec<usize>> = match moved {
            Some(moved) => Some(moved.seats.clone()),
            None => group.slots.iter().map(|slot| self.seats.find(slot.disk)).collect(),
        };
        let seats = seats?;
        let place = seats.iter().position(|at| *at == from)?;
        let stays = moved.is_some_and(|moved| moved.places & bit(place) != 0)
            || group.slots.get(place).is_none_or(|slot| slot.state != SlotState::Whole);
        if stays || !self.may_begin(group) {
            return None;
        }
        Some(Offer { group, profile, seats, place, from, load })
    }

    /// In a plan, always. Else only groups of which nothing is under way or away.
    fn may_begin(&self, group: &Group) -> bool {
        let Some(room) = self.room else { return true };
        let is_well =
            |slot: &Slot| slot.state == SlotState::Whole && self.ask.map.disk_health(slot.disk) == Health::Up;
        !self.moved.contains_key(&group.id) && group.slots.iter().all(is_well) && (room.is_free)(group)
    }

    fn make(&mut self, sweep: &mut Sweep, offer: Offer<'_>, to: usize) {
        let Offer { group, mut seats, place, from, load, .. } = offer;
        let ids = |at: usize| self.seats.get(at).map(|seat| seat.disk);
        let (Some(from_id), Some(to_id)) = (ids(from), ids(to)) else { return };
        let step = Move { slot: slot_index(place), from: from_id, to: to_id };
        self.moves.push(PlannedMove { group: group.id, step, bytes: (self.ask.bytes)(group.id) });
        if let Some(seat) = seats.get_mut(place) {
            *seat = to;
        }
        let places = self.moved.get(&group.id).map_or(0, |moved| moved.places) | bit(place);
        self.moved.insert(group.id, Moved { seats, places });
        self.seats.take(from, load);
        self.seats.add(to, load);
        self.note_under_way(Some(from), to);
        self.file(sweep, from);
        self.file(sweep, to);
    }

    /// Notes whether a disk takes still.
    fn file(&self, sweep: &mut Sweep, at: usize) {
        let Some(end) = self.seats.end(at) else { return };
        let fill = end.fill();
        let takes = end.seat.takes && sweep.rule.takes(fill) && !self.is_full_up(at);
        sweep.takers.set(&self.seats, at, takes.then_some(fill));
    }

    /// As many slots leave the disk, or come to it, as may at a time.
    fn is_full_up(&self, at: usize) -> bool {
        let (leaving, coming) = self.under_way.get(at).copied().unwrap_or_default();
        self.room.is_some_and(|room| leaving.max(coming) >= room.per_disk) || self.is_used_up()
    }

    fn is_used_up(&self) -> bool {
        self.room.is_some_and(|room| self.moves.len() >= room.moves)
    }
}

fn bit(place: usize) -> u32 {
    u32::try_from(place).ok().and_then(|place| 1u32.checked_shl(place)).unwrap_or_default()
}
