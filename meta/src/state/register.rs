//! A node says that it is here, and with which disks.

use std::collections::{BTreeMap, BTreeSet};

use env::KvRead;
use placement::{Disk, Duty, Group, Health, Node, REASON_BYTES_MAX, check_group};
use proto::{DiskId, DiskUuid, ErrorCode, GroupId, Label, NodeId, Timestamp, wire};
use wire::outcome::Outcome as Answer;

use crate::state::duty::RETIRED;
use crate::state::error::{Error, broken, invalid, refuse};
use crate::state::tasks::describe;
use crate::state::{Machine, Tx};

/// Disks of one node.
const DISKS_MAX: usize = 1024;
const NOT_ATTACHED: &str = "its node started without it";

/// A disk as the node reports it.
struct Reported {
    uuid: DiskUuid,
    name: Label,
    capacity_bytes: u64,
    failure: String,
}

impl Machine {
    pub(super) fn register_node<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        register: wire::RegisterNode,
    ) -> Result<Answer, Error> {
        let node = parse_node(&register)?;
        let reported = parse_disks(&register.disks)?;
        let known = self.map.nodes().get(&node.id);
        if let Some(known) = known.filter(|known| known.incarnation > node.incarnation) {
            let sentence = format!(
                "node {} is known with incarnation {}, this is {}: another daemon with this id runs, or ran with \
                 a clock ahead; stop it, or give this one an id of its own",
                node.id, known.incarnation, node.incarnation
            );
            return Err(refuse(ErrorCode::StaleNode, sentence));
        }
        let new = reported.iter().filter(|disk| self.map.disk_by_uuid(disk.uuid).is_none()).count();
        let room = u32::try_from(new).ok().and_then(|new| self.totals.next_disk.max(1).checked_add(new));
        let next_disk = room.ok_or_else(|| invalid("the ids of disks are used up"))?;

        let moved = known.is_some_and(|known| (&known.site, &known.rack) != (&node.site, &node.rack));
        let mut touched: BTreeSet<DiskId> = BTreeSet::new();
        if moved {
            touched.extend(self.map.disks_of(node.id).map(|disk| disk.id));
        }
        let id = node.id;
        let mut changed = self.put_node(tx, node);
        let mut disks = Vec::new();
        for disk in reported {
            let disk = self.identify(tx, id, disk);
            if self.map.disks().get(&disk.id).is_some_and(|before| before.node != id) {
                touched.insert(disk.id);
            }
            disks.push(disk.id);
            changed |= self.put_disk(tx, disk).map_err(broken)?;
        }
        self.totals.next_disk = next_disk;
        changed |= self.detach_others(tx, id, &disks)?;
        self.judge_again(tx, &touched)?;
        if changed {
            self.map_changed();
        }
        Ok(Answer::RegisterNode(wire::RegisterNodeReply {
            cluster_id: self.totals.cluster_id.clone(),
            disks: disks.into_iter().map(|disk| disk.0).collect(),
        }))
    }

    /// The disk under its known id, or a new one. What a disk is meant for stays; one that is retired stays down.
    fn identify<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, node: NodeId, reported: Reported) -> Disk {
        let Reported { uuid, name, capacity_bytes, failure } = reported;
        let health = if failure.is_empty() { Health::Up } else { Health::Down };
        if let Some(known) = self.map.disk_by_uuid(uuid) {
            let (health, reason) = match known.duty {
                Duty::Retired => (Health::Down, RETIRED.to_owned()),
                _ => (health, failure),
            };
            return Disk { node, name, capacity_bytes, health, reason, ..known.clone() };
        }
        let id = DiskId(self.totals.next_disk.max(1));
        self.totals.next_disk = id.0.saturating_add(1);
        self.note_replacement(tx, node, &name, id);
        let (duty, duty_reason) = self.drain_with_its_node(tx, node, id).unwrap_or_default();
        let (damaged_shards, damaged_since) = (0, Timestamp::ZERO);
        let reason = failure;
        Disk {
            id,
            uuid,
            node,
            name,
            capacity_bytes,
            health,
            reason,
            duty,
            duty_reason,
            damaged_shards,
            damaged_since,
        }
    }

    /// A new disk of the name that one has which is being replaced comes in its place.
    fn note_replacement<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, node: NodeId, name: &Label, new: DiskId) {
        let old = self.map.disks_of(node).filter(|old| old.name == *name);
        let task = old
            .filter_map(|old| self.tasks.of_disk(old.id))
            .find(|task| task.kind() == wire::TaskKind::ReplaceDisk && task.to_disk == 0);
        if let Some(task) = task.cloned() {
            self.put_task(tx, wire::Task { to_disk: new.0, ..task });
        }
    }

    /// A new disk of a node that is drained gets no slots either.
    fn drain_with_its_node<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        node: NodeId,
        new: DiskId,
    ) -> Option<(Duty, String)> {
        let mut task = self.tasks.active().find(|task| task.node == node.0)?.clone();
        let reason = describe(&task);
        task.disks.push(new.0);
        task.disks.sort_unstable();
        self.put_task(tx, task);
        Some((Duty::Draining, reason))
    }

    /// The node's other disks are down: nobody serves them.
    fn detach_others<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        node: NodeId,
        attached: &[DiskId],
    ) -> Result<bool, Error> {
        let others: Vec<Disk> =
            self.map.disks_of(node).filter(|disk| !attached.contains(&disk.id)).cloned().collect();
        let mut changed = false;
        for disk in others {
            let reason = if disk.duty == Duty::Retired { RETIRED } else { NOT_ATTACHED };
            let disk = Disk { health: Health::Down, reason: reason.to_owned(), ..disk };
            changed |= self.put_disk(tx, disk).map_err(broken)?;
        }
        Ok(changed)
    }

    /// Groups with a slot on disks that now lie in another domain: are they still as the policy wants?
    fn judge_again<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, disks: &BTreeSet<DiskId>) -> Result<(), Error> {
        let groups: BTreeMap<GroupId, &Group> =
            disks.iter().flat_map(|disk| self.map.groups_on(*disk)).map(|group| (group.id, group)).collect();
        let mut judged = Vec::new();
        for group in groups.into_values() {
            let Some(profile) = self.map.profiles().get(&group.profile) else { continue };
            let below_policy = check_group(&self.map, profile, &group.slots).is_err();
            if below_policy != group.below_policy {
                judged.push(Group { below_policy, ..group.clone() });
            }
        }
        for group in judged {
            self.put_group(tx, group).map_err(broken)?;
        }
        Ok(())
    }
}

