//! The payload of a record of tombstones.
//!
//! ```text
//! 0           16      20       24     28        32            40         48
//! +-----------+-------+--------+------+---------+-------------+----------+------------------+-------+
//! | extent id | group | stripe | slot | segment | incarnation | sequence | the next of them | zeros |
//! | 16 bytes  | u32   | u32    | u32  | u32     | u64         | u64      | 48 bytes each    |       |
//! +-----------+-------+--------+------+---------+-------------+----------+------------------+-------+
//! ```
//!
//! Segment and incarnation say where the copy lies that a tombstone kills: it is of use until that segment
//! has another incarnation. It kills what was born before its sequence, that of the record in which it was first
//! written: compaction writes tombstones again, and a shard may have been born anew since. The payload has no place of its own: count and checksum stand in the record's
//! page, which says where both belong.

use codec::Crc32c;
use proto::limits::{SHARD_BYTES_MAX, SLOTS_MAX};
use proto::{ExtentId, GroupId, ShardName, SlotIndex, StripeIndex};

use super::problem::{RecordProblem, require};
use super::segment::{PAGE_BYTES, SegmentId};
use crate::block::BlockProblem;

/// Names in one record.
pub(crate) const TOMBSTONES_MAX: usize = 1024;
const TOMBSTONE_BYTES: usize = 48;

// Whoever has room for the largest shard has room for the most tombstones, and those waste none of it.
const _: () = assert!(TOMBSTONES_MAX * TOMBSTONE_BYTES <= SHARD_BYTES_MAX);
const _: () = assert!((TOMBSTONES_MAX * TOMBSTONE_BYTES).is_multiple_of(PAGE_BYTES));

/// Says that a shard is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    /// The shard.
    pub(crate) name: ShardName,
    /// Where the killed copy lies.
    pub(crate) segment: SegmentId,
    /// Of that segment; with another one the copy is gone.
    pub(crate) incarnation: u64,
    /// Of the record in which it was first written: what was born before that is no more.
    pub(crate) sequence: u64,
}

