//! Changes that are decided but not yet written, and reads that see them.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use env::{Batch, KeyRange, KvRead, Order, Row, StorageError, Table};

/// Rows that commands have changed and the store does not have yet; `None` is a removal.
///
/// Several commands may share one, in the order of the log; [`Pending::into_batch`] then makes it one
/// write.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    tables: BTreeMap<Table, BTreeMap<Bytes, Option<Bytes>>>,
}

impl Pending {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// True when nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// How many rows are changed.
    pub fn len(&self) -> usize {
        self.tables.values().map(BTreeMap::len).sum()
    }

    /// All changes, each row once, in the order of tables and keys.
    pub fn into_batch(self) -> Batch {
        let mut batch = Batch::new();
        for (table, rows) in self.tables {
            for (key, value) in rows {
                match value {
                    Some(value) => batch.put(table, key, value),
                    None => batch.delete(table, key),
                }
            }
        }
        batch
    }

    pub(crate) fn set(&mut self, table: Table, key: impl Into<Bytes>, value: Option<Bytes>) {
        self.tables.entry(table).or_default().insert(key.into(), value);
    }

    /// Reads that see these changes over `kv`.
    pub fn over<'a, K: KvRead>(&'a self, kv: &'a K) -> Overlay<'a, K> {
        Overlay { pending: self, kv }
    }
}

/// A store as it will be once the pending changes are written.
#[derive(Clone, Copy, Debug)]
pub struct Overlay<'a, K> {
    pending: &'a Pending,
    kv: &'a K,
}

impl<K: KvRead> KvRead for Overlay<'_, K> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match self.pending.tables.get(table).and_then(|rows| rows.get(key)) {
            Some(value) => Ok(value.clone()),
            None => self.kv.get(table, key),
        }
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        let changed = self.changed(table, range);
        if changed.is_empty() {
            return self.kv.scan(table, range, order, limit);
        }
        // As many rows more as are hidden at most: then `limit` rows are left, or the range is read out.
        let hidden = changed.len();
        let mut merged: BTreeMap<Bytes, Bytes> =
            self.kv.scan(table, range, order, limit.saturating_add(hidden))?.into_iter().collect();
        for (key, value) in changed {
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        let rows = merged.into_iter();
        Ok(match order {
            Order::Ascending => rows.take(limit).collect(),
            Order::Descending => rows.rev().take(limit).collect(),
        })
    }
}

impl<K> Overlay<'_, K> {
    fn changed(&self, table: Table, range: &KeyRange) -> Vec<(&Bytes, &Option<Bytes>)> {
        let Some(rows) = self.pending.tables.get(table) else { return Vec::new() };
        let end = match range.end.as_deref() {
            Some(end) if end <= range.start.as_slice() => return Vec::new(),
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        };
        rows.range::<[u8], _>((Bound::Included(range.start.as_slice()), end)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::testing::TestKv;

    proptest! {
        /// Reads through the overlay equal reads after the batch was written.
        #[test]
        fn like_the_store_after_the_write(
            base in prop::collection::btree_map(0..40u8, any::<u8>(), 0..30),
            changes in prop::collection::vec((0..40u8, any::<Option<u8>>()), 0..30),
            start in 0..40u8, end in prop::option::of(0..40u8), limit in 0..12usize, ascending: bool,
        ) {
            let bytes = |byte: u8| Bytes::copy_from_slice(&[byte]);
            let mut kv = TestKv::default();
            let mut batch = Batch::new();
            base.iter().for_each(|(key, value)| batch.put("t", bytes(*key), bytes(*value)));
            kv.write(batch);
            let mut pending = Pending::new();
            changes.iter().for_each(|(key, value)| pending.set("t", bytes(*key), value.map(bytes)));
            let range = KeyRange { start: vec![start], end: end.map(|end| vec![end]) };
            let order = if ascending { Order::Ascending } else { Order::Descending };
            let before = pending.over(&kv).scan("t", &range, order, limit).unwrap();
            let gets: Vec<_> = (0..40u8).map(|key| pending.over(&kv).get("t", &[key]).unwrap()).collect();
            kv.write(pending.into_batch());
            prop_assert_eq!(before, kv.scan("t", &range, order, limit).unwrap());
            let after: Vec<_> = (0..40u8).map(|key| kv.get("t", &[key]).unwrap()).collect();
            prop_assert_eq!(gets, after);
        }
    }
}