fn parse_node(register: &wire::RegisterNode) -> Result<Node, Error> {
    if register.node == 0 {
        return Err(invalid("the node id is 0; node ids begin at 1"));
    }
    Ok(Node::try_from(wire::Node {
        id: register.node,
        site: register.site.clone(),
        rack: register.rack.clone(),
        address: register.address.clone(),
        health: Health::Up.to_wire(),
        incarnation: register.incarnation,
    })?)
}

fn parse_disks(reports: &[wire::DiskReport]) -> Result<Vec<Reported>, Error> {
    if reports.len() > DISKS_MAX {
        return Err(invalid(format!(
            "the node reports {} disks; at most {DISKS_MAX} are allowed",
            reports.len()
        )));
    }
    let mut uuids = BTreeSet::new();
    reports
        .iter()
        .map(|report| {
            let uuid = DiskUuid::from_wire(&report.uuid)?;
            if uuid == DiskUuid(0) {
                return Err(invalid(format!("disk {:?} has the uuid 0: format it again", report.name)));
            }
            if !uuids.insert(uuid) {
                return Err(invalid(format!("two disks have the uuid {uuid}: one is a copy; detach it")));
            }
            Ok(Reported {
                uuid,
                name: report.name.parse()?,
                capacity_bytes: report.capacity_bytes,
                failure: shortened(&report.failure, REASON_BYTES_MAX),
            })
        })
        .collect()
}

/// The first `bytes_max` bytes of a text, to a whole character.
pub(crate) fn shortened(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