impl Tombstone {
    fn to_bytes(self) -> [u8; TOMBSTONE_BYTES] {
        let Self { name, segment, incarnation, sequence } = self;
        let mut bytes = [0; TOMBSTONE_BYTES];
        bytes[0..16].copy_from_slice(&name.extent.to_bytes());
        bytes[16..20].copy_from_slice(&name.group.0.to_le_bytes());
        bytes[20..24].copy_from_slice(&name.stripe.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&u32::from(name.slot.0).to_le_bytes());
        bytes[28..32].copy_from_slice(&segment.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&incarnation.to_le_bytes());
        bytes[40..48].copy_from_slice(&sequence.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, RecordProblem> {
        let name = ShardName {
            extent: ExtentId(u128::from_be_bytes(array(bytes, 0))),
            group: GroupId(u32::from_le_bytes(array(bytes, 16))),
            stripe: StripeIndex(u32::from_le_bytes(array(bytes, 20))),
            slot: parse_slot(u32::from_le_bytes(array(bytes, 24)))?,
        };
        let segment = SegmentId(u32::from_le_bytes(array(bytes, 28)));
        let incarnation = u64::from_le_bytes(array(bytes, 32));
        let tombstone = Self { name, segment, incarnation, sequence: u64::from_le_bytes(array(bytes, 40)) };
        tombstone.check()?;
        Ok(tombstone)
    }

    fn check(&self) -> Result<(), RecordProblem> {
        parse_slot(u32::from(self.name.slot.0))?;
        require(self.incarnation > 0, "incarnation", self.incarnation)?;
        require(self.sequence > 0, "sequence", self.sequence)
    }
}

/// A slot that a group can have.
pub(super) fn parse_slot(slot: u32) -> Result<SlotIndex, RecordProblem> {
    match u8::try_from(slot) {
        Ok(index) if usize::from(index) < SLOTS_MAX => Ok(SlotIndex(index)),
        _ => Err(RecordProblem::Field { field: "slot", found: u64::from(slot) }),
    }
}

/// Checks how many tombstones a record is said to have.
pub(super) fn check_count(count: u32) -> Result<(), RecordProblem> {
    require((1..=TOMBSTONES_MAX).contains(&(count as usize)), "count", u64::from(count))
}

/// Length of the payload with `count` tombstones, whole pages.
pub(crate) fn tombstones_bytes(count: usize) -> usize {
    (count * TOMBSTONE_BYTES).next_multiple_of(PAGE_BYTES)
}

/// Writes a payload, all of [`tombstones_bytes`], and gives its CRC-32C.
pub(crate) fn encode_tombstones(tombstones: &[Tombstone], payload: &mut [u8]) -> u32 {
    let count = tombstones.len();
    assert!((1..=TOMBSTONES_MAX).contains(&count), "{count} tombstones in one record");
    assert!(
        payload.len() == tombstones_bytes(count),
        "{count} tombstones in a payload of {} bytes",
        payload.len()
    );
    payload.fill(0);
    for (tombstone, bytes) in tombstones.iter().zip(payload.chunks_exact_mut(TOMBSTONE_BYTES)) {
        let checked = tombstone.check();
        assert!(checked.is_ok(), "tombstone of {}: {checked:?}", tombstone.name);
        bytes.copy_from_slice(&tombstone.to_bytes());
    }
    checksum(payload)
}

/// From a payload, with count and checksum from the record's page.
///
/// # Errors
///
/// When the bytes do not match the checksum, or are not what a writer writes.
pub(crate) fn decode_tombstones(
    payload: &[u8],
    count: u32,
    crc: u32,
) -> Result<Vec<Tombstone>, RecordProblem> {
    check_count(count)?;
    let count = count as usize;
    require(payload.len() == tombstones_bytes(count), "payload length", payload.len() as u64)?;
    let found = checksum(payload);
    if found != crc {
        return Err(BlockProblem::Checksum { expected: crc, found }.into());
    }
    payload.chunks_exact(TOMBSTONE_BYTES).take(count).map(Tombstone::parse).collect()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn checksum(payload: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(payload);
    crc.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tombstones() -> Vec<Tombstone> {
        let (extent, stripe) = (ExtentId(3), StripeIndex(4));
        let name = ShardName { group: GroupId(0x0a0b), extent, stripe, slot: SlotIndex(5) };
        let first = Tombstone { name, segment: SegmentId(0x2a), incarnation: 6, sequence: 0x0102 };
        let name = ShardName { slot: SlotIndex(23), ..name };
        vec![first, Tombstone { name, segment: SegmentId(0x2b), incarnation: 7, sequence: 8 }]
    }

    const GOLDEN_CRC: u32 = 0xe51d_e9ea;

    /// The bytes on the disk never change.
    #[test]
    fn golden_bytes() {
        let mut payload = vec![0xff; tombstones_bytes(2)];
        let crc = encode_tombstones(&tombstones(), &mut payload);
        let mut expected = Vec::new();
        expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        expected.extend_from_slice(&[0x0b, 0x0a, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 0x2a, 0, 0, 0]);
        expected.extend_from_slice(&[6, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        expected.extend_from_slice(&[0x0b, 0x0a, 0, 0, 4, 0, 0, 0, 23, 0, 0, 0, 0x2b, 0, 0, 0]);
        expected.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
        expected.resize(PAGE_BYTES, 0);
        assert!(payload == expected, "{:02x?}", &payload[..96]);
        assert_eq!(crc, GOLDEN_CRC, "{crc:#010x}");
        assert_eq!(decode_tombstones(&expected, 2, GOLDEN_CRC), Ok(tombstones()));
    }

    /// A payload takes whole pages, the largest one twelve.
    #[test]
    fn lengths() {
        for (count, pages) in [(1, 1), (85, 1), (86, 2), (TOMBSTONES_MAX, 12)] {
            assert_eq!(tombstones_bytes(count), pages * 4096, "{count}");
        }
    }

    /// What does not fit the record's page, and what no writer writes, is refused under a right checksum too.
    #[test]
    fn impossible_payloads_are_refused() {
        let field = |field, found| Err(RecordProblem::Field { field, found });
        let mut payload = vec![0; tombstones_bytes(2)];
        encode_tombstones(&tombstones(), &mut payload);
        assert_eq!(decode_tombstones(&payload, 0, GOLDEN_CRC), field("count", 0));
        assert_eq!(decode_tombstones(&payload, 1025, GOLDEN_CRC), field("count", 1025));
        assert_eq!(decode_tombstones(&payload, u32::MAX, GOLDEN_CRC), field("count", u64::from(u32::MAX)));
        assert_eq!(decode_tombstones(&payload, 86, GOLDEN_CRC), field("payload length", 4096));
        assert_eq!(decode_tombstones(&payload[..96], 2, GOLDEN_CRC), field("payload length", 96));
        for (at, byte, problem) in [
            (72, 24, field("slot", 24)),
            (73, 1, field("slot", 256 + 23)),
            (80, 0, field("incarnation", 0)),
            (88, 0, field("sequence", 0)),
        ] {
            let mut bad = payload.clone();
            bad[at] = byte;
            assert_eq!(decode_tombstones(&bad, 2, checksum(&bad)), problem);
        }
    }

    /// What could not be read again is not written.
    #[test]
    #[should_panic(expected = "sequence")]
    fn impossible_tombstones_are_not_written() {
        let tombstone = Tombstone { sequence: 0, ..tombstones()[0] };
        encode_tombstones(&[tombstone], &mut [0; PAGE_BYTES]);
    }

    prop_compose! {
        fn tombstone()(
            name in any::<(u32, u128, u32)>(),
            slot in 0..24_u8,
            segment: u32,
            incarnation in 1..=u64::MAX,
            sequence in 1..=u64::MAX,
        ) -> Tombstone {
            let (group, extent, stripe) = (GroupId(name.0), ExtentId(name.1), StripeIndex(name.2));
            let name = ShardName { group, extent, stripe, slot: SlotIndex(slot) };
            Tombstone { name, segment: SegmentId(segment), incarnation, sequence }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Tombstones go to the disk and back, and any flipped bit, of the padding too, is found.
        #[test]
        fn round_trip_and_damage(
            tombstones in prop::collection::vec(tombstone(), 1..=300),
            at: prop::sample::Index,
            bit in 0..8,
        ) {
            let count = u32::try_from(tombstones.len()).unwrap();
            let mut payload = vec![0xff; tombstones_bytes(tombstones.len())];
            let crc = encode_tombstones(&tombstones, &mut payload);
            prop_assert_eq!(decode_tombstones(&payload, count, crc), Ok(tombstones));
            let at = at.index(payload.len());
            payload[at] ^= 1_u8 << bit;
            let found = decode_tombstones(&payload, count, crc);
            prop_assert!(matches!(found, Err(RecordProblem::Block(_))), "{:?}", found);
        }

        /// Random payloads are parsed or refused without a panic, whatever checksum and count come with them.
        #[test]
        fn garbage_is_survived(
            mut payload in prop::collection::vec(any::<u8>(), 0..9000),
            count in 0..2000_u32,
            whole: bool,
        ) {
            if whole {
                payload.resize(tombstones_bytes(count as usize), 0);
            }
            let found = decode_tombstones(&payload, count, checksum(&payload));
            prop_assert!(found.is_err() || found.is_ok_and(|all| all.len() == count as usize));
            prop_assert!(decode_tombstones(&payload, count, !checksum(&payload)).is_err());
        }
    }
}
