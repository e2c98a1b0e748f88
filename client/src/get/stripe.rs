//! Which shards of one stripe to ask for, next: the decisions of a read, without any waiting.
//!
//! First only the data shards that hold what is wanted, and only their blocks. When one of them
//! fails, is slow or is known to be of no use, other shards are asked for the blocks that are
//! lacking, until `k` shards have them; what is lacking is then made from those.

use std::ops::Range;

use bytes::Bytes;
use codec::{Codec, CodecError, ShardPart, SlotMask, StripePart};
use proto::SlotIndex;
use proto::limits::BLOCK_BYTES;

/// How good a place is: the lower, the earlier it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Up, as far as is known.
    Good,
    /// Being filled: may have it or not.
    Hollow,
    /// Down, or failed or slow a moment ago.
    Suspect,
    /// Recorded as missing a shard of the extent, though not of which stripe: asked when nothing else is
    /// left.
    Missing,
}

/// Blocks of a shard to ask for, never none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub(crate) first: u32,
    pub(crate) end: u32,
}

impl Blocks {
    fn of(part: &ShardPart) -> Self {
        Self { first: part.first_block, end: part.first_block.saturating_add(part.blocks) }
    }

    fn hull(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), end: self.end.max(other.end) }
    }

    fn covers(self, other: Self) -> bool {
        self.first <= other.first && self.end >= other.end
    }

    /// What they hold, as bytes of a shard of `shard_bytes`.
    pub(crate) fn bytes(self, shard_bytes: usize) -> Range<usize> {
        let at = |block: u32| (block as usize).saturating_mul(BLOCK_BYTES).min(shard_bytes);
        at(self.first)..at(self.end)
    }
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// All is here: [`StripeRead::assemble`].
    Done,
    /// Ask these, then wait.
    Ask(Vec<(SlotIndex, Blocks)>),
    /// Wait for who was asked.
    Wait,
    /// Too few are left.
    Lost,
}

/// The read of a part of one stripe.
#[derive(Debug)]
pub(crate) struct StripeRead {
    k: usize,
    shard_bytes: usize,
    parts: Vec<ShardPart>,
    slots: Vec<SlotRead>,
}

#[derive(Debug)]
struct SlotRead {
    standing: Standing,
    have: Option<(Blocks, Bytes)>,
    asked: Option<Blocks>,
    is_slow: bool,
    is_failed: bool,
}

impl StripeRead {
    /// `standings` has one entry for each slot.
    pub(crate) fn new(k: usize, part: &StripePart, standings: &[Standing]) -> Self {
        let slots = standings.iter().map(|standing| SlotRead {
            standing: *standing,
            have: None,
            asked: None,
            is_slow: false,
            is_failed: false,
        });
        let slots = slots.collect();
        Self { k, shard_bytes: part.shard_bytes, parts: part.shard_parts().collect(), slots }
    }

    /// The slot gave these blocks, verified.
    pub(crate) fn received(&mut self, slot: SlotIndex, blocks: Blocks, bytes: Bytes) {
        let slot = &mut self.slots[usize::from(slot.0)];
        slot.asked = None;
        slot.is_slow = false;
        slot.have = Some((blocks, bytes));
    }

    /// The slot cannot.
    pub(crate) fn failed(&mut self, slot: SlotIndex) {
        let slot = &mut self.slots[usize::from(slot.0)];
        slot.asked = None;
        slot.is_failed = true;
    }

