//! What is true, as a god of this world sees it: the metadata of the server that has come furthest, and
//! the shards that lie on the disks. Nothing is asked of the servers; what they stored is read.
//!
//! What lies on a disk is what its node would find if it were started now: with the index as it is, and the log
//! from there on; or, where the index is lost, from the log alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use env::{KvRead, Order};
use meta::raft::inspect;
use meta::state::{Machine, tables};
use node::store::survey::{RecordPlace, Survey, open, open_with};
use placement::{Duty, Group, SlotState};
use proto::limits::GRANT_MS;
use proto::prost::Message;
use proto::{DiskId, DiskUuid, ExtentId, GroupId, NodeId, ShardName, SlotIndex, StripeIndex, wire};
use simhost::kv::ForensicKv;

use crate::cluster::{Cluster, MetaHost, NodeHost, index_of};
use crate::logs::quietly;

/// The metadata of one server.
pub struct Metadata {
    /// Whose.
    pub meta: Arc<MetaHost>,
    /// The last entry applied.
    pub applied: u64,
    /// The state.
    pub machine: Machine,
    /// Its rows.
    pub kv: ForensicKv,
}

/// An extent that is committed.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its group, as it is now.
    pub group: Group,
    /// Which.
    pub id: ExtentId,
    /// Bytes of the object that it holds.
    pub length: u64,
    /// Slots that do not have all of it yet, a bit each.
    pub missing: u32,
    /// Whose it is.
    pub row: wire::ExtentRow,
}

impl Committed {
    /// Should the slot's disk have every shard of it?
    pub fn is_promised(&self, slot: SlotIndex) -> bool {
        let whole =
            self.group.slots.get(usize::from(slot.0)).is_some_and(|slot| slot.state == SlotState::Whole);
        whole && self.missing & (1 << slot.0) == 0
    }
}

/// The metadata of every server whose stores can be read, the one that has come furthest first.
pub fn metadata(cluster: &Cluster) -> Vec<Metadata> {
    let read = |meta: Arc<MetaHost>| {
        let kvs = meta.process.host().kvs();
        let root = kvs.forensic("raft")?;
        let kv = kvs.forensic(&inspect::state_store(&root).ok()?)?;
        let applied = inspect::applied(&kv).ok()??.index;
        let machine = Machine::load(&kv).ok()?;
        Some(Metadata { meta, applied, machine, kv })
    };
    let mut all: Vec<Metadata> = cluster.metas().into_iter().filter_map(read).collect();
    all.sort_by_key(|metadata| (std::cmp::Reverse(metadata.applied), metadata.meta.id));
    all
}

/// The metadata of the server that has come furthest; none before the cluster is founded.
pub fn latest(cluster: &Cluster) -> Option<Metadata> {
    metadata(cluster).into_iter().next()
}

impl Metadata {
    /// Every committed extent. Rows that do not parse are a broken promise of their own, found by
    /// `meta::state::verify`; they are left out here.
    pub fn committed(&self) -> Vec<Committed> {
        let rows = self.kv.scan(tables::EXTENTS, &tables::whole_table(), Order::Ascending, usize::MAX);
        rows.unwrap_or_default().into_iter().filter_map(|(key, value)| self.parse(&key, &value)).collect()
    }

    fn parse(&self, key: &[u8], value: &[u8]) -> Option<Committed> {
        let (group, id) = tables::extent_of(key).ok()?;
        let row = wire::ExtentRow::decode(value).ok()?;
        let group = self.machine.map().groups().get(&group)?.clone();
        Some(Committed { group, id, length: row.length, missing: row.missing, row })
    }

    /// Whether an extent that is not committed never will be. What was written since the faults ended, or
    /// granted by a leader whose clock was ahead, may lie on disks as long as its grant.
    pub fn grant_is_over(&self, extent: ExtentId) -> bool {
        extent.granted().as_millis().saturating_add(GRANT_MS) < self.machine.cluster_time().as_millis()
    }

    /// The stripes of an extent, as the codec cuts them.
    pub fn stripes(&self, extent: &Committed) -> u32 {
        self.stripe_layout(extent).map_or(0, |layout| layout.stripes())
    }

    /// Where an extent's bytes lie; none when its profile is unknown.
    pub fn stripe_layout(&self, extent: &Committed) -> Option<codec::ExtentLayout> {
        let profile = self.machine.map().profiles().get(&extent.group.profile)?;
        let number = |count: usize| u32::try_from(count).ok();
        let geometry =
            codec::Geometry::new(number(profile.k())?, number(profile.m())?, profile.shard_bytes()).ok()?;
        geometry.extent(extent.length).ok()
    }

