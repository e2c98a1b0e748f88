//! What a worker does next. Everything is drawn from a stream; nothing is done.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use proto::limits::INLINE_BYTES_MAX;
use proto::{ObjectKey, Version};
use simhost::Stream;

use crate::history::{Condition, Key};
use crate::plan::{Load, Plan};

/// Keys that half of all operations are about.
const HOT_KEYS: u64 = 2;
/// Shortest stall of a put in the middle, in milliseconds.
const STALL_MS_MIN: u64 = 1_000;
/// … and the longest. Many slots move within this time, and workers have other things to do.
const STALL_MS_MAX: u64 = 12_000;
/// Bytes of the objects of a batch, at most.
const BATCH_BYTES_MAX: u64 = 6_000;

/// A kind of operation, in the order of the plan's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Put,
    PutIf,
    Get,
    GetRange,
    Head,
    Delete,
    DeleteIf,
    List,
    Batch,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Put,
        Self::PutIf,
        Self::Get,
        Self::GetRange,
        Self::Head,
        Self::Delete,
        Self::DeleteIf,
        Self::List,
        Self::Batch,
    ];

    /// Does it say more about an object than about none?
    pub(super) fn wants_object(self) -> bool {
        matches!(self, Self::PutIf | Self::Get | Self::GetRange | Self::Head | Self::DeleteIf)
    }
}

/// How the bytes of a put come, or do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// As they are asked for.
    Plain,
    /// In pieces of so many bytes at most.
    Pieces(usize),
    /// In pieces, with so long a pause after each of the first ones.
    Slow { piece: usize, pauses: u32, pause: Duration },
    /// In two pieces, with a long pause between them; or behind the last, before the put may be committed.
    Stalls { first: usize, pause: Duration },
    /// They fail after so many bytes.
    Fails(u64),
    /// The client loses patience.
    GivenUp(Duration),
}

/// Draws what a seed's clients do.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    load: Load,
    stripe_bytes: u64,
    edges: Vec<u64>,
    stall_ms_max: u64,
}

impl Choice {
    pub(super) fn new(plan: &Plan) -> Self {
        let profile = &plan.profile;
        let shard_bytes = u64::from(profile.shard_bytes);
        let stripe_bytes = shard_bytes * u64::from(profile.k);
        let inline = u64::try_from(INLINE_BYTES_MAX).unwrap_or(u64::MAX);
        let edges = edges(
            &[inline, u64::from(profile.small_bytes_max), shard_bytes, stripe_bytes],
            plan.load.size_max,
        );
        let stall_ms_max = crate::verdict::millis(plan.tunables.out_after).clamp(STALL_MS_MIN, STALL_MS_MAX);
        Self { load: plan.load.clone(), stripe_bytes, edges, stall_ms_max }
    }

    pub(super) fn kind(&self, stream: &Stream) -> Kind {
        let total: u64 = self.load.weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut drawn = stream.below(total);
        for (kind, weight) in Kind::ALL.into_iter().zip(self.load.weights) {
            match drawn.checked_sub(u64::from(weight)) {
                Some(rest) => drawn = rest,
                None => return kind,
            }
        }
        Kind::Get
    }

