//! The content of one file: what the kernel shows, what the device keeps, and the way from one to the other.
//!
//! Both images are maps of 4 KiB pages that share their bytes; a page that is missing is zeros. Writes
//! go to the volatile image and into a log; a flush moves the log's entries, as far as they were there
//! when it began, to the durable image. So a flush costs what was written, not what the file holds.
//!
//! After a power loss each entry of the log survives or not by [`Survival`], and both images are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use env::AlignedBuf;
use env::buf::ALIGN_BYTES;

use crate::rng::Stream;

/// Bytes of a page, as a file offset.
pub(super) const PAGE_BYTES: u64 = ALIGN_BYTES as u64;
/// What a device writes whole or not at all.
pub(super) const SECTOR_BYTES: u64 = 512;
const SECTORS_PER_PAGE: u32 = 8;
const _: () = assert!(PAGE_BYTES == SECTOR_BYTES * SECTORS_PER_PAGE as u64);
/// Every sector of a page, one bit each.
const WHOLE: u8 = 0xff;
/// Entries of a log that is not worth compacting.
const LOG_LEN_MIN: usize = 1024;

static ZEROS: [u8; ALIGN_BYTES] = [0; ALIGN_BYTES];

/// `bytes` in whole pages.
pub(super) fn in_pages(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX)
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// What of the unflushed content is there after the power was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Survival {
    Nothing,
    Everything,
    /// Each sector, or not.
    Sectors,
    /// Each transfer whole, or not.
    Transfers,
    /// Of each transfer some sectors from its start.
    Torn,
}

impl Survival {
    pub(super) fn draw(stream: &Stream) -> Self {
        let all = [Self::Nothing, Self::Everything, Self::Sectors, Self::Transfers, Self::Torn];
        stream.pick(&all).copied().unwrap_or(Self::Nothing)
    }
}

/// Sectors, or changes of names, that survived and that did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) kept: u64,
    pub(super) lost: u64,
}

impl Settled {
    pub(super) fn plus(self, other: Self) -> Self {
        Self { kept: self.kept + other.kept, lost: self.lost + other.lost }
    }
}

#[derive(Clone, Debug, Default)]
struct Image {
    len: u64,
    pages: BTreeMap<u64, Bytes>,
}

impl Image {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Len(len) => self.len = self.len.max(*len),
            Change::Page(page, data) => {
                self.pages.insert(*page, data.clone());
            }
        }
    }

    /// Only the sectors of `mask` are written.
    fn merge(&mut self, page: u64, data: &Bytes, mask: u8) {
        if mask == 0 {
            return;
        }
        if mask == WHOLE {
            self.pages.insert(page, data.clone());
            return;
        }
        let mut merged = self.pages.get(&page).map_or_else(|| ZEROS.to_vec(), |old| old.to_vec());
        let sectors = merged.chunks_mut(index(SECTOR_BYTES)).zip(data.chunks(index(SECTOR_BYTES)));
        for (sector, (to, from)) in sectors.enumerate() {
            if mask & (1 << sector) != 0 {
                to.copy_from_slice(from);
            }
        }
        self.pages.insert(page, merged.into());
    }

    /// What lies beyond the end is not there.
    fn cut(&mut self) {
        let (last, within) = (self.len / PAGE_BYTES, self.len % PAGE_BYTES);
        self.pages.split_off(&(last + u64::from(within != 0)));
        if within != 0
            && let Some(page) = self.pages.get_mut(&last)
        {
            let mut cut = page.to_vec();
            cut[index(within)..].fill(0);
            *page = cut.into();
        }
    }

    /// The pages that begin before `end`.
    fn before(&self, end: u64) -> impl Iterator<Item = (&u64, &Bytes)> + Clone {
        self.pages.range(..end.div_ceil(PAGE_BYTES))
    }

    fn copy_to(&self, offset: u64, to: &mut [u8]) {
        to.fill(0);
        let end = offset.saturating_add(to.len() as u64);
        for (page, data) in self.pages.range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
            let start = page * PAGE_BYTES;
            let (from, until) = (offset.max(start), end.min(start + PAGE_BYTES));
            to[index(from - offset)..index(until - offset)]
                .copy_from_slice(&data[index(from - start)..index(until - start)]);
        }
    }

    fn edit(&mut self, range: &Range<u64>, edit: &mut impl FnMut(u64, &mut u8)) {
        let end = range.end.min(self.len);
        for page in range.start / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            let before = self.pages.get(&page).map_or(&ZEROS[..], |data| data);
            let after = edited(page, before, &(range.start..end), edit);
            self.pages.insert(page, after);
        }
    }
}

