//! Which of the offered work to do now: bounded by kind, without doing anything twice at once, and
//! what fails waits longer each time while the rest goes on. Of what is to be made that goes first whose stripes can
//! lose least, then what was offered first; what can lose nothing more waits for nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use codec::SlotMask;
use env::Monotonic;
use proto::{DiskId, Epoch, ErrorCode, ExtentId, GroupId, InvalidInput, ShardName, SlotIndex, wire};
use tracing::warn;

use crate::view::Placement;

const DROPS_MAX: usize = 32;
const FILLS_MAX: usize = 8;
const REBUILDS_MAX: usize = 4;
/// More of each kind, for what can lose nothing more.
const URGENT_MAX: usize = 4;
const SETBACK_MIN: Duration = Duration::from_secs(1);
const SETBACK_MAX: Duration = Duration::from_secs(60);
/// Failures in a row for lack of room after which the disk counts as having none for the group.
const FAILURES_WITHOUT_ROOM: u32 = 3;

/// One piece of work, and its key: the same again is the same work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Job {
    /// Drop what a slot has of an extent, or of all extents; these under an epoch.
    Drop { disk: DiskId, group: GroupId, slot: SlotIndex, extent: Option<ExtentId>, epoch: Epoch },
    /// Make what a slot misses of an extent.
    Fill { disk: DiskId, group: GroupId, slot: SlotIndex, extent: ExtentId },
    /// Make all that a slot misses since its disk took it over.
    Rebuild { disk: DiskId, group: GroupId, slot: SlotIndex, epoch: Epoch },
}

/// A piece of work with what is known of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) job: Job,
    /// None for drops, which need none.
    pub(crate) placement: Option<Placement>,
    /// How many more disks its stripes may lose; nothing is known of drops.
    pub(crate) spare: usize,
}

/// The work in a reply; what cannot be understood is left out and logged.
pub(crate) fn parse(reply: wire::TakeWorkReply) -> Vec<Offer> {
    let drops = reply.drops.into_iter().map(parse_drop);
    let fills = reply.fills.into_iter().map(|fill| {
        let extent = ExtentId::from_wire(&fill.extent)?;
        let job = |disk, group, slot, _| Job::Fill { disk, group, slot, extent };
        parse_made(fill.placement, fill.slot, fill.missing, job)
    });
    let rebuilds = reply.rebuilds.into_iter().map(|rebuild| {
        let job = |disk, group, slot, epoch| Job::Rebuild { disk, group, slot, epoch };
        parse_made(rebuild.placement, rebuild.slot, 0, job)
    });
    let understood = |offer: Result<Offer, InvalidInput>| {
        offer.inspect_err(|error| warn!(%error, "work that cannot be understood")).ok()
    };
    drops.chain(fills).chain(rebuilds).filter_map(understood).collect()
}

fn parse_drop(drop: wire::DropExtent) -> Result<Offer, InvalidInput> {
    let extent = if drop.extent.is_empty() { None } else { Some(ExtentId::from_wire(&drop.extent)?) };
    let slot = wire::slot_index(drop.slot)?;
    let (disk, group, epoch) = (DiskId(drop.disk), GroupId(drop.group), Epoch(drop.epoch));
    let job = Job::Drop { disk, group, slot, extent, epoch };
    Ok(Offer { job, placement: None, spare: usize::MAX })
}

fn parse_made(
    placement: Option<wire::Placement>,
    slot: u32,
    missing: u32,
    job: impl FnOnce(DiskId, GroupId, SlotIndex, Epoch) -> Job,
) -> Result<Offer, InvalidInput> {
    let placement = placement.ok_or_else(|| InvalidInput::new("work without a placement"))?;
    let placement = Placement::parse(placement)?;
    let slot = wire::slot_index(slot)?;
    let place = placement.place(slot).ok_or_else(|| {
        InvalidInput::new(format!("work for slot {slot} of group {}, which has none", placement.group))
    })?;
    let job = job(place.at.disk, placement.group, slot, placement.epoch);
    let spare = placement.spare(SlotMask::from_wire(missing, placement.geometry.slots())?);
    Ok(Offer { job, placement: Some(placement), spare })
}

#[derive(Clone, Copy, Debug)]
struct Setback {
    failures: u32,
    /// The last failure.
    code: ErrorCode,
    not_before: Monotonic,
}

/// What is under way and what waits after a failure.
#[derive(Debug, Default)]
pub(crate) struct Board {
    active: BTreeSet<Job>,
    setbacks: BTreeMap<Job, Setback>,
    /// When each piece of work was offered first.
    offered: BTreeMap<Job, Monotonic>,
}

