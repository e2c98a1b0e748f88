//! Plans from shards that are made up.

use bytes::Bytes;
use node::store::{ShardAbout, ShardStat};
use proto::hint::MATRIX;
use proto::{Epoch, GroupId, ShardName, StripeIndex, TenantTag, Timestamp};

use super::*;

/// Bytes of a full stripe.
const FULL: u64 = 4 * 65_536;

/// An object that is told of, as `4 + 2`.
fn hint(key: &str, put: u64) -> ObjectHint {
    ObjectHint {
        tenant: "dijon".parse().unwrap(),
        bucket: "files".parse().unwrap(),
        key: key.parse().unwrap(),
        put: ExtentId::new(Timestamp::from_millis(put), 0),
        extent: 0,
        extent_offset: 0,
        stripe_bytes: u32::try_from(FULL).unwrap(),
        object_bytes: None,
        k: 4,
        m: 2,
        shard_bytes: 65_536,
        matrix: MATRIX,
    }
}

fn about(hint: &ObjectHint, stripe: u32, slot: u8) -> ShardAbout {
    let geometry = Geometry::new(hint.k, hint.m, hint.shard_bytes).unwrap();
    let shard_bytes = u32::try_from(geometry.shard_bytes_for(hint.stripe_bytes as usize)).unwrap();
    let extent = ExtentId(hint.put.0 + u128::from(hint.extent));
    let name = ShardName { group: GroupId(1), extent, stripe: StripeIndex(stripe), slot: SlotIndex(slot) };
    let tenant_tag = TenantTag::of(&hint.tenant);
    let stat = ShardStat { name, shard_bytes, epoch: Epoch(1) };
    ShardAbout { stat, tenant_tag, matrix: hint.matrix, hint: hint.encode() }
}

/// A stripe of which these slots were found, each on the disk of its number.
fn stripe(found: &mut Found, hint: &ObjectHint, stripe: u32, slots: &[u8]) {
    slots.iter().for_each(|slot| found.add(usize::from(*slot), &about(hint, stripe, *slot)));
}

/// A last stripe of 100 bytes.
fn short(hint: &ObjectHint) -> ObjectHint {
    ObjectHint { stripe_bytes: 100, ..hint.clone() }
}

fn planned(found: &Found) -> Plan {
    plan(found, &Filter::default())
}

/// A version with `k` shards of each stripe is whole, whichever they are; a short stripe ends it for certain.
#[test]
fn any_k_shards_are_enough() {
    let (mut found, hint) = (Found::default(), hint("a", 1));
    stripe(&mut found, &hint, 0, &[0, 1, 2, 3, 4, 5]);
    stripe(&mut found, &hint, 1, &[1, 2, 4, 5]);
    stripe(&mut found, &short(&hint), 2, &[0, 3, 4, 5]);
    let plan = planned(&found);
    let [object] = &plan.objects[..] else { panic!("{plan:?}") };
    let [version] = &object.versions[..] else { panic!("{object:?}") };
    assert!(object.lost.is_empty());
    assert_eq!((version.bytes, version.end, version.parts.len()), (2 * FULL + 100, End::Certain, 3));
    assert_eq!((plan.bytes(), plan.nameless, plan.refused.len()), (2 * FULL + 100, 0, 0));
}

/// Stripes with too few shards, and bytes of which there is nothing, are named; a slot that is there twice counts once.
#[test]
fn what_is_missing_is_named() {
    let (mut found, hint) = (Found::default(), hint("a", 1));
    stripe(&mut found, &hint, 0, &[0, 1, 2]);
    found.add(9, &about(&hint, 0, 2));
    stripe(&mut found, &short(&hint), 3, &[0, 1, 2, 3]);
    let plan = planned(&found);
    let object = &plan.objects[0];
    assert!(object.versions.is_empty());
    let name = StripeName {
        group: GroupId(1),
        extent: hint.put,
        stripe: StripeIndex(0),
        tag: TenantTag::of(&hint.tenant),
    };
    let bytes = u32::try_from(FULL).unwrap();
    assert_eq!(
        object.lost[0].missing,
        [
            Missing::Shards { offset: 0, bytes, stripe: name, found: 3, needed: 4 },
            Missing::Bytes { from: FULL, to: 3 * FULL },
        ]
    );
}

/// Where the last stripe is full, what the writer was told decides: as long, it is whole; longer, something is missing;
/// shorter, the writer was told wrong; nothing, the end is open.
#[test]
fn ends_of_full_stripes() {
    for (told, expected) in [
        (None, Some(End::Open)),
        (Some(2 * FULL), Some(End::Told)),
        (Some(2 * FULL + 1), None),
        (Some(FULL), Some(End::Open)),
    ] {
        let mut found = Found::default();
        let hint = ObjectHint { object_bytes: told, ..hint("a", 1) };
        stripe(&mut found, &hint, 0, &[0, 1, 2, 3]);
        stripe(&mut found, &hint, 1, &[0, 1, 2, 3]);
        let plan = planned(&found);
        let object = &plan.objects[0];
        assert_eq!(object.versions.first().map(|version| version.end), expected, "{told:?}");
        let missing = object.lost.first().map(|version| version.missing.clone());
        let expected = expected.is_none().then(|| vec![Missing::Bytes { from: 2 * FULL, to: 2 * FULL + 1 }]);
        assert_eq!(missing, expected, "{told:?}");
    }
}

