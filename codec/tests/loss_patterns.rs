//! Every loss of up to `m` shards is decoded, for each profile that ships and some at the edges.

// clippy.toml allows this in test functions; the helpers beside them are as much a test.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use codec::{Codec, CodecError, Geometry, SlotMask};
use proto::SlotIndex;

const PROFILES: [(u32, u32); 10] =
    [(4, 2), (8, 3), (8, 4), (10, 4), (17, 3), (1, 2), (1, 1), (2, 1), (6, 3), (23, 1)];

fn codec(k: u32, m: u32) -> Codec {
    Codec::new(Geometry::new(k, m, 65_536).unwrap())
}

/// Shards of `k` bytes whose data is the unit matrix. Since the code is linear and works on each byte
/// alone, what decodes these decodes everything: it proves the sub-matrix invertible.
fn unit_shards(codec: &Codec) -> Vec<Bytes> {
    let k = codec.geometry().k();
    let mut stripe = vec![0; k * 64];
    (0..k).for_each(|i| stripe[i * 64 + i] = 1);
    let encoded = codec.encode(stripe.into()).unwrap();
    encoded.shards().iter().map(|shard| shard.slice(..k)).collect()
}

fn without(shards: &[Bytes], lost: SlotMask) -> Vec<Option<Bytes>> {
    let slots = (0..).map(SlotIndex);
    shards.iter().zip(slots).map(|(shard, slot)| (!lost.contains(slot)).then(|| shard.clone())).collect()
}

fn masks(slots: usize) -> impl Iterator<Item = SlotMask> {
    (0..1_u32 << slots).map(move |bits| SlotMask::from_wire(bits, slots).unwrap())
}

/// All patterns of up to `m` lost shards restore every lost shard, data and parity.
#[test]
fn all_patterns_decode() {
    for (k, m) in PROFILES {
        let codec = codec(k, m);
        let whole = unit_shards(&codec);
        let slots = codec.geometry().slots();
        for lost in masks(slots).filter(|lost| lost.len() <= codec.geometry().m()) {
            let mut shards = without(&whole, lost);
            codec.reconstruct(&mut shards, lost).unwrap();
            let restored: Vec<Bytes> = shards.into_iter().map(Option::unwrap).collect();
            assert_eq!(restored, whole, "{k}+{m} without {lost:?}");
        }
    }
}

/// One lost shard more than `m` is refused and changes nothing.
#[test]
fn one_more_is_refused() {
    for (k, m) in [(4, 2), (8, 3), (1, 2), (2, 1)] {
        let codec = codec(k, m);
        let whole = unit_shards(&codec);
        for lost in masks(codec.geometry().slots()).filter(|lost| lost.len() > codec.geometry().m()) {
            let damaged = without(&whole, lost);
            let mut shards = damaged.clone();
            let (present, needed) = (whole.len() - lost.len(), codec.geometry().k());
            let refused = Err(CodecError::TooFewShards { present, needed });
            assert_eq!(codec.reconstruct(&mut shards, lost), refused, "{k}+{m} without {lost:?}");
            assert_eq!(shards, damaged, "an error changed the shards");
            assert_eq!(codec.reconstruct(&mut shards, SlotMask::EMPTY), Ok(()), "nothing is wanted");
        }
    }
}

/// Only what is wanted is made; what is present stays, even when it is wanted.
#[test]
fn only_the_wanted_is_made() {
    let codec = codec(4, 2);
    let whole = unit_shards(&codec);
    let lost: SlotMask = [SlotIndex(1), SlotIndex(4)].into_iter().collect();
    for wanted in masks(6) {
        let mut shards = without(&whole, lost);
        codec.reconstruct(&mut shards, wanted).unwrap();
        assert_eq!(shards, without(&whole, lost.difference(wanted)), "wanted {wanted:?}");
    }
}

/// Whatever a peer sent as shards is refused with its reason, not with a panic.
#[test]
fn malformed_shards_are_refused() {
    let codec = codec(4, 2);
    let whole = unit_shards(&codec);
    let lost: SlotMask = [SlotIndex(0)].into_iter().collect();
    let refusal = |change: &dyn Fn(&mut Vec<Option<Bytes>>), wanted| {
        let mut shards = without(&whole, lost);
        change(&mut shards);
        codec.reconstruct(&mut shards, wanted).unwrap_err()
    };
    let short = refusal(&|shards| shards[3] = Some(Bytes::from_static(b"abc")), lost);
    assert_eq!(short, CodecError::ShardLength { slot: SlotIndex(3), found: 3, expected: 4 });
    let empty = refusal(&|shards| shards[1..].fill(Some(Bytes::new())), lost);
    assert_eq!(empty, CodecError::ShardLength { slot: SlotIndex(1), found: 0, expected: 1 });
    let few = refusal(&|shards| shards.truncate(5), lost);
    assert_eq!(few, CodecError::ShardCount { found: 5, expected: 6 });
    let many = refusal(&|shards| shards.push(None), lost);
    assert_eq!(many, CodecError::ShardCount { found: 7, expected: 6 });
    let foreign = refusal(&|_| (), SlotMask::first(7));
    assert_eq!(foreign, CodecError::NoSuchSlot { slot: SlotIndex(6), slots: 6 });
    assert_eq!(codec.verify(&whole[..5]), Err(CodecError::ShardCount { found: 5, expected: 6 }));
    assert!(codec.verify(&vec![Bytes::new(); 6]).is_err());
}

/// A stripe is neither empty nor longer than a full one.
#[test]
fn stripes_have_bounds() {
    let codec = codec(4, 2);
    for bytes in [0, 4 * 65_536 + 1] {
        let refused = codec.encode(vec![0; bytes].into()).unwrap_err();
        assert_eq!(refused, CodecError::StripeLength { bytes, max: 4 * 65_536 });
    }
}

/// Verification notices one wrong bit at any place of any shard, in the middle of a shard and at its end.
#[test]
fn verify_notices_a_wrong_bit() {
    for (k, m) in [(4, 2), (8, 4), (1, 2)] {
        let codec = codec(k, m);
        let k = codec.geometry().k();
        let bytes = (0..k * 9_984).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect();
        let whole = codec.encode(bytes).unwrap().into_shards();
        assert_eq!(codec.verify(&whole), Ok(true), "{k}+{m}");
        for slot in 0..whole.len() {
            for at in [0, 4_095, 4_096, 8_191, 8_192, whole[slot].len() - 1] {
                let mut shards = whole.clone();
                let mut wrong = shards[slot].to_vec();
                wrong[at] ^= 0x10;
                shards[slot] = wrong.into();
                assert_eq!(codec.verify(&shards), Ok(false), "{k}+{m} slot {slot} byte {at}");
            }
        }
    }
}
