//! Reading shards where the index says they lie.

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use codec::{block_checksums, verify_blocks};
use env::{AlignedBuf, Disk, DiskFile, Kv, Priority, Read, StorageErrorKind};
use proto::ShardName;
use proto::limits::BLOCK_BYTES;
use tracing::warn;

use super::Inner;
use super::index::Location;
use super::record::{Body, PAGE_BYTES, Place, Record, ShardMeta};
use crate::store::StoreError;

/// What keeps a shard from being read at one place.
enum Trouble {
    /// So many blocks are not as they were written, or the record is not there.
    Damaged(u64, String),
    Other(StoreError),
}

impl<D: Disk, K: Kv> Inner<D, K> {
    pub(super) fn locate(&self, name: ShardName) -> Result<Option<Location>, StoreError> {
        self.index.get(&name).map_err(|error| self.index_failed(&error))
    }

    /// What the record says of a shard that is there and whose header is whole.
    pub(super) async fn meta_if_there(
        &self,
        name: ShardName,
        priority: Priority,
    ) -> Result<Option<ShardMeta>, StoreError> {
        match self.read_shard(name, None, priority).await {
            Ok((meta, _)) => Ok(Some(meta)),
            Err(StoreError::NoSuchShard(_) | StoreError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads blocks (first, count; 0 for all to the end), and verifies each.
    pub(super) async fn read_verified(
        &self,
        name: ShardName,
        wanted: (usize, usize),
        priority: Priority,
    ) -> Result<(ShardMeta, Bytes, Range<usize>), StoreError> {
        let (meta, payload) = self.read_shard(name, Some(wanted), priority).await?;
        let (bytes, range) = payload.unwrap_or_default();
        Ok((meta, bytes, range))
    }

    /// Reads a shard wherever it lies: compaction may move it meanwhile.
    async fn read_shard(
        &self,
        name: ShardName,
        wanted: Option<(usize, usize)>,
        priority: Priority,
    ) -> Result<(ShardMeta, Option<(Bytes, Range<usize>)>), StoreError> {
        let mut at = self.locate(name)?.ok_or(StoreError::NoSuchShard(name))?;
        loop {
            match self.read_at(name, &at, wanted, priority).await {
                Ok(read) => return Ok(read),
                Err(Trouble::Other(error)) => return Err(error),
                Err(Trouble::Damaged(count, problem)) => {
                    let now = self.locate(name)?.ok_or(StoreError::NoSuchShard(name))?;
                    if now == at {
                        self.damaged_blocks.fetch_add(count, Ordering::Relaxed);
                        let (disk, segment, offset) = (self.realm.disk, at.segment, at.offset);
                        warn!(%disk, shard = %name, %segment, offset, problem, "damaged shard");
                        return Err(StoreError::Damaged { name, problem });
                    }
                    at = now;
                }
            }
        }
    }

    async fn read_at(
        &self,
        name: ShardName,
        at: &Location,
        wanted: Option<(usize, usize)>,
        priority: Priority,
    ) -> Result<(ShardMeta, Option<(Bytes, Range<usize>)>), Trouble> {
        let incarnation = self.index.segment(at.segment).map_or(0, |row| row.incarnation);
        let room = usize::try_from(at.bytes).unwrap_or(usize::MAX).saturating_sub(PAGE_BYTES);
        let range =
            wanted.map(|wanted| block_range(name, room, wanted)).transpose().map_err(Trouble::Other)?;
        let batch = reads_of(at.offset, range.as_ref(), room);
        let file = self.file(at.segment).await;
        let file = file.map_err(|error| Trouble::Damaged(1, format!("its segment: {error}")))?;
        let mut answers = file.read(batch, priority).await.into_iter();
        let mut next = || match answers.next() {
            Some(Ok(buf)) => Ok(buf),
            Some(Err(error)) if error.kind() == StorageErrorKind::Busy => {
                Err(Trouble::Other(StoreError::failed(&error)))
            }
            Some(Err(error)) => Err(Trouble::Damaged(1, format!("it cannot be read: {error}"))),
            None => {
                let text = "the engine gave no answer to a read".to_owned();
                Err(Trouble::Other(StoreError::Failed(text)))
            }
        };
        let place = Place { segment: at.segment, incarnation, offset: at.offset };
        let first = next()?.freeze();
        let page = first.get(..PAGE_BYTES).unwrap_or_default();
        let meta = self.check_record(name, at, &place, page)?;
        let Some(range) = range else { return Ok((meta, None)) };
        let payload = if range.start == 0 { first.slice(PAGE_BYTES..) } else { next()?.freeze() };
        let end = (meta.shard_bytes as usize).min(range.end * BLOCK_BYTES) - range.start * BLOCK_BYTES;
        if payload.len() < end {
            return Err(Trouble::Damaged(1, "its segment ends early".to_owned()));
        }
        let bytes = payload.slice(..end);
        let crcs = meta.block_crcs.get(range.clone()).unwrap_or_default();
        let first = u32::try_from(range.start).unwrap_or(u32::MAX);
        if verify_blocks(&bytes, first, crcs).is_err() {
            return Err(damaged_blocks(first, &bytes, crcs));
        }
        Ok((meta, Some((bytes, range))))
    }

    fn check_record(
        &self,
        name: ShardName,
        at: &Location,
        place: &Place,
        page: &[u8],
    ) -> Result<ShardMeta, Trouble> {
        let record = Record::decode(&self.realm, place, page)
            .map_err(|problem| Trouble::Damaged(1, format!("its record: {problem}")))?;
        let (sequence, bytes) = (record.sequence, record.bytes());
        match record.body {
            Body::Shard(meta) if meta.name == name && sequence == at.sequence && bytes == at.bytes => {
                Ok(meta)
            }
            _ => Err(Trouble::Damaged(1, "another record lies in its place".to_owned())),
        }
    }
}

/// The header, and these blocks of the payload; in one read when they follow it.
fn reads_of(offset: u64, range: Option<&Range<usize>>, room: usize) -> Vec<Read> {
    let header = |more| Read { offset, buf: AlignedBuf::uncleared(PAGE_BYTES + more) };
    let Some(range) = range else { return vec![header(0)] };
    let (start, end) = (range.start * BLOCK_BYTES, room.min(range.end * BLOCK_BYTES));
    if start == 0 {
        return vec![header(end)];
    }
    let at = offset + (PAGE_BYTES + start) as u64;
    vec![header(0), Read { offset: at, buf: AlignedBuf::uncleared(end - start) }]
}

fn damaged_blocks(first_block: u32, bytes: &[u8], crcs: &[u32]) -> Trouble {
    let found = block_checksums(bytes);
    let bad: Vec<u64> = (u64::from(first_block)..)
        .zip(found.iter().zip(crcs))
        .filter(|(_, (found, expected))| found != expected)
        .map(|(block, _)| block)
        .collect();
    Trouble::Damaged(bad.len() as u64, format!("blocks {bad:?} do not match their checksums"))
}

fn block_range(
    name: ShardName,
    room: usize,
    (first, count): (usize, usize),
) -> Result<Range<usize>, StoreError> {
    let blocks = room.div_ceil(BLOCK_BYTES);
    let end = if count == 0 { blocks } else { first.saturating_add(count) };
    if first < end && end <= blocks {
        return Ok(first..end);
    }
    Err(StoreError::Invalid(format!(
        "{count} blocks from {first} on of shard {name}, which has {blocks} blocks"
    )))
}
