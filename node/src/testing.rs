//! A disk in memory for tests, with a durable and a volatile image of names and content.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use env::buf::ALIGN_BYTES;
use env::{
    AlignedBuf, Disk, DiskFile, FileName, Priority, Read, Space, StorageError, StorageErrorKind, Write,
};

/// Runs a future that only ever waits for other parts of itself.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..10_000_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
    panic!("the future waits for something that never comes");
}

/// Lets others go on once.
pub(crate) async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[derive(Default)]
struct Content {
    volatile: Vec<u8>,
    durable: Vec<u8>,
}

type Shared = Arc<Mutex<Content>>;

#[derive(Default)]
struct Image {
    capacity_bytes: u64,
    volatile: BTreeMap<FileName, Shared>,
    durable: BTreeMap<FileName, Shared>,
    failing: BTreeSet<&'static str>,
    counts: Counts,
}

/// What a disk was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Batches of reads.
    pub(crate) reads: u64,
    /// Batches of writes.
    pub(crate) writes: u64,
    /// Flushes of files.
    pub(crate) flushes: u64,
    /// Flushes of names.
    pub(crate) name_flushes: u64,
    /// Batches of writes while another file had something that was not flushed.
    pub(crate) writes_beside: u64,
}

impl Image {
    /// Has a file other than this one anything that is not durable?
    fn is_unflushed_beside(&self, file: &Shared) -> bool {
        let differs = |file: &Shared| {
            let content = file.lock().unwrap();
            content.volatile != content.durable
        };
        self.volatile.values().any(|other| !Arc::ptr_eq(other, file) && differs(other))
    }

    fn used(&self) -> u64 {
        self.volatile.values().map(|file| file.lock().unwrap().volatile.len() as u64).sum()
    }

    fn check(&self, operation: &'static str) -> Result<(), StorageError> {
        if self.failing.contains(operation) {
            return Err(StorageError::new(StorageErrorKind::Io, format!("{operation} was told to fail")));
        }
        Ok(())
    }
}

/// The disk. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct MemDisk(Arc<Mutex<Image>>);

impl MemDisk {
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        Self(Arc::new(Mutex::new(Image { capacity_bytes, ..Image::default() })))
    }

    fn image(&self) -> MutexGuard<'_, Image> {
        self.0.lock().unwrap()
    }

    /// The power fails: what was not flushed is gone.
    pub(crate) fn crash(&self) {
        let mut image = self.image();
        for file in image.volatile.values().chain(image.durable.values()) {
            let mut file = file.lock().unwrap();
            file.volatile = file.durable.clone();
        }
        image.volatile = image.durable.clone();
    }

    /// Another disk with the same files, all of them durable.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new(self.image().capacity_bytes);
        for name in self.names() {
            copy.plant(&name, self.content(&name));
        }
        copy
    }

    /// A bit of the file rots.
    pub(crate) fn damage(&self, name: &str, at: usize) {
        let file = self.image().volatile[&name.parse::<FileName>().unwrap()].clone();
        let mut file = file.lock().unwrap();
        file.volatile[at] ^= 4;
        file.durable = file.volatile.clone();
    }

    /// Puts `bytes` under `name`, behind everybody's back.
    pub(crate) fn plant(&self, name: &str, bytes: Vec<u8>) {
        let file = Arc::new(Mutex::new(Content { volatile: bytes.clone(), durable: bytes }));
        let mut image = self.image();
        image.volatile.insert(name.parse().unwrap(), file.clone());
        image.durable.insert(name.parse().unwrap(), file);
    }

    /// The content of a file.
    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        self.image().volatile[&name.parse::<FileName>().unwrap()].lock().unwrap().volatile.clone()
    }

    /// Puts `bytes` into a file, behind everybody's back.
    pub(crate) fn overwrite(&self, name: &str, at: usize, bytes: &[u8]) {
        let mut content = self.content(name);
        content[at..at + bytes.len()].copy_from_slice(bytes);
        let file = self.image().volatile[&name.parse::<FileName>().unwrap()].clone();
        let mut file = file.lock().unwrap();
        (file.volatile, file.durable) = (content.clone(), content);
    }

    /// Takes a file away, behind everybody's back.
    pub(crate) fn lose(&self, name: &str) {
        let name = name.parse::<FileName>().unwrap();
        let mut image = self.image();
        image.volatile.remove(&name);
        image.durable.remove(&name);
    }

    /// All names, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.image().volatile.keys().map(ToString::to_string).collect()
    }

    /// Operations of this name fail from now on.
    pub(crate) fn fail(&self, operation: &'static str) {
        self.image().failing.insert(operation);
    }

    /// Nothing fails from now on.
    pub(crate) fn heal(&self) {
        self.image().failing.clear();
    }

    /// What it was asked for so far.
    pub(crate) fn counts(&self) -> Counts {
        self.image().counts
    }
}

