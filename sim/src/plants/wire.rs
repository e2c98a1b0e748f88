//! Bugs that are made by rewriting what is said.

use bytes::Bytes;
use proto::limits::BLOCK_BYTES;
use proto::wire as messages;
use proto::wire::request::Call;
use proto::wire::response::Result as Reply;

use super::Memory;

/// Milliseconds by which nodes are made to believe that grants are over.
const LATER_MS: u64 = 3 * proto::limits::GRANT_MS;
/// Extents that a rebuild sees.
const SEEN: usize = 1;

/// Writers speak with the newest epoch that anybody heard of, whatever they know.
pub(super) fn stale_epoch_accepted(memory: &mut Memory, call: &mut Call) -> bool {
    match call {
        Call::CommitObject(commit) => {
            commit.extents.iter_mut().for_each(|extent| extent.epoch = extent.epoch.saturating_add(1_000));
            !commit.extents.is_empty()
        }
        Call::WriteShard(write) => {
            let Some(shard) = &write.shard else { return false };
            let newest = memory.epochs.entry(shard.group).or_insert(write.epoch);
            *newest = write.epoch.max(*newest);
            let stale = write.epoch < *newest;
            write.epoch = *newest;
            stale
        }
        _ => false,
    }
}

/// What a commit misses is kept from the metadata service.
pub(super) fn missing_hidden(_: &mut Memory, call: &mut Call) -> bool {
    let Call::CommitObject(commit) = call else { return false };
    let hidden = commit.extents.iter().any(|extent| extent.missing != 0);
    commit.extents.iter_mut().for_each(|extent| extent.missing = 0);
    hidden
}

/// A refused write becomes an acknowledged one.
pub(super) fn failed_write_acknowledged(_: &mut Memory, asked: &Call, reply: &mut Reply) -> bool {
    let refused = matches!((asked, &*reply), (Call::WriteShard(_), Reply::Failure(_)));
    if refused {
        *reply = Reply::WriteShard(messages::WriteShardReply {});
    }
    refused
}

/// One write in four goes to a disk that the node does not have.
pub(super) fn drop_writes(memory: &mut Memory, call: &mut Call) -> bool {
    let Call::WriteShard(write) = call else { return false };
    let dropped = memory.stream.chance(250_000);
    if dropped {
        write.disk = u32::MAX;
    }
    dropped
}

/// … and is acknowledged all the same.
pub(super) fn pretend_written(_: &mut Memory, asked: &Call, reply: &mut Reply) -> bool {
    let dropped = matches!(asked, Call::WriteShard(write) if write.disk == u32::MAX);
    if dropped {
        *reply = Reply::WriteShard(messages::WriteShardReply {});
    }
    dropped
}

/// Lost and damaged shards are left out of reports.
pub(super) fn damage_unreported(_: &mut Memory, call: &mut Call) -> bool {
    let Call::ReportWork(report) = call else { return false };
    let any = !report.lost.is_empty() || !report.damaged.is_empty();
    report.lost.clear();
    report.damaged.clear();
    any
}

/// Of a group's extents a node sees the first ones only.
pub(super) fn rebuild_skips(_: &mut Memory, _: &Call, reply: &mut Reply) -> bool {
    let Reply::ListGroupExtents(page) = reply else { return false };
    let short = page.extents.len() > SEEN || page.more;
    page.extents.truncate(SEEN);
    page.more = false;
    short
}

/// What changes in a checksum when the first bit of the block flips: CRC-32C is linear.
fn flipped(bytes: usize) -> u32 {
    let mut block = vec![0; bytes];
    let checksum = |block: &[u8]| codec::block_checksums(block).first().copied().unwrap_or(0);
    let zeros = checksum(&block);
    if let Some(first) = block.first_mut() {
        *first = 1;
    }
    zeros ^ checksum(&block)
}

fn patch_first_checksum(read: &messages::ReadShard, reply: &mut Reply) -> bool {
    let Reply::ReadShard(shard) = reply else { return false };
    if read.first_block != 0 {
        return false;
    }
    let bytes = usize::try_from(shard.shard_bytes).unwrap_or(0).min(BLOCK_BYTES);
    let Some(first) = shard.block_crc32c.first_mut() else { return false };
    *first ^= flipped(bytes);
    true
}

/// Whole shards, which only nodes ask for, come with the checksum of a shard with one bit flipped …
pub(super) fn repair_header(_: &mut Memory, asked: &Call, reply: &mut Reply) -> bool {
    matches!(asked, Call::ReadShard(read) if read.blocks == 0 && patch_first_checksum(read, reply))
}

/// Every shard read from its beginning comes with the checksum of one with a bit flipped …
pub(super) fn read_header(_: &mut Memory, asked: &Call, reply: &mut Reply) -> bool {
    matches!(asked, Call::ReadShard(read) if patch_first_checksum(read, reply))
}

/// … and so do its bytes.
pub(super) fn flip_first(asked: &Call, index: u64, bytes: &Bytes) -> Option<Bytes> {
    let Call::ReadShard(read) = asked else { return None };
    if read.first_block != 0 || index != 1 {
        return None;
    }
    let mut flipped = bytes.to_vec();
    *flipped.first_mut()? ^= 1;
    Some(flipped.into())
}

/// Every second node says that it stands in a rack of its own.
pub(super) fn two_in_one_rack(_: &mut Memory, call: &mut Call) -> bool {
    let Call::RegisterNode(node) = call else { return false };
    let wrong = node.node.is_multiple_of(2);
    if wrong {
        node.rack = format!("own-{}", node.node);
    }
    wrong
}

