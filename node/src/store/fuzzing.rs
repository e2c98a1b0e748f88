//! What the fuzzers in `node/fuzz` call, and the tests here with them: one function for each parser of the store, which
//! takes any bytes and asserts what must hold of whatever the parser makes of them.
//!
//! Nothing panics and nothing is read beyond its bounds; what is decoded keeps the rules of its fields; and encoded again
//! it is the same bytes, but for those that no field has, which are zeros then. Checksums would stop a fuzzer: blocks
//! are tried as they are, and once more under a right one.

mod disk;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use codec::Crc32c;
use proto::hint::ObjectHint;
use proto::limits::{BLOCK_BYTES, HINT_BYTES_MAX, SHARD_BYTES_MAX, SLOTS_MAX};
use proto::{ClusterId, DiskUuid};

use super::record::{
    Body, PAGE_BYTES, Place, Realm, Record, SegmentHeader, SegmentId, TOMBSTONES_MAX, decode_tombstones,
    encode_tombstones, tombstones_bytes,
};
use crate::block::{BLOCK_HEADER_BYTES, BlockReader, BlockWriter, FIELDS_AT};
use crate::superblock::Superblock;

pub use super::index::fuzzing::{index, index_rows};
pub use disk::disk;

const SUPERBLOCK: [u8; 8] = *b"CADOLEsb";
const SEGMENT: [u8; 8] = *b"CADOLEsg";
const RECORD: [u8; 8] = *b"CADOLErc";
/// Where a record's page says how its payload is checked.
const PAYLOAD_CRC_AT: usize = 108;
const TOMBSTONE_BYTES: usize = 48;

/// A parser's name, and what tries it.
pub type Target = (&'static str, fn(&[u8]));

/// All of them; each has a fuzzer of this name, and seeds.
pub const TARGETS: [Target; 8] = [
    ("superblock", superblock),
    ("segment_header", segment_header),
    ("record", record),
    ("tombstones", tombstones),
    ("hint", hint),
    ("index_rows", index_rows),
    ("index", index),
    ("disk", disk),
];

/// A superblock.
pub fn superblock(bytes: &[u8]) {
    for block in blocks(bytes, SUPERBLOCK) {
        let Ok(found) = Superblock::decode(&block) else { continue };
        let size = found.segment_bytes;
        assert!(size.is_power_of_two() && (64 << 10..=4 << 30).contains(&size), "segments of {size} bytes");
        assert_same(&block, found.encode().as_slice(), &[(16, 72)]);
    }
}

/// The header of a segment, of any disk.
pub fn segment_header(bytes: &[u8]) {
    for block in blocks(bytes, SEGMENT) {
        let other = Realm { cluster: ClusterId(1), disk: DiskUuid(2), salt: 3 };
        let of_other = SegmentHeader::decode(&other, &block);
        let Some((realm, segment_bytes)) = SegmentHeader::realm_of(&block) else {
            assert!(of_other.is_err(), "{of_other:?}");
            continue;
        };
        assert!(of_other.is_err() || realm == other, "{of_other:?} of {realm:?}");
        let found = SegmentHeader::decode(&realm, &block);
        let Ok(header) = found else { unreachable!("{found:?} of {realm:?}") };
        assert!(header.incarnation > 0 && header.segment_bytes == segment_bytes, "{header:?}");
        assert!(segment_bytes >= 8192 && segment_bytes.is_multiple_of(4096), "{header:?}");
        assert_same(&block, header.encode(&realm).as_slice(), &[(16, 60), (64, 88)]);
    }
}

/// The page of a record, read where it says that it belongs, and elsewhere.
pub fn record(bytes: &[u8]) {
    for page in blocks(bytes, RECORD) {
        let Some((realm, place)) = claimed(&page) else {
            let realm = Realm { cluster: ClusterId(1), disk: DiskUuid(2), salt: 3 };
            let place = Place { segment: SegmentId(0), incarnation: 1, offset: 4096 };
            assert!(Record::decode(&realm, &place, &page).is_err());
            continue;
        };
        let elsewhere = [
            (Realm { salt: !realm.salt, ..realm }, place),
            (Realm { disk: DiskUuid(!realm.disk.0), ..realm }, place),
            (realm, Place { segment: SegmentId(!place.segment.0), ..place }),
            (realm, Place { offset: place.offset ^ 4096, ..place }),
            (realm, Place { incarnation: !place.incarnation, ..place }),
        ];
        for (realm, place) in elsewhere {
            assert!(Record::decode(&realm, &place, &page).is_err(), "a record of another place: {place}");
        }
        let Ok(found) = Record::decode(&realm, &place, &page) else { continue };
        assert!(found.place == place && found.previous < found.sequence, "{found:?}");
        assert!(found.payload_bytes() <= SHARD_BYTES_MAX as u64, "{found:?}");
        let mut again = vec![0xff; PAGE_BYTES];
        found.encode(&realm, &mut again);
        let mut fields = vec![(16, 104)];
        fields.extend(fields_of(&found.body));
        assert_same(&page, &again, &fields);
        assert_eq!(Record::decode(&realm, &place, &again), Ok(found));
    }
}

/// The payload of tombstones: two bytes say how many there should be.
pub fn tombstones(bytes: &[u8]) {
    let mut input = Input(bytes);
    let count = u32::from(input.u16());
    let _ = decode_tombstones(input.0, count, 0);
    let mut payload = input.0.to_vec();
    payload.resize(tombstones_bytes((count as usize).min(2 * TOMBSTONES_MAX)), 0);
    let crc = crc(&payload);
    assert!(decode_tombstones(&payload, count, !crc).is_err());
    let Ok(found) = decode_tombstones(&payload, count, crc) else { return };
    assert!(found.len() == count as usize && (1..=TOMBSTONES_MAX).contains(&found.len()), "{count}");
    for dead in &found {
        let is_right = usize::from(dead.name.slot.0) < SLOTS_MAX && dead.incarnation > 0 && dead.sequence > 0;
        assert!(is_right, "{dead:?}");
    }
    let mut again = vec![0xff; payload.len()];
    let crc_again = encode_tombstones(&found, &mut again);
    assert_eq!(decode_tombstones(&again, count, crc_again).as_ref(), Ok(&found));
    let end = found.len() * TOMBSTONE_BYTES;
    assert!(again[..end] == payload[..end] && again[end..].iter().all(|byte| *byte == 0), "{found:?}");
}

/// What is kept with a shard.
pub fn hint(bytes: &[u8]) {
    let Ok(found) = ObjectHint::decode(Bytes::copy_from_slice(bytes)) else { return };
    assert!(bytes.len() <= HINT_BYTES_MAX, "{} bytes", bytes.len());
    let (k, m, shard_bytes) = (found.k as usize, found.m as usize, found.shard_bytes as usize);
    assert!(k > 0 && m > 0 && k + m <= SLOTS_MAX, "{found:?}");
    assert!(shard_bytes <= SHARD_BYTES_MAX && shard_bytes.is_multiple_of(BLOCK_BYTES), "{found:?}");
    assert!((1..=found.full_stripe_bytes()).contains(&found.stripe_bytes.into()), "{found:?}");
    let again = found.encode();
    assert!(again.len() <= HINT_BYTES_MAX, "{} bytes of {found:?}", again.len());
    assert_eq!(ObjectHint::decode(again), Ok(found));
}

/// Takes input apart; what is missing is zeros.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn u8(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from(self.u8()) | u16::from(self.u8()) << 8
    }

    /// So many, or as many as there are.
    pub(super) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// As many as the next byte says.
    pub(super) fn string(&mut self) -> &'a [u8] {
        let count = self.u8();
        self.bytes(count.into())
    }
}

