//! The bytes of one stripe, from whichever shards can be read.

use bytes::Bytes;
use codec::{Codec, SlotMask};
use futures_util::future::join_all;
use proto::{ShardName, SlotIndex};

use super::plan::{Copy, Part};
use crate::offline::PRIORITY;
use crate::offline::disks::OfflineDisk;

/// Reads a part of an object: data shards if they can be read, and what replaces them where they cannot. The pieces
/// are in order.
///
/// # Errors
///
/// What is wrong with the shards, if too few of them can be read.
pub(super) async fn part(disks: &[OfflineDisk], codec: &Codec, part: &Part) -> Result<Vec<Bytes>, String> {
    let mut problem = "no shard was found".to_owned();
    for copy in &part.copies {
        match stripe(disks, codec, copy).await {
            Ok(shards) => return Ok(cut(shards, part.bytes as usize)),
            Err(error) => problem = error,
        }
    }
    Err(format!("from byte {} on: {problem}", part.offset))
}

/// The data shards of a stripe.
async fn stripe(disks: &[OfflineDisk], codec: &Codec, copy: &Copy) -> Result<Vec<Bytes>, String> {
    let geometry = codec.geometry();
    let k = geometry.k();
    let mut shards: Vec<Option<Bytes>> = vec![None; geometry.slots()];
    let mut problems = Vec::new();
    // By slot, so data first; each round as many as are still missing.
    let mut waiting = copy.shards.iter();
    loop {
        let missing = k - shards.iter().flatten().count();
        let next = waiting.by_ref().filter(|(slot, _)| is_open(&shards, *slot)).take(missing);
        let round: Vec<_> = next.map(|(slot, disk)| read(disks, copy, *slot, *disk)).collect();
        if missing == 0 {
            break;
        }
        if round.is_empty() {
            let stripe = copy.stripe;
            return Err(format!(
                "stripe {}/{}/{} has {} of {k} shards that can be read; {}",
                stripe.group,
                stripe.extent,
                stripe.stripe,
                k - missing,
                problems.join("; ")
            ));
        }
        for (slot, read) in join_all(round).await {
            match (read, shards.get_mut(usize::from(slot.0))) {
                (Ok(bytes), Some(place)) => *place = Some(bytes),
                (Ok(_), None) => {}
                (Err(problem), _) => problems.push(problem),
            }
        }
    }
    codec.reconstruct(&mut shards, SlotMask::first(k)).map_err(|error| error.to_string())?;
    Ok(shards.into_iter().take(k).flatten().collect())
}

fn is_open(shards: &[Option<Bytes>], slot: SlotIndex) -> bool {
    shards.get(usize::from(slot.0)).is_some_and(Option::is_none)
}

async fn read(
    disks: &[OfflineDisk],
    copy: &Copy,
    slot: SlotIndex,
    disk: usize,
) -> (SlotIndex, Result<Bytes, String>) {
    let stripe = copy.stripe;
    let name = ShardName { group: stripe.group, extent: stripe.extent, stripe: stripe.stripe, slot };
    let Some(disk) = disks.get(disk) else { return (slot, Err("no such disk".to_owned())) };
    let read = disk.store.read(name, 0, 0, PRIORITY).await;
    let bytes = read.map(|read| read.bytes).map_err(|error| format!("{}: {error}", disk.path.display()));
    (slot, bytes)
}

/// The first `bytes` of the shards.
fn cut(shards: Vec<Bytes>, bytes: usize) -> Vec<Bytes> {
    let mut left = bytes;
    let take = |mut shard: Bytes| {
        shard.truncate(left);
        left -= shard.len();
        shard
    };
    shards.into_iter().map(take).filter(|shard| !shard.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The zeros behind the end of a short stripe are left out, in whichever shard it ends.
    #[test]
    fn stripes_are_cut_at_their_end() {
        let shards = || vec![Bytes::from("abc"), Bytes::from("def"), Bytes::from("ghi")];
        for (bytes, expected) in [(9, "abcdefghi"), (7, "abcdefg"), (6, "abcdef"), (1, "a")] {
            assert_eq!(cut(shards(), bytes).concat(), expected.as_bytes());
        }
    }
}
