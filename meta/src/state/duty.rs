//! What disks are meant for: taken out of service, brought back, given up, retired.

use env::KvRead;
use placement::{Disk, Duty, Health};
use proto::{DiskId, GroupId, NodeId, Timestamp, wire};
use wire::outcome::Outcome as Answer;

use crate::state::error::{Error, broken, invalid};
use crate::state::tasks::{Ending, describe};
use crate::state::tx::decode;
use crate::state::{Machine, Tx, tables as t};

/// Why a retired disk is down.
pub(super) const RETIRED: &str = "it is retired: take it out of the node's configuration, or format it again, which \
                                  makes a new disk of it";
/// Damage is counted for so long.
const DAMAGE_MS: u64 = 24 * 60 * 60 * 1000;
/// Rows that one command drops from the garbage, and that it looks at.
const FORGOTTEN_MAX: usize = 512;
const READ_MAX: usize = 16 * 1024;

impl Machine {
    /// Sets the duty of disks that exist; retired ones stay that.
    pub(super) fn set_duty<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        disks: &[u32],
        duty: Duty,
        reason: &str,
    ) -> Result<(), Error> {
        let mut changed = false;
        for disk in disks {
            let disk = self.map.disks().get(&DiskId(*disk)).filter(|disk| disk.duty != Duty::Retired);
            let Some(mut disk) = disk.cloned() else { continue };
            if disk.duty == duty {
                continue;
            }
            if duty == Duty::Retired {
                (disk.health, disk.reason) = (Health::Down, RETIRED.to_owned());
            }
            if duty == Duty::InService {
                (disk.damaged_shards, disk.damaged_since) = (0, Timestamp::ZERO);
            }
            (disk.duty, disk.duty_reason) = (duty, reason.to_owned());
            changed |= self.put_disk(tx, disk).map_err(broken)?;
        }
        if changed {
            self.map_changed();
        }
        Ok(())
    }

    /// Brings disks back into service, and cancels what empties them.
    pub(super) fn undrain<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        undrain: &wire::Undrain,
    ) -> Result<Answer, Error> {
        let disks: Vec<Disk> = match (undrain.node, undrain.disk) {
            (node @ 1.., 0) => {
                let node = self.known_node(node)?;
                let of_node = |disk: &&Disk| {
                    let task = self.tasks.of_disk(disk.id);
                    disk.duty == Duty::Draining || task.is_some_and(|task| task.node == node.0)
                };
                self.map.disks_of(node).filter(of_node).cloned().collect()
            }
            (0, disk @ 1..) => vec![self.known_disk(disk)?.clone()],
            _ => return Err(invalid("name either a node or a disk to bring back into service")),
        };
        let mut cancelled = Vec::new();
        for disk in &disks {
            if disk.duty == Duty::Retired {
                return Err(invalid(format!("disk {} is retired, and is so for good", disk.id)));
            }
            let Some(task) = self.tasks.of_disk(disk.id) else { continue };
            if undrain.node == 0 && task.disks.len() > 1 {
                let sentence =
                    format!("{} empties disk {}: undrain the node, not the disk", describe(task), disk.id);
                return Err(invalid(sentence));
            }
            cancelled.push(task.id);
        }
        cancelled.dedup();
        for task in cancelled {
            self.finish_task(tx, task, &Ending::cancelled());
        }
        let ids: Vec<u32> = disks.iter().map(|disk| disk.id.0).collect();
        self.set_duty(tx, &ids, Duty::InService, "")?;
        Ok(Answer::Done(true))
    }

    /// Retires the disks of a node that is gone.
    pub(super) fn forget_node<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        forget: &wire::ForgetNode,
    ) -> Result<Answer, Error> {
        let id = self.known_node(forget.node)?;
        let disks = self.map.disks_of(id).filter(|disk| disk.duty != Duty::Retired);
        let disks: Vec<u32> = disks.map(|disk| disk.id.0).collect();
        if disks.is_empty() {
            return Ok(Answer::Done(true));
        }
        for disk in &disks {
            let groups = self.map.groups_on(DiskId(*disk)).count();
            if groups > 0 {
                let sentence = format!(
                    "disk {disk} of node {id} still has slots of {groups} groups: empty the node first with \
                     `clusterctl node drain {id}`, or wait until its slots are elsewhere"
                );
                return Err(invalid(sentence));
            }
        }
        if self.map.nodes().get(&id).is_some_and(|node| node.health != Health::Down) {
            return Err(invalid(format!(
                "node {id} is not down: stop its daemon first, then wait until it is"
            )));
        }
        let mut tasks: Vec<u32> =
            disks.iter().filter_map(|disk| self.tasks.of_disk(DiskId(*disk))).map(|task| task.id).collect();
        tasks.dedup();
        for task in tasks {
            self.finish_task(tx, task, &Ending::done());
        }
        self.set_duty(tx, &disks, Duty::Retired, "its node was removed")?;
        Ok(Answer::Done(true))
    }

    /// Drops what a retired disk kept from the garbage: nobody will ever ask it again.
    pub(super) fn forget_leftovers<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        forget: &wire::ForgetLeftovers,
    ) -> Result<Answer, Error> {
        let disk = self.known_disk(forget.disk)?;
        if disk.duty != Duty::Retired {
            return Err(invalid(format!(
                "disk {} is {}: it may still drop what it kept",
                disk.id, disk.duty
            )));
        }
        let id = disk.id;
        let groups: Vec<GroupId> = self.work.drops(id).map(|(group, _)| group).take(FORGOTTEN_MAX).collect();
        let (mut read, mut forgotten) = (0, 0);
        for group in groups {
            if read >= READ_MAX || forgotten >= FORGOTTEN_MAX {
                break;
            }
            let rows = tx.scan(t::GARBAGE, &t::rows_of(group.0), READ_MAX.saturating_sub(read))?;
            read = read.saturating_add(rows.len());
            for (key, value) in rows {
                if forgotten < FORGOTTEN_MAX {
                    let row = decode(t::GARBAGE, value)?;
                    forgotten += usize::from(self.forget_in_row(tx, group, key, row, id));
                }
            }
        }
        Ok(Answer::Done(true))
    }

    fn forget_in_row<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        group: GroupId,
        key: bytes::Bytes,
        mut row: wire::GarbageRow,
        disk: DiskId,
    ) -> bool {
        let before = row.slots.clone();
        row.slots.retain(|slot| slot.disk != disk.0);
        let found = row.slots.len() < before.len();
        if found {
            self.put_garbage(tx, group, key, &before, &row);
        }
        found
    }

    /// A garbage row has fewer slots than before, perhaps none.
    pub(super) fn put_garbage<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        group: GroupId,
        key: bytes::Bytes,
        before: &[wire::GarbageSlot],
        row: &wire::GarbageRow,
    ) {
        self.work.garbage(group, before, &row.slots);
        if row.slots.is_empty() {
            self.totals.garbage_extents = self.totals.garbage_extents.saturating_sub(1);
            tx.delete(t::GARBAGE, key);
        } else if row.slots.len() < before.len() {
            tx.put(t::GARBAGE, key, row);
        }
    }

    /// So many more extents were found damaged on the disk. A count that is a day old begins anew.
    pub(super) fn count_damage<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        disk: DiskId,
        found: u32,
    ) -> Result<(), Error> {
        let Some(mut disk) = self.map.disks().get(&disk).cloned() else { return Ok(()) };
        if damage_is_old(&disk, tx.now) {
            (disk.damaged_shards, disk.damaged_since) = (0, tx.now);
        }
        disk.damaged_shards = disk.damaged_shards.saturating_add(found);
        if self.put_disk(tx, disk).map_err(broken)? {
            self.map_changed();
        }
        Ok(())
    }

    pub(super) fn known_disk(&self, disk: u32) -> Result<&Disk, Error> {
        let known = self.map.disks().get(&DiskId(disk));
        known.ok_or_else(|| invalid(format!("there is no disk {disk}: see `clusterctl status`")))
    }

    pub(super) fn known_node(&self, node: u32) -> Result<NodeId, Error> {
        let known = self.map.nodes().get(&NodeId(node)).map(|node| node.id);
        known.ok_or_else(|| invalid(format!("there is no node {node}: see `clusterctl status`")))
    }

    /// Has the disk nothing of any group: no slot, no source of a move, and nothing that it still has to drop?
    /// Of a disk that is given up and down nobody waits for drops.
    pub(super) fn is_empty_disk(&self, disk: DiskId) -> bool {
        let duty = self.map.disk_duty(disk);
        let nobody_drops = duty.is_given_up() && self.map.disk_health(disk) == Health::Down;
        self.map.groups_on(disk).next().is_none() && (nobody_drops || self.work.drops(disk).next().is_none())
    }
}

/// Is what was counted too long ago to tell anything, or is there nothing?
pub(crate) fn damage_is_old(disk: &Disk, now: Timestamp) -> bool {
    let age_ms = now.as_millis().saturating_sub(disk.damaged_since.as_millis());
    disk.damaged_shards == 0 || age_ms > DAMAGE_MS
}
