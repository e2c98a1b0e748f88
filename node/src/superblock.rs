//! The superblock: which disk a directory is, and of which cluster.
//!
//! ```text
//! 0         8         12        16           32          48           56     64              72      4096
//! +---------+---------+---------+------------+-----------+------------+------+---------------+-------+
//! | magic   | version | CRC-32C | cluster id | disk uuid | created ms | salt | segment bytes | zeros |
//! | 8 bytes | u32     | u32     | 16 bytes   | 16 bytes  | u64        | u64  | u64           |       |
//! +---------+---------+---------+------------+-----------+------------+------+---------------+-------+
//! ```
//!
//! Magic and version come first, so that every later version can be told from damage. The file
//! `superblock` has a copy, `superblock.copy`; each is written anew, flushed, renamed and its name
//! flushed, and one that is damaged or absent is healed from the other.
//!
//! A directory that holds files and no superblock is refused: it is somebody's, or what is left of
//! a disk that must be looked at before anything is written to it.

use std::fmt;

use env::{AlignedBuf, Disk, DiskFile, FileName, Priority, Read, StorageError, StorageErrorKind, Write};
use proto::{ClusterId, DiskUuid, InvalidInput, Timestamp};
use tracing::warn;

use crate::block::{BLOCK_HEADER_BYTES, BlockProblem, BlockReader, BlockWriter};
use crate::store::record::{Realm, SegmentHeader, parse_segment_file};

/// The format that this software writes, and the newest that it reads.
pub const VERSION: u32 = 2;
/// The oldest that it reads: version 1 was of a store of one file a shard, which was never released.
const VERSION_MIN: u32 = 2;
const MAGIC: [u8; 8] = *b"CADOLEsb";

const PRIMARY: &str = "superblock";
const COPY: &str = "superblock.copy";
const TEMPORARY: &str = "superblock.new";

/// Segments of a large disk, about.
const SEGMENTS: u64 = 4096;
/// Segments of a small one, at least.
const SEGMENTS_MIN: u64 = 64;
/// Holds the largest shard, and others with it.
const SEGMENT_BYTES_MIN: u64 = 8 << 20;
const SEGMENT_BYTES_MAX: u64 = 4 << 30;
/// Of a disk that is too small to be of use.
const SEGMENT_BYTES_LEAST: u64 = 64 << 10;

/// Which disk this is, and of which cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// The cluster that the disk belongs to.
    pub cluster: ClusterId,
    /// The disk's own identity, made when it was formatted.
    pub uuid: DiskUuid,
    /// When it was formatted, by the clock of its node.
    pub created: Timestamp,
    /// Random, and told to nobody: without it no owner of a shard can make bytes that look like the log's.
    pub salt: u64,
    /// Bytes of a segment of the log; a multiple of 4096, [`segment_bytes`] of the room that the disk had.
    pub segment_bytes: u64,
}

/// Bytes of a segment on a disk that may hold so many: a power of two between 8 MiB and 4 GiB, so that a large disk
/// has about 4096, and less on a disk that would have fewer than 64. A shard has to fit one.
pub fn segment_bytes(capacity_bytes: u64) -> u64 {
    let large = (capacity_bytes / SEGMENTS).next_power_of_two().clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
    let small = (capacity_bytes / SEGMENTS_MIN).max(1);
    large.min(1 << small.ilog2()).max(SEGMENT_BYTES_LEAST)
}

/// Without the salt, which has no place in a log of events.
impl fmt::Debug for Superblock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, uuid, created, segment_bytes, .. } = self;
        f.debug_struct("Superblock")
            .field("cluster", cluster)
            .field("uuid", uuid)
            .field("created", created)
            .field("segment_bytes", segment_bytes)
            .finish_non_exhaustive()
    }
}

impl Superblock {
    /// What all pages of the disk's log carry.
    pub(crate) fn realm(&self) -> Realm {
        Realm { cluster: self.cluster, disk: self.uuid, salt: self.salt }
    }

    /// As it stands on the disk.
    pub fn encode(&self) -> AlignedBuf {
        let mut buf = AlignedBuf::zeroed(BLOCK_HEADER_BYTES);
        let mut block = BlockWriter::new(buf.as_mut_slice(), MAGIC, VERSION);
        block.bytes(&self.cluster.to_bytes());
        block.bytes(&self.uuid.to_bytes());
        block.u64(self.created.as_millis());
        block.u64(self.salt);
        block.u64(self.segment_bytes);
        block.seal();
        buf
    }

