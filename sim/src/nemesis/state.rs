//! What the faults of a run remember.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use env::rpc::Caller;
use proto::{ExtentId, MetaId, NodeId};
use simhost::SimEnv;

use super::ailments::Ailments;
use super::atlas::Past;
use super::class::FaultClass;
use crate::process::lock;

/// What the faults of a run remember; a part of the cluster.
#[derive(Default)]
pub struct State {
    /// What lasts.
    pub(super) ailments: Mutex<Ailments>,
    /// What was destroyed.
    pub(super) past: Mutex<Past>,
    /// What is gone for good.
    pub(super) lost: Mutex<Lost>,
    /// Who votes among the metadata servers.
    pub(super) membership: Mutex<Membership>,
    /// Extents of which more was destroyed than is promised to be harmless.
    pub(super) beyond: Mutex<BTreeSet<ExtentId>>,
    /// Operators who have not finished what they began.
    pub(super) operators: AtomicU64,
    /// Commands of people that nobody has answered yet.
    pub(super) orders: AtomicU64,
    /// From where people command.
    pub(super) people: Mutex<Option<Caller<SimEnv>>>,
    calm: AtomicBool,
    counts: Mutex<BTreeMap<String, u64>>,
}

/// What is gone for good.
#[derive(Default)]
pub(super) struct Lost {
    /// Disks of machines that are there, and what they could hold in bytes.
    pub(super) disks: BTreeMap<(NodeId, String), u64>,
    /// Machines that never start again and have not been replaced: rack, and what their disks could hold.
    pub(super) nodes: BTreeMap<NodeId, (u32, Vec<u64>)>,
}

/// Who votes among the metadata servers. One change at a time, so that it is always known.
#[derive(Default)]
pub(super) struct Membership {
    /// Somebody changes it.
    pub(super) busy: bool,
    /// Voters, once somebody has asked.
    pub(super) voters: BTreeSet<MetaId>,
    /// Of those the cluster was founded by: the configuration of nodes and clients names them.
    pub(super) founders: BTreeSet<MetaId>,
}

impl State {
    /// Have faults ended?
    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// They have.
    pub(super) fn set_calm(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    /// A class has struck.
    pub(super) fn count(&self, class: FaultClass) {
        *lock(&self.counts).entry(class.name().to_owned()).or_insert(0) += 1;
    }

    /// The atlas has refused one.
    pub(super) fn count_refusal(&self, class: FaultClass) {
        *lock(&self.counts).entry(format!("{class} refused")).or_insert(0) += 1;
    }

    /// How often each class has struck, and how often the atlas refused one, by name.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        lock(&self.counts).clone()
    }

    /// Extents that lost more than is promised to be harmless: they may be unreadable, never wrong, and
    /// have to be whole again if `k` shards of each stripe are left. Empty unless the plan goes beyond.
    pub fn beyond(&self) -> BTreeSet<ExtentId> {
        lock(&self.beyond).clone()
    }

    /// Disks that are gone for good and have not been replaced, by node and path.
    pub fn lost_disks(&self) -> BTreeSet<(NodeId, String)> {
        lock(&self.lost).disks.keys().cloned().collect()
    }
}
