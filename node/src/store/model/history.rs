//! Random histories, that shrink: what is asked of a store, when its host dies, and what is left of the index.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use simhost::Death;

use super::universe::{KINDS, NAMES, Shard};

/// What a store is asked for.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Put(Shard),
    Delete {
        name: u8,
    },
    /// All shards of the extent and slot of this name.
    DeleteExtent {
        name: u8,
    },
    /// All shards of the group and slot of this name.
    DeleteSlot {
        name: u8,
    },
    Read {
        name: u8,
        first: u32,
        blocks: u32,
    },
    Check {
        name: u8,
    },
    List {
        group: u8,
        after: Option<u8>,
        limit: usize,
    },
    Compact,
}

impl Operation {
    /// The same upon another name.
    fn upon(self, name: u8) -> Self {
        match self {
            Self::Put(shard) => Self::Put(Shard { name, ..shard }),
            Self::Delete { .. } => Self::Delete { name },
            Self::DeleteExtent { .. } => Self::DeleteExtent { name },
            Self::DeleteSlot { .. } => Self::DeleteSlot { name },
            Self::Read { first, blocks, .. } => Self::Read { name, first, blocks },
            Self::Check { .. } => Self::Check { name },
            other @ (Self::List { .. } | Self::Compact) => other,
        }
    }
}

/// When a host dies.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// At the I/O that comes after so many, before or after its effect.
    Operations { count: u64, after: bool },
    /// After so many microseconds, in the middle of whatever is under way.
    Micros(u64),
}

/// What the next process finds of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// What the death left.
    Kept,
    /// Nothing.
    Missing,
    /// That of so many steps ago.
    Older(usize),
}

/// A death to come, and what follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doom {
    pub(super) when: When,
    pub(super) death: Death,
    pub(super) index: Fate,
}

/// One step of a history.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Operations at the same time, until all are answered.
    AtOnce(Vec<Operation>),
    /// A shard is put and deleted, so often.
    Churn { shard: Shard, times: u8 },
    /// The host will die: of the first, and of each other while, or after, it recovers from the one before.
    Dies(Vec<Doom>),
    /// The store is closed in order, and opened again.
    Close(Fate),
    /// Milliseconds pass.
    Wait(u64),
}

/// A history. Everything random in it comes from the seed.
#[derive(Clone)]
pub(super) struct History {
    pub(super) seed: u64,
    pub(super) steps: Vec<Step>,
}

impl std::fmt::Debug for History {
    /// A step a line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        self.steps.iter().enumerate().try_for_each(|(at, step)| writeln!(f, "{at:3}: {step:?}"))
    }
}

/// Histories of up to `parts_max` parts, a step each or a few that belong together.
pub(super) fn histories(parts_max: usize) -> impl Strategy<Value = History> {
    let part = prop_oneof![
        30 => step().prop_map(|step| vec![step]),
        2 => torn_batch(),
        1 => torn_compaction(),
    ];
    (any::<u64>().no_shrink(), vec(part, 1..=parts_max))
        .prop_map(|(seed, parts)| History { seed, steps: parts.concat() })
}

/// The power fails while shards of one length are written, and then others of that length are.
fn torn_batch() -> impl Strategy<Value = Vec<Step>> {
    // The record of each takes two pages.
    let small = || (0..NAMES, 0..3_u8).prop_map(|(name, kind)| Operation::Put(Shard { name, kind }));
    let soon = (0..5_u64, any::<bool>()).prop_map(|(count, after)| When::Operations { count, after });
    (soon, fate(), vec(small(), 2..6), small(), fate()).prop_map(|(when, index, many, one, closed)| {
        let doom = Doom { when, death: Death::Power, index };
        vec![Step::Dies(vec![doom]), Step::AtOnce(many), Step::AtOnce(vec![one]), Step::Close(closed)]
    })
}

