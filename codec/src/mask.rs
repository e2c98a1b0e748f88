//! A small set of slots: which shards of a stripe are missing, wanted or touched.

use std::fmt;

use proto::limits::SLOTS_MAX;
use proto::{InvalidInput, SlotIndex};

use crate::layout::slot_index;

/// A set of slots of one group, as bits: slot `i` is bit `i`. Metadata records keep the slots that
/// miss their shards this way.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotMask(u32);

impl SlotMask {
    /// No slot.
    pub const EMPTY: Self = Self(0);

    /// The slots `0..slots`.
    ///
    /// # Panics
    ///
    /// When `slots` is more than [`SLOTS_MAX`].
    pub const fn first(slots: usize) -> Self {
        assert!(slots <= SLOTS_MAX, "more slots than a group has");
        Self((1 << slots) - 1)
    }

    /// From a message about a group of `slots` slots.
    ///
    /// # Errors
    ///
    /// When it names a slot that the group does not have.
    pub fn from_wire(bits: u32, slots: usize) -> Result<Self, InvalidInput> {
        let known = Self::first(slots.min(SLOTS_MAX)).0;
        if bits & !known != 0 {
            return Err(InvalidInput::new(format!("slot mask {bits:#x} of a group of {slots} slots")));
        }
        Ok(Self(bits))
    }

    /// As it stands in a message.
    pub const fn to_wire(self) -> u32 {
        self.0
    }

    /// Adds `slot`; true when it was not there.
    ///
    /// # Panics
    ///
    /// When `slot` is not below [`SLOTS_MAX`].
    pub fn insert(&mut self, slot: SlotIndex) -> bool {
        assert!(usize::from(slot.0) < SLOTS_MAX, "slot {slot} is not below {SLOTS_MAX}");
        let before = self.0;
        self.0 |= 1 << slot.0;
        self.0 != before
    }

    /// Takes `slot` out; true when it was there.
    pub fn remove(&mut self, slot: SlotIndex) -> bool {
        let was_there = self.contains(slot);
        if was_there {
            self.0 &= !(1 << slot.0);
        }
        was_there
    }

    /// Whether `slot` is in it.
    pub const fn contains(self, slot: SlotIndex) -> bool {
        (slot.0 as usize) < SLOTS_MAX && self.0 & (1 << slot.0) != 0
    }

    /// How many slots are in it.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether no slot is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The slots in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The slots in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The slots of this one that are not in `other`.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The slots, from the lowest.
    pub fn iter(self) -> impl Iterator<Item = SlotIndex> {
        (0..SLOTS_MAX).map(slot_index).filter(move |slot| self.contains(*slot))
    }
}

impl FromIterator<SlotIndex> for SlotMask {
    fn from_iter<I: IntoIterator<Item = SlotIndex>>(slots: I) -> Self {
        let mut mask = Self::EMPTY;
        for slot in slots {
            mask.insert(slot);
        }
        mask
    }
}

impl fmt::Debug for SlotMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|slot| slot.0)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Behaves as a set of numbers does, under any sequence of changes.
        #[test]
        fn is_a_set(changes in prop::collection::vec((any::<bool>(), 0..24_u8), 0..64)) {
            let (mut mask, mut model) = (SlotMask::EMPTY, BTreeSet::new());
            for (add, slot) in changes {
                if add {
                    prop_assert_eq!(mask.insert(SlotIndex(slot)), model.insert(slot));
                } else {
                    prop_assert_eq!(mask.remove(SlotIndex(slot)), model.remove(&slot));
                }
            }
            prop_assert_eq!(mask.iter().map(|slot| slot.0).collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(mask.len(), model.len());
            prop_assert_eq!(mask.is_empty(), model.is_empty());
            prop_assert_eq!(mask.iter().collect::<SlotMask>(), mask);
            prop_assert_eq!(SlotMask::from_wire(mask.to_wire(), SLOTS_MAX), Ok(mask));
        }

        /// Union, intersection and difference are those of sets.
        #[test]
        fn combines_as_sets_do(a in 0..1_u32 << 24, b in 0..1_u32 << 24) {
            let mask = |bits| SlotMask::from_wire(bits, SLOTS_MAX).unwrap();
            for slot in (0..24).map(SlotIndex) {
                let (in_a, in_b) = (mask(a).contains(slot), mask(b).contains(slot));
                prop_assert_eq!(mask(a).union(mask(b)).contains(slot), in_a || in_b);
                prop_assert_eq!(mask(a).intersection(mask(b)).contains(slot), in_a && in_b);
                prop_assert_eq!(mask(a).difference(mask(b)).contains(slot), in_a && !in_b);
            }
        }
    }

    /// A message cannot name a slot that the group does not have; a slot out of range is in no set.
    #[test]
    fn foreign_slots_are_refused() {
        assert!(SlotMask::from_wire(0b11_1111, 6).is_ok());
        assert!(SlotMask::from_wire(0b100_0000, 6).is_err());
        assert!(SlotMask::from_wire(u32::MAX, usize::MAX).is_err());
        assert!(SlotMask::from_wire(1, 0).is_err());
        assert!(!SlotMask::first(SLOTS_MAX).contains(SlotIndex(24)));
        assert!(!SlotMask::first(SLOTS_MAX).contains(SlotIndex(255)));
        assert!(!SlotMask::first(SLOTS_MAX).remove(SlotIndex(255)));
    }
}
