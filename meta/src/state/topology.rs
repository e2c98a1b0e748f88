//! The founding, and how nodes and disks are.

use std::collections::BTreeMap;

use env::KvRead;
use placement::{Disk, Duty, Health, Node, REASON_BYTES_MAX};
use proto::{ClusterId, DiskId, ErrorCode, Incarnation, InvalidInput, NodeId, wire};
use wire::outcome::Outcome as Answer;

use crate::state::error::{Error, broken, invalid, refuse};
use crate::state::{Machine, Tx, tables as t};

impl Machine {
    pub(super) fn found_cluster(&mut self, found: wire::FoundCluster) -> Result<Answer, Error> {
        let id = ClusterId::from_wire(&found.cluster_id)?;
        if id == ClusterId(0) {
            return Err(invalid("the cluster id is 0; make one of random bits"));
        }
        if self.totals.cluster_id.is_empty() {
            self.totals.cluster_id = found.cluster_id;
            self.totals.group_bytes_kept = true;
        } else if self.totals.cluster_id != found.cluster_id {
            let sentence = "the cluster is founded already: to add this server, use `clusterctl meta add`";
            return Err(refuse(ErrorCode::AlreadyBootstrapped, sentence));
        }
        Ok(Answer::Done(true))
    }

    /// Sets the health of nodes and disks. What is about an unknown one, or an earlier life of a node,
    /// is passed over: the judge saw an older state.
    pub(super) fn set_health<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        set: wire::SetHealth,
    ) -> Result<Answer, Error> {
        let mut nodes = BTreeMap::new();
        for item in &set.nodes {
            let health = Health::from_wire(item.health)?;
            let node = self.map.nodes().get(&NodeId(item.node));
            if let Some(node) = node.filter(|node| node.incarnation == Incarnation(item.incarnation)) {
                nodes.insert(node.id, Node { health, ..node.clone() });
            }
        }
        let mut disks = BTreeMap::new();
        for item in &set.disks {
            let health = Health::from_wire(item.health)?;
            if item.reason.len() > REASON_BYTES_MAX {
                return Err(invalid(format!(
                    "the reason of disk {} has over {REASON_BYTES_MAX} bytes",
                    item.disk
                )));
            }
            let disk = self.map.disks().get(&DiskId(item.disk));
            // Retired is for good: nothing serves it any more.
            if let Some(disk) = disk.filter(|disk| disk.duty != Duty::Retired) {
                let reason = if health == Health::Up { String::new() } else { item.reason.clone() };
                disks.insert(disk.id, Disk { health, reason, ..disk.clone() });
            }
        }
        let mut changed = false;
        for node in nodes.into_values() {
            changed |= self.put_node(tx, node);
        }
        for disk in disks.into_values() {
            changed |= self.put_disk(tx, disk).map_err(broken)?;
        }
        if changed {
            self.map_changed();
        }
        Ok(Answer::Done(true))
    }

    /// Puts a node into memory and its table; false when it stands there already.
    pub(super) fn put_node<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, node: Node) -> bool {
        if self.map.nodes().get(&node.id) == Some(&node) {
            return false;
        }
        tx.put(t::NODES, t::number_key(node.id.0), &wire::Node::from(&node));
        self.map.put_node(node);
        true
    }

    /// Puts a disk into memory and its table; false when it stands there already.
    pub(super) fn put_disk<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        disk: Disk,
    ) -> Result<bool, InvalidInput> {
        if self.map.disks().get(&disk.id) == Some(&disk) {
            return Ok(false);
        }
        let (id, row) = (disk.id, wire::Disk::from(&disk));
        self.map.put_disk(disk)?;
        tx.put(t::DISKS, t::number_key(id.0), &row);
        Ok(true)
    }
}
