//! A disk whose writes and flushes are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use env::{AlignedBuf, Disk, DiskFile, FileName, Priority, Read, Space, StorageError, Write};

/// What went to a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes that files were given, padding included; not what the file system writes for itself.
    pub bytes: u64,
    /// Batches.
    pub writes: u64,
    /// Of files.
    pub flushes: u64,
    /// Of names.
    pub name_flushes: u64,
}

impl Counts {
    /// What came since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            bytes: self.bytes - before.bytes,
            writes: self.writes - before.writes,
            flushes: self.flushes - before.flushes,
            name_flushes: self.name_flushes - before.name_flushes,
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
    name_flushes: AtomicU64,
}

/// A disk, or a file of it, that counts. Clones count together.
#[derive(Clone, Debug)]
pub struct Counted<T> {
    inner: T,
    counters: Arc<Counters>,
}

impl<T> Counted<T> {
    /// Counts from zero.
    pub fn new(inner: T) -> Self {
        Self { inner, counters: Arc::default() }
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { bytes, writes, flushes, name_flushes } = &*self.counters;
        Counts { bytes: of(bytes), writes: of(writes), flushes: of(flushes), name_flushes: of(name_flushes) }
    }

    fn with<U>(&self, inner: U) -> Counted<U> {
        Counted { inner, counters: self.counters.clone() }
    }
}

impl<D: Disk> Disk for Counted<D> {
    type File = Counted<D::File>;

    async fn list(&self) -> Result<Vec<FileName>, StorageError> {
        self.inner.list().await
    }

    async fn open(&self, name: &FileName) -> Result<Self::File, StorageError> {
        Ok(self.with(self.inner.open(name).await?))
    }

    async fn create(&self, name: &FileName, size_bytes: u64) -> Result<Self::File, StorageError> {
        Ok(self.with(self.inner.create(name, size_bytes).await?))
    }

    async fn rename(&self, from: &FileName, to: &FileName) -> Result<(), StorageError> {
        self.inner.rename(from, to).await
    }

    async fn remove(&self, name: &FileName) -> Result<(), StorageError> {
        self.inner.remove(name).await
    }

    async fn flush_names(&self) -> Result<(), StorageError> {
        self.counters.name_flushes.fetch_add(1, Ordering::Relaxed);
        self.inner.flush_names().await
    }

    async fn space(&self) -> Result<Space, StorageError> {
        self.inner.space().await
    }

    fn engine(&self) -> String {
        self.inner.engine()
    }
}

impl<F: DiskFile> DiskFile for Counted<F> {
    async fn write(&self, batch: Vec<Write>, priority: Priority) -> Result<(), StorageError> {
        let bytes = batch.iter().map(|write| write.buf.capacity() as u64).sum();
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        self.inner.write(batch, priority).await
    }

    async fn read(&self, batch: Vec<Read>, priority: Priority) -> Vec<Result<AlignedBuf, StorageError>> {
        self.inner.read(batch, priority).await
    }

    async fn flush(&self) -> Result<(), StorageError> {
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        self.inner.flush().await
    }

    async fn size(&self) -> Result<u64, StorageError> {
        self.inner.size().await
    }
}
