//! What the metadata service says of an object, parsed, and which part of it comes next.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use codec::{ExtentLayout, SlotMask, StripePart};
use proto::limits::EXTENTS_MAX;
use proto::{ExtentId, GroupId, InvalidInput, wire};

use crate::error::GetError;
use crate::group::Group;
use crate::object::{ObjectInfo, Tolerance};

/// An object and where its bytes lie.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) info: ObjectInfo,
    pub(crate) tolerates: Tolerance,
    inline: Bytes,
    extents: Vec<Arc<PlannedExtent>>,
}

/// An extent and its places.
#[derive(Debug)]
pub(crate) struct PlannedExtent {
    pub(crate) id: ExtentId,
    pub(crate) group: Arc<Group>,
    pub(crate) missing: SlotMask,
    /// Where it begins in the object.
    pub(crate) start: u64,
    layout: ExtentLayout,
}

/// What to fetch next.
#[derive(Debug)]
pub(crate) enum Piece {
    /// It is here already.
    Inline(Bytes),
    /// A part of one stripe.
    Stripe(Arc<PlannedExtent>, StripePart),
}

impl Plan {
    /// From a message.
    ///
    /// # Errors
    ///
    /// When it contradicts itself.
    pub(crate) fn parse(reply: wire::GetObjectReply) -> Result<Self, InvalidInput> {
        let object = reply.object.ok_or_else(|| InvalidInput::new("an object without description"))?;
        let info = ObjectInfo::parse(object)?;
        if reply.extents.len() > EXTENTS_MAX {
            return Err(InvalidInput::new(format!("an object of {} extents", reply.extents.len())));
        }
        let groups = reply.placements.into_iter().map(|placement| {
            let group = Group::parse(placement)?;
            Ok((group.id, Arc::new(group)))
        });
        let groups: BTreeMap<GroupId, Arc<Group>> = groups.collect::<Result<_, InvalidInput>>()?;
        let mut start = 0;
        let mut extents = Vec::with_capacity(reply.extents.len());
        for extent in reply.extents {
            let extent = PlannedExtent::parse(extent, &groups, start)?;
            start += extent.layout.extent_bytes();
            extents.push(Arc::new(extent));
        }
        let held = if extents.is_empty() { reply.inline.len() as u64 } else { start };
        if held != info.size {
            return Err(InvalidInput::new(format!("{held} bytes for an object of {}", info.size)));
        }
        let tolerates = reply.tolerance.unwrap_or_default().into();
        Ok(Self { info, tolerates, inline: reply.inline, extents })
    }

    /// What to fetch for the object's bytes `range`: the first of it, at least one byte; and how many
    /// bytes that is. None for an empty range.
    pub(crate) fn next(&self, range: Range<u64>) -> Option<(Piece, u64)> {
        if range.is_empty() {
            return None;
        }
        if self.extents.is_empty() {
            let at =
                |byte: u64| usize::try_from(byte).map_or(self.inline.len(), |at| at.min(self.inline.len()));
            let bytes = self.inline.slice(at(range.start)..at(range.end));
            let length = bytes.len() as u64;
            return (length > 0).then_some((Piece::Inline(bytes), length));
        }
        let after = self.extents.partition_point(|extent| extent.start <= range.start);
        let extent = self.extents.get(after.checked_sub(1)?)?;
        let end = range.end.min(extent.start + extent.layout.extent_bytes());
        let part = extent.layout.locate(range.start - extent.start..end - extent.start).ok()?.next()?;
        let length = part.range.len() as u64;
        Some((Piece::Stripe(extent.clone(), part), length))
    }

    /// Do the bytes lie elsewhere than `other` says?
    pub(crate) fn differs(&self, other: &Self) -> bool {
        let places = |plan: &Self| -> Vec<_> {
            plan.extents.iter().map(|extent| (extent.group.epoch, extent.missing)).collect()
        };
        places(self) != places(other)
    }

    /// The range that is meant by `asked`.
    pub(crate) fn range(&self, asked: Option<&Range<u64>>) -> Result<Range<u64>, GetError> {
        let size = self.info.size;
        let Some(&Range { start, end }) = asked else { return Ok(0..size) };
        if start > end || (start >= size && start != end) {
            return Err(GetError::BadRange { start, end, size });
        }
        Ok(start.min(size)..end.min(size))
    }
}