    /// From the bytes of the file.
    ///
    /// # Errors
    ///
    /// When they are damaged, another file's, or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, BlockProblem> {
        let mut block = BlockReader::new(bytes, MAGIC, VERSION)?;
        if block.version() < VERSION_MIN {
            return Err(BlockProblem::Field { field: "version", found: block.version().into() });
        }
        let superblock = Self {
            cluster: ClusterId(block.u128()),
            uuid: DiskUuid(block.u128()),
            created: Timestamp::from_millis(block.u64()),
            salt: block.u64(),
            segment_bytes: block.u64(),
        };
        if !is_segment_size(superblock.segment_bytes) {
            return Err(BlockProblem::Field { field: "segment bytes", found: superblock.segment_bytes });
        }
        Ok(superblock)
    }
}

fn is_segment_size(bytes: u64) -> bool {
    bytes.is_power_of_two() && (SEGMENT_BYTES_LEAST..=SEGMENT_BYTES_MAX).contains(&bytes)
}

/// What a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Empty: it may be formatted.
    Fresh,
    /// A disk of this cluster.
    Ours(Superblock),
}

/// Why a directory cannot serve as a disk.
#[derive(Debug, thiserror::Error)]
pub enum SuperblockError {
    /// The disk belongs to another cluster.
    #[error(
        "disk {uuid} belongs to cluster {found}, this node to {expected}: check the path, or empty the \
         directory if its content may be lost"
    )]
    ForeignCluster {
        /// The disk.
        uuid: DiskUuid,
        /// Its cluster.
        found: ClusterId,
        /// The cluster of this node.
        expected: ClusterId,
    },
    /// A later version of this software formatted it.
    #[error("the superblock has format version {found}, this software knows {VERSION}: upgrade this node")]
    NewerVersion {
        /// Its version.
        found: u32,
    },
    /// Neither superblock can be read.
    #[error(
        "no superblock is whole ({primary}; copy: {copy}): replace the disk, or empty the directory if its \
         content may be lost"
    )]
    Damaged {
        /// What is wrong with the first.
        primary: String,
        /// What is wrong with its copy.
        copy: String,
    },
    /// Both superblocks are whole and say different things.
    #[error("the superblock names disk {primary}, its copy disk {copy}: remove the wrong one")]
    Contradiction {
        /// The disk that the first names.
        primary: DiskUuid,
        /// The disk that the copy names.
        copy: DiskUuid,
    },
    /// There are files and no superblock.
    #[error(
        "the directory has no superblock and is not empty (it has {example:?}): check the path, or empty \
         the directory if its content may be lost"
    )]
    NotEmpty {
        /// One of the files.
        example: String,
    },
    /// The disk cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// One of the two files.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Side {
    Absent,
    Bad(BlockProblem),
    Whole(Superblock),
}

/// What to do with a directory.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fresh,
    Ours(Superblock),
    /// One of the files is to be written again.
    Heal(Superblock, &'static str),
}

fn judge(
    primary: &Side,
    copy: &Side,
    other_file: Option<&FileName>,
    expected: ClusterId,
) -> Result<Verdict, SuperblockError> {
    for side in [primary, copy] {
        if let Side::Bad(BlockProblem::NewerVersion { found, .. }) = side {
            return Err(SuperblockError::NewerVersion { found: *found });
        }
    }
    let verdict = match (primary, copy) {
        (Side::Absent, Side::Absent) => {
            return match other_file {
                None => Ok(Verdict::Fresh),
                Some(name) => Err(SuperblockError::NotEmpty { example: name.to_string() }),
            };
        }
        (Side::Whole(a), Side::Whole(b)) if a == b => Verdict::Ours(*a),
        (Side::Whole(a), Side::Whole(b)) => {
            return Err(SuperblockError::Contradiction { primary: a.uuid, copy: b.uuid });
        }
        (Side::Whole(whole), _) => Verdict::Heal(*whole, COPY),
        (_, Side::Whole(whole)) => Verdict::Heal(*whole, PRIMARY),
        _ => {
            return Err(SuperblockError::Damaged { primary: describe(primary), copy: describe(copy) });
        }
    };
    let (Verdict::Ours(superblock) | Verdict::Heal(superblock, _)) = &verdict else {
        return Ok(verdict);
    };
    if superblock.cluster == expected {
        Ok(verdict)
    } else {
        let Superblock { uuid, cluster: found, .. } = *superblock;
        Err(SuperblockError::ForeignCluster { uuid, found, expected })
    }
}

fn describe(side: &Side) -> String {
    match side {
        Side::Absent => "absent".to_owned(),
        Side::Bad(problem) => problem.to_string(),
        Side::Whole(_) => "whole".to_owned(),
    }
}