impl Board {
    /// The offers to begin now. They count as under way until [`done`](Self::done).
    pub(crate) fn choose(&mut self, mut offers: Vec<Offer>, now: Monotonic) -> Vec<Offer> {
        let offered: BTreeSet<Job> = offers.iter().map(|offer| offer.job).collect();
        self.setbacks.retain(|job, _| offered.contains(job) || self.active.contains(job));
        self.offered.retain(|job, _| offered.contains(job) || self.active.contains(job));
        for job in offered {
            self.offered.entry(job).or_insert(now);
        }
        offers.sort_by_key(|offer| (offer.spare, self.offered.get(&offer.job).copied()));
        let mut chosen = Vec::new();
        for offer in offers {
            let waits = self.setbacks.get(&offer.job).is_some_and(|setback| setback.not_before > now);
            if !waits && self.has_room(&offer) && self.active.insert(offer.job) {
                chosen.push(offer);
            }
        }
        chosen
    }

    /// The job ended, well or with a failure. After a failure, how often it failed in a row.
    pub(crate) fn done(&mut self, job: &Job, failure: Option<ErrorCode>, now: Monotonic) -> u32 {
        self.active.remove(job);
        let Some(code) = failure else {
            self.setbacks.remove(job);
            return 0;
        };
        let failures = self.setbacks.get(job).map_or(0, |setback| setback.failures) + 1;
        let pause = SETBACK_MIN.saturating_mul(1 << (failures - 1).min(10)).min(SETBACK_MAX);
        self.setbacks.insert(*job, Setback { failures, code, not_before: now.after(pause) });
        failures
    }

    /// Where work keeps failing since the disk has no room for what it should make.
    pub(crate) fn without_room(&self) -> BTreeSet<(DiskId, GroupId)> {
        let fails = |setback: &Setback| {
            setback.code == ErrorCode::DiskFull && setback.failures >= FAILURES_WITHOUT_ROOM
        };
        let place = |job: &Job| match *job {
            Job::Fill { disk, group, .. } | Job::Rebuild { disk, group, .. } => Some((disk, group)),
            Job::Drop { .. } => None,
        };
        self.setbacks.iter().filter(|(_, setback)| fails(setback)).filter_map(|(job, _)| place(job)).collect()
    }

    /// Is the work under way, or was it offered last time and failed?
    pub(crate) fn knows(&self, job: &Job) -> bool {
        self.active.contains(job) || self.setbacks.contains_key(job)
    }

    /// Is the shard part of work that is under way, or has failed?
    pub(crate) fn makes(&self, disk: DiskId, shard: &ShardName) -> bool {
        let ShardName { group, extent, slot, .. } = *shard;
        let rebuild = |epoch| Job::Rebuild { disk, group, slot, epoch };
        let of_slot = rebuild(Epoch(0))..=rebuild(Epoch(u64::MAX));
        self.knows(&Job::Fill { disk, group, slot, extent })
            || self.active.range(of_slot.clone()).next().is_some()
            || self.setbacks.range(of_slot).next().is_some()
    }

