//! Each rule finds its forgotten flush, and nothing once that was made.

use std::time::Duration;

use env::buf::ALIGN_BYTES;
use env::{AlignedBuf, Batch, Disk, DiskFile, Disks, Env, KeyRange, Kv, Kvs, Priority, Write};
use node::store::INDEX_TABLES;
use proto::ExtentId;
use proto::prost::Message;
use simhost::disk::{DiskBugs, SimDisk};
use simhost::kv::SimKv;
use simhost::{Death, SimEnv, World, WorldOptions};

use super::*;
use crate::cluster::index_of;
use crate::testing::{PATH, name, shard, store};

const LIMIT: Duration = Duration::from_secs(1_000);

/// A machine with an empty disk.
fn machine(identity: &str) -> (World, Host) {
    let world = World::new(WorldOptions::new(1));
    let host = world.add_host("a", identity.parse().unwrap());
    host.insert_disk(PATH, 64 << 20);
    (world, host)
}

async fn raft(env: &SimEnv) -> SimKv {
    env.kvs().open("raft", &["log", "meta"]).await.unwrap()
}

fn put(kv: &SimKv, table: &'static str, key: &[u8], value: Vec<u8>) {
    let mut batch = Batch::new();
    batch.put(table, key.to_vec(), value);
    kv.write(batch).unwrap();
}

fn put_vote(kv: &SimKv, vote: &wire::Vote) {
    put(kv, "meta", b"vote", vote.encode_to_vec());
}

fn log_id(term: u64, index: u64) -> wire::LogId {
    wire::LogId { term, index }
}

fn put_entry(kv: &SimKv, id: wire::LogId) {
    let entry = wire::Entry { log_id: Some(id), payload: Some(wire::entry::Payload::Blank(true)) };
    put(kv, "log", &id.index.to_be_bytes(), entry.encode_to_vec());
}

/// A vote counts once it is flushed, for its candidate and for those before it.
#[test]
fn votes() {
    let (world, host) = machine("meta/1");
    let test = async {
        let kv = raft(&host.boot()).await;
        let vote = |term, leader| wire::Vote { term, leader, committed: false };
        put_vote(&kv, &vote(3, 2));
        assert!(metas::vote(host.kvs(), Some(&vote(3, 2))).is_err());
        kv.flush().await.unwrap();
        assert_eq!(metas::vote(host.kvs(), Some(&vote(3, 2))), Ok(()));
        assert_eq!(metas::vote(host.kvs(), Some(&vote(2, 1))), Ok(()));
        assert!(metas::vote(host.kvs(), Some(&vote(3, 1))).is_err());
        assert!(metas::vote(host.kvs(), Some(&vote(4, 2))).is_err());
    };
    world.run(LIMIT, test).unwrap();
}

/// An entry counts in the durable log or in the durable state, or when a later leader may have taken it away.
#[test]
fn entries() {
    let (world, host) = machine("meta/1");
    let test = async {
        let env = host.boot();
        let kv = raft(&env).await;
        let vote = wire::Vote { term: 3, leader: 2, committed: true };
        let told = |id| metas::entries(host.kvs(), Some(id), Some(&vote));
        put_vote(&kv, &vote);
        put_entry(&kv, log_id(3, 7));
        assert!(told(log_id(3, 7)).is_err());
        kv.flush().await.unwrap();
        assert_eq!(told(log_id(3, 7)), Ok(()));
        assert!(told(log_id(2, 7)).is_err());
        assert!(told(log_id(3, 8)).is_err());
        let state = env.kvs().open("state-0", &["raft"]).await.unwrap();
        put(&state, "raft", b"applied", log_id(3, 8).encode_to_vec());
        assert!(told(log_id(3, 8)).is_err());
        state.flush().await.unwrap();
        assert_eq!(told(log_id(3, 8)), Ok(()));
        put_vote(&kv, &wire::Vote { term: 4, leader: 1, committed: false });
        assert!(told(log_id(3, 9)).is_err());
        kv.flush().await.unwrap();
        assert_eq!(told(log_id(3, 9)), Ok(()));
    };
    world.run(LIMIT, test).unwrap();
}

