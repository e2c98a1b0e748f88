//! What may not be accepted, whoever asks for it.
//!
//! What is judged was known before the request was sent, so that nothing that happens meanwhile can
//! excuse its acceptance.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::wire;
use proto::wire::request::Call;
use proto::wire::response::Result as Reply;

use super::places::Places;

/// Whatever is older than its group's slot has no effect.
pub(crate) const FENCING: &str = "fencing";
/// A commit names enough durable slots.
pub(crate) const QUORUM: &str = "quorum";
/// Reports that are remembered; beyond that nothing is judged by them.
const REPORTED_MAX: usize = 100_000;

/// What is wrong with a request, if it should be accepted: of which checker, and in words.
pub(super) type Fault = (&'static str, String);

/// What is wrong with a write: its epoch is older than `fence`, the one that its node knows, or the slot
/// never was on that disk in that epoch.
pub(super) fn of_write(write: &wire::WriteShard, fence: Option<u64>, places: &Places) -> Option<Fault> {
    let shard = write.shard.as_ref()?;
    if let Some(fence) = fence.filter(|fence| write.epoch < *fence) {
        let text =
            format!("a write under epoch {} of a group whose epoch {fence} it knew: {shard:?}", write.epoch);
        return Some((FENCING, text));
    }
    let slot = usize::try_from(shard.slot).ok()?;
    let place = places.at(shard.group, write.epoch)?.get(slot)?;
    (place.disk != write.disk).then(|| {
        let text = format!(
            "a write to disk {} of a slot that is on disk {} in epoch {}: {shard:?}",
            write.disk, place.disk, write.epoch
        );
        (FENCING, text)
    })
}

/// What is wrong with a commit: too few durable slots, or one that moved after it was written, or lies on a disk
/// that is `retired`.
pub(super) fn of_commit(
    commit: &wire::CommitObject,
    places: &Places,
    retired: &BTreeSet<u32>,
) -> Option<Fault> {
    commit.extents.iter().find_map(|extent| {
        let (group, epoch) = (extent.group, extent.epoch);
        let slots = places.now(group);
        let named = |slot: usize| {
            let bits = u32::try_from(slot).ok().and_then(|slot| extent.missing.checked_shr(slot));
            bits.unwrap_or(0) & 1 == 1
        };
        let durable = (0..slots.len()).filter(|slot| !named(*slot)).count();
        let needed = places.min_durable(group).and_then(|needed| usize::try_from(needed).ok());
        if let Some(needed) = needed.filter(|needed| !slots.is_empty() && durable < *needed) {
            let text = format!("a commit to group {group} with {durable} durable slots, {needed} are needed");
            return Some((QUORUM, text));
        }
        let then = places.at(group, epoch).unwrap_or_default().iter().enumerate();
        let gone = then.filter(|(slot, _)| !named(*slot)).find(|(_, place)| retired.contains(&place.disk));
        if let Some((slot, place)) = gone {
            let text = format!(
                "a commit under epoch {epoch} of group {group} with slot {slot} on disk {}, which is retired",
                place.disk
            );
            return Some((FENCING, text));
        }
        let moved = slots.iter().enumerate().find(|(slot, place)| place.since > epoch && !named(*slot));
        moved.map(|(slot, place)| {
            let text = format!(
                "a commit under epoch {epoch} of group {group}, whose slot {slot} moved in epoch {} and is \
                 not named as missing",
                place.since
            );
            (FENCING, text)
        })
    })
}

/// A disk that has `failed` and is offered to a writer as if it were well, and why it failed. Clients write nothing to what
/// they are told is not up.
pub(super) fn granted_on_failed(reply: &Reply, failed: &BTreeMap<u32, String>) -> Option<(u32, String)> {
    let Reply::OpenPut(open) = reply else { return None };
    let up = i32::from(wire::Health::Up);
    let mut places = open.small_groups.iter().chain(&open.groups).flat_map(|group| &group.places);
    places.find_map(|place| {
        let reason = failed.get(&place.disk).filter(|_| place.health == up)?;
        Some((place.disk, reason.clone()))
    })
}

/// Commands that were carried out, by their id.
#[derive(Debug, Default)]
pub(super) struct Done(BTreeSet<Bytes>);

impl Done {
    /// What is wrong with a command that was carried out: it had been before.
    pub(super) fn note(&mut self, asked: &Call, reply: &Reply) -> Option<Fault> {
        let (id, what) = match (asked, reply) {
            (Call::CommitObject(commit), Reply::CommitObject(done)) if !done.repeated => {
                (&commit.command_id, "commit")
            }
            (Call::DeleteObject(delete), Reply::DeleteObject(done)) if !done.repeated => {
                (&delete.command_id, "delete")
            }
            _ => return None,
        };
        let is_news = self.0.insert(id.clone());
        (!is_news).then(|| (FENCING, format!("a {what} that had been carried out: command id {id:02x?}")))
    }
}

/// What nodes have reported as filled, rebuilt, and dropped as a whole.
#[derive(Debug, Default)]
pub(super) struct Reported(BTreeMap<Bit, u64>);

/// One slot of an extent on a disk; of a whole slot when the extent is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bit {
    /// Of this group.
    pub(crate) group: u32,
    /// 16 bytes, or empty.
    pub(crate) extent: Bytes,
    /// Which slot.
    pub(crate) slot: u32,
    /// On which disk.
    pub(crate) disk: u32,
    /// Dropped, not made.
    pub(crate) dropped: bool,
}

