//! The reference: what may stand under each name after any history and any crash.
//!
//! Of each name the model knows the [`State`]s that are possible: one of the contents, or none. Whatever is done to a
//! store or seen of it is an [`Act`] upon one name: a set of pairs, the state that it can have found and the state that
//! it left. Acts of the same moment happened in some order. So the rules are:
//!
//! - A put that was acknowledged found nothing, or the same, and left its content. One that met a conflict found
//!   another content; one that was refused for want of room found nothing. Neither changed anything.
//! - A deletion that was acknowledged left nothing, and counts what it found.
//! - What was never answered, since the host died, happened or did not; it was never half done.
//! - A read, a check or a line of a listing saw what was there, and changed nothing. What has been seen once stays:
//!   no crash takes back what somebody was told.
//! - A crash, a loss of the index, compaction and the passing of time change nothing.
//!
//! When no order of the acts fits, or none of what was possible before, a promise is broken.

use std::collections::{BTreeMap, BTreeSet};

use proto::{ExtentId, GroupId};

use super::universe::{KINDS, NAMES, Shard, name};
use crate::store::{Held, Removed, ShardStat};

/// What stands under a name: the kind of its content, or nothing.
pub(super) type State = Option<u8>;

/// Something that was done to one name, or seen of it.
#[derive(Clone, Debug)]
pub(super) struct Act {
    /// For people.
    pub(super) what: String,
    /// The states that it can have found, each with one that it then left.
    moves: Vec<(State, State)>,
}

impl Act {
    fn new(what: String, moves: impl IntoIterator<Item = (State, State)>) -> Self {
        Self { what, moves: moves.into_iter().collect() }
    }

    /// A put that was acknowledged.
    pub(super) fn stored(what: String, kind: u8) -> Self {
        Self::new(what, [(None, Some(kind)), (Some(kind), Some(kind))])
    }

    /// A put without an answer.
    pub(super) fn put_open(what: String, kind: u8) -> Self {
        Self::new(what, states().flat_map(|state| [(state, state), (state, state.or(Some(kind)))]))
    }

    /// A deletion that was acknowledged, and had this to delete, as far as is known.
    pub(super) fn deleted(what: String, found: impl Fn(State) -> bool) -> Self {
        Self::new(what, states().filter(|state| found(*state)).map(|state| (state, None)))
    }

    /// A deletion without an answer.
    pub(super) fn delete_open(what: String) -> Self {
        Self::new(what, states().flat_map(|state| [(state, state), (state, None)]))
    }

    /// An answer that these states explain, and that changes nothing.
    pub(super) fn saw(what: String, explains: impl Fn(State) -> bool) -> Self {
        Self::new(what, states().filter(|state| explains(*state)).map(|state| (state, state)))
    }
}

fn states() -> impl Iterator<Item = State> {
    [None].into_iter().chain((0..KINDS).map(Some))
}

/// Where acts of the same moment can end.
fn ends(start: State, acts: &[Act]) -> BTreeSet<State> {
    let mut reached = BTreeSet::from([(0_u32, start)]);
    let mut open = vec![(0_u32, start)];
    while let Some((done, state)) = open.pop() {
        for (at, act) in acts.iter().enumerate().filter(|(at, _)| done >> at & 1 == 0) {
            for (_, next) in act.moves.iter().filter(|(found, _)| *found == state) {
                let next = (done | 1 << at, *next);
                if reached.insert(next) {
                    open.push(next);
                }
            }
        }
    }
    let all = (1_u32 << acts.len()) - 1;
    reached.into_iter().filter(|(done, _)| *done == all).map(|(_, state)| state).collect()
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    possible: BTreeMap<u8, BTreeSet<State>>,
}

impl Reference {
    /// Of an empty store.
    pub(super) fn new() -> Self {
        Self { possible: (0..NAMES).map(|name| (name, BTreeSet::from([None]))).collect() }
    }

    /// Takes in what happened to one name in one moment.
    pub(super) fn happened(&mut self, number: u8, acts: &[Act]) -> Result<(), String> {
        let before = &self.possible[&number];
        let after: BTreeSet<State> = before.iter().flat_map(|state| ends(*state, acts)).collect();
        if after.is_empty() {
            let acts: Vec<&str> = acts.iter().map(|act| act.what.as_str()).collect();
            let name = name(number);
            return Err(format!("{number} ({name}) could hold {before:?}, and then: {acts:?}"));
        }
        self.possible.insert(number, after);
        Ok(())
    }