    /// Who was asked has had time enough: others are to be asked as well.
    pub(crate) fn hedge(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.asked.is_some()) {
            slot.is_slow = true;
        }
    }

    /// Slots that let us wait.
    pub(crate) fn slow(&self) -> SlotMask {
        self.mask(|slot| slot.asked.is_some() && slot.is_slow)
    }

    /// Slots that have not failed.
    pub(crate) fn reachable(&self) -> usize {
        self.slots.iter().filter(|slot| !slot.is_failed).count()
    }

    /// Decides, and takes note of what it says to ask.
    pub(crate) fn step(&mut self) -> Step {
        let lacking: Vec<&ShardPart> = self.parts.iter().filter(|part| !self.has(part)).collect();
        let Some(hull) = lacking.iter().map(|part| Blocks::of(part)).reduce(Blocks::hull) else {
            return Step::Done;
        };
        // The direct way, while nothing speaks against it.
        let direct = lacking.iter().all(|part| self.slot(part.slot).is_promising());
        if direct {
            let asks = lacking.iter().filter(|part| self.slot(part.slot).asked.is_none());
            let asks: Vec<_> = asks.map(|part| (part.slot, Blocks::of(part))).collect();
            return self.ask(asks);
        }
        self.detour(hull)
    }

    /// `k` shards are to have the blocks of `hull`.
    fn detour(&mut self, hull: Blocks) -> Step {
        let count =
            |filter: &dyn Fn(&SlotRead) -> bool| self.slots.iter().filter(|slot| filter(slot)).count();
        let covered = |slot: &SlotRead| slot.have.as_ref().is_some_and(|(blocks, _)| blocks.covers(hull));
        let coming = |slot: &SlotRead| slot.asked.is_some_and(|blocks| blocks.covers(hull));
        let have = count(&covered);
        if have >= self.k {
            return Step::Done;
        }
        let on_time = count(&|slot| !covered(slot) && coming(slot) && !slot.is_slow);
        let needed = self.k.saturating_sub(have + on_time);
        let mut candidates: Vec<(Standing, SlotIndex)> = self
            .mask(|slot| !slot.is_failed && !covered(slot) && slot.asked.is_none())
            .iter()
            .map(|slot| (self.slot(slot).standing, slot))
            .collect();
        candidates.sort_unstable();
        let asks: Vec<_> = candidates
            .iter()
            .take(needed)
            .map(|(_, slot)| {
                let own = self.parts.iter().find(|part| part.slot == *slot).map(Blocks::of);
                (*slot, own.map_or(hull, |own| own.hull(hull)))
            })
            .collect();
        if !asks.is_empty() {
            return self.ask(asks);
        }
        // Slow ones, and those asked for fewer blocks, may still do.
        let possible = have + count(&|slot| !covered(slot) && slot.asked.is_some());
        if possible >= self.k || self.waits_for_all_lacking() { Step::Wait } else { Step::Lost }
    }

    /// Every part that is lacking may still come from its own shard.
    fn waits_for_all_lacking(&self) -> bool {
        self.parts.iter().all(|part| self.has(part) || self.slot(part.slot).asked.is_some())
    }

    fn ask(&mut self, asks: Vec<(SlotIndex, Blocks)>) -> Step {
        for (slot, blocks) in &asks {
            let slot = &mut self.slots[usize::from(slot.0)];
            slot.asked = Some(*blocks);
            slot.is_slow = false;
        }
        if asks.is_empty() { Step::Wait } else { Step::Ask(asks) }
    }

    /// The wanted bytes, in order; to be called when [`Self::step`] says that all is here.
    ///
    /// # Errors
    ///
    /// When shards do not fit each other.
    pub(crate) fn assemble(&self, codec: &Codec) -> Result<Vec<Bytes>, CodecError> {
        let lacking: Vec<&ShardPart> = self.parts.iter().filter(|part| !self.has(part)).collect();
        let hull = lacking.iter().map(|part| Blocks::of(part)).reduce(Blocks::hull);
        let mut shards: Vec<Option<Bytes>> = Vec::new();
        let mut start = 0;
        if let Some(hull) = hull {
            let range = hull.bytes(self.shard_bytes);
            start = range.start;
            shards = self.slots.iter().map(|slot| slot.slice(hull, &range, self.shard_bytes)).collect();
            codec.reconstruct(&mut shards, lacking.iter().map(|part| part.slot).collect())?;
        }
        let piece = |part: &ShardPart| {
            let (from, bytes) = match &self.slot(part.slot).have {
                Some((blocks, bytes)) if blocks.covers(Blocks::of(part)) => {
                    (blocks.bytes(self.shard_bytes).start, Some(bytes))
                }
                _ => (start, shards.get(usize::from(part.slot.0)).and_then(Option::as_ref)),
            };
            let too_few = CodecError::TooFewShards { present: self.reachable(), needed: self.k };
            bytes.map(|bytes| bytes.slice(part.range.start - from..part.range.end - from)).ok_or(too_few)
        };
        self.parts.iter().map(piece).collect()
    }

    fn has(&self, part: &ShardPart) -> bool {
        self.slot(part.slot).have.as_ref().is_some_and(|(blocks, _)| blocks.covers(Blocks::of(part)))
    }

    fn slot(&self, slot: SlotIndex) -> &SlotRead {
        &self.slots[usize::from(slot.0)]
    }

    fn mask(&self, filter: impl Fn(&SlotRead) -> bool) -> SlotMask {
        let indices = SlotMask::first(self.slots.len()).iter();
        indices.zip(&self.slots).filter(|(_, slot)| filter(slot)).map(|(index, _)| index).collect()
    }
}

impl SlotRead {
    fn is_promising(&self) -> bool {
        !self.is_failed && !self.is_slow && (self.standing == Standing::Good || self.asked.is_some())
    }

    /// The bytes `range` of the shard, when it has all of them.
    fn slice(&self, hull: Blocks, range: &Range<usize>, shard_bytes: usize) -> Option<Bytes> {
        let (blocks, bytes) = self.have.as_ref().filter(|(blocks, _)| blocks.covers(hull))?;
        let from = blocks.bytes(shard_bytes).start;
        Some(bytes.slice(range.start - from..range.end - from))
    }
}

#[cfg(test)]
mod tests {
    use codec::Geometry;
    use proptest::prelude::*;
    use proto::StripeIndex;

    use super::*;

    const SHARD: usize = 3 * BLOCK_BYTES;