/// A server speaks for a cluster once it has noted durably that it belongs to it.
#[test]
fn clusters() {
    let (world, host) = machine("meta/1");
    let test = async {
        let kv = raft(&host.boot()).await;
        put(&kv, "meta", b"cluster", vec![7; 16]);
        assert!(metas::cluster(host.kvs()).is_err());
        kv.flush().await.unwrap();
        assert_eq!(metas::cluster(host.kvs()), Ok(()));
    };
    world.run(LIMIT, test).unwrap();
}

/// A state is named when it is durable, the one before is removed when that name is, and the log is purged as
/// far as the durable state goes.
#[test]
fn states() {
    let (world, host) = machine("meta/1");
    let test = async {
        let env = host.boot();
        let kv = raft(&env).await;
        let found: Arc<Mutex<Vec<String>>> = Arc::default();
        let (into, kvs) = (found.clone(), host.kvs().clone());
        host.kvs().set_witness(Arc::new(move |store: &str, act: KvAct<'_>| {
            lock(&into).extend(metas::acted(&kvs, store, act).err());
        }));
        let expect = |what: &[&str]| {
            let found = std::mem::take(&mut *lock(&found));
            let same =
                found.len() == what.len() && found.iter().zip(what).all(|(text, part)| text.contains(part));
            assert!(same, "{found:?}, expected {what:?}");
        };
        let name_state = || put(&kv, "meta", b"state", 1_u64.to_be_bytes().to_vec());
        let purge = |end: u64| {
            let mut batch = Batch::new();
            let end = Some(end.to_be_bytes().to_vec());
            batch.delete_range("log", KeyRange { start: Vec::new(), end });
            kv.write(batch).unwrap();
        };
        drop(env.kvs().open("state-0", &["raft"]).await.unwrap());
        let state = env.kvs().open("state-1", &["raft"]).await.unwrap();
        put(&state, "raft", b"applied", log_id(3, 8).encode_to_vec());
        name_state();
        expect(&["state-1 from now on, of which 1 batches"]);
        purge(9);
        expect(&["purged its log up to entry 8"]);
        state.flush().await.unwrap();
        name_state();
        purge(9);
        expect(&[]);
        purge(10);
        expect(&["purged its log up to entry 9"]);
        env.kvs().remove("state-0").await.unwrap();
        expect(&["removed state-0"]);
        kv.flush().await.unwrap();
        drop(env.kvs().open("state-0", &["raft"]).await.unwrap());
        env.kvs().remove("state-0").await.unwrap();
        expect(&[]);
    };
    world.run(LIMIT, test).unwrap();
}

/// A shard counts when the log is durable up to its end; one that has gone again is passed over.
#[test]
fn shards() {
    let (world, host) = machine("node/1");
    let test = async {
        let (store, device) = (store(&host).await, host.disk(PATH).unwrap());
        let told = |stripe| {
            let shard = Some(name(stripe).into());
            let filled =
                wire::SlotFilled { group: 5, extent: ExtentId(6).to_wire(), slot: 1, ..Default::default() };
            let write = wire::WriteShard { shard, ..Default::default() };
            let told = nodes::shard(&host, &device, &write);
            assert_eq!(told.is_err(), nodes::filled(&host, &device, &filled).is_err());
            assert_eq!(told.is_err(), nodes::found_again(&host, &device, &write).is_err());
            assert_eq!(told.is_err(), nodes::not_ahead(&host, &index_of(PATH)).is_err());
            told
        };
        assert_eq!(told(0), Ok(()));
        store.put(shard(0), Priority::Client).await.unwrap();
        assert_eq!(told(0), Ok(()));
        store.delete(name(0)).await.unwrap();
        device.set_bugs(DiskBugs { flush_lies: true, ..DiskBugs::default() });
        store.put(shard(1), Priority::Client).await.unwrap();
        assert!(told(1).is_err());
    };
    world.run(LIMIT, test).unwrap();
}

