//! What a disk has against what is committed: which shards are superfluous, and which are lost.
//!
//! Nothing is concluded from not having seen something. A shard is an orphan when its extent is absent
//! from a whole answer of the metadata service that was given after the end of the extent's grant: that
//! answer tells *replicated* time, before which nothing is committed any more, so the extent is not
//! committed and never will be. A shard is lost when an extent that is committed in this very epoch of the
//! group should have it here, and the disk's index, read after that answer, does not have it.

use std::collections::BTreeMap;
use std::time::Duration;

use codec::{ExtentLayout, Geometry, SlotMask};
use proto::limits::GRANT_MS;
use proto::{DiskId, Epoch, ExtentId, Failure, GroupId, ShardName, SlotIndex, StripeIndex, Timestamp, wire};

use crate::store::Held;
use crate::view::Placement;

/// The last extent id there can be: the end of every range without an end.
pub(super) const LAST: ExtentId = ExtentId(u128::MAX);

/// A committed extent, as the metadata service lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) length: u64,
    /// Of the group when the answer was given.
    pub(super) epoch: Epoch,
    /// Slots recorded to miss shards, as a mask.
    pub(super) missing: u32,
}

/// The committed extents of one range of ids, all of them, and when that was true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) extents: BTreeMap<ExtentId, Committed>,
    /// The end of the range, inclusive.
    pub(super) through: ExtentId,
    /// Cluster time of the state that answered.
    pub(super) as_of: Timestamp,
}

impl Answer {
    /// Of a page behind some extent; nothing for one that says that there is more, and does not say where.
    pub(super) fn parse(page: &wire::ListGroupExtentsReply) -> Result<Option<Self>, Failure> {
        let mut extents = BTreeMap::new();
        for extent in &page.extents {
            let committed =
                Committed { length: extent.length, epoch: Epoch(extent.epoch), missing: extent.missing };
            extents.insert(ExtentId::from_wire(&extent.id)?, committed);
        }
        let last = extents.last_key_value().map(|(id, _)| *id);
        let through = if page.more { last } else { Some(LAST) };
        let as_of = Timestamp::from_millis(page.cluster_time_ms);
        Ok(through.map(|through| Self { extents, through, as_of }))
    }
}

/// What the disk has to have of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Duty {
    pub(super) slot: SlotIndex,
    pub(super) epoch: Epoch,
    /// All shards but those recorded as missing; while it rebuilds, an absent one proves nothing.
    pub(super) whole: bool,
    pub(super) geometry: Geometry,
}

impl Duty {
    /// The disk's slot of the group, if it has one.
    pub(super) fn of(placement: &Placement, disk: DiskId) -> Option<Self> {
        let at = placement.places.iter().position(|place| place.at.disk == disk)?;
        let slot = SlotIndex(u8::try_from(at).ok()?);
        let whole = !placement.place(slot)?.rebuilding;
        Some(Self { slot, epoch: placement.epoch, whole, geometry: placement.geometry })
    }

    /// How the extent lies in stripes, when it is to be judged: by the epoch that this duty is of, and with
    /// the slot not known to miss shards.
    fn layout(&self, committed: &Committed) -> Option<ExtentLayout> {
        let missing = SlotMask::from_wire(committed.missing, self.geometry.slots()).ok()?;
        let judged = committed.epoch == self.epoch && !missing.contains(self.slot);
        self.geometry.extent(committed.length).ok().filter(|_| judged)
    }
}

/// Is it past the end of the grant that the extent was written under? Then, at this cluster time and ever
/// after, it is not committed if it was not before. The same rule as the metadata service's.
pub(super) fn grant_is_over(extent: ExtentId, now: Timestamp) -> bool {
    extent.granted().after(Duration::from_millis(GRANT_MS)) < now
}

/// The cluster time at which most is known of these: just after the end of the latest grant of which the
/// end is past; zero when none has ended. `now` is a guess and may be wrong.
pub(super) fn worth_asking_at(held: &[Held], now: Timestamp) -> Timestamp {
    let over = held.iter().map(|held| held.extent).filter(|extent| grant_is_over(*extent, now)).max();
    over.map_or(Timestamp::ZERO, |extent| extent.granted().after(Duration::from_millis(GRANT_MS + 1)))
}

