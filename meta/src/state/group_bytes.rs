//! How many bytes of objects each group holds: what a move of one of its slots costs, and how full disks will be.
//!
//! Kept in a table of its own, since groups are rows that every node reads, and these numbers change with every
//! put. A state from before there was the table is counted once, from the extents; the first command after that
//! writes the rows, so that all replicas have them from the same place of the log on.

use std::collections::BTreeMap;

use env::{KvRead, StorageError};
use proto::{GroupId, wire};

use crate::state::tx::{decode, for_each_row};
use crate::state::{Machine, Tx, tables as t};

/// Bytes by group; groups without any are left out.
pub(super) type GroupBytes = BTreeMap<GroupId, u64>;

impl Machine {
    /// Bytes of objects in the group.
    pub fn group_bytes(&self, group: GroupId) -> u64 {
        self.group_bytes.get(&group).copied().unwrap_or_default()
    }

    /// What each slot of the group has of it, without what little the last stripes are padded with.
    pub fn slot_bytes(&self, group: GroupId) -> u64 {
        let profile = self.map.groups().get(&group).and_then(|row| self.map.profiles().get(&row.profile));
        let k = profile.and_then(|profile| u64::try_from(profile.k()).ok());
        self.group_bytes(group).div_ceil(k.unwrap_or(1).max(1))
    }

    /// An extent comes, or goes.
    pub(super) fn count_bytes<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        group: GroupId,
        gone: u64,
        come: u64,
    ) {
        let bytes = self.group_bytes(group).saturating_add(come).saturating_sub(gone);
        let key = t::number_key(group.0);
        if bytes == 0 {
            self.group_bytes.remove(&group);
            tx.delete(t::GROUP_BYTES, key);
        } else {
            self.group_bytes.insert(group, bytes);
            tx.put_bytes(t::GROUP_BYTES, key, t::bytes_value(bytes));
        }
    }

    /// Writes the table, if the state is from before there was one.
    pub(super) fn keep_group_bytes<K: KvRead>(&mut self, tx: &mut Tx<'_, K>) {
        if self.totals.group_bytes_kept || self.totals.cluster_id.is_empty() {
            return;
        }
        for (group, bytes) in &self.group_bytes {
            tx.put_bytes(t::GROUP_BYTES, t::number_key(group.0), t::bytes_value(*bytes));
        }
        self.totals.group_bytes_kept = true;
    }
}

/// From the table, or from the extents when it is missing.
pub(super) fn load(kv: &impl KvRead, kept: bool) -> Result<GroupBytes, StorageError> {
    let mut all = GroupBytes::new();
    if kept {
        for_each_row(kv, t::GROUP_BYTES, t::whole_table(), |key, value| {
            all.insert(GroupId(t::number_of(&key)?), t::bytes_of(&value)?);
            Ok(())
        })?;
    } else {
        for_each_row(kv, t::EXTENTS, t::whole_table(), |key, value| {
            let (group, _) = t::extent_of(&key)?;
            let row: wire::ExtentRow = decode(t::EXTENTS, value)?;
            let bytes = all.entry(group).or_default();
            *bytes = bytes.saturating_add(row.length);
            Ok(())
        })?;
        all.retain(|_, bytes| *bytes > 0);
    }
    Ok(all)
}
