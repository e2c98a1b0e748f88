//! The tables of a store. Copies share what neither has changed since.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use env::kv::Change;
use env::{KeyRange, Order, Row, StorageError, Table};

use super::names;

type Rows = BTreeMap<Bytes, Bytes>;
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Tables by name, rows by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables(BTreeMap<Table, Arc<Rows>>);

/// What takes a change back.
#[derive(Debug)]
pub(super) enum Reversal {
    /// The key had this value, or none.
    Row(Table, Bytes, Option<Bytes>),
    /// The table had these rows.
    Table(Table, Arc<Rows>),
}

impl Tables {
    /// Adds the tables that are not there yet, empty.
    pub(super) fn add(&mut self, tables: &[Table]) {
        for table in tables {
            self.0.entry(table).or_default();
        }
    }

    fn rows(&self, table: Table) -> Result<&Rows, StorageError> {
        self.0.get(table).map(Arc::as_ref).ok_or_else(|| names::no_table(table))
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.rows(table)?.get(key).cloned())
    }

    pub(super) fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        let rows = self.rows(table)?;
        let Some(bounds) = bounds(range) else { return Ok(Vec::new()) };
        let inside = rows.range::<[u8], _>(bounds);
        let row = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        Ok(match order {
            Order::Ascending => inside.take(limit).map(row).collect(),
            Order::Descending => inside.rev().take(limit).map(row).collect(),
        })
    }

    /// Makes all changes, in order; what takes them back, in the same order.
    ///
    /// # Errors
    ///
    /// `Invalid` when a table is none; then nothing is changed.
    pub(super) fn apply(&mut self, changes: Vec<Change>) -> Result<Vec<Reversal>, StorageError> {
        for change in &changes {
            let (Change::Put(table, ..) | Change::Delete(table, _) | Change::DeleteRange(table, _)) = change;
            self.rows(table)?;
        }
        let mut reversals = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                Change::Put(table, key, value) => {
                    let before = self.set(table, &key, Some(value));
                    reversals.push(Reversal::Row(table, key, before));
                }
                Change::Delete(table, key) => {
                    if let Some(before) = self.set(table, &key, None) {
                        reversals.push(Reversal::Row(table, key, Some(before)));
                    }
                }
                Change::DeleteRange(table, range) => self.delete_range(table, &range, &mut reversals),
            }
        }
        Ok(reversals)
    }

    /// Takes back what [`apply`](Self::apply) did; nothing may have changed since.
    pub(super) fn reverse(&mut self, reversals: &[Reversal]) {
        for reversal in reversals.iter().rev() {
            match reversal {
                Reversal::Row(table, key, before) => drop(self.set(table, key, before.clone())),
                Reversal::Table(table, rows) => drop(self.0.insert(table, rows.clone())),
            }
        }
    }

    fn set(&mut self, table: Table, key: &Bytes, value: Option<Bytes>) -> Option<Bytes> {
        let rows = Arc::make_mut(self.0.entry(table).or_default());
        match value {
            Some(value) => rows.insert(key.clone(), value),
            None => rows.remove(key),
        }
    }

    fn delete_range(&mut self, table: Table, range: &KeyRange, reversals: &mut Vec<Reversal>) {
        let Some(bounds) = bounds(range) else { return };
        let rows = self.0.entry(table).or_default();
        if *range == KeyRange::all() {
            reversals.push(Reversal::Table(table, std::mem::take(rows)));
            return;
        }
        let inside: Vec<Row> =
            rows.range::<[u8], _>(bounds).map(|(key, value)| (key.clone(), value.clone())).collect();
        if inside.is_empty() {
            return;
        }
        let rows = Arc::make_mut(rows);
        for (key, value) in inside {
            rows.remove(&key);
            reversals.push(Reversal::Row(table, key, Some(value)));
        }
    }
}

/// The range as a map's; none for a range that holds no key, which maps take for a bug.
fn bounds(range: &KeyRange) -> Option<Bounds<'_>> {
    let start = range.start.as_slice();
    match range.end.as_deref() {
        Some(end) if end <= start => None,
        Some(end) => Some((Bound::Included(start), Bound::Excluded(end))),
        None => Some((Bound::Included(start), Bound::Unbounded)),
    }
}
