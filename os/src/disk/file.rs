//! One open file of a disk.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use env::buf::ALIGN_BYTES;
use env::{AlignedBuf, DiskFile, FileName, Priority, Read, StorageError, StorageErrorKind, Write};
use rustix::fd::OwnedFd;
use rustix::fs::{self, OFlags};
use rustix::io::Errno;

use super::engine::{Cache, PATIENCE, Trouble};
use super::ring::Ring;
use super::transfer::{Transfer, Way, retried};
use super::{OsDisk, errors};
use crate::blocking::{self, GroupFlush};

/// An open file. The transfers of a batch are under way together, as far as the disk has places.
#[derive(Clone, Debug)]
pub struct OsFile(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Of this process's files.
    id: u64,
    fd: OwnedFd,
    name: FileName,
    content: GroupFlush,
    /// Keeps the disk locked. Dropped after the descriptor.
    disk: OsDisk,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Ok(ring) = &self.disk.0.ring {
            ring.close_file(self.id);
        }
    }
}

impl OsFile {
    pub(super) fn new(disk: OsDisk, fd: OwnedFd, name: &FileName) -> Result<Self, Errno> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        if disk.0.cache == Cache::Direct {
            fs::fcntl_setfl(&fd, OFlags::DIRECT)?;
        }
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let content = GroupFlush::default();
        Ok(Self(Arc::new(Shared { id, fd, name: name.clone(), content, disk })))
    }

    /// What tells it from all other open files of the process.
    pub(super) fn id(&self) -> u64 {
        self.0.id
    }

    /// A flush has failed: none of the disk's succeeds from now on.
    pub(super) fn note_failed_flush(&self, error: Errno) {
        self.0.disk.0.broken.mark(&errors::from(error, self.what("flush")));
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

    /// Does all transfers, each with its own result, in their order.
    async fn transfer(
        &self,
        transfers: Vec<Transfer>,
        priority: Priority,
    ) -> Vec<Result<AlignedBuf, StorageError>> {
        let places: Vec<(Way, u64)> = transfers.iter().map(|one| (one.way(), one.offset())).collect();
        let ended = match &self.0.disk.0.ring {
            Ok(ring) => self.transfer_by_ring(ring, transfers, priority).await,
            Err(_) => self.transfer_by_threads(transfers, priority).await,
        };
        places
            .into_iter()
            .zip(ended)
            .map(|((way, offset), result)| {
                let doing = if way == Way::ToDisk { "write" } else { "read" };
                result.map_err(|trouble| trouble.error(|| format!("{} at offset {offset}", self.what(doing))))
            })
            .collect()
    }

    async fn transfer_by_ring(
        &self,
        ring: &Ring,
        transfers: Vec<Transfer>,
        priority: Priority,
    ) -> Vec<Result<AlignedBuf, Trouble>> {
        let count = transfers.len();
        match ring.transfer(self, transfers, priority).await {
            Ok(mut ended) => {
                ended.sort_unstable_by_key(|(index, _, _)| *index);
                ended.into_iter().map(|(_, one, result)| result.map(|()| one.into_buf())).collect()
            }
            Err(trouble) => (0..count).map(|_| Err(trouble)).collect(),
        }
    }

    /// Each transfer starts as soon as the disk has a place. Until then, dropping this undoes it; after
    /// that, the thread owns what it needs. All of them end before this does, so that none is under way
    /// when the caller goes on.
    async fn transfer_by_threads(
        &self,
        transfers: Vec<Transfer>,
        priority: Priority,
    ) -> Vec<Result<AlignedBuf, Trouble>> {
        let mut started = Vec::with_capacity(transfers.len());
        for mut transfer in transfers {
            let place = self.0.disk.0.lanes.enter(priority).await;
            let file = self.clone();
            started.push(blocking::start(move || {
                let result = transfer.run(&file.0.fd);
                drop(place);
                result.map(|()| transfer.into_buf()).map_err(Trouble::Errno)
            }));
        }
        let mut ended = Vec::with_capacity(started.len());
        for transfer in started {
            ended.push(match tokio::time::timeout(PATIENCE, blocking::join(transfer)).await {
                Ok(result) => result.unwrap_or(Err(Trouble::Ended)),
                Err(_) => Err(Trouble::Stuck(PATIENCE.as_secs())),
            });
        }
        ended
    }
}

impl AsRawFd for OsFile {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd.as_raw_fd()
    }
}

impl DiskFile for OsFile {
    async fn write(&self, batch: Vec<Write>, priority: Priority) -> Result<(), StorageError> {
        batch.iter().try_for_each(|write| self.check_offset(write.offset))?;
        let transfer = |write: Write| Transfer::new(Way::ToDisk, write.offset, write.buf);
        let ended = self.transfer(batch.into_iter().map(transfer).collect(), priority).await;
        ended.into_iter().try_for_each(|result| result.map(drop))
    }

    async fn read(&self, batch: Vec<Read>, priority: Priority) -> Vec<Result<AlignedBuf, StorageError>> {
        let checked: Vec<_> = batch.iter().map(|read| self.check_offset(read.offset)).collect();
        let good = batch.into_iter().zip(&checked).filter(|(_, checked)| checked.is_ok());
        let transfer = |read: Read| Transfer::new(Way::FromDisk, read.offset, read.buf);
        let transfers = good.map(|(read, _)| transfer(read)).collect();
        let mut ended = self.transfer(transfers, priority).await.into_iter();
        let closed = || StorageError::new(StorageErrorKind::Io, "the disk is closing");
        checked
            .into_iter()
            .map(|checked| checked.and_then(|()| ended.next().unwrap_or_else(|| Err(closed()))))
            .collect()
    }

    async fn flush(&self) -> Result<(), StorageError> {
        let broken = &self.0.disk.0.broken;
        let Ok(ring) = &self.0.disk.0.ring else {
            let file = self.clone();
            let flush = move || {
                retried(|| fs::fdatasync(&file.0.fd)).map_err(|e| errors::from(e, file.what("flush")))
            };
            return self.0.content.flush(broken, flush).await;
        };
        broken.check()?;
        ring.flush(self).await.map_err(|trouble| trouble.error(|| self.what("flush")))?;
        // Another flush may have met the error that was meant for this one.
        broken.check()
    }

    async fn size(&self) -> Result<u64, StorageError> {
        let place = self.0.disk.0.lanes.enter(Priority::Client).await?;
        let file = self.clone();
        blocking::run(move || {
            let what = |e| errors::from(e, file.what("measure"));
            let stat = fs::fstat(&file.0.fd).map_err(what)?;
            drop(place);
            u64::try_from(stat.st_size).map_err(|_| what(Errno::OVERFLOW))
        })
        .await
    }
}
