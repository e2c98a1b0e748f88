//! Rows and changes that no writer makes.

use proptest::prelude::*;

use super::*;

/// A store with one shard in segment 0, at sequence 1.
fn stored() -> (MemKv, ShardName) {
    let (kv, index) = fresh();
    let shard = name(1, 2, 3, 4);
    let change = changes(|c| {
        c.put(shard, at(0, 1, 1));
        c.set_position(position(0, 1, 1));
    });
    index.apply(change).unwrap();
    (kv, shard)
}

/// An index of another disk, or of this one formatted anew, is refused; it can be made anew.
#[test]
fn foreign_indexes_are_refused() {
    let (kv, _) = stored();
    let others = [
        (Realm { cluster: ClusterId(1), ..REALM }, SEGMENT_BYTES),
        (Realm { disk: DiskUuid(1), ..REALM }, SEGMENT_BYTES),
        (Realm { salt: 1, ..REALM }, SEGMENT_BYTES),
        (REALM, 2 * SEGMENT_BYTES),
    ];
    for (realm, segment_bytes) in others {
        let refused = Index::load(kv.clone(), &realm, segment_bytes);
        let expected = (REALM.cluster, REALM.disk, SEGMENT_BYTES);
        assert!(matches!(
            refused,
            Err(IndexProblem::Foreign { cluster, disk, segment_bytes })
                if (cluster, disk, segment_bytes) == expected
        ));
    }
    let index = Index::create(kv.clone(), &others[1].0, SEGMENT_BYTES).unwrap();
    assert_eq!(index.groups().unwrap(), []);
    assert!(load(&kv).is_err());
    let loaded = Index::load(kv, &others[1].0, SEGMENT_BYTES).unwrap();
    assert_eq!(loaded.position, None);
}

/// Sizes that segments cannot have are refused before anything is touched.
#[test]
fn sizes_of_segments_are_checked() {
    let (kv, _) = stored();
    for segment_bytes in [0, 4096, (1 << 20) + 1, 1 << 44, u64::MAX, u64::MAX - 4095] {
        let refused = refusal(Index::create(kv.clone(), &REALM, segment_bytes));
        assert_eq!(refused, Some(format!("log: segment_bytes is {segment_bytes}")));
        assert!(Index::load(kv.clone(), &REALM, segment_bytes).is_err());
    }
    assert_eq!(load(&kv).unwrap().index.shards(), 1);
}

/// Rows of the log and of segments that do not parse, do not fit each other, or overflow.
#[test]
fn bad_rows_are_found_at_the_start() {
    let position = |segment: u32, incarnation, end, sequence| {
        Position { segment: SegmentId(segment), incarnation, end, sequence }.encode()
    };
    let segment = |incarnation: u64, state: u8, bytes: u64, shards: u64| {
        let numbers = [&incarnation.to_le_bytes()[..], &[state], &bytes.to_le_bytes(), &shards.to_le_bytes()];
        numbers.concat()
    };
    let two = [0_u8, 0, 0, 2];
    let cases: Vec<(Table, &[u8], Vec<u8>, &str)> = vec![
        (LOG, FORMAT_KEY, vec![2, 0, 0, 0], "format"),
        (LOG, FORMAT_KEY, vec![], "length"),
        (LOG, FORMAT_KEY, vec![1, 0, 0, 0, 0], "length"),
        (LOG, DISK_KEY, vec![0; 47], "length"),
        (LOG, DISK_KEY, vec![0; 49], "length"),
        (LOG, POSITION_KEY, vec![0; 27], "length"),
        (LOG, POSITION_KEY, vec![0; 29], "length"),
        (LOG, POSITION_KEY, position(9, 1, 8192, 1), "segment"),
        (LOG, POSITION_KEY, position(0, 2, 8192, 1), "incarnation"),
        (LOG, POSITION_KEY, position(0, 1, 0, 1), "end"),
        (LOG, POSITION_KEY, position(0, 1, 8193, 1), "end"),
        (LOG, POSITION_KEY, position(0, 1, SEGMENT_BYTES + 4096, 1), "end"),
        (LOG, POSITION_KEY, position(0, 1, u64::MAX, 1), "end"),
        (SEGMENTS, &[0; 3][..], segment(1, 0, 0, 0), "length"),
        (SEGMENTS, &[0; 5][..], segment(1, 0, 0, 0), "length"),
        (SEGMENTS, &two[..], vec![1; 24], "length"),
        (SEGMENTS, &two[..], vec![1; 26], "length"),
        (SEGMENTS, &two[..], segment(0, 1, 0, 0), "incarnation"),
        (SEGMENTS, &two[..], segment(1, 3, 0, 0), "state"),
        (SEGMENTS, &two[..], segment(1, 0, 8192, 1), "live_bytes"),
        (SEGMENTS, &two[..], segment(1, 1, 8193, 1), "live_bytes"),
        (SEGMENTS, &two[..], segment(1, 1, SEGMENT_BYTES, 1), "live_bytes"),
        (SEGMENTS, &two[..], segment(1, 1, u64::MAX - 4095, 1), "live_bytes"),
        (SEGMENTS, &two[..], segment(1, 1, 8192, 2), "live_shards"),
        (SEGMENTS, &two[..], segment(1, 1, 8192, 0), "live_shards"),
        (SEGMENTS, &two[..], segment(1, 1, 0, u64::MAX), "live_shards"),
        (SEGMENTS, &[0; 4][..], segment(1, 0, 0, 0), "segment"),
    ];
    for (table, key, value, field) in cases {
        let (kv, _) = stored();
        kv.plant(table, key, &value);
        let found = refusal(load(&kv)).unwrap_or_default();
        assert!(found.contains(&format!(": {field} is ")), "{table} {key:02x?} {value:02x?}: {found:?}");
    }
}

