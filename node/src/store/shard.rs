//! A shard on its way to the disk, and what was read of one.

use bytes::Bytes;
use codec::BlockChecksums;
use env::AlignedBuf;
use proto::limits::{BLOCK_BYTES, HINT_BYTES_MAX, SHARD_ALIGN_BYTES, SHARD_BYTES_MAX};
use proto::{Epoch, ExtentId, ShardName, SlotIndex, StripeIndex, TenantTag};

use super::error::StoreError;
use super::record::{self, PAGE_BYTES as HEADER_BYTES};

// What is taken fits the record.
const _: () = assert!(HINT_BYTES_MAX <= record::HINT_BYTES_MAX);

/// A shard that is being received: one aligned buffer with room for the header, so that its bytes
/// are copied once and written in one transfer. Checksums are made of what was just copied, while it is in the cache.
#[derive(Debug)]
pub struct NewShard {
    name: ShardName,
    epoch: Epoch,
    tenant_tag: TenantTag,
    hint: Bytes,
    buf: AlignedBuf,
    filled: usize,
    checksums: BlockChecksums,
}

impl NewShard {
    /// Makes room for a shard of `shard_bytes` bytes.
    ///
    /// # Errors
    ///
    /// `Invalid` when no shard has that length.
    pub fn new(
        name: ShardName,
        epoch: Epoch,
        tenant_tag: TenantTag,
        shard_bytes: usize,
    ) -> Result<Self, StoreError> {
        let in_range = (1..=SHARD_BYTES_MAX).contains(&shard_bytes);
        if !in_range || !shard_bytes.is_multiple_of(SHARD_ALIGN_BYTES) {
            return Err(StoreError::Invalid(format!(
                "a shard of {shard_bytes} bytes: expected a multiple of {SHARD_ALIGN_BYTES} up to {SHARD_BYTES_MAX}"
            )));
        }
        // The bytes of the shard come by `push`; nobody sees it before all are there.
        let mut buf = AlignedBuf::uncleared(HEADER_BYTES + shard_bytes);
        buf.as_capacity_mut_slice().get_mut(HEADER_BYTES + shard_bytes..).unwrap_or_default().fill(0);
        let checksums = BlockChecksums::with_capacity(shard_bytes);
        Ok(Self { name, epoch, tenant_tag, hint: Bytes::new(), buf, filled: HEADER_BYTES, checksums })
    }

    /// The same shard, with what its writer wants to be kept with it.
    ///
    /// # Errors
    ///
    /// `Invalid` when that is longer than [`HINT_BYTES_MAX`].
    pub fn with_hint(self, hint: Bytes) -> Result<Self, StoreError> {
        if hint.len() > HINT_BYTES_MAX {
            let text = format!("a hint of {} bytes: at most {HINT_BYTES_MAX} are kept", hint.len());
            return Err(StoreError::Invalid(text));
        }
        Ok(Self { hint, ..self })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// `Invalid` when there are more than announced.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let end = self.filled + bytes.len();
        let Some(place) = self.buf.as_mut_slice().get_mut(self.filled..end) else {
            return Err(StoreError::Invalid(format!("shard {} is longer than announced", self.name)));
        };
        for (to, from) in place.chunks_mut(BLOCK_BYTES).zip(bytes.chunks(BLOCK_BYTES)) {
            to.copy_from_slice(from);
            self.checksums.update(to);
        }
        self.filled = end;
        Ok(())
    }

    /// All bytes are there: compares them with the checksums that came with them.
    ///
    /// # Errors
    ///
    /// `Mismatch` when they differ, `Invalid` when bytes are missing.
    pub fn check(mut self, block_crcs: &[u32]) -> Result<CheckedShard, StoreError> {
        self.complete()?;
        let block_crcs = std::mem::take(&mut self.checksums)
            .verify(block_crcs)
            .map_err(|error| StoreError::Mismatch { name: self.name, problem: error.to_string() })?;
        Ok(CheckedShard { shard: self, block_crcs })
    }