/// Finds out what the directory is, and heals one superblock from the other. Nothing is written to a
/// directory that is fresh or refused.
///
/// # Errors
///
/// See [`SuperblockError`].
pub async fn inspect<D: Disk>(disk: &D, expected: ClusterId) -> Result<Found, SuperblockError> {
    let names = disk.list().await?;
    let ours = [PRIMARY, COPY, TEMPORARY];
    let other_file = names.iter().find(|name| !ours.contains(&name.as_str()));
    let primary = read(disk, PRIMARY).await?;
    let copy = read(disk, COPY).await?;
    match judge(&primary, &copy, other_file, expected)? {
        Verdict::Fresh => Ok(Found::Fresh),
        Verdict::Ours(superblock) => Ok(Found::Ours(superblock)),
        Verdict::Heal(superblock, file) => {
            warn!(disk = %superblock.uuid, file, "superblock healed from its other copy");
            write(disk, file, &superblock).await?;
            Ok(Found::Ours(superblock))
        }
    }
}

/// What the directory's superblock says, of whatever cluster, without healing anything. When no copy is whole, what
/// the header of a segment tells of it, all but the time; nothing when there is none, or two whole superblocks
/// contradict each other.
///
/// # Errors
///
/// When the disk cannot be read.
pub(crate) async fn peek<D: Disk>(disk: &D) -> Result<Option<Superblock>, SuperblockError> {
    Ok(match (read(disk, PRIMARY).await?, read(disk, COPY).await?) {
        (Side::Whole(a), Side::Whole(b)) => Some(a).filter(|a| *a == b),
        (Side::Whole(whole), _) | (_, Side::Whole(whole)) => Some(whole),
        _ => from_segments(disk).await?,
    })
}

async fn from_segments<D: Disk>(disk: &D) -> Result<Option<Superblock>, SuperblockError> {
    for name in disk.list().await?.iter().filter(|name| parse_segment_file(name).is_some()) {
        let batch = vec![Read { offset: 0, buf: AlignedBuf::zeroed(BLOCK_HEADER_BYTES) }];
        let page = disk.open(name).await?.read(batch, Priority::Client).await.pop();
        let told = page.and_then(Result::ok).and_then(|page| SegmentHeader::realm_of(page.as_slice()));
        if let Some((realm, segment_bytes)) = told.filter(|(_, bytes)| is_segment_size(*bytes)) {
            let Realm { cluster, disk: uuid, salt } = realm;
            return Ok(Some(Superblock { cluster, uuid, created: Timestamp::ZERO, salt, segment_bytes }));
        }
    }
    Ok(None)
}

/// Makes a fresh directory a disk. Durable when this returns.
///
/// # Errors
///
/// When the disk cannot be written; the directory may then hold one of the two files.
pub async fn format<D: Disk>(disk: &D, superblock: &Superblock) -> Result<(), SuperblockError> {
    write(disk, PRIMARY, superblock).await?;
    write(disk, COPY, superblock).await
}

async fn read<D: Disk>(disk: &D, name: &str) -> Result<Side, SuperblockError> {
    let file = match disk.open(&file_name(name)?).await {
        Ok(file) => file,
        Err(error) if error.kind() == StorageErrorKind::NotFound => return Ok(Side::Absent),
        Err(error) => return Err(error.into()),
    };
    let batch = vec![Read { offset: 0, buf: AlignedBuf::zeroed(BLOCK_HEADER_BYTES) }];
    let bytes = file.read(batch, Priority::Client).await.pop();
    Ok(match bytes {
        Some(Ok(bytes)) => Superblock::decode(bytes.as_slice()).map_or_else(Side::Bad, Side::Whole),
        // An unreadable sector: the other copy may be whole.
        Some(Err(_)) | None => Side::Bad(BlockProblem::Length { found: 0 }),
    })
}

async fn write<D: Disk>(disk: &D, name: &str, superblock: &Superblock) -> Result<(), SuperblockError> {
    let temporary = file_name(TEMPORARY)?;
    match disk.remove(&temporary).await {
        Err(error) if error.kind() != StorageErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let file = disk.create(&temporary, BLOCK_HEADER_BYTES as u64).await?;
    file.write(vec![Write { offset: 0, buf: superblock.encode() }], Priority::Client).await?;
    file.flush().await?;
    disk.rename(&temporary, &file_name(name)?).await?;
    disk.flush_names().await?;
    Ok(())
}

fn file_name(name: &str) -> Result<FileName, SuperblockError> {
    name.parse()
        .map_err(|error: InvalidInput| StorageError::new(StorageErrorKind::Invalid, error.to_string()).into())
}

#[cfg(test)]
mod tests;