/// The bytes as they are, and as a block of this kind under a right checksum.
fn blocks(bytes: &[u8], magic: [u8; 8]) -> [Vec<u8>; 2] {
    let mut block = bytes.to_vec();
    block.resize(BLOCK_HEADER_BYTES, 0);
    seal(&mut block, magic);
    [bytes.to_vec(), block]
}

/// Gives a page a magic and the right checksum; the version is its own.
fn seal(page: &mut [u8], magic: [u8; 8]) {
    let (fields, version) = (page[FIELDS_AT..].to_vec(), u32::from_le_bytes(array(page, 8)));
    let mut block = BlockWriter::new(page, magic, version);
    block.bytes(&fields);
    block.seal();
}

/// Where a page says that it belongs, if it is a whole one of a record.
fn claimed(page: &[u8]) -> Option<(Realm, Place)> {
    let mut block = BlockReader::new(page, RECORD, 1).ok()?;
    let (cluster, disk) = (ClusterId(block.u128()), DiskUuid(block.u128()));
    let realm = Realm { cluster, disk, salt: block.u64() };
    let (segment, _kind) = (SegmentId(block.u32()), block.u32());
    Some((realm, Place { segment, incarnation: block.u64(), offset: block.u64() }))
}

/// The bytes of a page that a body gives a meaning.
fn fields_of(body: &Body) -> Vec<(usize, usize)> {
    match body {
        Body::Shard(meta) => {
            let mut fields = vec![(104, 176 + 4 * meta.block_crcs.len()), (432, 432 + meta.hint.len())];
            if meta.from.is_some() {
                fields.extend([(2480, 2484), (2488, 2496)]);
            }
            fields
        }
        Body::Tombstones { .. } => vec![(104, 112)],
        Body::Seal { .. } => vec![(104, 108), (112, 120)],
    }
}

/// Magic, version and `fields` are the same; all others but the checksum are zeros in what was encoded again.
fn assert_same(read: &[u8], again: &[u8], fields: &[(usize, usize)]) {
    assert_eq!((read.len(), &read[..12]), (again.len(), &again[..12]));
    for (at, (read, again)) in read.iter().zip(again).enumerate().skip(FIELDS_AT) {
        let has_meaning = fields.iter().any(|(start, end)| (*start..*end).contains(&at));
        let expected = if has_meaning { *read } else { 0 };
        assert!(*again == expected, "byte {at}: {read:#04x} was read, {again:#04x} is written again");
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(bytes);
    crc.finish()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