/// What was held *before* the answer, in its range, and is certainly no part of any object.
pub(super) fn orphans(before: &[Held], answer: &Answer) -> Vec<(ExtentId, SlotIndex)> {
    let in_range = before.iter().filter(|held| held.extent <= answer.through);
    in_range
        .filter(|held| !answer.extents.contains_key(&held.extent))
        .filter(|held| grant_is_over(held.extent, answer.as_of))
        .map(|held| (held.extent, held.slot))
        .collect()
}

/// What was held *before* the answer behind the last stripe of a committed extent: a put that was let down in
/// the middle commits what is whole, and begins another extent with the rest. An extent never grows.
pub(super) fn superfluous(
    group: GroupId,
    before: &[Held],
    answer: &Answer,
    geometry: Geometry,
) -> Vec<ShardName> {
    let beyond = |held: &Held| {
        let committed = answer.extents.get(&held.extent);
        let layout = committed.and_then(|committed| geometry.extent(committed.length).ok());
        let (extent, slot) = (held.extent, held.slot);
        let is_beyond = move |stripe: &StripeIndex| layout.is_some_and(|layout| stripe.0 >= layout.stripes());
        let name = move |stripe| ShardName { group, extent, stripe, slot };
        held.stripes.clone().into_iter().filter(is_beyond).map(name)
    };
    before.iter().flat_map(beyond).collect()
}

/// Committed extents of which the disk's slot should have all shards, and lacks one *after* the answer.
pub(super) fn lost(after: &[Held], answer: &Answer, duty: &Duty) -> Vec<ExtentId> {
    let there: BTreeMap<ExtentId, &Held> =
        after.iter().filter(|held| held.slot == duty.slot).map(|held| (held.extent, held)).collect();
    let lacks = |extent: &ExtentId, layout: ExtentLayout| {
        let stripes = there.get(extent).map_or(&[][..], |held| &held.stripes);
        let wanted = usize::try_from(layout.stripes()).unwrap_or(usize::MAX);
        stripes.iter().filter(|stripe| stripe.0 < layout.stripes()).count() < wanted
    };
    let judged = answer.extents.iter().filter(|_| duty.whole);
    judged
        .filter_map(|(extent, committed)| Some((*extent, duty.layout(committed)?)))
        .filter(|(extent, layout)| lacks(extent, *layout))
        .map(|(extent, _)| extent)
        .collect()
}

