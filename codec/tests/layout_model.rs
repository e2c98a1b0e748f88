//! The layout functions, against a model that walks over an extent byte by byte.

// clippy.toml allows this in test functions; the helpers beside them are as much a test.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use codec::{ExtentLayout, Geometry};
use proptest::prelude::*;
use proto::StripeIndex;

const BLOCK: usize = 65_536;

/// Where one byte of the object lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    stripe: u32,
    slot: u8,
    byte: usize,
}

/// Lays bytes down one after the other, as the words of the layout say: stripe by stripe, shard by
/// shard. Gives the place of each byte and the shard length of each stripe.
fn model(k: usize, shard_bytes: usize, extent_bytes: usize) -> (Vec<Place>, Vec<usize>) {
    let (mut places, mut lengths) = (Vec::new(), Vec::new());
    let mut left = extent_bytes;
    while left > 0 {
        let here = left.min(k * shard_bytes);
        let mut length = 64;
        while length * k < here {
            length += 64;
        }
        let stripe = u32::try_from(lengths.len()).unwrap();
        let (mut slot, mut byte) = (0, 0);
        for _ in 0..here {
            places.push(Place { stripe, slot, byte });
            byte += 1;
            if byte == length {
                (slot, byte) = (slot + 1, 0);
            }
        }
        lengths.push(length);
        left -= here;
    }
    (places, lengths)
}

/// Every byte of `range`, in order, as the layout finds it, and the blocks that it fetches.
fn located(layout: ExtentLayout, range: Range<u64>) -> (Vec<Place>, BTreeSet<(u32, u8, usize)>) {
    let (mut places, mut blocks) = (Vec::new(), BTreeSet::new());
    for part in layout.locate(range).unwrap() {
        let mut in_stripe = part.range.start;
        assert_eq!(layout.shard_bytes(part.stripe), Some(part.shard_bytes));
        for shard in part.shard_parts() {
            assert!(!shard.range.is_empty() && shard.blocks > 0, "{shard:?} is empty");
            assert_eq!(in_stripe, usize::from(shard.slot.0) * part.shard_bytes + shard.range.start);
            in_stripe += shard.range.len();
            let (first, count) = (shard.first_block as usize, shard.blocks as usize);
            let fetched = first * BLOCK..part.shard_bytes.min((first + count) * BLOCK);
            assert_eq!(shard.fetched, fetched);
            let inner = shard.range_in_fetched();
            assert_eq!(fetched.start + inner.start..fetched.start + inner.end, shard.range);
            blocks.extend((first..first + count).map(|block| (part.stripe.0, shard.slot.0, block)));
            places.extend(shard.range.clone().map(|byte| Place {
                stripe: part.stripe.0,
                slot: shard.slot.0,
                byte,
            }));
        }
        assert_eq!(in_stripe, part.range.end, "the shards do not make up the stripe's part");
    }
    (places, blocks)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Each byte lies where the model puts it, and a range fetches the blocks with its bytes and no other.
    #[test]
    fn each_byte_lies_where_the_model_says(
        (k, shard_blocks, extent_bytes) in (1..7_u32, 1..4_u32)
            .prop_flat_map(|(k, blocks)| (Just(k), Just(blocks), 1..=(k * blocks * 65_536 * 5 / 2) as usize)),
        (a, b) in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let geometry = Geometry::new(k, 2, shard_blocks * 65_536).unwrap();
        let layout = geometry.extent(extent_bytes as u64).unwrap();
        let (places, lengths) = model(geometry.k(), geometry.shard_bytes(), extent_bytes);

        prop_assert_eq!(layout.stripes() as usize, lengths.len());
        prop_assert_eq!(layout.slot_bytes(), lengths.iter().sum::<usize>() as u64);
        let mut stripe_bytes = BTreeMap::<u32, usize>::new();
        places.iter().for_each(|place| *stripe_bytes.entry(place.stripe).or_default() += 1);
        for (stripe, length) in (0..).zip(&lengths) {
            prop_assert_eq!(layout.stripe_bytes(StripeIndex(stripe)), stripe_bytes.get(&stripe).copied());
            prop_assert_eq!(layout.shard_bytes(StripeIndex(stripe)), Some(*length));
        }
        for beyond in [layout.stripes(), u32::MAX] {
            prop_assert_eq!(layout.stripe_bytes(StripeIndex(beyond)), None);
            prop_assert_eq!(layout.shard_bytes(StripeIndex(beyond)), None);
        }

        let (a, b) = (a.index(extent_bytes + 1), b.index(extent_bytes + 1));
        let range = a.min(b)..a.max(b);
        let (found, blocks) = located(layout, range.start as u64..range.end as u64);
        let expected = &places[range];
        prop_assert!(found == expected, "bytes lie elsewhere");
        let needed: BTreeSet<_> = expected.iter().map(|p| (p.stripe, p.slot, p.byte / BLOCK)).collect();
        prop_assert_eq!(blocks, needed);
    }

    /// Ranges that are reversed or pass the end are refused, and the numbers of any extent hold together.
    #[test]
    fn extents_of_any_length_add_up(
        k in 1..21_u32, m in 1..4_u32, blocks in 1..=64_u32, at in any::<prop::sample::Index>(),
    ) {
        let geometry = Geometry::new(k, m, blocks * 65_536).unwrap();
        let max = geometry.extent_bytes_max();
        prop_assert!(max <= 1 << 30 && (1 << 30) - max < geometry.stripe_bytes() as u64);
        let bytes = at.index(usize::try_from(max).unwrap()) as u64 + 1;
        let layout = geometry.extent(bytes).unwrap();
        let stripes = || (0..layout.stripes()).map(StripeIndex);
        prop_assert_eq!(stripes().filter_map(|s| layout.stripe_bytes(s)).sum::<usize>() as u64, bytes);
        prop_assert_eq!(stripes().filter_map(|s| layout.shard_bytes(s)).sum::<usize>() as u64, layout.slot_bytes());
        prop_assert!(layout.slot_bytes() * u64::from(k) >= bytes);
        prop_assert!(layout.slot_bytes() * u64::from(k) < bytes + u64::from(k) * 64);
        prop_assert_eq!(layout.locate(bytes..bytes).unwrap().count(), 0);
        prop_assert!(layout.locate(0..bytes + 1).is_err());
        prop_assert!(layout.locate(u64::MAX..u64::MAX).is_err());
        let (start, end) = (bytes, bytes - 1);
        prop_assert!(layout.locate(start..end).is_err());
        prop_assert!(geometry.extent(0).is_err());
        prop_assert!(geometry.extent(max + 1).is_err());
        prop_assert!(geometry.extent(u64::MAX).is_err());
    }
}
