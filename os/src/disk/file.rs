//! One open file of a disk.

use std::sync::Arc;

use env::buf::ALIGN_BYTES;
use env::{AlignedBuf, DiskFile, FileName, Priority, Read, StorageError, StorageErrorKind, Write};
use rustix::fd::OwnedFd;
use rustix::fs::{self, OFlags};
use rustix::io::Errno;

use super::{Engine, OsDisk, errors, transfer};
use crate::blocking::{self, GroupFlush};

/// An open file. Each transfer of a batch has a thread of its own, as far as the disk has places.
#[derive(Clone, Debug)]
pub struct OsFile(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    fd: OwnedFd,
    name: FileName,
    content: GroupFlush,
    /// Keeps the disk locked. Dropped after the descriptor.
    disk: OsDisk,
}

impl OsFile {
    pub(super) fn new(disk: OsDisk, fd: OwnedFd, name: &FileName) -> Result<Self, Errno> {
        if disk.0.engine == Engine::Direct {
            fs::fcntl_setfl(&fd, OFlags::DIRECT)?;
        }
        Ok(Self(Arc::new(Shared { fd, name: name.clone(), content: GroupFlush::default(), disk })))
    }

    fn what(&self, doing: &str) -> String {
        self.0.disk.what(doing, self.0.name.as_str())
    }

    fn check_offset(&self, offset: u64) -> Result<(), StorageError> {
        if offset.is_multiple_of(ALIGN_BYTES as u64) {
            return Ok(());
        }
        let what = format!("{} at offset {offset}", self.what("transfer to or from"));
        Err(StorageError::new(StorageErrorKind::Invalid, format!("{what}: it is not aligned")))
    }

    /// Starts a transfer as soon as the disk has a place. Until then, dropping this undoes it; after
    /// that, the thread owns what it needs.
    async fn start<T, F>(&self, priority: Priority, work: F) -> Result<Started<T>, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T, StorageError> + Send + 'static,
    {
        let place = self.0.disk.0.lanes.enter(priority).await?;
        let file = self.clone();
        Ok(blocking::start(move || {
            let result = work(&file);
            drop(place);
            result
        }))
    }

    async fn start_read(&self, read: Read, priority: Priority) -> Result<Started<AlignedBuf>, StorageError> {
        let Read { offset, mut buf } = read;
        self.check_offset(offset)?;
        self.start(priority, move |file| match transfer::read(&file.0.fd, offset, &mut buf) {
            Ok(()) => Ok(buf),
            Err(e) => Err(errors::from(e, format!("{} at offset {offset}", file.what("read")))),
        })
        .await
    }

    async fn start_write(&self, write: Write, priority: Priority) -> Result<Started<()>, StorageError> {
        let Write { offset, buf } = write;
        self.start(priority, move |file| {
            transfer::write(&file.0.fd, offset, &buf)
                .map_err(|e| errors::from(e, format!("{} at offset {offset}", file.what("write"))))
        })
        .await
    }
}

type Started<T> = tokio::task::JoinHandle<Result<T, StorageError>>;

impl DiskFile for OsFile {
    async fn write(&self, batch: Vec<Write>, priority: Priority) -> Result<(), StorageError> {
        batch.iter().try_for_each(|write| self.check_offset(write.offset))?;
        let mut started = Vec::with_capacity(batch.len());
        for write in batch {
            started.push(self.start_write(write, priority).await);
        }
        // All of them end before this does, so that none is under way when the caller goes on.
        let mut result = Ok(());
        for write in started {
            let ended = match write {
                Ok(started) => blocking::finish(started).await,
                Err(error) => Err(error),
            };
            result = result.and(ended);
        }
        result
    }

    async fn read(&self, batch: Vec<Read>, priority: Priority) -> Vec<Result<AlignedBuf, StorageError>> {
        let mut started = Vec::with_capacity(batch.len());
        for read in batch {
            started.push(self.start_read(read, priority).await);
        }
        let mut answers = Vec::with_capacity(started.len());
        for read in started {
            answers.push(match read {
                Ok(started) => blocking::finish(started).await,
                Err(error) => Err(error),
            });
        }
        answers
    }

    async fn flush(&self) -> Result<(), StorageError> {
        let file = self.clone();
        let flush = move || {
            transfer::retried(|| fs::fdatasync(&file.0.fd)).map_err(|e| errors::from(e, file.what("flush")))
        };
        self.0.content.flush(&self.0.disk.0.broken, flush).await
    }

    async fn size(&self) -> Result<u64, StorageError> {
        let started = self.start(Priority::Client, |file| {
            let what = |e| errors::from(e, file.what("measure"));
            let stat = fs::fstat(&file.0.fd).map_err(what)?;
            u64::try_from(stat.st_size).map_err(|_| what(Errno::OVERFLOW))
        });
        blocking::finish(started.await?).await
    }
}
