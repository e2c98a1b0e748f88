//! Whole disks: one of format version 1 and its index, of which bytes, pages, files and rows were changed.
//!
//! The disk is looked at, opened with its index and without, written to and opened again. Whoever knows a disk's salt can
//! write records of any name and sequence, so little can be asserted of the shards that it had: that each is as long as it
//! is said to be. What is acknowledged on it is there afterwards, all the same.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use env::{Batch, FileName, Kv, MemoryKv, Priority, Table};
use futures_util::future::join;
use proto::{Epoch, ExtentId, GroupId, ShardName, SlotIndex, StripeIndex, TenantTag};

use super::{Input, PAYLOAD_CRC_AT, RECORD, SEGMENT, SUPERBLOCK, array, crc, seal};
use crate::store::record::{PAGE_BYTES, SegmentId, segment_file, tombstones_bytes};
use crate::store::{INDEX_TABLES, NewShard, ShardStore, StoreError, survey};
use crate::superblock::{self, Superblock};
use crate::testing::{MemDisk, block_on};

const DISK: &str = include_str!("../../../tests/fixtures/v1/disk.txt");
const INDEX: &str = include_str!("../../../tests/fixtures/v1/index.txt");
/// Changes of one input.
const CHANGES_MAX: usize = 24;
const CAPACITY_BYTES: u64 = 2 << 20;
/// Larger ones would be walked through page by page, which takes long and shows nothing else.
const SEGMENT_BYTES_MAX: u64 = 1 << 20;
/// Far more records than are ever written.
const SEQUENCE_MAX: u64 = u64::MAX / 2;
/// Put on the disk; nothing there has its name.
const LATE: ShardName = ShardName {
    group: GroupId(1),
    extent: ExtentId(0x5eed_0f5e_ed00),
    stripe: StripeIndex(0),
    slot: SlotIndex(1),
};

type Store = ShardStore<MemDisk, MemoryKv>;

/// Files and rows.
#[derive(Clone, Default)]
struct Image {
    files: BTreeMap<FileName, Vec<u8>>,
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
}

static IMAGE: LazyLock<Image> = LazyLock::new(|| Image::of_text(DISK, INDEX));

/// A disk with changes, of which the first byte each says what is changed.
pub fn disk(bytes: &[u8]) {
    let mut image = IMAGE.clone();
    let mut input = Input(bytes);
    for _ in 0..CHANGES_MAX {
        if input.is_empty() {
            break;
        }
        image.change(&mut input);
    }
    let disk = image.disk();
    let Some(superblock) = block_on(superblock::peek(&disk)).ok().flatten() else {
        let _ = block_on(survey::survey(disk));
        return;
    };
    let _ = block_on(superblock::inspect(&disk.copy(), superblock.cluster));
    if superblock.segment_bytes > SEGMENT_BYTES_MAX {
        return;
    }
    look(&disk, &image);
    if image.is_of_later_times() {
        return;
    }
    let is_own = image.rows == IMAGE.rows;
    for (index, is_own) in [(image.index(), is_own), (MemoryKv::new(INDEX_TABLES), true)] {
        use_it(&disk.copy(), &index, superblock, is_own);
    }
}

/// Who looks at a disk changes nothing, and finds every shard within its file.
fn look(disk: &MemDisk, image: &Image) {
    let found = block_on(async {
        let evidence = survey::open(disk.clone()).await.ok()?;
        let _ = evidence.log_damage(|| {}).await;
        evidence.survey().await.ok()
    });
    let is_same = |(name, content): (&FileName, &Vec<u8>)| disk.content(name.as_str()) == *content;
    assert!(disk.names().len() == image.files.len() && image.files.iter().all(is_same), "it was changed");
    for shard in found.iter().flat_map(|found| &found.shards).filter(|shard| shard.whole) {
        let (file, end) = (image.files.get(&shard.place.file), shard.place.offset + shard.place.bytes);
        let is_inside = file.is_some_and(|file| end <= file.len().next_multiple_of(PAGE_BYTES) as u64);
        assert!(is_inside && shard.place.bytes > shard.shard_bytes.into(), "{shard:?}");
    }
}

/// Opens it, reads and writes, opens it again. What was written is there then, unless the index had rows that it never
/// wrote.
fn use_it(disk: &MemDisk, index: &MemoryKv, superblock: Superblock, is_own: bool) {
    let opened = block_on(ShardStore::open(disk.clone(), index.clone(), superblock, None));
    let Ok((store, writer)) = opened else { return };
    let work = async {
        let store = store;
        read_all(&store).await;
        let stored = put(&store, LATE).await.is_ok();
        let _ = store.delete_slot(GroupId(1), SlotIndex(0)).await;
        for _ in 0..4 {
            let _ = store.compact().await;
        }
        read_all(&store).await;
        let stored = stored.then_some(LATE);
        if let Some(name) = stored {
            assert!(is_there(&store, name).await, "{name} is gone");
        }
        stored
    };
    let (stored, ()) = block_on(join(work, writer));
    let opened = block_on(ShardStore::open(disk.clone(), index.clone(), superblock, None));
    let Some(name) = stored.filter(|_| is_own) else { return };
    let problem = opened.as_ref().err();
    assert!(problem.is_none(), "what was written to cannot be opened: {problem:?}");
    let Ok((store, _)) = opened else { return };
    assert!(block_on(is_there(&store, name)), "{name} is gone after the next start");
}

