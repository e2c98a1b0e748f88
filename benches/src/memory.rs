//! A disk in memory, which takes no time: what is left is what the processor does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use env::{
    AlignedBuf, Disk, DiskFile, FileName, Priority, Read, Space, StorageError, StorageErrorKind, Write,
};

type Content = Arc<Mutex<Vec<u8>>>;

/// Gone with its last clone. Nothing of it survives anything, so that flushes do nothing.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    capacity_bytes: u64,
    files: Arc<Mutex<BTreeMap<FileName, Content>>>,
}

impl MemoryDisk {
    /// An empty one.
    pub fn new(capacity_bytes: u64) -> Self {
        Self { capacity_bytes, files: Arc::default() }
    }
}

/// A file of such a disk.
#[derive(Clone, Debug)]
pub struct MemoryFile(Content);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(kind: StorageErrorKind, name: &FileName) -> StorageError {
    StorageError::new(kind, format!("{name} in memory"))
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    async fn list(&self) -> Result<Vec<FileName>, StorageError> {
        Ok(locked(&self.files).keys().cloned().collect())
    }

    async fn open(&self, name: &FileName) -> Result<MemoryFile, StorageError> {
        let file = locked(&self.files).get(name).cloned();
        file.map(MemoryFile).ok_or_else(|| failed(StorageErrorKind::NotFound, name))
    }

    async fn create(&self, name: &FileName, size_bytes: u64) -> Result<MemoryFile, StorageError> {
        let size = usize::try_from(size_bytes).map_err(|_| failed(StorageErrorKind::Full, name))?;
        let mut files = locked(&self.files);
        if files.contains_key(name) {
            return Err(failed(StorageErrorKind::AlreadyExists, name));
        }
        let content = Content::new(Mutex::new(vec![0; size]));
        files.insert(name.clone(), content.clone());
        Ok(MemoryFile(content))
    }

    async fn rename(&self, from: &FileName, to: &FileName) -> Result<(), StorageError> {
        let mut files = locked(&self.files);
        let content = files.remove(from).ok_or_else(|| failed(StorageErrorKind::NotFound, from))?;
        files.insert(to.clone(), content);
        Ok(())
    }

    async fn remove(&self, name: &FileName) -> Result<(), StorageError> {
        let content = locked(&self.files).remove(name);
        content.map(drop).ok_or_else(|| failed(StorageErrorKind::NotFound, name))
    }

    async fn flush_names(&self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn space(&self) -> Result<Space, StorageError> {
        let used: u64 = locked(&self.files).values().map(|content| locked(content).len() as u64).sum();
        let available_bytes = self.capacity_bytes.saturating_sub(used);
        Ok(Space { capacity_bytes: self.capacity_bytes, available_bytes })
    }

    fn engine(&self) -> String {
        "memory".to_owned()
    }
}

impl DiskFile for MemoryFile {
    async fn write(&self, batch: Vec<Write>, _: Priority) -> Result<(), StorageError> {
        let mut content = locked(&self.0);
        for Write { offset, buf } in batch {
            let bytes = buf.as_capacity_slice();
            let from = usize::try_from(offset).ok();
            let place = from.and_then(|from| content.get_mut(from..)?.get_mut(..bytes.len()));
            let full = || StorageError::new(StorageErrorKind::Full, "a write beyond the end of a file");
            place.ok_or_else(full)?.copy_from_slice(bytes);
        }
        Ok(())
    }

    async fn read(&self, batch: Vec<Read>, _: Priority) -> Vec<Result<AlignedBuf, StorageError>> {
        let content = locked(&self.0);
        let one = |Read { offset, mut buf }: Read| {
            let from = usize::try_from(offset).ok();
            let there = from.and_then(|from| content.get(from..)).unwrap_or_default();
            let place = buf.as_capacity_mut_slice();
            let len = there.len().min(place.len());
            place[..len].copy_from_slice(&there[..len]);
            buf.set_len(len);
            Ok(buf)
        };
        batch.into_iter().map(one).collect()
    }

    async fn flush(&self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn size(&self) -> Result<u64, StorageError> {
        Ok(locked(&self.0).len() as u64)
    }
}