    /// All bytes are there and known to be right.
    ///
    /// # Errors
    ///
    /// `Invalid` when bytes are missing.
    pub fn seal(mut self) -> Result<CheckedShard, StoreError> {
        self.complete()?;
        let block_crcs = std::mem::take(&mut self.checksums).finish();
        Ok(CheckedShard { shard: self, block_crcs })
    }

    fn complete(&self) -> Result<(), StoreError> {
        if self.filled == self.buf.len() {
            return Ok(());
        }
        Err(StoreError::Invalid(format!("shard {} is shorter than announced", self.name)))
    }
}

/// A whole shard, in parts.
#[derive(Debug)]
pub(crate) struct ShardParts {
    pub(crate) epoch: Epoch,
    pub(crate) tenant_tag: TenantTag,
    pub(crate) hint: Bytes,
    pub(crate) shard_bytes: u32,
    pub(crate) block_crcs: Vec<u32>,
    /// The payload behind one page.
    pub(crate) buf: AlignedBuf,
}

/// A whole shard whose checksums are right.
#[derive(Debug)]
pub struct CheckedShard {
    shard: NewShard,
    block_crcs: Vec<u32>,
}

impl CheckedShard {
    pub(crate) fn name(&self) -> ShardName {
        self.shard.name
    }

    pub(crate) fn record_bytes(&self) -> u64 {
        self.shard.buf.capacity() as u64
    }

    /// What a record of the log says of it, and the buffer with room for the record's header.
    pub(crate) fn into_parts(self) -> ShardParts {
        let CheckedShard { shard: NewShard { epoch, tenant_tag, hint, buf, .. }, block_crcs } = self;
        // At most SHARD_BYTES_MAX.
        let shard_bytes = u32::try_from(buf.len() - HEADER_BYTES).unwrap_or(u32::MAX);
        ShardParts { epoch, tenant_tag, hint, shard_bytes, block_crcs, buf }
    }
}

/// What a store knows of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardStat {
    /// The shard.
    pub name: ShardName,
    /// Its length.
    pub shard_bytes: u32,
    /// Of the group when it was written.
    pub epoch: Epoch,
}

/// Blocks of a shard, each verified.
#[derive(Clone, Debug)]
pub struct ShardRead {
    /// The blocks, one after the other.
    pub bytes: Bytes,
    /// CRC-32C of each of them.
    pub block_crcs: Vec<u32>,
    /// Length of the whole shard.
    pub shard_bytes: u32,
    /// Who may read it.
    pub tenant_tag: TenantTag,
    /// What its writer wanted to be kept with it.
    pub hint: Bytes,
}

/// What a shard's record says of it, its blocks aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardAbout {
    /// The shard, its length and epoch.
    pub stat: ShardStat,
    /// Who may read it.
    pub tenant_tag: TenantTag,
    /// Which matrix the code of its stripe had.
    pub matrix: u32,
    /// What its writer wanted to be kept with it.
    pub hint: Bytes,
}

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Shards.
    pub shards: u64,
    /// Bytes of their records.
    pub bytes: u64,
}

/// The shards that a disk has of one slot of an extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The extent.
    pub extent: ExtentId,
    /// The slot.
    pub slot: SlotIndex,
    /// The stripes of which a shard is there, in order; never empty.
    pub stripes: Vec<StripeIndex>,
}

/// Whether a shard is there and whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// There, every block verified.
    Whole(ShardStat),
    /// The store has no such shard.
    Absent,
    /// There, and not whole.
    Damaged,
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPage {
    /// In order.
    pub shards: Vec<ShardStat>,
    /// False on the last page.
    pub more: bool,
}

/// How a store is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreReport {
    /// Bytes that it may hold.
    pub capacity_bytes: u64,
    /// Bytes that its shards take, headers and padding included.
    pub used_bytes: u64,
    /// Shards.
    pub shards: u64,
    /// Why it takes no writes; `None` while it does.
    pub failure: Option<String>,
    /// Which engine serves the disk.
    pub engine: String,
    /// Damaged blocks and records found since it was opened.
    pub damaged_blocks: u64,
    /// There is no room for an ordinary write.
    pub full: bool,
}
