//! Claims under old epochs: work that is said to be done, on a disk that had the slot once, or under an
//! epoch of before. The metadata service must pass them over.
//!
//! Its answer does not tell. So the metadata are looked at before and after, as servers have stored them:
//! what was open when the claim was sent must still be, unless somebody may have closed it rightly. Somebody
//! may if any node ever reported it for the slot's place of now, or if the slot has moved again.

use env::KvRead;
use meta::state::tables;
use placement::{Duty, Group, Slot, SlotState};
use proto::prost::Message;
use proto::wire::request::Call;
use proto::{DiskId, ExtentId, GroupId, NodeId, SlotIndex, wire};
use simhost::Stream;

use super::ghost::Ghost;
use crate::cluster::Cluster;
use crate::oracle::{self, Metadata};
use crate::tap::places::Place;
use crate::tap::rules::{Bit, FENCING};
use crate::verdict::Kind;

/// Extents of a group that are claimed to be filled at a time.
const EXTENTS_MAX: usize = 3;

/// Something that is still to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Open {
    /// The slot misses this extent.
    Fill(ExtentId),
    /// The slot is to be rebuilt.
    Rebuild,
    /// A former disk of the slot has not dropped its copy.
    Keep,
}

/// What an old process says it has done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    open: Open,
    group: GroupId,
    slot: SlotIndex,
    disk: DiskId,
    node: NodeId,
    epoch: u64,
    /// Since when the slot is where it is.
    since: u64,
}

/// Old claims about all that is open in a group.
pub(super) fn of_group(cluster: &Cluster, draws: &Stream, metadata: &Metadata, group: &Group) -> Vec<Claim> {
    let all = (0_u8..).map(SlotIndex).zip(&group.slots);
    let moved = all.filter(|(_, slot)| slot.since_epoch.0 > 1);
    let mut claims = Vec::new();
    for (index, slot) in moved {
        let rebuilding = slot.state != SlotState::Whole;
        for disk in kept_by(metadata, group.id, index) {
            let node = metadata.machine.map().disks().get(&disk).map(|disk| disk.node);
            let claim = |node| Claim { disk, node, ..claim(Open::Keep, group.id, index, slot) };
            claims.extend(node.map(claim));
        }
        let fills = missing_in(metadata, group.id, index).into_iter().take(EXTENTS_MAX).map(Open::Fill);
        for open in rebuilding.then_some(Open::Rebuild).into_iter().chain(fills) {
            claims.extend(made(cluster, draws, metadata, claim(open, group.id, index, slot)));
        }
    }
    claims
}

/// An old claim that a slot has been filled with an extent; none when it has never moved.
pub(super) fn of_fill(
    cluster: &Cluster,
    draws: &Stream,
    metadata: &Metadata,
    group: GroupId,
    slot: SlotIndex,
    extent: ExtentId,
) -> Option<Claim> {
    let at = metadata.machine.map().groups().get(&group)?.slot(slot).ok()?;
    if at.since_epoch.0 <= 1 {
        return None;
    }
    made(cluster, draws, metadata, claim(Open::Fill(extent), group, slot, at))
}

/// Of the slot's disk, whose node is not known yet, just before the slot came there.
fn claim(open: Open, group: GroupId, slot: SlotIndex, at: &Slot) -> Claim {
    let since = at.since_epoch.0;
    Claim { open, group, slot, disk: at.disk, node: NodeId(0), epoch: since - 1, since }
}

/// From where, and under which epoch: the disk before, then; the disk before, now; the disk of now, then.
fn made(cluster: &Cluster, draws: &Stream, metadata: &Metadata, claim: Claim) -> Option<Claim> {
    let map = metadata.machine.map();
    let wire = cluster.wire()?;
    let before = wire.places(|places| -> Option<Place> {
        places.at(claim.group.0, claim.epoch)?.get(usize::from(claim.slot.0)).copied()
    });
    let before = before.map(|place| DiskId(place.disk)).filter(|disk| *disk != claim.disk);
    let now = map.groups().get(&claim.group)?.epoch.0;
    let (disk, epoch) = match (before, draws.below(3)) {
        (Some(before), 0) => (before, now),
        (Some(before), 1) => (before, claim.epoch),
        _ => (claim.disk, claim.epoch),
    };
    let node = map.disks().get(&disk)?.node;
    Some(Claim { disk, node, epoch, ..claim })
}

