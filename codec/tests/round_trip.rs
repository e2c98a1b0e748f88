//! The whole way: cut, encode, lose, reconstruct, join.

// clippy.toml allows this in test functions; the helpers beside them are as much a test.
#![allow(clippy::unwrap_used)]

use std::ops::Range;

use bytes::Bytes;
use codec::{Codec, CutStripe, Cutter, Geometry, SlotMask, block_checksums, verify_blocks};
use proptest::prelude::*;
use proto::SlotIndex;

/// An object whose bytes differ from place to place.
fn object(bytes: usize) -> Bytes {
    (0..bytes).map(|i| u8::try_from((i * 31 + i / 251 * 7) % 256).unwrap()).collect()
}

/// Feeds an object to a cutter in pieces of the given lengths, over and over.
fn cut(geometry: Geometry, object: &Bytes, pieces: &[usize], expected: Option<u64>) -> Vec<CutStripe> {
    let mut cutter = Cutter::new(geometry, expected);
    let (mut stripes, mut rest) = (Vec::new(), object.clone());
    for piece in pieces.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let mut piece = rest.split_to((*piece).min(rest.len()));
        while let Some(stripe) = cutter.push(&mut piece) {
            stripes.push(stripe);
        }
        assert!(piece.is_empty(), "the cutter left {} bytes", piece.len());
    }
    stripes.extend(cutter.finish());
    stripes
}

/// The slots of a stripe that are lost: `count` of them, chosen by `seed`.
fn lost_slots(slots: usize, count: usize, seed: u64) -> SlotMask {
    let mut all: Vec<u8> = (0..u8::try_from(slots).unwrap()).collect();
    let mut state = seed | 1;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            SlotIndex(all.swap_remove(usize::try_from(state >> 33).unwrap() % all.len()))
        })
        .collect()
}

/// A slot's bytes of one range of blocks, as a disk would give them: checked.
fn fetch(shard: &Bytes, sums: &[u32], bytes: &Range<usize>, first_block: u32, blocks: u32) -> Bytes {
    let fetched = shard.slice(bytes.clone());
    let first = first_block as usize;
    assert_eq!(verify_blocks(&fetched, first_block, &sums[first..first + blocks as usize]), Ok(()));
    fetched
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Any object, in any pieces, with any `m` shards of each stripe lost: every range reads back, from
    /// nothing but whole checked blocks of the shards that are left.
    #[test]
    fn any_range_reads_back_after_any_loss(
        (k, m, bytes) in (1..7_u32, 1..4_u32)
            .prop_flat_map(|(k, m)| (Just(k), Just(m), 1..=(k * 131_072 * 5 / 2) as usize)),
        pieces in prop::collection::vec(1..400_000_usize, 1..6),
        known in any::<bool>(),
        (a, b) in any::<(prop::sample::Index, prop::sample::Index)>(),
        loss in 0..4_usize,
        seed in any::<u64>(),
    ) {
        let geometry = Geometry::new(k, m, 131_072).unwrap();
        let codec = Codec::new(geometry);
        let object = object(bytes);
        let stripes: Vec<Vec<Bytes>> = cut(geometry, &object, &pieces, known.then_some(bytes as u64))
            .into_iter()
            .map(|stripe| codec.encode(stripe.bytes).unwrap().into_shards())
            .collect();
        let layout = geometry.extent(bytes as u64).unwrap();
        prop_assert_eq!(stripes.len(), layout.stripes() as usize);

        let (a, b) = (a.index(bytes + 1), b.index(bytes + 1));
        let range = a.min(b)..a.max(b);
        let mut joined = Vec::new();
        for part in layout.locate(range.start as u64..range.end as u64).unwrap() {
            let shards = &stripes[part.stripe.0 as usize];
            prop_assert_eq!(shards[0].len(), part.shard_bytes);
            let sums: Vec<Vec<u32>> = shards.iter().map(|shard| block_checksums(shard)).collect();
            let lost = lost_slots(shards.len(), loss.min(geometry.m()), seed ^ u64::from(part.stripe.0));
            for shard_part in part.shard_parts() {
                let mut fetched: Vec<Option<Bytes>> = (0..)
                    .map(SlotIndex)
                    .zip(shards.iter().zip(&sums))
                    .map(|(slot, (shard, sums))| {
                        let (first, blocks) = (shard_part.first_block, shard_part.blocks);
                        (!lost.contains(slot)).then(|| fetch(shard, sums, &shard_part.fetched, first, blocks))
                    })
                    .collect();
                let wanted = [shard_part.slot].into_iter().collect();
                codec.reconstruct(&mut fetched, wanted).unwrap();
                let shard = fetched[usize::from(shard_part.slot.0)].as_ref().unwrap();
                joined.extend_from_slice(&shard[shard_part.range_in_fetched()]);
            }
        }
        prop_assert!(joined == object[range.clone()], "{range:?} of {bytes} bytes reads back wrong");
    }

    /// However the pieces fall and whatever length was announced, the stripes are the object's.
    #[test]
    fn cutting_does_not_depend_on_the_pieces(
        k in 1..5_u32,
        bytes in 0..1_000_000_usize,
        pieces in prop::collection::vec(1..600_000_usize, 1..8),
        announced in prop::option::of(prop_oneof![0..1_200_000_u64, Just(u64::MAX)]),
    ) {
        let geometry = Geometry::new(k, 1, 65_536).unwrap();
        let object = object(bytes);
        let stripes = cut(geometry, &object, &pieces, announced);
        let expected: Vec<Bytes> =
            object.chunks(geometry.stripe_bytes()).map(Bytes::copy_from_slice).collect();
        prop_assert!(stripes.iter().map(|stripe| &stripe.bytes).eq(&expected), "other bytes");
        prop_assert!(stripes.iter().all(|stripe| stripe.extent == 0));
        prop_assert!(stripes.iter().map(|stripe| stripe.stripe.0).eq(0..u32::try_from(expected.len()).unwrap()));
    }

    /// A buffer that held something else gives the same parity.
    #[test]
    fn old_buffers_leave_no_trace(k in 1..6_u32, m in 1..4_u32, bytes in 1..65_536_usize, old in 0..200_000_usize) {
        let codec = Codec::new(Geometry::new(k, m, 65_536).unwrap());
        let buffer = bytes::BytesMut::from(&vec![0xa5; old][..]);
        let reused = codec.encode_into(object(bytes), buffer).unwrap();
        let fresh = codec.encode(object(bytes)).unwrap();
        prop_assert_eq!(reused.shards(), fresh.shards());
        prop_assert_eq!(fresh.stripe_bytes(), bytes);
        prop_assert_eq!(Some(fresh.shard_bytes()), fresh.shards().first().map(Bytes::len));
    }
}