fn error(kind: StorageErrorKind, name: &FileName) -> StorageError {
    StorageError::new(kind, format!("{name}: {kind:?}"))
}

impl Disk for MemDisk {
    type File = MemFile;

    async fn list(&self) -> Result<Vec<FileName>, StorageError> {
        Ok(self.image().volatile.keys().cloned().collect())
    }

    async fn open(&self, name: &FileName) -> Result<MemFile, StorageError> {
        pause().await;
        let image = self.image();
        let file = image.volatile.get(name).cloned();
        file.map(|file| MemFile(file, self.clone())).ok_or_else(|| error(StorageErrorKind::NotFound, name))
    }

    async fn create(&self, name: &FileName, size_bytes: u64) -> Result<MemFile, StorageError> {
        pause().await;
        let mut image = self.image();
        if image.volatile.contains_key(name) {
            return Err(error(StorageErrorKind::AlreadyExists, name));
        }
        if image.used() + size_bytes > image.capacity_bytes {
            return Err(error(StorageErrorKind::Full, name));
        }
        image.check("create")?;
        let volatile = vec![0; usize::try_from(size_bytes).unwrap()];
        let file = Arc::new(Mutex::new(Content { volatile, durable: Vec::new() }));
        image.volatile.insert(name.clone(), file.clone());
        Ok(MemFile(file, self.clone()))
    }

    async fn rename(&self, from: &FileName, to: &FileName) -> Result<(), StorageError> {
        pause().await;
        let mut image = self.image();
        image.check("rename")?;
        let file = image.volatile.remove(from).ok_or_else(|| error(StorageErrorKind::NotFound, from))?;
        image.volatile.insert(to.clone(), file);
        Ok(())
    }

    async fn remove(&self, name: &FileName) -> Result<(), StorageError> {
        pause().await;
        let mut image = self.image();
        image.check("remove")?;
        image.volatile.remove(name).map(|_| ()).ok_or_else(|| error(StorageErrorKind::NotFound, name))
    }

    async fn flush_names(&self) -> Result<(), StorageError> {
        let began = self.image().volatile.clone();
        pause().await;
        let mut image = self.image();
        image.check("flush_names")?;
        image.counts.name_flushes += 1;
        image.durable = began;
        Ok(())
    }

    async fn space(&self) -> Result<Space, StorageError> {
        let image = self.image();
        image.check("space")?;
        let available_bytes = image.capacity_bytes.saturating_sub(image.used());
        Ok(Space { capacity_bytes: image.capacity_bytes, available_bytes })
    }

    fn engine(&self) -> String {
        "memory".to_owned()
    }
}

/// A file of the disk.
#[derive(Clone)]
pub(crate) struct MemFile(Shared, MemDisk);

impl DiskFile for MemFile {
    async fn write(&self, batch: Vec<Write>, _: Priority) -> Result<(), StorageError> {
        pause().await;
        {
            let mut image = self.1.image();
            image.counts.writes += 1;
            image.counts.writes_beside += u64::from(image.is_unflushed_beside(&self.0));
            image.check("write")?;
        }
        let mut content = self.0.lock().unwrap();
        for write in batch {
            let at = usize::try_from(write.offset).unwrap();
            assert!(at.is_multiple_of(ALIGN_BYTES), "offset {at} is not aligned");
            let end = at + write.buf.capacity();
            if end > content.volatile.len() {
                return Err(StorageError::new(StorageErrorKind::Full, "write beyond what was reserved"));
            }
            content.volatile[at..end].copy_from_slice(write.buf.as_capacity_slice());
        }
        Ok(())
    }

    async fn read(&self, batch: Vec<Read>, _: Priority) -> Vec<Result<AlignedBuf, StorageError>> {
        pause().await;
        self.1.image().counts.reads += 1;
        let failing = self.1.image().check("read").is_err();
        let content = self.0.lock().unwrap();
        let one = |Read { offset, mut buf }: Read| {
            if failing {
                return Err(StorageError::new(StorageErrorKind::Io, "unreadable"));
            }
            let at = usize::try_from(offset).unwrap().min(content.volatile.len());
            let there = buf.capacity().min(content.volatile.len() - at);
            buf.as_capacity_mut_slice()[..there].copy_from_slice(&content.volatile[at..at + there]);
            buf.set_len(there);
            Ok(buf)
        };
        batch.into_iter().map(one).collect()
    }

    async fn flush(&self) -> Result<(), StorageError> {
        pause().await;
        self.1.image().counts.flushes += 1;
        self.1.image().check("flush")?;
        let mut content = self.0.lock().unwrap();
        content.durable = content.volatile.clone();
        Ok(())
    }

    async fn size(&self) -> Result<u64, StorageError> {
        Ok(self.0.lock().unwrap().volatile.len() as u64)
    }
}