/// Shards are dropped when the durable log says so, and with it the index; others, and what was written again
/// after that, are passed over.
#[test]
fn drops() {
    let (world, host) = machine("node/1");
    let test = async {
        let (store, device) = (store(&host).await, host.disk(PATH).unwrap());
        let told = |extent: Bytes, slot| {
            let dropped = wire::DropExtent { group: 5, extent, slot, ..Default::default() };
            nodes::dropped(&host, &device, &[&dropped])
        };
        store.put(shard(0), Priority::Client).await.unwrap();
        assert!(told(ExtentId(6).to_wire(), 1).is_err());
        assert!(told(Bytes::new(), 1).is_err());
        assert_eq!(told(ExtentId(7).to_wire(), 1), Ok(()));
        assert_eq!(told(Bytes::new(), 2), Ok(()));
        device.set_filter(Some(Arc::new(|_: &env::FileName, _: u64, _: Bytes| None)));
        store.delete(name(0)).await.unwrap();
        assert!(told(Bytes::new(), 1).is_err(), "the log does not say so");
        device.set_filter(None);
        store.put(shard(1), Priority::Client).await.unwrap();
        store.delete(name(1)).await.unwrap();
        assert!(told(Bytes::new(), 1).is_err(), "of another one it does");
    };
    world.run(LIMIT, test).unwrap();
}

/// A segment may be freed once the durable index has nothing there, or knows it in that incarnation.
#[test]
fn freed_segments() {
    let (world, host) = machine("node/1");
    let test = async {
        let store = store(&host).await;
        store.put(shard(0), Priority::Client).await.unwrap();
        let file = store.place(name(0)).unwrap().unwrap().file;
        let mut page = b"CADOLEsg".to_vec();
        page.resize(64, 0);
        let header = |incarnation: u64| Bytes::from([&page[..], &incarnation.to_le_bytes()].concat());
        assert_eq!(nodes::left_by_all(&host, PATH, &file, &header(2)), Ok(()), "nothing of it is durable");
        drop(store);
        host.kill(Death::Process);
        let env = host.boot();
        let index = env.kvs().open(&index_of(PATH), INDEX_TABLES).await.unwrap();
        index.flush().await.unwrap();
        assert!(nodes::left_by_all(&host, PATH, &file, &header(2)).is_err());
        assert_eq!(nodes::left_by_all(&host, PATH, &file, &header(1)), Ok(()));
        assert_eq!(nodes::left_by_all(&host, PATH, &"seg-00000063".parse().unwrap(), &header(2)), Ok(()));
        assert_eq!(nodes::left_by_all(&host, PATH, &file, &Bytes::from_static(b"CADOLErc")), Ok(()));
    };
    world.run(LIMIT, test).unwrap();
}

/// Writes a file as superblocks are written, up to the flush of names.
async fn write(disk: &SimDisk, file: &env::FileName) {
    let temporary = "superblock.new".parse().unwrap();
    let made = disk.create(&temporary, ALIGN_BYTES as u64).await.unwrap();
    let buf = AlignedBuf::zeroed(ALIGN_BYTES);
    made.write(vec![Write { offset: 0, buf }], Priority::Client).await.unwrap();
    made.flush().await.unwrap();
    disk.rename(&temporary, file).await.unwrap();
}

/// A disk serves when its superblock is durable, and the names that an earlier process left.
#[test]
fn disks() {
    let (world, host) = machine("node/1");
    let test = async {
        let device = host.disk(PATH).unwrap();
        let disk = host.boot().disks().open(PATH).await.unwrap();
        write(&disk, &"superblock".parse().unwrap()).await;
        assert!(nodes::disk(&device).is_err());
        disk.flush_names().await.unwrap();
        assert_eq!(nodes::disk(&device), Ok(()));
        write(&disk, &"seg-00000000".parse().unwrap()).await;
        assert_eq!(nodes::disk(&device), Ok(()));
        host.kill(Death::Process);
        assert!(nodes::disk(&device).is_err());
        let disk = host.boot().disks().open(PATH).await.unwrap();
        write(&disk, &"seg-00000001".parse().unwrap()).await;
        assert!(nodes::disk(&device).is_err());
        disk.flush_names().await.unwrap();
        write(&disk, &"seg-00000002".parse().unwrap()).await;
        assert_eq!(nodes::disk(&device), Ok(()));
    };
    world.run(LIMIT, test).unwrap();
}
