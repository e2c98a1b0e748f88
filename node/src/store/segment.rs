//! A segment of a log: its name, its header, and places in it.
//!
//! ```text
//! 0         8         12        16           32          48     56        60      64            72
//! +---------+---------+---------+------------+-----------+------+---------+-------+-------------+
//! | magic   | version | CRC-32C | cluster id | disk uuid | salt | segment | zeros | incarnation |
//! | 8 bytes | u32     | u32     | 16 bytes   | 16 bytes  | u64  | u32     | 4     | u64         |
//! +---------+---------+---------+------------+-----------+------+---------+-------+-------------+
//! 72              80           88      4096                                       segment bytes
//! +---------------+------------+-------+------------------------------------------+
//! | segment bytes | durable to | zeros | records, each from a multiple of 4096 on |
//! | u64           | u64        |       |                                          |
//! +---------------+------------+-------+------------------------------------------+
//! ```
//!
//! The first 72 bytes stand in records too, with the kind of record in place of the four zeros: one order for
//! all that says where a page belongs. The header alone says which incarnation counts, so that raising one
//! number frees a whole segment; records of another incarnation are nothing.
//!
//! The salt is random and known to the disk alone. Without it the owner of a shard could store bytes that
//! look like a record, and have a search for records find them.

use std::fmt;

use env::{AlignedBuf, FileName};
use proto::{ClusterId, DiskUuid, InvalidInput};

use super::problem::{Foreign, RecordProblem, require};
use crate::block::{BLOCK_HEADER_BYTES, BlockReader, BlockWriter};

/// The format that this software writes, and the newest that it reads.
pub(crate) const VERSION: u32 = 1;
/// Unit of a log: headers have one page, payloads whole ones.
pub const PAGE_BYTES: usize = BLOCK_HEADER_BYTES;
/// Bytes of a page, as offsets are counted.
pub(super) const PAGE: u64 = PAGE_BYTES as u64;
const MAGIC: [u8; 8] = *b"CADOLEsg";
/// So many records no disk ever has: greater sequences are forged, and leave no room to count on.
pub(crate) const SEQUENCE_MAX: u64 = 1 << 63;
const FILE_PREFIX: &str = "seg-";

/// What all pages of a disk's log carry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Realm {
    /// The cluster of the disk.
    pub(crate) cluster: ClusterId,
    /// The disk.
    pub(crate) disk: DiskUuid,
    /// Random, from the superblock; told to nobody.
    pub(crate) salt: u64,
}

impl Realm {
    pub(super) fn write(&self, block: &mut BlockWriter<'_>) {
        block.bytes(&self.cluster.to_bytes());
        block.bytes(&self.disk.to_bytes());
        block.u64(self.salt);
    }

    /// Compares with what a page carries.
    pub(super) fn check(&self, block: &mut BlockReader<'_>) -> Result<(), Foreign> {
        let (cluster, disk) = (ClusterId(block.u128()), DiskUuid(block.u128()));
        let salt = block.u64();
        if (cluster, disk) != (self.cluster, self.disk) {
            return Err(Foreign::Disk { cluster, disk });
        }
        if salt == self.salt { Ok(()) } else { Err(Foreign::Salt) }
    }
}

/// Without the salt, which has no place in a log of events.
impl fmt::Debug for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, disk, .. } = self;
        f.debug_struct("Realm").field("cluster", cluster).field("disk", disk).finish_non_exhaustive()
    }
}

/// Names a segment of a disk; its text is the name of its file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId(pub(crate) u32);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FILE_PREFIX}{:08x}", self.0)
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of a segment's file.
pub(crate) fn segment_file(segment: SegmentId) -> FileName {
    segment
        .to_string()
        .parse()
        .unwrap_or_else(|error: InvalidInput| unreachable!("a segment's text is a file's name: {error}"))
}

/// The segment whose file has this name. Only the very text that [`segment_file`] gives is taken.
pub(crate) fn parse_segment_file(file: &FileName) -> Option<SegmentId> {
    let digits = file.as_str().strip_prefix(FILE_PREFIX)?;
    let segment = SegmentId(u32::from_str_radix(digits, 16).ok()?);
    (segment.to_string() == file.as_str()).then_some(segment)
}

/// Where a record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The segment.
    pub(crate) segment: SegmentId,
    /// Of the segment.
    pub(crate) incarnation: u64,
    /// Bytes from the beginning of the segment's file, a multiple of [`PAGE_BYTES`] after its header.
    pub(crate) offset: u64,
}