/// A page with some of its bytes changed; `edit` gets their offsets in the file.
fn edited(page: u64, before: &[u8], range: &Range<u64>, edit: &mut impl FnMut(u64, &mut u8)) -> Bytes {
    let mut after = before.to_vec();
    for (offset, byte) in (page * PAGE_BYTES..).zip(after.iter_mut()) {
        if range.contains(&offset) {
            edit(offset, byte);
        }
    }
    after.into()
}

#[derive(Clone, Debug)]
enum Change {
    /// The file is at least this long.
    Len(u64),
    Page(u64, Bytes),
}

#[derive(Clone, Debug)]
struct Entry {
    /// How many flushes had begun before.
    generation: u64,
    /// Entries of one transfer follow one another.
    transfer: u64,
    change: Change,
}

/// A flush that began.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlushTicket {
    generation: u64,
    failures: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    volatile: Image,
    durable: Image,
    /// In the order of the writes, so in that of generations.
    log: Vec<Entry>,
    compact_at: usize,
    generation: u64,
    transfers: u64,
    failures: u64,
    /// A failed flush has left the images apart, beyond what the log would mend.
    apart: bool,
    /// Numbers of sectors.
    unreadable: BTreeSet<u64>,
    stale: Vec<Range<u64>>,
}

impl Content {
    /// A new file, with zeros in it.
    pub(super) fn new(len: u64) -> Self {
        let mut content = Self::default();
        content.grow(len);
        content
    }

    /// As the kernel shows it.
    pub(super) fn len(&self) -> u64 {
        self.volatile.len
    }

    /// Is all of it durable?
    pub(super) fn is_clean(&self) -> bool {
        self.log.is_empty() && !self.apart
    }

    /// Is all that is before `end` durable, as it is now?
    pub(super) fn is_durable_to(&self, end: u64) -> bool {
        let end = end.min(self.volatile.len);
        let (volatile, durable) = (self.volatile.before(end), self.durable.before(end));
        // Pages that were flushed share their bytes.
        let is_same = |(one, other): (&Bytes, &Bytes)| one.as_ptr() == other.as_ptr() || one == other;
        let is_equal =
            |(one, other): ((&u64, &Bytes), (&u64, &Bytes))| one.0 == other.0 && is_same((one.1, other.1));
        self.durable.len >= end
            && volatile.clone().count() == durable.clone().count()
            && volatile.zip(durable).all(is_equal)
    }

    /// Whole pages of `data` are at `offset`, a multiple of the page's size; the file gets longer if it
    /// must.
    pub(super) fn write(&mut self, offset: u64, data: &Bytes) {
        let end = offset.saturating_add(data.len() as u64);
        self.forget_damage(&(offset..end));
        self.grow(end);
        self.transfers += 1;
        for (page, start) in (offset / PAGE_BYTES..).zip((0..data.len()).step_by(ALIGN_BYTES)) {
            self.change(Change::Page(page, data.slice(start..start + ALIGN_BYTES)));
        }
        if self.log.len() > self.compact_at.max(LOG_LEN_MIN) {
            self.compact();
        }
    }

    fn grow(&mut self, len: u64) {
        if len > self.volatile.len {
            self.transfers += 1;
            self.change(Change::Len(len));
        }
    }

    fn change(&mut self, change: Change) {
        self.volatile.apply(&change);
        self.log.push(Entry { generation: self.generation, transfer: self.transfers, change });
    }

    /// Forgets what was overwritten with no flush between. A kernel forgets it as well.
    fn compact(&mut self) {
        let mut seen = BTreeSet::new();
        let mut kept: Vec<Entry> = std::mem::take(&mut self.log);
        kept.reverse();
        kept.retain(|entry| match entry.change {
            Change::Len(_) => true,
            Change::Page(page, _) => seen.insert((entry.generation, page)),
        });
        kept.reverse();
        self.compact_at = kept.len() * 2;
        self.log = kept;
    }

    fn forget_damage(&mut self, range: &Range<u64>) {
        if !self.unreadable.is_empty() {
            self.unreadable.retain(|sector| !range.contains(&(sector * SECTOR_BYTES)));
        }
        self.stale.retain(|stale| stale.end <= range.start || range.end <= stale.start);
    }

