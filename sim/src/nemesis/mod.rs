//! What goes wrong, and what may.
//!
//! A *strike* is one fault of a [`FaultClass`]. The seed decides which classes are on, and when each of
//! them strikes ([`storm`]); strikes are numbered in the order of time, and each draws from a stream of
//! its own, so that leaving one out changes neither the time nor the draws of another. Faults that last
//! are kept as [`ailments`] until their time is over, or until the [`calm`] ends them all.
//!
//! Faults that take away what cannot come back by itself, or that damage it, ask the [`atlas`] first: it
//! keeps them within what is promised, so that data that cannot be read is always a bug. Crashes, pauses,
//! partitions and the like have no limit: they may stop the cluster, and never make it forget.
//!
//! Operators are people of this world, too: they add, replace and restart things while all this goes on
//! ([`operators`], [`losses`], [`metas`]), and they empty disks and nodes that are well ([`people`]); what they
//! began they finish in the calm.

mod ailments;
mod atlas;
mod calm;
mod class;
mod clocks;
mod damage;
mod losses;
mod metas;
mod moves;
mod network;
mod operators;
mod people;
mod power;
mod processes;
mod state;
mod storage;
mod stores;
mod storm;
mod strangers;
mod strike;
mod topology;
mod victims;

use std::collections::BTreeMap;

use crate::cluster::Cluster;

pub use calm::{calm, leap};
pub use class::{FaultClass, UnknownClass};
pub(crate) use moves::move_one;
pub(crate) use people::ask;
pub use state::State;
pub use storm::storm;
pub(crate) use victims::leader;

/// How often each class has struck, and how often the atlas refused one, by name.
pub fn counts(cluster: &Cluster) -> BTreeMap<String, u64> {
    cluster.nemesis.counts()
}
