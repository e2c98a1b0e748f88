//! The engine of a disk on io_uring: one thread and one ring a disk.
//!
//! Callers hand over batches, which the thread submits together, as many as the disk's places allow; the
//! thread wakes when the kernel is done or when somebody rings. It owns every buffer until the kernel is
//! done with it, whether or not the caller still waits. Flushes of a file that are asked for while one is
//! under way share the next.
//!
//! A disk that leaves a call without an answer for too long is stuck: whoever waits is told so, and so
//! is whoever comes, until the kernel has answered. Too much waiting work is refused at once.
//!
//! Left to others: names, which no ring makes faster, and whether transfers pass the page cache.

mod inbox;
mod shares;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use env::Priority;
use tokio::sync::oneshot;

use self::inbox::{Batch, Ended, Flush, Inbox};
use self::worker::Worker;
use super::engine::Trouble;
use super::file::OsFile;
use super::transfer::Transfer;

/// The ring of one disk. When it is dropped, its thread ends.
#[derive(Debug)]
pub(super) struct Ring {
    inbox: Arc<Inbox>,
}

impl Ring {
    /// Starts the thread of a disk, which may leave a call without an answer for so long.
    ///
    /// # Errors
    ///
    /// Why the kernel gives us no ring, for people.
    pub(super) fn start(patience: Duration) -> Result<Self, String> {
        let inbox = Inbox::new().map_err(|error| format!("no event descriptor: {error}"))?;
        let inbox = Arc::new(inbox);
        Worker::start(Arc::clone(&inbox), patience)?;
        Ok(Self { inbox })
    }

    /// Does these transfers, in any order; all have ended when this does, unless the disk is stuck.
    ///
    /// # Errors
    ///
    /// `Busy`, `Stuck`, `Ended`, for all of them.
    pub(super) async fn transfer(
        &self,
        file: &OsFile,
        transfers: Vec<Transfer>,
        priority: Priority,
    ) -> Result<Ended, Trouble> {
        let (reply, answer) = oneshot::channel();
        let since = Instant::now();
        self.inbox.push(Batch { file: file.clone(), priority, transfers, reply, since })?;
        answer.await.unwrap_or(Err(Trouble::Ended))
    }

    /// Makes durable what has been written to the file.
    ///
    /// # Errors
    ///
    /// The kernel's, `Stuck`, `Ended`.
    pub(super) async fn flush(&self, file: &OsFile) -> Result<(), Trouble> {
        let (reply, answer) = oneshot::channel();
        self.inbox.push_flush(Flush { file: file.clone(), reply: Some(reply), since: Instant::now() })?;
        answer.await.unwrap_or(Err(Trouble::Ended))
    }

    /// The file with this id is used no more.
    pub(super) fn close_file(&self, id: u64) {
        self.inbox.close_file(id);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.inbox.end();
    }
}

#[cfg(test)]
mod tests {
    use env::{AlignedBuf, Disk, DiskFile, Disks, Read, StorageErrorKind, Write};
    use rustix::pipe::pipe;

    use super::*;
    use crate::disk::engine::EngineChoice;
    use crate::disk::transfer::Way;
    use crate::disk::{OsDisk, OsDisks};

    const PAGE: usize = env::buf::ALIGN_BYTES;

    async fn disk(directory: &tempfile::TempDir) -> OsDisk {
        OsDisks::new(EngineChoice::Best).open(directory.path().to_str().unwrap()).await.unwrap()
    }

    /// A call that the kernel does not answer: the caller is told in time, whoever comes is refused, and once
    /// the answer is there, after all, the disk serves again.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_stuck_disk_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let disk = disk(&directory).await;
        let Ok(ring) = Ring::start(Duration::from_secs(1)) else { return };
        let (out, into) = pipe().unwrap();
        // Nothing comes out of an empty pipe.
        let file = OsFile::new(disk, out, &"pipe".parse().unwrap()).unwrap();
        let read = || vec![Transfer::new(Way::FromDisk, 0, AlignedBuf::zeroed(PAGE))];
        let stuck = |result: Result<Ended, Trouble>| matches!(result, Err(Trouble::Stuck(1..)));
        assert!(stuck(ring.transfer(&file, read(), Priority::Client).await));
        assert!(stuck(ring.transfer(&file, read(), Priority::Client).await));
        // For the reads that were given up, and for the next ones; ends when nobody can read any more.
        std::thread::spawn(move || while rustix::io::write(&into, &[7; PAGE]).is_ok() {});
        loop {
            match ring.transfer(&file, read(), Priority::Client).await {
                Ok(ended) => {
                    let (_, transfer, result) = ended.into_iter().next().unwrap();
                    assert_eq!((result, transfer.into_buf().as_slice()), (Ok(()), &[7; PAGE][..]));
                    return;
                }
                Err(trouble) => assert!(matches!(trouble, Trouble::Stuck(_)), "{trouble:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// More than a disk does in a second is refused, and what was taken is done.
    #[tokio::test(flavor = "multi_thread")]
    async fn too_much_is_refused() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let disk = disk(&directory).await;
        if disk.0.ring.is_err() {
            return;
        }
        let file = disk.create(&"file".parse().unwrap(), PAGE as u64).await.unwrap();
        let batch = || (0..1000).map(|_| Read { offset: 0, buf: AlignedBuf::zeroed(PAGE) }).collect();
        let reads: Vec<_> = (0..40).map(|_| file.read(batch(), Priority::Scrub)).collect();
        let answers = futures_util::future::join_all(reads).await;
        let (done, refused): (Vec<_>, Vec<_>) = answers.iter().flatten().partition(|answer| answer.is_ok());
        assert!(done.len() >= 1000 && !refused.is_empty(), "{} done, {} refused", done.len(), refused.len());
        let kinds = refused.iter().map(|answer| answer.as_ref().unwrap_err().kind());
        assert!(kinds.clone().all(|kind| kind == StorageErrorKind::Busy), "{:?}", refused[0]);
    }

    /// Whoever gives up waiting leaves buffers that the kernel still uses: they stay until it is done.
    #[tokio::test(flavor = "multi_thread")]
    async fn dropped_transfers_harm_nobody() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let disk = disk(&directory).await;
        let file = disk.create(&"file".parse().unwrap(), 64 * PAGE as u64).await.unwrap();
        for round in 0..200_u8 {
            let mut buf = AlignedBuf::zeroed(64 * PAGE);
            buf.as_mut_slice().fill(round);
            let write = file.write(vec![Write { offset: 0, buf }], Priority::Client);
            let given_up = tokio::time::timeout(Duration::from_micros(u64::from(round)), write).await;
            drop(given_up);
            // Behind it, whether it took place or not.
            file.flush().await.unwrap();
            let reads = vec![Read { offset: 0, buf: AlignedBuf::zeroed(64 * PAGE) }];
            let read = file.read(reads, Priority::Client).await.pop().unwrap().unwrap();
            assert!(read.as_slice().iter().all(|byte| *byte <= round), "round {round}");
        }
    }
}
