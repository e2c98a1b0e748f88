//! Operations on the store, and what their answers mean for each name.

use std::collections::BTreeMap;

use codec::block_checksums;
use env::Priority;
use proto::ShardName;
use proto::limits::BLOCK_BYTES;

use super::super::ShardStore;
use super::history::Operation;
use super::plants::{PlantedDisk, PlantedKv};
use super::reference::{Act, State};
use super::universe::{NAMES, Shard, group, name, number};
use crate::store::{Presence, Removed, ShardPage, ShardRead, ShardStat, StoreError};

pub(super) type Store = ShardStore<PlantedDisk, PlantedKv>;

/// What a store answered.
pub(super) enum Answer {
    Put(Result<ShardStat, StoreError>),
    Removed(Result<Removed, StoreError>),
    Read(Result<ShardRead, StoreError>),
    Check(Result<Presence, StoreError>),
    List(Result<ShardPage, StoreError>),
    Compact(Result<bool, StoreError>),
}

/// What happened to some of the names.
pub(super) type Acts = BTreeMap<u8, Act>;

impl Operation {
    /// Asks the store.
    pub(super) async fn perform(self, store: Store) -> Answer {
        match self {
            Self::Put(shard) => {
                Answer::Put(store.put(shard.checked(), Priority::Client).await.map(|stat| *stat.get()))
            }
            Self::Delete { name: number } => {
                Answer::Removed(store.delete(name(number)).await.map(|removed| *removed.get()))
            }
            Self::DeleteExtent { name: number } => {
                let ShardName { group, extent, slot, .. } = name(number);
                Answer::Removed(store.delete_extent(group, extent, slot).await.map(|removed| *removed.get()))
            }
            Self::DeleteSlot { name: number } => {
                let ShardName { group, slot, .. } = name(number);
                Answer::Removed(store.delete_slot(group, slot).await.map(|removed| *removed.get()))
            }
            Self::Read { name: number, first, blocks } => {
                Answer::Read(store.read(name(number), first, blocks, Priority::Client).await)
            }
            Self::Check { name: number } => Answer::Check(store.check(name(number), Priority::Scrub).await),
            Self::List { group: number, after, limit } => {
                Answer::List(store.list(group(number), after.map(name), limit).await)
            }
            Self::Compact => Answer::Compact(store.compact().await),
        }
    }

    /// The names that it is about; none for a listing.
    pub(super) fn names(&self) -> Vec<u8> {
        let all = |covers: &dyn Fn(ShardName) -> bool| (0..NAMES).filter(|one| covers(name(*one))).collect();
        match *self {
            Self::Put(Shard { name, .. })
            | Self::Delete { name }
            | Self::Read { name, .. }
            | Self::Check { name } => vec![name],
            Self::DeleteExtent { name: of } => {
                let ShardName { group, extent, slot, .. } = name(of);
                all(&|one| (one.group, one.extent, one.slot) == (group, extent, slot))
            }
            Self::DeleteSlot { name: of } => {
                let ShardName { group, slot, .. } = name(of);
                all(&|one| (one.group, one.slot) == (group, slot))
            }
            Self::List { .. } | Self::Compact => Vec::new(),
        }
    }

    /// What it did, when no answer came.
    pub(super) fn unanswered(&self) -> Acts {
        let what = || format!("{self:?} was not answered");
        match self {
            Self::Put(shard) => Acts::from([(shard.name, Act::put_open(what(), shard.kind))]),
            Self::Delete { .. } | Self::DeleteExtent { .. } | Self::DeleteSlot { .. } => {
                self.names().into_iter().map(|name| (name, Act::delete_open(what()))).collect()
            }
            _ => Acts::new(),
        }
    }

    /// What it did and saw, by its answer. The store may be full or not.
    ///
    /// # Errors
    ///
    /// When there is no such answer, whatever the names hold.
    pub(super) fn answered(&self, answer: &Answer) -> Result<Acts, String> {
        let broken = || Err(format!("{self:?} was answered {}", answer.told()));
        let what = format!("{self:?}: {}", answer.told());
        Ok(match (self, answer) {
            (Self::Put(shard), Answer::Put(answer)) => {
                let Some(act) = put_act(what, *shard, answer) else { return broken() };
                Acts::from([(shard.name, act)])
            }
            (Self::Delete { name: of }, Answer::Removed(Ok(removed))) => {
                let (of, removed) = (*of, *removed);
                Acts::from([(of, Act::deleted(what, |state| removed_of(of, state) == removed))])
            }
            (Self::DeleteExtent { .. } | Self::DeleteSlot { .. }, Answer::Removed(Ok(removed))) => {
                let names = self.names();
                if removed.shards > names.len() as u64 {
                    return broken();
                }
                names.into_iter().map(|name| (name, Act::deleted(what.clone(), |_| true))).collect()
            }
            (Self::Read { name: of, first, blocks }, Answer::Read(answer)) => {
                let explains = |state| is_read_of(shard(*of, state), *first, *blocks, answer);
                Acts::from([(*of, Act::saw(what, explains))])
            }
            (Self::Check { name: of }, Answer::Check(answer)) => {
                let explains = |state: State| {
                    let presence =
                        shard(*of, state).map_or(Presence::Absent, |it| Presence::Whole(it.stat()));
                    *answer == Ok(presence)
                };
                Acts::from([(*of, Act::saw(what, explains))])
            }
            (Self::List { group: of, after, limit }, Answer::List(Ok(page))) => {
                let covered = covered(page, group(*of), after.map(name), *limit);
                covered.map_err(|problem| format!("{what}: {problem}"))?
            }
            (Self::Compact, Answer::Compact(Ok(_) | Err(StoreError::Full { .. }))) => Acts::new(),
            _ => return broken(),
        })
    }
}