/// Makes a claim, and reports if it was believed.
pub(super) async fn make(cluster: &Cluster, claim: Claim) {
    let Some(before) = oracle::latest(cluster).filter(|metadata| is_open(metadata, &claim) == Some(true))
    else {
        return;
    };
    let applied = before.applied;
    drop(before);
    let ghost = Ghost::of_node(cluster, claim.node);
    if ghost.ask_meta(cluster, Call::ReportWork(claim.report())).await.is_err() {
        return;
    }
    cluster.world.probe("work was claimed under an old epoch");
    let Some(after) = oracle::latest(cluster).filter(|metadata| metadata.applied >= applied) else { return };
    let may_be_done = cluster.wire().is_none_or(|wire| {
        let disk = place_of(&after, &claim).map_or(0, |slot| slot.disk.0);
        wire.may_be_reported(&claim.bit(disk), claim.since)
    });
    // What a retired disk has kept is forgotten.
    let is_forgotten = after.machine.map().disk_duty(claim.disk) == Duty::Retired;
    if is_open(&after, &claim) == Some(false) && !may_be_done && !is_forgotten {
        let text = format!("the metadata service believed what came too late: {claim:?}");
        cluster.findings.report(&cluster.world, Kind::Correctness, FENCING, text);
    }
}

impl Claim {
    fn report(&self) -> wire::ReportWork {
        let (group, slot, disk, epoch) = (self.group.0, u32::from(self.slot.0), self.disk.0, self.epoch);
        let mut report = wire::ReportWork { node: self.node.0, ..Default::default() };
        match self.open {
            Open::Fill(extent) => {
                report.filled = vec![wire::SlotFilled { group, extent: extent.to_wire(), slot, disk, epoch }];
            }
            Open::Rebuild => report.rebuilt = vec![wire::SlotRebuilt { group, slot, disk, epoch }],
            Open::Keep => report.dropped = vec![self.whole_slot()],
        }
        report
    }

    fn whole_slot(&self) -> wire::DropExtent {
        let (group, slot, disk) = (self.group.0, u32::from(self.slot.0), self.disk.0);
        wire::DropExtent { group, slot, disk, epoch: self.epoch, ..Default::default() }
    }

    /// What a node would have to say for it to be done, of the slot's disk of now or of the one that keeps it.
    fn bit(&self, now: u32) -> Bit {
        let (extent, disk) = match self.open {
            Open::Fill(extent) => (extent.to_wire(), now),
            Open::Rebuild => (bytes::Bytes::new(), now),
            Open::Keep => (bytes::Bytes::new(), self.disk.0),
        };
        let dropped = self.open == Open::Keep;
        Bit { group: self.group.0, extent, slot: u32::from(self.slot.0), disk, dropped }
    }
}

/// The slot, if it is where it was.
fn place_of<'a>(metadata: &'a Metadata, claim: &Claim) -> Option<&'a Slot> {
    let slot = metadata.machine.map().groups().get(&claim.group)?.slot(claim.slot).ok()?;
    (slot.since_epoch.0 == claim.since).then_some(slot)
}

/// Is it still to be done? None when that cannot be said: the slot has moved, the extent is gone.
fn is_open(metadata: &Metadata, claim: &Claim) -> Option<bool> {
    let slot = place_of(metadata, claim)?;
    match claim.open {
        Open::Fill(extent) => {
            let row = metadata.kv.get(tables::EXTENTS, &tables::extent_key(claim.group, extent)).ok()??;
            let missing = wire::ExtentRow::decode(row).ok()?.missing;
            Some(missing.checked_shr(claim.slot.0.into())? & 1 == 1)
        }
        Open::Rebuild => Some(slot.state != SlotState::Whole),
        Open::Keep => Some(kept_by(metadata, claim.group, claim.slot).contains(&claim.disk)),
    }
}

/// Former disks of a slot that have not dropped their copy.
fn kept_by(metadata: &Metadata, group: GroupId, slot: SlotIndex) -> Vec<DiskId> {
    let key = tables::extent_key(group, ExtentId(0));
    let row = metadata.kv.get(tables::GARBAGE, &key).ok().flatten();
    let row = row.and_then(|row| wire::GarbageRow::decode(row).ok()).unwrap_or_default();
    let of_slot = row.slots.iter().filter(|kept| kept.slot == u32::from(slot.0));
    of_slot.map(|kept| DiskId(kept.disk)).collect()
}

/// Extents that a slot misses.
fn missing_in(metadata: &Metadata, group: GroupId, slot: SlotIndex) -> Vec<ExtentId> {
    let all = metadata.committed();
    let missing = |extent: &&oracle::Committed| {
        extent.group.id == group && extent.missing.checked_shr(slot.0.into()).unwrap_or(0) & 1 == 1
    };
    all.iter().filter(missing).map(|extent| extent.id).collect()
}