impl Place {
    /// Compares with the place that a record names.
    pub(super) fn check(&self, found: &Self) -> Result<(), Foreign> {
        if found.segment != self.segment {
            return Err(Foreign::Segment { found: found.segment, expected: self.segment });
        }
        if found.offset != self.offset {
            return Err(Foreign::Offset { found: found.offset, expected: self.offset });
        }
        if found.incarnation != self.incarnation {
            return Err(Foreign::Incarnation { found: found.incarnation, expected: self.incarnation });
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {} of {}, incarnation {}", self.offset, self.segment, self.incarnation)
    }
}

/// The first page of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Which segment this is.
    pub(crate) segment: SegmentId,
    /// Which of its records count; from 1, raised when the segment is freed.
    pub(crate) incarnation: u64,
    /// Length of the file, a multiple of [`PAGE_BYTES`] with room for a record.
    pub(crate) segment_bytes: u64,
    /// Every record up to this sequence was durable when the header was written: what was in a segment that was
    /// freed is not there any more to tell.
    pub(crate) durable_to: u64,
}

impl SegmentHeader {
    /// As it stands on the disk.
    pub(crate) fn encode(&self, realm: &Realm) -> AlignedBuf {
        let checked = self.check();
        assert!(checked.is_ok(), "header of {}: {checked:?}", self.segment);
        let mut buf = AlignedBuf::zeroed(PAGE_BYTES);
        let mut block = BlockWriter::new(buf.as_mut_slice(), MAGIC, VERSION);
        realm.write(&mut block);
        block.u32(self.segment.0);
        block.u32(0);
        block.u64(self.incarnation);
        block.u64(self.segment_bytes);
        block.u64(self.durable_to);
        block.seal();
        buf
    }

    /// From the first [`PAGE_BYTES`] bytes of a segment's file. Whether it is the header of that file is for
    /// the caller to compare.
    ///
    /// # Errors
    ///
    /// When they are no whole header, one of another realm, or an impossible one.
    pub(crate) fn decode(realm: &Realm, bytes: &[u8]) -> Result<Self, RecordProblem> {
        let mut block = BlockReader::new(bytes, MAGIC, VERSION)?;
        realm.check(&mut block)?;
        let segment = SegmentId(block.u32());
        let _zeros = block.u32();
        let (incarnation, segment_bytes, durable_to) = (block.u64(), block.u64(), block.u64());
        let header = Self { segment, incarnation, segment_bytes, durable_to };
        header.check()?;
        Ok(header)
    }

    /// Compares with the segment in whose file it stands.
    pub(super) fn is_of(&self, expected: SegmentId) -> Result<(), RecordProblem> {
        if self.segment == expected {
            return Ok(());
        }
        Err(Foreign::Segment { found: self.segment, expected }.into())
    }

    /// The realm that the header of a segment carries, whichever that is, and the length of segments there: what is
    /// left to tell the disk when its superblocks are lost.
    pub(crate) fn realm_of(bytes: &[u8]) -> Option<(Realm, u64)> {
        let mut block = BlockReader::new(bytes, MAGIC, VERSION).ok()?;
        let (cluster, disk) = (ClusterId(block.u128()), DiskUuid(block.u128()));
        let realm = Realm { cluster, disk, salt: block.u64() };
        Some((realm, Self::decode(&realm, bytes).ok()?.segment_bytes))
    }

