//! The seam's traits: disks and files as a process has them.

use std::sync::Arc;

use bytes::Bytes;
use env::buf::ALIGN_BYTES;
use env::{
    AlignedBuf, Disk, DiskFile, Disks, FileName, Priority, Read, Space, StorageError, StorageErrorKind, Write,
};

use super::names::FileNumber;
use super::session::{Operation, Session};
use super::state::{Change, State, error};
use crate::host::Life;

/// The disks of a host, for one life of it.
#[derive(Clone)]
pub struct SimDisks(Life);

impl SimDisks {
    pub(crate) fn new(life: Life) -> Self {
        Self(life)
    }
}

impl Disks for SimDisks {
    type Disk = SimDisk;

    async fn open(&self, path: &str) -> Result<SimDisk, StorageError> {
        let Some(device) = self.0.host().disk(path) else {
            self.0.alive().await;
            return Err(error(StorageErrorKind::NotFound, format!("there is no disk at {path}")));
        };
        Ok(SimDisk(Session::open(device, self.0.clone()).await?))
    }
}

/// A simulated disk. The disk is open as long as a clone of it or of a file of it is there.
#[derive(Clone)]
pub struct SimDisk(Arc<Session>);

impl SimDisk {
    async fn change(
        &self,
        what: &'static str,
        name: &FileName,
        change: Change,
    ) -> Result<FileNumber, StorageError> {
        let bytes = if let Change::Create { bytes, .. } = &change { *bytes } else { 0 };
        let operation = Operation { what, to: name.as_str(), numbers: &[bytes] };
        self.0.begin(what).await;
        self.0.change(&operation, change, ()).await
    }

    fn file(&self, file: FileNumber, name: &FileName) -> SimFile {
        self.0.opened(file);
        SimFile(Arc::new(Open { session: self.0.clone(), file, name: name.clone() }))
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    async fn list(&self) -> Result<Vec<FileName>, StorageError> {
        let operation = Operation { what: "disk.list", to: "", numbers: &[] };
        let all = |state: &mut State| Ok(state.names.list().map(|(name, _)| name.clone()).collect());
        self.0.look(&operation, all).await
    }

    async fn open(&self, name: &FileName) -> Result<SimFile, StorageError> {
        let operation = Operation { what: "disk.open-file", to: name.as_str(), numbers: &[] };
        let file = self.0.look(&operation, |state| state.named(name)).await?;
        Ok(self.file(file, name))
    }

    async fn create(&self, name: &FileName, size_bytes: u64) -> Result<SimFile, StorageError> {
        let change = Change::Create { name: name.clone(), bytes: size_bytes };
        let file = self.change("disk.create", name, change).await?;
        Ok(self.file(file, name))
    }

    async fn rename(&self, from: &FileName, to: &FileName) -> Result<(), StorageError> {
        let change = Change::Rename { from: from.clone(), to: to.clone() };
        self.change("disk.rename", to, change).await.map(drop)
    }

    async fn remove(&self, name: &FileName) -> Result<(), StorageError> {
        self.change("disk.remove", name, Change::Remove { name: name.clone() }).await.map(drop)
    }

    async fn flush_names(&self) -> Result<(), StorageError> {
        self.0.flush_names(&Operation { what: "disk.flush-names", to: "", numbers: &[] }).await
    }

    async fn space(&self) -> Result<Space, StorageError> {
        let operation = Operation { what: "disk.space", to: "", numbers: &[] };
        self.0.operate(&operation, |state| state.check().map(|()| state.space())).await
    }

    fn engine(&self) -> String {
        "simulated".to_owned()
    }
}

/// An open file of a simulated disk.
#[derive(Clone)]
pub struct SimFile(Arc<Open>);

struct Open {
    session: Arc<Session>,
    file: FileNumber,
    /// That it had when it was opened, for people.
    name: FileName,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.session.closed(self.file);
    }
}

