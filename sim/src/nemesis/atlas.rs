//! What may be destroyed: faults within what is promised, stripe by stripe.
//!
//! Lost data must always be a bug. So whoever destroys what was durable (a disk or node that is gone for
//! good, damage at rest) asks here first, and is refused when it would be one fault too many. Whatever
//! leaves flushed data where they are (crashes, power losses, disks that are away for a while) need not
//! ask.
//!
//! The atlas believes no server. It reads the metadata of the server that has come furthest, and what
//! lies on all disks as they are, and counts a shard as *there* only if all of this is so:
//!
//! - the metadata promise it: the slot is whole (or its source still has it), and not recorded as missing;
//!   what is being made again may lie on the disk without having been flushed, and does not count;
//! - its record on that disk is whole, a power loss would leave it so, and so would the loss of the node's
//!   index, whatever is damaged beside it ([`harm`]);
//! - the disk is in its machine. One that is away for a while does not count, though it will be back.
//!
//! **Committed extents.** When a stripe would lose a shard, `k` others must be there. That is a little
//! more than receipts promise where something has been repaired since, and never less: what can be
//! decoded must be readable, and must become whole again.
//!
//! **Puts on their way.** A writer to whom a disk has acknowledged a shard does not know that the disk died
//! after that, and may commit with it. A commit names at least `min_durable` durable slots; so of each
//! extent that is on some disk and is not committed, at most `min_durable - k` slots may ever be destroyed,
//! counted over all strikes ([`Past`]). What came of the extent is not guessed at: one that nobody will
//! ever commit counts until its shards are dropped. Shards that are not on the disk yet when it dies are
//! not acknowledged. The count also covers the
//! metadata seeming to fall back, when the only server that had applied a commit loses power.
//!
//! **Topology.** What is lost can be replaced in its place, by an operator in the storm or in the calm; so
//! legal places exist again in the end. But while a large share of all disks is down, the metadata service
//! takes it for an outage and moves nothing: of all disks that ever were, no more may be lost than stays
//! below that share once everything lost has been replaced. The service forgets lost disks that have no
//! slots; they count here all the same, since slots may still come to one that nobody has missed yet.
//!
//! **Metadata servers** are looked after in [`super::metas`].
//!
//! **Beyond.** A plan may allow [`BEYOND`] more shards of each stripe. Extents for which that was used are
//! remembered: they may be unreadable, never wrong.

mod harm;
mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use env::{FileName, KvRead, Order};
use meta::state::tables;
use node::store::survey::RecordPlace;
use placement::{Profile, Slot, SlotState};
use proto::{DiskId, DiskUuid, ExtentId, GroupId, MetaId, NodeId, ShardName, SlotIndex, StripeIndex};
use simhost::DiskDevice;

use super::topology;
use crate::cluster::{Cluster, NodeHost};
use crate::oracle::{self, Committed, Disks, Metadata, shard_name};
use crate::process::lock;
use judge::{Stripe, Verdict, judge_stripe, judge_uncommitted};

/// Shards of each stripe that a plan that goes beyond may destroy more.
const BEYOND: u32 = 2;

/// What was destroyed so far: slots of extents, a bit each.
#[derive(Default)]
pub(super) struct Past(BTreeMap<(GroupId, ExtentId), u32>);

/// The cluster at one moment, as it is.
pub(super) struct View {
    metadata: Metadata,
    disks: Disks,
    committed: Vec<Committed>,
    /// Committed, or deleted after that.
    known: BTreeSet<(GroupId, ExtentId)>,
    machines: BTreeMap<DiskUuid, Machine>,
    /// What faults have done before may still take these away.
    endangered: BTreeSet<(DiskUuid, ShardName)>,
}

/// Where a disk is.
pub(super) struct Machine {
    pub(super) node: Arc<NodeHost>,
    pub(super) device: DiskDevice,
}

impl View {
    /// Looks at everything; none before there is a cluster. No time passes.
    pub(super) fn now(cluster: &Cluster) -> Option<Self> {
        let metadata = oracle::latest(cluster)?;
        let disks = oracle::disks(cluster);
        let committed = metadata.committed();
        let mut known: BTreeSet<_> = committed.iter().map(|extent| (extent.group.id, extent.id)).collect();
        let garbage = metadata.kv.scan(tables::GARBAGE, &tables::whole_table(), Order::Ascending, usize::MAX);
        known.extend(garbage.unwrap_or_default().iter().filter_map(|(key, _)| tables::extent_of(key).ok()));
        let nodes = cluster.nodes();
        let machine = |disk: &oracle::Surveyed| {
            let node = nodes.iter().find(|node| node.id == disk.node)?.clone();
            let device = node.process.host().disk(&disk.path)?;
            Some(Machine { node, device })
        };
        let machines =
            disks.by_uuid.iter().filter_map(|(uuid, disk)| Some((*uuid, machine(disk)?))).collect();
        let endangered = {
            let mut scars = lock(&cluster.scars);
            scars.heal(&disks);
            scars.endangered.keys().copied().collect()
        };
        Some(Self { metadata, disks, committed, known, machines, endangered })
    }