/// An extent that was given up goes on in another one; of a stripe that both have, the one with enough shards is taken,
/// and the later one if both have.
#[test]
fn extents_follow_each_other() {
    let (mut found, first) = (Found::default(), hint("a", 1));
    let second = ObjectHint { extent: 1, extent_offset: FULL, ..first.clone() };
    stripe(&mut found, &first, 0, &[0, 1, 2, 3]);
    stripe(&mut found, &first, 1, &[0, 1, 2, 3, 4]);
    stripe(&mut found, &first, 2, &[0]);
    stripe(&mut found, &second, 0, &[2, 3, 4, 5]);
    stripe(&mut found, &second, 1, &[2, 3, 4, 5]);
    stripe(&mut found, &short(&second), 2, &[2, 3, 4, 5]);
    let plan = planned(&found);
    let version = &plan.objects[0].versions[0];
    assert_eq!((version.bytes, version.end), (3 * FULL + 100, End::Certain));
    let copies = |part: &Part| part.copies.iter().map(|copy| copy.extent).collect::<Vec<_>>();
    assert_eq!(version.parts.iter().map(copies).collect::<Vec<_>>(), [vec![0], vec![1, 0], vec![1], vec![1]]);
}

/// The newest whole version comes first, then older ones, then those whose end is open; what is lost is apart.
#[test]
fn the_newest_whole_version_is_best() {
    let mut found = Found::default();
    for put in [3, 5, 4] {
        stripe(&mut found, &short(&hint("a", put)), 0, &[0, 1, 2, 3]);
    }
    stripe(&mut found, &hint("a", 7), 0, &[0, 1, 2, 3]);
    stripe(&mut found, &short(&hint("a", 9)), 0, &[0, 1]);
    let plan = planned(&found);
    let puts =
        |versions: &[Version]| versions.iter().map(|v| v.put.granted().as_millis()).collect::<Vec<_>>();
    let object = &plan.objects[0];
    assert_eq!((puts(&object.versions), puts(&object.lost)), (vec![5, 4, 3, 7], vec![9]));
}

/// What one tenant writes never counts as another's; hints that cannot be, and stripes without one, are counted.
#[test]
fn hostile_hints_are_refused() {
    let mut found = Found::default();
    let foreign = TenantTag::of(&"beaune".parse().unwrap());
    let odd = |hint: &ObjectHint, encoded: Bytes| ShardAbout { hint: encoded, ..about(hint, 0, 0) };
    let good = short(&hint("a", 1));
    stripe(&mut found, &good, 0, &[0, 1, 2, 3]);
    for slot in 0..4 {
        found.add(0, &ShardAbout { tenant_tag: foreign, ..about(&good, 0, slot) });
    }
    found.add(0, &odd(&hint("b", 2), Bytes::from("rubbish")));
    found.add(0, &about(&ObjectHint { matrix: 99, ..hint("c", 3) }, 0, 0));
    found.add(0, &about(&hint("d", 4), u32::MAX, 0));
    found.add(0, &odd(&hint("e", 5), Bytes::new()));
    let plan = planned(&found);
    assert_eq!(plan.objects.len(), 1);
    assert_eq!(plan.objects[0].versions.len(), 1);
    assert_eq!((plan.nameless, plan.refused.values().sum::<u64>(), plan.refused.len()), (1, 4, 4));
}

/// Shards that were written without a hint go with those of their stripe that have one, unless these disagree; shards of
/// a wrong length or slot do not count.
#[test]
fn shards_without_a_hint_go_with_the_others() {
    let good = short(&hint("a", 1));
    let silent = ShardAbout { hint: Bytes::new(), ..about(&good, 0, 3) };
    let whole = |extra: &[ShardAbout]| {
        let mut found = Found::default();
        stripe(&mut found, &good, 0, &[0, 1, 2]);
        extra.iter().for_each(|about| found.add(7, about));
        planned(&found).objects.iter().any(|object| !object.versions.is_empty())
    };
    assert!(!whole(&[]) && whole(std::slice::from_ref(&silent)));
    let other = ShardAbout { hint: short(&hint("z", 1)).encode(), ..about(&good, 0, 4) };
    assert!(!whole(&[silent.clone(), other]));
    let mut long = silent.clone();
    long.stat.shard_bytes += 64;
    let mut beyond = silent;
    beyond.stat.name.slot = SlotIndex(6);
    assert!(!whole(&[long]) && !whole(&[beyond]));
}

/// Filters choose; a key that is a directory on the way to another is marked.
#[test]
fn filters_and_directories() {
    let mut found = Found::default();
    for key in ["a", "a/b", "a-b", "c"] {
        stripe(&mut found, &short(&hint(key, 1)), 0, &[0, 1, 2, 3]);
    }
    let keys = |filter: Filter| {
        let objects = plan(&found, &filter).objects;
        objects.iter().map(|o| (o.name.key.to_string(), o.is_directory)).collect::<Vec<_>>()
    };
    let all = [("a", true), ("a-b", false), ("a/b", false), ("c", false)];
    assert_eq!(keys(Filter::default()), all.map(|(key, is)| (key.to_owned(), is)));
    let prefix = Filter { prefix: "a/".to_owned(), ..Filter::default() };
    assert_eq!(keys(prefix), [("a/b".to_owned(), false)]);
    let nobody = Filter { tenant: "beaune".parse().ok(), ..Filter::default() };
    assert!(keys(nobody).is_empty());
    let nowhere = Filter { bucket: "other".parse().ok(), ..Filter::default() };
    assert!(keys(nowhere).is_empty());
}