impl PlannedExtent {
    fn parse(
        wire: wire::Extent,
        groups: &BTreeMap<GroupId, Arc<Group>>,
        start: u64,
    ) -> Result<Self, InvalidInput> {
        let id = GroupId(wire.group);
        let group = groups
            .get(&id)
            .ok_or_else(|| InvalidInput::new(format!("group {id} of an extent is not given")))?;
        Ok(Self {
            id: ExtentId::from_wire(&wire.id)?,
            missing: SlotMask::from_wire(wire.missing, group.slots())?,
            layout: group.geometry().extent(wire.length)?,
            group: group.clone(),
            start,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::group::tests::placement;

    const STRIPE: u64 = 4 * 65_536;

    fn reply(lengths: &[u64], inline: &'static [u8]) -> wire::GetObjectReply {
        let extent = |(at, length): (usize, &u64)| wire::Extent {
            id: ExtentId(at as u128 + 1).to_wire(),
            group: 5,
            epoch: 1,
            length: *length,
            missing: 0,
        };
        let size = if lengths.is_empty() { inline.len() as u64 } else { lengths.iter().sum() };
        wire::GetObjectReply {
            object: Some(wire::Object { key: "k".into(), size, ..Default::default() }),
            inline: Bytes::from_static(inline),
            extents: lengths.iter().enumerate().map(extent).collect(),
            placements: vec![placement(4, 2)],
            tolerance: None,
        }
    }

    proptest! {
        /// The pieces of a range are that range: in order, without gap or overlap, across extents of
        /// any lengths.
        #[test]
        fn pieces_cover_the_range(
            lengths in prop::collection::vec(1..3 * STRIPE, 1..5), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(),
        ) {
            let plan = Plan::parse(reply(&lengths, b"")).unwrap();
            let size = usize::try_from(plan.info.size).unwrap();
            let (a, b) = (a.index(size + 1) as u64, b.index(size + 1) as u64);
            let (mut at, end) = (a.min(b), a.max(b));
            while let Some((piece, length)) = plan.next(at..end) {
                let Piece::Stripe(extent, part) = piece else { panic!("not inline") };
                let start = extent.start + u64::from(part.stripe.0) * STRIPE + part.range.start as u64;
                prop_assert_eq!(start, at);
                prop_assert_eq!(part.range.len() as u64, length);
                at += length;
            }
            prop_assert_eq!(at, end);
        }
    }

    /// Small objects are in the answer.
    #[test]
    fn inline_objects_are_sliced() {
        let plan = Plan::parse(reply(&[], b"hello")).unwrap();
        match plan.next(1..4) {
            Some((Piece::Inline(bytes), 3)) => assert_eq!(bytes, "ell"),
            other => panic!("{other:?}"),
        }
        assert!(Plan::parse(reply(&[], b"")).unwrap().next(0..0).is_none());
    }

    /// Ranges are cut at the object's end, and refused when they begin after it.
    #[test]
    fn ranges_are_checked() {
        let plan = Plan::parse(reply(&[], b"hello")).unwrap();
        assert_eq!(plan.range(None), Ok(0..5));
        assert_eq!(plan.range(Some(&(2..99))), Ok(2..5));
        assert_eq!(plan.range(Some(&(2..2))), Ok(2..2));
        assert!(plan.range(Some(&(5..6))).is_err());
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = 3..2;
        assert!(plan.range(Some(&reversed)).is_err());
    }

    /// What contradicts itself is refused.
    #[test]
    fn odd_answers_are_refused() {
        let good = reply(&[STRIPE, 5], b"");
        assert!(Plan::parse(good.clone()).is_ok());
        assert!(Plan::parse(wire::GetObjectReply { object: None, ..good.clone() }).is_err());
        assert!(Plan::parse(wire::GetObjectReply { placements: Vec::new(), ..good.clone() }).is_err());
        assert!(
            Plan::parse(wire::GetObjectReply { extents: good.extents[1..].to_vec(), ..good.clone() })
                .is_err()
        );
        let mut empty = good.clone();
        empty.extents[0].length = 0;
        assert!(Plan::parse(empty).is_err());
        let mut foreign = good;
        foreign.extents[0].missing = 1 << 6;
        assert!(Plan::parse(foreign).is_err());
    }
}
