//! What a bug makes of what is written.

use env::{AlignedBuf, Write};

use super::{Bug, Plant, Wrote};
use crate::store::record::{
    Body, PAGE_BYTES, Place, Record, SegmentHeader, SegmentId, Tombstone, decode_tombstones,
    encode_tombstones,
};

impl Plant {
    /// The same writes, each of one page or record.
    pub(super) fn split(&self, segment: SegmentId, batch: Vec<Write>) -> Vec<Write> {
        batch.into_iter().flat_map(|write| self.split_one(segment, write)).collect()
    }

    fn split_one(&self, segment: SegmentId, write: Write) -> Vec<Write> {
        if write.offset == 0 {
            return vec![write];
        }
        let (mut parts, mut rest, mut offset) = (Vec::new(), write.buf.as_capacity_slice(), write.offset);
        while !rest.is_empty() {
            let bytes = self.decode(segment, offset, rest).bytes();
            let (part, after) = rest.split_at(usize::try_from(bytes).unwrap());
            parts.push(Write { offset, buf: AlignedBuf::copy_of(part) });
            (rest, offset) = (after, offset + bytes);
        }
        parts
    }

    /// What is to be written in the place of this page or record; nothing when it is lost.
    pub(super) fn rewritten(&self, segment: SegmentId, mut write: Write) -> Option<Write> {
        if write.offset == 0 {
            self.rewrite_header(&mut write);
            return Some(write);
        }
        let record = self.decode(segment, write.offset, write.buf.as_slice());
        let rewritten = self.record(record, &mut write)?;
        rewritten.encode(&self.realm, write.buf.as_mut_slice());
        Some(write)
    }

    /// What a batch writes, for the flush that follows.
    pub(super) fn sort(&self, segment: SegmentId, batch: &[Write]) -> Option<Wrote> {
        let last = batch.last()?;
        if last.offset == 0 {
            let header = SegmentHeader::decode(&self.realm, last.buf.as_slice()).unwrap();
            let is_freed = header.incarnation > 1;
            return Some(if is_freed { Wrote::FreedHeader } else { Wrote::Header });
        }
        let are_copies = batch.iter().any(|write| {
            let record = self.decode(segment, write.offset, write.buf.as_slice());
            matches!(&record.body, Body::Shard(meta) if meta.from.is_some())
        });
        Some(Wrote::Records { last: last.offset, are_copies })
    }

    fn decode(&self, segment: SegmentId, offset: u64, bytes: &[u8]) -> Record {
        let page = &bytes[..PAGE_BYTES];
        let incarnation = u64::from_le_bytes(page[64..72].try_into().unwrap());
        Record::decode(&self.realm, &Place { segment, incarnation, offset }, page).unwrap()
    }

    fn rewrite_header(&self, write: &mut Write) {
        let mut header = SegmentHeader::decode(&self.realm, write.buf.as_slice()).unwrap();
        match self.bug {
            Some(Bug::IncarnationKept) if header.incarnation > 1 => header.incarnation -= 1,
            Some(Bug::DurableUnknown) => header.durable_to = 0,
            Some(Bug::SequencesReused) => header.durable_to = self.reused(header.durable_to),
            _ => return,
        }
        write.buf = header.encode(&self.realm);
    }

    fn record(&self, mut record: Record, write: &mut Write) -> Option<Record> {
        match self.bug {
            Some(Bug::DurableTooHigh) => record.durable_to = record.sequence - 1,
            Some(Bug::DurableUnknown) => record.durable_to = 0,
            Some(Bug::SequencesReused) => self.reuse(&mut record, write),
            _ => {}
        }
        match &mut record.body {
            Body::Shard(meta) if meta.from.is_some() => match self.bug {
                Some(Bug::CopiesBornEarly) => meta.born = 1,
                Some(Bug::CopiesWithoutSource) => meta.from = None,
                Some(Bug::CopiesBlank) => write.buf.as_mut_slice()[PAGE_BYTES..].fill(0),
                _ => {}
            },
            Body::Shard(_) => {}
            Body::Tombstones { .. } => match self.bug {
                Some(Bug::TombstonesLost) => return None,
                Some(Bug::TombstonesMisplaced) => {
                    rewrite_tombstones(&mut record, write, |of, _| of.incarnation += 1);
                }
                Some(Bug::TombstonesRenewed) => {
                    rewrite_tombstones(&mut record, write, |of, sequence| of.sequence = sequence);
                }
                _ => {}
            },
            Body::Seal { next, .. } => match self.bug {
                Some(Bug::SealsAstray) => next.0 += 1,
                Some(Bug::SealsLost) => return None,
                _ => {}
            },
        }
        Some(record)
    }

    fn reuse(&self, record: &mut Record, write: &mut Write) {
        let first = (record.sequence, record.previous);
        let mut memory = self.memory();
        // What is written before that is written again.
        if memory.is_open {
            memory.sequences.get_or_insert(first);
        }
        drop(memory);
        record.sequence = self.reused(record.sequence);
        record.previous = self.reused(record.previous);
        record.durable_to = self.reused(record.durable_to);
        match &mut record.body {
            Body::Shard(meta) => meta.born = self.reused(meta.born),
            Body::Tombstones { .. } => {
                rewrite_tombstones(record, write, |of, _| of.sequence = self.reused(of.sequence));
            }
            Body::Seal { .. } => {}
        }
    }

    /// The number in the place of one that the store has given out since it was opened: as if nothing had ever
    /// been written behind the end that it found.
    pub(super) fn reused(&self, sequence: u64) -> u64 {
        match self.memory().sequences {
            Some((first, last)) if sequence >= first => last + 1 + (sequence - first),
            _ => sequence,
        }
    }
}

/// Changes each tombstone, by the sequence of its record.
fn rewrite_tombstones(record: &mut Record, write: &mut Write, change: impl Fn(&mut Tombstone, u64)) {
    let Body::Tombstones { count, payload_crc } = &mut record.body else { return };
    let payload = &mut write.buf.as_mut_slice()[PAGE_BYTES..];
    let mut tombstones = decode_tombstones(payload, *count, *payload_crc).unwrap();
    tombstones.iter_mut().for_each(|tombstone| change(tombstone, record.sequence));
    *payload_crc = encode_tombstones(&tombstones, payload);
}
