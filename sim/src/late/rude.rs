//! A rude client: it puts objects by hand, into a bucket of its own, and does on the way what a client must
//! not do. What must not be accepted of it is known where all requests pass ([`tap`](crate::tap)).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use codec::{Codec, Geometry, block_checksums};
use futures_util::future::join_all;
use proto::limits::{BLOCK_BYTES, INLINE_BYTES_MAX};
use proto::wire::request::Call;
use proto::wire::response::Result as Reply;
use proto::{CommandId, ExtentId, GroupId, NodeId, SlotIndex, StripeIndex, TenantTag, Timestamp, wire};
use simhost::Stream;

use super::claims;
use super::ghost::Ghost;
use crate::cluster::{Cluster, TENANT};
use crate::{nemesis, oracle};

/// Its bucket.
pub(crate) const BUCKET: &str = "rude";
/// Between two puts, in milliseconds.
const REST_MS: (u64, u64) = (10, 1_000);
/// How often it waits before a commit, in a million.
const WAITS_PPM: u32 = 600_000;
/// How often it has a slot of its group move meanwhile, in a million.
const MOVES_PPM: u32 = 500_000;
/// How long for a slot to move, in milliseconds, at most.
const WAIT_MS_MAX: u64 = 8_000;
/// Between two looks for that.
const LOOK: Duration = Duration::from_millis(50);
/// How often it commits with too few slots first, in a million.
const TOO_FEW_PPM: u32 = 400_000;
/// How often it writes a shard to a foreign disk, in a million.
const ASTRAY_PPM: u32 = 400_000;
/// How often it leaves out a slot, in a million.
const SPARES_PPM: u32 = 500_000;

/// A client, until then or until all is calm.
pub(crate) async fn be_rude(cluster: Arc<Cluster>, draws: Stream, until: Duration) {
    while cluster.world.now() < until && !cluster.nemesis.is_calm() {
        // Whatever fails, fails: only what is accepted is of interest.
        let _ = put(&cluster, &draws).await;
        cluster.world.sleep(Duration::from_millis(draws.between(REST_MS.0, REST_MS.1))).await;
    }
}

/// What is being put.
struct Put<'a> {
    cluster: &'a Cluster,
    draws: &'a Stream,
    ghost: Ghost,
    granted: Timestamp,
    placement: wire::Placement,
    extent: ExtentId,
    shards: Vec<Bytes>,
    length: u64,
    crc32c: u32,
}

/// One put. None when it came to nothing.
async fn put(cluster: &Cluster, draws: &Stream) -> Option<()> {
    let put = open(cluster, draws).await?;
    let spared = put.spared();
    let missing = put.write(spared).await;
    if draws.chance(ASTRAY_PPM) {
        put.write_astray().await;
    }
    if draws.chance(TOO_FEW_PPM) {
        let _ = put.commit(put.too_much(missing)?).await;
    }
    if draws.chance(WAITS_PPM) {
        if draws.chance(MOVES_PPM) {
            nemesis::move_one(cluster, draws, GroupId(put.placement.group)).await;
        }
        put.wait_for_move(missing).await;
    }
    put.commit(missing).await?;
    put.claim(spared?).await;
    Some(())
}

async fn open<'a>(cluster: &'a Cluster, draws: &'a Stream) -> Option<Put<'a>> {
    let ghost = Ghost::of_tenant(cluster);
    let inline = u64::try_from(INLINE_BYTES_MAX).ok()?;
    // One block, so that its checksum is that of the object.
    let length = draws.skewed(inline + 1, u64::try_from(BLOCK_BYTES).ok()?);
    let call = wire::OpenPut {
        tenant: TENANT.to_owned(),
        bucket: BUCKET.to_owned(),
        bytes_hint: length,
        ..Default::default()
    };
    let Reply::OpenPut(reply) = ghost.ask_meta(cluster, Call::OpenPut(call)).await.ok()?.result else {
        return None;
    };
    let is_small = length <= u64::from(reply.small_bytes_max) && !reply.small_groups.is_empty();
    let offered = if is_small { reply.small_groups } else { reply.groups };
    let moved: Vec<_> = offered.iter().filter(|placement| has_moved(placement)).cloned().collect();
    let placement = draws.pick(if moved.is_empty() { &offered } else { &moved })?.clone();
    let geometry = Geometry::new(placement.k, placement.m, placement.shard_bytes).ok()?;
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    draws.fill(&mut bytes);
    bytes.truncate(geometry.stripe_bytes());
    let crc32c = *block_checksums(&bytes).first()?;
    let length = u64::try_from(bytes.len()).ok()?;
    let shards = Codec::new(geometry).encode(bytes.into()).ok()?.into_shards();
    let granted = Timestamp::from_millis(reply.granted_ms);
    let extent = ExtentId::new(granted, random(draws));
    Some(Put { cluster, draws, ghost, granted, placement, extent, shards, length, crc32c })
}

fn random(draws: &Stream) -> u128 {
    u128::from(draws.u64()) << 64 | u128::from(draws.u64())
}

fn has_moved(placement: &wire::Placement) -> bool {
    placement.places.iter().any(|place| place.since_epoch > 1)
}

