//! Random changes, crashes and restarts, against plain maps.

use proptest::prelude::*;

use super::*;
use crate::testing::block_on;

/// Segments of the model. The position is always in the first, which is never freed.
const SEGMENTS_MAX: u32 = 4;

/// All that the index should know.
#[derive(Clone, Debug, Default)]
struct Model {
    shards: BTreeMap<ShardName, Location>,
    segments: BTreeMap<SegmentId, (u64, SegmentState)>,
    position: Option<Position>,
    sequence: u64,
}

#[derive(Clone, Debug)]
enum Act {
    Put {
        shard: ShardName,
        segment: u32,
        page: u64,
        blocks: u32,
    },
    Remove(ShardName),
    /// Copies what lives in a segment elsewhere, but for this many shards; frees it when none is left.
    Compact(u32, usize),
}

#[derive(Clone, Debug)]
enum Event {
    Batch(Vec<Act>),
    Flush,
    Restart,
    /// With so many batches that survive.
    Crash(usize),
}

fn shard() -> impl Strategy<Value = ShardName> {
    let group = prop::sample::select(vec![0, 1, u32::MAX]);
    let extent = prop::sample::select(vec![0, 5, u128::MAX]);
    (group, extent, 0..2_u32, 0..2_u8)
        .prop_map(|(group, extent, stripe, slot)| name(group, extent, stripe, slot * 23))
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (shard(), 0..SEGMENTS_MAX, 1..200_u64, 1..130_u32)
            .prop_map(|(shard, segment, page, blocks)| Act::Put { shard, segment, page, blocks }),
        2 => shard().prop_map(Act::Remove),
        1 => (1..SEGMENTS_MAX, 0..2_usize).prop_map(|(segment, left)| Act::Compact(segment, left)),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => prop::collection::vec(act(), 0..12).prop_map(Event::Batch),
        1 => Just(Event::Flush),
        1 => Just(Event::Restart),
        1 => (0..6_usize).prop_map(Event::Crash),
    ]
}

impl Model {
    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn set(&mut self, changes: &mut Changes, segment: u32, incarnation: u64, state: SegmentState) {
        self.segments.insert(SegmentId(segment), (incarnation, state));
        changes.set_segment(SegmentId(segment), incarnation, state);
    }

    fn put(&mut self, changes: &mut Changes, shard: ShardName, location: Location) {
        self.shards.insert(shard, location);
        changes.put(shard, location);
    }

    fn act(&mut self, changes: &mut Changes, act: &Act) {
        match *act {
            Act::Put { shard, segment, page, blocks } => {
                let (incarnation, _) = self.segments[&SegmentId(segment)];
                self.set(changes, segment, incarnation, InLog);
                let shard_bytes = blocks * 64;
                let bytes = 4096 + u64::from(shard_bytes).next_multiple_of(4096);
                let sequence = self.next_sequence();
                let location = Location { bytes, shard_bytes, ..at(segment, page, sequence) };
                self.put(changes, shard, location);
            }
            Act::Remove(shard) => {
                self.sequence += 1;
                self.shards.remove(&shard);
                changes.remove(shard);
            }
            Act::Compact(segment, left) => {
                let inside = |(_, location): &(&ShardName, &Location)| location.segment.0 == segment;
                let moved: Vec<_> =
                    self.shards.iter().filter(inside).map(|(name, location)| (*name, *location)).collect();
                for (name, location) in moved.into_iter().skip(left) {
                    let sequence = self.next_sequence();
                    let copy = Location { segment: SegmentId(0), sequence, ..location };
                    self.put(changes, name, copy);
                }
                let (incarnation, state) = self.segments[&SegmentId(segment)];
                if self.shards.values().all(|location| location.segment.0 != segment) {
                    self.set(changes, segment, incarnation + 1, Free);
                } else if state != Free {
                    self.set(changes, segment, incarnation, Leaving);
                }
            }
        }
    }

    fn batch(&mut self, acts: &[Act]) -> Changes {
        let mut changes = Changes::new();
        acts.iter().for_each(|act| self.act(&mut changes, act));
        let position = position(0, 1, self.sequence);
        self.position = Some(position);
        changes.set_position(position);
        changes
    }

    fn rows(&self) -> BTreeMap<SegmentId, SegmentRow> {
        let row = |(segment, (incarnation, state)): (&SegmentId, &(u64, SegmentState))| {
            let inside = || self.shards.values().filter(|location| location.segment == *segment);
            let bytes = inside().map(|location| location.bytes).sum();
            (*segment, row(*incarnation, *state, bytes, inside().count() as u64))
        };
        self.segments.iter().map(row).collect()
    }

    fn listed(&self, wanted: impl Fn(&ShardName) -> bool, limit: usize) -> Vec<ShardName> {
        self.shards.keys().copied().filter(wanted).take(limit).collect()
    }

