//! The replicated state machine: what the metadata service knows, and the only code that changes it.
//!
//! [`Machine::apply`] is a pure function of the state and a command: no clock, no randomness, no floats,
//! no I/O but reads of the store that it is handed. What it changes goes into a [`Pending`], which the
//! caller writes together with the index of the log; equal logs give equal rows, byte for byte, however
//! the commands are spread over batches and whenever the process restarts.
//!
//! Memory holds what every call needs: the cluster map, the counters, tenants and buckets, tasks, bytes by group,
//! and which disk has work. All else is read from the store. [`Machine::load`] makes memory from the rows alone.
//!
//! Promises:
//!
//! - A refused command changes nothing but cluster time; nothing that a command holds causes a panic.
//! - A command id has one effect and one answer for as long as a command with it is accepted.
//! - Counters are exact, and every reference has its counterpart: [`verify::verify`] checks both.
//! - Nothing is dropped from a disk before what replaces it is recorded as whole.
//!
//! Questions ([`query`], [`list`], [`open`], [`take`], [`status`]) see the machine and a store in the
//! same state: the caller must not let an `apply` come between `apply` and the write of its batch.
//!
//! Left to others: agreeing on the order of commands, waiting, who may send what.

mod apply;
pub mod begin;
mod commit;
mod delete;
mod duty;
mod error;
mod group_bytes;
pub mod list;
mod moves;
mod objects;
pub mod open;
mod parse;
mod pending;
mod profiles;
pub mod query;
mod register;
mod report;
pub mod status;
pub mod tables;
pub mod take;
pub mod tasks;
mod tenancy;
mod topology;
mod tx;
pub mod verify;
mod work_index;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use env::{KvRead, StorageError, Table};
use placement::{ClusterMap, Group};
use proto::prost::Message;
use proto::{
    BucketId, BucketName, CommandId, ErrorCode, Failure, GroupId, InvalidInput, TenantId, TenantName,
    Timestamp, wire,
};

pub use error::Error;
pub use pending::{Overlay, Pending};
pub use profiles::SUBSTITUTES_MAX;
pub use report::REPORT_ITEMS_MAX;

pub(crate) use apply::refused;
pub(crate) use duty::damage_is_old;
pub(crate) use moves::{leftover_disks, to_placement_with_kept};
pub(crate) use register::shortened;

use crate::state::error::corrupt;
use crate::state::group_bytes::GroupBytes;
use crate::state::tables as t;
use crate::state::tasks::Tasks;
use crate::state::tx::{Tx, decode, for_each_row, row};
use crate::state::work_index::WorkIndex;

/// The state, as far as it lies in memory.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    map: ClusterMap,
    totals: wire::Totals,
    tenants: BTreeMap<String, wire::TenantRow>,
    buckets: BTreeMap<BucketId, wire::BucketRow>,
    bucket_ids: BTreeMap<(TenantId, String), BucketId>,
    work: WorkIndex,
    tasks: Tasks,
    group_bytes: GroupBytes,
    /// No command older than this has a row.
    oldest_command: Option<CommandId>,
}

impl Machine {
    /// Reads the state from its rows; an empty store is a cluster that is not founded yet.
    ///
    /// Takes time with the numbers of groups, buckets, incomplete extents and undropped garbage, not
    /// with that of objects; but once with that of all extents, when the state is from before bytes were counted
    /// by group.
    ///
    /// # Errors
    ///
    /// `Corrupt` when rows do not parse or contradict each other; those of the store.
    pub fn load(kv: &impl KvRead) -> Result<Self, StorageError> {
        let mut machine =
            Self { totals: row(kv, t::TOTALS, &t::totals_key())?.unwrap_or_default(), ..Self::default() };
        machine.load_map(kv)?;
        machine.load_names(kv)?;
        machine.load_work(kv)?;
        for_each_row(kv, t::TASKS, t::whole_table(), |_, value| {
            machine.tasks.remember(decode(t::TASKS, value)?);
            Ok(())
        })?;
        machine.group_bytes = group_bytes::load(kv, machine.totals.group_bytes_kept)?;
        let first = kv.scan(t::COMMANDS, &t::whole_table(), env::Order::Ascending, 1)?;
        machine.oldest_command = first.first().map(|(key, _)| t::command_of(key)).transpose()?;
        Ok(machine)
    }

    fn load_map(&mut self, kv: &impl KvRead) -> Result<(), StorageError> {
        let map = &mut self.map;
        load_rows::<wire::Node, _>(kv, t::NODES, |node| {
            map.put_node(node.try_into()?);
            Ok(())
        })?;
        load_rows::<wire::Disk, _>(kv, t::DISKS, |disk| map.put_disk(disk.try_into()?))?;
        load_rows::<wire::Profile, _>(kv, t::PROFILES, |profile| map.put_profile(profile.try_into()?))?;
        let work = &mut self.work;
        load_rows::<wire::Group, _>(kv, t::GROUPS, |group| {
            let group = Group::try_from(group)?;
            work.put_group(None, &group);
            map.put_group(group)
        })?;
        self.map.set_version(self.totals.map_version);
        Ok(())
    }

