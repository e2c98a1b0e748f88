//! The superblock's bytes, verdicts and healing.

use super::*;
use crate::testing::{MemDisk, block_on};

const CLUSTER: ClusterId = ClusterId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);

fn superblock() -> Superblock {
    let created = Timestamp::from_millis(0x1122_3344_5566);
    let (salt, segment_bytes) = (0x0807_0605_0403_0201, 16 << 20);
    Superblock { cluster: CLUSTER, uuid: DiskUuid(0xabcd), created, salt, segment_bytes }
}

const GOLDEN_CRC: u32 = 0x093e_d7f1;

/// The bytes on the disk never change.
#[test]
fn golden_bytes() {
    let bytes = superblock().encode();
    let mut expected = Vec::new();
    expected.extend_from_slice(b"CADOLEsb\x02\0\0\0");
    expected.extend_from_slice(&GOLDEN_CRC.to_le_bytes());
    expected.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    expected.extend_from_slice(&[0; 14]);
    expected.extend_from_slice(&[0xab, 0xcd]);
    expected.extend_from_slice(&[0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0]);
    expected.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    expected.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
    expected.resize(4096, 0);
    assert!(bytes.as_slice() == expected, "{:02x?}", &bytes.as_slice()[..64]);
    assert_eq!(Superblock::decode(&expected), Ok(superblock()));
}

/// Versions that were never released and impossible sizes are refused.
#[test]
fn impossible_fields_are_refused() {
    for bytes in [0, 4096, 3 << 20, 8 << 30, u64::MAX] {
        let bad = Superblock { segment_bytes: bytes, ..superblock() }.encode();
        let problem = Superblock::decode(bad.as_slice()).unwrap_err();
        assert_eq!(problem, BlockProblem::Field { field: "segment bytes", found: bytes });
    }
    let mut older = superblock().encode().as_slice().to_vec();
    BlockWriter::new(&mut older, MAGIC, 1).seal();
    let problem = Superblock::decode(&older);
    assert_eq!(problem, Err(BlockProblem::Field { field: "version", found: 1 }));
}

/// Large disks have about 4096 segments, ordinary ones of 8 MiB, and tiny ones 64 or more.
#[test]
fn segments_fit_their_disk() {
    for (capacity, expected) in [
        (22_000_000_000_000, 4 << 30),
        (4_000_000_000_000, 1 << 30),
        (250_000_000_000, 64 << 20),
        (4 << 30, 8 << 20),
        (512 << 20, 8 << 20),
        (511 << 20, 4 << 20),
        (16 << 20, 256 << 10),
        (1 << 20, 64 << 10),
        (0, 64 << 10),
    ] {
        assert_eq!(segment_bytes(capacity), expected, "{capacity}");
        assert!(is_segment_size(segment_bytes(capacity)));
    }
}

/// Every flipped bit of the fields is found, and a newer version is told from damage.
#[test]
fn damage_is_found() {
    let good = superblock().encode();
    for at in (0..80).chain([4095]) {
        for bit in 0..8 {
            let mut bad = good.as_slice().to_vec();
            bad[at] ^= 1 << bit;
            assert!(Superblock::decode(&bad).is_err(), "byte {at} bit {bit}");
        }
    }
    assert!(Superblock::decode(&good.as_slice()[..4095]).is_err());
    let mut newer = good.as_slice().to_vec();
    BlockWriter::new(&mut newer, MAGIC, 3).seal();
    let problem = Superblock::decode(&newer);
    assert_eq!(problem, Err(BlockProblem::NewerVersion { found: 3, known: 2 }));
}

/// Each combination of the two files has the verdict that loses nothing.
#[test]
fn verdicts() {
    let whole = Side::Whole(superblock());
    let other = Side::Whole(Superblock { uuid: DiskUuid(1), ..superblock() });
    let bad = Side::Bad(BlockProblem::Length { found: 0 });
    let newer = Side::Bad(BlockProblem::NewerVersion { found: 3, known: 2 });
    let file: FileName = "x".parse().unwrap();
    let go = |a: &Side, b: &Side, f: Option<&FileName>| judge(a, b, f, CLUSTER);
    assert_eq!(go(&Side::Absent, &Side::Absent, None).unwrap(), Verdict::Fresh);
    assert!(matches!(go(&Side::Absent, &Side::Absent, Some(&file)), Err(SuperblockError::NotEmpty { .. })));
    assert_eq!(go(&whole, &whole, Some(&file)).unwrap(), Verdict::Ours(superblock()));
    assert_eq!(go(&whole, &bad, None).unwrap(), Verdict::Heal(superblock(), COPY));
    assert_eq!(go(&whole, &Side::Absent, None).unwrap(), Verdict::Heal(superblock(), COPY));
    assert_eq!(go(&bad, &whole, None).unwrap(), Verdict::Heal(superblock(), PRIMARY));
    assert!(matches!(go(&whole, &other, None), Err(SuperblockError::Contradiction { .. })));
    assert!(matches!(go(&whole, &newer, None), Err(SuperblockError::NewerVersion { found: 3 })));
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