fn bit(slot: usize) -> u32 {
    u32::try_from(slot).ok().and_then(|slot| 1_u32.checked_shl(slot)).unwrap_or(0)
}

impl Put<'_> {
    /// A slot that has moved once, and that a commit can do without.
    fn spared(&self) -> Option<SlotIndex> {
        let needed = usize::try_from(self.placement.min_durable).ok()?;
        let slots = (0_u8..).map(SlotIndex).zip(&self.placement.places);
        let moved: Vec<SlotIndex> =
            slots.filter(|(_, place)| place.since_epoch > 1).map(|(slot, _)| slot).collect();
        let spares = self.shards.len() > needed && self.draws.chance(SPARES_PPM);
        self.draws.pick(&moved).copied().filter(|_| spares)
    }

    /// Writes the shards, but for the slot that is spared; the slots that did not take theirs.
    async fn write(&self, spared: Option<SlotIndex>) -> u32 {
        let slots =
            (0..self.shards.len()).filter(|slot| spared.is_none_or(|spared| usize::from(spared.0) != *slot));
        let written = join_all(slots.map(|slot| self.write_shard(slot, slot))).await;
        let all = bit(self.shards.len()).wrapping_sub(1);
        written.into_iter().flatten().fold(all, |missing, slot| missing & !bit(slot))
    }

    /// Writes the shard of a slot to the disk of another one, or rightly to its own; the slot, if it was
    /// taken.
    async fn write_shard(&self, slot: usize, at: usize) -> Option<usize> {
        let (place, payload) = (self.placement.places.get(at)?, self.shards.get(slot)?.clone());
        let name = oracle::shard_name(
            GroupId(self.placement.group),
            self.extent,
            StripeIndex(0),
            SlotIndex(u8::try_from(slot).ok()?),
        );
        let call = wire::WriteShard {
            shard: Some(name.into()),
            disk: place.disk,
            epoch: self.placement.epoch,
            tenant_tag: TenantTag::of(&TENANT.parse().ok()?).0,
            block_crc32c: block_checksums(&payload),
            ..Default::default()
        };
        let asked =
            self.ghost.ask_node(self.cluster, NodeId(place.node), Call::WriteShard(call), vec![payload]);
        asked.await?.is_ok().then_some(slot)
    }

    /// Writes the shard of one slot to the disk of another.
    async fn write_astray(&self) {
        let slots = self.shards.len();
        let slot = self.draws.index(slots);
        let at = (slot + 1 + self.draws.index(slots.saturating_sub(1).max(1))) % slots;
        if slot != at {
            self.write_shard(slot, at).await;
        }
    }

    /// So much is missing that one slot too few is durable.
    fn too_much(&self, missing: u32) -> Option<u32> {
        let most = self.shards.len().checked_sub(usize::try_from(self.placement.min_durable).ok()?)?;
        let mut slots: Vec<usize> = (0..self.shards.len()).collect();
        self.draws.shuffle(&mut slots);
        let mut all = missing;
        for slot in slots {
            if usize::try_from(all.count_ones()).ok()? > most {
                break;
            }
            all |= bit(slot);
        }
        Some(all)
    }

    /// Waits until a slot that took its shard is known to have moved, or for a while.
    async fn wait_for_move(&self, missing: u32) {
        let Some(wire) = self.cluster.wire() else { return };
        let (group, epoch) = (self.placement.group, self.placement.epoch);
        let wait = Duration::from_millis(self.draws.below(WAIT_MS_MAX + 1));
        let until = self.cluster.world.now() + wait;
        let has_moved = || {
            wire.places(|places| {
                let slots = places.now(group).iter().enumerate();
                slots.into_iter().any(|(slot, place)| place.since > epoch && missing & bit(slot) == 0)
            })
        };
        while self.cluster.world.now() < until && !self.cluster.nemesis.is_calm() {
            if has_moved() {
                self.cluster.world.probe("a commit came after a slot had moved");
                return;
            }
            self.cluster.world.sleep(LOOK).await;
        }
    }

    /// None when it was refused, or nobody says.
    async fn commit(&self, missing: u32) -> Option<()> {
        let extent = wire::Extent {
            id: self.extent.to_wire(),
            group: self.placement.group,
            epoch: self.placement.epoch,
            length: self.length,
            missing,
        };
        let call = wire::CommitObject {
            tenant: TENANT.to_owned(),
            bucket: BUCKET.to_owned(),
            key: format!("{}", self.draws.below(20)).into_bytes().into(),
            command_id: CommandId::new(self.granted, random(self.draws)).to_wire(),
            size: self.length,
            crc32c: self.crc32c,
            extents: vec![extent],
            ..Default::default()
        };
        self.ghost.ask_meta(self.cluster, Call::CommitObject(call)).await.ok().map(drop)
    }

    /// Says at once that the slot that was spared has been filled, as somebody would who had it before.
    async fn claim(&self, slot: SlotIndex) {
        let Some(metadata) = oracle::latest(self.cluster) else { return };
        let group = GroupId(self.placement.group);
        let claim = claims::of_fill(self.cluster, self.draws, &metadata, group, slot, self.extent);
        drop(metadata);
        if let Some(claim) = claim {
            claims::make(self.cluster, claim).await;
        }
    }
}