    /// Fills `buf` with what is at `offset`; false when a sector of it cannot be read. `at_rest`: nobody
    /// reads, somebody looks.
    #[must_use]
    pub(super) fn read(&mut self, offset: u64, buf: &mut AlignedBuf, at_rest: bool) -> bool {
        let there = (buf.capacity() as u64).min(self.len().saturating_sub(offset));
        let end = offset.saturating_add(there);
        if there > 0
            && self.unreadable.range(offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES)).next().is_some()
        {
            return false;
        }
        buf.set_len(index(there));
        self.volatile.copy_to(offset, buf.as_mut_slice());
        if !at_rest && !self.stale.is_empty() {
            self.read_stale(offset..end, buf.as_mut_slice());
        }
        true
    }

    /// As [`read`](Self::read) of somebody who looks, of what a power loss would leave at least.
    #[must_use]
    pub(super) fn read_durable(&self, offset: u64, buf: &mut AlignedBuf) -> bool {
        let there = (buf.capacity() as u64).min(self.durable.len.saturating_sub(offset));
        let end = offset.saturating_add(there);
        let sectors = offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES);
        if there > 0 && self.unreadable.range(sectors).next().is_some() {
            return false;
        }
        buf.set_len(index(there));
        self.durable.copy_to(offset, buf.as_mut_slice());
        true
    }

    /// As a power loss would leave it at least.
    pub(super) fn durable_len(&self) -> u64 {
        self.durable.len
    }

    fn read_stale(&mut self, range: Range<u64>, to: &mut [u8]) {
        self.stale.retain(|stale| {
            let (start, end) = (stale.start.max(range.start), stale.end.min(range.end));
            if start < end {
                to[index(start - range.start)..index(end - range.start)].fill(0);
            }
            start >= end
        });
    }

    /// A flush begins: it covers what was written until now.
    pub(super) fn begin_flush(&mut self) -> FlushTicket {
        let ticket = FlushTicket { generation: self.generation, failures: self.failures };
        self.generation += 1;
        ticket
    }

    /// A flush ends. False when another one failed meanwhile: what this one was to make durable may
    /// be lost.
    #[must_use]
    pub(super) fn end_flush(&mut self, ticket: FlushTicket) -> bool {
        for entry in self.covered(ticket) {
            self.durable.apply(&entry.change);
        }
        self.failures == ticket.failures
    }

    /// A flush fails: what it covered is durable as far as `survival` says, and the rest will never be,
    /// though reads see it until the power is lost.
    pub(super) fn fail_flush(&mut self, ticket: FlushTicket, survival: Survival, stream: &Stream) -> Settled {
        self.failures += 1;
        self.apart = true;
        let entries = self.covered(ticket);
        self.settle(&entries, survival, stream)
    }

    fn covered(&mut self, ticket: FlushTicket) -> Vec<Entry> {
        let count = self.log.partition_point(|entry| entry.generation <= ticket.generation);
        self.log.drain(..count).collect()
    }

    /// The power is lost, and is back.
    pub(super) fn lose_power(&mut self, survival: Survival, stream: &Stream) -> Settled {
        let entries = std::mem::take(&mut self.log);
        let settled = self.settle(&entries, survival, stream);
        self.durable.cut();
        self.volatile = self.durable.clone();
        self.apart = false;
        self.stale.clear();
        settled
    }

    fn settle(&mut self, entries: &[Entry], survival: Survival, stream: &Stream) -> Settled {
        let mut settled = Settled::default();
        for transfer in entries.chunk_by(|a, b| a.transfer == b.transfer) {
            let sectors = transfer.len() as u64 * u64::from(SECTORS_PER_PAGE);
            let mut torn_after = stream.below(sectors + 1);
            let whole = stream.chance(500_000);
            for entry in transfer {
                let mask = match survival {
                    Survival::Nothing => 0,
                    Survival::Everything => WHOLE,
                    Survival::Sectors => stream.u64().to_le_bytes()[0],
                    Survival::Transfers => {
                        if whole {
                            WHOLE
                        } else {
                            0
                        }
                    }
                    Survival::Torn => first_sectors(torn_after),
                };
                torn_after = torn_after.saturating_sub(u64::from(SECTORS_PER_PAGE));
                match &entry.change {
                    Change::Page(page, data) => self.durable.merge(*page, data, mask),
                    // Of a length there is no half.
                    change if mask & 1 == 1 => self.durable.apply(change),
                    Change::Len(_) => {}
                }
                settled.kept += u64::from(mask.count_ones());
                settled.lost += u64::from(mask.count_zeros());
            }
        }
        settled
    }

    /// As far as it lies within the file.
    pub(super) fn clip(&self, offset: u64, bytes: u64) -> Range<u64> {
        let end = offset.saturating_add(bytes).min(self.len());
        offset.min(end)..end
    }

    /// What the kernel shows there.
    pub(super) fn copy(&self, range: &Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; index(range.end - range.start)];
        self.volatile.copy_to(range.start, &mut bytes);
        bytes
    }

    /// Changes bytes at rest, wherever a copy of them is.
    pub(super) fn edit(&mut self, range: &Range<u64>, mut edit: impl FnMut(u64, &mut u8)) {
        self.volatile.edit(range, &mut edit);
        self.durable.edit(range, &mut edit);
        for entry in &mut self.log {
            if let Change::Page(page, data) = &mut entry.change
                && (range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES)).contains(page)
            {
                *data = edited(*page, data, range, &mut edit);
            }
        }
    }

    /// The sectors of `range` cannot be read until they are written again.
    pub(super) fn spoil(&mut self, range: &Range<u64>) {
        self.unreadable.extend(range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES));
    }

    /// The next read sees zeros there.
    pub(super) fn make_stale(&mut self, range: Range<u64>) {
        self.stale.push(range);
    }
}

