//! Records as bytes: golden ones, there and back, and everything that is to be refused.

use proptest::prelude::*;
use proto::{ClusterId, DiskUuid, SlotIndex};

use super::*;
use crate::block::{BlockProblem, FIELDS_AT};

const REALM: Realm = Realm { cluster: ClusterId(1), disk: DiskUuid(2), salt: 0x1122_3344_5566_7788 };
const PLACE: Place = Place { segment: SegmentId(0x2a), incarnation: 3, offset: 8192 };

fn record(body: Body) -> Record {
    Record { place: PLACE, sequence: 0x0102, previous: 0x0101, durable_to: 0xff, body }
}

fn shard_meta() -> ShardMeta {
    let (extent, stripe) = (ExtentId(4), StripeIndex(5));
    ShardMeta {
        name: ShardName { group: GroupId(0x0a0b), extent, stripe, slot: SlotIndex(6) },
        epoch: Epoch(7),
        tenant_tag: TenantTag(8),
        profile: ProfileId(9),
        matrix: 10,
        born: 11,
        shard_bytes: 65_536 + 64,
        from: Some((SegmentId(0x29), 13)),
        hint: Bytes::from_static(b"hint"),
        block_crcs: vec![0x1122_3344, 0x5566_7788],
    }
}

fn shard() -> Record {
    record(Body::Shard(shard_meta()))
}

/// The same shard, but not copied from anywhere.
fn original() -> Record {
    record(Body::Shard(ShardMeta { from: None, ..shard_meta() }))
}

fn tombstones() -> Record {
    record(Body::Tombstones { count: 86, payload_crc: 0x99aa_bbcc })
}

fn seal() -> Record {
    record(Body::Seal { next: SegmentId(0x2b), next_incarnation: 12 })
}

fn encode(record: &Record) -> Vec<u8> {
    let mut page = vec![0xff; PAGE_BYTES];
    record.encode(&REALM, &mut page);
    page
}

fn decode(page: &[u8]) -> Result<Record, RecordProblem> {
    Record::decode(&REALM, &PLACE, page)
}

/// The page with `bytes` at `at`, under a right checksum.
fn patched(mut page: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    page[at..at + bytes.len()].copy_from_slice(bytes);
    let fields = page[FIELDS_AT..].to_vec();
    let mut block = BlockWriter::new(&mut page, MAGIC, VERSION);
    block.bytes(&fields);
    block.seal();
    page
}

/// A golden page: the same beginning for all, then the kind and the body.
fn golden(crc: u32, kind: u8, body: &[&[u8]]) -> Vec<u8> {
    let mut page = Vec::new();
    page.extend_from_slice(b"CADOLErc\x01\0\0\0");
    page.extend_from_slice(&crc.to_le_bytes());
    page.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    page.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    page.extend_from_slice(&[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
    page.extend_from_slice(&[0x2a, 0, 0, 0, kind, 0, 0, 0]);
    page.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0]);
    page.extend_from_slice(&[2, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0]);
    for part in body {
        page.extend_from_slice(part);
    }
    page.resize(PAGE_BYTES, 0);
    page
}

/// The bytes on the disk never change.
#[test]
fn golden_bytes() {
    let shard_body: &[&[u8]] = &[
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4],
        &[0x0b, 0x0a, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 9, 0, 0, 0, 10, 0, 0, 0, 64, 0, 1, 0],
        &[7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0],
        &[2, 0, 0, 0, 4, 0, 0, 0],
        &[0x44, 0x33, 0x22, 0x11, 0x88, 0x77, 0x66, 0x55],
        &[0; 62 * 4],
        b"hint",
        &[0; 2044],
    ];
    let source: &[u8] = &[0x29, 0, 0, 0, 0, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0];
    let copy_body = [shard_body, &[source]].concat();
    let tombstones_body: &[&[u8]] = &[&[86, 0, 0, 0, 0xcc, 0xbb, 0xaa, 0x99]];
    let seal_body: &[&[u8]] = &[&[0x2b, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0]];
    for (record, expected) in [
        (shard(), golden(0x78f3_de8a, 1, &copy_body)),
        (original(), golden(0x80e1_9bfe, 1, shard_body)),
        (tombstones(), golden(0xe683_b94a, 2, tombstones_body)),
        (seal(), golden(0xbd81_dad7, 3, seal_body)),
    ] {
        let page = encode(&record);
        assert!(page == expected, "{record:?}: {:02x?} {:02x?}", &page[..448], &page[2464..2512]);
        assert_eq!(decode(&expected), Ok(record));
    }
}

