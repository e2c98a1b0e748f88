//! The index on a store in memory: rows, accounting, listings, and what a store may do to it. Random
//! changes are in [`model`].

mod hostile;
mod model;

use proto::{ClusterId, DiskUuid, Epoch, ExtentId, GroupId, SlotIndex, StripeIndex};

use super::SegmentState::{Free, InLog, Leaving};
use super::*;
use crate::store::Held;
use crate::store::testing::MemKv;

const REALM: Realm = Realm {
    cluster: ClusterId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
    disk: DiskUuid(0xabcd),
    salt: 0x1122_3344_5566_7788,
};
const SEGMENT_BYTES: u64 = 1 << 20;

fn name(group: u32, extent: u128, stripe: u32, slot: u8) -> ShardName {
    ShardName {
        group: GroupId(group),
        extent: ExtentId(extent),
        stripe: StripeIndex(stripe),
        slot: SlotIndex(slot),
    }
}

/// A shard of one page in `segment`.
fn at(segment: u32, page: u64, sequence: u64) -> Location {
    Location {
        segment: SegmentId(segment),
        offset: page * 4096,
        bytes: 8192,
        epoch: Epoch(3),
        shard_bytes: 64,
        sequence,
        born: sequence,
    }
}

fn position(segment: u32, incarnation: u64, sequence: u64) -> Position {
    Position { segment: SegmentId(segment), incarnation, end: 8192, sequence }
}

fn row(incarnation: u64, state: SegmentState, live_bytes: u64, live_shards: u64) -> SegmentRow {
    SegmentRow { incarnation, state, live_bytes, live_shards }
}

fn load(kv: &MemKv) -> Result<Loaded<MemKv>, IndexProblem> {
    Index::load(kv.clone(), &REALM, SEGMENT_BYTES)
}

fn changes(change: impl FnOnce(&mut Changes)) -> Changes {
    let mut changes = Changes::new();
    change(&mut changes);
    changes
}

/// An index with the segments 0 and 1 in the log, and its store.
fn fresh() -> (MemKv, Index<MemKv>) {
    let kv = MemKv::new(TABLES);
    let loaded = load(&kv).unwrap();
    assert_eq!(loaded.position, None);
    let first = changes(|c| {
        c.set_segment(SegmentId(0), 1, InLog);
        c.set_segment(SegmentId(1), 1, InLog);
        c.set_position(position(0, 1, 0));
    });
    loaded.index.apply(first).unwrap();
    (kv, loaded.index)
}

/// What is wrong with a row or a change, as `table: field is value`; none when all is well, or the store
/// itself has failed.
fn refusal<T>(result: Result<T, IndexProblem>) -> Option<String> {
    match result {
        Err(IndexProblem::Row { table, field, found }) => Some(format!("{table}: {field} is {found}")),
        _ => None,
    }
}

/// What is in memory is what a restart would find.
fn assert_reloads(kv: &MemKv, index: &Index<MemKv>) {
    let again = load(kv).unwrap();
    assert_eq!(again.position, index.position());
    assert_eq!(again.index.segments(), index.segments());
    assert_eq!(again.index.used_bytes(), index.used_bytes());
    assert_eq!(again.index.shards(), index.shards());
}