    /// All shards, in order.
    ///
    /// # Panics
    ///
    /// While a name has more than one possible state: then nobody has looked.
    pub(super) fn shards(&self) -> Vec<Shard> {
        let only = |(name, states): (&u8, &BTreeSet<State>)| {
            assert_eq!(states.len(), 1, "{name}: {states:?}");
            let kind = (*states.first()?)?;
            Some(Shard { name: *name, kind })
        };
        self.possible.iter().filter_map(only).collect()
    }

    /// What they take.
    pub(super) fn used_bytes(&self) -> u64 {
        self.shards().into_iter().map(Shard::record_bytes).sum()
    }

    /// What they take at most, whatever happened.
    pub(super) fn used_bytes_max(&self) -> u64 {
        let bytes = |name: u8, state: &State| state.map_or(0, |kind| Shard { name, kind }.record_bytes());
        let most =
            |(name, states): (&u8, &BTreeSet<State>)| states.iter().map(|state| bytes(*name, state)).max();
        self.possible.iter().filter_map(most).sum()
    }

    /// What the deletion of these names counts, when nothing else happens.
    pub(super) fn removed(&self, names: &[u8]) -> Removed {
        let gone = self.shards().into_iter().filter(|shard| names.contains(&shard.name));
        gone.fold(Removed::default(), |Removed { shards, bytes }, shard| Removed {
            shards: shards + 1,
            bytes: bytes + shard.record_bytes(),
        })
    }

    /// The groups that have any.
    pub(super) fn groups(&self) -> Vec<GroupId> {
        let groups: BTreeSet<GroupId> = self.shards().iter().map(|shard| name(shard.name).group).collect();
        groups.into_iter().collect()
    }

    /// The listing of a group.
    pub(super) fn listed(&self, group: GroupId) -> Vec<ShardStat> {
        self.shards().into_iter().map(Shard::stat).filter(|stat| stat.name.group == group).collect()
    }

    /// What is held of a group up to an extent.
    pub(super) fn held(&self, group: GroupId, through: ExtentId) -> Vec<Held> {
        let mut held = BTreeMap::<_, Vec<_>>::new();
        for ShardStat { name, .. } in self.listed(group) {
            if name.extent <= through {
                held.entry((name.extent, name.slot)).or_default().push(name.stripe);
            }
        }
        held.into_iter().map(|((extent, slot), stripes)| Held { extent, slot, stripes }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saw(state: State) -> Act {
        Act::saw(format!("saw {state:?}"), move |there| there == state)
    }

    fn stored(kind: u8) -> Act {
        Act::stored(format!("stored {kind}"), kind)
    }

    fn deleted(found: bool) -> Act {
        Act::deleted(format!("deleted {found}"), move |state| state.is_some() == found)
    }

    /// Acknowledged acts leave one state, open ones two, and a look decides.
    #[test]
    fn open_acts_may_have_happened() {
        let mut reference = Reference::new();
        reference.happened(3, &[stored(1)]).unwrap();
        assert_eq!(reference.shards(), [Shard { name: 3, kind: 1 }]);
        reference.happened(3, &[Act::delete_open(String::new())]).unwrap();
        let mut other = reference.clone();
        reference.happened(3, &[saw(Some(1))]).unwrap();
        other.happened(3, &[saw(None)]).unwrap();
        assert!(reference.happened(3, &[saw(None)]).is_err());
        assert!(other.happened(3, &[saw(Some(1))]).is_err());
        other.happened(3, &[Act::put_open(String::new(), 2)]).unwrap();
        assert!(other.clone().happened(3, &[saw(Some(1))]).is_err());
        assert!(other.happened(3, &[saw(Some(2))]).is_ok());
    }

    /// Acts of one moment fit in some order, or break a promise.
    #[test]
    fn acts_of_one_moment_have_an_order() {
        let after = |acts: &[Act]| ends(None, acts).into_iter().collect::<Vec<_>>();
        assert_eq!(after(&[stored(1), deleted(true)]), [None]);
        assert_eq!(after(&[stored(1), deleted(false)]), [Some(1)]);
        assert_eq!(after(&[stored(1), stored(2)]), []);
        assert_eq!(after(&[stored(1), stored(2), deleted(true)]), [Some(1), Some(2)]);
        assert_eq!(after(&[deleted(true)]), []);
        // Who was told that it is gone may rely on it, although the deletion itself was never answered.
        let open = Act::delete_open(String::new());
        assert_eq!(after(&[stored(1), open.clone()]), [None, Some(1)]);
        assert_eq!(ends(Some(1), &[open, deleted(false)]).into_iter().collect::<Vec<_>>(), [None]);
    }
}
