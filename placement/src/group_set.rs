//! A set of group ids that can be asked for its n-th member.
//!
//! A bitmap in chunks: a member costs a bit or a little more, since ids are given out one after
//! another; insertion and removal are logarithmic; the n-th member is found by skipping whole chunks,
//! 1 500 of them for 1.5 million groups. The order is that of the ids, whatever the order of insertion.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use proto::GroupId;

const WORDS: usize = 16;
const CHUNK_BITS: u32 = 10;
const _: () = assert!(WORDS * 64 == 1 << CHUNK_BITS);

#[derive(Clone, Debug, Default)]
struct Chunk {
    words: [u64; WORDS],
    members: usize,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupSet {
    chunks: BTreeMap<u32, Chunk>,
    members: usize,
}

/// Chunk, word and bit of an id.
fn place(group: GroupId) -> (u32, usize, u64) {
    let chunk = group.0 >> CHUNK_BITS;
    let word = usize::try_from(group.0 >> 6).unwrap_or_default() % WORDS;
    (chunk, word, 1 << (group.0 & 63))
}

impl GroupSet {
    pub(crate) fn len(&self) -> usize {
        self.members
    }

    pub(crate) fn insert(&mut self, group: GroupId) {
        let (chunk, word, bit) = place(group);
        let chunk = self.chunks.entry(chunk).or_default();
        if let Some(word) = chunk.words.get_mut(word)
            && *word & bit == 0
        {
            *word |= bit;
            chunk.members += 1;
            self.members += 1;
        }
    }

    pub(crate) fn remove(&mut self, group: GroupId) {
        let (chunk, word, bit) = place(group);
        let Entry::Occupied(mut entry) = self.chunks.entry(chunk) else { return };
        let chunk = entry.get_mut();
        if let Some(word) = chunk.words.get_mut(word)
            && *word & bit != 0
        {
            *word &= !bit;
            chunk.members -= 1;
            self.members -= 1;
            if chunk.members == 0 {
                entry.remove();
            }
        }
    }

    /// The member with `n` smaller ones.
    pub(crate) fn nth(&self, n: usize) -> Option<GroupId> {
        let mut left = n;
        for (number, chunk) in &self.chunks {
            if left < chunk.members {
                return chunk.ids(*number).nth(left);
            }
            left -= chunk.members;
        }
        None
    }

    /// All members from `start` upwards, in order.
    pub(crate) fn from(&self, start: GroupId) -> impl Iterator<Item = GroupId> + '_ {
        let first = start.0 >> CHUNK_BITS;
        self.chunks
            .range(first..)
            .flat_map(|(number, chunk)| chunk.ids(*number))
            .skip_while(move |group| *group < start)
    }
}

impl Chunk {
    fn ids(&self, number: u32) -> impl Iterator<Item = GroupId> + '_ {
        (0u32..).zip(&self.words).filter(|(_, bits)| **bits != 0).flat_map(move |(word, bits)| {
            let base = number << CHUNK_BITS | word << 6;
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| GroupId(base | bit))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The same answers as a `BTreeSet` after any sequence of insertions and removals.
        #[test]
        fn like_a_btree_set(steps in prop::collection::vec((any::<bool>(), prop_oneof![0..200u32, 900..1200u32, u32::MAX - 70..=u32::MAX]), 0..300), start in 0..1200u32) {
            let (mut set, mut model) = (GroupSet::default(), BTreeSet::new());
            for (insert, id) in steps {
                let id = GroupId(id);
                if insert { set.insert(id); model.insert(id); } else { set.remove(id); model.remove(&id); }
                prop_assert_eq!(set.len(), model.len());
            }
            prop_assert_eq!(set.from(GroupId(0)).collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.from(GroupId(start)).collect::<Vec<_>>(), model.range(GroupId(start)..).copied().collect::<Vec<_>>());
            for n in 0..=model.len() {
                prop_assert_eq!(set.nth(n), model.iter().nth(n).copied());
            }
        }
    }
}
