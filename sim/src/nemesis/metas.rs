//! Metadata servers: who takes part.
//!
//! The log of a metadata server is never made empty under its id: a voter that has forgotten its vote
//! could vote twice. One that has lost its disk never starts again, and is replaced by a server of a new
//! id. One change of the members goes on at a time, and none begins before the last has ended; so never
//! more than one voter's store is lost, and only while there are three voters or more: a majority of them
//! keeps what was committed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proto::MetaId;
use simhost::Death;

use super::ailments;
use super::operators::{insist, operate};
use super::strike::{Outcome, Strike};
use super::victims;
use crate::cluster::{Cluster, MetaHost};
use crate::process::lock;

/// Voters of which one may lose its store.
const VOTERS_MIN: usize = 3;

/// In which order a server is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The new one is added, then the old one removed.
    AddFirst,
    /// The old one is removed, then the new one added.
    RemoveFirst,
}

/// A metadata server's disk is gone for good, and the server with it.
pub(super) fn lost(strike: &Strike<'_>) -> Outcome {
    let meta = match choose(strike) {
        Ok(meta) => meta,
        Err(outcome) => return outcome,
    };
    if let Err(reason) = may_lose_store(voters(strike.cluster).len()) {
        return Outcome::Refused(reason);
    }
    let outcome = strike.hits(Some(meta.process.host()), || "its disk is gone for good".to_owned());
    give_away(strike.cluster, &meta);
    replace(strike.cluster, &meta, Change::RemoveFirst);
    outcome
}

/// May one of so many voters lose its store?
fn may_lose_store(voters: usize) -> Result<(), String> {
    if voters >= VOTERS_MIN { Ok(()) } else { Err(format!("of {voters} voters no store may be lost")) }
}

/// Who votes, as far as the operators have brought it.
pub(super) fn voters(cluster: &Cluster) -> BTreeSet<MetaId> {
    let mut membership = lock(&cluster.nemesis.membership);
    if membership.voters.is_empty() {
        // Nobody has changed anything: these are those of the founding.
        membership.founders = cluster.metas().iter().map(|meta| meta.id).collect();
        membership.voters = membership.founders.clone();
    }
    membership.voters.clone()
}

/// A voter that may be replaced now.
pub(super) fn choose(strike: &Strike<'_>) -> Result<Arc<MetaHost>, Outcome> {
    let voters = voters(strike.cluster);
    let membership = lock(&strike.cluster.nemesis.membership);
    if membership.busy {
        return Err(Outcome::Refused("another change of the members goes on".to_owned()));
    }
    let mut metas = victims::metas(strike.cluster);
    // Nodes and clients that start again look for the cluster at the founders' addresses.
    let stays = |meta: &Arc<MetaHost>| {
        voters.iter().any(|other| *other != meta.id && membership.founders.contains(other))
    };
    metas
        .retain(|meta| voters.contains(&meta.id) && (stays(meta) || !membership.founders.contains(&meta.id)));
    strike.pick(&metas).ok_or_else(|| Outcome::Refused("the last founder stays".to_owned()))
}

/// An operator replaces a server, step by step, until it is done.
pub(super) fn replace(cluster: &Arc<Cluster>, old: &Arc<MetaHost>, change: Change) {
    lock(&cluster.nemesis.membership).busy = true;
    let (shared, old) = (cluster.clone(), old.clone());
    operate(cluster, async move {
        let cluster = shared;
        cluster.world.sleep(Duration::from_millis(500)).await;
        if change == Change::AddFirst {
            add(&cluster).await;
        }
        remove(&cluster, &old).await;
        if change == Change::RemoveFirst {
            add(&cluster).await;
        }
        lock(&cluster.nemesis.membership).busy = false;
        cluster.world.probe("a metadata server was replaced");
    });
}

async fn add(cluster: &Arc<Cluster>) {
    let new = cluster.add_meta();
    ailments::weather(cluster);
    let (id, address) = (new.id, new.address());
    insist(cluster, &format!("adds meta-{id}"), |admin| {
        let address = address.clone();
        async move { admin.add_member(id, address).await }
    })
    .await;
    lock(&cluster.nemesis.membership).voters.insert(id);
}

async fn remove(cluster: &Arc<Cluster>, old: &MetaHost) {
    let id = old.id;
    insist(cluster, &format!("removes meta-{id}"), |admin| async move { admin.remove_member(id).await })
        .await;
    lock(&cluster.nemesis.membership).voters.remove(&id);
    give_away(cluster, old);
}

/// The machine never starts again, and nothing is left of what it stored.
fn give_away(cluster: &Cluster, meta: &MetaHost) {
    cluster.note_meta_lost();
    meta.process.want(false);
    meta.process.host().kill(Death::Power);
    meta.process.host().kvs().wipe();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of three voters may lose its store; of fewer none, since the others are no majority.
    #[test]
    fn a_majority_keeps_its_stores() {
        for voters in 0..8_usize {
            let majority_left = voters.saturating_sub(1) > voters / 2;
            assert_eq!(may_lose_store(voters).is_ok(), majority_left, "{voters} voters");
        }
    }
}
