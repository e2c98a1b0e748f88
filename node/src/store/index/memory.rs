//! What of the index is in memory: the segments, the position, and the totals.
//!
//! A segment's live bytes and shards are always those of the rows that point into it, of whatever
//! incarnation: nobody sets them, they follow from the shards that come and go.

use std::collections::BTreeMap;

use env::{KeyRange, KvRead};
use proto::ShardName;

use super::changes::Changes;
use super::list::Pages;
use super::problem::IndexProblem;
use super::rows::{self, Location, Position, SEGMENTS, SHARDS, SegmentRow, SegmentState};
use crate::store::record::SegmentId;

/// All but the shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) segments: BTreeMap<SegmentId, SegmentRow>,
    pub(super) position: Option<Position>,
    pub(super) totals: Totals,
}

/// Sums over all segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) used_bytes: u64,
    pub(super) shards: u64,
}

impl Totals {
    fn add(self, row: &SegmentRow) -> Result<Self, IndexProblem> {
        let used_bytes = self.used_bytes.checked_add(row.live_bytes);
        let shards = self.shards.checked_add(row.live_shards);
        Ok(Self {
            used_bytes: used_bytes.ok_or_else(|| of_segment("live_bytes", row.live_bytes))?,
            shards: shards.ok_or_else(|| of_segment("live_shards", row.live_shards))?,
        })
    }

    fn subtract(self, row: &SegmentRow) -> Result<Self, IndexProblem> {
        let used_bytes = self.used_bytes.checked_sub(row.live_bytes);
        let shards = self.shards.checked_sub(row.live_shards);
        Ok(Self {
            used_bytes: used_bytes.ok_or_else(|| of_segment("live_bytes", row.live_bytes))?,
            shards: shards.ok_or_else(|| of_segment("live_shards", row.live_shards))?,
        })
    }
}

/// What changes in memory once the batch is written.
#[derive(Debug)]
pub(super) struct Step {
    /// The new rows of all segments that change; none for those that are removed.
    pub(super) segments: BTreeMap<SegmentId, Option<SegmentRow>>,
    position: Option<Position>,
    totals: Totals,
}

impl Memory {
    /// From the table of segments, and a position that must fit it.
    pub(super) fn load<K: KvRead>(
        kv: &K,
        position: Position,
        segment_bytes: u64,
    ) -> Result<Self, IndexProblem> {
        let mut memory = Self { position: Some(position), ..Self::default() };
        for row in Pages::new(kv, SEGMENTS, KeyRange::all()) {
            let (key, value) = row?;
            let row = SegmentRow::decode(&value, segment_bytes)?;
            memory.totals = memory.totals.add(&row)?;
            memory.segments.insert(rows::parse_segment_key(&key)?, row);
        }
        position.check(memory.segments.get(&position.segment), segment_bytes)?;
        Ok(memory)
    }

    /// What `changes` do, when `before` is where their shards lie now.
    pub(super) fn plan(
        &self,
        changes: &Changes,
        before: &BTreeMap<ShardName, Location>,
        segment_bytes: u64,
    ) -> Result<Step, IndexProblem> {
        let mut segments = self.with_states(changes)?;
        for (name, after) in &changes.shards {
            if let Some(location) = before.get(name) {
                self.row(&mut segments, location)?.lose(location)?;
            }
            if let Some(location) = after {
                rows::check_name(name)?;
                location.check(segment_bytes)?;
                self.row(&mut segments, location)?.gain(location)?;
            }
        }
        segments.values().try_for_each(|row| row.check(segment_bytes))?;
        let position = self.position_after(changes, &segments, segment_bytes)?;
        let totals = segments.iter().try_fold(self.totals, |totals, (segment, row)| {
            self.segments.get(segment).map_or(Ok(totals), |before| totals.subtract(before))?.add(row)
        })?;
        let is_removed = |segment: &SegmentId| changes.segments.get(segment) == Some(&None);
        let kept = |(segment, row)| (segment, Some(row).filter(|_| !is_removed(&segment)));
        Ok(Step { segments: segments.into_iter().map(kept).collect(), position, totals })
    }

