//! Work that is out of date: for a while, what nodes are given to do asks them now and then to drop a slot
//! that they need.
//!
//! A metadata server that has fallen behind might say that, or a node that stood still between taking its
//! work and doing it. A node must look again before it drops a whole slot; if it reports that one as
//! dropped, it did not.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proto::wire;
use proto::wire::request::Call;
use proto::wire::response::Result as Reply;
use simhost::Stream;

use super::places::Places;

/// Heartbeats and replies with work that are rewritten, in a million.
const REWRITTEN_PPM: u32 = 300_000;

/// Group, slot, disk.
pub(super) type Spot = (u32, u32, u32);

/// What was made to be out of date.
#[derive(Debug)]
pub(super) struct OldWork {
    draws: Stream,
    until: Duration,
    /// What nodes were asked to drop, and since when it was theirs.
    asked: BTreeMap<Spot, u64>,
}

impl OldWork {
    /// From now on, until then.
    pub(super) fn new(draws: Stream, until: Duration) -> Self {
        Self { draws, until, asked: BTreeMap::new() }
    }

    /// The same with what was asked before.
    pub(super) fn after(self, before: Option<Self>) -> Self {
        Self { asked: before.map(|before| before.asked).unwrap_or_default(), ..self }
    }

    /// Rewrites a reply; false when it is left as it is.
    pub(super) fn rewrite(
        &mut self,
        now: Duration,
        places: &Places,
        asked: &Call,
        reply: &mut Reply,
    ) -> bool {
        if now >= self.until {
            return false;
        }
        match (asked, reply) {
            (Call::Heartbeat(_), Reply::Heartbeat(beat)) if !beat.work => {
                beat.work = self.draws.chance(REWRITTEN_PPM);
                beat.work
            }
            (Call::TakeWork(take), Reply::TakeWork(work)) if self.draws.chance(REWRITTEN_PPM) => {
                let slots = places.of_node(take.node);
                let Some((group, slot, place)) = self.draws.pick(&slots).copied() else { return false };
                let Ok(slot) = u32::try_from(slot) else { return false };
                self.asked.insert((group, slot, place.disk), place.since);
                let (disk, epoch) = (place.disk, place.since);
                work.drops.push(wire::DropExtent { group, extent: Bytes::new(), slot, disk, epoch });
                true
            }
            _ => false,
        }
    }

    /// Slots that the node says it dropped and was asked to drop out of time, with the epoch since which they
    /// were its own.
    pub(super) fn done(&self, report: &wire::ReportWork) -> Vec<(Spot, u64)> {
        let whole = report.dropped.iter().filter(|drop| drop.extent.is_empty());
        let spots = whole.map(|drop| (drop.group, drop.slot, drop.disk));
        spots.filter_map(|spot| Some((spot, *self.asked.get(&spot)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node is asked for what is its own, while it lasts, and found out when it does so.
    #[test]
    fn work_is_added_while_it_lasts() {
        let mut places = Places::default();
        let place = |disk| wire::Place { disk, node: disk, since_epoch: 3, ..Default::default() };
        let all = [1, 2].map(place).to_vec();
        places.learn(&wire::Placement { group: 7, epoch: 3, places: all, ..Default::default() });
        let mut old = OldWork::new(Stream::new(1), Duration::from_secs(1));
        let take = Call::TakeWork(wire::TakeWork { node: 2, limit: 0 });
        let mut added = |now| {
            let mut reply = Reply::TakeWork(wire::TakeWorkReply::default());
            let mut any = false;
            for _ in 0..50 {
                any |= old.rewrite(Duration::from_secs(now), &places, &take, &mut reply);
            }
            any
        };
        assert!(!added(1));
        assert!(added(0));
        let drop = |disk| wire::DropExtent { group: 7, slot: disk - 1, disk, ..Default::default() };
        let report = wire::ReportWork { dropped: vec![drop(1), drop(2)], ..Default::default() };
        assert_eq!(old.done(&report), [((7, 1, 2), 3)]);
    }
}