/// An extent ends with its last whole stripe, and the next begins with stripe 0.
#[test]
fn extents_follow_one_another() {
    let geometry = Geometry::new(3, 1, 4 << 20).unwrap();
    let per_extent = geometry.extent_bytes_max() / geometry.stripe_bytes() as u64;
    // One buffer for all stripes: the cutter only slices it.
    let stripe = Bytes::from(vec![1; geometry.stripe_bytes()]);
    let mut cutter = Cutter::new(geometry, None);
    for index in 0..per_extent + 2 {
        let cut = cutter.push(&mut stripe.clone()).unwrap();
        assert_eq!(cut.bytes.as_ptr(), stripe.as_ptr(), "stripe {index} was copied");
        assert_eq!(cut.extent as u64, index / per_extent);
        assert_eq!(u64::from(cut.stripe.0), index % per_extent);
    }
    let layout = geometry.extent(geometry.extent_bytes_max()).unwrap();
    assert_eq!(u64::from(layout.stripes()), per_extent);
    assert_eq!(cutter.finish(), None, "an object that ends with a full stripe has no other");
}

/// An object in one piece shorter than a stripe is not copied; one of no bytes has no stripe.
#[test]
fn small_objects_are_not_copied() {
    let geometry = Geometry::new(4, 2, 65_536).unwrap();
    let small = object(100_000);
    let mut cutter = Cutter::new(geometry, Some(100_000));
    assert_eq!(cutter.push(&mut small.clone()), None);
    let last = cutter.finish().unwrap();
    assert_eq!(last.bytes.as_ptr(), small.as_ptr());
    assert_eq!(last.bytes.len(), small.len());
    let mut empty = Cutter::new(geometry, Some(0));
    assert_eq!(empty.push(&mut Bytes::new()), None);
    assert_eq!(empty.finish(), None);
}
