//! One store: its tables, and how to take back the batches that a power loss may take.

use std::collections::VecDeque;

use env::kv::Change;
use env::{StorageError, Table};

use super::tables::{Reversal, Tables};
use crate::rng::Stream;

/// So much not yet durable is kept at most: beyond it the oldest batches become durable by
/// themselves, as a real log is written back.
const LOG_BYTES_MAX: usize = 64 << 20;
/// So many of the last batches can be taken back even when they are durable: a checkpoint that lies
/// lacks some of them.
pub(super) const REVERSIBLE_MIN: usize = 8;

/// One store.
#[derive(Debug, Default)]
pub(super) struct Store {
    tables: Tables,
    /// Batches so far.
    written: u64,
    /// Of these, so many survive everything.
    durable: u64,
    /// The last batches, the newest last; at least all that are not durable.
    log: VecDeque<Logged>,
    log_bytes: usize,
}

#[derive(Debug)]
struct Logged {
    reversals: Vec<Reversal>,
    bytes: usize,
}

impl Store {
    /// A durable store that holds this.
    pub(super) fn with(tables: Tables) -> Self {
        Self { tables, ..Self::default() }
    }

    pub(super) fn add_tables(&mut self, tables: &[Table]) {
        self.tables.add(tables);
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Batches so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Batches that survive everything.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// Writes a batch, not durable yet; how many bytes of keys and values it has.
    ///
    /// # Errors
    ///
    /// `Invalid` when a table is none; then nothing is written.
    pub(super) fn write(&mut self, changes: Vec<Change>) -> Result<usize, StorageError> {
        let bytes = changes.iter().map(bytes).sum();
        let reversals = self.tables.apply(changes)?;
        self.written += 1;
        self.log_bytes += bytes;
        self.log.push_back(Logged { reversals, bytes });
        self.trim();
        Ok(bytes)
    }

    /// The first `batches` batches are durable from now on.
    pub(super) fn synced(&mut self, batches: u64) {
        assert!(batches <= self.written, "{batches} batches synced of {}", self.written);
        self.durable = self.durable.max(batches);
        self.trim();
    }

    /// Forgets how to take back what is durable, and bounds the log.
    fn trim(&mut self) {
        while self.log.len() > REVERSIBLE_MIN {
            let through = self.written - self.log.len() as u64 + 1;
            if through > self.durable && self.log_bytes <= LOG_BYTES_MAX {
                return;
            }
            self.durable = self.durable.max(through);
            self.log_bytes -= self.log.pop_front().map_or(0, |oldest| oldest.bytes);
        }
    }

    /// Power is lost: a prefix stays, and all of it is durable. Often none or all of what was not
    /// durable is lost, since a bug shows best at the ends.
    pub(super) fn lose_power(&mut self, stream: &Stream) {
        let kept = match stream.below(4) {
            0 => self.written,
            1 | 2 => self.durable,
            _ => stream.between(self.durable, self.written),
        };
        while self.written > kept
            && let Some(last) = self.log.pop_back()
        {
            self.tables.reverse(&last.reversals);
            self.log_bytes -= last.bytes;
            self.written -= 1;
        }
        assert!(self.written == kept, "{kept} batches kept, {} left", self.written);
        self.durable = kept;
    }

    /// What takes back all that a power loss may take, the newest change first.
    pub(super) fn undurable(&self) -> impl Iterator<Item = &Reversal> {
        let batches = usize::try_from(self.written - self.durable).unwrap_or(usize::MAX);
        self.log.iter().rev().take(batches).flat_map(|logged| logged.reversals.iter().rev())
    }

    /// What it held before the last `batches` batches, as far back as is known.
    pub(super) fn tables_before(&self, batches: usize) -> Tables {
        let mut tables = self.tables.clone();
        self.log.iter().rev().take(batches).for_each(|logged| tables.reverse(&logged.reversals));
        tables
    }
}

fn bytes(change: &Change) -> usize {
    match change {
        Change::Put(_, key, value) => key.len() + value.len(),
        Change::Delete(_, key) => key.len(),
        Change::DeleteRange(_, range) => range.start.len() + range.end.as_ref().map_or(0, Vec::len),
    }
}
