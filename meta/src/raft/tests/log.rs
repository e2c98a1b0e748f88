//! The log.

use env::{KvRead, Kvs};
use futures_util::StreamExt;
use openraft::RaftLogReader;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt};
use proto::MetaId;

use super::{entry, log_id};
use crate::raft::handle::User;
use crate::raft::log::LogStore;
use crate::raft::root::Root;
use crate::raft::types::{LeaderId, Vote};
use crate::testing::{MemoryKv, MemoryKvs, RuntimeSpawn, block_on};

async fn open(stores: &MemoryKvs) -> LogStore<MemoryKv> {
    let (user, _closed) = User::first();
    let root = Root::open(stores, MetaId(1), &user).await.expect("root");
    LogStore::open(&RuntimeSpawn, &root).expect("log")
}

/// What was acknowledged is there after a crash: entries by their callback, a vote by its return.
#[test]
fn acknowledged_writes_survive_a_crash() {
    block_on(async {
        let stores = MemoryKvs::new();
        let mut log = open(&stores).await;
        log.blocking_append([entry(0, 10), entry(1, 10)]).await.expect("append");
        let vote = Vote { leader_id: LeaderId { term: 3, voted_for: 2 }, committed: false };
        log.save_vote(&vote).await.expect("vote");
        let mut again = open(&stores.crashed()).await;
        assert_eq!(again.get_log_state().await.expect("state").last_log_id, Some(log_id(1, 1)));
        assert_eq!(again.try_get_log_entries(0..2).await.expect("read"), vec![entry(0, 10), entry(1, 10)]);
        assert_eq!(again.read_vote().await.expect("vote"), Some(vote));
    });
}

/// Entries are readable as soon as `append` returns, before they are durable.
#[test]
fn entries_are_readable_at_once() {
    block_on(async {
        let mut log = open(&MemoryKvs::new()).await;
        let mut reader = log.get_log_reader().await;
        log.append([entry(0, 10)], IOFlushed::noop()).await.expect("append");
        assert_eq!(reader.try_get_log_entries(..).await.expect("read"), vec![entry(0, 10)]);
    });
}

/// What goes to a follower at a time is bounded in bytes, and never nothing; a whole range comes
/// page by page.
#[test]
fn reads_are_bounded() {
    block_on(async {
        let mut log = open(&MemoryKvs::new()).await;
        let entries: Vec<_> = (0..200).map(|index| entry(index, 300_000)).collect();
        log.blocking_append(entries.clone()).await.expect("append");
        assert_eq!(log.limited_get_log_entries(0, 200).await.expect("read"), entries[..3]);
        log.blocking_append([entry(200, 2_000_000)]).await.expect("append");
        assert_eq!(log.limited_get_log_entries(200, 201).await.expect("read").len(), 1);
        let streamed: Vec<_> = log.entries_stream(0..200).await.collect().await;
        let streamed: Result<Vec<_>, _> = streamed.into_iter().collect();
        assert_eq!(streamed.expect("read"), entries);
    });
}

/// Purged and truncated entries are gone, for good.
#[test]
fn ends_survive_a_crash() {
    block_on(async {
        let stores = MemoryKvs::new();
        let mut log = open(&stores).await;
        log.blocking_append((0..10).map(|index| entry(index, 1))).await.expect("append");
        log.purge(log_id(1, 3)).await.expect("purge");
        log.truncate_after(Some(log_id(1, 6))).await.expect("truncate");
        log.blocking_append([entry(7, 2)]).await.expect("append");
        let mut log = open(&stores.crashed()).await;
        let state = log.get_log_state().await.expect("state");
        assert_eq!(state.last_purged_log_id, Some(log_id(1, 3)));
        assert_eq!(state.last_log_id, Some(log_id(1, 7)));
        let indices = log.try_get_log_entries(..).await.expect("read");
        let indices: Vec<u64> = indices.iter().map(|entry| entry.log_id.index).collect();
        assert_eq!(indices, [4, 5, 6, 7]);
    });
}

/// A disk that fails is reported to whoever writes, also later: nothing is acknowledged any more.
#[test]
fn failing_disk_acknowledges_nothing() {
    block_on(async {
        let stores = MemoryKvs::new();
        let mut log = open(&stores).await;
        log.blocking_append([entry(0, 1)]).await.expect("append");
        stores.set_failing("raft", true);
        assert!(log.blocking_append([entry(1, 1)]).await.is_err());
        let vote = Vote { leader_id: LeaderId { term: 3, voted_for: 2 }, committed: false };
        assert!(log.save_vote(&vote).await.is_err());
        assert!(log.try_get_log_entries(..).await.is_err());
    });
}

/// A hole in the log is an error, never a shorter answer.
#[test]
fn hole_is_an_error() {
    block_on(async {
        let stores = MemoryKvs::new();
        let mut log = open(&stores).await;
        log.blocking_append((0..4).map(|index| entry(index, 1))).await.expect("append");
        stores.edit("raft", |batch| batch.delete("log", 2u64.to_be_bytes().to_vec()));
        assert!(log.try_get_log_entries(..).await.is_err());
    });
}

/// The store is closed once its last user is gone, the flusher included.
#[test]
fn last_user_can_be_waited_for() {
    block_on(async {
        let stores = MemoryKvs::new();
        let (user, mut closed) = User::first();
        let root = Root::open(&stores, MetaId(1), &user).await.expect("root");
        let log = LogStore::open(&RuntimeSpawn, &root).expect("log");
        assert!(stores.open("raft", &[]).await.is_err());
        drop((user, root, log));
        closed.wait().await;
        let kv = stores.open("raft", &[]).await.expect("free");
        assert!(kv.get("meta", b"server").expect("read").is_some());
    });
}