    /// Which disk is there, if it has been formatted.
    pub(super) fn uuid_at(&self, node: NodeId, path: &str) -> Option<DiskUuid> {
        let there = self.disks.by_uuid.iter().find(|(_, disk)| disk.node == node && disk.path == path);
        there.map(|(uuid, _)| *uuid)
    }

    /// All shards that are promised and there, with the disks on which they are.
    pub(super) fn promised(&self) -> Vec<(DiskUuid, ShardName)> {
        let mut all = Vec::new();
        for extent in &self.committed {
            for stripe in self.stripes_of(extent) {
                let shards = self.places(extent, stripe);
                all.extend(
                    shards
                        .filter(|(_, disk, shard)| self.is_there(*disk, shard))
                        .map(|(_, disk, shard)| (disk, shard)),
                );
            }
        }
        all
    }

    /// Where a shard lies.
    pub(super) fn place(&self, disk: DiskUuid, shard: &ShardName) -> Option<RecordPlace> {
        self.disks.by_uuid.get(&disk)?.places.get(shard).cloned()
    }

    /// The records of all shards that lie in a file.
    pub(super) fn records(&self, disk: DiskUuid, file: &FileName) -> Vec<RecordPlace> {
        let places = self.disks.by_uuid.get(&disk).map(|surveyed| surveyed.places.values());
        places.into_iter().flatten().filter(|place| place.file == *file).cloned().collect()
    }

    /// The machine of a disk.
    pub(super) fn machine(&self, disk: DiskUuid) -> Option<&Machine> {
        self.machines.get(&disk)
    }

    /// All disks that are there.
    pub(super) fn all_disks(&self) -> Vec<DiskUuid> {
        self.machines.keys().copied().collect()
    }

    /// May these disks be lost for good, all at once? If so, it is remembered that they are.
    ///
    /// # Errors
    ///
    /// Says what would be too much.
    pub(super) fn lose(&self, cluster: &Cluster, lost: &BTreeSet<DiskUuid>) -> Result<(), String> {
        self.check_share(cluster, lost)?;
        let of = |disk: &DiskUuid| self.disks.by_uuid.get(disk).map(|surveyed| (*disk, surveyed));
        let all = lost.iter().filter_map(of);
        let hit = all.flat_map(|(disk, surveyed)| surveyed.shards.keys().map(move |shard| (disk, *shard)));
        self.destroy(cluster, &hit.collect())
    }

    /// May these shards be damaged? If so, it is remembered that they are.
    ///
    /// # Errors
    ///
    /// Says what would be too much.
    pub(super) fn damage(
        &mut self,
        cluster: &Cluster,
        disk: DiskUuid,
        shards: &BTreeSet<ShardName>,
    ) -> Result<(), String> {
        self.destroy(cluster, &shards.iter().map(|shard| (disk, *shard)).collect())?;
        if let Some(surveyed) = self.disks.by_uuid.get_mut(&disk) {
            surveyed.shards.extend(shards.iter().map(|shard| (*shard, false)));
        }
        Ok(())
    }

    fn destroy(&self, cluster: &Cluster, hit: &BTreeSet<(DiskUuid, ShardName)>) -> Result<(), String> {
        let allowance = allowance(cluster);
        let (mut destroyed, mut beyond) = (BTreeMap::new(), BTreeSet::new());
        for (_, shard) in hit {
            *destroyed.entry((shard.group, shard.extent)).or_insert(0) |= bit(shard.slot);
        }
        let is_hit = |extent: &&Committed| destroyed.contains_key(&(extent.group.id, extent.id));
        for extent in self.committed.iter().filter(is_hit) {
            for stripe in self.stripes_of(extent) {
                let judged = self.stripe(extent, stripe, |disk, shard| hit.contains(&(disk, *shard)));
                match judge_stripe(judged, allowance) {
                    Verdict::Covered => {}
                    Verdict::Beyond => drop(beyond.insert(extent.id)),
                    Verdict::TooMuch => {
                        return Err(format!("extent {} stripe {stripe}: {judged:?}", extent.id));
                    }
                }
            }
        }
        let before = lock(&cluster.nemesis.past);
        for ((group, extent), slots) in destroyed.iter().filter(|(at, _)| !self.known.contains(at)) {
            let Some(profile) = self.profile_of(*group) else {
                return Err(format!("group {group} is unknown"));
            };
            let all = slots | before.0.get(&(*group, *extent)).copied().unwrap_or(0);
            match judge_uncommitted(all, profile.k(), profile.min_durable(), allowance) {
                Verdict::Covered => {}
                Verdict::Beyond => drop(beyond.insert(*extent)),
                Verdict::TooMuch => return Err(format!("extent {extent} is being written: slots {all:#b}")),
            }
        }
        drop(before);
        remember(cluster, destroyed, beyond);
        Ok(())
    }

