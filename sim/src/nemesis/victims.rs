//! Whom faults can hit.

use std::sync::Arc;

use proto::NodeId;
use simhost::{DiskDevice, Host};

use crate::cluster::{Cluster, MetaHost, NodeHost};
use crate::process::{Process, lock};

/// A disk in its machine.
#[derive(Clone)]
pub(super) struct DiskAt {
    /// The machine.
    pub(super) host: Host,
    /// Whose it is.
    pub(super) node: NodeId,
    /// Where it is mounted.
    pub(super) path: String,
}

impl DiskAt {
    /// The disk that is there now.
    pub(super) fn device(&self) -> Option<DiskDevice> {
        self.host.disk(&self.path)
    }
}

/// Metadata servers that take part, or should.
pub(super) fn metas(cluster: &Cluster) -> Vec<Arc<MetaHost>> {
    cluster.metas().into_iter().filter(|meta| meta.process.is_wanted()).collect()
}

/// Nodes that were not given up.
pub(super) fn nodes(cluster: &Cluster) -> Vec<Arc<NodeHost>> {
    cluster.nodes().into_iter().filter(|node| node.process.is_wanted()).collect()
}

/// The processes of all servers.
pub(super) fn servers(cluster: &Cluster) -> Vec<Process> {
    let metas = metas(cluster).into_iter().map(|meta| meta.process.clone());
    metas.chain(nodes(cluster).into_iter().map(|node| node.process.clone())).collect()
}

/// The processes of servers that run just now.
pub(super) fn running(cluster: &Cluster) -> Vec<Process> {
    servers(cluster).into_iter().filter(|process| process.host().is_alive()).collect()
}

/// All hosts that talk to one another: servers and clients.
pub(super) fn everybody(cluster: &Cluster) -> Vec<Host> {
    let all = servers(cluster).into_iter().chain(cluster.clients());
    all.map(|process| process.host().clone()).collect()
}

/// What stands in a rack. Metadata servers stand in the racks of the nodes, one after another.
pub(super) fn in_rack(cluster: &Cluster, rack: u32) -> Vec<Process> {
    let racks = u64::try_from(cluster.plan.racks.len()).unwrap_or(1).max(1);
    let nodes = nodes(cluster).into_iter().filter(|node| node.rack == rack);
    let metas = metas(cluster).into_iter().filter(|meta| meta.id.0 % racks + 1 == u64::from(rack));
    nodes.map(|node| node.process.clone()).chain(metas.map(|meta| meta.process.clone())).collect()
}

/// The racks that have nodes.
pub(super) fn racks(cluster: &Cluster) -> Vec<u32> {
    let mut racks: Vec<u32> = nodes(cluster).iter().map(|node| node.rack).collect();
    racks.sort_unstable();
    racks.dedup();
    racks
}

/// Disks of nodes that were not given up, in machines that run or not; none that is gone for good.
pub(super) fn disks(cluster: &Cluster) -> Vec<DiskAt> {
    nodes(cluster).iter().flat_map(|node| disks_of(cluster, node)).collect()
}

/// Those of one node.
pub(super) fn disks_of(cluster: &Cluster, node: &NodeHost) -> Vec<DiskAt> {
    let lost = lock(&cluster.nemesis.lost);
    let there = node.disks.iter().filter(|path| !lost.disks.contains_key(&(node.id, (*path).clone())));
    let at = |path: &String| DiskAt { host: node.process.host().clone(), node: node.id, path: path.clone() };
    there.map(at).filter(|disk| disk.device().is_some()).collect()
}

/// The metadata server that leads, in its own eyes; of several the one of the latest term.
pub(crate) fn leader(cluster: &Cluster) -> Option<Arc<MetaHost>> {
    let term = |meta: &Arc<MetaHost>| {
        let standing = meta.server()?.standing()?;
        standing.leads.then_some(standing.term)
    };
    metas(cluster)
        .into_iter()
        .filter_map(|meta| Some((term(&meta)?, meta)))
        .max_by_key(|(term, _)| *term)
        .map(|(_, meta)| meta)
}
