//! Snapshots: made, sent, received, installed, found again.

use env::{KeyRange, KvRead, Kvs, Order};
use futures_util::stream;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use proto::wire::command::Action;
use proto::{ClusterId, CommandId, ErrorCode, Failure, MetaId, Timestamp, frame, wire};

use super::command;
use crate::raft::handle::User;
use crate::raft::machine::StateMachine;
use crate::raft::replica::TABLES;
use crate::raft::root::Root;
use crate::raft::snapshot::{SnapshotData, Source};
use crate::raft::transfer::{Chunks, Receiver};
use crate::testing::{MemoryKvs, block_on};

type Machine = StateMachine<MemoryKvs>;

async fn open(stores: &MemoryKvs) -> Machine {
    let (user, _closed) = User::first();
    let root = Root::open(stores, MetaId(1), &user).await.expect("root");
    StateMachine::open(stores.clone(), root, &user).await.expect("machine")
}

/// A cluster with so many tenants.
async fn populated(stores: &MemoryKvs, tenants: u64) -> Machine {
    let mut machine = open(stores).await;
    let found = Action::FoundCluster(wire::FoundCluster { cluster_id: ClusterId(9).to_wire() });
    let mut entries = vec![command(0, found)];
    for index in 1..=tenants {
        let create = wire::CreateTenant {
            tenant: format!("tenant-{index}"),
            command_id: CommandId::new(Timestamp::from_millis(1_000), u128::from(index)).to_wire(),
        };
        entries.push(command(index, Action::CreateTenant(create)));
    }
    let entries = entries.into_iter().map(|entry| Ok((entry, None)));
    machine.apply(stream::iter(entries)).await.expect("apply");
    machine
}

fn rows(machine: &Machine) -> Vec<(env::Table, Vec<env::Row>)> {
    let all = KeyRange::all();
    machine.replica().read(|_, kv| {
        let scan = |table| kv.scan(table, &all, Order::Ascending, usize::MAX).expect("scan");
        TABLES.into_iter().map(|table| (table, scan(table))).collect()
    })
}

async fn chunks(machine: &mut Machine) -> Vec<wire::SnapshotChunk> {
    let snapshot = machine.get_snapshot_builder().await.build_snapshot().await.expect("snapshot");
    let mut chunks = Chunks::new(snapshot.snapshot.open().await.expect("open"));
    let mut all = Vec::new();
    while let Some(chunk) = chunks.next().expect("read") {
        all.push(frame::decode(chunk.slice(frame::LENGTH_BYTES..)).expect("a chunk"));
    }
    all
}

async fn receive(
    machine: &Machine,
    chunks: Vec<wire::SnapshotChunk>,
) -> Result<SnapshotData<MemoryKvs>, Failure> {
    let mut receiver = Receiver::start(machine.spares()).await?;
    for chunk in chunks {
        receiver.take(chunk)?;
    }
    receiver.finish().await.map(|spare| SnapshotData { source: Source::Received(spare) })
}

/// A received snapshot becomes the state, byte for byte, survives a crash, and leaves nothing else
/// behind.
#[test]
fn snapshot_is_received_and_installed() {
    block_on(async {
        let mut leader = populated(&MemoryKvs::new(), 700).await;
        let sent = chunks(&mut leader).await;
        let meta = leader.get_current_snapshot().await.expect("read").expect("there is one").meta;

        let stores = MemoryKvs::new();
        let mut follower = populated(&stores, 3).await;
        let snapshot = receive(&follower, sent).await.expect("whole");
        follower.install_snapshot(&meta, snapshot).await.expect("install");
        assert_eq!(rows(&follower), rows(&leader));
        let tenants = follower.replica().read(|machine, _| crate::state::query::list_tenants(machine));
        assert_eq!(tenants.expect("founded").tenants.len(), 700);

        let stores = stores.crashed();
        let mut again = open(&stores).await;
        assert_eq!(rows(&again), rows(&leader));
        assert_eq!(again.applied_state().await.expect("state").0, meta.last_log_id);
        assert_eq!(again.get_current_snapshot().await.expect("read").expect("kept").meta, meta);
        let names = stores.list().await.expect("list");
        assert_eq!(names.len(), 3, "{names:?}");
    });
}