    /// A stripe, and what would be hit of it.
    fn stripe(
        &self,
        extent: &Committed,
        stripe: StripeIndex,
        is_hit: impl Fn(DiskUuid, &ShardName) -> bool,
    ) -> Stripe {
        let needed = self.profile_of(extent.group.id).map_or(usize::MAX, Profile::k);
        let mut judged = Stripe { needed, there: 0, hit: 0 };
        for (slot, disk, shard) in self.places(extent, stripe) {
            if self.is_there(disk, &shard) {
                judged.there |= bit(slot);
            }
        }
        for (slot, disk, shard) in self.possible_places(extent, stripe) {
            if self.is_whole(disk, &shard) && is_hit(disk, &shard) {
                judged.hit |= bit(slot);
            }
        }
        judged
    }

    fn stripes_of(&self, extent: &Committed) -> impl Iterator<Item = StripeIndex> + use<> {
        (0..self.metadata.stripes(extent)).map(StripeIndex)
    }

    /// Where the metadata promise a shard.
    fn places(
        &self,
        extent: &Committed,
        stripe: StripeIndex,
    ) -> impl Iterator<Item = (SlotIndex, DiskUuid, ShardName)> {
        let promised = |slot: &Slot| match slot.state {
            SlotState::Whole => Some(slot.disk),
            SlotState::Rebuilding { source } => source,
        };
        let found = self.on_disks(extent, stripe, move |slot| promised(slot).into_iter().collect());
        found.into_iter().filter(|(slot, ..)| extent.missing & bit(*slot) == 0)
    }

    /// Where a shard may lie as well: on the disk that is to get it.
    fn possible_places(
        &self,
        extent: &Committed,
        stripe: StripeIndex,
    ) -> Vec<(SlotIndex, DiskUuid, ShardName)> {
        self.on_disks(extent, stripe, |slot| slot.source().into_iter().chain([slot.disk]).collect())
    }

    fn on_disks(
        &self,
        extent: &Committed,
        stripe: StripeIndex,
        of: impl Fn(&Slot) -> Vec<DiskId>,
    ) -> Vec<(SlotIndex, DiskUuid, ShardName)> {
        let slots = (0_u8..).map(SlotIndex).zip(&extent.group.slots);
        let one = |(index, slot): (SlotIndex, &Slot)| {
            let shard = shard_name(extent.group.id, extent.id, stripe, index);
            let uuids = of(slot).into_iter().filter_map(|disk| self.metadata.disk_uuid(disk));
            uuids.map(|uuid| (index, uuid, shard)).collect::<Vec<_>>()
        };
        slots.flat_map(one).collect()
    }

    fn is_whole(&self, disk: DiskUuid, shard: &ShardName) -> bool {
        self.disks.by_uuid.get(&disk).is_some_and(|disk| disk.shards.get(shard) == Some(&true))
    }

    /// Is it whole, and would it be after a power loss?
    fn is_there(&self, disk: DiskUuid, shard: &ShardName) -> bool {
        let is_durable = || {
            let place = self.place(disk, shard)?;
            Some(self.machines.get(&disk)?.device.is_durable_to(&place.file, place.offset + place.bytes))
        };
        self.is_whole(disk, shard) && !self.endangered.contains(&(disk, *shard)) && is_durable() == Some(true)
    }

    fn profile_of(&self, group: GroupId) -> Option<&Profile> {
        let map = self.metadata.machine.map();
        map.profiles().get(&map.groups().get(&group)?.profile)
    }

    /// Will the share of disks that are down be small once everything lost was replaced?
    fn check_share(&self, cluster: &Cluster, lost: &BTreeSet<DiskUuid>) -> Result<(), String> {
        let map = self.metadata.machine.map();
        let is_down = |uuid: &DiskUuid| lost.contains(uuid) || !self.disks.by_uuid.contains_key(uuid);
        let down = map.disks().values().filter(|disk| is_down(&disk.uuid)).count();
        let places = places(cluster);
        if topology::is_held_back(down, places, out_share_max_percent()) {
            return Err(format!("{down} lost disks besides {places}: nobody would move their slots"));
        }
        Ok(())
    }
}

/// Of how many disks at most the metadata service gives up those that are down, in percent.
pub(super) fn out_share_max_percent() -> u8 {
    meta::Options::new(MetaId(1), "").detection.out_share_max_percent
}

/// Disks that there are once everything lost was replaced.
fn places(cluster: &Cluster) -> usize {
    let there: usize = super::victims::nodes(cluster).iter().map(|node| node.disks.len()).sum();
    let lost: usize = lock(&cluster.nemesis.lost).nodes.values().map(|(_, disks)| disks.len()).sum();
    there + lost
}

fn allowance(cluster: &Cluster) -> u32 {
    if cluster.plan.beyond { BEYOND } else { 0 }
}

fn remember(cluster: &Cluster, destroyed: BTreeMap<(GroupId, ExtentId), u32>, beyond: BTreeSet<ExtentId>) {
    let mut past = lock(&cluster.nemesis.past);
    for (extent, slots) in destroyed {
        *past.0.entry(extent).or_insert(0) |= slots;
    }
    if !beyond.is_empty() {
        cluster.world.probe("more was destroyed than is promised to be harmless");
        lock(&cluster.nemesis.beyond).extend(beyond);
    }
}

fn bit(slot: SlotIndex) -> u32 {
    1_u32.checked_shl(slot.0.into()).unwrap_or(0)
}