/// Every third delete goes to a key that does not exist …
pub(super) fn delete_elsewhere(memory: &mut Memory, call: &mut Call) -> bool {
    let Call::DeleteObject(delete) = call else { return false };
    let wrong = delete.precondition.is_none() && memory.stream.chance(330_000);
    if wrong {
        delete.key = Bytes::from_static(b"no such key");
        memory.deletes.insert(delete.command_id.clone());
    }
    wrong
}

/// … and is said to have found something.
pub(super) fn delete_pretended(memory: &mut Memory, asked: &Call, reply: &mut Reply) -> bool {
    let (Call::DeleteObject(delete), Reply::DeleteObject(done)) = (asked, reply) else { return false };
    let wrong = memory.deletes.contains(&delete.command_id);
    done.existed |= wrong;
    wrong
}

/// One commit in ten carries the command id of an earlier one.
pub(super) fn command_id_reused(memory: &mut Memory, call: &mut Call) -> bool {
    let Call::CommitObject(commit) = call else { return false };
    match &memory.command_id {
        Some(earlier) if memory.stream.chance(100_000) => {
            commit.command_id = earlier.clone();
            true
        }
        _ => {
            memory.command_id = Some(commit.command_id.clone());
            false
        }
    }
}

/// One get in ten is answered as the last one of the key was.
pub(super) fn stale_read(memory: &mut Memory, asked: &Call, reply: &mut Reply) -> bool {
    let (Call::GetObject(get), Reply::GetObject(found)) = (asked, reply) else { return false };
    if get.head {
        return false;
    }
    match memory.objects.get(&get.key) {
        Some(earlier) if memory.stream.chance(100_000) && *earlier != *found => {
            *found = earlier.clone();
            true
        }
        _ => {
            memory.objects.insert(get.key.clone(), found.clone());
            false
        }
    }
}

/// Pages lose their last object.
pub(super) fn listing_page_lost(_: &mut Memory, _: &Call, reply: &mut Reply) -> bool {
    let Reply::ListObjects(page) = reply else { return false };
    page.objects.len() > 1 && page.objects.pop().is_some()
}

/// One piece of work in twenty is to drop what was written just before.
pub(super) fn live_extent_dropped(memory: &mut Memory, asked: &Call, reply: &mut Reply) -> bool {
    match (asked, reply) {
        (Call::WriteShard(write), Reply::WriteShard(_)) => {
            let Some(shard) = &write.shard else { return false };
            let drop = messages::DropExtent {
                group: shard.group,
                extent: shard.extent.clone(),
                slot: shard.slot,
                disk: write.disk,
                epoch: 0,
            };
            memory.written.push(drop);
            false
        }
        (Call::TakeWork(_), Reply::TakeWork(work)) if memory.stream.chance(50_000) => {
            // The node drops what is on its own disks, and refuses the rest.
            let some = memory.stream.pick(&memory.written).cloned();
            let any = some.is_some();
            work.drops.extend(some);
            any
        }
        (Call::Heartbeat(_), Reply::Heartbeat(beat)) => {
            beat.work = true;
            true
        }
        _ => false,
    }
}

/// Nodes are told a cluster time at which all grants are over.
pub(super) fn orphans_too_early(_: &mut Memory, _: &Call, reply: &mut Reply) -> bool {
    let Reply::ListGroupExtents(page) = reply else { return false };
    page.cluster_time_ms = page.cluster_time_ms.saturating_add(LATER_MS);
    true
}

/// Receipts promise one disk more.
pub(super) fn receipt_too_good(_: &mut Memory, _: &Call, reply: &mut Reply) -> bool {
    let Reply::CommitObject(done) = reply else { return false };
    let Some(tolerance) = done.tolerance.as_mut() else { return false };
    tolerance.disks = tolerance.disks.saturating_add(1);
    true
}

/// Nodes are asked to drop another slot than the one that has left them, of which they have nothing …
pub(super) fn drop_another(memory: &mut Memory, _: &Call, reply: &mut Reply) -> bool {
    let Reply::TakeWork(work) = reply else { return false };
    let mut any = false;
    for drop in work.drops.iter_mut().filter(|drop| drop.extent.is_empty()) {
        memory.whole_slots.insert((drop.group, drop.disk), drop.slot);
        drop.slot = another(drop.slot);
        any = true;
    }
    any
}

/// … and what they say of it is taken for the one.
pub(super) fn drop_nothing(memory: &mut Memory, call: &mut Call) -> bool {
    let Call::ReportWork(report) = call else { return false };
    let mut any = false;
    for drop in report.dropped.iter_mut().filter(|drop| drop.extent.is_empty()) {
        let asked = memory.whole_slots.get(&(drop.group, drop.disk)).copied();
        if let Some(slot) = asked.filter(|slot| another(*slot) == drop.slot) {
            drop.slot = slot;
            any = true;
        }
    }
    any
}

fn another(slot: u32) -> u32 {
    if slot == 0 { 1 } else { slot - 1 }
}

/// Each time under another id, as if nobody remembered the first.
pub(super) fn task_begun_twice(memory: &mut Memory, call: &mut Call) -> bool {
    let Call::BeginTask(begin) = call else { return false };
    let mut id = begin.command_id.to_vec();
    let Some(last) = id.last_mut() else { return false };
    *last = u8::try_from(memory.stream.below(256)).unwrap_or(0);
    begin.command_id = id.into();
    true
}
