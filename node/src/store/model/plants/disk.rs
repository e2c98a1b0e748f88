//! Between the store and its disk.

use env::{AlignedBuf, Disk, DiskFile, FileName, Priority, Read, Space, StorageError, Write};
use simhost::disk::{SimDisk, SimFile};

use super::{Bug, Plant, Wrote};
use crate::store::record::{PAGE_BYTES, SegmentId, parse_segment_file};

/// A disk that has a bug, or none.
#[derive(Clone)]
pub(in crate::store::model) struct PlantedDisk {
    disk: SimDisk,
    plant: Plant,
}

impl PlantedDisk {
    pub(in crate::store::model) fn new(disk: SimDisk, plant: Plant) -> Self {
        Self { disk, plant }
    }

    fn file(&self, name: &FileName, file: SimFile) -> PlantedFile {
        let segment = parse_segment_file(name).unwrap();
        PlantedFile { file, segment, plant: self.plant.clone() }
    }
}

/// One of its files, a segment.
#[derive(Clone)]
pub(in crate::store::model) struct PlantedFile {
    file: SimFile,
    segment: SegmentId,
    plant: Plant,
}

impl Disk for PlantedDisk {
    type File = PlantedFile;

    async fn list(&self) -> Result<Vec<FileName>, StorageError> {
        self.disk.list().await
    }

    async fn open(&self, name: &FileName) -> Result<PlantedFile, StorageError> {
        self.disk.open(name).await.map(|file| self.file(name, file))
    }

    async fn create(&self, name: &FileName, size_bytes: u64) -> Result<PlantedFile, StorageError> {
        self.disk.create(name, size_bytes).await.map(|file| self.file(name, file))
    }

    async fn rename(&self, from: &FileName, to: &FileName) -> Result<(), StorageError> {
        self.disk.rename(from, to).await
    }

    async fn remove(&self, name: &FileName) -> Result<(), StorageError> {
        self.disk.remove(name).await
    }

    async fn flush_names(&self) -> Result<(), StorageError> {
        if self.plant.has(Bug::NamesNotFlushed) {
            return Ok(());
        }
        self.disk.flush_names().await
    }

    async fn space(&self) -> Result<Space, StorageError> {
        self.disk.space().await
    }

    fn engine(&self) -> String {
        self.disk.engine()
    }
}

impl PlantedFile {
    /// Whether the flush of what was written last is left out.
    fn skips(&self, wrote: Option<Wrote>) -> bool {
        match self.plant.bug {
            Some(Bug::FlushSkipped | Bug::FlushLate) => matches!(wrote, Some(Wrote::Records { .. })),
            Some(Bug::FreedHeaderNotFlushed) => wrote == Some(Wrote::FreedHeader),
            Some(Bug::CopiesNotFlushed) => matches!(wrote, Some(Wrote::Records { are_copies: true, .. })),
            _ => false,
        }
    }
}

impl DiskFile for PlantedFile {
    async fn write(&self, batch: Vec<Write>, priority: Priority) -> Result<(), StorageError> {
        if self.plant.has(Bug::FlushLate) {
            self.file.flush().await?;
        }
        // Without a bug, too: the same world with it and without.
        let batch = self.plant.split(self.segment, batch);
        let wrote = self.plant.sort(self.segment, &batch);
        let batch: Vec<Write> =
            batch.into_iter().filter_map(|write| self.plant.rewritten(self.segment, write)).collect();
        self.file.write(batch, priority).await?;
        if let Some(wrote) = wrote {
            self.plant.memory().written.insert(self.segment, wrote);
        }
        Ok(())
    }

    async fn read(&self, batch: Vec<Read>, priority: Priority) -> Vec<Result<AlignedBuf, StorageError>> {
        let offsets: Vec<u64> = batch.iter().map(|read| read.offset).collect();
        let mut answers = self.file.read(batch, priority).await;
        let mut memory = self.plant.memory();
        let Some((segment, at)) = memory.newest.filter(|_| memory.is_hidden) else { return answers };
        if segment != self.segment {
            return answers;
        }
        for (offset, answer) in offsets.into_iter().zip(&mut answers) {
            let Some(buf) = answer.as_mut().ok().map(AlignedBuf::as_mut_slice) else { continue };
            let within = at.checked_sub(offset).and_then(|within| usize::try_from(within).ok());
            if let Some(page) = within.and_then(|within| buf.get_mut(within..within + PAGE_BYTES)) {
                page.fill(0);
                memory.is_hidden = false;
            }
        }
        answers
    }

    async fn flush(&self) -> Result<(), StorageError> {
        let wrote = self.plant.memory().written.get(&self.segment).copied();
        if self.skips(wrote) {
            return Ok(());
        }
        self.file.flush().await?;
        if let Some(Wrote::Records { last, .. }) = wrote {
            self.plant.memory().newest = Some((self.segment, last));
        }
        Ok(())
    }

    async fn size(&self) -> Result<u64, StorageError> {
        self.file.size().await
    }
}
