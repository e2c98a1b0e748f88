//! One slot that may go, and the disk that takes it.

use crate::domain::FailureDomain;
use crate::group::Group;
use crate::profile::Profile;

use super::rule::{Rule, Spread};
use super::seats::{Seat, Seats};
use super::takers::Takers;

/// Nodes that are looked at for one slot.
const NODES_MAX: usize = 128;
/// Nodes of these that may take it: the one with the fewest slots of the group takes it.
const FITTING_MAX: usize = 8;

/// Why slots stayed on disks above the mean.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    /// The group may have no slot on any disk that takes.
    pub(super) by_policy: usize,
    /// It would bring too much.
    pub(super) by_size: usize,
}

/// One sweep over the disks that give.
pub(super) struct Sweep {
    pub(super) rule: Rule,
    pub(super) spread: Spread,
    pub(super) takers: Takers,
}

/// See the module.
pub(super) struct Offer<'a> {
    pub(super) group: &'a Group,
    pub(super) profile: &'a Profile,
    /// Where the group's slots are.
    pub(super) seats: Vec<usize>,
    pub(super) place: usize,
    pub(super) from: usize,
    pub(super) load: u64,
}

impl Offer<'_> {
    /// The disk that takes the slot.
    pub(super) fn taker(&self, seats: &Seats, sweep: &Sweep) -> Result<usize, Kept> {
        let by_policy = Kept { by_policy: 1, by_size: 0 };
        let kind = self.profile.failure_domain();
        if !sweep.takers.any_in(kind, |domain| self.is_legal(seats, kind, domain)) {
            return Err(by_policy);
        }
        let from = seats.get(self.from).ok_or(by_policy)?;
        let left = self.others(seats, |other| other.node == from.node);
        let mut best: Option<((usize, usize), usize)> = None;
        let mut legal = 0;
        for node in sweep.takers.nodes().take(NODES_MAX) {
            let first = sweep.takers.disks_of(node).next().and_then(|at| seats.get(at));
            let Some(seat) = first else { continue };
            let on_node = self.others(seats, |other| other.node == node);
            let is_legal = seat.domain(kind).is_none_or(|domain| self.is_legal(seats, kind, domain));
            if !is_legal || !sweep.spread.allows(left, on_node) {
                continue;
            }
            legal += 1;
            let crowd = (on_node, self.others(seats, |other| other.rack == seat.rack));
            if best.is_none_or(|(fewest, _)| crowd < fewest) {
                let to = sweep.takers.disks_of(node).find(|to| self.can_go_to(seats, sweep, *to));
                best = to.map(|to| (crowd, to)).or(best);
            }
            if legal >= FITTING_MAX || best.is_some_and(|(fewest, _)| fewest == (0, 0)) {
                break;
            }
        }
        best.map(|(_, to)| to).ok_or(if legal == 0 { by_policy } else { Kept { by_policy: 0, by_size: 1 } })
    }

    fn can_go_to(&self, seats: &Seats, sweep: &Sweep, to: usize) -> bool {
        let (Some(from), Some(end)) = (seats.end(self.from), seats.end(to)) else { return false };
        let is_used = self.seats.contains(&to)
            || self.group.slots.iter().any(|slot| slot.source() == Some(end.seat.disk));
        !is_used && sweep.rule.fits(from, end, self.load)
    }

    /// The policy of [`apply_move`](crate::apply_move): no more slots too many than before.
    fn is_legal(&self, seats: &Seats, kind: FailureDomain, domain: usize) -> bool {
        let at_most = self.profile.m();
        let left = seats.get(self.from).and_then(|seat| seat.domain(kind));
        let others = |domain: Option<usize>| self.others(seats, |other| other.domain(kind) == domain);
        left == Some(domain) || others(Some(domain)) < at_most || others(left) >= at_most
    }

    /// Other slots of the group for which this holds.
    fn others(&self, seats: &Seats, holds: impl Fn(&Seat) -> bool) -> usize {
        let others = self.seats.iter().enumerate().filter(|(place, _)| *place != self.place);
        others.filter_map(|(_, at)| seats.get(*at)).filter(|other| holds(other)).count()
    }
}
