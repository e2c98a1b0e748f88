//! Bugs that are made in what nodes write: the logs of their disks, and the indexes of them.

use std::sync::Arc;

use bytes::Bytes;
use env::FileName;
use env::kv::Change;
use simhost::DiskDevice;
use simhost::disk::{DiskBugs, DiskFilter};
use simhost::kv::{KvBugs, KvDevice};

use super::hardware::{everywhere, rewriting};
use crate::cluster::Cluster;

/// What a record begins with, and where it says of which kind it is.
const RECORD: &[u8] = b"CADOLErc";
const KIND_AT: usize = 60;
/// The kind of record that says that shards are no more.
const TOMBSTONES: u32 = 2;
/// What a segment begins with, and where it says which of its records count.
const SEGMENT: &[u8] = b"CADOLEsg";
const INCARNATION_AT: usize = 64;

fn in_disks(cluster: &Arc<Cluster>, plant: impl Fn(&DiskDevice) + Send + 'static) {
    everywhere(cluster, move |cluster| {
        for node in cluster.nodes() {
            node.process.host().disks().values().for_each(&plant);
        }
    });
}

fn in_indexes(cluster: &Arc<Cluster>, plant: impl Fn(&KvDevice) + Send + 'static) {
    everywhere(cluster, move |cluster| {
        cluster.nodes().iter().for_each(|node| plant(node.process.host().kvs()));
    });
}

/// What `is_dropped` says yes to does not come to the disk.
fn dropping(cluster: &Arc<Cluster>, is_dropped: fn(&Bytes) -> bool) {
    let filter: DiskFilter =
        Arc::new(move |_: &FileName, _: u64, page: Bytes| (!is_dropped(&page)).then_some(page));
    in_disks(cluster, move |disk| disk.set_filter(Some(filter.clone())));
}

/// See the table.
pub(super) fn shard_flush_skipped(cluster: &Arc<Cluster>) {
    in_disks(cluster, |disk| disk.set_bugs(DiskBugs { flush_lies: true, ..DiskBugs::default() }));
}

/// See the table.
pub(super) fn name_flush_skipped(cluster: &Arc<Cluster>) {
    in_disks(cluster, |disk| disk.set_bugs(DiskBugs { name_flush_lies: true, ..DiskBugs::default() }));
}

/// See the table.
pub(super) fn found_names_not_flushed(cluster: &Arc<Cluster>) {
    in_disks(cluster, |disk| disk.set_bugs(DiskBugs { inherited_flush_lies: true, ..DiskBugs::default() }));
}

/// See the table.
pub(super) fn deletions_not_logged(cluster: &Arc<Cluster>) {
    dropping(cluster, |page| page.starts_with(RECORD) && number(page, KIND_AT) == Some(TOMBSTONES));
}

/// See the table.
pub(super) fn incarnation_not_raised(cluster: &Arc<Cluster>) {
    dropping(cluster, |page| {
        page.starts_with(SEGMENT) && number(page, INCARNATION_AT).is_some_and(|incarnation| incarnation > 1)
    });
}

/// See the table.
pub(super) fn index_keeps_deleted(cluster: &Arc<Cluster>) {
    in_indexes(cluster, |kvs| {
        kvs.set_filter(Some(rewriting(|store, change| match &change {
            Change::Delete("shards", _) if store.starts_with("index-") => Vec::new(),
            _ => vec![change],
        })));
    });
}

/// See the table.
pub(super) fn index_flush_skipped(cluster: &Arc<Cluster>) {
    let bugs = KvBugs { flush_lies: true, flush_lies_of: "index-", ..KvBugs::default() };
    in_indexes(cluster, move |kvs| kvs.set_bugs(bugs));
}

fn number(page: &Bytes, at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(page.get(at..at + 4)?.try_into().ok()?))
}