/// The bytes in the store never change.
#[test]
fn golden_rows() {
    let (kv, index) = fresh();
    let location = Location {
        segment: SegmentId(0x0001_0203),
        offset: 0x15 * 4096,
        bytes: 0x03 * 4096,
        epoch: Epoch(0x3132_3334_3536_3738),
        shard_bytes: 0x1040,
        sequence: 0x5152_5354_5556_5758,
        born: 0x4142_4344_4546_4748,
    };
    let there = Position {
        segment: SegmentId(0x0001_0203),
        incarnation: 0x6162_6364_6566_6768,
        end: 0x7000,
        sequence: 0x7172_7374_7576_7778,
    };
    let change = changes(|c| {
        c.set_segment(location.segment, there.incarnation, Leaving);
        c.put(name(0x0a0b_0c0d, 0x1112_1314, 0x2122_2324, 0x17), location);
        c.set_position(there);
    });
    index.apply(change).unwrap();

    let shards = kv.rows(SHARDS);
    let (key, value) = shards.first_key_value().unwrap();
    #[rustfmt::skip]
    assert_eq!(key[..], [
        0x0a, 0x0b, 0x0c, 0x0d,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11, 0x12, 0x13, 0x14,
        0x21, 0x22, 0x23, 0x24,
        0x17,
    ]);
    #[rustfmt::skip]
    assert_eq!(value[..], [
        0x03, 0x02, 0x01, 0,
        0x15, 0, 0, 0,
        0x03, 0, 0, 0,
        0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31,
        0x40, 0x10, 0, 0,
        0x58, 0x57, 0x56, 0x55, 0x54, 0x53, 0x52, 0x51,
        0x48, 0x47, 0x46, 0x45, 0x44, 0x43, 0x42, 0x41,
    ]);
    let segment = &kv.rows(SEGMENTS)[&[0_u8, 1, 2, 3][..]];
    #[rustfmt::skip]
    assert_eq!(segment[..], [
        0x68, 0x67, 0x66, 0x65, 0x64, 0x63, 0x62, 0x61,
        2,
        0, 0x30, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, 0, 0, 0, 0,
    ]);
    let log = kv.rows(LOG);
    assert_eq!(log.len(), 3);
    assert_eq!(log[&b"format"[..]][..], [1, 0, 0, 0]);
    #[rustfmt::skip]
    assert_eq!(log[&b"disk"[..]][..], [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0xcd,
        0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
        0, 0, 0x10, 0, 0, 0, 0, 0,
    ]);
    #[rustfmt::skip]
    assert_eq!(log[&b"position"[..]][..], [
        0x03, 0x02, 0x01, 0,
        0x68, 0x67, 0x66, 0x65, 0x64, 0x63, 0x62, 0x61,
        0, 0x70, 0, 0, 0, 0, 0, 0,
        0x78, 0x77, 0x76, 0x75, 0x74, 0x73, 0x72, 0x71,
    ]);
    assert_reloads(&kv, &index);
}

/// Of many changes about one shard or segment the last counts, and what lives in segments follows.
#[test]
fn the_last_change_counts() {
    let (kv, index) = fresh();
    let (a, b) = (name(1, 1, 0, 0), name(1, 1, 0, 1));
    let many = changes(|c| {
        c.put(a, at(0, 1, 1));
        c.remove(a);
        c.remove(b);
        c.put(b, at(0, 3, 2));
        c.put(b, at(1, 1, 3));
        c.set_segment(SegmentId(7), 1, InLog);
        c.set_segment(SegmentId(7), 2, Free);
        c.set_position(position(1, 1, 3));
        assert_eq!(c.len(), 2);
    });
    index.apply(many).unwrap();
    assert_eq!((index.get(&a).unwrap(), index.get(&b).unwrap()), (None, Some(at(1, 1, 3))));
    assert_eq!(index.segment(SegmentId(0)), Some(row(1, InLog, 0, 0)));
    assert_eq!(index.segment(SegmentId(1)), Some(row(1, InLog, 8192, 1)));
    assert_eq!(index.segment(SegmentId(7)), Some(row(2, Free, 0, 0)));
    assert_eq!((index.used_bytes(), index.shards()), (8192, 1));
    assert_reloads(&kv, &index);

    let removal = changes(|c| {
        c.put(b, at(0, 1, 4));
        c.remove(b);
        c.remove(a);
        c.set_position(position(1, 1, 4));
    });
    index.apply(removal).unwrap();
    assert_eq!(index.get(&b).unwrap(), None);
    assert_eq!((index.used_bytes(), index.shards()), (0, 0));
    assert_reloads(&kv, &index);
}

/// A segment is emptied and freed in one step; with something left in it, it is not.
#[test]
fn only_empty_segments_are_freed() {
    let (kv, index) = fresh();
    let (a, b) = (name(1, 1, 0, 0), name(2, 1, 0, 1));
    let put = changes(|c| {
        c.put(a, at(1, 1, 1));
        c.put(b, at(1, 3, 2));
        c.set_position(position(0, 1, 2));
    });
    index.apply(put).unwrap();
    let mut free = changes(|c| {
        c.put(a, Location { born: 1, ..at(0, 1, 3) });
        c.set_segment(SegmentId(1), 2, Free);
        c.set_position(position(0, 1, 3));
    });
    assert_eq!(refusal(index.apply(free.clone())).as_deref(), Some("segments: live_bytes is 8192"));
    assert_eq!(index.get(&a).unwrap(), Some(at(1, 1, 1)));
    free.remove(b);
    index.apply(free).unwrap();
    assert_eq!(index.segment(SegmentId(1)), Some(row(2, Free, 0, 0)));
    assert_eq!(index.segment(SegmentId(0)), Some(row(1, InLog, 8192, 1)));
    assert_reloads(&kv, &index);
}

