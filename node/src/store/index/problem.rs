//! Why an index cannot be used.

use env::{StorageError, Table};
use proto::{ClusterId, DiskUuid};

/// Why an index, or a change of it, cannot be used.
///
/// After [`Storage`](Self::Storage) the store below is to blame and the index may be fine. Everything else
/// says that the index is no copy of this disk's log: it is to be made again from the segments.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexProblem {
    /// The store below failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It is of another disk, or of this one before it was formatted anew.
    #[error("the index is of disk {disk} of cluster {cluster}, with segments of {segment_bytes} bytes")]
    Foreign {
        /// The cluster that it names.
        cluster: ClusterId,
        /// The disk that it names.
        disk: DiskUuid,
        /// Bytes of a segment there.
        segment_bytes: u64,
    },
    /// A row that must be there is not.
    #[error("the index has no row {row}")]
    Missing {
        /// Which row.
        row: &'static str,
    },
    /// A row, found or asked for, has a value that fits neither its limits nor the other rows.
    #[error("in the index's table {table}, {field} is {found}")]
    Row {
        /// The table.
        table: Table,
        /// What of the row; `length` is its number of bytes.
        field: &'static str,
        /// The value.
        found: u64,
    },
}

impl IndexProblem {
    pub(super) fn row(table: Table, field: &'static str, found: impl Into<u64>) -> Self {
        Self::Row { table, field, found: found.into() }
    }

    pub(super) fn length(table: Table, bytes: &[u8]) -> Self {
        Self::row(table, "length", bytes.len() as u64)
    }
}
