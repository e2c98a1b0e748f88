//! What stops a step of the state machine.

use env::{StorageError, StorageErrorKind};
use proto::{ErrorCode, Failure, InvalidInput};

/// A command or a question has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An answer like any other, for the caller.
    #[error(transparent)]
    Refused(Failure),
    /// The store cannot be read, or does not hold what was written: the process cannot go on.
    #[error(transparent)]
    Storage(StorageError),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

impl From<InvalidInput> for Error {
    fn from(error: InvalidInput) -> Self {
        Self::Refused(error.into())
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// A refusal with a sentence.
pub(crate) fn refuse(code: ErrorCode, sentence: impl Into<String>) -> Error {
    Error::Refused(Failure::new(code, sentence))
}

/// A request that breaks a rule.
pub(crate) fn invalid(sentence: impl Into<String>) -> Error {
    refuse(ErrorCode::InvalidRequest, sentence)
}

/// Rows that contradict each other, or do not parse.
pub(crate) fn corrupt(what: impl Into<String>) -> StorageError {
    StorageError::new(StorageErrorKind::Corrupt, what)
}

/// What was checked before has failed after all: memory may be changed by halves, so nothing may go on.
pub(crate) fn broken(error: InvalidInput) -> Error {
    Error::Storage(
        StorageError::new(StorageErrorKind::Invalid, "a checked change was refused").because(error),
    )
}
