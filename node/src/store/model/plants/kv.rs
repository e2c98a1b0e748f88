//! Between the store and its index.

use bytes::Bytes;
use env::kv::Change;
use env::{Batch, KeyRange, Kv, KvRead, Order, Row, StorageError, Table};
use simhost::kv::SimKv;

use super::{Bug, Plant};

const SHARDS: Table = "shards";
const SEGMENTS: Table = "segments";
const LOG: Table = "log";
const POSITION: &[u8] = b"position";
/// Where in the row of a shard its sequence stands, and behind it that under which it was born; and where in the
/// position.
const SHARD_SEQUENCE_AT: usize = 24;
const SHARD_BORN_AT: usize = 32;
const POSITION_SEQUENCE_AT: usize = 20;

/// An index that has a bug, or none.
#[derive(Clone)]
pub(in crate::store::model) struct PlantedKv {
    kv: SimKv,
    plant: Plant,
}

impl PlantedKv {
    pub(in crate::store::model) fn new(kv: SimKv, plant: Plant) -> Self {
        Self { kv, plant }
    }

    /// What is written in the place of a batch, one after the other.
    fn rewritten(&self, batch: Batch) -> Vec<Batch> {
        let (mut first, mut second) = (Batch::new(), Batch::new());
        for change in batch.into_changes() {
            match change {
                Change::Put(SEGMENTS, key, _) if self.loses_row(&key) => {}
                Change::Put(table, key, value) => {
                    let is_shard = table == SHARDS;
                    let is_copy =
                        is_shard && number(&value, SHARD_SEQUENCE_AT) != number(&value, SHARD_BORN_AT);
                    if is_copy && self.plant.has(Bug::CopyRowsLost) {
                        continue;
                    }
                    let is_late = self.plant.has(Bug::PositionAhead) && table != LOG;
                    let value = self.renumbered(table, &key, value);
                    (if is_late { &mut second } else { &mut first }).put(table, key, value);
                }
                Change::Delete(table, _) if table == SHARDS && self.plant.has(Bug::DeletedRowsStay) => {}
                Change::Delete(table, key) => first.delete(table, key),
                Change::DeleteRange(table, range) => first.delete_range(table, range),
            }
        }
        [first, second].into_iter().filter(|batch| !batch.is_empty()).collect()
    }

    /// The first row of a segment is kept.
    fn loses_row(&self, key: &[u8]) -> bool {
        self.plant.has(Bug::SegmentRowsLost) && self.kv.get(SEGMENTS, key).is_ok_and(|row| row.is_some())
    }

    fn renumbered(&self, table: Table, key: &[u8], value: Bytes) -> Bytes {
        let at: &[usize] = match table {
            _ if !self.plant.has(Bug::SequencesReused) => &[],
            SHARDS => &[SHARD_SEQUENCE_AT, SHARD_BORN_AT],
            LOG if key == POSITION => &[POSITION_SEQUENCE_AT],
            _ => &[],
        };
        let mut value = value.to_vec();
        for at in at.iter().copied() {
            let sequence = self.plant.reused(number(&value, at));
            value[at..at + 8].copy_from_slice(&sequence.to_le_bytes());
        }
        Bytes::from(value)
    }
}

fn number(value: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(value[at..at + 8].try_into().unwrap())
}

impl KvRead for PlantedKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.kv.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        self.kv.scan(table, range, order, limit)
    }
}

impl Kv for PlantedKv {
    fn write(&self, batch: Batch) -> Result<(), StorageError> {
        self.rewritten(batch).into_iter().try_for_each(|batch| self.kv.write(batch))
    }

    async fn flush(&self) -> Result<(), StorageError> {
        self.kv.flush().await
    }

    async fn checkpoint(&self, name: &str) -> Result<(), StorageError> {
        self.kv.checkpoint(name).await
    }
}
