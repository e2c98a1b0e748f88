//! Does everything add up? For tests and the simulator: reads all rows, and keeps the extents in memory.

use std::collections::{BTreeMap, BTreeSet};

use env::{KvRead, StorageError};
use placement::{Duty, check_group};
use proto::{BucketId, ExtentId, GroupId, TenantId, wire};

use crate::state::tx::{decode, for_each_row};
use crate::state::{Machine, tables as t};

/// Recomputes every counter, follows every reference both ways, and compares memory with the rows.
/// Each discrepancy is a sentence; none means that all is well.
///
/// # Errors
///
/// Those of the store, and `Corrupt` when rows do not parse.
pub fn verify(machine: &Machine, kv: &impl KvRead) -> Result<Vec<String>, StorageError> {
    let mut check = Check { machine, wrong: Vec::new() };
    check.memory(&Machine::load(kv)?);
    check.groups();
    check.duties();
    let claimed = check.objects(kv)?;
    check.extents(kv, claimed)?;
    check.garbage(kv)?;
    Ok(check.wrong)
}

type Claims = BTreeMap<(GroupId, ExtentId), (wire::ExtentRef, BucketId, bytes::Bytes, u64)>;

struct Check<'a> {
    machine: &'a Machine,
    wrong: Vec<String>,
}