async fn read_all(store: &Store) {
    let _ = store.report().await;
    for group in store.groups().unwrap_or_default() {
        let Ok(page) = store.list(group, None, 100).await else { continue };
        for stat in page.shards {
            let Ok(read) = store.read(stat.name, 0, 0, Priority::Client).await else { continue };
            assert!(read.bytes.len() == read.shard_bytes as usize, "{stat:?}");
        }
        let _ = store.held(group, None, ExtentId(u128::MAX), 100);
    }
}

async fn put(store: &Store, name: ShardName) -> Result<(), StoreError> {
    let bytes = late();
    let mut shard = NewShard::new(name, Epoch(3), TenantTag(7), bytes.len())?;
    shard.push(&bytes)?;
    store.put(shard.seal()?, Priority::Client).await.map(|_| ())
}

async fn is_there(store: &Store, name: ShardName) -> bool {
    store.read(name, 0, 0, Priority::Client).await.is_ok_and(|read| read.bytes == late())
}

fn late() -> Vec<u8> {
    vec![0x5e; 5_056]
}

/// All pages of the disk.
#[cfg(test)]
pub(super) fn pages() -> Vec<Vec<u8>> {
    IMAGE.files.values().flat_map(|content| content.chunks(PAGE_BYTES)).map(<[u8]>::to_vec).collect()
}

/// Keys and values of the index.
#[cfg(test)]
pub(super) fn rows() -> Vec<(Vec<u8>, Vec<u8>)> {
    IMAGE.rows.iter().map(|((_, key), value)| (key.clone(), value.clone())).collect()
}

