//! The file of one shard.
//!
//! ```text
//! 0         8         12        16           32          48           64      68       72     76
//! +---------+---------+---------+------------+-----------+------------+-------+--------+------+
//! | magic   | version | CRC-32C | cluster id | disk uuid | extent id  | group | stripe | slot |
//! | 8 bytes | u32     | u32     | 16 bytes   | 16 bytes  | 16 bytes   | u32   | u32    | u32  |
//! +---------+---------+---------+------------+-----------+------------+-------+--------+------+
//! 76             80      88           96       100                               356         4096
//! +--------------+-------+------------+--------+---------------------------------+-----------+
//! | shard length | epoch | tenant tag | blocks | CRC-32C of each block, 64 × u32 | zeros     |
//! | u32          | u64   | u64        | u32    | zeros beyond `blocks`           |           |
//! +--------------+-------+------------+--------+---------------------------------+-----------+
//! 4096                                                4096 + shard length rounded up to 4096
//! +---------------------------------------------------+
//! | the shard, then zeros                             |
//! +---------------------------------------------------+
//! ```
//!
//! The header says all that the file's name and place say (disk, group, extent, stripe, slot), and
//! its checksum covers that: a file that lies where it does not belong is noticed. It comes first and
//! has a page of its own, so that one direct read gives it. The file is named
//! `g<group>-<extent>-<stripe>-<slot>` in hexadecimal of fixed width, so that byte order is the order
//! of shard names.

use env::FileName;
use proto::limits::{BLOCK_BYTES, SHARD_BYTES_MAX, SLOTS_MAX};
use proto::{ClusterId, DiskUuid, Epoch, ExtentId, GroupId, ShardName, SlotIndex, StripeIndex, TenantTag};

use crate::block::{BLOCK_HEADER_BYTES, BlockProblem, BlockReader, BlockWriter};

/// The format that this software writes, and the newest that it reads.
pub const VERSION: u32 = 1;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = BLOCK_HEADER_BYTES;
/// Blocks of the largest shard.
pub const BLOCKS_MAX: usize = SHARD_BYTES_MAX / BLOCK_BYTES;
const MAGIC: [u8; 8] = *b"CADOLEsh";

// The checksums end well before the header does.
const _: () = assert!(100 + BLOCKS_MAX * 4 <= HEADER_BYTES);

/// What stands before a shard's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardHeader {
    /// The cluster of the disk.
    pub cluster: ClusterId,
    /// The disk.
    pub disk: DiskUuid,
    /// Which shard this is.
    pub name: ShardName,
    /// Of the group when the shard was written.
    pub epoch: Epoch,
    /// Who may read it.
    pub tenant_tag: TenantTag,
    /// Bytes of the shard.
    pub shard_bytes: u32,
    /// CRC-32C of each 64 KiB block.
    pub block_crcs: Vec<u32>,
}

impl ShardHeader {
    /// Writes the header into the first [`HEADER_BYTES`] bytes of `page`.
    pub fn encode(&self, page: &mut [u8]) {
        assert!(
            self.block_crcs.len() == blocks_of(self.shard_bytes) && self.block_crcs.len() <= BLOCKS_MAX,
            "{} checksums for a shard of {} bytes",
            self.block_crcs.len(),
            self.shard_bytes
        );
        let mut block = BlockWriter::new(page, MAGIC, VERSION);
        block.bytes(&self.cluster.to_bytes());
        block.bytes(&self.disk.to_bytes());
        block.bytes(&self.name.extent.to_bytes());
        block.u32(self.name.group.0);
        block.u32(self.name.stripe.0);
        block.u32(u32::from(self.name.slot.0));
        block.u32(self.shard_bytes);
        block.u64(self.epoch.0);
        block.u64(self.tenant_tag.0);
        block.u32(u32::try_from(self.block_crcs.len()).unwrap_or(u32::MAX));
        for crc in &self.block_crcs {
            block.u32(*crc);
        }
        block.seal();
    }

    /// From the first [`HEADER_BYTES`] bytes of a file.
    ///
    /// # Errors
    ///
    /// When they are damaged, another file's, or of a newer version.
    pub fn decode(page: &[u8]) -> Result<Self, BlockProblem> {
        let mut block = BlockReader::new(page, MAGIC, VERSION)?;
        let cluster = ClusterId(block.u128());
        let disk = DiskUuid(block.u128());
        let extent = ExtentId(block.u128());
        let (group, stripe) = (GroupId(block.u32()), StripeIndex(block.u32()));
        let slot = parse_slot(block.u32())?;
        let shard_bytes = block.u32();
        if shard_bytes == 0 || shard_bytes as usize > SHARD_BYTES_MAX {
            return Err(BlockProblem::Field { field: "shard length", found: u64::from(shard_bytes) });
        }
        let (epoch, tenant_tag) = (Epoch(block.u64()), TenantTag(block.u64()));
        let blocks = block.u32();
        if blocks as usize != blocks_of(shard_bytes) {
            return Err(BlockProblem::Field { field: "blocks", found: u64::from(blocks) });
        }
        let block_crcs = (0..blocks).map(|_| block.u32()).collect();
        let name = ShardName { group, extent, stripe, slot };
        Ok(Self { cluster, disk, name, epoch, tenant_tag, shard_bytes, block_crcs })
    }
}