/// Each kind takes the pages that are drawn, and the next record begins after them.
#[test]
fn lengths() {
    let tombstones = |count| record(Body::Tombstones { count, payload_crc: 0 });
    for (record, payload_bytes) in [
        (shard(), 17 * 4096),
        (tombstones(85), 4096),
        (tombstones(86), 2 * 4096),
        (tombstones(1024), 12 * 4096),
        (seal(), 0),
    ] {
        assert_eq!(record.payload_bytes(), payload_bytes, "{record:?}");
        assert_eq!(record.bytes(), 4096 + payload_bytes, "{record:?}");
        assert_eq!(record.end(), 8192 + 4096 + payload_bytes, "{record:?}");
    }
}

/// Every flipped bit of a page is found.
#[test]
fn every_flipped_bit_is_found() {
    let mut page = encode(&shard());
    for at in 0..PAGE_BYTES {
        for bit in 0..8 {
            page[at] ^= 1 << bit;
            let found = decode(&page);
            assert!(matches!(found, Err(RecordProblem::Block(_))), "byte {at} bit {bit}: {found:?}");
            page[at] ^= 1 << bit;
        }
    }
    assert_eq!(decode(&page), Ok(shard()));
}

/// A page of a version of which nothing is known but the realm.
fn of_version(version: u32, realm: &Realm) -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES];
    let mut block = BlockWriter::new(&mut page, MAGIC, version);
    realm.write(&mut block);
    block.seal();
    page
}

/// Who does not know the salt writes no page of a later version either: it is foreign, whatever version it names.
#[test]
fn later_versions_need_the_salt() {
    for version in [0, 2, u32::MAX] {
        let page = of_version(version, &Realm { salt: 5, ..REALM });
        assert_eq!(decode(&page), Err(RecordProblem::Foreign(Foreign::Salt)), "version {version}");
    }
}

/// Pages of zeros, of another length, of another kind and of a newer version are refused as what they are.
#[test]
fn what_is_no_record() {
    let block = |problem: BlockProblem| Err(RecordProblem::Block(problem));
    let page = encode(&seal());
    assert_eq!(decode(&[0; PAGE_BYTES]), block(BlockProblem::Magic { found: [0; 8] }));
    assert_eq!(decode(&page[..4095]), block(BlockProblem::Length { found: 4095 }));
    let header =
        SegmentHeader { segment: PLACE.segment, incarnation: 3, segment_bytes: 1 << 18, durable_to: 0 };
    let header = header.encode(&REALM);
    assert_eq!(decode(header.as_slice()), block(BlockProblem::Magic { found: *b"CADOLEsg" }));
    let newer = of_version(2, &REALM);
    assert_eq!(decode(&newer), block(BlockProblem::NewerVersion { found: 2, known: 1 }));
    assert!(decode(&newer).is_err_and(|problem| problem.is_newer()));
    assert!(decode(&[0; PAGE_BYTES]).is_err_and(|problem| !problem.is_newer()));
    assert_eq!(decode(&of_version(0, &REALM)), block(BlockProblem::Field { field: "version", found: 0 }));
}

/// A record is one only where it was written: elsewhere the difference is named, nearest the disk first.
#[test]
fn elsewhere_it_is_foreign() {
    let page = encode(&tombstones());
    let foreign = |realm: Realm, place: Place, expected: Foreign| {
        assert_eq!(Record::decode(&realm, &place, &page), Err(RecordProblem::Foreign(expected)));
    };
    let disk = Foreign::Disk { cluster: ClusterId(1), disk: DiskUuid(2) };
    foreign(Realm { cluster: ClusterId(5), ..REALM }, PLACE, disk.clone());
    foreign(Realm { disk: DiskUuid(5), salt: 5, ..REALM }, PLACE, disk);
    let elsewhere = Place { segment: SegmentId(5), incarnation: 5, offset: 4096 };
    foreign(Realm { salt: 5, ..REALM }, elsewhere, Foreign::Salt);
    foreign(REALM, elsewhere, Foreign::Segment { found: PLACE.segment, expected: SegmentId(5) });
    let elsewhere = Place { segment: PLACE.segment, ..elsewhere };
    foreign(REALM, elsewhere, Foreign::Offset { found: 8192, expected: 4096 });
    let later = Place { incarnation: 5, ..PLACE };
    foreign(REALM, later, Foreign::Incarnation { found: 3, expected: 5 });
}