/// Damage, loss of a row, an early end and unknown tables are noticed, and change nothing.
#[test]
fn damaged_snapshots_are_refused() {
    block_on(async {
        let mut leader = populated(&MemoryKvs::new(), 5).await;
        let sent = chunks(&mut leader).await;
        let stores = MemoryKvs::new();
        let follower = populated(&stores, 3).await;
        let before = rows(&follower);
        let mut flipped = sent.clone();
        flipped[0].rows[0].value = b"x"[..].into();
        let mut lost = sent.clone();
        lost[0].rows.pop();
        let mut unknown = sent.clone();
        unknown[0].rows[0].table = "tablets".to_owned();
        let mut early = sent.clone();
        early.iter_mut().for_each(|chunk| chunk.last = false);
        for (chunks, code) in [
            (flipped, ErrorCode::ChecksumMismatch),
            (lost, ErrorCode::ChecksumMismatch),
            (unknown, ErrorCode::InvalidRequest),
            (early, ErrorCode::InvalidRequest),
        ] {
            assert_eq!(receive(&follower, chunks).await.expect_err("damaged").code, code);
        }
        assert_eq!(rows(&follower), before);
        drop(follower);
        open(&stores).await;
        let names = stores.list().await.expect("list");
        assert_eq!(names, ["raft", "state-0"], "interrupted transfers are cleaned up at the start");
    });
}

/// A snapshot that is not what was announced is not installed.
#[test]
fn wrong_snapshot_is_not_installed() {
    block_on(async {
        let mut leader = populated(&MemoryKvs::new(), 5).await;
        let sent = chunks(&mut leader).await;
        let mut meta = leader.get_current_snapshot().await.expect("read").expect("there is one").meta;
        meta.last_log_id = Some(super::log_id(1, 99));
        let mut follower = populated(&MemoryKvs::new(), 3).await;
        let snapshot = receive(&follower, sent).await.expect("whole");
        assert!(follower.install_snapshot(&meta, snapshot).await.is_err());
    });
}

/// Behind a snapshot the log may be purged: after a crash the state is at least as far. The newest
/// snapshot alone is kept.
#[test]
fn state_is_durable_behind_a_snapshot() {
    block_on(async {
        let stores = MemoryKvs::new();
        let mut machine = populated(&stores, 5).await;
        drop(machine.get_snapshot_builder().await.build_snapshot().await.expect("first"));
        let meta = machine.get_snapshot_builder().await.build_snapshot().await.expect("second").meta;
        let stores = stores.crashed();
        let mut again = open(&stores).await;
        assert_eq!(again.applied_state().await.expect("state").0, meta.last_log_id);
        let names = stores.list().await.expect("list");
        assert_eq!(names.iter().filter(|name| name.starts_with("snapshot-")).count(), 1, "{names:?}");
    });
}

/// However entries are spread over batches, the rows are the same.
#[test]
fn batches_do_not_matter() {
    block_on(async {
        let whole = populated(&MemoryKvs::new(), 150).await;
        let stores = MemoryKvs::new();
        let mut single = populated(&stores, 0).await;
        for index in 1..=150 {
            let create = wire::CreateTenant {
                tenant: format!("tenant-{index}"),
                command_id: CommandId::new(Timestamp::from_millis(1_000), u128::from(index)).to_wire(),
            };
            let entry = command(index, Action::CreateTenant(create));
            single.apply(stream::iter([Ok((entry, None))])).await.expect("apply");
        }
        assert_eq!(rows(&single), rows(&whole));
    });
}