    fn part(range: Range<usize>) -> StripePart {
        StripePart { stripe: StripeIndex(0), range, shard_bytes: SHARD }
    }

    fn asked(step: Step) -> Vec<u8> {
        match step {
            Step::Ask(asks) => asks.iter().map(|(slot, _)| slot.0).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn read(range: Range<usize>) -> StripeRead {
        StripeRead::new(4, &part(range), &[Standing::Good; 6])
    }

    /// While all is well only the shards and blocks are asked that hold what is wanted.
    #[test]
    fn only_what_is_wanted_is_asked() {
        let mut one = read(SHARD + 10..SHARD + 20);
        assert_eq!(one.step(), Step::Ask(vec![(SlotIndex(1), Blocks { first: 0, end: 1 })]));
        assert_eq!(one.step(), Step::Wait);
        assert_eq!(asked(read(0..4 * SHARD).step()), [0, 1, 2, 3]);
    }

    /// A slow shard costs one more, a failed one too, and a late answer is still taken.
    #[test]
    fn others_are_asked_for_slow_and_failed_ones() {
        let mut all = read(0..4 * SHARD);
        all.step();
        let whole = Blocks { first: 0, end: 3 };
        for slot in [0, 1, 2] {
            all.received(SlotIndex(slot), whole, Bytes::from(vec![slot; SHARD]));
        }
        assert_eq!(all.step(), Step::Wait);
        all.hedge();
        assert_eq!(asked(all.step()), [4]);
        assert_eq!(all.slow().iter().collect::<Vec<_>>(), [SlotIndex(3)]);
        all.failed(SlotIndex(4));
        assert_eq!(asked(all.step()), [5]);
        all.received(SlotIndex(3), whole, Bytes::from(vec![3; SHARD]));
        assert_eq!(all.step(), Step::Done);
    }

    /// Suspect places are asked late, those that may miss the shard last, and too few are named as such.
    #[test]
    fn suspects_come_last() {
        let mut standings = [Standing::Good; 6];
        standings[0] = Standing::Suspect;
        standings[1] = Standing::Missing;
        standings[4] = Standing::Hollow;
        let mut read = StripeRead::new(4, &part(0..4 * SHARD), &standings);
        assert_eq!(asked(read.step()), [2, 3, 5, 4]);
        read.failed(SlotIndex(5));
        assert_eq!(asked(read.step()), [0]);
        read.failed(SlotIndex(4));
        assert_eq!(asked(read.step()), [1]);
        read.failed(SlotIndex(1));
        assert_eq!(read.step(), Step::Lost);
    }

    proptest! {
        /// Against any order of answers, failures and hedges: what is given back is right, and "lost"
        /// is said only when fewer than k shards can answer.
        #[test]
        fn never_wrong_never_stuck(
            (start, end) in (0..4 * SHARD, 1..=4 * SHARD).prop_filter("range", |(a, b)| a < b),
            broken in prop::collection::btree_set(0..6_u8, 0..4),
            standings in prop::collection::vec(0..4_usize, 6),
            order in prop::collection::vec(0..8_usize, 64),
            seed in any::<u8>(),
        ) {
            let geometry = Geometry::new(4, 2, u32::try_from(SHARD).unwrap()).unwrap();
            let codec = Codec::new(geometry);
            let data: Vec<u8> = (0..4 * SHARD).map(|i| u8::try_from(i % 253).unwrap() ^ seed).collect();
            let shards = codec.encode(Bytes::from(data.clone())).unwrap().into_shards();
            let kinds = [Standing::Good, Standing::Hollow, Standing::Suspect, Standing::Missing];
            let standings: Vec<Standing> = standings.into_iter().map(|standing| kinds[standing]).collect();
            let mut read = StripeRead::new(4, &part(start..end), &standings);
            let mut in_flight: Vec<(SlotIndex, Blocks)> = Vec::new();
            let mut order = order.into_iter().cycle();
            for _ in 0..200 {
                match read.step() {
                    Step::Ask(asks) => { in_flight.extend(asks); continue; }
                    Step::Done => {
                        let bytes = read.assemble(&codec).unwrap().concat();
                        prop_assert!(bytes == data[start..end], "wrong bytes");
                        return Ok(());
                    }
                    Step::Lost => {
                        prop_assert!(broken.len() > 2);
                        return Ok(());
                    }
                    Step::Wait => {}
                }
                prop_assert!(!in_flight.is_empty(), "waits for nobody");
                let turn = order.next().unwrap();
                if turn == 7 {
                    read.hedge();
                    continue;
                }
                let (slot, blocks) = in_flight.swap_remove(turn % in_flight.len());
                if broken.contains(&slot.0) {
                    read.failed(slot);
                } else {
                    let bytes = shards[usize::from(slot.0)].slice(blocks.bytes(SHARD));
                    read.received(slot, blocks, bytes);
                }
            }
            prop_assert!(false, "no end");
        }
    }
}