/// The power fails while a segment is left, and the index is lost; then of what was copied something is deleted, and
/// the segment of its copy is left before the other.
fn torn_compaction() -> impl Strategy<Value = Vec<Step>> {
    let when = (0..10_u64, any::<bool>()).prop_map(|(count, after)| When::Operations { count, after });
    (when, 0..NAMES, 1..3_u8, 1..4_usize).prop_map(|(when, name, times, compactions)| {
        let put = |name, kind| Step::AtOnce(vec![Operation::Put(Shard { name, kind })]);
        let delete = |name| Step::AtOnce(vec![Operation::Delete { name }]);
        let compact = || Step::AtOnce(vec![Operation::Compact]);
        // The large ones fill a segment each, the others one together.
        let [copied, left, dead, before, behind] = [0, 1, 2, 3, 4].map(|number| (name + number) % NAMES);
        let mut steps: Vec<Step> = [copied, left, dead, before, behind].map(delete).into();
        steps.extend([put(before, 9), put(copied, 5), put(left, 8), put(dead, 4), put(behind, 9)]);
        let doom = Doom { when, death: Death::Power, index: Fate::Missing };
        steps.extend([delete(dead), Step::Dies(vec![doom]), compact(), delete(copied), delete(behind)]);
        steps.push(Step::Churn { shard: Shard { name: dead, kind: 9 }, times });
        steps.extend((0..compactions).map(|_| compact()));
        steps.push(Step::Close(Fate::Missing));
        steps
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => vec(operation(), 1).prop_map(Step::AtOnce),
        4 => vec(operation(), 2..6).prop_map(Step::AtOnce),
        4 => (vec(operation(), 2..6), 0..NAMES)
            .prop_map(|(all, name)| Step::AtOnce(all.into_iter().map(|one| one.upon(name)).collect())),
        2 => (shard(), 1..16_u8).prop_map(|(shard, times)| Step::Churn { shard, times }),
        5 => vec(doom(), 1..4).prop_map(Step::Dies),
        1 => fate().prop_map(Step::Close),
        1 => (0..50_u64).prop_map(Step::Wait),
    ]
}

fn shard() -> impl Strategy<Value = Shard> {
    (0..NAMES, 0..KINDS).prop_map(|(name, kind)| Shard { name, kind })
}

/// Of most names there is mostly the same content, so that puts and reads meet what they expect.
fn usual_shard() -> impl Strategy<Value = Shard> {
    (0..NAMES).prop_map(|name| Shard { name, kind: name % KINDS })
}

fn operation() -> impl Strategy<Value = Operation> {
    let name = || 0..NAMES;
    prop_oneof![
        6 => shard().prop_map(Operation::Put),
        6 => usual_shard().prop_map(Operation::Put),
        5 => name().prop_map(|name| Operation::Delete { name }),
        1 => name().prop_map(|name| Operation::DeleteExtent { name }),
        1 => name().prop_map(|name| Operation::DeleteSlot { name }),
        2 => (name(), 0..4_u32, 0..4_u32)
            .prop_map(|(name, first, blocks)| Operation::Read { name, first, blocks }),
        1 => name().prop_map(|name| Operation::Check { name }),
        1 => (0..2_u8, option::of(name()), 0..6_usize)
            .prop_map(|(group, after, limit)| Operation::List { group, after, limit }),
        3 => Just(Operation::Compact),
    ]
}

fn doom() -> impl Strategy<Value = Doom> {
    let when = prop_oneof![
        // Often soon, where recovery is.
        3 => (0..12_u64, any::<bool>()).prop_map(|(count, after)| When::Operations { count, after }),
        2 => (0..150_u64, any::<bool>()).prop_map(|(count, after)| When::Operations { count, after }),
        3 => (0..4_000_u64).prop_map(When::Micros),
    ];
    let death = prop_oneof![1 => Just(Death::Process), 2 => Just(Death::Power)];
    (when, death, fate()).prop_map(|(when, death, index)| Doom { when, death, index })
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![3 => Just(Fate::Kept), 1 => Just(Fate::Missing), 1 => (0..12_usize).prop_map(Fate::Older)]
}
