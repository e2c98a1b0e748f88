//! The node's side of its life in the cluster: it learns which cluster this is, opens its disks,
//! registers, sends heartbeats, keeps its map fresh, and reports what it found lost.
//!
//! There is no start-up barrier: each step is tried until it succeeds, and whatever works serves.

use std::sync::Arc;

use env::{Clock, Env};
use proto::limits::WORK_PAGE_MAX;
use proto::wire::request::Call;
use proto::wire::response::Result as Outcome;
use proto::{ClusterId, DiskId, DiskUuid, ErrorCode, Failure, wire};
use tracing::{debug, info, warn};

use crate::damage::{Loss, Lost};
use crate::node::{Node, unexpected};

/// Why heartbeats stopped.
enum Stopped {
    /// The metadata service does not know this process, or a disk was opened: register again.
    Register,
}

/// Runs until dropped.
pub(crate) async fn run<E: Env>(node: Arc<Node<E>>) {
    let cluster = persist(&node, "cluster unknown", learn_cluster).await;
    loop {
        node.disks.open_waiting(&node.env, cluster).await;
        persist(&node, "not registered", register).await;
        let Stopped::Register = beat(&node, cluster).await;
    }
}

/// Tries until it succeeds; people hear of it once when it does not at first.
async fn persist<'a, E: Env, T, F>(
    node: &'a Node<E>,
    trouble: &'static str,
    attempt: fn(&'a Node<E>) -> F,
) -> T
where
    F: Future<Output = Result<T, Failure>> + Send + 'a,
{
    let mut failures = 0;
    loop {
        match attempt(node).await {
            Ok(done) => return done,
            Err(error) if failures == 0 => warn!(%error, trouble, "will be tried again"),
            Err(error) => debug!(%error, trouble, "will be tried again"),
        }
        node.back_off(failures).await;
        failures = failures.saturating_add(1);
    }
}

async fn learn_cluster<E: Env>(node: &Node<E>) -> Result<ClusterId, Failure> {
    let reply = node.ask_meta(Call::ClusterInfo(wire::ClusterInfo {})).await?;
    let Outcome::ClusterInfo(info) = reply.result else { return Err(unexpected("cluster-info")) };
    if info.cluster_id.is_empty() {
        return Err(Failure::new(ErrorCode::NotBootstrapped, "the cluster has not been founded yet"));
    }
    let cluster = ClusterId::from_wire(&info.cluster_id)?;
    node.local.join(cluster)?;
    node.raise_incarnation(reply.cluster_time_ms);
    Ok(cluster)
}

async fn register<E: Env>(node: &Node<E>) -> Result<(), Failure> {
    let reports = node.disks.reports().await;
    // Those that could not be opened, or are of another cluster, are none of this cluster's disks.
    let disks: Vec<wire::DiskReport> = reports.into_iter().filter(|disk| !disk.uuid.is_empty()).collect();
    let uuids = disks.iter().map(|disk| DiskUuid::from_wire(&disk.uuid)).collect::<Result<Vec<_>, _>>()?;
    let options = &node.options;
    let call = Call::RegisterNode(wire::RegisterNode {
        node: options.id.0,
        incarnation: node.incarnation().0,
        site: options.site.to_string(),
        rack: options.rack.to_string(),
        address: node.advertised.clone(),
        disks,
    });
    let reply = match node.ask_meta(call).await {
        Ok(reply) => reply,
        Err(failure) => {
            if failure.code == ErrorCode::StaleNode {
                node.pass_predecessor();
            }
            return Err(failure);
        }
    };
    let Outcome::RegisterNode(registered) = reply.result else { return Err(unexpected("register-node")) };
    if ClusterId::from_wire(&registered.cluster_id).ok() != node.local.cluster() {
        return Err(Failure::new(ErrorCode::WrongCluster, "registered by another cluster"));
    }
    let ids: Vec<DiskId> = registered.disks.iter().copied().map(DiskId).collect();
    node.disks.assign(&uuids, &ids);
    node.set_registered();
    info!(node = %options.id, incarnation = %node.incarnation(), disks = ids.len(), "registered");
    node.refresh_map().await
}

/// Sends heartbeats, as long as they are all there is to do.
async fn beat<E: Env>(node: &Node<E>, cluster: ClusterId) -> Stopped {
    let clock = node.env.clock();
    let mut silent = false;
    let mut next_open = clock.now().after(node.options.disk_retry);
    loop {
        let next = clock.now().after(node.options.heartbeat);
        match beat_once(node).await {
            Ok(()) => {
                if std::mem::take(&mut silent) {
                    info!("heartbeats arrive again");
                }
            }
            Err(failure) if failure.code == ErrorCode::StaleNode => {
                warn!(error = %failure, "the metadata service does not know this process");
                return Stopped::Register;
            }
            Err(failure) if !silent => {
                warn!(error = %failure, "heartbeats do not arrive");
                silent = true;
            }
            Err(failure) => debug!(error = %failure, "heartbeat lost"),
        }
        if clock.now() >= next_open && node.disks.any_waiting() {
            next_open = clock.now().after(node.options.disk_retry);
            if node.disks.open_waiting(&node.env, cluster).await {
                return Stopped::Register;
            }
        }
        clock.sleep_until(next).await;
    }
}

async fn beat_once<E: Env>(node: &Node<E>) -> Result<(), Failure> {
    let known = node.map().version;
    let mut disks = node.disks.reports().await;
    disks.retain(|disk| disk.disk != 0);
    disks.iter_mut().for_each(|disk| node.complete_report(disk));
    let call = Call::Heartbeat(wire::Heartbeat {
        node: node.options.id.0,
        incarnation: node.incarnation().0,
        map_version: known,
        disks,
    });
    let Outcome::Heartbeat(reply) = node.ask_meta(call).await?.result else {
        return Err(unexpected("heartbeat"));
    };
    node.repair_pace.set(reply.repair_bytes_per_s);
    node.move_pace.set(reply.move_bytes_per_s);
    if reply.map_version != known {
        node.refresh_map().await?;
    }
    if reply.work {
        node.work.notify_one();
    }
    report_lost(node).await
}

async fn report_lost<E: Env>(node: &Node<E>) -> Result<(), Failure> {
    let found = node.lost.take(WORK_PAGE_MAX);
    let map = node.map();
    let mut report = wire::ReportWork { node: node.options.id.0, ..Default::default() };
    for (Lost { disk, group, extent, slot }, loss) in &found {
        // Of a slot that moved away meanwhile nothing is missed.
        let placement = map.groups.get(group).filter(|placement| placement.has(*slot, *disk));
        let Some(placement) = placement else { continue };
        let item = wire::SlotFilled {
            group: group.0,
            extent: extent.to_wire(),
            slot: u32::from(slot.0),
            disk: disk.0,
            epoch: placement.epoch.0,
        };
        match loss {
            Loss::Absent => report.lost.push(item),
            Loss::Damaged => report.damaged.push(item),
        }
    }
    let (absent, damaged) = (report.lost.len(), report.damaged.len());
    if (absent, damaged) == (0, 0) {
        return Ok(());
    }
    match node.ask_meta(Call::ReportWork(report)).await {
        Ok(_) => {
            info!(absent, damaged, "lost shards reported");
            Ok(())
        }
        Err(failure) => {
            node.lost.put_back(found);
            Err(failure)
        }
    }
}
