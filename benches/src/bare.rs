//! A disk without a store: what a store is compared with.

use anyhow::{Context, ensure};
use env::{AlignedBuf, Disk, DiskFile, FileName, Priority, Read, Write};
use futures_util::{StreamExt, TryStreamExt, stream};
use node::superblock;

/// Files as long as segments, written from front to back.
pub struct Bare<D: Disk> {
    disk: D,
    /// The file that is written, up to where, and its length.
    end: Option<(D::File, u64, u64)>,
    made: u64,
    written_bytes: u64,
}

/// What is written.
#[derive(Clone, Copy, Debug)]
pub struct Pieces {
    /// How many.
    pub count: u64,
    /// Of each; whole pages, less than a segment.
    pub bytes: usize,
    /// At the same time.
    pub in_flight: usize,
    /// After each, or else when all are written.
    pub flush_each: bool,
}

impl<D: Disk> Bare<D> {
    /// On an empty disk.
    pub fn new(disk: D) -> Self {
        Self { disk, end: None, made: 0, written_bytes: 0 }
    }

    /// Since it is there.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Writes; durable when this returns.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub async fn write(&mut self, pieces: Pieces) -> anyhow::Result<()> {
        let Pieces { count, bytes, in_flight, flush_each } = pieces;
        let (mut places, mut files) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (file, offset) = self.place(bytes as u64).await?;
            if offset == 0 || files.is_empty() {
                files.push(file.clone());
            }
            places.push((file, offset));
        }
        let write = |(file, offset): (D::File, u64)| async move {
            let write = Write { offset, buf: AlignedBuf::uncleared(bytes) };
            file.write(vec![write], Priority::Client).await?;
            if flush_each { file.flush().await } else { Ok(()) }
        };
        stream::iter(places).map(write).buffer_unordered(in_flight).try_collect::<()>().await?;
        for file in files.iter().filter(|_| !flush_each) {
            file.flush().await?;
        }
        self.written_bytes += count * bytes as u64;
        Ok(())
    }

    async fn place(&mut self, bytes: u64) -> anyhow::Result<(D::File, u64)> {
        if let Some((file, end, size)) = &mut self.end
            && *end + bytes <= *size
        {
            *end += bytes;
            return Ok((file.clone(), *end - bytes));
        }
        let size = superblock::segment_bytes(self.disk.space().await?.capacity_bytes);
        ensure!(bytes <= size, "{bytes} bytes in files of {size}");
        self.made += 1;
        let name: FileName = format!("file-{}", self.made).parse()?;
        let file = self.disk.create(&name, size).await?;
        self.disk.flush_names().await?;
        self.end = Some((file.clone(), bytes, size));
        Ok((file, 0))
    }
}

/// Reads so many bytes from each place, as far as they are there, so many at the same time; how many there were.
///
/// # Errors
///
/// When the disk fails.
pub async fn read<F: DiskFile>(places: Vec<(F, u64, usize)>, in_flight: usize) -> anyhow::Result<u64> {
    let read = |(file, offset, bytes): (F, u64, usize)| async move {
        let batch = vec![Read { offset, buf: AlignedBuf::uncleared(bytes) }];
        let buf = file.read(batch, Priority::Client).await.pop().context("no answer")??;
        anyhow::Ok(buf.len() as u64)
    };
    let reads = stream::iter(places).map(read).buffer_unordered(in_flight);
    reads.try_fold(0, |all, bytes| async move { Ok(all + bytes) }).await
}
