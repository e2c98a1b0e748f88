//! What is to change in the index at once.

use std::collections::BTreeMap;

use proto::ShardName;

use super::rows::{Location, Position, SegmentState};
use crate::store::record::SegmentId;

/// Changes that take effect together. Of several about the same shard or segment the last one counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    pub(super) shards: BTreeMap<ShardName, Option<Location>>,
    pub(super) segments: BTreeMap<SegmentId, Option<(u64, SegmentState)>>,
    pub(super) position: Option<Position>,
}

impl Changes {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The shard lies here from now on.
    pub(crate) fn put(&mut self, name: ShardName, location: Location) {
        self.shards.insert(name, Some(location));
    }

    /// The shard is gone. Nothing happens when there is none.
    pub(crate) fn remove(&mut self, name: ShardName) {
        self.shards.insert(name, None);
    }

    /// The segment has this incarnation and state. What lives in it follows from the shards.
    pub(crate) fn set_segment(&mut self, segment: SegmentId, incarnation: u64, state: SegmentState) {
        self.segments.insert(segment, Some((incarnation, state)));
    }

    /// There is no such segment. Nothing may live in it.
    pub(crate) fn remove_segment(&mut self, segment: SegmentId) {
        self.segments.insert(segment, None);
    }

    /// With these changes the index has everything up to here.
    pub(crate) fn set_position(&mut self, position: Position) {
        self.position = Some(position);
    }

    /// Where they have the shard lie; none when they say nothing of it, or that it is gone.
    pub(crate) fn location(&self, name: &ShardName) -> Option<&Location> {
        self.shards.get(name).and_then(Option::as_ref)
    }

    /// Shards that it tells of.
    pub(crate) fn len(&self) -> usize {
        self.shards.len()
    }
}
