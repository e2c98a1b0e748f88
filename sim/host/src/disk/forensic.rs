//! A disk under the eyes of those who check what is on it.

use env::{
    AlignedBuf, Disk, DiskFile, FileName, Priority, Read, Space, StorageError, StorageErrorKind, Write,
};

use super::device::DiskDevice;
use super::names::FileNumber;
use super::state::error;

/// Which of a disk's images is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Image {
    /// What the kernel shows.
    Volatile,
    /// What flushes have covered.
    Durable,
}

/// What the kernel shows of a disk, or what a power loss would leave of it at least, at once and without a
/// fault, whether its host lives or not. Changes are refused as `Invalid`. Sectors that cannot be read are
/// `Io` here too; stale reads are not seen and not used up.
#[derive(Clone)]
pub struct ForensicDisk {
    device: DiskDevice,
    image: Image,
}

impl ForensicDisk {
    pub(super) fn new(device: DiskDevice, image: Image) -> Self {
        Self { device, image }
    }
}

fn refused<T>() -> Result<T, StorageError> {
    Err(error(StorageErrorKind::Invalid, "evidence is not changed"))
}

impl Disk for ForensicDisk {
    type File = ForensicFile;

    async fn list(&self) -> Result<Vec<FileName>, StorageError> {
        Ok(self.device.with(|state| match self.image {
            Image::Volatile => state.names.list().map(|(name, _)| name.clone()).collect(),
            Image::Durable => state.names.list_durable().map(|(name, _)| name.clone()).collect(),
        }))
    }

    async fn open(&self, name: &FileName) -> Result<ForensicFile, StorageError> {
        let (device, image) = (self.device.clone(), self.image);
        let file = device.with(|state| match image {
            Image::Volatile => state.names.get(name),
            Image::Durable => state.names.get_durable(name),
        });
        let file = file.ok_or_else(|| error(StorageErrorKind::NotFound, "there is no such file"))?;
        Ok(ForensicFile { device, image, file })
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
        Ok(self.device.with(|state| state.space()))
    }

    fn engine(&self) -> String {
        "simulated, looked at".to_owned()
    }
}

/// A file of a disk that is looked at. It is `Io` once nothing is left of the file.
#[derive(Clone)]
pub struct ForensicFile {
    device: DiskDevice,
    image: Image,
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
                Ok(match self.image {
                    Image::Volatile => content.read(offset, &mut buf, true),
                    Image::Durable => content.read_durable(offset, &mut buf),
                })
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
        self.device.with(|state| {
            state.content(self.file).map(|content| match self.image {
                Image::Volatile => content.len(),
                Image::Durable => content.durable_len(),
            })
        })
    }
}
