//! What can be wrong with a page of a log, or with what it says.
//!
//! Three answers, because a reader acts on each differently: what is no whole page of its kind may be damage
//! or the end of what was written; what is whole and belongs elsewhere was written at another time or for
//! another place; what is whole, in its place and impossible was written by no version of this software.

use proto::{ClusterId, DiskUuid};

use super::segment::SegmentId;
use crate::block::BlockProblem;

/// Why bytes cannot be taken for what should stand at their place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordProblem {
    /// Damaged, of another kind, or of a newer version.
    #[error(transparent)]
    Block(#[from] BlockProblem),
    /// Whole, and of another disk, place or time.
    #[error(transparent)]
    Foreign(#[from] Foreign),
    /// Whole, where it belongs, and with a value that no writer gives.
    #[error("its field {field} is {found}")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        found: u64,
    },
}

impl RecordProblem {
    /// True for what a later version of this software wrote: to be refused, never to be taken for nothing.
    pub(crate) fn is_newer(&self) -> bool {
        matches!(self, Self::Block(BlockProblem::NewerVersion { .. }))
    }
}

/// Where a whole page belongs instead; the first difference in the order of the variants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Foreign {
    /// To another disk.
    #[error("it belongs to disk {disk} of cluster {cluster}")]
    Disk {
        /// The cluster that it names.
        cluster: ClusterId,
        /// The disk that it names.
        disk: DiskUuid,
    },
    /// It has another salt: written before the disk was formatted, or by somebody who does not know the salt.
    #[error("it does not carry this disk's salt")]
    Salt,
    /// To another segment.
    #[error("it belongs to {found}, not to {expected}")]
    Segment {
        /// The segment that it names.
        found: SegmentId,
        /// The segment that it was read from.
        expected: SegmentId,
    },
    /// To another offset in the segment.
    #[error("it belongs to offset {found}, not to {expected}")]
    Offset {
        /// The offset that it names.
        found: u64,
        /// The offset that it was read from.
        expected: u64,
    },
    /// To another incarnation of the segment; a lower one was there before the segment was freed.
    #[error("it belongs to incarnation {found} of its segment, not to {expected}")]
    Incarnation {
        /// The incarnation that it names.
        found: u64,
        /// The incarnation of the segment's header.
        expected: u64,
    },
}

/// Refuses a field for which a rule does not hold.
pub(super) fn require(holds: bool, field: &'static str, found: u64) -> Result<(), RecordProblem> {
    if holds { Ok(()) } else { Err(RecordProblem::Field { field, found }) }
}
