//! Which engine serves a disk, and why not a better one.

use std::fmt;
use std::time::Duration;

use env::{StorageError, StorageErrorKind};
use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, StatxFlags};
use rustix::io::Errno;

use super::errors;

/// How long a disk may leave a call without an answer: hard disks retry a bad sector for up to some
/// twenty seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Which engine is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// io_uring where the kernel gives it, else threads.
    #[default]
    Best,
    /// Threads with calls that wait.
    Threads,
}

/// Whether transfers pass the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cache {
    Direct,
    Buffered { why: &'static str },
}

impl Cache {
    /// What the file system says of a file of its own.
    pub(super) fn of(file: &OwnedFd) -> Self {
        let Ok(stat) = fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
            return Self::Buffered { why: "the kernel cannot say whether direct I/O works" };
        };
        if stat.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
            return Self::Buffered { why: "the file system does not say whether direct I/O works" };
        }
        let fits = |align: u32| align != 0 && env::buf::ALIGN_BYTES.is_multiple_of(align as usize);
        if fits(stat.stx_dio_mem_align) && fits(stat.stx_dio_offset_align) {
            Self::Direct
        } else {
            Self::Buffered { why: "the file system takes no direct I/O" }
        }
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct I/O"),
            Self::Buffered { why } => write!(f, "buffered: {why}"),
        }
    }
}

/// Why a transfer or flush did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The kernel's answer.
    Errno(Errno),
    /// Too much waits already: nothing was done.
    Busy,
    /// No answer for so many seconds; it may yet take place.
    Stuck(u64),
    /// The process is shutting down.
    Ended,
}

impl Trouble {
    /// As callers see it; `what` says what could not be done.
    pub(super) fn error(self, what: impl FnOnce() -> String) -> StorageError {
        let (kind, why) = match self {
            Self::Errno(error) => return errors::from(error, what()),
            Self::Busy => (StorageErrorKind::Busy, "too much waits for the disk already".to_owned()),
            Self::Stuck(seconds) => {
                (StorageErrorKind::Io, format!("the disk has not answered for {seconds} s"))
            }
            Self::Ended => (StorageErrorKind::Io, "the process is shutting down".to_owned()),
        };
        StorageError::new(kind, format!("{}: {why}", what()))
    }
}
