//! A shard store on a simulated machine, for tests of those who look at its disk.

use env::{Disks, Env, Kvs, Spawn};
use node::store::{CheckedShard, INDEX_TABLES, NewShard, ShardStore};
use node::superblock::{self, Found, Superblock};
use proto::{
    ClusterId, DiskUuid, Epoch, ExtentId, GroupId, ShardName, SlotIndex, StripeIndex, TenantTag, Timestamp,
};
use simhost::Host;
use simhost::disk::SimDisk;
use simhost::kv::SimKv;

use crate::cluster::index_of;

/// Where the machine has its disk.
pub(crate) const PATH: &str = "/disk";
const CLUSTER: ClusterId = ClusterId(7);

/// A shard of one extent.
pub(crate) fn name(stripe: u32) -> ShardName {
    ShardName { group: GroupId(5), extent: ExtentId(6), stripe: StripeIndex(stripe), slot: SlotIndex(1) }
}

/// That shard.
pub(crate) fn shard(stripe: u32) -> CheckedShard {
    let mut shard = NewShard::new(name(stripe), Epoch(1), TenantTag(1), 4096).unwrap();
    shard.push(&[7; 4096]).unwrap();
    shard.seal().unwrap()
}

/// A store of a simulated node.
pub(crate) type Store = ShardStore<SimDisk, SimKv>;

/// A store on the disk of a machine that has just been booted.
pub(crate) async fn store(host: &Host) -> Store {
    let env = host.boot();
    let disk = env.disks().open(PATH).await.unwrap();
    let superblock = match superblock::inspect(&disk, CLUSTER).await.unwrap() {
        Found::Ours(superblock) => superblock,
        Found::Fresh => {
            let (uuid, created) = (DiskUuid(8), Timestamp::ZERO);
            let fresh = Superblock { cluster: CLUSTER, uuid, created, salt: 9, segment_bytes: 256 << 10 };
            superblock::format(&disk, &fresh).await.unwrap();
            fresh
        }
    };
    let index = env.kvs().open(&index_of(PATH), INDEX_TABLES).await.unwrap();
    let (store, writer) = ShardStore::open(disk, index, superblock, None).await.unwrap();
    env.spawn().spawn("log", writer);
    store
}
