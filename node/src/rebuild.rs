//! Making shards again: copied from the disk that a slot moves away from, or decoded from any `k`
//! others. Reads whole shards over the network, verifies their checksums, and writes through the
//! store, so that what is made is durable when it is reported. What was decoded must give one of the shards that it was
//! made from, and what was written is read back and compared, before it counts.
//!
//! It goes as fast as the metadata service allows, unless the stripe can lose nothing more. A stripe that fails
//! keeps the others from nothing: it is noted ([`Aside`]), and the extent has to be tried again.
//!
//! The caller holds the group's lock and has learned the extent under it.

use bytes::Bytes;
use codec::{Codec, SlotMask, verify_blocks};
use env::rpc::Target;
use env::{Clock, Env, Expect, Priority};
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, stream};
use proto::limits::HINT_BYTES_MAX;
use proto::wire::request::Call;
use proto::wire::response::Result as Outcome;
use proto::{
    DiskId, ErrorCode, ExtentId, Failure, Identity, ShardName, SlotIndex, StripeIndex, TenantTag, wire,
};
use std::time::Duration;
use tracing::debug;

use crate::aside::Aside;
use crate::damage::Loss;
use crate::disks::StoreOf;
use crate::node::{Node, to_failure, unexpected};
use crate::store::{NewShard, Presence, StoreError};
use crate::view::{DiskAt, Placement};

/// How long a peer may take for one shard.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Stripes of an extent that may fail before the rest of it waits for the next attempt.
const STRIPES_FAILED_MAX: usize = 4;

/// An extent of which a slot is to have all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExtentToMake {
    pub(crate) extent: ExtentId,
    pub(crate) length: u64,
    /// Slots that miss a shard of it, of one stripe or more.
    pub(crate) missing: SlotMask,
}

impl ExtentToMake {
    /// From a message about a group.
    pub(crate) fn parse(wire: &wire::Extent, placement: &Placement) -> Result<Self, Failure> {
        Ok(Self {
            extent: ExtentId::from_wire(&wire.id)?,
            length: wire.length,
            missing: SlotMask::from_wire(wire.missing, placement.geometry.slots())?,
        })
    }
}

/// A shard from elsewhere, verified.
struct Fetched {
    bytes: Bytes,
    tenant_tag: TenantTag,
    /// What its stripe says of the object; nothing when it was written by who knew of no hints.
    hint: Bytes,
}

/// Makes the shards of one slot of one group.
pub(crate) struct SlotMaker<'a, E: Env> {
    node: &'a Node<E>,
    store: &'a StoreOf<E>,
    placement: &'a Placement,
    slot: SlotIndex,
    codec: Codec,
}

impl<'a, E: Env> SlotMaker<'a, E> {
    pub(crate) fn new(
        node: &'a Node<E>,
        store: &'a StoreOf<E>,
        placement: &'a Placement,
        slot: SlotIndex,
    ) -> Self {
        Self { node, store, placement, slot, codec: Codec::new(placement.geometry) }
    }

    /// Sees to it that the slot has every shard of the extent, whole and durable. What is there and
    /// verified stays; what is damaged is replaced. The bytes that were made.
    ///
    /// # Errors
    ///
    /// When a shard can be had from nowhere, or not be written: of those that failed the first failure. What was made
    /// stays, and all that could be made was, unless the disk itself fails or many stripes do.
    pub(crate) async fn make_extent(&self, extent: ExtentToMake) -> Result<u64, Failure> {
        let layout = self.placement.geometry.extent(extent.length)?;
        let stripes = (0..layout.stripes()).map(StripeIndex).filter_map(|stripe| {
            let shard_bytes = layout.shard_bytes(stripe)?;
            Some(self.make_and_note(extent, stripe, shard_bytes))
        });
        let in_flight = self.node.options.repair_stripes_in_flight;
        let mut stripes = stream::iter(stripes).buffer_unordered(in_flight);
        let (mut made, mut failed, mut first) = (0u64, 0, None);
        while let Some(outcome) = stripes.next().await {
            match outcome {
                Ok(bytes) => made = made.saturating_add(bytes),
                Err(failure) if is_of_disk(&failure) => return Err(failure),
                Err(failure) => {
                    failed += 1;
                    first.get_or_insert(failure);
                    if failed >= STRIPES_FAILED_MAX {
                        break;
                    }
                }
            }
        }
        first.map_or(Ok(made), Err)
    }