/// What lies in a segment is found, a few at a time and without a scan when nothing does; only then can the
/// segment go.
#[test]
fn segments_are_emptied_and_removed() {
    let (kv, index) = fresh();
    let all = [name(1, 1, 0, 0), name(2, 1, 0, 1), name(u32::MAX, 9, 9, 23)];
    let put = changes(|c| {
        c.put(all[0], at(1, 1, 1));
        c.put(all[1], at(0, 1, 2));
        c.put(all[2], at(1, 3, 3));
        c.set_position(position(0, 1, 3));
    });
    index.apply(put).unwrap();
    let removal = changes(|c| c.remove_segment(SegmentId(1)));
    assert_eq!(refusal(index.apply(removal.clone())).as_deref(), Some("segments: live_bytes is 16384"));
    let position_goes = changes(|c| {
        c.remove(all[1]);
        c.remove_segment(SegmentId(0));
    });
    assert_eq!(refusal(index.apply(position_goes)).as_deref(), Some("log: segment is 0"));
    assert_eq!(index.shards_in(SegmentId(1), 9).unwrap(), [all[0], all[2]]);
    assert_eq!(index.shards_in(SegmentId(1), 1).unwrap(), [all[0]]);
    for name in [all[0], all[2]] {
        index.apply(changes(|c| c.remove(name))).unwrap();
    }
    kv.take_scans();
    assert_eq!((index.shards_in(SegmentId(1), 9).unwrap(), kv.take_scans()), (vec![], BTreeMap::new()));
    index.apply(removal.clone()).unwrap();
    index.apply(removal).unwrap();
    assert_eq!((index.segment(SegmentId(1)), kv.rows(SEGMENTS).len()), (None, 1));
    assert_reloads(&kv, &index);
}

/// When the store fails nothing has changed, in memory as little as in the store; later it works.
#[test]
fn a_failed_write_changes_nothing() {
    let (kv, index) = fresh();
    let change = changes(|c| {
        c.put(name(1, 1, 0, 0), at(0, 1, 1));
        c.set_segment(SegmentId(5), 1, InLog);
        c.set_position(position(0, 1, 1));
    });
    let before = index.segments();
    for (failing, full) in [(true, false), (false, true)] {
        kv.set_failing(failing);
        kv.set_full(full);
        let refused = index.apply(change.clone());
        assert!(refused.is_err() && refusal(refused).is_none());
        assert!(index.wipe().is_err());
        kv.set_failing(false);
        kv.set_full(false);
        assert_eq!((index.segments(), index.position()), (before.clone(), Some(position(0, 1, 0))));
        assert_reloads(&kv, &index);
    }
    let batches = kv.pending();
    index.apply(change).unwrap();
    assert_eq!(kv.pending(), batches + 1, "one batch");
    index.apply(changes(|c| c.remove(name(9, 9, 9, 9)))).unwrap();
    assert_eq!(kv.pending(), batches + 1, "nothing to write");
    assert_eq!(index.shards(), 1);
}

/// Nothing is left after a wipe, nor of an index that never came to a position.
#[test]
fn wiped_and_unfinished_indexes_are_empty() {
    let (kv, index) = fresh();
    let change = changes(|c| {
        c.put(name(1, 1, 0, 0), at(0, 1, 1));
        c.set_position(position(0, 1, 1));
    });
    index.apply(change).unwrap();
    index.wipe().unwrap();
    assert_eq!((index.shards(), index.used_bytes(), index.position()), (0, 0, None));
    assert_eq!((kv.rows(SHARDS).len(), kv.rows(SEGMENTS).len(), kv.rows(LOG).len()), (0, 0, 2));

    // As a rebuild does it: the position comes last.
    let unfinished = changes(|c| {
        c.set_segment(SegmentId(3), 4, InLog);
        c.put(name(1, 1, 0, 0), at(3, 1, 77));
    });
    index.apply(unfinished).unwrap();
    assert_eq!((index.shards(), index.position()), (1, None));
    let again = load(&kv).unwrap();
    assert_eq!((again.position, again.index.shards()), (None, 0));
    assert_eq!((kv.rows(SHARDS).len(), kv.rows(SEGMENTS).len()), (0, 0));
}