    fn load_names(&mut self, kv: &impl KvRead) -> Result<(), StorageError> {
        load_rows::<wire::TenantRow, _>(kv, t::TENANTS, |tenant| {
            tenant.name.parse::<TenantName>()?;
            self.tenants.insert(tenant.name.clone(), tenant);
            Ok(())
        })?;
        load_rows::<wire::BucketRow, _>(kv, t::BUCKETS, |bucket| {
            bucket.name.parse::<BucketName>()?;
            self.remember_bucket(bucket);
            Ok(())
        })
    }

    fn load_work(&mut self, kv: &impl KvRead) -> Result<(), StorageError> {
        for_each_row(kv, t::INCOMPLETE, t::whole_table(), |key, value| {
            let (group, extent) = t::extent_of(&key)?;
            let known = self.map.groups().get(&group);
            let known =
                known.ok_or_else(|| corrupt(format!("extent {extent} is in unknown group {group}")))?;
            self.work.missing(known, 0, t::mask_of(&value)?);
            Ok(())
        })?;
        for_each_row(kv, t::GARBAGE, t::whole_table(), |key, value| {
            let (group, _) = t::extent_of(&key)?;
            self.work.garbage(group, &[], &decode::<wire::GarbageRow>(t::GARBAGE, value)?.slots);
            Ok(())
        })
    }

    /// The cluster map.
    pub fn map(&self) -> &ClusterMap {
        &self.map
    }

    /// Counters and the like.
    pub fn totals(&self) -> &wire::Totals {
        &self.totals
    }

    /// Cluster time: the latest that a leader has claimed. Never falls.
    pub fn cluster_time(&self) -> Timestamp {
        Timestamp::from_millis(self.totals.cluster_time_ms)
    }

    /// 16 bytes; empty before the cluster is founded.
    pub fn cluster_id(&self) -> &[u8] {
        &self.totals.cluster_id
    }

    /// Do outcomes wait to be dropped, since no command with their id is accepted after `now`?
    pub fn has_expired_commands(&self, now: Timestamp) -> bool {
        self.oldest_command.is_some_and(|id| parse::is_over(id.made(), now.max(self.cluster_time())))
    }

    /// How many slots are being rebuilt.
    pub fn slots_rebuilding(&self) -> usize {
        self.work.rebuilding()
    }

    /// The groups that stand below their policy.
    pub fn groups_below_policy(&self) -> &BTreeSet<GroupId> {
        self.work.below_policy()
    }

    pub(crate) fn work(&self) -> &WorkIndex {
        &self.work
    }

    pub(crate) fn founded(&self) -> Result<(), Failure> {
        if self.totals.cluster_id.is_empty() {
            let sentence = "the cluster is not founded yet: run `clusterctl meta bootstrap` once";
            return Err(Failure::new(ErrorCode::NotBootstrapped, sentence));
        }
        Ok(())
    }

    pub(crate) fn tenant(&self, name: &str) -> Result<&wire::TenantRow, Failure> {
        self.founded()?;
        name.parse::<TenantName>()?;
        self.tenants.get(name).ok_or_else(|| {
            Failure::new(
                ErrorCode::NoSuchTenant,
                format!("there is no tenant {name}; an operator creates tenants"),
            )
        })
    }

    pub(crate) fn bucket(&self, tenant: &str, name: &str) -> Result<&wire::BucketRow, Failure> {
        let id = TenantId(self.tenant(tenant)?.id);
        name.parse::<BucketName>()?;
        self.bucket_ids.get(&(id, name.to_owned())).and_then(|id| self.buckets.get(id)).ok_or_else(|| {
            let sentence = format!("tenant {tenant} has no bucket {name}; create it first");
            Failure::new(ErrorCode::NoSuchBucket, sentence)
        })
    }

    pub(crate) fn buckets_of(&self, tenant: TenantId) -> impl Iterator<Item = &wire::BucketRow> {
        let from = (tenant, String::new());
        let ids = self.bucket_ids.range(from..).take_while(move |((owner, _), _)| *owner == tenant);
        ids.filter_map(|(_, id)| self.buckets.get(id))
    }

    fn remember_bucket(&mut self, bucket: wire::BucketRow) {
        let id = BucketId(bucket.id);
        self.bucket_ids.insert((TenantId(bucket.tenant), bucket.name.clone()), id);
        self.buckets.insert(id, bucket);
    }

    /// Puts a group into memory and its table.
    fn put_group<K: KvRead>(&mut self, tx: &mut Tx<'_, K>, group: Group) -> Result<(), InvalidInput> {
        let id = group.id;
        let before = self.map.groups().get(&id).cloned();
        let row = wire::Group::from(&group);
        self.map.put_group(group)?;
        if let Some(after) = self.map.groups().get(&id) {
            self.work.put_group(before.as_ref(), after);
        }
        tx.put(t::GROUPS, t::number_key(id.0), &row);
        Ok(())
    }

    /// Raises the map's version, once for a command that changed the map.
    fn map_changed(&mut self) {
        self.totals.map_version = self.totals.map_version.saturating_add(1);
        self.map.set_version(self.totals.map_version);
    }
}

fn load_rows<M, F>(kv: &impl KvRead, table: Table, mut put: F) -> Result<(), StorageError>
where
    M: Message + Default,
    F: FnMut(M) -> Result<(), InvalidInput>,
{
    for_each_row(kv, table, t::whole_table(), |_, value| {
        put(decode(table, value)?)
            .map_err(|error| corrupt(format!("a row of {table} is wrong")).because(error))
    })
}