/// A whole record in its place that breaks a rule of its fields is refused, and says which field.
#[test]
fn impossible_fields_are_refused() {
    let refused = |record: Record, at: usize, bytes: &[u8], field: &'static str, found: u64| {
        let page = patched(encode(&record), at, bytes);
        assert_eq!(decode(&page), Err(RecordProblem::Field { field, found }), "at {at}");
    };
    refused(seal(), 60, &[0], "kind", 0);
    refused(seal(), 60, &[4], "kind", 4);
    refused(seal(), 80, &[0, 0], "sequence", 0);
    refused(seal(), 80, &u64::MAX.to_le_bytes(), "sequence", u64::MAX);
    refused(seal(), 88, &[2], "previous", 0x0102);
    refused(seal(), 96, &[2, 1], "durable to", 0x0102);
    refused(seal(), 112, &[0], "next incarnation", 0);
    refused(tombstones(), 104, &[0], "count", 0);
    refused(tombstones(), 104, &[1, 4], "count", 1025);
    refused(shard(), 128, &[24], "slot", 24);
    refused(shard(), 128, &[0, 1], "slot", 256);
    refused(shard(), 140, &[0, 0, 0, 0], "shard length", 0);
    refused(shard(), 140, &[65], "shard length", 65_536 + 65);
    refused(shard(), 140, &[64, 0, 0x40], "shard length", (4 << 20) + 64);
    refused(shard(), 140, &[0], "blocks", 2);
    refused(shard(), 160, &[0], "born", 0);
    refused(shard(), 160, &[3, 1], "born", 0x0103);
    refused(shard(), 168, &[1], "blocks", 1);
    refused(shard(), 168, &[0xff; 4], "blocks", u64::from(u32::MAX));
    refused(shard(), 172, &[1, 8], "hint length", 2049);
}

/// Without an incarnation there is no source, whatever segment stands before it.
#[test]
fn no_incarnation_is_no_source() {
    assert_eq!(decode(&patched(encode(&shard()), 2488, &[0])), Ok(original()));
    assert_eq!(decode(&patched(encode(&original()), 2480, &[0x29])), Ok(original()));
}

/// A page for the beginning of the segment, where its header stands, is never a record.
#[test]
fn the_header_is_no_place_for_a_record() {
    for offset in [0, 8193] {
        let page = patched(encode(&seal()), 72, &u64::to_le_bytes(offset));
        let found = Record::decode(&REALM, &Place { offset, ..PLACE }, &page);
        assert_eq!(found, Err(RecordProblem::Field { field: "offset", found: offset }));
    }
}

/// What could not be read again is not written.
#[test]
#[should_panic(expected = "hint length")]
fn impossible_records_are_not_written() {
    let hint = Bytes::from(vec![0; HINT_BYTES_MAX + 1]);
    encode(&record(Body::Shard(ShardMeta { hint, ..shard_meta() })));
}

/// Nor a source that would be read as none.
#[test]
#[should_panic(expected = "from incarnation")]
fn impossible_sources_are_not_written() {
    encode(&record(Body::Shard(ShardMeta { from: Some((SegmentId(0x29), 0)), ..shard_meta() })));
}

