//! Errors of disks and key-value stores.

use std::error::Error;
use std::fmt;

/// What the caller would do differently about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageErrorKind {
    /// No such file, directory or store.
    NotFound,
    /// It exists already.
    AlreadyExists,
    /// No space is left. What was there before is unharmed.
    Full,
    /// Another process has it open.
    Locked,
    /// What was read cannot be what was written.
    Corrupt,
    /// The request cannot be carried out by any disk: a bug or a wrong setting.
    Invalid,
    /// Too much waits for the device already: nothing was done, and later it may be.
    Busy,
    /// The device failed; whether a write took place is unknown.
    Io,
}

/// A disk or key-value store could not do what it was asked for.
#[derive(Debug)]
pub struct StorageError {
    kind: StorageErrorKind,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StorageError {
    /// `what` says what was being done, and to what.
    pub fn new(kind: StorageErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    /// The same with its cause.
    #[must_use]
    pub fn because(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// What the caller may tell apart.
    pub fn kind(&self) -> StorageErrorKind {
        self.kind
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        // A cause is printed here once, since few callers walk the chain.
        self.source.as_ref().map_or(Ok(()), |source| write!(f, ": {source}"))
    }
}

impl Error for StorageError {}