/// A row that everything else needs cannot be absent.
#[test]
fn missing_rows_are_found() {
    for (key, missing) in [(FORMAT_KEY, "format"), (DISK_KEY, "disk")] {
        let (kv, _) = stored();
        kv.uproot(LOG, key);
        assert!(matches!(load(&kv), Err(IndexProblem::Missing { row }) if row == missing));
    }
    let (kv, _) = stored();
    kv.uproot(SEGMENTS, &[0; 4]);
    assert_eq!(refusal(load(&kv)).as_deref(), Some("log: segment is 0"));
}

/// A shard's row that cannot be right is told of by whoever reads it, and never counted with.
#[test]
fn bad_shards_are_found_when_read() {
    let bad = |edit: fn(&mut Vec<u8>)| {
        let (kv, shard) = stored();
        let mut value = kv.rows(SHARDS)[&rows::shard_key(&shard)[..]].to_vec();
        edit(&mut value);
        kv.plant(SHARDS, &rows::shard_key(&shard), &value);
        let index = load(&kv).unwrap().index;
        let field = |refusal: Option<String>| Some(refusal?.split_once(" is ")?.0.to_owned());
        let removed = field(refusal(index.apply(changes(|c| c.remove(shard)))));
        assert_eq!(index.shards(), 1);
        (field(refusal(index.get(&shard))), removed)
    };
    let both = |field: &str| (Some(format!("shards: {field}")), Some(format!("shards: {field}")));
    assert_eq!(bad(|value| value.clear()), both("length"));
    assert_eq!(bad(|value| value.push(0)), both("length"));
    assert_eq!(bad(|value| value.truncate(39)), both("length"));
    assert_eq!(bad(|value| value[4..8].fill(0)), both("offset"));
    assert_eq!(bad(|value| value[4..8].fill(0xff)), both("offset"));
    assert_eq!(bad(|value| value[4..6].copy_from_slice(&[255, 0])), both("offset"));
    assert_eq!(bad(|value| value[8] = 3), both("bytes"));
    assert_eq!(bad(|value| value[8..12].fill(0xff)), both("bytes"));
    assert_eq!(bad(|value| value[20] = 0), both("shard_bytes"));
    assert_eq!(bad(|value| value[20] = 65), both("shard_bytes"));
    assert_eq!(bad(|value| value[20..24].fill(0xff)), both("shard_bytes"));
    assert_eq!(bad(|value| value[24..32].fill(0)), both("sequence"));
    assert_eq!(bad(|value| value[32..40].fill(0)), both("born"));
    assert_eq!(bad(|value| value[39] = 1), both("born"));
    // These can be read, and do not fit the segments.
    assert_eq!(bad(|value| value[0] = 1), (None, Some("segments: live_bytes".to_owned())));
    assert_eq!(bad(|value| value[0] = 9), (None, Some("shards: segment".to_owned())));
}

