//! Planted bugs: disks and indexes that do not do what the store asked for, so that the histories can show what
//! they find.
//!
//! Each [`Bug`] is a mistake that the store itself could make, made below it, at the seam: the store under test is the
//! one that ships. [`rewrite`] says what a bug does to what is written, [`disk`] and [`kv`] put themselves between
//! the store and its simulated host. Without a bug they pass everything on.

mod disk;
mod kv;
mod rewrite;
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use simhost::lock;

use super::super::record::{Realm, SegmentId};

pub(super) use disk::PlantedDisk;
pub(super) use kv::PlantedKv;

/// What the store gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// Records are acknowledged before their flush, which happens just before the next write.
    FlushLate,
    /// Records are never flushed.
    FlushSkipped,
    /// The names of new segments are never flushed.
    NamesNotFlushed,
    /// The header that frees a segment is not flushed.
    FreedHeaderNotFlushed,
    /// A segment that is freed keeps its incarnation.
    IncarnationKept,
    /// A live segment is used again: what was copied from it is not flushed before it is freed.
    CopiesNotFlushed,
    /// What lives in a segment is not told to the index.
    SegmentRowsLost,
    /// The index's position reaches the disk before the rows that it stands for.
    PositionAhead,
    /// Rows of deleted shards stay.
    DeletedRowsStay,
    /// The rows of copies are lost: compaction drops the newest version.
    CopyRowsLost,
    /// Copies are written as zeros.
    CopiesBlank,
    /// Copies are born before all others of their name.
    CopiesBornEarly,
    /// Copies do not tell from which segment they are.
    CopiesWithoutSource,
    /// Deletions are acknowledged and never written.
    TombstonesLost,
    /// Tombstones name another incarnation, so that compaction takes them for useless.
    TombstonesMisplaced,
    /// Tombstones that compaction writes again count from now on.
    TombstonesRenewed,
    /// Records claim that all before them are durable.
    DurableTooHigh,
    /// Neither records nor headers say that anything is durable.
    DurableUnknown,
    /// A whole record at the end of the log is taken for a torn one.
    GoodTailCut,
    /// After a restart, sequences of records that were left out are used again.
    SequencesReused,
    /// Seals name another segment.
    SealsAstray,
    /// Seals are not written.
    SealsLost,
}

impl Bug {
    /// All of them.
    pub(super) const ALL: [Self; 22] = [
        Self::FlushLate,
        Self::FlushSkipped,
        Self::NamesNotFlushed,
        Self::FreedHeaderNotFlushed,
        Self::IncarnationKept,
        Self::CopiesNotFlushed,
        Self::SegmentRowsLost,
        Self::PositionAhead,
        Self::DeletedRowsStay,
        Self::CopyRowsLost,
        Self::CopiesBlank,
        Self::CopiesBornEarly,
        Self::CopiesWithoutSource,
        Self::TombstonesLost,
        Self::TombstonesMisplaced,
        Self::TombstonesRenewed,
        Self::DurableTooHigh,
        Self::DurableUnknown,
        Self::GoodTailCut,
        Self::SequencesReused,
        Self::SealsAstray,
        Self::SealsLost,
    ];
}

/// One bug, or none, and what it has to know. Clones are the same; it outlives the processes that have it.
#[derive(Clone)]
pub(super) struct Plant {
    bug: Option<Bug>,
    realm: Realm,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Default)]
struct Memory {
    /// What was written to each segment last.
    written: BTreeMap<SegmentId, Wrote>,
    /// Of the newest record that was flushed: its segment and offset.
    newest: Option<(SegmentId, u64)>,
    /// The next look at that record fails.
    is_hidden: bool,
    /// This process has found the end of the log.
    is_open: bool,
    /// The first sequence of this process, and the one before it in the log.
    sequences: Option<(u64, u64)>,
}

/// What was written last, as far as a bug makes a difference.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrote {
    /// A header that frees its segment.
    FreedHeader,
    /// Another header.
    Header,
    /// Records; with the offset of the last, and whether they are copies.
    Records { last: u64, are_copies: bool },
}

impl Plant {
    pub(super) fn new(bug: Option<Bug>, realm: Realm) -> Self {
        Self { bug, realm, memory: Arc::default() }
    }

    /// A process begins.
    pub(super) fn booted(&self) {
        let mut memory = self.memory();
        memory.written.clear();
        memory.is_hidden = self.has(Bug::GoodTailCut);
        memory.is_open = false;
        memory.sequences = None;
    }

    /// It has found the end of the log.
    pub(super) fn opened(&self) {
        let mut memory = self.memory();
        (memory.is_hidden, memory.is_open) = (false, true);
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }
}
