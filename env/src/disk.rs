//! Disks for shards.
//!
//! A disk is a directory with files of flat names, of one owner at a time. The contract is made for
//! a submission ring with direct I/O: buffers are owned and aligned, several transfers are one
//! batch, and nothing is durable before a flush.

use std::fmt;
use std::future::Future;
use std::str::FromStr;

use proto::InvalidInput;

use crate::buf::AlignedBuf;
use crate::storage::StorageError;

/// The disks of a host.
pub trait Disks: Clone + Send + Sync + 'static {
    /// One disk.
    type Disk: Disk;

    /// Opens the disk at `path`, a directory that exists, and keeps others out until the last
    /// clone of the disk and its files is dropped.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Locked` when somebody has it open, this process included; `Io`.
    fn open(&self, path: &str) -> impl Future<Output = Result<Self::Disk, StorageError>> + Send;
}

/// One disk.
///
/// # Contract
///
/// - What a method does to *names* (create, rename, remove) is durable after the next
///   [`flush_names`](Disk::flush_names) that began after it ended. Before, a crash may undo any
///   of it, in any order.
/// - A file's *content* is durable after a [`flush`](DiskFile::flush) of that file. A file whose
///   content was flushed and whose name was not may be gone after a crash, but is never found under
///   its name with other content than was flushed or written after.
/// - `rename` replaces its target as one step: after a crash there is the old or the new file.
/// - Dropping a future of a change leaves open whether the change takes place.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// All names, in byte order.
    fn list(&self) -> impl Future<Output = Result<Vec<FileName>, StorageError>> + Send;

    /// Opens a file that exists.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Io`.
    fn open(&self, name: &FileName) -> impl Future<Output = Result<Self::File, StorageError>> + Send;

    /// Makes a file that does not exist, with `size_bytes` reserved, so that writes within them do
    /// not fail for want of space. The file's length is `size_bytes` and it reads as zeros.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`; `Full`, and then there is no file; `Io`.
    fn create(
        &self,
        name: &FileName,
        size_bytes: u64,
    ) -> impl Future<Output = Result<Self::File, StorageError>> + Send;

    /// Gives a file another name, replacing what had it.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Io`.
    fn rename(&self, from: &FileName, to: &FileName)
    -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Removes a file; its space comes back when the last handle is dropped.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Io`.
    fn remove(&self, name: &FileName) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Makes all changes of names durable that ended before this began.
    ///
    /// # Errors
    ///
    /// `Io`; then none of them may be relied on.
    fn flush_names(&self) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// How much room there is.
    ///
    /// # Errors
    ///
    /// `Io`.
    fn space(&self) -> impl Future<Output = Result<Space, StorageError>> + Send;

    /// Which engine serves the disk, and why not a better one, for people.
    fn engine(&self) -> String;
}

/// One open file. Clones are the same file.
///
/// # Contract
///
/// - Offsets are multiples of [`ALIGN_BYTES`](crate::buf::ALIGN_BYTES), and transfers use the
///   buffers' whole capacity; other offsets are `Invalid`.
/// - The transfers of a batch, and batches under way together, take place in any order: nobody may
///   write where another transfer is under way.
/// - A transfer owns its buffers until the device is done with them, even when its future is
///   dropped. It begins with its future's first poll.
pub trait DiskFile: Clone + Send + Sync + 'static {
    /// Writes a batch. When it returns, reads see it; it is durable after a
    /// [`flush`](DiskFile::flush). After a crash before that, any part of it, sector by sector, may
    /// be there or not.
    ///
    /// # Errors
    ///
    /// `Busy`: nothing was written; the first poll says so, or nobody does. `Full` beyond what was reserved, `Invalid`, `Io`: any part of
    /// the batch may have been written.
    fn write(
        &self,
        batch: Vec<Write>,
        priority: Priority,
    ) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Reads a batch; the answers are in its order. A buffer's length becomes what was there to be
    /// read: less than its capacity only at the end of the file.
    ///
    /// # Errors
    ///
    /// Each transfer has its own: `Busy`, `Invalid`, `Io`.
    fn read(
        &self,
        batch: Vec<Read>,
        priority: Priority,
    ) -> impl Future<Output = Vec<Result<AlignedBuf, StorageError>>> + Send;

    /// Makes durable all that was written before this began.
    ///
    /// # Errors
    ///
    /// `Io`; then nothing that was written since the last success may be relied on, and a later
    /// success does not heal that.
    fn flush(&self) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// The file's length in bytes.
    ///
    /// # Errors
    ///
    /// `Io`.
    fn size(&self) -> impl Future<Output = Result<u64, StorageError>> + Send;
}

/// One transfer to the disk: the buffer's whole capacity at `offset`.
#[derive(Debug)]
pub struct Write {
    /// Where, in bytes from the file's start.
    pub offset: u64,
    /// What.
    pub buf: AlignedBuf,
}

/// One transfer from the disk: as much as the buffer's capacity from `offset`.
#[derive(Debug)]
pub struct Read {
    /// Where, in bytes from the file's start.
    pub offset: u64,
    /// Where to.
    pub buf: AlignedBuf,
}

/// For whom an I/O is done; the engine serves the first before the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits.
    Client,
    /// Redundancy waits.
    Repair,
    /// Nobody waits.
    Scrub,
}

/// Room on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Of the whole disk.
    pub capacity_bytes: u64,
    /// That can still be written.
    pub available_bytes: u64,
}

/// The name of a file on a disk: 1 to 200 of `A-Z a-z 0-9 - _ .`, not beginning with a dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

impl FileName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FileName {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if text.is_empty() || text.len() > 200 || text.starts_with('.') || !text.bytes().all(allowed) {
            return Err(InvalidInput::new(format!("{text:?} cannot be the name of a file on a disk")));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