    /// Takes over what was written.
    pub(super) fn take(&mut self, step: Step) {
        for (segment, row) in step.segments {
            match row {
                Some(row) => self.segments.insert(segment, row),
                None => self.segments.remove(&segment),
            };
        }
        self.position = step.position;
        self.totals = step.totals;
    }

    /// The segments of which the changes tell, with what lived in them before.
    fn with_states(&self, changes: &Changes) -> Result<BTreeMap<SegmentId, SegmentRow>, IndexProblem> {
        let mut segments = BTreeMap::new();
        for (segment, state) in &changes.segments {
            let before = self.segments.get(segment);
            let after = match (*state, before) {
                (None, None) => continue,
                // As long as it is counted with, it is one in which nothing may live.
                (None, Some(before)) => SegmentRow { state: SegmentState::Free, ..*before },
                (Some((incarnation, _)), Some(before)) if incarnation < before.incarnation => {
                    return Err(of_segment("incarnation", incarnation));
                }
                (Some((incarnation, state)), Some(before)) => SegmentRow { incarnation, state, ..*before },
                (Some((incarnation, state)), None) => {
                    SegmentRow { incarnation, state, live_bytes: 0, live_shards: 0 }
                }
            };
            segments.insert(*segment, after);
        }
        Ok(segments)
    }

    /// The row to change of the segment where a shard lies; one must be known.
    fn row<'a>(
        &self,
        segments: &'a mut BTreeMap<SegmentId, SegmentRow>,
        location: &Location,
    ) -> Result<&'a mut SegmentRow, IndexProblem> {
        let segment = location.segment;
        if !segments.contains_key(&segment)
            && let Some(row) = self.segments.get(&segment)
        {
            segments.insert(segment, *row);
        }
        segments.get_mut(&segment).ok_or_else(|| IndexProblem::row(SHARDS, "segment", segment.0))
    }

    /// The position never goes back, lies in a segment of the log, and has no shard beyond it.
    fn position_after(
        &self,
        changes: &Changes,
        segments: &BTreeMap<SegmentId, SegmentRow>,
        segment_bytes: u64,
    ) -> Result<Option<Position>, IndexProblem> {
        let Some(position) = changes.position.or(self.position) else { return Ok(None) };
        let row = segments.get(&position.segment).or_else(|| self.segments.get(&position.segment));
        position.check(row, segment_bytes)?;
        if self.position.is_some_and(|before| before.sequence > position.sequence) {
            return Err(IndexProblem::row(rows::LOG, "sequence", position.sequence));
        }
        let newest = changes.shards.values().flatten().map(|location| location.sequence).max();
        match newest.filter(|sequence| *sequence > position.sequence) {
            Some(sequence) => Err(IndexProblem::row(SHARDS, "sequence", sequence)),
            None => Ok(Some(position)),
        }
    }
}

impl SegmentRow {
    fn gain(&mut self, location: &Location) -> Result<(), IndexProblem> {
        let bytes = self.live_bytes.checked_add(location.bytes);
        let shards = self.live_shards.checked_add(1);
        self.live_bytes = bytes.ok_or_else(|| of_segment("live_bytes", self.live_bytes))?;
        self.live_shards = shards.ok_or_else(|| of_segment("live_shards", self.live_shards))?;
        Ok(())
    }

    fn lose(&mut self, location: &Location) -> Result<(), IndexProblem> {
        let bytes = self.live_bytes.checked_sub(location.bytes);
        let shards = self.live_shards.checked_sub(1);
        self.live_bytes = bytes.ok_or_else(|| of_segment("live_bytes", self.live_bytes))?;
        self.live_shards = shards.ok_or_else(|| of_segment("live_shards", self.live_shards))?;
        Ok(())
    }
}

fn of_segment(field: &'static str, found: u64) -> IndexProblem {
    IndexProblem::row(SEGMENTS, field, found)
}