    fn check(&self) -> Result<(), RecordProblem> {
        require(self.incarnation > 0, "incarnation", self.incarnation)?;
        let fits = self.segment_bytes.is_multiple_of(PAGE) && self.segment_bytes >= 2 * PAGE;
        require(fits, "segment length", self.segment_bytes)?;
        require(self.durable_to <= SEQUENCE_MAX, "durable to", self.durable_to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::{BlockProblem, FIELDS_AT};

    const REALM: Realm = Realm { cluster: ClusterId(1), disk: DiskUuid(2), salt: 0x1122_3344_5566_7788 };

    fn header() -> SegmentHeader {
        SegmentHeader {
            segment: SegmentId(0x2a),
            incarnation: 3,
            segment_bytes: 0x0004_0000,
            durable_to: 0x0506,
        }
    }

    const GOLDEN_CRC: u32 = 0x1502_5df6;

    /// The bytes on the disk, and the file's name, never change.
    #[test]
    fn golden_bytes() {
        let bytes = header().encode(&REALM);
        let mut expected = Vec::new();
        expected.extend_from_slice(b"CADOLEsg\x01\0\0\0");
        expected.extend_from_slice(&GOLDEN_CRC.to_le_bytes());
        expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        expected.extend_from_slice(&[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        expected.extend_from_slice(&[0x2a, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[6, 5, 0, 0, 0, 0, 0, 0]);
        expected.resize(PAGE_BYTES, 0);
        assert!(bytes.as_slice() == expected, "{:02x?}", &bytes.as_slice()[..80]);
        assert_eq!(SegmentHeader::decode(&REALM, &expected), Ok(header()));
        assert_eq!(segment_file(SegmentId(0x2a)).as_str(), "seg-0000002a");
    }

    /// A header of another disk, or of this one before it was formatted, is told from damage.
    #[test]
    fn other_realms_are_foreign() {
        let bytes = header().encode(&REALM);
        let decode = |realm: Realm| SegmentHeader::decode(&realm, bytes.as_slice());
        let disk = Foreign::Disk { cluster: ClusterId(1), disk: DiskUuid(2) };
        assert_eq!(decode(Realm { cluster: ClusterId(9), ..REALM }), Err(disk.clone().into()));
        assert_eq!(decode(Realm { disk: DiskUuid(9), ..REALM }), Err(disk.into()));
        assert_eq!(decode(Realm { salt: 9, ..REALM }), Err(Foreign::Salt.into()));
    }

    /// Whole headers with impossible fields, and of a newer version, are refused as what they are.
    #[test]
    fn impossible_headers_are_refused() {
        let refused = |at: usize, bytes: &[u8]| {
            let mut page = header().encode(&REALM).as_slice().to_vec();
            page[at..at + bytes.len()].copy_from_slice(bytes);
            let fields = page[FIELDS_AT..].to_vec();
            let mut block = BlockWriter::new(&mut page, MAGIC, VERSION);
            block.bytes(&fields);
            block.seal();
            SegmentHeader::decode(&REALM, &page)
        };
        let field = |field, found| Err(RecordProblem::Field { field, found });
        assert_eq!(refused(64, &[0; 8]), field("incarnation", 0));
        assert_eq!(refused(72, &[0, 0x10, 0]), field("segment length", 4096));
        assert_eq!(refused(72, &[1, 0x20, 0]), field("segment length", 8193));
        let mut newer = vec![0; PAGE_BYTES];
        BlockWriter::new(&mut newer, MAGIC, 2).seal();
        let problem = BlockProblem::NewerVersion { found: 2, known: 1 };
        assert_eq!(SegmentHeader::decode(&REALM, &newer), Err(problem.into()));
    }

    /// What people and the log of events see of a realm does not tell its salt.
    #[test]
    fn the_salt_is_not_shown() {
        let text = format!("{REALM:?}");
        assert!(!text.contains("1234605616436508552") && !text.contains("salt"), "{text}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Headers go to the disk and back; any flipped bit is found; random pages are refused, no panic.
        #[test]
        fn headers_round_trip(
            (segment, incarnation, pages) in (any::<u32>(), 1..=u64::MAX, 2..1_u64 << 50),
            (at, bit) in (0..PAGE_BYTES, 0..8),
            garbage in prop::collection::vec(any::<u8>(), 0..5000),
        ) {
            let segment = SegmentId(segment);
            let header = SegmentHeader { segment, incarnation, segment_bytes: pages * PAGE, durable_to: pages };
            let mut buf = header.encode(&REALM);
            prop_assert_eq!(SegmentHeader::decode(&REALM, buf.as_slice()), Ok(header));
            buf.as_mut_slice()[at] ^= 1_u8 << bit;
            let found = SegmentHeader::decode(&REALM, buf.as_slice());
            prop_assert!(matches!(found, Err(RecordProblem::Block(_))), "{:?}", found);
            prop_assert!(SegmentHeader::decode(&REALM, &garbage).is_err());
        }

        /// Names go through files' names and back, in order; only exact texts are taken.
        #[test]
        fn file_names_round_trip(a: u32, b: u32, text in "seg-[0-9a-fA-F.]{0,10}") {
            let (a, b) = (SegmentId(a), SegmentId(b));
            prop_assert_eq!(segment_file(a).cmp(&segment_file(b)), a.cmp(&b));
            prop_assert_eq!(parse_segment_file(&segment_file(a)), Some(a));
            let longer: FileName = format!("{a}0").parse().unwrap();
            prop_assert_eq!(parse_segment_file(&longer), None);
            let file: FileName = text.parse().unwrap();
            let exact = parse_segment_file(&file).is_none_or(|segment| segment_file(segment) == file);
            prop_assert!(exact, "{:?} was taken", text);
        }
    }
}
