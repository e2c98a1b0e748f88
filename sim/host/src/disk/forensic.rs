//! A disk under the eyes of those who check what is on it.

use env::{
    AlignedBuf, Disk, DiskFile, FileName, Priority, Read, Space, StorageError, StorageErrorKind, Write,
};

use super::device::DiskDevice;
use super::names::FileNumber;
use super::state::error;

/// What the kernel shows of a disk, at once and without a fault, whether its host lives or not. Changes are
/// refused as `Invalid`. Sectors that cannot be read are `Io` here too; stale reads are not seen and not
/// used up.
#[derive(Clone)]
pub struct ForensicDisk(DiskDevice);

impl ForensicDisk {
    pub(super) fn new(device: DiskDevice) -> Self {
        Self(device)
    }
}

fn refused<T>() -> Result<T, StorageError> {
    Err(error(StorageErrorKind::Invalid, "evidence is not changed"))
}

impl Disk for ForensicDisk {
    type File = ForensicFile;

    async fn list(&self) -> Result<Vec<FileName>, StorageError> {
        Ok(self.0.with(|state| state.names.list().map(|(name, _)| name.clone()).collect()))
    }

    async fn open(&self, name: &FileName) -> Result<ForensicFile, StorageError> {
        let file = self.0.with(|state| state.named(name))?;
        Ok(ForensicFile { device: self.0.clone(), file })
    }

    async fn create(&self, _: &FileName, _: u64) -> Result<ForensicFile, StorageError> {
        refused()
    }

    async fn rename(&self, _: &FileName, _: &FileName) -> Result<(), StorageError> {
        refused()
    }

    async fn remove(&self, _: &FileName) -> Result<(), StorageError> {
        refused()
    }

    async fn flush_names(&self) -> Result<(), StorageError> {
        refused()
    }

    async fn space(&self) -> Result<Space, StorageError> {
        Ok(self.0.with(|state| state.space()))
    }

    fn engine(&self) -> String {
        "simulated, looked at".to_owned()
    }
}

/// A file of a disk that is looked at. It is `Io` once nothing is left of the file.
#[derive(Clone)]
pub struct ForensicFile {
    device: DiskDevice,
    file: FileNumber,
}

impl DiskFile for ForensicFile {
    async fn write(&self, _: Vec<Write>, _: Priority) -> Result<(), StorageError> {
        refused()
    }

    async fn read(&self, batch: Vec<Read>, _: Priority) -> Vec<Result<AlignedBuf, StorageError>> {
        let one = |Read { offset, mut buf }: Read| {
            let readable = self.device.with(|state| {
                let content = state.content(self.file)?;
                Ok(content.read(offset, &mut buf, true))
            });
            match readable {
                Ok(true) => Ok(buf),
                Ok(false) => Err(error(StorageErrorKind::Io, format!("unreadable at offset {offset}"))),
                Err(error) => Err(error),
            }
        };
        batch.into_iter().map(one).collect()
    }

    async fn flush(&self) -> Result<(), StorageError> {
        refused()
    }

    async fn size(&self) -> Result<u64, StorageError> {
        self.device.with(|state| state.content(self.file).map(|content| content.len()))
    }
}