impl Reported {
    /// A node reports.
    pub(super) fn note(&mut self, report: &wire::ReportWork) {
        let filled = report.filled.iter().map(|item| {
            let (group, slot, disk) = (item.group, item.slot, item.disk);
            (Bit { group, extent: item.extent.clone(), slot, disk, dropped: false }, item.epoch)
        });
        let rebuilt = report.rebuilt.iter().map(|item| {
            let (group, slot, disk) = (item.group, item.slot, item.disk);
            (Bit { group, extent: Bytes::new(), slot, disk, dropped: false }, item.epoch)
        });
        let dropped = report.dropped.iter().filter(|item| item.extent.is_empty()).map(|item| {
            let (group, slot, disk) = (item.group, item.slot, item.disk);
            (Bit { group, extent: Bytes::new(), slot, disk, dropped: true }, item.epoch)
        });
        for (bit, epoch) in filled.chain(rebuilt).chain(dropped) {
            let newest = self.0.entry(bit).or_insert(epoch);
            *newest = epoch.max(*newest);
        }
    }

    /// May somebody have said so under this epoch or a later one?
    pub(super) fn may_have(&self, bit: &Bit, since: u64) -> bool {
        self.0.len() > REPORTED_MAX || self.0.get(bit).is_some_and(|epoch| *epoch >= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        let place = |(disk, since_epoch)| wire::Place { disk, node: 1, since_epoch, ..Default::default() };
        let mut places = Places::default();
        for (epoch, third) in [(4, (13, 1)), (5, (14, 5))] {
            places.learn(&wire::Placement {
                group: 7,
                epoch,
                min_durable: 2,
                places: [(11, 1), (12, 1), third].map(place).to_vec(),
                ..Default::default()
            });
        }
        places
    }

    /// Writes under the fence and writes to foreign disks are wrong; what nobody knows is not judged.
    #[test]
    fn writes() {
        let places = places();
        let judge = |slot, disk, epoch, fence| {
            let shard = Some(wire::ShardName { group: 7, slot, ..Default::default() });
            of_write(&wire::WriteShard { shard, disk, epoch, ..Default::default() }, fence, &places).is_some()
        };
        assert!(!judge(2, 13, 4, None) && !judge(2, 13, 4, Some(4)) && !judge(2, 14, 5, Some(5)));
        assert!(judge(2, 13, 4, Some(5)) && judge(2, 13, 5, Some(5)) && judge(0, 12, 5, None));
        assert!(!judge(0, 99, 6, Some(5)), "nobody was told of that epoch");
    }

    /// A commit names what moved after it, and enough others.
    #[test]
    fn commits() {
        let places = places();
        let judge = |epoch, missing| {
            let extent = wire::Extent { group: 7, epoch, missing, ..Default::default() };
            let commit = wire::CommitObject { extents: vec![extent], ..Default::default() };
            of_commit(&commit, &places, &BTreeSet::from([13])).map(|(checker, _)| checker)
        };
        assert_eq!((judge(5, 0), judge(5, 0b1), judge(4, 0b100)), (None, None, None));
        assert_eq!((judge(4, 0), judge(4, 0b1)), (Some("fencing"), Some("fencing")));
        assert_eq!((judge(5, 0b11), judge(4, 0b101)), (Some("quorum"), Some("quorum")));
    }

    /// A failed disk may be offered as one to avoid, and not as one that is up.
    #[test]
    fn grants() {
        let failed = BTreeMap::from([(13, "noise".to_owned())]);
        let judge = |disk, health: wire::Health| {
            let place = wire::Place { disk, health: health.into(), ..Default::default() };
            let group = wire::Placement { places: vec![place], ..Default::default() };
            let open = wire::OpenPutReply { groups: vec![group], ..Default::default() };
            granted_on_failed(&Reply::OpenPut(open), &failed).is_some()
        };
        assert!(judge(13, wire::Health::Up) && !judge(13, wire::Health::Suspect));
        assert!(!judge(12, wire::Health::Up));
    }

    /// A report counts for its disk, from its epoch back.
    #[test]
    fn reports() {
        let mut reported = Reported::default();
        let filled = wire::SlotFilled { group: 7, slot: 2, disk: 14, epoch: 5, ..Default::default() };
        reported.note(&wire::ReportWork { filled: vec![filled], ..Default::default() });
        let bit = |disk| Bit { group: 7, extent: Bytes::new(), slot: 2, disk, dropped: false };
        assert!(reported.may_have(&bit(14), 5) && reported.may_have(&bit(14), 4));
        assert!(!reported.may_have(&bit(14), 6) && !reported.may_have(&bit(13), 5));
    }
}
