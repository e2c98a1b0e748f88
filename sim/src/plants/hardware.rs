//! Bugs that are made in disks and stores.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use env::kv::Change;
use env::{Batch, KeyRange};
use meta::state::tables;
use proto::prost::Message;
use proto::wire;
use simhost::disk::Damage;
use simhost::kv::{KvBugs, KvFilter};

use crate::cluster::Cluster;

/// How often new disks and servers are looked for.
const LOOK: Duration = Duration::from_millis(200);
/// Entries that are purged too much.
const PURGED_TOO_MUCH: u64 = 40;

/// Does something to all machines, and to those that come later.
pub(super) fn everywhere(cluster: &Arc<Cluster>, plant: impl Fn(&Cluster) + Send + 'static) {
    plant(cluster);
    let cluster = cluster.clone();
    cluster.world.clone().spawn("planted bug", async move {
        loop {
            cluster.world.sleep(LOOK).await;
            plant(&cluster);
        }
    });
}

fn bug_in_stores(cluster: &Arc<Cluster>, bugs: KvBugs) {
    everywhere(cluster, move |cluster| {
        cluster.metas().iter().for_each(|meta| meta.process.host().kvs().set_bugs(bugs));
    });
}

/// Rewrites what metadata servers write.
pub(super) fn rewrite(
    cluster: &Arc<Cluster>,
    filter: impl Fn(&str, Change) -> Vec<Change> + Send + Sync + 'static,
) {
    let filter = rewriting(filter);
    everywhere(cluster, move |cluster| {
        cluster.metas().iter().for_each(|meta| meta.process.host().kvs().set_filter(Some(filter.clone())));
    });
}

/// Rewrites each change of a batch.
pub(super) fn rewriting(filter: impl Fn(&str, Change) -> Vec<Change> + Send + Sync + 'static) -> KvFilter {
    Arc::new(move |store: &str, batch: Batch| {
        let mut rewritten = Batch::new();
        for change in batch.into_changes().into_iter().flat_map(|change| filter(store, change)) {
            match change {
                Change::Put(table, key, value) => rewritten.put(table, key, value),
                Change::Delete(table, key) => rewritten.delete(table, key),
                Change::DeleteRange(table, range) => rewritten.delete_range(table, range),
            }
        }
        rewritten
    })
}

/// In the middle of the storm one disk that keeps something loses all of it.
pub(super) fn canary(cluster: &Arc<Cluster>) {
    let cluster = cluster.clone();
    cluster.world.clone().spawn("canary", async move {
        loop {
            cluster.world.sleep(cluster.plan.storm / 2).await;
            for node in cluster.nodes() {
                for disk in node.process.host().disks().values() {
                    for (file, bytes) in
                        disk.files().iter().filter(|(file, _)| file.as_str().starts_with("seg-"))
                    {
                        disk.damage(file, Damage::Zero { offset: 0, bytes: *bytes });
                    }
                }
            }
        }
    });
}

/// See the table.
pub(super) fn snapshot_flush_skipped(cluster: &Arc<Cluster>) {
    let bugs = KvBugs { flush_lies: true, flush_lies_of: "state-", ..KvBugs::default() };
    bug_in_stores(cluster, bugs);
}

/// See the table.
pub(super) fn log_flush_skipped(cluster: &Arc<Cluster>) {
    bug_in_stores(cluster, KvBugs { flush_lies: true, ..KvBugs::default() });
}

/// See the table.
pub(super) fn snapshot_short(cluster: &Arc<Cluster>) {
    bug_in_stores(cluster, KvBugs { checkpoint_lies: true, ..KvBugs::default() });
}

/// See the table.
pub(super) fn vote_forgotten(cluster: &Arc<Cluster>) {
    rewrite(cluster, |store, change| match &change {
        Change::Put(_, key, _) if store == "raft" && key[..] == *b"vote" => Vec::new(),
        _ => vec![change],
    });
}

/// See the table.
pub(super) fn log_trimmed_early(cluster: &Arc<Cluster>) {
    rewrite(cluster, |store, change| match change {
        Change::DeleteRange("log", KeyRange { start, end: Some(end) })
            if store == "raft" && start.is_empty() =>
        {
            let end =
                <[u8; 8]>::try_from(&end[..]).map_or(0, u64::from_be_bytes).saturating_add(PURGED_TOO_MUCH);
            vec![Change::DeleteRange("log", KeyRange { start, end: Some(end.to_be_bytes().to_vec()) })]
        }
        change => vec![change],
    });
}

/// See the table.
pub(super) fn tombstone_forgotten(cluster: &Arc<Cluster>) {
    rewrite(cluster, |store, change| match &change {
        Change::Put(tables::GARBAGE, ..) if store.starts_with("state-") => Vec::new(),
        _ => vec![change],
    });
}

/// See the table.
pub(super) fn epoch_stands_still(cluster: &Arc<Cluster>) {
    rewrite(cluster, |store, change| match change {
        Change::Put(tables::GROUPS, key, value) if store.starts_with("state-") => {
            vec![Change::Put(tables::GROUPS, key, with_first_epoch(value))]
        }
        change => vec![change],
    });
}

fn with_first_epoch(value: Bytes) -> Bytes {
    let Ok(mut group) = wire::Group::decode(value.clone()) else { return value };
    group.epoch = 1;
    group.slots.iter_mut().for_each(|slot| slot.since_epoch = 1);
    group.encode_to_vec().into()
}
