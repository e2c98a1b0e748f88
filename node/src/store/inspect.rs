//! Where the log of a disk is damaged, for people who look into it.
//!
//! Every segment of the log is walked from record to record. Each record names the one before it, a sealed segment
//! ends with its seal, and where the log as a whole ends is known: whatever else there is, is damage. What was lost
//! in it cannot be told, since a record that cannot be read does not say what it was; it may have been of no use any
//! more. The bytes of shards are left to [`ShardStore::read`](super::ShardStore::read).

use env::{Disk, Kv, Priority, StorageErrorKind};

use super::compact::tombstones;
use super::index::{Position, SegmentState};
use super::record::{Body, PAGE_BYTES, Record, SegmentId};
use super::scan::{Scan, There, read_header};
use super::survey::{Evidence, RecordPlace};
use crate::store::StoreError;

const PAGE: u64 = PAGE_BYTES as u64;

/// A part of a log that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDamage {
    /// Where.
    pub place: RecordPlace,
    /// What was found.
    pub problem: String,
    /// It is the end of the log: either the power failed while this was written, and nobody was told of it, or it was
    /// damaged since. Without an index the two cannot be told apart.
    pub is_torn_end: bool,
}

/// A walk along one segment.
struct Walk {
    segment: SegmentId,
    incarnation: u64,
    /// Where the log ends, if it ends here.
    end: Option<u64>,
    found: Vec<LogDamage>,
}

impl<D: Disk, K: Kv> Evidence<D, K> {
    /// Segments that are part of the log.
    pub fn segments(&self) -> usize {
        self.inner.index.segments().values().filter(|row| row.state != SegmentState::Free).count()
    }

    /// Looks for damage in all segments; `walked` is told after each.
    ///
    /// # Errors
    ///
    /// `Busy`; that a segment cannot be read is an answer.
    pub async fn log_damage(&self, mut walked: impl FnMut()) -> Result<Vec<LogDamage>, StoreError> {
        let position = self.inner.index.position();
        let mut all = Vec::new();
        for (segment, row) in self.inner.index.segments() {
            if row.state == SegmentState::Free {
                continue;
            }
            let ends_here = |position: &Position| position.segment == segment;
            let end = position.filter(ends_here).map(|position| position.end);
            let mut walk = Walk { segment, incarnation: row.incarnation, end, found: Vec::new() };
            self.walk(&mut walk).await?;
            all.append(&mut walk.found);
            walked();
        }
        Ok(all)
    }

    fn is_unwritten(&self) -> bool {
        self.inner.index.position().is_none_or(|position| position.sequence == 0)
    }

    async fn walk(&self, walk: &mut Walk) -> Result<(), StoreError> {
        let (realm, segment_bytes) = (self.inner.realm, self.inner.segment_bytes);
        let file = match self.inner.file(walk.segment).await {
            Ok(file) => file,
            // The first segment of a log that has never been written to is made when the disk is opened to be changed.
            Err(error) if error.kind() == StorageErrorKind::NotFound && self.is_unwritten() => return Ok(()),
            Err(error) => {
                walk.damaged(0, segment_bytes, format!("it cannot be opened: {error}"));
                return Ok(());
            }
        };
        if let Err(problem) = read_header(&file, &realm, walk.segment).await? {
            walk.damaged(0, PAGE, format!("the segment's header: {problem}"));
        }
        let at = (walk.segment, walk.incarnation);
        let mut scan = Scan::new(file.clone(), realm, at, segment_bytes, Priority::Scrub);
        let (mut offset, mut last) = (PAGE, None);
        let end = walk.end.unwrap_or(segment_bytes);
        while offset < end {
            let record = match scan.record_at(offset).await? {
                There::Record(record) if last.is_none_or(|last| record.previous == last) => record,
                There::Newer(problem) => {
                    walk.damaged(offset, end - offset, problem);
                    return Ok(());
                }
                There::Record(_) | There::Nothing => {
                    let is_later = |sequence| last.is_none_or(|last| sequence > last);
                    let next = scan.find(offset, end, |record| is_later(record.sequence)).await?;
                    let next_at = next.as_ref().map_or(end, |record| record.place.offset);
                    walk.damaged(offset, next_at - offset, "no record can be read here".to_owned());
                    let Some(record) = next else { return Ok(()) };
                    record
                }
            };
            if let Body::Tombstones { count, payload_crc } = &record.body
                && tombstones(&scan, &record, *count, *payload_crc).await?.is_none()
            {
                walk.damaged(record.place.offset, record.bytes(), "its deletions cannot be read".to_owned());
            }
            if matches!(record.body, Body::Seal { .. }) {
                return Ok(());
            }
            (offset, last) = (record.end(), Some(record.sequence));
        }
        if let Some(end) = walk.end
            && let There::Record(record) = scan.record_at(end).await?
            && self.inner.index.position().is_some_and(|position| position.sequence < record.sequence)
        {
            walk.torn_end(&record);
        }
        Ok(())
    }
}

impl Walk {
    fn damaged(&mut self, offset: u64, bytes: u64, problem: String) {
        let place = RecordPlace::new(self.segment, offset, bytes);
        self.found.push(LogDamage { place, problem, is_torn_end: false });
    }

