//! Bytes that no writer wrote: everything that is parsed is fed arbitrary and mutated bytes, and whole disks are
//! opened after pages of them were changed. `CADOLE_HOSTILE_CASES` says how many times each.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index as At;

use super::*;
use crate::block::{BLOCK_HEADER_BYTES, BlockWriter, FIELDS_AT};
use crate::store::record::{Body, PAGE_BYTES, Place, Record, SegmentHeader, decode_tombstones};
use crate::store::survey::survey;
use crate::superblock;

const MAGICS: [&[u8; 8]; 3] = [b"CADOLEsb", b"CADOLEsg", b"CADOLErc"];

fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("CADOLE_HOSTILE_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(asked.unwrap_or(cases)) }
}

/// Shards with two blocks and fewer, deletions, copies and a seal: what a disk has of everything.
struct Model {
    disk: MemDisk,
    kv: MemKv,
    shards: Vec<(ShardName, Vec<u8>)>,
}

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let (disk, kv) = (disk(), kv());
    block_on(superblock::format(&disk, &SUPERBLOCK)).unwrap();
    let lengths = [100 << 10, 4096, 64, 64 << 10, 20 << 10, 90 << 10, 128, 30 << 10, 64 << 10];
    let shards: Vec<(ShardName, Vec<u8>)> =
        (0_u32..).zip(lengths).map(|(number, length)| (numbered(number), content(number, length))).collect();
    with(&disk, &kv, async |store| {
        for (name, bytes) in &shards {
            put(&store, *name, bytes).await.unwrap();
        }
        for number in [0, 2, 6] {
            store.delete(numbered(number)).await.unwrap();
        }
        assert!(store.compact().await.unwrap());
        put(&store, numbered(2), &content(2, 64)).await.unwrap();
    });
    Model { disk, kv, shards }
});

/// A change of some bytes.
#[derive(Clone, Debug)]
enum Change {
    /// A bit flips.
    Flip(At, u8),
    /// A page's bytes are these, from an offset on.
    Put(At, Vec<u8>),
    /// A page becomes zeros.
    Zero(At),
    /// A page lies where another should.
    Move(At, At),
    /// Fields of a page are changed, under a right checksum and one of the magics. Not the name of a shard: who can
    /// make checksums with the disk's salt can give it any.
    Forge(At, u8, usize, Vec<u8>),
    /// The end is missing.
    Cut(At),
}