    pub(super) fn pause(&self, stream: &Stream) -> Duration {
        let most = u64::try_from(self.load.pause_max.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(stream.below(most.saturating_add(1)))
    }

    /// Which key, by number: half of the time a hot one.
    pub(super) fn key(&self, stream: &Stream) -> u64 {
        let hot = if stream.chance(500_000) { HOT_KEYS } else { u64::MAX };
        stream.below(self.load.keys.clamp(1, hot))
    }

    /// Bytes of an object: often where a path of the code ends, else any number, mostly a small one.
    pub(super) fn size(&self, stream: &Stream) -> u64 {
        match stream.pick(&self.edges) {
            Some(edge) if stream.chance(400_000) => *edge,
            _ => stream.skewed(1, self.load.size_max.max(1)),
        }
    }

    pub(super) fn small_size(&self, stream: &Stream) -> u64 {
        stream.skewed(0, BATCH_BYTES_MAX.min(self.load.size_max))
    }

    /// How many puts at once.
    pub(super) fn batch(&self, stream: &Stream) -> u64 {
        stream.between(10, 40)
    }

    pub(super) fn manner(&self, stream: &Stream, size: u64) -> Manner {
        let piece = usize::try_from(stream.skewed(1, 200_000).max(size / 50)).unwrap_or(usize::MAX);
        match stream.below(100) {
            0..65 => Manner::Plain,
            65..70 => {
                let pause = Duration::from_millis(stream.between(STALL_MS_MIN, self.stall_ms_max));
                Manner::Stalls {
                    first: usize::try_from(stream.below(size * 2 + 1)).unwrap_or(usize::MAX),
                    pause,
                }
            }
            70..83 => Manner::Pieces(piece),
            83..90 => {
                let pause = Duration::from_millis(stream.skewed(1, 800));
                Manner::Slow { piece, pauses: u32::try_from(stream.between(1, 5)).unwrap_or(1), pause }
            }
            90..95 => Manner::Fails(stream.below(size.saturating_add(1))),
            _ => Manner::GivenUp(Duration::from_micros(stream.skewed(1, 2_000_000))),
        }
    }

    /// What a conditional put asks for, `seen` being the newest version that a client saw.
    pub(super) fn put_condition(&self, stream: &Stream, seen: Option<Version>) -> Condition {
        if stream.chance(350_000) { Condition::MustNotExist } else { self.condition(stream, seen) }
    }

    /// A version that is right, unless it was replaced meanwhile; and sometimes a wrong one.
    pub(super) fn condition(&self, stream: &Stream, seen: Option<Version>) -> Condition {
        let Some(Version(seen)) = seen else { return Condition::MustNotExist };
        let version = match stream.below(10) {
            0 => seen.saturating_sub(stream.between(1, 20)),
            1 => seen.saturating_add(stream.between(1, 20)),
            _ => seen,
        };
        // There is no version 0.
        Condition::IfVersion(Version(version.max(1)))
    }

    /// A range of an object that may have `size` bytes: at its ends, across stripes, anywhere, and
    /// sometimes none.
    pub(super) fn range(&self, stream: &Stream, size: u64) -> Range<u64> {
        let boundary = stream.below(size / self.stripe_bytes + 1) * self.stripe_bytes;
        let start = stream.below(size.max(1));
        match stream.below(10) {
            0 => 0..1,
            1 => size.saturating_sub(1)..size,
            2 => size..size + stream.below(3),
            3 => start..start,
            4 => boundary.saturating_sub(stream.below(20))..boundary + stream.between(1, 20),
            5 => boundary..boundary + self.stripe_bytes,
            6 => start..u64::MAX,
            _ => start..start + stream.skewed(1, size.max(1)),
        }
    }

    /// A listing: prefix, delimiter, entries of a page.
    pub(super) fn listing(&self, stream: &Stream) -> (Bytes, Bytes, usize) {
        let prefix = if stream.chance(300_000) {
            ["k", "d0/", "d0/e/", "d1", "é", "none/"][stream.index(6)]
        } else {
            ""
        };
        let delimiter = if stream.chance(300_000) { "/" } else { "" };
        let page = usize::try_from(stream.skewed(1, 50)).unwrap_or(1);
        (Bytes::from_static(prefix.as_bytes()), Bytes::from_static(delimiter.as_bytes()), page)
    }
}

/// Sizes at which something else begins, up to `max`.
fn edges(limits: &[u64], max: u64) -> Vec<u64> {
    let mut edges = vec![0, 1, 15, 16, 17, max];
    for limit in limits.iter().filter(|limit| **limit > 0) {
        edges.extend([limit - 1, *limit, limit + 1, limit * 2, limit * 3, limit * 3 + 1, limit * 7]);
    }
    edges.retain(|edge| *edge <= max);
    edges.sort_unstable();
    edges.dedup();
    edges
}

/// The name of a key: flat ones and folded ones, so that delimiters have something to do.
pub(super) fn key_name(number: u64) -> Key {
    let name = match number % 5 {
        0 | 1 => format!("k{number}"),
        2 => format!("d{}/k{number}", number % 3),
        3 => format!("d0/e/{number}"),
        _ => format!("é{number}"),
    };
    // Such keys are well-formed.
    let name = ObjectKey::parse(name).unwrap_or_else(|error| unreachable!("{error}"));
    Key { bucket: super::BUCKET, name }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn choice(seed: u64) -> (Choice, Plan) {
        let plan = Plan::draw(seed, false);
        (Choice::new(&plan), plan)
    }

    /// Sizes keep within the maximum, and reach the edges on both sides of the inline limit and of a stripe.
    #[test]
    fn sizes_reach_their_edges() {
        for seed in 0..20 {
            let (choice, plan) = choice(seed);
            let stream = Stream::new(seed);
            let sizes: BTreeSet<u64> = (0..3_000).map(|_| choice.size(&stream)).collect();
            assert!(sizes.iter().all(|size| *size <= plan.load.size_max), "seed {seed}");
            let stripe = u64::from(plan.profile.shard_bytes * plan.profile.k);
            for edge in [0, 1, 4_095, 4_096, 4_097, stripe - 1, stripe, stripe + 1] {
                assert_eq!(sizes.contains(&edge), edge <= plan.load.size_max, "seed {seed}: {edge}");
            }
        }
    }

    /// Kinds that the seed switched off do not come; the others do.
    #[test]
    fn weights_are_kept() {
        for seed in 0..20 {
            let (choice, plan) = choice(seed);
            let stream = Stream::new(seed);
            let drawn: Vec<Kind> = (0..5_000).map(|_| choice.kind(&stream)).collect();
            for (kind, weight) in Kind::ALL.into_iter().zip(plan.load.weights) {
                assert_eq!(drawn.contains(&kind), weight > 0, "seed {seed}: {kind:?} of weight {weight}");
            }
        }
    }

    /// Keys have names of their own, and the hot ones come most often.
    #[test]
    fn keys_are_skewed() {
        let names: BTreeSet<String> = (0..100).map(|number| key_name(number).name.to_string()).collect();
        assert_eq!(names.len(), 100);
        let (mut choice, _) = choice(1);
        choice.load.keys = 50;
        let stream = Stream::new(1);
        let drawn: Vec<u64> = (0..2_000).map(|_| choice.key(&stream)).collect();
        let hot = drawn.iter().filter(|number| **number < HOT_KEYS).count();
        assert!((900..1_200).contains(&hot) && drawn.iter().all(|number| *number < 50), "{hot}");
    }

    /// Ranges begin before they end, within the object, behind its end, and across stripes.
    #[test]
    fn ranges_are_of_all_kinds() {
        let (choice, _) = choice(3);
        let stream = Stream::new(3);
        for size in [0, 1, 100, choice.stripe_bytes * 2 + 5] {
            let ranges: Vec<_> = (0..500).map(|_| choice.range(&stream, size)).collect();
            assert!(ranges.iter().all(|range| range.start <= range.end), "{size}: {ranges:?}");
            assert!(ranges.iter().any(|range| range.start >= size && range.start < range.end), "{size}");
            assert!(ranges.iter().any(|range| range.end > size), "{size}");
        }
    }
}
