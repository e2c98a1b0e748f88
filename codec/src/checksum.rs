//! CRC-32C (Castagnoli, polynomial 0x1EDC6F41, as in iSCSI): of each 64 KiB block of a shard, and of a
//! whole object.

use proto::limits::BLOCK_BYTES;

/// The CRC-32C of each 64 KiB block of `shard`; the last block may be shorter. None for no bytes.
pub fn block_checksums(shard: &[u8]) -> Vec<u32> {
    shard.chunks(BLOCK_BYTES).map(crc32c::crc32c).collect()
}

/// Compares `data`, blocks of a shard from `first_block` on, with their checksums.
///
/// # Errors
///
/// With the first block that is damaged, or when there is not one checksum for each block.
pub fn verify_blocks(data: &[u8], first_block: u32, checksums: &[u32]) -> Result<(), BlockError> {
    compare(data.chunks(BLOCK_BYTES).map(crc32c::crc32c), first_block, checksums)
}

fn compare(
    found: impl ExactSizeIterator<Item = u32>,
    first_block: u32,
    expected: &[u32],
) -> Result<(), BlockError> {
    if found.len() != expected.len() {
        return Err(BlockError::Count { blocks: found.len(), checksums: expected.len() });
    }
    for ((index, found), &expected) in (u64::from(first_block)..).zip(found).zip(expected) {
        if found != expected {
            return Err(BlockError::Damaged { index, expected, found });
        }
    }
    Ok(())
}

/// The checksums of the blocks of a shard whose bytes come piece by piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockChecksums {
    whole: Vec<u32>,
    /// Of the block that is not whole yet, and its bytes, fewer than a block has.
    rest: (Crc32c, usize),
}

impl BlockChecksums {
    /// Of no bytes yet, with room for a shard of `shard_bytes` bytes.
    pub fn with_capacity(shard_bytes: usize) -> Self {
        Self { whole: Vec::with_capacity(shard_bytes.div_ceil(BLOCK_BYTES)), rest: Default::default() }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (piece, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.rest.1));
            self.rest.0.update(piece);
            self.rest.1 += piece.len();
            bytes = later;
            if self.rest.1 == BLOCK_BYTES {
                self.whole.push(std::mem::take(&mut self.rest).0.finish());
            }
        }
    }

    /// The checksums, as [`block_checksums`] of all bytes.
    pub fn finish(mut self) -> Vec<u32> {
        if self.rest.1 > 0 {
            self.whole.push(self.rest.0.finish());
        }
        self.whole
    }

    /// As [`finish`](Self::finish), when these checksums are `expected`.
    ///
    /// # Errors
    ///
    /// With the first block that differs, or when there is not one checksum for each block.
    pub fn verify(self, expected: &[u32]) -> Result<Vec<u32>, BlockError> {
        let found = self.finish();
        compare(found.iter().copied(), 0, expected).map(|()| found)
    }
}

/// Bytes are not those that were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A block does not match its checksum.
    #[error("block {index} is damaged: CRC-32C {found:#010x}, expected {expected:#010x}")]
    Damaged {
        /// The block, counted from the start of the shard.
        index: u64,
        /// The checksum that came with it.
        expected: u32,
        /// The checksum of its bytes.
        found: u32,
    },
    /// Bytes or checksums are cut short.
    #[error("{blocks} blocks with {checksums} checksums")]
    Count {
        /// Blocks of the data.
        blocks: usize,
        /// Checksums that came with them.
        checksums: usize,
    },
}

/// The CRC-32C of bytes that come piece by piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crc32c(u32);

impl Crc32c {
    /// Of no bytes yet.
    pub const fn new() -> Self {
        Self(0)
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    /// The checksum of all bytes so far; 0 for none.
    pub const fn finish(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The polynomial is Castagnoli's: vectors of RFC 3720, B.4, and the usual check value.
    #[test]
    fn is_castagnoli() {
        let crc = |bytes: &[u8]| {
            let mut crc = Crc32c::new();
            crc.update(bytes);
            crc.finish()
        };
        assert_eq!(crc(b""), 0);
        assert_eq!(crc(b"123456789"), 0xe306_9283);
        assert_eq!(crc(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
    }

    /// Blocks are cut at 64 KiB, and the last is what remains.
    #[test]
    fn blocks_are_64_kib() {
        let shard: Vec<u8> = (0..=255).cycle().take(2 * 65_536 + 64).collect();
        let expected = [&shard[..65_536], &shard[65_536..131_072], &shard[131_072..]].map(crc32c::crc32c);
        assert_eq!(block_checksums(&shard), expected);
        assert_eq!(block_checksums(&shard[..65_536]), expected[..1]);
        assert_eq!(block_checksums(&[]), []);
    }

    /// Too few or too many checksums are never taken for a match.
    #[test]
    fn counts_must_agree() {
        let block = [7; 100];
        let sum = block_checksums(&block)[0];
        assert_eq!(verify_blocks(&block, 0, &[sum]), Ok(()));
        assert_eq!(verify_blocks(&[], 0, &[]), Ok(()));
        for (data, sums) in [(&block[..], &[][..]), (&block, &[sum, sum]), (&[], &[0])] {
            assert!(matches!(verify_blocks(data, 0, sums), Err(BlockError::Count { .. })));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Any flipped bit is found, and the block is named by its place in the shard.
        #[test]
        fn a_flipped_bit_is_found(
            bytes in 1..200_000_usize, at in any::<prop::sample::Index>(), bit in 0..8, first in any::<u32>(),
        ) {
            let mut data: Vec<u8> = (0..bytes).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect();
            let checksums = block_checksums(&data);
            prop_assert_eq!(verify_blocks(&data, first, &checksums), Ok(()));
            let at = at.index(bytes);
            data[at] ^= 1_u8 << bit;
            match verify_blocks(&data, first, &checksums) {
                Err(BlockError::Damaged { index, .. }) => {
                    prop_assert_eq!(index, u64::from(first) + (at / 65_536) as u64);
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }

        /// Blocks that come piece by piece have the same checksums, and a wrong one is found.
        #[test]
        fn blocks_come_in_pieces(bytes in 0..200_000_usize, pieces in prop::collection::vec(1..70_000_usize, 1..20)) {
            let data: Vec<u8> = (0..bytes).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect();
            let (mut sums, mut rest) = (BlockChecksums::with_capacity(bytes), &data[..]);
            for piece in pieces.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, later) = rest.split_at(rest.len().min(*piece));
                sums.update(piece);
                rest = later;
            }
            let mut expected = block_checksums(&data);
            prop_assert_eq!(sums.clone().verify(&expected), Ok(expected.clone()));
            if let Some(last) = expected.last_mut() {
                *last ^= 1;
                let is_damaged = matches!(sums.clone().verify(&expected), Err(BlockError::Damaged { .. }));
                prop_assert!(is_damaged);
            }
            expected.push(0);
            let is_longer = matches!(sums.verify(&expected), Err(BlockError::Count { .. }));
            prop_assert!(is_longer || bytes == 0);
        }

        /// Piece by piece gives the same as at once.
        #[test]
        fn pieces_add_up(data in prop::collection::vec(any::<u8>(), 0..5_000), piece in 1..700_usize) {
            let mut crc = Crc32c::new();
            data.chunks(piece).for_each(|piece| crc.update(piece));
            prop_assert_eq!(crc.finish(), crc32c::crc32c(&data));
        }
    }
}