    /// By whole extents, until there are enough.
    fn held(
        &self,
        group: GroupId,
        after: Option<ExtentId>,
        through: ExtentId,
        shards_max: usize,
    ) -> (Vec<Held>, bool) {
        let mut extents: BTreeMap<ExtentId, BTreeMap<SlotIndex, Vec<StripeIndex>>> = BTreeMap::new();
        let inside = |name: &&ShardName| {
            name.group == group && after.is_none_or(|after| name.extent > after) && name.extent <= through
        };
        for name in self.shards.keys().filter(inside) {
            extents.entry(name.extent).or_default().entry(name.slot).or_default().push(name.stripe);
        }
        let (mut held, mut shards) = (Vec::new(), 0);
        for (extent, slots) in extents {
            if shards >= shards_max {
                return (held, true);
            }
            for (slot, stripes) in slots {
                shards += stripes.len();
                held.push(Held { extent, slot, stripes });
            }
        }
        (held, false)
    }
}

/// Every answer of the index is the model's.
fn compare(index: &Index<MemKv>, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(index.position(), model.position);
    prop_assert_eq!(index.segments(), model.rows());
    prop_assert_eq!(index.used_bytes(), model.shards.values().map(|location| location.bytes).sum::<u64>());
    prop_assert_eq!(index.shards(), model.shards.len() as u64);
    let groups: std::collections::BTreeSet<GroupId> = model.shards.keys().map(|name| name.group).collect();
    prop_assert_eq!(index.groups().unwrap(), groups.into_iter().collect::<Vec<_>>());
    let every = |name: &ShardName| *name != self::name(1, 5, 0, 0);
    for group in [0, 1, u32::MAX].map(GroupId) {
        let cursors = [None, Some(name(0, 5, 1, 0)), Some(name(1, 5, 0, 23)), Some(name(2, 0, 0, 0))];
        for (after, limit) in cursors.into_iter().flat_map(|after| [(after, 2), (after, 99)]) {
            let expected = model.listed(
                |name| name.group == group && after.is_none_or(|after| *name > after) && every(name),
                limit,
            );
            prop_assert_eq!(index.of_group(group, after, limit, every).unwrap(), expected);
        }
        for extent in [0, 5, u128::MAX].map(ExtentId) {
            let of_extent = |name: &ShardName| name.group == group && name.extent == extent;
            let listed = index.of_extent(group, extent, 3, every).unwrap();
            prop_assert_eq!(listed, model.listed(|name| of_extent(name) && every(name), 3));
            for names in model.listed(of_extent, 99) {
                prop_assert_eq!(index.get(&names).unwrap(), model.shards.get(&names).copied());
            }
            for (after, shards_max) in [None, Some(ExtentId(0)), Some(ExtentId(5))]
                .into_iter()
                .flat_map(|after| [0, 1, 3, 99].map(|max| (after, max)))
            {
                let held = index.held(group, after, extent, shards_max).unwrap();
                prop_assert_eq!(held, model.held(group, after, extent, shards_max));
            }
        }
    }
    Ok(())
}

/// An index and its model, flushed.
fn begin() -> (MemKv, Index<MemKv>, Model) {
    let kv = MemKv::new(TABLES);
    let index = load(&kv).unwrap().index;
    let (mut model, mut first) = (Model::default(), Changes::new());
    for segment in 0..SEGMENTS_MAX {
        model.set(&mut first, segment, 1, if segment < 2 { InLog } else { Free });
    }
    model.position = Some(position(0, 1, 0));
    first.set_position(position(0, 1, 0));
    index.apply(first).unwrap();
    block_on(index.flush()).unwrap();
    (kv, index, model)
}

proptest! {
    /// Whatever happens, every answer is the model's: at once, after a restart, and after a crash, which
    /// keeps a prefix of the batches whose position, segments and shards are of one moment.
    #[test]
    fn agrees_with_plain_maps(events in prop::collection::vec(event(), 1..24)) {
        let (kv, mut index, mut model) = begin();
        // As it was after the last flush, and after each batch since.
        let mut moments = vec![model.clone()];
        for event in events {
            match event {
                Event::Batch(acts) => {
                    index.apply(model.batch(&acts)).unwrap();
                    moments.push(model.clone());
                    prop_assert_eq!(kv.pending(), moments.len() - 1, "one batch for each apply");
                }
                Event::Flush => {
                    block_on(index.flush()).unwrap();
                    moments = vec![model.clone()];
                }
                Event::Restart => {
                    let loaded = load(&kv).unwrap();
                    prop_assert_eq!(loaded.position, model.position);
                    index = loaded.index;
                }
                Event::Crash(kept) => {
                    kv.crash(kept);
                    model = moments[kept.min(moments.len() - 1)].clone();
                    moments = vec![model.clone()];
                    index = load(&kv).unwrap().index;
                }
            }
            compare(&index, &model)?;
        }
    }
}
