//! The fields of one 4096-byte block with a checksum: what superblocks and shard headers share.
//!
//! Numbers are little endian; ids of 16 bytes stand as in messages, most significant byte first.
//! Bytes 0..8 are the magic, 8..12 the format version, 12..16 the CRC-32C of the whole block with
//! these four bytes as zeros; what follows is the owner's.

use codec::Crc32c;

/// Bytes of a block.
pub(crate) const BLOCK_HEADER_BYTES: usize = 4096;
/// Where the owner's fields begin.
pub(crate) const FIELDS_AT: usize = 16;
const CRC_AT: usize = 12;

/// Why a block cannot be taken for what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockProblem {
    /// It has another length.
    #[error("it has {found} bytes, expected {BLOCK_HEADER_BYTES}")]
    Length {
        /// Bytes there are.
        found: usize,
    },
    /// It does not begin as it should.
    #[error("it begins with {found:02x?}, not with the magic of its kind")]
    Magic {
        /// The first eight bytes.
        found: [u8; 8],
    },
    /// Its bytes do not match their checksum.
    #[error("its CRC-32C is {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// As it stands in the block.
        expected: u32,
        /// Of the bytes.
        found: u32,
    },
    /// It was written by a later version of this software.
    #[error("its format version is {found}, this software knows {known}")]
    NewerVersion {
        /// As it stands in the block.
        found: u32,
        /// The newest known.
        known: u32,
    },
    /// A field has a value that no writer gives it.
    #[error("its field {field} is {found}")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        found: u64,
    },
}

/// Writes a block's fields.
pub(crate) struct BlockWriter<'a> {
    block: &'a mut [u8],
    at: usize,
}

impl<'a> BlockWriter<'a> {
    /// Begins a block in the first [`BLOCK_HEADER_BYTES`] bytes of `block`, which become zeros.
    pub(crate) fn new(block: &'a mut [u8], magic: [u8; 8], version: u32) -> Self {
        let block = &mut block[..BLOCK_HEADER_BYTES];
        block.fill(0);
        let mut writer = Self { block, at: 0 };
        writer.bytes(&magic);
        writer.u32(version);
        writer.at = FIELDS_AT;
        writer
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.block[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    pub(crate) fn u32(&mut self, number: u32) {
        self.bytes(&number.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// Leaves zeros.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// Seals the block with its checksum.
    pub(crate) fn seal(self) {
        let crc = checksum(self.block);
        self.block[CRC_AT..FIELDS_AT].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Reads the fields of a block that matches its checksum.
pub(crate) struct BlockReader<'a> {
    block: &'a [u8],
    at: usize,
    version: u32,
}

impl<'a> BlockReader<'a> {
    /// Checks magic, checksum and version, in this order: a newer version is believed only when the
    /// block is undamaged.
    pub(crate) fn new(block: &'a [u8], magic: [u8; 8], known: u32) -> Result<Self, BlockProblem> {
        let reader = Self::of_any_version(block, magic)?;
        reader.check_version(known)?;
        Ok(reader)
    }

    /// Checks magic and checksum; the version is for the caller to check, once he has seen what every version has.
    pub(crate) fn of_any_version(block: &'a [u8], magic: [u8; 8]) -> Result<Self, BlockProblem> {
        if block.len() != BLOCK_HEADER_BYTES {
            return Err(BlockProblem::Length { found: block.len() });
        }
        let mut reader = Self { block, at: 0, version: 0 };
        let found = reader.array();
        if found != magic {
            return Err(BlockProblem::Magic { found });
        }
        let version = reader.u32();
        let expected = reader.u32();
        let found = checksum(block);
        if found != expected {
            return Err(BlockProblem::Checksum { expected, found });
        }
        Ok(Self { version, ..reader })
    }

    /// That it is a version that was released, `known` or an earlier one.
    pub(crate) fn check_version(&self, known: u32) -> Result<(), BlockProblem> {
        match self.version {
            0 => Err(BlockProblem::Field { field: "version", found: 0 }),
            found if found > known => Err(BlockProblem::NewerVersion { found, known }),
            _ => Ok(()),
        }
    }

    /// The format version.
    pub(crate) fn version(&self) -> u32 {
        self.version
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.block[self.at..self.at + N]);
        self.at += N;
        bytes
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    pub(crate) fn u128(&mut self) -> u128 {
        u128::from_be_bytes(self.array())
    }
}

fn checksum(block: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(&block[..CRC_AT]);
    crc.update(&[0; FIELDS_AT - CRC_AT]);
    crc.update(&block[FIELDS_AT..]);
    crc.finish()
}