fn parse_slot(slot: u32) -> Result<SlotIndex, BlockProblem> {
    match u8::try_from(slot) {
        Ok(index) if usize::from(index) < SLOTS_MAX => Ok(SlotIndex(index)),
        _ => Err(BlockProblem::Field { field: "slot", found: u64::from(slot) }),
    }
}

/// 64 KiB blocks of a shard.
pub(crate) fn blocks_of(shard_bytes: u32) -> usize {
    (shard_bytes as usize).div_ceil(BLOCK_BYTES)
}

/// The name of a shard's file, as text.
pub(crate) fn file_name(name: &ShardName) -> String {
    format!("g{:08x}-{:032x}-{:08x}-{:02x}", name.group.0, name.extent.0, name.stripe.0, name.slot.0)
}

/// The shard whose file has this name. Only the very text that [`file_name`] gives is taken.
pub(crate) fn parse_file_name(file: &FileName) -> Option<ShardName> {
    let mut parts = file.as_str().strip_prefix('g')?.split('-');
    let name = ShardName {
        group: GroupId(u32::from_str_radix(parts.next()?, 16).ok()?),
        extent: ExtentId(u128::from_str_radix(parts.next()?, 16).ok()?),
        stripe: StripeIndex(u32::from_str_radix(parts.next()?, 16).ok()?),
        slot: parse_slot(u32::from_str_radix(parts.next()?, 16).ok()?).ok()?,
    };
    (file_name(&name) == file.as_str()).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> ShardHeader {
        ShardHeader {
            cluster: ClusterId(1),
            disk: DiskUuid(2),
            name: ShardName {
                group: GroupId(0x0a0b),
                extent: ExtentId(3),
                stripe: StripeIndex(4),
                slot: SlotIndex(5),
            },
            epoch: Epoch(6),
            tenant_tag: TenantTag(7),
            shard_bytes: 65_536 + 64,
            block_crcs: vec![0x1122_3344, 0x5566_7788],
        }
    }

    const GOLDEN_CRC: u32 = 0x1202_4aae;

    /// The bytes on the disk, and the file's name, never change.
    #[test]
    fn golden_bytes() {
        let mut page = [0xff; HEADER_BYTES];
        header().encode(&mut page);
        let id = |last: u8| {
            let mut id = [0; 16];
            id[15] = last;
            id
        };
        let mut expected = Vec::new();
        expected.extend_from_slice(b"CADOLEsh\x01\0\0\0");
        expected.extend_from_slice(&GOLDEN_CRC.to_le_bytes());
        for part in [&id(1)[..], &id(2), &id(3), &[0x0b, 0x0a, 0, 0], &[4, 0, 0, 0], &[5, 0, 0, 0]] {
            expected.extend_from_slice(part);
        }
        expected
            .extend_from_slice(&[64, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
        expected.extend_from_slice(&[0x44, 0x33, 0x22, 0x11, 0x88, 0x77, 0x66, 0x55]);
        expected.resize(HEADER_BYTES, 0);
        assert!(page[..] == expected, "{:02x?}", &page[..112]);
        assert_eq!(ShardHeader::decode(&page), Ok(header()));
        let file = file_name(&header().name);
        assert_eq!(file, "g00000a0b-00000000000000000000000000000003-00000004-05");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Names go through files' names and back, in order; only exact texts are taken.
        #[test]
        fn file_names_round_trip(a: (u32, u128, u32), b: (u32, u128, u32), slots in (0..24_u8, 0..24_u8)) {
            let name = |(group, extent, stripe): (u32, u128, u32), slot| ShardName {
                group: GroupId(group),
                extent: ExtentId(extent),
                stripe: StripeIndex(stripe),
                slot: SlotIndex(slot),
            };
            let (a, b) = (name(a, slots.0), name(b, slots.1));
            prop_assert_eq!(file_name(&a).cmp(&file_name(&b)), a.cmp(&b));
            let file: FileName = file_name(&a).parse().unwrap();
            prop_assert_eq!(parse_file_name(&file), Some(a));
            let longer: FileName = format!("{}0", file_name(&a)).parse().unwrap();
            prop_assert_eq!(parse_file_name(&longer), None);
        }

        /// Any flipped bit of the header is found; random pages are refused without a panic.
        #[test]
        fn damage_is_found(at in 0..HEADER_BYTES, bit in 0..8, garbage in prop::collection::vec(any::<u8>(), 0..5000)) {
            let mut page = [0; HEADER_BYTES];
            header().encode(&mut page);
            page[at] ^= 1_u8 << bit;
            prop_assert!(ShardHeader::decode(&page).is_err());
            prop_assert!(ShardHeader::decode(&garbage).is_err());
        }
    }
}