    /// Disks that are retired.
    pub fn retired(&self) -> BTreeSet<DiskUuid> {
        let disks = self.machine.map().disks().values();
        disks.filter(|disk| disk.duty == Duty::Retired).map(|disk| disk.uuid).collect()
    }

    /// Where a disk really is: the node of the map, and the path at which a disk of this uuid lies.
    pub fn disk_uuid(&self, disk: DiskId) -> Option<DiskUuid> {
        Some(self.machine.map().disks().get(&disk)?.uuid)
    }
}

/// The disks of the cluster as they are.
pub struct Disks {
    /// Of each disk that was formatted: whose, where, and what lies on it.
    pub by_uuid: BTreeMap<DiskUuid, Surveyed>,
}

/// One disk.
pub struct Surveyed {
    /// In which machine.
    pub node: NodeId,
    /// Of which rack.
    pub rack: u32,
    /// At which path.
    pub path: String,
    /// What lies on it: is the shard whole?
    pub shards: BTreeMap<ShardName, bool>,
    /// Where its record lies.
    pub places: BTreeMap<ShardName, RecordPlace>,
    /// The survey itself.
    pub survey: Survey,
}

/// Reads every disk that is there. Nothing is changed, no time passes.
pub fn disks(cluster: &Cluster) -> Disks {
    let mut by_uuid = BTreeMap::new();
    for node in cluster.nodes() {
        for path in &node.disks {
            if let Some((uuid, surveyed)) = look_at(&node, path) {
                by_uuid.insert(uuid, surveyed);
            }
        }
    }
    Disks { by_uuid }
}

fn look_at(node: &NodeHost, path: &str) -> Option<(DiskUuid, Surveyed)> {
    let device = node.process.host().disk(path)?;
    if device.is_gone() {
        return None;
    }
    let index = node.process.host().kvs().forensic(&index_of(path));
    let survey = quietly(async {
        match index {
            Some(index) => open_with(device.forensic(), index.scratch()).await.ok()?.survey().await.ok(),
            None => open(device.forensic()).await.ok()?.survey().await.ok(),
        }
    });
    let survey = survey??;
    let uuid = survey.superblock.uuid;
    let shards = survey.shards.iter().map(|shard| (shard.name, shard.whole)).collect();
    let places = survey.shards.iter().map(|shard| (shard.name, shard.place.clone())).collect();
    Some((uuid, Surveyed { node: node.id, rack: node.rack, path: path.to_owned(), shards, places, survey }))
}

/// The shards that a node would find on its disk if it had lost the index of it, or never had one; none when
/// the disk cannot be read.
pub fn without_index(node: &NodeHost, path: &str) -> Option<BTreeMap<ShardName, RecordPlace>> {
    let device = node.process.host().disk(path)?;
    let listed = quietly(async { open(device.forensic()).await.ok()?.listed().await.ok() })??;
    Some(listed.into_iter().map(|(stat, place)| (stat.name, place)).collect())
}

impl Disks {
    /// Is a whole shard of this name on the disk that the metadata mean?
    pub fn has(&self, metadata: &Metadata, disk: DiskId, shard: &ShardName) -> bool {
        let there = metadata.disk_uuid(disk).and_then(|uuid| self.by_uuid.get(&uuid));
        there.is_some_and(|disk| disk.shards.get(shard) == Some(&true))
    }

    /// Slots of a stripe that really have their shard, on the slot's disk or on the one it moves from.
    pub fn intact(&self, metadata: &Metadata, extent: &Committed, stripe: StripeIndex) -> Vec<SlotIndex> {
        let mut intact = Vec::new();
        for (number, slot) in (0_u8..).zip(&extent.group.slots) {
            let shard = shard_name(extent.group.id, extent.id, stripe, SlotIndex(number));
            let source = slot.source().is_some_and(|source| self.has(metadata, source, &shard));
            if source || self.has(metadata, slot.disk, &shard) {
                intact.push(SlotIndex(number));
            }
        }
        intact
    }
}

/// A shard's name.
pub fn shard_name(group: GroupId, extent: ExtentId, stripe: StripeIndex, slot: SlotIndex) -> ShardName {
    ShardName { group, extent, stripe, slot }
}
