//! Shards and disks to measure with.

use std::ops::Range;

use anyhow::Context;
use env::Disk;
use node::store::{CheckedShard, NewShard, StoreError};
use node::superblock::{self, Found, Superblock};
use proto::{
    ClusterId, DiskUuid, Epoch, ExtentId, GroupId, ShardName, SlotIndex, StripeIndex, TenantTag, Timestamp,
};

const CLUSTER: ClusterId = ClusterId(1);
/// Of all shards.
pub const GROUP: GroupId = GroupId(7);
/// Of all shards.
pub const SLOT: SlotIndex = SlotIndex(1);
/// Shards of one extent.
pub const STRIPES: u64 = 256;

/// The superblock of a disk, which is formatted if it is empty.
///
/// # Errors
///
/// When the disk cannot be used.
pub async fn formatted<D: Disk>(disk: &D) -> anyhow::Result<Superblock> {
    match superblock::inspect(disk, CLUSTER).await.context("the disk")? {
        Found::Ours(superblock) => Ok(superblock),
        Found::Fresh => {
            let segment_bytes = superblock::segment_bytes(disk.space().await?.capacity_bytes);
            let (uuid, created) = (DiskUuid(2), Timestamp::ZERO);
            let superblock = Superblock { cluster: CLUSTER, uuid, created, salt: 3, segment_bytes };
            superblock::format(disk, &superblock).await.context("the disk")?;
            Ok(superblock)
        }
    }
}

/// The extent of a shard.
pub fn extent(number: u64) -> ExtentId {
    ExtentId(u128::from(number / STRIPES) << 64 | 1)
}

/// The name of a shard.
pub fn name(number: u64) -> ShardName {
    let stripe = StripeIndex(u32::try_from(number % STRIPES).unwrap_or_default());
    ShardName { group: GROUP, extent: extent(number), stripe, slot: SLOT }
}

/// Bytes of a shard.
pub fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at * 31 % 251).unwrap_or_default()).collect()
}

/// A shard that can be put: a copy of the payload, with its checksums.
///
/// # Errors
///
/// When no shard has that length.
pub fn shard(number: u64, payload: &[u8]) -> Result<CheckedShard, StoreError> {
    let mut shard = NewShard::new(name(number), Epoch(1), TenantTag(1), payload.len())?;
    shard.push(payload)?;
    shard.seal()
}

/// The numbers in an order of no use to read-ahead; always the same.
pub fn shuffled(numbers: Range<u64>) -> Vec<u64> {
    let mut order: Vec<u64> = numbers.collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..order.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(at, usize::try_from((state >> 33) % (at as u64 + 1)).unwrap_or_default());
    }
    order
}
