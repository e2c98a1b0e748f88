//! Rows of an index that nobody wrote: see [`fuzzing`](crate::store::fuzzing).

use env::{Batch, KeyRange, Kv, KvRead, MemoryKv, Order, Table};
use proto::{ClusterId, DiskUuid, Epoch, ExtentId, GroupId, ShardName, SlotIndex, StripeIndex};

use super::rows::{
    DISK_KEY, FORMAT_KEY, LOG, Location, POSITION_KEY, Position, SEGMENTS, SHARDS, SegmentRow, SegmentState,
    check_disk, check_format, check_segment_bytes, encode_disk, parse_segment_key, parse_shard_key,
    segment_key, shard_key,
};
use super::{Changes, Index, Loaded, TABLES};
use crate::store::fuzzing::Input;
use crate::store::record::{Realm, SegmentId};

const REALM: Realm = Realm { cluster: ClusterId(0x0102), disk: DiskUuid(0xabcd), salt: 0x5a17 };
const SEGMENT_BYTES: u64 = 1 << 20;
/// Lengths of segments that rows are read with: the last is that of who does not know it.
const SIZES: [u64; 6] = [4 * 4096, 64 << 10, 1 << 20, 4 << 30, u32::MAX as u64 * 4096, u64::MAX];
const NAME: ShardName =
    ShardName { group: GroupId(1), extent: ExtentId(2), stripe: StripeIndex(3), slot: SlotIndex(4) };
/// Rows of one input.
const ROWS_MAX: usize = 64;

/// One key or value; the first byte says how long segments are.
pub fn index_rows(bytes: &[u8]) {
    let mut input = Input(bytes);
    let size = SIZES[usize::from(input.u8()) % SIZES.len()];
    let row = input.0;
    if let Ok(found) = Location::decode(row, size) {
        let end = found.offset.checked_add(found.bytes);
        assert!(found.offset >= 4096 && end.is_some_and(|end| end <= size), "{found:?}");
        assert!(found.bytes > u64::from(found.shard_bytes) && found.born <= found.sequence, "{found:?}");
        assert_eq!(found.encode(size).ok().as_deref(), Some(row), "{found:?}");
    }
    if let Ok(found) = SegmentRow::decode(row, size) {
        assert!(found.incarnation > 0 && found.live_bytes < size, "{found:?}");
        assert!(found.live_shards <= found.live_bytes / 8192, "{found:?}");
        assert_eq!(found.encode(size).ok().as_deref(), Some(row), "{found:?}");
    }
    if let Ok(found) = Position::decode(row) {
        assert_eq!(found.encode(), row, "{found:?}");
        let incarnation = found.incarnation;
        let segment = SegmentRow { incarnation, state: SegmentState::InLog, live_bytes: 0, live_shards: 0 };
        let is_inside = found.end >= 4096 && found.end <= size;
        assert!(found.check(Some(&segment), size).is_err() || is_inside, "{found:?}");
        assert!(found.check(None, size).is_err());
    }
    if let Ok(found) = parse_shard_key(row) {
        assert_eq!(shard_key(&found), row, "{found}");
    }
    if let Ok(found) = parse_segment_key(row) {
        assert_eq!(segment_key(found), row, "{found}");
    }
    if check_disk(row, &REALM, size).is_ok() {
        assert_eq!(encode_disk(&REALM, size), row);
    }
    if check_format(row).is_ok() {
        assert_eq!(row, [1, 0, 0, 0]);
    }
    if let Ok(number) = <[u8; 8]>::try_from(row).map(u64::from_le_bytes)
        && check_segment_bytes(number).is_ok()
    {
        assert!(number >= SIZES[0] && number.is_multiple_of(4096), "segments of {number} bytes");
    }
}

/// An index of which rows were added, replaced and removed: it is refused, or loaded, read, changed and loaded again.
///
/// Of each row the first byte says which table and what to do, then come key and value, each behind its length.
pub fn index(bytes: &[u8]) {
    let Some(kv) = stored() else { return };
    let mut input = Input(bytes);
    let mut batch = Batch::new();
    for _ in 0..ROWS_MAX {
        if input.is_empty() {
            break;
        }
        let what = input.u8();
        let table = TABLES[usize::from(what) % TABLES.len()];
        let (table, key): (Table, Vec<u8>) = match what >> 4 {
            0 => (LOG, FORMAT_KEY.to_vec()),
            1 => (LOG, DISK_KEY.to_vec()),
            2 => (LOG, POSITION_KEY.to_vec()),
            3 => (SHARDS, shard_key(&NAME)),
            4 => (SEGMENTS, segment_key(SegmentId(input.u8().into())).to_vec()),
            5 => {
                batch.delete(table, input.string().to_vec());
                continue;
            }
            _ => (table, input.string().to_vec()),
        };
        batch.put(table, key, input.string().to_vec());
    }
    if kv.write(batch).is_err() {
        return;
    }
    let Ok(Loaded { index, .. }) = Index::load(kv.clone(), &REALM, SEGMENT_BYTES) else { return };
    look(&index);
    let segments = index.segments();
    let Ok(loaded) = Index::load(kv, &REALM, SEGMENT_BYTES) else {
        unreachable!("what was taken is refused after changes: {segments:?}");
    };
    let sums = |index: &Index<MemoryKv>| (index.segments(), index.used_bytes(), index.shards());
    assert_eq!(sums(&loaded.index), sums(&index));
}

/// Reads everything, in every way, and deletes what can be deleted.
fn look(index: &Index<MemoryKv>) {
    let rows = index.segments();
    let live = |of: fn(&SegmentRow) -> u64| rows.values().map(of).fold(0, u64::saturating_add);
    assert_eq!(index.used_bytes(), live(|row| row.live_bytes));
    assert_eq!(index.shards(), live(|row| row.live_shards));
    let groups = index.groups().unwrap_or_default();
    for group in groups.into_iter().chain([NAME.group]) {
        let names = index.of_group(group, None, 100, |_| true).unwrap_or_default();
        assert!(names.is_sorted() && names.iter().all(|name| name.group == group), "{names:?}");
        let _ = index.of_group(group, names.first().copied(), 2, |_| false);
        let _ = index.held(group, None, ExtentId(u128::MAX), 2);
        let _ = index.of_extent(group, NAME.extent, 9, |_| true);
        for name in names {
            if let Ok(Some(at)) = index.get(&name) {
                assert!(at.offset.saturating_add(at.bytes) <= SEGMENT_BYTES, "{at:?}");
            }
            let mut changes = Changes::new();
            changes.remove(name);
            let _ = index.apply(changes);
        }
    }
    for segment in rows.keys() {
        let _ = index.shards_in(*segment, 9);
    }
}

/// The rows of an index of one shard, in segment 0 at sequence 1.
fn stored() -> Option<MemoryKv> {
    let kv = MemoryKv::new(TABLES);
    let index = Index::create(kv.clone(), &REALM, SEGMENT_BYTES).ok()?;
    let (segment, incarnation) = (SegmentId(0), 1);
    let location = Location {
        segment,
        offset: 4096,
        bytes: 8192,
        epoch: Epoch(3),
        shard_bytes: 64,
        sequence: 1,
        born: 1,
    };
    let mut changes = Changes::new();
    changes.set_segment(segment, incarnation, SegmentState::InLog);
    changes.put(NAME, location);
    changes.set_position(Position { segment, incarnation, end: 3 * 4096, sequence: 1 });
    index.apply(changes).ok()?;
    assert!(kv.scan(SHARDS, &KeyRange::all(), Order::Ascending, 2).is_ok_and(|rows| rows.len() == 1));
    Some(kv)
}