prop_compose! {
    /// Any shard; `born` is still to be brought below the record's sequence.
    fn any_shard()(
        (group, extent, stripe) in any::<(u32, u128, u32)>(),
        slot in 0..24_u8,
        (epoch, tenant_tag, profile, matrix, born) in any::<(u64, u64, u32, u32, u64)>(),
        lines in 1..=65_536_u32,
        from in prop::option::of((any::<u32>(), 1..=u64::MAX)),
        hint in prop::collection::vec(any::<u8>(), 0..=HINT_BYTES_MAX),
        crc: u32,
    ) -> Body {
        let shard_bytes = lines * 64;
        let (group, extent, stripe) = (GroupId(group), ExtentId(extent), StripeIndex(stripe));
        Body::Shard(ShardMeta {
            name: ShardName { group, extent, stripe, slot: SlotIndex(slot) },
            epoch: Epoch(epoch),
            tenant_tag: TenantTag(tenant_tag),
            profile: ProfileId(profile),
            matrix,
            born,
            shard_bytes,
            from: from.map(|(segment, incarnation)| (SegmentId(segment), incarnation)),
            hint: hint.into(),
            block_crcs: (1..=shard_bytes.div_ceil(65_536)).map(|index| crc.wrapping_mul(index)).collect(),
        })
    }
}

fn any_body() -> impl Strategy<Value = Body> {
    let tombstones =
        (1..=1024_u32, any::<u32>()).prop_map(|(count, payload_crc)| Body::Tombstones { count, payload_crc });
    let seal = (any::<u32>(), 1..=u64::MAX)
        .prop_map(|(next, next_incarnation)| Body::Seal { next: SegmentId(next), next_incarnation });
    prop_oneof![3 => any_shard(), 1 => tombstones, 1 => seal]
}

prop_compose! {
    fn any_record()(
        segment: u32,
        incarnation in 1..=u64::MAX,
        page in 1..1_u64 << 50,
        sequence in 1..=SEQUENCE_MAX,
        (previous, durable_to) in any::<(u64, u64)>(),
        mut body in any_body(),
    ) -> Record {
        if let Body::Shard(shard) = &mut body {
            shard.born = 1 + shard.born % sequence;
        }
        Record {
            place: Place { segment: SegmentId(segment), incarnation, offset: page * 4096 },
            sequence,
            previous: previous % sequence,
            durable_to: durable_to % sequence,
            body,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Records go to the disk and back, at their place alone.
    #[test]
    fn records_round_trip(
        record in any_record(),
        (cluster, disk) in any::<(u128, u128)>(),
        salt: u64,
        other: u64,
    ) {
        let realm = Realm { cluster: ClusterId(cluster), disk: DiskUuid(disk), salt };
        let mut page = vec![0xff; PAGE_BYTES];
        record.encode(&realm, &mut page);
        let place = record.place;
        prop_assert_eq!(Record::decode(&realm, &place, &page), Ok(record));
        let elsewhere = [
            (Realm { cluster: ClusterId(!cluster), ..realm }, place),
            (Realm { disk: DiskUuid(!disk), ..realm }, place),
            (Realm { salt: !salt, ..realm }, place),
            (realm, Place { segment: SegmentId(!place.segment.0), ..place }),
            (realm, Place { offset: place.offset ^ (other | 1), ..place }),
            (realm, Place { incarnation: place.incarnation ^ (other | 1), ..place }),
        ];
        for (realm, place) in elsewhere {
            let found = Record::decode(&realm, &place, &page);
            prop_assert!(matches!(found, Err(RecordProblem::Foreign(_))), "at {}: {:?}", place, found);
        }
    }

    /// Any flipped bit of any record is found; random pages are refused without a panic.
    #[test]
    fn damage_is_found(
        record in any_record(),
        (at, bit) in (0..PAGE_BYTES, 0..8),
        garbage in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let mut page = encode(&record);
        page[at] ^= 1_u8 << bit;
        let found = Record::decode(&REALM, &record.place, &page);
        prop_assert!(matches!(found, Err(RecordProblem::Block(_))), "{:?}", found);
        prop_assert!(Record::decode(&REALM, &record.place, &garbage).is_err());
    }

    /// Random fields under a right checksum are refused, or keep every rule: what is read can be written.
    #[test]
    fn hostile_fields_are_survived(
        record in any_record(),
        at in prop_oneof![3 => 60..440_usize, 1 => 2470..2500_usize],
        bytes in prop::collection::vec(prop_oneof![Just(0), Just(0xff), any::<u8>()], 1..=16),
    ) {
        let page = patched(encode(&record), at, &bytes);
        if let Ok(found) = Record::decode(&REALM, &record.place, &page) {
            let again = encode(&found);
            prop_assert_eq!(Record::decode(&REALM, &record.place, &again), Ok(found));
        }
    }
}
