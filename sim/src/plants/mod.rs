//! Planted bugs: proof that the checkers bite.
//!
//! Each stands for a mistake that somebody could make in the production code. It is made at the seam
//! (a disk that does not flush, a store that forgets) or by rewriting what is said on the wire, as if the
//! code behind it were wrong, so that the production code stays clean. docs/simulator.md says how many
//! seeds each one takes to be found.

mod hardware;
mod log;
mod tasks;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use proto::wire as messages;
use proto::wire::request::Call;
use proto::wire::response::Result as Reply;
use simhost::Stream;

use crate::cluster::Cluster;
use crate::process::lock;

/// A planted bug.
pub struct Plant {
    /// Its name on the command line.
    pub name: &'static str,
    /// The mistake it stands for.
    pub meaning: &'static str,
    how: How,
}

/// Where it is made.
enum How {
    /// In disks and stores.
    Hardware(fn(&Arc<Cluster>)),
    /// On requests.
    Request(fn(&mut Memory, &mut Call) -> bool),
    /// On replies.
    Reply(fn(&mut Memory, &Call, &mut Reply) -> bool),
    /// On the headers of replies, and on the bytes that follow them.
    Payload(fn(&mut Memory, &Call, &mut Reply) -> bool, fn(&Call, u64, &Bytes) -> Option<Bytes>),
    /// On requests and replies.
    Both(fn(&mut Memory, &mut Call) -> bool, fn(&mut Memory, &Call, &mut Reply) -> bool),
}

/// All planted bugs.
pub const ALL: &[Plant] = &[
    plant(
        "canary",
        "all that one disk keeps vanishes in the middle of the storm: this must always be found",
        How::Hardware(hardware::canary),
    ),
    plant(
        "shard-flush-skipped",
        "shards are acknowledged before they are flushed",
        How::Hardware(log::shard_flush_skipped),
    ),
    plant(
        "name-flush-skipped",
        "a segment takes shards before its name is flushed",
        How::Hardware(log::name_flush_skipped),
    ),
    plant(
        "found-names-not-flushed",
        "a node serves segments that an earlier process of it named and did not flush",
        How::Hardware(log::found_names_not_flushed),
    ),
    plant(
        "deletions-not-logged",
        "shards are reported as dropped, and the log does not say so",
        How::Hardware(log::deletions_not_logged),
    ),
    plant(
        "incarnation-not-raised",
        "a segment is freed, and its old records still count",
        How::Hardware(log::incarnation_not_raised),
    ),
    plant(
        "index-keeps-deleted",
        "the index keeps shards that were deleted",
        How::Hardware(log::index_keeps_deleted),
    ),
    plant(
        "index-flush-skipped",
        "segments are freed while the durable index still points into them",
        How::Hardware(log::index_flush_skipped),
    ),
    plant(
        "snapshot-flush-skipped",
        "a snapshot is adopted, and the log behind it purged, before it is flushed",
        How::Hardware(hardware::snapshot_flush_skipped),
    ),
    plant(
        "log-flush-skipped",
        "Raft acknowledges entries and votes before they are flushed",
        How::Hardware(hardware::log_flush_skipped),
    ),
    plant(
        "vote-forgotten",
        "a metadata server does not store its vote",
        How::Hardware(hardware::vote_forgotten),
    ),
    plant("snapshot-short", "a snapshot lacks the last writes", How::Hardware(hardware::snapshot_short)),
    plant(
        "log-trimmed-early",
        "the log is purged beyond what the snapshot covers",
        How::Hardware(hardware::log_trimmed_early),
    ),
    plant(
        "tombstone-forgotten",
        "a delete does not record which shards are to be dropped",
        How::Hardware(hardware::tombstone_forgotten),
    ),
    plant(
        "epoch-stands-still",
        "a move does not raise the group's epoch",
        How::Hardware(hardware::epoch_stands_still),
    ),
    plant(
        "stale-epoch-accepted",
        "nodes and metadata service do not compare epochs",
        How::Request(wire::stale_epoch_accepted),
    ),
    plant(
        "missing-hidden",
        "a commit does not say which slots miss their shards",
        How::Request(wire::missing_hidden),
    ),
    plant(
        "failed-write-acknowledged",
        "a node acknowledges a shard that its disk refused",
        How::Reply(wire::failed_write_acknowledged),
    ),
    plant(
        "too-few-shards",
        "a put commits though too few disks took its shards",
        How::Both(wire::drop_writes, wire::pretend_written),
    ),
    plant(
        "damage-unreported",
        "a node does not report the damage that it finds",
        How::Request(wire::damage_unreported),
    ),
    plant(
        "rebuild-skips",
        "a rebuild stops after the first extents of a group",
        How::Reply(wire::rebuild_skips),
    ),
    plant(
        "repair-from-wrong-bytes",
        "a rebuild takes a corrupt shard for good",
        How::Payload(wire::repair_header, wire::flip_first),
    ),
    plant(
        "two-in-one-rack",
        "nodes are taken for being in other racks than they are",
        How::Request(wire::two_in_one_rack),
    ),
    plant(
        "delete-not-done",
        "a delete is acknowledged and not done",
        How::Both(wire::delete_elsewhere, wire::delete_pretended),
    ),
    plant(
        "command-id-reused",
        "different commits carry the same command id",
        How::Request(wire::command_id_reused),
    ),
    plant("stale-read", "a deposed leader answers reads from its own state", How::Reply(wire::stale_read)),
    plant(
        "listing-page-lost",
        "a listing leaves out objects at the end of a page",
        How::Reply(wire::listing_page_lost),
    ),
    plant(
        "live-extent-dropped",
        "the garbage collector drops an extent that an object has",
        How::Reply(wire::live_extent_dropped),
    ),
    plant(
        "orphans-too-early",
        "a node takes what is being put for an orphan",
        How::Reply(wire::orphans_too_early),
    ),
    plant(
        "drop-pretended",
        "a disk that was left keeps what it had, and says that it dropped it",
        How::Both(wire::drop_nothing, wire::drop_another),
    ),
    plant(
        "progress-doubled",
        "the progress of a task is counted twice",
        How::Hardware(tasks::progress_doubled),
    ),
    plant(
        "drain-done-too-early",
        "a drain is called done while slots are there",
        How::Hardware(tasks::drain_done_too_early),
    ),
    plant(
        "whole-too-early",
        "a slot that moves counts as whole before its shards are there",
        How::Hardware(tasks::whole_too_early),
    ),
    plant(
        "rebalance-ignores-domains",
        "a rebalance moves slots where too many of their group are",
        How::Hardware(tasks::rebalance_ignores_domains),
    ),
    plant(
        "drained-disk-taken",
        "slots move to disks that are out of service",
        How::Hardware(tasks::drained_disk_taken),
    ),
    plant(
        "task-begun-twice",
        "a command that comes again begins another task",
        How::Request(wire::task_begun_twice),
    ),
    plant(
        "receipt-too-good",
        "a receipt promises one disk more than the places give",
        How::Reply(wire::receipt_too_good),
    ),
    plant(
        "wrong-bytes",
        "a node gives out wrong bytes with right checksums",
        How::Payload(wire::read_header, wire::flip_first),
    ),
];

