//! The superblock: which disk a directory is, and of which cluster.
//!
//! ```text
//! 0         8         12        16            32           48           56            4096
//! +---------+---------+---------+-------------+------------+------------+-------------+
//! | magic   | version | CRC-32C | cluster id  | disk uuid  | created ms | zeros       |
//! | 8 bytes | u32     | u32     | 16 bytes    | 16 bytes   | u64        |             |
//! +---------+---------+---------+-------------+------------+------------+-------------+
//! ```
//!
//! Magic and version come first, so that every later version can be told from damage. The file
//! `superblock` has a copy, `superblock.copy`; each is written anew, flushed, renamed and its name
//! flushed, and one that is damaged or absent is healed from the other.
//!
//! A directory that holds files and no superblock is refused: it is somebody's, or what is left of
//! a disk that must be looked at before anything is written to it.

use env::{AlignedBuf, Disk, DiskFile, FileName, Priority, Read, StorageError, StorageErrorKind, Write};
use proto::{ClusterId, DiskUuid, InvalidInput, Timestamp};
use tracing::warn;

use crate::block::{BLOCK_HEADER_BYTES, BlockProblem, BlockReader, BlockWriter};

/// The format that this software writes, and the newest that it reads.
pub const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"CADOLEsb";

const PRIMARY: &str = "superblock";
const COPY: &str = "superblock.copy";
const TEMPORARY: &str = "superblock.new";

/// Which disk this is, and of which cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The cluster that the disk belongs to.
    pub cluster: ClusterId,
    /// The disk's own identity, made when it was formatted.
    pub uuid: DiskUuid,
    /// When it was formatted, by the clock of its node.
    pub created: Timestamp,
}