fn first_sectors(count: u64) -> u8 {
    let beyond = u32::try_from(count).unwrap_or(SECTORS_PER_PAGE).min(SECTORS_PER_PAGE);
    WHOLE.checked_shr(SECTORS_PER_PAGE - beyond).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(byte: u8) -> Bytes {
        vec![byte; ALIGN_BYTES].into()
    }

    /// A page that is written again and again keeps the log short, and what a flush under way covers is
    /// still durable when it ends.
    #[test]
    fn compaction() {
        let stream = Stream::new(1);
        let mut content = Content::new(2 * PAGE_BYTES);
        content.write(0, &page(1));
        content.write(PAGE_BYTES, &page(2));
        let under_way = content.begin_flush();
        for round in 0..20 * LOG_LEN_MIN {
            content.write(0, &page(3));
            assert!(content.log.len() <= LOG_LEN_MIN + 1, "round {round}: {} entries", content.log.len());
        }
        assert!(content.end_flush(under_way));
        assert!(!content.is_clean());
        content.lose_power(Survival::Nothing, &stream);
        assert_eq!(content.copy(&(0..PAGE_BYTES)), page(1));
        assert_eq!(content.copy(&(PAGE_BYTES..2 * PAGE_BYTES)), page(2));
        assert!(content.is_clean());
    }

    /// Each style of survival leaves what its name says of two transfers, of a page and of two.
    #[test]
    fn survival() {
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let stream = Stream::new(seed);
            let survival = Survival::draw(&stream);
            let mut content = Content::new(3 * PAGE_BYTES);
            let ticket = content.begin_flush();
            assert!(content.end_flush(ticket));
            content.write(0, &page(1));
            content.write(PAGE_BYTES, &[page(1), page(1)].concat().into());
            let Settled { kept, lost } = content.lose_power(survival, &stream);
            let bytes = content.copy(&(0..3 * PAGE_BYTES));
            let there: Vec<bool> = bytes.chunks(512).map(|sector| sector[0] == 1).collect();
            let count = there.iter().filter(|sector| **sector).count();
            assert_eq!((kept, lost), (count as u64, 24 - count as u64), "seed {seed}, {survival:?}");
            let (first, second) = there.split_at(8);
            let allowed = match survival {
                Survival::Nothing => count == 0,
                Survival::Everything => count == 24,
                Survival::Sectors => true,
                Survival::Transfers => {
                    [first, second].iter().all(|part| part.iter().all(|at| *at == part[0]))
                }
                Survival::Torn => first.is_sorted_by(|a, b| a >= b) && second.is_sorted_by(|a, b| a >= b),
            };
            assert!(allowed, "seed {seed}, {survival:?}: {there:?}");
            seen.insert(format!("{survival:?}"));
        }
        assert_eq!(seen.len(), 5, "all styles are drawn");
    }

    /// A length that is lost takes with it what lies beyond, and it reads as zeros when the file grows again.
    #[test]
    fn lost_length() {
        let stream = Stream::new(1);
        let mut content = Content::new(100);
        let ticket = content.begin_flush();
        assert!(content.end_flush(ticket));
        content.write(0, &page(7));
        content.durable.merge(0, &page(7), WHOLE);
        content.lose_power(Survival::Nothing, &stream);
        assert_eq!(content.len(), 100);
        content.write(PAGE_BYTES, &page(8));
        let all = content.copy(&(0..2 * PAGE_BYTES));
        assert_eq!((all[99], all[100], all[ALIGN_BYTES - 1], all[ALIGN_BYTES]), (7, 0, 0, 8));
    }
}