impl Answer {
    /// Was it refused for want of room?
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Put(Err(StoreError::Full { .. })))
    }

    /// In few words.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Put(answer) => format!("{answer:?}"),
            Self::Removed(answer) => format!("{answer:?}"),
            Self::Read(Ok(read)) => format!("{} bytes of {}", read.bytes.len(), read.shard_bytes),
            Self::Read(Err(error)) => format!("{error:?}"),
            Self::Check(answer) => format!("{answer:?}"),
            Self::List(Ok(page)) => format!("{} shards, more: {}", page.shards.len(), page.more),
            Self::List(Err(error)) => format!("{error:?}"),
            Self::Compact(answer) => format!("{answer:?}"),
        }
    }
}

/// What stands under a name in a state.
fn shard(name: u8, state: State) -> Option<Shard> {
    state.map(|kind| Shard { name, kind })
}

/// What the deletion of a name in a state counts.
fn removed_of(name: u8, state: State) -> Removed {
    shard(name, state).map_or_else(Removed::default, |it| Removed { shards: 1, bytes: it.record_bytes() })
}

fn put_act(what: String, shard: Shard, answer: &Result<ShardStat, StoreError>) -> Option<Act> {
    match answer {
        Ok(stat) if *stat == shard.stat() => Some(Act::stored(what, shard.kind)),
        Err(StoreError::Conflict(of)) if *of == name(shard.name) => {
            Some(Act::saw(what, |state| state.is_some_and(|there| there != shard.kind)))
        }
        Err(StoreError::Full { .. }) => Some(Act::saw(what, |state| state.is_none())),
        _ => None,
    }
}

/// Is this what a read of `shard` gives?
fn is_read_of(shard: Option<Shard>, first: u32, blocks: u32, answer: &Result<ShardRead, StoreError>) -> bool {
    let Some(shard) = shard else { return matches!(answer, Err(StoreError::NoSuchShard(_))) };
    let bytes = shard.bytes();
    let there = bytes.len().div_ceil(BLOCK_BYTES);
    let first = usize::try_from(first).unwrap();
    let end = if blocks == 0 { there } else { first + usize::try_from(blocks).unwrap() };
    if first >= end || end > there {
        return matches!(answer, Err(StoreError::Invalid(_)));
    }
    let expected = bytes.slice(first * BLOCK_BYTES..bytes.len().min(end * BLOCK_BYTES));
    answer.as_ref().is_ok_and(|read| {
        read.bytes == expected
            && read.block_crcs == block_checksums(&expected)
            && read.shard_bytes == shard.stat().shard_bytes
            && read.tenant_tag == shard.tenant_tag()
            && read.hint == shard.hint()
    })
}

/// What a page of a listing says about each name that it covers.
fn covered(
    page: &ShardPage,
    group: proto::GroupId,
    after: Option<ShardName>,
    limit: usize,
) -> Result<Acts, String> {
    let mut listed = BTreeMap::new();
    let mut last = None;
    for stat in &page.shards {
        let number = number(&stat.name).ok_or_else(|| format!("{} is unknown", stat.name))?;
        let in_order = last < Some(stat.name) && after < Some(stat.name) && stat.name.group == group;
        if !in_order {
            return Err(format!("{} stands in the wrong place", stat.name));
        }
        last = Some(stat.name);
        listed.insert(number, *stat);
    }
    if listed.len() > limit {
        return Err(format!("{} shards, {limit} were asked for", listed.len()));
    }
    let covers =
        |name: ShardName| name.group == group && after < Some(name) && (!page.more || Some(name) <= last);
    let act = |number: u8| {
        let stat = listed.get(&number).copied();
        let explains = |state| shard(number, state).map(Shard::stat) == stat;
        (number, Act::saw(format!("listed as {stat:?}"), explains))
    };
    Ok((0..NAMES).filter(|number| covers(name(*number))).map(act).collect())
}
