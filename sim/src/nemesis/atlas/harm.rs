//! What damage would do to a disk, found out by doing it to a copy.
//!
//! A damaged record is lost. That may take others with it: a node that has to find out what lies on the disk, after
//! a power loss with an index of before, or with none, may take damage near the end of the log for the end.
//! So the copy is looked at in each of these ways, before and after.

use std::collections::{BTreeMap, BTreeSet};

use env::{FileName, Kv, Priority};
use node::store::Presence;
use node::store::survey::{Evidence, RecordPlace, open, open_with};
use proto::{DiskUuid, ShardName};
use simhost::disk::{Damage, ForensicDisk};
use simhost::kv::ScratchKv;
use simhost::{DiskDevice, Host};

use super::View;
use crate::cluster::{Cluster, index_of};
use crate::logs::quietly;
use crate::process::lock;

/// What a segment begins with.
const HEADER_BYTES: u64 = 4096;

/// What damage would do.
#[derive(Debug, Default)]
struct Harm {
    /// Shards that are not whole from then on.
    now: BTreeSet<ShardName>,
    /// Shards that may be lost later.
    later: BTreeSet<ShardName>,
    /// Shards that were dropped may be there again later.
    forgets: bool,
}

type Found = BTreeMap<ShardName, RecordPlace>;

impl View {
    /// Damages a file of a disk, if that is not too much; whether there was something to damage. `tell` is called
    /// just before.
    ///
    /// # Errors
    ///
    /// Says what would be too much.
    pub(in crate::nemesis) fn harm(
        &mut self,
        cluster: &Cluster,
        disk: DiskUuid,
        (file, damage): (&FileName, &Damage),
        tell: impl FnOnce(),
    ) -> Result<bool, String> {
        let (Some(machine), Some(surveyed)) = (self.machines.get(&disk), self.disks.by_uuid.get(&disk))
        else {
            return Ok(false);
        };
        let whole: Found = surveyed
            .places
            .iter()
            .filter(|(name, _)| surveyed.shards.get(*name) == Some(&true))
            .map(|(name, place)| (*name, place.clone()))
            .collect();
        let device = machine.device.clone();
        let at = (machine.node.process.host().id(), device.path().to_owned());
        let weighed = quietly(weigh(machine.node.process.host(), &device, &whole, (file, damage)));
        let Some(harm) = weighed.flatten() else { return Ok(false) };
        self.damage(cluster, disk, &harm.now.union(&harm.later).copied().collect())?;
        tell();
        if !device.damage(file, damage.clone()) {
            return Ok(false);
        }
        let mut scars = lock(&cluster.scars);
        scars.damaged.extend(harm.now.iter().map(|shard| (disk, *shard)));
        for shard in harm.later.difference(&harm.now) {
            if let Some(place) = whole.get(shard) {
                cluster.world.probe("damage put shards in danger that it did not hit");
                scars.endangered.insert((disk, *shard), place.clone());
            }
        }
        if harm.forgets || !harm.later.is_empty() {
            scars.logs.insert(at);
        }
        Ok(true)
    }
}

/// What damage of a file would do to the shards of its disk that are `whole` now; none when it would do nothing.
async fn weigh(
    host: &Host,
    device: &DiskDevice,
    whole: &Found,
    (file, damage): (&FileName, &Damage),
) -> Option<Harm> {
    // Whoever reads what is stale at the wrong moment sees what zeros would do.
    let (lasting, is_stale) = match damage {
        Damage::StaleOnce { offset, bytes } => (Damage::Zero { offset: *offset, bytes: *bytes }, true),
        damage => (damage.clone(), false),
    };
    let copy = device.copy();
    if !copy.damage(file, lasting) {
        return None;
    }
    let (kvs, index) = (host.kvs(), index_of(device.path()));
    // A segment without a header counts as it was used last, also when it has been freed since.
    let mut harm = Harm { forgets: hits_header(file, damage), ..Harm::default() };
    let alone = || None::<ScratchKv>;
    harm.compare(&found(device.forensic(), alone()).await, &found(copy.forensic(), alone()).await);
    if let Some(durable) = kvs.durable(&index) {
        let before = found(device.durable(), Some(durable.scratch())).await;
        harm.compare(&before, &found(copy.durable(), Some(durable.scratch())).await);
    }
    let still = match kvs.forensic(&index) {
        Some(index) => {
            still_whole(&open_with(copy.forensic(), index.scratch()).await.ok()?, whole, file, damage).await
        }
        None => still_whole(&open(copy.forensic()).await.ok()?, whole, file, damage).await,
    };
    harm.now = whole.keys().filter(|name| !still.contains(*name)).copied().collect();
    harm.later.retain(|name| whole.contains_key(name));
    if is_stale {
        let now = std::mem::take(&mut harm.now);
        harm.later.extend(now);
    }
    Some(harm)
}

/// Whether damage lies in the first page of a segment.
fn hits_header(file: &FileName, damage: &Damage) -> bool {
    let (start, bytes) = extent(damage);
    file.as_str().starts_with("seg-") && bytes > 0 && start < HEADER_BYTES
}

/// Where damage begins, and how many bytes of a file it touches.
fn extent(damage: &Damage) -> (u64, u64) {
    match damage {
        Damage::Flip { offset, .. } => (*offset, 1),
        Damage::Zero { offset, bytes }
        | Damage::Unreadable { offset, bytes }
        | Damage::Misdirected { offset, bytes, .. }
        | Damage::StaleOnce { offset, bytes } => (*offset, *bytes),
    }
}

/// Which of the shards that were whole still are: what was not touched is, if it is found.
async fn still_whole<K: Kv>(
    evidence: &Evidence<ForensicDisk, K>,
    whole: &Found,
    file: &FileName,
    damage: &Damage,
) -> BTreeSet<ShardName> {
    let (start, bytes) = extent(damage);
    let is_hit = |at: &RecordPlace| {
        at.file == *file && at.offset < start.saturating_add(bytes) && start < at.offset + at.bytes
    };
    let mut still = BTreeSet::new();
    for (stat, place) in evidence.listed().await.unwrap_or_default() {
        let Some(before) = whole.get(&stat.name) else { continue };
        let is_same = *before == place && !is_hit(&place);
        if is_same || matches!(evidence.check(stat.name, Priority::Scrub).await, Ok(Presence::Whole(_))) {
            still.insert(stat.name);
        }
    }
    still
}

impl Harm {
    fn compare(&mut self, before: &Found, after: &Found) {
        self.later.extend(before.keys().filter(|name| !after.contains_key(*name)));
        self.forgets |= after.keys().any(|name| !before.contains_key(name));
    }
}

/// The shards that are found, whole or not; none of a disk that cannot be read.
async fn found<K: Kv>(disk: ForensicDisk, index: Option<K>) -> Found {
    let listed = match index {
        Some(index) => match open_with(disk, index).await {
            Ok(evidence) => evidence.listed().await,
            Err(_) => return Found::new(),
        },
        None => match open(disk).await {
            Ok(evidence) => evidence.listed().await,
            Err(_) => return Found::new(),
        },
    };
    listed.unwrap_or_default().into_iter().map(|(stat, place)| (stat.name, place)).collect()
}

#[cfg(test)]
mod tests;
