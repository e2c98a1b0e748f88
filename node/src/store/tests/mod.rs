//! The store on a disk in memory that can lose power, fail and rot: what it promises, thing by thing. That it keeps
//! its promises in any order of things is for [`model`](super::model).

mod basics;
mod batches;
mod damage;
mod failures;
mod fixtures;
mod hostile;
mod index;
mod logs;
mod room;
mod strangers;
mod survey;

use bytes::Bytes;
use futures_util::future::join;
use proto::{ClusterId, DiskUuid, Epoch, StripeIndex, TenantTag, Timestamp};

use super::testing::MemKv;
use super::*;
use crate::testing::{MemDisk, block_on};

type Store = ShardStore<MemDisk, MemKv>;

const SEGMENT_BYTES: u64 = 256 << 10;
const SUPERBLOCK: Superblock = Superblock {
    cluster: ClusterId(1),
    uuid: DiskUuid(2),
    created: Timestamp::ZERO,
    salt: 0x5a17,
    segment_bytes: SEGMENT_BYTES,
};
const TAG: TenantTag = TenantTag(7);
const EPOCH: Epoch = Epoch(3);

fn disk() -> MemDisk {
    MemDisk::new(16 * SEGMENT_BYTES)
}

fn kv() -> MemKv {
    MemKv::new(INDEX_TABLES)
}

/// Opens the store, works with it, and closes it.
fn with<T>(disk: &MemDisk, kv: &MemKv, work: impl AsyncFnOnce(Store) -> T) -> T {
    block_on(async {
        let (store, writer) = open(disk, kv).await.unwrap();
        join(work(store), writer).await.0
    })
}

/// The store, and its writer to be run.
async fn open(disk: &MemDisk, kv: &MemKv) -> Result<(Store, impl Future<Output = ()>), StoreError> {
    ShardStore::open(disk.clone(), kv.clone(), SUPERBLOCK, None).await
}

/// Why the store cannot be opened.
fn refusal(disk: &MemDisk, kv: &MemKv) -> Option<StoreError> {
    block_on(open(disk, kv)).err()
}

fn name(group: u32, extent: u128, stripe: u32, slot: u8) -> ShardName {
    ShardName {
        group: GroupId(group),
        extent: ExtentId(extent),
        stripe: StripeIndex(stripe),
        slot: SlotIndex(slot),
    }
}

/// The shard of a number.
fn numbered(number: u32) -> ShardName {
    name(1, u128::from(number), 0, 0)
}

fn content(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9).wrapping_add(1);
    let byte = |_| {
        state = state.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        state.to_be_bytes()[0]
    };
    (0..length).map(byte).collect()
}

fn shard(name: ShardName, bytes: &[u8]) -> CheckedShard {
    let mut shard = NewShard::new(name, EPOCH, TAG, bytes.len()).unwrap();
    bytes.chunks(1000).for_each(|chunk| shard.push(chunk).unwrap());
    shard.with_hint(hint(bytes)).unwrap().seal().unwrap()
}

/// What is kept with a shard of these bytes: nothing with the shortest.
fn hint(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&bytes[64.min(bytes.len())..bytes.len().min(200)])
}

async fn put(store: &Store, name: ShardName, bytes: &[u8]) -> Result<(), StoreError> {
    store.put(shard(name, bytes), Priority::Client).await.map(|_| ())
}

async fn get(store: &Store, name: ShardName) -> Result<Vec<u8>, StoreError> {
    let read = store.read(name, 0, 0, Priority::Client).await?;
    assert_eq!(read.hint, hint(&read.bytes), "{name}");
    Ok(read.bytes.to_vec())
}

/// Where a shard lies: the file, and the offset of its record.
fn place(store: &Store, name: ShardName) -> (String, usize) {
    let RecordPlace { file, offset, .. } = store.place(name).unwrap().unwrap();
    (file.to_string(), usize::try_from(offset).unwrap())
}

/// Bytes of the record of a shard of this length.
fn record_bytes(length: usize) -> u64 {
    (HEADER_BYTES + length.next_multiple_of(HEADER_BYTES)) as u64
}
