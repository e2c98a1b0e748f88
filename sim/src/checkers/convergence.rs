//! Once faults have ended, everything becomes whole within a bound of time, with nothing for a person
//! to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use placement::{Group, Health, SlotState};
use proto::{ShardName, StripeIndex};

use crate::checkers::{durability, evenness, raft, tasks};
use crate::cluster::Cluster;
use crate::nemesis::leap;
use crate::oracle;
use crate::verdict::{Kind, millis};

/// See [`super::TABLE`].
pub(super) const NAME: &str = "convergence";

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// Time to heal where more was lost than the promises cover.
const BEYOND_LIMIT: Duration = Duration::from_secs(180);

/// Waits until nothing is amiss, twice for so long at most. Who was lost last may be no more than suspected
/// the first time. The cluster has to do what it is asked for even so; later the slots go from there, too.
pub async fn healing(cluster: &Arc<Cluster>, limit: Duration) {
    // Whoever has just come back is not missed yet: what is looked at before then is of the past.
    let tunables = &cluster.plan.tunables;
    let notice = tunables.suspect_after.max(tunables.disk_retry) + tunables.node_heartbeat * 2;
    cluster.world.sleep(notice + LOOK).await;
    whole_within(cluster, limit, Health::Suspect).await;
    durability::new_operations(cluster).await;
    evenness::check(cluster).await;
    // They may have left shards in a group that was given up: a disk that is gone may be found out only now.
    leap(cluster);
    if cluster.findings.is_empty() {
        whole_within(cluster, limit, Health::Up).await;
    }
}

async fn whole_within(cluster: &Cluster, limit: Duration, worst: Health) {
    let began = cluster.world.now();
    loop {
        let amiss = match amiss(cluster, worst) {
            Ok(()) => {
                let took = millis(cluster.world.now() - began);
                cluster.world.event(None, "healed", &[took], || format!("after {took} ms"));
                return;
            }
            Err(amiss) => amiss,
        };
        if cluster.plan.beyond && cluster.world.now() - began > BEYOND_LIMIT {
            // What cannot be decoded any more cannot heal; what can be is read later.
            cluster.world.probe("a cluster beyond its promises did not become whole");
            return;
        }
        if cluster.world.now() - began > limit {
            let text = format!("{} s after the last fault: {amiss}", limit.as_secs());
            cluster.findings.report(&cluster.world, Kind::Liveness, NAME, text);
            return;
        }
        cluster.world.sleep(LOOK).await;
    }
}

/// What keeps the cluster from being well, in words. Slots may lie on disks in health `worst`.
fn amiss(cluster: &Cluster, worst: Health) -> Result<(), String> {
    let all = oracle::metadata(cluster);
    let wanted = cluster.metas().iter().filter(|meta| meta.process.is_wanted()).count();
    let readable: Vec<_> = all.iter().filter(|metadata| metadata.meta.process.is_wanted()).collect();
    let Some(latest) = readable.first() else { return Err("no metadata can be read".to_owned()) };
    if readable.len() < wanted {
        return Err(format!("{} of {wanted} metadata servers have a state", readable.len()));
    }
    if let Some(behind) = readable.iter().find(|metadata| metadata.applied + 50 < latest.applied) {
        return Err(format!(
            "{} is at entry {}, the first at {}",
            behind.meta.id, behind.applied, latest.applied
        ));
    }
    raft::equal_states(&all)?;
    state_amiss(cluster, latest, worst)?;
    disks_amiss(cluster, latest)
}

fn state_amiss(cluster: &Cluster, latest: &oracle::Metadata, worst: Health) -> Result<(), String> {
    let (machine, totals) = (&latest.machine, latest.machine.totals());
    let nodes = cluster.nodes();
    for node in nodes.iter().filter(|node| node.process.is_wanted()) {
        let known = machine.map().nodes().get(&node.id);
        let health = known.map(|node| node.health);
        if health != Some(Health::Up) {
            return Err(format!("node {} is {health:?}", node.id));
        }
    }
    let unmade = |group: &&Group| group.slots.iter().any(|slot| slot.state != SlotState::Whole);
    if let Some(group) = machine.map().groups().values().find(unmade) {
        return Err(format!("{} slots are being rebuilt, of {group:?}", machine.slots_rebuilding()));
    }
    if !machine.groups_below_policy().is_empty() {
        return Err(format!("groups are below policy: {:?}", machine.groups_below_policy()));
    }
    if totals.slots_missing > 0 {
        return Err(format!("{} extents miss {} slots", totals.extents_incomplete, totals.slots_missing));
    }
    let here = |disk| machine.map().disk_health(disk) <= worst;
    let on_dead = machine.map().groups().values().find(|group| group.disks().any(|disk| !here(disk)));
    if let Some(group) = on_dead {
        let stays =
            group.slots.iter().position(|slot| !here(slot.disk)).and_then(|place| u8::try_from(place).ok());
        let moves = stays.map(|place| placement::relocate(machine.map(), group, proto::SlotIndex(place)));
        return Err(format!(
            "group {} has a slot on a disk that is not up; it could move: {moves:?}; {group:?}",
            group.id
        ));
    }
    garbage_amiss(latest)
}

/// Whoever is there has dropped what it was asked to drop.
fn garbage_amiss(latest: &oracle::Metadata) -> Result<(), String> {
    use env::{KvRead, Order};
    use meta::state::tables;
    use proto::prost::Message;
    let rows = latest.kv.scan(tables::GARBAGE, &tables::whole_table(), Order::Ascending, usize::MAX);
    for (_, value) in rows.map_err(|error| error.to_string())? {
        let row = proto::wire::GarbageRow::decode(value).map_err(|error| error.to_string())?;
        let here = |disk: u32| latest.machine.map().disk_health(proto::DiskId(disk)) != Health::Down;
        if let Some(slot) = row.slots.iter().find(|slot| here(slot.disk)) {
            return Err(format!("disk {} has not dropped what was deleted", slot.disk));
        }
    }
    Ok(())
}

fn disks_amiss(cluster: &Cluster, latest: &oracle::Metadata) -> Result<(), String> {
    let disks = oracle::disks(cluster);
    tasks::amiss(latest, &disks)?;
    let retired = latest.retired();
    let mut committed = BTreeMap::new();
    for extent in latest.committed() {
        let stripes = latest.stripes(&extent);
        committed.insert((extent.group.id, extent.id), stripes);
        for stripe in (0..stripes).map(StripeIndex) {
            let intact = disks.intact(latest, &extent, stripe);
            if intact.len() < extent.group.slots.len() {
                return Err(format!(
                    "group {} extent {} stripe {stripe}: only slots {intact:?} are whole",
                    extent.group.id, extent.id
                ));
            }
        }
    }
    for (_, disk) in disks.by_uuid.iter().filter(|(uuid, _)| !retired.contains(uuid)) {
        let is_needed = |shard: &ShardName| {
            let stripes = committed.get(&(shard.group, shard.extent));
            stripes.is_some_and(|stripes| shard.stripe.0 < *stripes)
        };
        let is_orphan = |shard: &&ShardName| !is_needed(shard) && latest.grant_is_over(shard.extent);
        if let Some(shard) = disk.shards.keys().find(is_orphan) {
            return Err(format!("node {} {} still keeps {shard}, which no object has", disk.node, disk.path));
        }
    }
    Ok(())
}