/// The shards that are there and belong to committed extents, with the length that each should have.
pub(super) fn to_verify(
    group: GroupId,
    after: &[Held],
    answer: &Answer,
    duty: &Duty,
) -> Vec<(ShardName, usize)> {
    let shards = |held: &Held| {
        let layout = answer.extents.get(&held.extent).and_then(|committed| duty.layout(committed));
        let (extent, slot) = (held.extent, held.slot);
        let one = move |stripe: StripeIndex| {
            Some((ShardName { group, extent, stripe, slot }, layout?.shard_bytes(stripe)?))
        };
        held.stripes.clone().into_iter().filter_map(one)
    };
    after.iter().filter(|held| held.slot == duty.slot).flat_map(shards).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const GROUP: GroupId = GroupId(7);

    fn id(granted_ms: u64, random: u128) -> ExtentId {
        ExtentId::new(Timestamp::from_millis(granted_ms), random)
    }

    fn held(extent: ExtentId, slot: u8, stripes: &[u32]) -> Held {
        let stripes = stripes.iter().copied().map(StripeIndex).collect();
        Held { extent, slot: SlotIndex(slot), stripes }
    }

    fn duty() -> Duty {
        let geometry = Geometry::new(2, 1, 65_536).unwrap();
        Duty { slot: SlotIndex(1), epoch: Epoch(4), whole: true, geometry }
    }

    /// Two and a half stripes.
    const COMMITTED: Committed = Committed { length: 5 * 65_536, epoch: Epoch(4), missing: 0 };

    fn answer(extents: &[(ExtentId, Committed)], as_of_ms: u64) -> Answer {
        let as_of = Timestamp::from_millis(as_of_ms);
        Answer { extents: extents.iter().copied().collect(), through: LAST, as_of }
    }

    /// An orphan is uncommitted, within the answer's range, and past its grant to the millisecond.
    #[test]
    fn orphans_are_certain() {
        let (old, known, young) = (id(1_000, 1), id(1_000, 2), id(1_001, 3));
        let before = [held(old, 0, &[0]), held(old, 1, &[0]), held(known, 1, &[9]), held(young, 1, &[0])];
        let mut answer = answer(&[(known, COMMITTED)], 1_000 + GRANT_MS);
        assert_eq!(orphans(&before, &answer), []);
        answer.as_of = Timestamp::from_millis(1_001 + GRANT_MS);
        assert_eq!(orphans(&before, &answer), [(old, SlotIndex(0)), (old, SlotIndex(1))]);
        answer.through = ExtentId(old.0 - 1);
        assert_eq!(orphans(&before, &answer), []);
    }

    /// Superfluous is what lies behind the end of a committed extent, and nothing of one that is not committed or
    /// whose length makes no sense.
    #[test]
    fn superfluous_is_beyond_the_end() {
        let (known, young, odd) = (id(1, 1), id(1, 2), id(1, 3));
        let before = [
            held(known, 0, &[0, 1, 2]),
            held(known, 1, &[0, 2, 3, 9]),
            held(young, 1, &[7]),
            held(odd, 1, &[7]),
        ];
        let nonsense = Committed { length: u64::MAX, ..COMMITTED };
        let answer = answer(&[(known, COMMITTED), (odd, nonsense)], 0);
        let names = superfluous(GROUP, &before, &answer, duty().geometry);
        let names: Vec<_> = names.iter().map(|name| (name.extent, name.stripe.0, name.slot.0)).collect();
        assert_eq!(names, [(known, 3, 1), (known, 9, 1)]);
    }

    /// Lost is what should be there: not while the slot rebuilds, nor by another epoch, nor what is recorded
    /// as missing; and superfluous stripes make up for none.
    #[test]
    fn losses_are_certain() {
        let (all, part, none, beyond) = (id(1, 1), id(1, 2), id(1, 3), id(1, 4));
        let after = [
            held(all, 1, &[0, 1, 2]),
            held(part, 1, &[0, 2]),
            held(none, 2, &[0, 1, 2]),
            held(beyond, 1, &[0, 1, 3]),
        ];
        let extents = [all, part, none, beyond].map(|extent| (extent, COMMITTED));
        let full = answer(&extents, 0);
        assert_eq!(lost(&after, &full, &duty()), [part, none, beyond]);
        assert_eq!(lost(&after, &full, &Duty { whole: false, ..duty() }), []);
        assert_eq!(lost(&after, &full, &Duty { epoch: Epoch(5), ..duty() }), []);
        let missing = extents.map(|(extent, committed)| (extent, Committed { missing: 0b010, ..committed }));
        assert_eq!(lost(&after, &answer(&missing, 0), &duty()), []);
        let nonsense = extents.map(|(extent, _)| (extent, Committed { length: u64::MAX, ..COMMITTED }));
        assert_eq!(lost(&after, &answer(&nonsense, 0), &duty()), []);
    }

    /// Verified is what belongs to the slot and to a committed extent, against its right length.
    #[test]
    fn verifies_what_belongs_here() {
        let (known, other) = (id(1, 1), id(1, 2));
        let after = [held(known, 1, &[0, 2, 3]), held(known, 2, &[0]), held(other, 1, &[0])];
        let names: Vec<_> = to_verify(GROUP, &after, &answer(&[(known, COMMITTED)], 0), &duty())
            .into_iter()
            .map(|(name, bytes)| (name.extent, name.stripe.0, name.slot.0, bytes))
            .collect();
        assert_eq!(names, [(known, 0, 1, 65_536), (known, 2, 1, 32_768)]);
    }

    /// A page that is not the last covers the ids up to its end; one that leads nowhere is no answer.
    #[test]
    fn pages_say_what_they_cover() {
        let extent = wire::Extent { id: id(5, 5).to_wire(), length: 1, epoch: 2, ..Default::default() };
        let page = |extents: Vec<wire::Extent>, more| wire::ListGroupExtentsReply {
            extents,
            more,
            cluster_time_ms: 9,
        };
        let through = |page| Answer::parse(&page).unwrap().map(|answer| answer.through);
        assert_eq!(through(page(vec![extent.clone()], false)), Some(LAST));
        assert_eq!(through(page(vec![extent.clone()], true)), Some(id(5, 5)));
        assert_eq!(through(page(vec![], false)), Some(LAST));
        assert_eq!(through(page(vec![], true)), None);
        let bad = wire::Extent { id: vec![1].into(), ..extent };
        assert!(Answer::parse(&page(vec![bad], false)).is_err());
    }

    /// The time asked for is the end of the latest grant that is past, and never one to come.
    #[test]
    fn asks_when_it_helps() {
        let before = [held(id(10, 0), 0, &[0]), held(id(20, 0), 0, &[0]), held(id(30, 0), 0, &[0])];
        let at = |ms| worth_asking_at(&before, Timestamp::from_millis(ms)).as_millis();
        assert_eq!(at(10 + GRANT_MS), 0);
        assert_eq!(at(21 + GRANT_MS), 21 + GRANT_MS);
        assert_eq!(at(u64::MAX), 31 + GRANT_MS);
        let asked = Timestamp::from_millis(at(21 + GRANT_MS));
        assert!(grant_is_over(id(20, 0), asked) && !grant_is_over(id(21, 0), asked));
    }

    /// The metadata service, as far as commits go: refuses what is past its grant, at a time that never falls.
    #[derive(Default)]
    struct Meta {
        now_ms: u64,
        committed: BTreeSet<ExtentId>,
    }

    impl Meta {
        fn commit(&mut self, extent: ExtentId, claimed_ms: u64) {
            self.now_ms = self.now_ms.max(claimed_ms);
            if extent.granted().as_millis() + GRANT_MS >= self.now_ms {
                self.committed.insert(extent);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever is written, committed and deleted before and after an answer, by leaders whose clocks
        /// disagree: no orphan is committed then or later, and what is left can no longer be told from an
        /// extent that will be.
        #[test]
        fn no_commit_follows(
            on_disk in prop::collection::vec((0..6u64, 0..3u128, 0..3u8), 0..12),
            earlier in prop::collection::vec((0..6u64, 0..3u128, 0..12u64), 0..12),
            deleted in prop::collection::vec((0..6u64, 0..3u128), 0..4),
            later in prop::collection::vec((0..6u64, 0..3u128, 0..12u64), 0..12),
            through in prop::option::of((0..6u64, 0..3u128)),
        ) {
            const STEP: u64 = GRANT_MS / 4;
            let at = |granted: u64, random| id(granted * STEP, random);
            let before: Vec<Held> =
                on_disk.iter().map(|(granted, random, slot)| held(at(*granted, *random), *slot, &[0])).collect();
            let mut meta = Meta::default();
            earlier.iter().for_each(|(granted, random, now)| meta.commit(at(*granted, *random), now * STEP));
            for (granted, random) in deleted {
                meta.committed.remove(&at(granted, random));
            }
            let through = through.map_or(LAST, |(granted, random)| at(granted, random));
            let extents = meta.committed.iter().filter(|extent| **extent <= through);
            let answer = Answer {
                extents: extents.map(|extent| (*extent, COMMITTED)).collect(),
                through,
                as_of: Timestamp::from_millis(meta.now_ms),
            };
            let found: BTreeSet<ExtentId> = orphans(&before, &answer).into_iter().map(|(extent, _)| extent).collect();

            later.iter().for_each(|(granted, random, now)| meta.commit(at(*granted, *random), now * STEP));
            prop_assert!(found.is_disjoint(&meta.committed), "{found:?} {:?}", meta.committed);
            for Held { extent, .. } in before {
                let may_be_committed = answer.extents.contains_key(&extent)
                    || extent.granted().as_millis() + GRANT_MS >= answer.as_of.as_millis();
                prop_assert_eq!(found.contains(&extent), extent <= through && !may_be_committed, "{}", extent);
            }
        }
    }
}
