//! What a shard store can fail at, and the proof that it did not.

use env::{StorageError, StorageErrorKind};
use proto::{ByteSize, ErrorCode, Failure, Remedy, ShardName};

/// Proof that what `T` tells is on stable storage. Only the store makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable<T>(T);

impl<T> Durable<T> {
    pub(crate) fn proven(value: T) -> Self {
        Self(value)
    }

    /// What is proven.
    pub fn get(&self) -> &T {
        &self.0
    }
}

/// A shard store could not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such shard.
    #[error("no shard {0} on this disk")]
    NoSuchShard(ShardName),
    /// The shard is there, and its bytes are not those that were written.
    #[error("shard {name} is damaged: {problem}")]
    Damaged {
        /// The shard.
        name: ShardName,
        /// What was found.
        problem: String,
    },
    /// Other bytes stand under this name; they stay.
    #[error("another shard stands under the name {0} already")]
    Conflict(ShardName),
    /// The bytes do not match the checksums that came with them; nothing was written.
    #[error("the bytes of shard {name} do not match their checksums: {problem}")]
    Mismatch {
        /// The shard.
        name: ShardName,
        /// The first difference.
        problem: String,
    },
    /// The request breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// There is no room but the reserve. Deletes still work.
    #[error("the disk is full: {} are used", ByteSize(*used_bytes))]
    Full {
        /// Bytes that shards take.
        used_bytes: u64,
    },
    /// Too much waits for the disk already; nothing was done.
    #[error("{0}")]
    Busy(String),
    /// The disk failed, now or before; it takes no more writes.
    #[error("the disk has failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// The code for peers.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoSuchShard(_) => ErrorCode::NoSuchShard,
            Self::Damaged { .. } => ErrorCode::DamagedShard,
            Self::Conflict(_) => ErrorCode::ShardConflict,
            Self::Mismatch { .. } => ErrorCode::ChecksumMismatch,
            Self::Invalid(_) => ErrorCode::InvalidRequest,
            Self::Full { .. } => ErrorCode::DiskFull,
            Self::Busy(_) => ErrorCode::Overloaded,
            Self::Failed(_) => ErrorCode::DiskFailed,
        }
    }

    /// What the caller may do.
    pub fn remedy(&self) -> Remedy {
        self.code().remedy()
    }

    /// A read, or a question, that the disk did not answer.
    pub(crate) fn failed(error: &StorageError) -> Self {
        match error.kind() {
            StorageErrorKind::Busy => Self::Busy(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