    async fn make_and_note(
        &self,
        extent: ExtentToMake,
        stripe: StripeIndex,
        shard_bytes: usize,
    ) -> Result<u64, Failure> {
        let name = ShardName { group: self.placement.group, extent: extent.extent, stripe, slot: self.slot };
        let outcome = self.make_stripe(name, extent.missing, shard_bytes).await;
        let (aside, disk): (&Aside, _) = (&self.node.aside, self.disk());
        match &outcome {
            Ok(_) => aside.made(disk, &name),
            Err(failure) if is_of_disk(failure) => {}
            Err(failure) => aside.failed(disk, name, failure),
        }
        outcome
    }

    fn disk(&self) -> DiskId {
        self.placement.place(self.slot).map_or(DiskId(0), |place| place.at.disk)
    }

    /// Waits for as long as shards that move, or are made again, have to; not at all for those that can lose nothing
    /// more.
    async fn pace(&self, missing: SlotMask, shard_bytes: usize) {
        if self.placement.spare(missing) == 0 {
            return;
        }
        let node = self.node;
        let moves = self.placement.source(self.slot).is_some();
        let pacer = if moves { &node.move_pace } else { &node.repair_pace };
        pacer.wait(node.env.clock(), u64::try_from(shard_bytes).unwrap_or(u64::MAX)).await;
    }

    /// Does another disk still keep what the slot had before?
    pub(crate) fn has_source(&self) -> bool {
        self.placement.place(self.slot).is_some_and(|place| place.source.is_some())
    }