fn change() -> impl Strategy<Value = Change> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..40);
    let numbers = prop_oneof![
        bytes(),
        Just(vec![0xff; 8]),
        Just(vec![0; 8]),
        (0..70_u8).prop_map(|number| vec![number, 0, 0, 0]),
    ];
    prop_oneof![
        3 => (any::<At>(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (any::<At>(), bytes()).prop_map(|(at, bytes)| Change::Put(at, bytes)),
        2 => any::<At>().prop_map(Change::Zero),
        2 => (any::<At>(), any::<At>()).prop_map(|(to, from)| Change::Move(to, from)),
        4 => (any::<At>(), 0..4_u8, prop_oneof![FIELDS_AT..64_usize, 132..2500_usize], numbers)
            .prop_map(|(at, magic, field, bytes)| Change::Forge(at, magic, field, bytes)),
        1 => any::<At>().prop_map(Change::Cut),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let pages = bytes.len() / PAGE_BYTES;
        if pages == 0 {
            return;
        }
        // Pages with something on them, so that most changes change something.
        let written: Vec<usize> = (0..pages)
            .filter(|page| bytes[page * PAGE_BYTES..][..PAGE_BYTES].iter().any(|byte| *byte != 0))
            .collect();
        if written.is_empty() {
            return;
        }
        let start = |at: &At| written[at.index(written.len())] * PAGE_BYTES;
        match self {
            Self::Flip(at, bit) => bytes[start(at) + at.index(97) * 41] ^= 1 << bit,
            Self::Put(at, new) => bytes[start(at) + at.index(4000)..][..new.len()].copy_from_slice(new),
            Self::Zero(at) => bytes[start(at)..][..PAGE_BYTES].fill(0),
            Self::Move(to, from) => {
                let from = start(from);
                bytes.copy_within(from..from + PAGE_BYTES, start(to));
            }
            Self::Forge(at, magic, field, new) => {
                let page = &mut bytes[start(at)..][..PAGE_BYTES];
                let mut fields = page.to_vec();
                fields[*field..*field + new.len()].copy_from_slice(new);
                let kept = <[u8; 8]>::try_from(&fields[..8]).unwrap();
                let magic = MAGICS.get(usize::from(*magic)).map_or(kept, |magic| **magic);
                let mut block = BlockWriter::new(page, magic, 1 + u32::from(new.len() == 39));
                block.bytes(&fields[FIELDS_AT..]);
                block.seal();
            }
            Self::Cut(at) => bytes.truncate(start(at) + at.index(3) * 100),
        }
    }
}

/// A disk with changes of its files; the first number says which file.
fn changed(changes: &[(At, Change)]) -> MemDisk {
    let disk = MODEL.disk.copy();
    for (which, change) in changes {
        let names = disk.names();
        let name = which.get(&names);
        let mut bytes = disk.content(name);
        change.apply(&mut bytes);
        disk.plant(name, bytes);
    }
    disk
}

/// What a store hands out is what was put under that name, or an error.
async fn hands_out_only_what_was_put(store: &Store) -> Result<(), TestCaseError> {
    for (name, bytes) in &MODEL.shards {
        match store.read(*name, 0, 0, Priority::Client).await {
            Ok(read) => prop_assert!(read.bytes == *bytes, "{}: other bytes", name),
            Err(StoreError::NoSuchShard(_) | StoreError::Damaged { .. } | StoreError::Failed(_)) => {}
            Err(error) => return Err(TestCaseError::fail(format!("{name}: {error}"))),
        }
        let checked = store.check(*name, Priority::Scrub).await;
        prop_assert!(!matches!(checked, Err(StoreError::Busy(_))), "{:?}", checked);
    }
    Ok(())
}

/// A page under a right checksum, so that what comes after the checksum is reached.
fn sealed(magic: [u8; 8], fields: &[u8]) -> Vec<u8> {
    let mut page = vec![0; BLOCK_HEADER_BYTES];
    let mut block = BlockWriter::new(&mut page, magic, 1);
    block.bytes(&fields[..fields.len().min(BLOCK_HEADER_BYTES - FIELDS_AT)]);
    block.seal();
    page
}

proptest! {
    #![proptest_config(config(256))]

    /// Any bytes, and any fields under a right checksum, are parsed or refused; what is parsed keeps its rules.
    #[test]
    fn pages_are_parsed_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..5000),
        changes in prop::collection::vec(change(), 0..4),
        which: At,
    ) {
        let realm = SUPERBLOCK.realm();
        let content = MODEL.disk.content("seg-00000000");
        let mut page = content[which.index(30) * PAGE_BYTES..][..PAGE_BYTES].to_vec();
        changes.iter().for_each(|change| change.apply(&mut page));
        let pages = [bytes.clone(), page].into_iter().chain(MAGICS.map(|magic| sealed(*magic, &bytes)));
        for page in pages {
            let _ = Superblock::decode(&page);
            let _ = SegmentHeader::realm_of(&page);
            if let Ok(header) = SegmentHeader::decode(&realm, &page) {
                prop_assert!(header.incarnation > 0 && header.segment_bytes >= 8192);
            }
            for offset in [4096, 8192] {
                let place = Place { segment: SegmentId(0), incarnation: 1, offset };
                let Ok(record) = Record::decode(&realm, &place, &page) else { continue };
                prop_assert!(record.payload_bytes() <= proto::limits::SHARD_BYTES_MAX as u64);
                prop_assert!(record.place == place && record.previous < record.sequence);
                if let Body::Tombstones { count, payload_crc } = record.body {
                    let _ = decode_tombstones(&bytes, count, payload_crc);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(config(48))]

    /// Disks with any pages changed are opened or refused, with an index and without; what they hand out is what was
    /// put, they take new shards or say why not, and what they took is there after the next start.
    #[test]
    fn changed_disks_give_no_wrong_bytes(
        changes in prop::collection::vec((any::<At>(), change()), 1..6),
        has_index: bool,
    ) {
        let disk = changed(&changes);
        let index = if has_index { MODEL.kv.copy() } else { kv() };
        let Ok((store, writer)) = block_on(open(&disk, &index)) else { return Ok(()) };
        let late = content(500, 70 << 10);
        let work = async {
            let store = store;
            hands_out_only_what_was_put(&store).await?;
            let stored = put(&store, numbered(500), &late).await.is_ok();
            let _ = store.delete(numbered(1)).await;
            let _ = store.compact().await;
            hands_out_only_what_was_put(&store).await?;
            Ok(stored)
        };
        let stored: Result<bool, TestCaseError> = block_on(join(work, writer)).0;
        if stored? {
            with(&disk, &index, async |store| {
                prop_assert_eq!(get(&store, numbered(500)).await.ok(), Some(late));
                hands_out_only_what_was_put(&store).await
            })?;
        }
    }

    /// A survey of such a disk changes nothing on it, and calls nothing whole that is not.
    #[test]
    fn changed_disks_are_surveyed(changes in prop::collection::vec((any::<At>(), change()), 1..6)) {
        let disk = changed(&changes);
        let before: Vec<_> = disk.names().into_iter().map(|name| (disk.content(&name), name)).collect();
        let found = block_on(survey(disk.clone()));
        let after: Vec<_> = disk.names().into_iter().map(|name| (disk.content(&name), name)).collect();
        prop_assert!(before == after, "the disk was changed");
        let Ok(found) = found else { return Ok(()) };
        for shard in found.shards.iter().filter(|shard| shard.whole) {
            let put = MODEL.shards.iter().find(|(name, _)| *name == shard.name);
            let file = disk.content(shard.place.file.as_str());
            let start = usize::try_from(shard.place.offset).unwrap() + PAGE_BYTES;
            let bytes = file.get(start..start + shard.shard_bytes as usize);
            prop_assert_eq!(put.map(|(_, bytes)| bytes.as_slice()), bytes, "{}", shard.name);
        }
    }

    /// Indexes with any rows are used, made anew or refused, and never lead to wrong bytes.
    #[test]
    fn changed_indexes_give_no_wrong_bytes(
        rows in prop::collection::vec(
            (0..3_usize, any::<At>(), any::<At>(), prop::collection::vec(any::<u8>(), 0..44), any::<bool>()),
            1..6,
        ),
    ) {
        let (disk, index) = (MODEL.disk.copy(), MODEL.kv.copy());
        for (table, which, at, bytes, is_whole) in rows {
            let table = INDEX_TABLES[table];
            let all: Vec<_> = index.rows(table).into_iter().collect();
            if all.is_empty() {
                continue;
            }
            let (key, value) = which.get(&all);
            let mut changed = value.to_vec();
            if is_whole {
                changed.clone_from(&bytes);
            } else if let Some(byte) = bytes.first() {
                let at = at.index(changed.len().max(1));
                changed.iter_mut().skip(at).take(1).for_each(|there| *there = *byte);
            } else {
                index.uproot(table, key);
                continue;
            }
            index.plant(table, key, &changed);
        }
        let Ok((store, writer)) = block_on(open(&disk, &index)) else { return Ok(()) };
        let work = async {
            let store = store;
            hands_out_only_what_was_put(&store).await?;
            let _ = put(&store, numbered(500), &[5; 64]).await;
            let _ = store.compact().await;
            let _ = (store.groups(), store.list(GroupId(1), None, 100).await);
            let _ = store.delete_slot(GroupId(1), SlotIndex(0)).await;
            hands_out_only_what_was_put(&store).await
        };
        block_on(join(work, writer)).0?;
    }
}