impl Open {
    fn operation<'a>(&'a self, what: &'static str, numbers: &'a [u64]) -> Operation<'a> {
        Operation { what, to: self.name.as_str(), numbers }
    }

    /// Where, how many transfers, how many bytes.
    fn transfers<'a>(&self, all: impl Iterator<Item = (u64, usize)> + 'a) -> [u64; 4] {
        all.fold([self.file, u64::MAX, 0, 0], |[file, first, count, bytes], (offset, len)| {
            [file, first.min(offset), count + 1, bytes + len as u64]
        })
    }

    fn read_one(&self, state: &mut State, read: Read) -> Result<AlignedBuf, StorageError> {
        let Read { offset, mut buf } = read;
        check_offset(offset)?;
        state.check()?;
        let fails = self.session.device().0.failures.chance(state.faults.read_error_ppm);
        if fails || !state.content(self.file)?.read(offset, &mut buf, false) {
            let what =
                format!("{}/{} cannot be read at offset {offset}", self.session.device().path(), self.name);
            return Err(error(StorageErrorKind::Io, what));
        }
        state.counters.reads += 1;
        state.counters.bytes_read += buf.len() as u64;
        Ok(buf)
    }
}

fn check_offset(offset: u64) -> Result<(), StorageError> {
    if offset.is_multiple_of(ALIGN_BYTES as u64) {
        return Ok(());
    }
    Err(error(StorageErrorKind::Invalid, format!("offset {offset} is not aligned")))
}

/// The whole capacity of a buffer, without a copy.
fn whole(write: Write) -> Result<(u64, Bytes), StorageError> {
    let Write { offset, mut buf } = write;
    check_offset(offset)?;
    if offset.checked_add(buf.capacity() as u64).is_none() {
        return Err(error(StorageErrorKind::Invalid, format!("no file reaches beyond offset {offset}")));
    }
    buf.set_len(buf.capacity());
    Ok((offset, buf.freeze()))
}

impl DiskFile for SimFile {
    async fn write(&self, batch: Vec<Write>, _: Priority) -> Result<(), StorageError> {
        let Open { session, file, .. } = &*self.0;
        session.begin("disk.write").await;
        let mut transfers = batch.into_iter().map(whole).collect::<Result<Vec<_>, _>>()?;
        let numbers = self.0.transfers(transfers.iter().map(|(offset, data)| (*offset, data.len())));
        // Any order is right; a failure or a death in the middle finds some of them done.
        session.admit(&self.0.operation("disk.write", &numbers))?;
        transfers = session.device().passed(&self.0.name, transfers);
        session.device().0.failures.shuffle(&mut transfers);
        let change = Change::Write { file: *file, transfers };
        session.change(&self.0.operation("disk.write", &numbers), change, self.clone()).await.map(drop)
    }

    async fn read(&self, batch: Vec<Read>, _: Priority) -> Vec<Result<AlignedBuf, StorageError>> {
        let numbers = self.0.transfers(batch.iter().map(|read| (read.offset, read.buf.capacity())));
        let operation = self.0.operation("disk.read", &numbers);
        if self.0.session.admit(&operation).is_err() {
            let busy = || error(StorageErrorKind::Busy, "too much waits for the disk already");
            return batch.iter().map(|_| Err(busy())).collect();
        }
        let all =
            |state: &mut State| Ok(batch.into_iter().map(|read| self.0.read_one(state, read)).collect());
        // Each transfer has its own errors, the operation has none.
        self.0.session.operate(&operation, all).await.unwrap_or_default()
    }

    async fn flush(&self) -> Result<(), StorageError> {
        let numbers = [self.0.file];
        self.0.session.flush(&self.0.operation("disk.flush", &numbers), self.0.file).await
    }

    async fn size(&self) -> Result<u64, StorageError> {
        let operation = self.0.operation("disk.size", &[]);
        let len = |state: &mut State| {
            state.check()?;
            state.content(self.0.file).map(|content| content.len())
        };
        self.0.session.operate(&operation, len).await
    }
}