impl Check<'_> {
    fn expect<T: PartialEq + std::fmt::Debug>(&mut self, what: impl Fn() -> String, found: T, expected: T) {
        if found != expected {
            self.wrong.push(format!("{}: found {found:?}, expected {expected:?}", what()));
        }
    }

    /// Memory is what the rows make of it.
    fn memory(&mut self, loaded: &Machine) {
        let machine = self.machine;
        self.expect(|| "totals".into(), &machine.totals, &loaded.totals);
        self.expect(|| "tenants".into(), &machine.tenants, &loaded.tenants);
        self.expect(|| "buckets".into(), &machine.buckets, &loaded.buckets);
        self.expect(|| "bucket names".into(), &machine.bucket_ids, &loaded.bucket_ids);
        self.expect(|| "index of work".into(), &machine.work, &loaded.work);
        self.expect(|| "tasks".into(), &machine.tasks, &loaded.tasks);
        self.expect(|| "bytes by group".into(), &machine.group_bytes, &loaded.group_bytes);
        let maps = [machine, loaded].map(|machine| wire::Map::from(machine.map()));
        self.expect(|| "map".into(), &maps[0], &maps[1]);
        let first = loaded.oldest_command;
        if first.is_some() && machine.oldest_command.is_none_or(|oldest| Some(oldest) > first) {
            self.wrong.push(format!("oldest command: {:?}, the rows have {first:?}", machine.oldest_command));
        }
    }

    /// The flag of each group is as the validator finds.
    fn groups(&mut self) {
        let map = self.machine.map();
        for group in map.groups().values() {
            let Some(profile) = map.profiles().get(&group.profile) else { continue };
            let below_policy = check_group(map, profile, &group.slots).is_err();
            self.expect(|| format!("group {} below policy", group.id), group.below_policy, below_policy);
        }
    }

    /// What is retired is in no group, and what a task empties is not in service.
    fn duties(&mut self) {
        let map = self.machine.map();
        for disk in map.disks().values() {
            let groups = map.groups_on(disk.id).count();
            if disk.duty == Duty::Retired {
                self.expect(|| format!("groups of retired disk {}", disk.id), groups, 0);
            }
            let task = self.machine.tasks.of_disk(disk.id);
            self.expect(
                || format!("disk {} in service, and emptied by a task", disk.id),
                disk.duty == Duty::InService && task.is_some(),
                false,
            );
        }
        let slots = map.groups().values().flat_map(|group| &group.slots);
        for task in slots.filter_map(|slot| slot.task) {
            let known = task.0 < self.machine.totals.next_task;
            self.expect(|| format!("task {task} of a slot was begun"), known, true);
        }
    }

    /// Counts objects, and collects what their extents must look like.
    fn objects(&mut self, kv: &impl KvRead) -> Result<Claims, StorageError> {
        let mut claims = Claims::new();
        let mut counted: BTreeMap<BucketId, (u64, u64)> = BTreeMap::new();
        for_each_row(kv, t::OBJECTS, t::whole_table(), |key, value| {
            let bucket = BucketId(t::number_of(&key)?);
            let object = t::object_of(&key)?;
            let row: wire::ObjectRow = decode(t::OBJECTS, value)?;
            let (objects, bytes) = counted.entry(bucket).or_default();
            *objects += 1;
            *bytes += row.size;
            let content = row.extents.iter().map(|extent| extent.length).sum::<u64>();
            let inline = u64::try_from(row.inline.len()).unwrap_or(u64::MAX);
            self.expect(|| format!("bytes of {object:?}"), content + inline, row.size);
            for extent in row.extents {
                let id = ExtentId::from_wire(&extent.id).unwrap_or(ExtentId(0));
                let claim = (GroupId(extent.group), id);
                if claims.insert(claim, (extent, bucket, object.clone(), row.version)).is_some() {
                    self.wrong.push(format!("extent {id} belongs to two objects"));
                }
            }
            Ok(())
        })?;
        let (mut objects, mut bytes) = (0, 0);
        for (id, bucket) in &self.machine.buckets {
            let found = counted.remove(id).unwrap_or_default();
            self.expect(|| format!("counters of bucket {id}"), (bucket.objects, bucket.bytes), found);
            objects += found.0;
            bytes += found.1;
            let known = self.machine.tenants.values().any(|tenant| tenant.id == bucket.tenant);
            self.expect(|| format!("tenant {} of bucket {id}", TenantId(bucket.tenant)), known, true);
        }
        self.expect(|| "buckets without a row".into(), counted.len(), 0);
        let totals = self.machine.totals();
        self.expect(|| "objects and bytes".into(), (totals.objects, totals.object_bytes), (objects, bytes));
        Ok(claims)
    }

    fn extents(&mut self, kv: &impl KvRead, mut claims: Claims) -> Result<(), StorageError> {
        let mut masks = BTreeMap::new();
        for_each_row(kv, t::INCOMPLETE, t::whole_table(), |key, value| {
            masks.insert(t::extent_of(&key)?, t::mask_of(&value)?);
            Ok(())
        })?;
        let (incomplete, mut count) = (masks.len(), 0u64);
        let mut bytes: BTreeMap<GroupId, u64> = BTreeMap::new();
        let missing: u64 = masks.values().map(|mask| u64::from(mask.count_ones())).sum();
        for_each_row(kv, t::EXTENTS, t::whole_table(), |key, value| {
            count += 1;
            let id = t::extent_of(&key)?;
            let row: wire::ExtentRow = decode(t::EXTENTS, value)?;
            *bytes.entry(id.0).or_default() += row.length;
            let mask = masks.remove(&id).unwrap_or_default();
            self.expect(|| format!("mask of extent {id:?}"), mask, row.missing);
            let found = (row.length, BucketId(row.bucket), row.key, row.version);
            let claim = claims
                .remove(&id)
                .map(|(extent, bucket, key, version)| (extent.length, bucket, key, version));
            self.expect(|| format!("object of extent {id:?}"), Some(found), claim);
            Ok(())
        })?;
        self.expect(|| "bytes of extents by group".into(), &bytes, &self.machine.group_bytes);
        self.expect(
            || "extents of objects without a row".into(),
            claims.into_keys().collect::<Vec<_>>(),
            Vec::new(),
        );
        self.expect(
            || "incomplete extents without a row".into(),
            masks.into_keys().collect::<Vec<_>>(),
            Vec::new(),
        );
        let totals = self.machine.totals();
        let incomplete = u64::try_from(incomplete).unwrap_or(u64::MAX);
        self.expect(
            || "extents, incomplete, slots missing".into(),
            (totals.extents, totals.extents_incomplete, totals.slots_missing),
            (count, incomplete, missing),
        );
        Ok(())
    }

    fn garbage(&mut self, kv: &impl KvRead) -> Result<(), StorageError> {
        let mut count = 0u64;
        for_each_row(kv, t::GARBAGE, t::whole_table(), |key, value| {
            count += 1;
            let (group, extent) = t::extent_of(&key)?;
            let row: wire::GarbageRow = decode(t::GARBAGE, value)?;
            let slots: BTreeSet<(u32, u32)> = row.slots.iter().map(|slot| (slot.slot, slot.disk)).collect();
            self.expect(|| format!("repeated garbage of {group} {extent}"), slots.len(), row.slots.len());
            self.expect(|| format!("empty garbage of {group} {extent}"), slots.is_empty(), false);
            if kv.get(t::EXTENTS, &key)?.is_some() {
                self.wrong.push(format!("extent {extent} of group {group} is in use and garbage"));
            }
            let known = self.machine.map().groups().get(&group);
            for (slot, disk) in slots.into_iter().filter(|_| extent == t::WHOLE_SLOT) {
                let used = known.is_some_and(|group| group.disks().any(|used| used.0 == disk));
                self.expect(
                    || format!("group {group} slot {slot} uses disk {disk}, which is to drop it"),
                    used,
                    false,
                );
            }
            Ok(())
        })?;
        self.expect(|| "garbage".into(), self.machine.totals().garbage_extents, count);
        Ok(())
    }
}
