//! What faults have done to disks at rest, and nobody has mended.

use std::collections::{BTreeMap, BTreeSet};

use node::store::survey::RecordPlace;
use proto::{DiskUuid, ShardName};
use simhost::HostId;

use crate::oracle::Disks;

/// What faults have done to disks at rest.
#[derive(Default)]
pub struct Scars {
    /// Shards that are damaged.
    pub damaged: BTreeSet<(DiskUuid, ShardName)>,
    /// Shards that are whole where they lie, and may be lost once the node has to find them again, or reads them at
    /// the wrong moment.
    pub endangered: BTreeMap<(DiskUuid, ShardName), RecordPlace>,
    /// Disks, by machine and path, whose log may lose what was told of it, or keep what was dropped.
    pub logs: BTreeSet<(HostId, String)>,
}

impl Scars {
    /// What was made again is promised again; what was in danger and has moved is in danger no longer.
    pub fn heal(&mut self, disks: &Disks) {
        let Self { damaged, endangered, .. } = self;
        endangered.retain(|(disk, shard), place| {
            let Some(there) = disks.by_uuid.get(disk) else { return true };
            if there.shards.get(shard) != Some(&true) {
                damaged.insert((*disk, *shard));
                return false;
            }
            there.places.get(shard) == Some(place)
        });
        damaged.retain(|(disk, shard)| {
            disks.by_uuid.get(disk).is_none_or(|disk| disk.shards.get(shard) != Some(&true))
        });
    }
}