/// Listings stay within their group and extent, whatever the cursor, up to the ends of all ids.
#[test]
fn ranges_are_kept() {
    let (_, index) = fresh();
    let (max, all_extents) = (u32::MAX, u128::MAX);
    let all = [
        name(1, 9, 0, 0),
        name(2, 0, 0, 0),
        name(2, 5, 0, 0),
        name(2, 5, 1, 23),
        name(3, 0, 0, 0),
        name(max, all_extents, max, 23),
    ];
    let put = changes(|c| {
        for (place, name) in (0_u64..).zip(all) {
            c.put(name, at(0, 1 + 2 * place, place + 1));
        }
        c.set_position(position(0, 1, 6));
    });
    index.apply(put).unwrap();
    let group = |after, limit| index.of_group(GroupId(2), after, limit, |_| true).unwrap();
    assert_eq!(group(None, 9), all[1..4]);
    assert_eq!(group(None, 2), all[1..3]);
    assert_eq!(group(None, 0), []);
    assert_eq!(group(Some(all[1]), 9), all[2..4]);
    assert_eq!(group(Some(all[0]), 9), all[1..4]);
    assert_eq!(group(Some(all[4]), 9), []);
    assert_eq!(index.of_extent(GroupId(2), ExtentId(5), 9, |n| n.slot.0 == 23).unwrap(), all[3..4]);
    let last = |after| index.of_group(GroupId(max), after, 9, |_| true).unwrap();
    assert_eq!((last(None), last(Some(all[5]))), (vec![all[5]], vec![]));
    assert_eq!(index.of_extent(GroupId(max), ExtentId(all_extents), 9, |_| true).unwrap(), all[5..]);
    assert_eq!(index.groups().unwrap(), [1, 2, 3, max].map(GroupId));
    let stripes = vec![StripeIndex(max)];
    let held = Held { extent: ExtentId(all_extents), slot: SlotIndex(23), stripes };
    let page = |after| index.held(GroupId(max), after, ExtentId(all_extents), 9).unwrap();
    assert_eq!(page(Some(ExtentId(all_extents - 1))), (vec![held], false));
    assert_eq!(page(Some(ExtentId(all_extents))), (vec![], false));
}

/// Listings of thousands are whole, and neither they nor a start read more than a page at once; a start
/// does not scan the shards at all, and groups are found with seeks.
#[test]
fn reads_are_paged() {
    let kv = MemKv::new(TABLES);
    let index = Index::create(kv.clone(), &REALM, 32 << 20).unwrap();
    let put = changes(|c| {
        (0..1500).for_each(|segment| c.set_segment(SegmentId(segment), 1, InLog));
        for place in 0..2500_u32 {
            let place_wide = u64::from(place);
            c.put(name(4, u128::from(place / 1100), place, 1), at(0, 1 + 2 * place_wide, 1 + place_wide));
        }
        c.put(name(6, 0, 0, 0), at(1, 1, 2501));
        c.set_position(position(0, 1, 2501));
    });
    index.apply(put).unwrap();
    kv.take_scans();

    assert_eq!(index.groups().unwrap(), [GroupId(4), GroupId(6)]);
    assert_eq!(kv.take_scans()[SHARDS], 1);
    let all = index.of_group(GroupId(4), None, usize::MAX, |_| true).unwrap();
    assert_eq!(all.len(), 2500);
    let rare = |name: &ShardName| name.stripe.0 % 1000 == 999;
    assert_eq!(index.of_group(GroupId(4), None, 2, rare).unwrap(), [all[999], all[1999]]);
    let (held, more) = index.held(GroupId(4), None, ExtentId(2), 2000).unwrap();
    let stripes: Vec<usize> = held.iter().map(|held| held.stripes.len()).collect();
    assert_eq!((stripes, more), (vec![1100, 1100], true));
    assert_eq!(kv.take_scans()[SHARDS], 1024);

    let again = Index::load(kv.clone(), &REALM, 32 << 20).unwrap().index;
    assert_eq!(kv.take_scans(), BTreeMap::from([(SEGMENTS, 1024)]));
    assert_eq!((again.segments(), again.shards()), (index.segments(), 2501));
}