    fn has_room(&self, offer: &Offer) -> bool {
        let (kind, max): (fn(&Job) -> bool, _) = match offer.job {
            Job::Drop { .. } => (|job| matches!(job, Job::Drop { .. }), DROPS_MAX),
            Job::Fill { .. } => (|job| matches!(job, Job::Fill { .. }), FILLS_MAX),
            Job::Rebuild { .. } => (|job| matches!(job, Job::Rebuild { .. }), REBUILDS_MAX),
        };
        let max = if offer.spare == 0 { max + URGENT_MAX } else { max };
        self.active.iter().filter(|job| kind(job)).count() < max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::placement;

    fn fill(extent: u128) -> Offer {
        let (disk, group, slot) = (DiskId(1), GroupId(1), SlotIndex(0));
        Offer { job: Job::Fill { disk, group, slot, extent: ExtentId(extent) }, placement: None, spare: 1 }
    }

    fn rebuild() -> Offer {
        let (disk, group, slot) = (DiskId(1), GroupId(1), SlotIndex(0));
        Offer { job: Job::Rebuild { disk, group, slot, epoch: Epoch(1) }, placement: None, spare: 1 }
    }

    /// Nothing runs twice at once, and one kind of work does not take the room of another.
    #[test]
    fn work_is_bounded_by_kind() {
        let mut board = Board::default();
        let now = Monotonic::default();
        let offers: Vec<Offer> = (0..20).map(fill).chain([rebuild()]).collect();
        let chosen = board.choose(offers.clone(), now);
        assert_eq!(chosen.len(), FILLS_MAX + 1);
        assert!(board.choose(offers.clone(), now).is_empty());
        board.done(&chosen[0].job, None, now);
        assert_eq!(board.choose(offers[1..].to_vec(), now), [fill(FILLS_MAX as u128)]);
    }

    /// Least to lose goes first, then what waits longest; what can lose nothing finds room where others find none,
    /// up to a bound.
    #[test]
    fn the_last_margin_overtakes() {
        let (mut board, at) = (Board::default(), |seconds| Monotonic::new(Duration::from_secs(seconds)));
        let with = |extent, spare| Offer { spare, ..fill(extent) };
        board.choose(Vec::new(), at(0));
        // Offered from time 1 on, while everything is taken.
        let others: Vec<Offer> = (100..100 + FILLS_MAX as u128).map(fill).collect();
        let mut offers = others.clone();
        offers.push(with(9, 2));
        assert_eq!(board.choose(offers.clone(), at(1)), others);
        offers.extend([with(1, 2), with(2, 1), with(3, 0)]);
        assert_eq!(board.choose(offers.clone(), at(2)), [with(3, 0)]);
        for (done, next) in [(&others[0], with(2, 1)), (&others[1], with(9, 2)), (&others[2], with(1, 2))] {
            offers.retain(|offer| offer != done);
            board.done(&done.job, None, at(3));
            // The urgent one has taken no room from the others, but for its own.
            board.done(&with(3, 0).job, None, at(3));
            offers.retain(|offer| offer.spare > 0);
            assert_eq!(board.choose(offers.clone(), at(3)), [next]);
        }
        let urgent: Vec<Offer> = (200..220).map(|extent| with(extent, 0)).collect();
        offers.extend(urgent.clone());
        assert_eq!(board.choose(offers, at(4)), urgent[..URGENT_MAX]);
    }

    const FAILED: Option<ErrorCode> = Some(ErrorCode::Unavailable);

    /// What keeps failing for lack of room is known by disk and group, until it succeeds, fails otherwise, or is
    /// no longer offered.
    #[test]
    fn lack_of_room_is_known() {
        let (mut board, job, now) = (Board::default(), fill(1).job, Monotonic::default());
        let full = Some(ErrorCode::DiskFull);
        let place = BTreeSet::from([(DiskId(1), GroupId(1))]);
        for failures in 1..=5 {
            assert_eq!(board.without_room().is_empty(), failures <= 3);
            board.done(&job, full, now);
        }
        assert_eq!(board.without_room(), place);
        board.done(&job, FAILED, now);
        assert!(board.without_room().is_empty());
        board.done(&job, full, now);
        assert_eq!(board.without_room(), place);
        board.choose(vec![fill(2)], now);
        assert!(board.without_room().is_empty());
        for failures in 1..=3 {
            assert_eq!(board.done(&job, full, now), failures);
        }
        board.done(&job, None, now);
        assert!(board.without_room().is_empty());
    }

    /// What fails waits longer each time, others go on, and success forgets.
    #[test]
    fn failures_wait() {
        let mut board = Board::default();
        let at = |seconds| Monotonic::new(Duration::from_secs(seconds));
        let job = fill(1).job;
        assert_eq!(board.choose(vec![fill(1)], at(0)), [fill(1)]);
        assert_eq!(board.done(&job, FAILED, at(0)), 1);
        assert_eq!(board.choose(vec![fill(1), fill(2)], at(0)), [fill(2)]);
        assert_eq!(board.choose(vec![fill(1)], at(1)), [fill(1)]);
        assert_eq!(board.done(&job, FAILED, at(1)), 2);
        assert!(board.choose(vec![fill(1)], at(2)).is_empty());
        assert_eq!(board.choose(vec![fill(1)], at(3)), [fill(1)]);
        board.done(&job, None, at(3));
        assert_eq!(board.choose(vec![fill(1)], at(3)), [fill(1)]);
        // No longer offered: forgotten.
        board.done(&job, FAILED, at(3));
        board.choose(Vec::new(), at(3));
        assert!(board.setbacks.is_empty() && board.active.contains(&fill(2).job));
    }

    /// Good work is understood with the disk it is for; bad work is left out and spoils nothing.
    #[test]
    fn replies_are_parsed() {
        let extent = ExtentId(5);
        let good = wire::FillExtent {
            placement: Some(placement(4)),
            extent: extent.to_wire(),
            slot: 1,
            ..Default::default()
        };
        let bad = [
            wire::FillExtent { slot: 3, ..good.clone() },
            wire::FillExtent { placement: None, ..good.clone() },
            wire::FillExtent { extent: Vec::new().into(), ..good.clone() },
        ];
        let reply = wire::TakeWorkReply {
            drops: vec![wire::DropExtent { group: 7, disk: 9, slot: 99, ..Default::default() }],
            fills: bad.into_iter().chain([good]).collect(),
            rebuilds: vec![wire::RebuildSlot { placement: Some(placement(4)), slot: 2 }],
        };
        let jobs: Vec<Job> = parse(reply).into_iter().map(|offer| offer.job).collect();
        let group = GroupId(7);
        assert_eq!(
            jobs,
            [
                Job::Fill { disk: DiskId(12), group, slot: SlotIndex(1), extent },
                Job::Rebuild { disk: DiskId(13), group, slot: SlotIndex(2), epoch: Epoch(4) },
            ]
        );
    }
}