impl Superblock {
    /// As it stands on the disk.
    pub fn encode(&self) -> AlignedBuf {
        let mut buf = AlignedBuf::zeroed(BLOCK_HEADER_BYTES);
        let mut block = BlockWriter::new(buf.as_mut_slice(), MAGIC, VERSION);
        block.bytes(&self.cluster.to_bytes());
        block.bytes(&self.uuid.to_bytes());
        block.u64(self.created.as_millis());
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
        Ok(Self {
            cluster: ClusterId(block.u128()),
            uuid: DiskUuid(block.u128()),
            created: Timestamp::from_millis(block.u64()),
        })
    }
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

/// What the directory's superblock says, of whatever cluster, without healing anything; nothing when no copy
/// is whole, or two whole ones contradict each other.
///
/// # Errors
///
/// When the disk cannot be read.
pub(crate) async fn peek<D: Disk>(disk: &D) -> Result<Option<Superblock>, SuperblockError> {
    Ok(match (read(disk, PRIMARY).await?, read(disk, COPY).await?) {
        (Side::Whole(a), Side::Whole(b)) => Some(a).filter(|a| *a == b),
        (Side::Whole(whole), _) | (_, Side::Whole(whole)) => Some(whole),
        _ => None,
    })
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

/// Whether `name` is a superblock, and none of the store's files.
pub(crate) fn is_superblock(name: &FileName) -> bool {
    [PRIMARY, COPY, TEMPORARY].contains(&name.as_str())
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
mod tests {
    use super::*;
    use crate::testing::{MemDisk, block_on};

    const CLUSTER: ClusterId = ClusterId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);

    fn superblock() -> Superblock {
        let created = Timestamp::from_millis(0x1122_3344_5566);
        Superblock { cluster: CLUSTER, uuid: DiskUuid(0xabcd), created }
    }

    const GOLDEN_CRC: u32 = 0x5520_5b96;

    /// The bytes on the disk never change.
    #[test]
    fn golden_bytes() {
        let bytes = superblock().encode();
        let mut expected = Vec::new();
        expected.extend_from_slice(b"CADOLEsb\x01\0\0\0");
        expected.extend_from_slice(&GOLDEN_CRC.to_le_bytes());
        expected.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        expected.extend_from_slice(&[0; 14]);
        expected.extend_from_slice(&[0xab, 0xcd]);
        expected.extend_from_slice(&[0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0]);
        expected.resize(4096, 0);
        assert!(bytes.as_slice() == expected, "{:02x?}", &bytes.as_slice()[..64]);
        assert_eq!(Superblock::decode(&expected), Ok(superblock()));
    }

    /// Every flipped bit of the fields is found, and a newer version is told from damage.
    #[test]
    fn damage_is_found() {
        let good = superblock().encode();
        for at in (0..64).chain([4095]) {
            for bit in 0..8 {
                let mut bad = good.as_slice().to_vec();
                bad[at] ^= 1 << bit;
                assert!(Superblock::decode(&bad).is_err(), "byte {at} bit {bit}");
            }
        }
        assert!(Superblock::decode(&good.as_slice()[..4095]).is_err());
        let mut newer = good.as_slice().to_vec();
        BlockWriter::new(&mut newer, MAGIC, 2).seal();
        let problem = Superblock::decode(&newer);
        assert_eq!(problem, Err(BlockProblem::NewerVersion { found: 2, known: 1 }));
    }

    /// Each combination of the two files has the verdict that loses nothing.
    #[test]
    fn verdicts() {
        let whole = Side::Whole(superblock());
        let other = Side::Whole(Superblock { uuid: DiskUuid(1), ..superblock() });
        let bad = Side::Bad(BlockProblem::Length { found: 0 });
        let newer = Side::Bad(BlockProblem::NewerVersion { found: 2, known: 1 });
        let file: FileName = "x".parse().unwrap();
        let go = |a: &Side, b: &Side, f: Option<&FileName>| judge(a, b, f, CLUSTER);
        assert_eq!(go(&Side::Absent, &Side::Absent, None).unwrap(), Verdict::Fresh);
        assert!(matches!(
            go(&Side::Absent, &Side::Absent, Some(&file)),
            Err(SuperblockError::NotEmpty { .. })
        ));
        assert_eq!(go(&whole, &whole, Some(&file)).unwrap(), Verdict::Ours(superblock()));
        assert_eq!(go(&whole, &bad, None).unwrap(), Verdict::Heal(superblock(), COPY));
        assert_eq!(go(&whole, &Side::Absent, None).unwrap(), Verdict::Heal(superblock(), COPY));
        assert_eq!(go(&bad, &whole, None).unwrap(), Verdict::Heal(superblock(), PRIMARY));
        assert!(matches!(go(&whole, &other, None), Err(SuperblockError::Contradiction { .. })));
        assert!(matches!(go(&whole, &newer, None), Err(SuperblockError::NewerVersion { found: 2 })));
        for (a, b) in [(&bad, &bad), (&bad, &Side::Absent), (&Side::Absent, &bad)] {
            assert!(matches!(go(a, b, None), Err(SuperblockError::Damaged { .. })));
        }
        let foreign = judge(&whole, &whole, None, ClusterId(5));
        assert!(matches!(foreign, Err(SuperblockError::ForeignCluster { expected: ClusterId(5), .. })));
    }

    /// A formatted disk is recognised after a crash, and a damaged superblock is healed on the disk.
    #[test]
    fn formats_and_heals() {
        block_on(async {
            let disk = MemDisk::new(1 << 20);
            assert_eq!(inspect(&disk, CLUSTER).await.unwrap(), Found::Fresh);
            format(&disk, &superblock()).await.unwrap();
            disk.crash();
            for name in [PRIMARY, COPY] {
                disk.damage(name, 40);
                assert_eq!(inspect(&disk, CLUSTER).await.unwrap(), Found::Ours(superblock()));
                disk.crash();
                assert_eq!(read(&disk, name).await.unwrap(), Side::Whole(superblock()));
            }
            disk.damage(PRIMARY, 40);
            disk.damage(COPY, 40);
            assert!(matches!(inspect(&disk, CLUSTER).await, Err(SuperblockError::Damaged { .. })));
        });
    }
}