    /// Is every shard of the extent there, whole? Makes none.
    ///
    /// # Errors
    ///
    /// When the disk cannot be read.
    pub(crate) async fn has_extent(&self, extent: ExtentToMake) -> Result<bool, Failure> {
        let layout = self.placement.geometry.extent(extent.length)?;
        for stripe in (0..layout.stripes()).map(StripeIndex) {
            let Some(shard_bytes) = layout.shard_bytes(stripe) else { continue };
            let name =
                ShardName { group: self.placement.group, extent: extent.extent, stripe, slot: self.slot };
            match self.store.check(name, Priority::Repair).await? {
                Presence::Whole(stat) if stat.shard_bytes as usize == shard_bytes => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The bytes that had to be made: none if the shard is there.
    async fn make_stripe(
        &self,
        name: ShardName,
        missing: SlotMask,
        shard_bytes: usize,
    ) -> Result<u64, Failure> {
        let presence = {
            let _spent = self.node.repairs.spend(shard_bytes).await?;
            self.store.check(name, Priority::Repair).await?
        };
        let there = match presence {
            Presence::Whole(stat) if stat.shard_bytes as usize == shard_bytes => return Ok(0),
            Presence::Whole(_) | Presence::Damaged => true,
            Presence::Absent => false,
        };
        self.pace(missing, shard_bytes).await;
        // Donors, what is made of them, and that one more time with its header.
        let shards = self.placement.geometry.k() + 3;
        let _spent = self.node.repairs.spend(shards.saturating_mul(shard_bytes)).await?;
        let made = self.obtain(name, missing, shard_bytes).await?;
        if there {
            // Only now that the right bytes are at hand.
            self.store.delete(name).await?;
        }
        let mut shard = NewShard::new(name, self.placement.epoch, made.tenant_tag, shard_bytes)?;
        shard = shard.with_hint(made.hint)?;
        shard.push(&made.bytes)?;
        self.store.put(shard.seal()?, Priority::Repair).await?;
        self.read_back(name, &made.bytes).await?;
        let bytes = u64::try_from(shard_bytes).unwrap_or(u64::MAX);
        self.node.made.note(self.disk(), bytes, self.node.env.clock().now());
        Ok(bytes)
    }

    /// Is what lies on the disk what was made? A disk that gives back something else is told of.
    async fn read_back(&self, name: ShardName, made: &Bytes) -> Result<(), Failure> {
        match self.store.read(name, 0, 0, Priority::Repair).await {
            Ok(read) if read.bytes == *made => return Ok(()),
            Ok(_) | Err(StoreError::Damaged { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        // The next attempt finds it damaged, or is told of a conflict: it must not stay.
        self.store.delete(name).await?;
        self.node.lost.push(self.disk(), &name, Loss::Damaged);
        let text = format!("shard {name}: what was read back is not what was written");
        Err(Failure::new(ErrorCode::DamagedShard, text))
    }

    /// The shard's bytes, from wherever they can be had.
    async fn obtain(
        &self,
        name: ShardName,
        missing: SlotMask,
        shard_bytes: usize,
    ) -> Result<Fetched, Failure> {
        for source in self.placement.copy_sources(self.slot) {
            match self.fetch(source, name, shard_bytes).await {
                Ok(copy) => return Ok(copy),
                Err(error) => {
                    debug!(shard = %name, disk = %source.disk, %error, "shard not copied")
                }
            }
        }
        let donors = self.gather(name, missing, shard_bytes).await?;
        self.decode(donors)
    }

    /// `k` other shards of the stripe: as many at once, and another for each that fails.
    async fn gather(
        &self,
        name: ShardName,
        missing: SlotMask,
        shard_bytes: usize,
    ) -> Result<Vec<(SlotIndex, Fetched)>, Failure> {
        let needed = self.placement.geometry.k();
        let mut waiting = self.placement.donors(self.slot, missing).into_iter();
        let ask = |(slot, disks)| self.fetch_slot(ShardName { slot, ..name }, disks, shard_bytes);
        let mut asked: FuturesUnordered<_> = waiting.by_ref().take(needed).map(ask).collect();
        let mut gathered = Vec::with_capacity(needed);
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(shard) => gathered.push(shard),
                Err(error) => {
                    debug!(shard = %name, %error, "donor has no shard");
                    asked.extend(waiting.next().map(ask));
                }
            }
        }
        if gathered.len() < needed {
            let text = format!("shard {name}: {} of {needed} other shards can be read", gathered.len());
            return Err(Failure::new(ErrorCode::Unavailable, text));
        }
        Ok(gathered)
    }

    async fn fetch_slot(
        &self,
        name: ShardName,
        disks: Vec<&DiskAt>,
        shard_bytes: usize,
    ) -> Result<(SlotIndex, Fetched), Failure> {
        let mut last = Failure::new(ErrorCode::NoSuchShard, "no disk to ask");
        for disk in disks {
            match self.fetch(disk, name, shard_bytes).await {
                Ok(shard) => return Ok((name.slot, shard)),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    async fn fetch(&self, from: &DiskAt, name: ShardName, shard_bytes: usize) -> Result<Fetched, Failure> {
        let target =
            Target { address: from.address.clone(), expect: Expect::Exactly(Identity::Node(from.node)) };
        let call = wire::ReadShard { shard: Some(name.into()), disk: from.disk.0, first_block: 0, blocks: 0 };
        let caller = self.node.leader.caller();
        let reply = caller.call(&target, Call::ReadShard(call), Vec::new(), READ_TIMEOUT).await;
        let reply = reply.map_err(to_failure)?;
        let Outcome::ReadShard(head) = reply.result else { return Err(unexpected("read-shard")) };
        let lengths = (head.shard_bytes as usize, reply.payload.len());
        if lengths != (shard_bytes, shard_bytes) {
            let text = format!("shard {name} has {lengths:?} bytes, expected {shard_bytes}");
            return Err(Failure::new(ErrorCode::DamagedShard, text));
        }
        verify_blocks(&reply.payload, 0, &head.block_crc32c)
            .map_err(|error| Failure::new(ErrorCode::ChecksumMismatch, error.to_string()))?;
        if head.hint.len() > HINT_BYTES_MAX {
            let text = format!("shard {name} has a hint of {} bytes", head.hint.len());
            return Err(Failure::new(ErrorCode::DamagedShard, text));
        }
        Ok(Fetched { bytes: reply.payload, tenant_tag: TenantTag(head.tenant_tag), hint: head.hint })
    }

    fn decode(&self, donors: Vec<(SlotIndex, Fetched)>) -> Result<Fetched, Failure> {
        let internal = |text: String| Failure::new(ErrorCode::Internal, text);
        let tenant_tag = donors.first().map(|(_, shard)| shard.tenant_tag);
        let tenant_tag = tenant_tag.ok_or_else(|| internal("no shard to decode from".to_owned()))?;
        let hint = hint_of_stripe(donors.iter().map(|(slot, shard)| (*slot, &shard.hint)));
        let mut shards: Vec<Option<Bytes>> = vec![None; self.placement.geometry.slots()];
        for (slot, shard) in donors {
            if shard.tenant_tag != tenant_tag {
                return Err(internal("shards of one stripe belong to different tenants".to_owned()));
            }
            if let Some(place) = shards.get_mut(usize::from(slot.0)) {
                *place = Some(shard.bytes);
            }
        }
        let wanted = SlotMask::from_iter([self.slot]);
        self.codec.reconstruct(&mut shards, wanted).map_err(|error| internal(error.to_string()))?;
        let made = shards.get(usize::from(self.slot.0)).cloned().flatten();
        let bytes = made.ok_or_else(|| internal("the shard was not made".to_owned()))?;
        if !fits(&self.codec, shards, self.slot) {
            return Err(internal("the shard that was made does not fit its stripe".to_owned()));
        }
        Ok(Fetched { bytes, tenant_tag, hint })
    }
}

/// Does the shard in `slot`, with the others but one, give that one again? Any mistake in making it shows.
fn fits(codec: &Codec, mut shards: Vec<Option<Bytes>>, slot: SlotIndex) -> bool {
    let mut others = (0_u8..).map(SlotIndex).zip(&shards).filter(|(other, _)| *other != slot);
    let witness = others.find_map(|(other, shard)| Some((other, shard.clone()?)));
    let Some((witness, known)) = witness else { return false };
    if let Some(place) = shards.get_mut(usize::from(witness.0)) {
        *place = None;
    }
    let again = codec.reconstruct(&mut shards, SlotMask::from_iter([witness]));
    again.is_ok() && shards.get(usize::from(witness.0)).cloned().flatten() == Some(known)
}

/// Is it the disk, or its room, rather than this stripe?
pub(crate) fn is_of_disk(failure: &Failure) -> bool {
    matches!(failure.code, ErrorCode::DiskFull | ErrorCode::DiskFailed | ErrorCode::Overloaded)
}

/// All shards of a stripe say the same of their object, but for those that say nothing. Should a writer have said
/// different things, the one with the lowest slot counts, in whatever order they came.
fn hint_of_stripe<'a>(shards: impl Iterator<Item = (SlotIndex, &'a Bytes)>) -> Bytes {
    let said = shards.filter(|(_, hint)| !hint.is_empty());
    said.min_by_key(|(slot, _)| *slot).map(|(_, hint)| hint.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shard that was made rightly gives any other of its stripe again; one with a wrong bit, or made from a wrong
    /// shard, does not.
    #[test]
    fn what_is_made_fits() {
        for (k, m) in [(1_u32, 2_u32), (2, 1), (4, 2)] {
            let codec = Codec::new(codec::Geometry::new(k, m, 65_536).unwrap());
            let bytes: Vec<u8> = (0..k * 64).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
            let all = codec.encode(Bytes::from(bytes)).unwrap().shards().to_vec();
            for lost in 0..all.len() {
                let (slot, mut shards) = (SlotIndex(u8::try_from(lost).unwrap()), vec![None; all.len()]);
                let donors = (0..all.len()).rev().filter(|other| *other != lost).take(k as usize);
                donors.for_each(|other| shards[other] = Some(all[other].clone()));
                codec.reconstruct(&mut shards, SlotMask::from_iter([slot])).unwrap();
                assert_eq!(shards[lost].as_ref(), Some(&all[lost]));
                assert!(fits(&codec, shards.clone(), slot), "{k} + {m}, {slot}");
                let mut wrong = shards[lost].clone().unwrap().to_vec();
                wrong[5] ^= 1;
                shards[lost] = Some(wrong.into());
                assert!(!fits(&codec, shards, slot), "{k} + {m}, {slot}");
            }
        }
    }

    /// A shard that is made again says what those say that it was made from, even if only one of them does.
    #[test]
    fn hints_are_passed_on() {
        let (none, a, b) = (Bytes::new(), Bytes::from("a"), Bytes::from("b"));
        for (said, expected) in [
            (vec![], &none),
            (vec![(0, &none), (5, &none)], &none),
            (vec![(5, &a), (0, &none)], &a),
            (vec![(3, &b), (1, &a)], &a),
        ] {
            let hint = hint_of_stripe(said.iter().map(|(slot, hint)| (SlotIndex(*slot), *hint)));
            assert_eq!(&hint, expected, "{said:?}");
        }
    }
}