/// Keys that are none of a shard's end each listing that meets them.
#[test]
fn bad_keys_are_found_when_listed() {
    let (good, bad_slot) = (rows::shard_key(&name(1, 2, 3, 4)), rows::shard_key(&name(1, 2, 3, 24)));
    for key in [&good[..24], &[&good[..], &[0]].concat(), &bad_slot] {
        let (kv, _) = stored();
        kv.plant(SHARDS, key, &[]);
        let index = load(&kv).unwrap().index;
        assert!(refusal(index.of_group(GroupId(1), None, 9, |_| false)).is_some(), "{key:02x?}");
        assert!(refusal(index.of_extent(GroupId(1), ExtentId(2), 9, |_| true)).is_some(), "{key:02x?}");
        assert!(refusal(index.held(GroupId(1), None, ExtentId(9), 9)).is_some(), "{key:02x?}");
        assert_eq!(index.of_group(GroupId(2), None, 9, |_| true).unwrap(), []);
    }
    let (kv, _) = stored();
    kv.plant(SHARDS, &[0], &[]);
    assert_eq!(refusal(load(&kv).unwrap().index.groups()).as_deref(), Some("shards: length is 1"));
}

/// Changes after which the index could not be loaded, or would say what the log does not, are refused.
#[test]
fn bad_changes_are_refused() {
    let (kv, shard) = stored();
    let index = load(&kv).unwrap().index;
    let refused = |change: &dyn Fn(&mut Changes)| {
        let before = (index.segments(), index.position(), index.used_bytes());
        let found = refusal(index.apply(changes(|c| {
            c.set_position(position(0, 1, 9));
            change(c);
        })));
        assert_eq!((index.segments(), index.position(), index.used_bytes()), before);
        found.unwrap_or_default()
    };
    let other = name(1, 2, 3, 5);
    let put = |location: Location| refused(&|c| c.put(other, location));
    assert_eq!(put(at(2, 1, 2)), "shards: segment is 2");
    assert_eq!(put(at(0, 1, 10)), "shards: sequence is 10");
    assert_eq!(put(Location { offset: 4097, ..at(0, 1, 2) }), "shards: offset is 4097");
    let far = u64::MAX - 4095;
    assert_eq!(put(Location { offset: far, ..at(0, 1, 2) }), format!("shards: offset is {far}"));
    assert_eq!(put(Location { bytes: far, ..at(0, 1, 2) }), format!("shards: bytes is {far}"));
    assert_eq!(refused(&|c| c.put(name(1, 2, 3, 24), at(0, 3, 2))), "shards: slot is 24");
    let segment = |id, incarnation| refused(&|c| c.set_segment(SegmentId(id), incarnation, InLog));
    assert_eq!(segment(3, 0), "segments: incarnation is 0");
    assert_eq!(segment(1, 0), "segments: incarnation is 0");
    assert_eq!(segment(0, 2), "log: incarnation is 1");
    let freed = refused(&|c| {
        c.remove(shard);
        c.set_segment(SegmentId(0), 1, Free);
    });
    assert_eq!(freed, "log: segment is 0");
    assert_eq!(refused(&|c| c.set_position(position(0, 1, 0))), "log: sequence is 0");
    assert_eq!(refused(&|c| c.set_position(position(5, 1, 9))), "log: segment is 5");
    let crowded = |c: &mut Changes| {
        (0..128).for_each(|stripe| c.put(name(7, 7, stripe, 0), at(1, 1, 2)));
    };
    assert_eq!(refused(&crowded), "segments: live_bytes is 1048576");
    assert_eq!(index.get(&shard).unwrap(), Some(at(0, 1, 1)));
    assert_reloads(&kv, &index);
}

proptest! {
    /// Whatever stands in the store, nothing panics.
    #[test]
    fn no_bytes_panic(
        table in prop::sample::select(TABLES),
        key in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..30),
            prop::sample::select(vec![
                FORMAT_KEY.to_vec(),
                DISK_KEY.to_vec(),
                POSITION_KEY.to_vec(),
                vec![0; 4],
                rows::shard_key(&name(1, 2, 3, 4)),
            ]),
        ],
        value in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..50),
            prop::collection::vec(any::<u8>(), 25),
            prop::collection::vec(any::<u8>(), 28),
            prop::collection::vec(any::<u8>(), 40),
        ],
    ) {
        let (kv, shard) = stored();
        kv.plant(table, &key, &value);
        if let Ok(Loaded { index, .. }) = load(&kv) {
            let _ = index.get(&shard);
            let _ = index.groups();
            let _ = index.of_group(GroupId(1), Some(shard), 9, |_| true);
            let _ = index.held(GroupId(1), None, ExtentId(u128::MAX), 9);
            let _ = index.apply(changes(|c| c.remove(shard)));
            // What it took, it takes again.
            let sums = (index.segments(), index.used_bytes());
            let again = load(&kv).unwrap().index;
            prop_assert_eq!((again.segments(), again.used_bytes()), sums);
        }
    }
}