    fn torn_end(&mut self, record: &Record) {
        let place = RecordPlace::new(self.segment, record.place.offset, record.bytes());
        let what = match &record.body {
            Body::Shard(meta) => format!("shard {}", meta.name),
            Body::Tombstones { .. } => "deletions".to_owned(),
            Body::Seal { .. } => "a seal".to_owned(),
        };
        let problem = format!("the log's end is not whole: {what}");
        self.found.push(LogDamage { place, problem, is_torn_end: true });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use env::MemoryKv;
    use proto::{
        ClusterId, DiskUuid, Epoch, ExtentId, GroupId, ShardName, SlotIndex, StripeIndex, TenantTag,
        Timestamp,
    };

    use super::*;
    use crate::store::record::segment_file;
    use crate::store::{INDEX_TABLES, NewShard, ShardStore, survey};
    use crate::superblock::{self, Superblock};
    use crate::testing::{MemDisk, block_on};

    fn name(stripe: u32) -> ShardName {
        let (group, extent) = (GroupId(1), ExtentId(7));
        ShardName { group, extent, stripe: StripeIndex(stripe), slot: SlotIndex(0) }
    }

    /// A disk with 20 shards of two pages each and a hint, in several segments, and one that was deleted.
    async fn disk() -> MemDisk {
        let disk = MemDisk::new(4 << 20);
        let (cluster, uuid, created) = (ClusterId(1), DiskUuid(2), Timestamp::from_millis(3));
        let superblock = Superblock { cluster, uuid, created, salt: 4, segment_bytes: 64 << 10 };
        superblock::format(&disk, &superblock).await.unwrap();
        let index = MemoryKv::new(INDEX_TABLES);
        let (store, writer) = ShardStore::open(disk.clone(), index, superblock, None).await.unwrap();
        let work = async {
            for stripe in 0..21 {
                let mut shard = NewShard::new(name(stripe), Epoch(1), TenantTag(5), 8192).unwrap();
                shard.push(&[u8::try_from(stripe).unwrap(); 8192]).unwrap();
                let shard = shard.with_hint(stripe.to_string().into()).unwrap();
                store.put(shard.seal().unwrap(), Priority::Client).await.unwrap();
            }
            store.delete(name(20)).await.unwrap();
            drop(store);
        };
        futures_util::future::join(writer, work).await;
        disk
    }

    /// Nothing is found on a disk in good health; every page that is damaged, of a record that counts, is found in its
    /// place, and so is a segment's header; what the page was of is served no more, and all else is.
    #[test]
    fn each_damaged_page_is_found() {
        block_on(async {
            let disk = disk().await;
            let evidence = survey::open(disk.clone()).await.unwrap();
            assert_eq!(evidence.log_damage(|| ()).await.unwrap(), []);
            assert!(evidence.segments() > 3);
            let mut places = BTreeSet::new();
            for stripe in 0..20 {
                let place = evidence.place(name(stripe)).unwrap().unwrap();
                places.insert((place.file.to_string(), place.offset, Some(stripe)));
                places.insert((place.file.to_string(), 0, None));
            }
            for (file, offset, stripe) in places {
                let at = usize::try_from(offset).unwrap() + 30;
                disk.damage(&file, at);
                let evidence = survey::open(disk.clone()).await.unwrap();
                let found = evidence.log_damage(|| ()).await.unwrap();
                let [damage] = &found[..] else { panic!("{file} {offset}: {found:?}") };
                assert_eq!((damage.place.file.as_str(), damage.place.offset), (file.as_str(), offset));
                let expected = if offset == 0 { PAGE } else { 3 * PAGE };
                assert_eq!((damage.place.bytes, damage.is_torn_end), (expected, false), "{file} {offset}");
                for other in 0..20 {
                    let about = evidence.about(name(other), Priority::Client).await.unwrap();
                    let hint = about.map(|about| about.hint);
                    let whole = (Some(other) != stripe).then(|| bytes::Bytes::from(other.to_string()));
                    assert_eq!(hint, whole, "{file} {offset}: {other}");
                }
                disk.damage(&file, at);
            }
        });
    }

    /// When the last record of a log is not whole it may have been torn by a crash, and that is what is said of it; of
    /// one before it, which is known to have been durable, it is not.
    #[test]
    fn a_torn_end_is_told_from_damage() {
        block_on(async {
            let disk = disk().await;
            let whole = survey::open(disk.clone()).await.unwrap();
            let end = whole.inner.index.position().unwrap();
            // Of the last record, which says what was deleted.
            let page = end.end - PAGE;
            disk.damage(&segment_file(end.segment).to_string(), usize::try_from(page).unwrap() + 30);
            let evidence = survey::open(disk).await.unwrap();
            let found = evidence.log_damage(|| ()).await.unwrap();
            let [torn] = &found[..] else { panic!("{found:?}") };
            let place = RecordPlace::new(end.segment, end.end - 2 * PAGE, 2 * PAGE);
            assert_eq!((&torn.place, torn.is_torn_end), (&place, true), "{torn:?}");
            assert!(torn.problem.contains("deletions"), "{torn:?}");
        });
    }
}