const fn plant(name: &'static str, meaning: &'static str, how: How) -> Plant {
    Plant { name, meaning, how }
}

/// What a rewriting bug remembers.
pub struct Memory {
    stream: Stream,
    objects: BTreeMap<Bytes, messages::GetObjectReply>,
    written: Vec<messages::DropExtent>,
    epochs: BTreeMap<u32, u64>,
    deletes: BTreeSet<Bytes>,
    /// The slot of a group that a disk was asked to drop.
    whole_slots: BTreeMap<(u32, u32), u32>,
    command_id: Option<Bytes>,
}

/// A bug on the wire.
pub struct Mutation {
    how: &'static How,
    memory: Memory,
}

impl Mutation {
    /// Rewrites a request; false when it is left as it is.
    pub fn request(&mut self, call: &mut Call) -> bool {
        match self.how {
            How::Request(rewrite) | How::Both(rewrite, _) => rewrite(&mut self.memory, call),
            _ => false,
        }
    }

    /// Rewrites a reply.
    pub fn reply(&mut self, asked: &Call, reply: &mut Reply) -> bool {
        match self.how {
            How::Reply(rewrite) | How::Both(_, rewrite) | How::Payload(rewrite, _) => {
                rewrite(&mut self.memory, asked, reply)
            }
            _ => false,
        }
    }

    /// Rewrites a piece of payload, the `index`th write behind a header.
    pub fn payload(&mut self, asked: &Call, request: bool, index: u64, bytes: &Bytes) -> Option<Bytes> {
        match self.how {
            How::Payload(_, rewrite) if !request => rewrite(asked, index, bytes),
            _ => None,
        }
    }
}

/// Switches a planted bug on. A name that is not known switches nothing on.
pub fn install(cluster: &Arc<Cluster>, name: Option<&str>) {
    let Some(plant) = ALL.iter().find(|plant| Some(plant.name) == name) else { return };
    cluster.world.tell(None, || format!("planted: {}", plant.meaning));
    if let How::Hardware(install) = &plant.how {
        install(cluster);
        return;
    }
    let memory = Memory {
        stream: cluster.world.stream("planted bug"),
        objects: BTreeMap::new(),
        written: Vec::new(),
        epochs: BTreeMap::new(),
        deletes: BTreeSet::new(),
        whole_slots: BTreeMap::new(),
        command_id: None,
    };
    if let Some(tap) = lock(&cluster.tap).as_ref() {
        tap.mutate(Mutation { how: &plant.how, memory });
    }
}