impl Image {
    /// From a fixture.
    fn of_text(disk: &str, index: &str) -> Self {
        let mut image = Self::default();
        let mut file: Option<FileName> = None;
        for line in disk.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["file", name, length] => {
                    file = name.parse().ok();
                    let length = length.parse().unwrap_or(0);
                    image.files.extend(file.clone().map(|name| (name, vec![0; length])));
                }
                [at, row] => {
                    let content = file.as_ref().and_then(|name| image.files.get_mut(name));
                    let (at, row) = (usize::from_str_radix(at, 16).unwrap_or(0), hex(row));
                    if let Some(place) = content.and_then(|content| content.get_mut(at..at + row.len())) {
                        place.copy_from_slice(&row);
                    }
                }
                _ => unreachable!("{line:?}"),
            }
        }
        for line in index.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [table, key, value] = words[..] else { unreachable!("{line:?}") };
            let table = INDEX_TABLES.iter().find(|known| **known == table);
            image.rows.extend(table.map(|table| ((*table, hex(key)), hex(value))));
        }
        image
    }

    /// Has what nobody can have written to a disk of ours: a later version's pages, which are refused when they are met, and
    /// that may be late, and sequences near their end.
    fn is_of_later_times(&self) -> bool {
        let number =
            |bytes: &[u8], at| bytes.len() >= at + 8 && u64::from_le_bytes(array(bytes, at)) > SEQUENCE_MAX;
        let position = self.rows.get(&("log", b"position".to_vec()));
        // Of a record its own sequence, of a segment that up to which all are durable.
        let is_later = |page: &[u8]| {
            [RECORD, SEGMENT].contains(&array(page, 0))
                && (u32::from_le_bytes(array(page, 8)) > 1 || number(page, 80))
        };
        let mut pages = self.files.values().flat_map(|content| content.chunks_exact(PAGE_BYTES));
        pages.any(is_later) || position.is_some_and(|row| number(row, 20))
    }

    fn disk(&self) -> MemDisk {
        let disk = MemDisk::new(CAPACITY_BYTES);
        for (name, content) in &self.files {
            disk.plant(name.as_str(), content.clone());
        }
        disk
    }

    fn index(&self) -> MemoryKv {
        let (kv, mut batch) = (MemoryKv::new(INDEX_TABLES), Batch::new());
        for ((table, key), value) in &self.rows {
            batch.put(table, key.clone(), value.clone());
        }
        assert!(kv.write(batch).is_ok());
        kv
    }

    fn change(&mut self, input: &mut Input<'_>) {
        let what = input.u8() % 15;
        match what {
            0..=7 => self.change_page(what, input),
            8 => {
                let length = usize::from(input.u8() % 65) * 1024;
                if let Some((_, content)) = self.nth_file(input.u8()) {
                    content.resize(length, 0);
                }
            }
            9 => {
                let name = self.nth_file(input.u8()).map(|(name, _)| name);
                name.and_then(|name| self.files.remove(&name));
            }
            10 => {
                let content = self.nth_file(input.u8()).map(|(_, content)| content.clone());
                let name = segment_file(SegmentId(input.u8().into()));
                if self.files.len() < 8 {
                    self.files.extend(content.map(|content| (name, content)));
                }
            }
            11 => {
                let (at, place) = (usize::from(input.u8()), usize::from(input.u8()));
                let value = self.rows.values_mut().nth(at % 16);
                let bytes = input.string();
                if let Some(place) = value.and_then(|value| value.get_mut(place..place + bytes.len())) {
                    place.copy_from_slice(bytes);
                }
            }
            12 => {
                let table = INDEX_TABLES[usize::from(input.u8()) % INDEX_TABLES.len()];
                self.rows.insert((table, input.string().to_vec()), input.string().to_vec());
            }
            13 => {
                let key = self.rows.keys().nth(usize::from(input.u8() % 16)).cloned();
                key.and_then(|key| self.rows.remove(&key));
            }
            _ => self.rows.clear(),
        }
    }

    fn change_page(&mut self, what: u8, input: &mut Input<'_>) {
        let (file, at) = (input.u8(), input.u8());
        match what {
            // Bytes, as they are or under a right checksum.
            0 | 1 => {
                let offset = usize::from(input.u16()) % PAGE_BYTES;
                let bytes = input.string();
                let Some((_, page)) = self.page(file, at) else { return };
                let count = bytes.len().min(PAGE_BYTES - offset);
                page[offset..offset + count].copy_from_slice(&bytes[..count]);
                if what == 1 {
                    reseal(page);
                }
            }
            // The page of another place, as it is or made one of this place.
            2 | 3 => {
                let (from, from_at) = (input.u8(), input.u8());
                let Some(copy) = self.page(from, from_at).map(|(_, page)| page.to_vec()) else { return };
                let header = self.page(file, 0).map(|(_, page)| page.to_vec()).unwrap_or_default();
                let Some((number, page)) = self.page(file, at) else { return };
                page.copy_from_slice(&copy);
                if what == 3 && page.starts_with(&RECORD) {
                    page[56..60].copy_from_slice(&header[56..60]);
                    page[64..72].copy_from_slice(&header[64..72]);
                    page[72..80].copy_from_slice(&((number * PAGE_BYTES) as u64).to_le_bytes());
                    reseal(page);
                }
            }
            4 => self.page(file, at).into_iter().for_each(|(_, page)| page.fill(0)),
            // Another number in a field of eight bytes, under a right checksum.
            5 | 6 => {
                let (field, number) = (usize::from(input.u8()) % 320, input.u8());
                let Some((_, page)) = self.page(file, at) else { return };
                let place = &mut page[16 + 8 * field..][..8];
                let value = u64::from_le_bytes(array(place, 0));
                let value = match (what, number) {
                    (5, 255) => u64::MAX,
                    (5, _) => number.into(),
                    _ => value.wrapping_add(number.into()).wrapping_sub(128),
                };
                place.copy_from_slice(&value.to_le_bytes());
                reseal(page);
            }
            // A right checksum of tombstones.
            _ => self.seal_tombstones(file, at),
        }
    }

    fn seal_tombstones(&mut self, file: u8, at: u8) {
        let Some((number, page)) = self.page(file, at) else { return };
        let count = u32::from_le_bytes(array(page, 104)) as usize;
        let start = (number + 1) * PAGE_BYTES;
        let end = start + tombstones_bytes(count.min(1024));
        let content = self.nth_file(file).map(|(_, content)| content);
        let Some(crc) = content.and_then(|content| content.get(start..end)).map(crc) else { return };
        if let Some((_, page)) = self.page(file, at) {
            page[PAYLOAD_CRC_AT..PAYLOAD_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
            reseal(page);
        }
    }

    fn nth_file(&mut self, file: u8) -> Option<(FileName, &mut Vec<u8>)> {
        let count = self.files.len().max(1);
        let (name, content) = self.files.iter_mut().nth(usize::from(file) % count)?;
        Some((name.clone(), content))
    }

    /// A page of a file, and its number.
    fn page(&mut self, file: u8, at: u8) -> Option<(usize, &mut [u8])> {
        let (_, content) = self.nth_file(file)?;
        let number = usize::from(at).checked_rem(content.len() / PAGE_BYTES)?;
        Some((number, &mut content[number * PAGE_BYTES..][..PAGE_BYTES]))
    }
}

fn reseal(page: &mut [u8]) {
    let magic = array(page, 0);
    if [SUPERBLOCK, SEGMENT, RECORD].contains(&magic) {
        seal(page, magic);
    }
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at| text.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    (0..text.len()).step_by(2).map(|at| byte(at).unwrap_or(0)).collect()
}
