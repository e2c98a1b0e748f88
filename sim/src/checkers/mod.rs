//! What must hold, a file for each promise.
//!
//! [`TABLE`] names them. Some look at the cluster every few virtual seconds while faults go on
//! ([`watch`]), some when it should have healed ([`healing`]), some at the very end ([`audit`]). All of
//! them look at what is there (stores, disks, messages), not at what servers say of themselves.

mod convergence;
mod durability;
mod duties;
mod epochs;
mod evenness;
mod linearizability;
mod log_alone;
mod memory;
mod metadata;
mod placement;
mod promised;
mod raft;
mod receipts;
mod space;
mod tasks;
mod told;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::oracle;
use crate::tap::rules;

pub use convergence::healing;
pub(crate) use told::Told;

/// Between two samples of a storm.
const SAMPLE: Duration = Duration::from_millis(1_500);

/// A checker.
#[derive(Clone, Copy, Debug)]
pub struct Checker {
    /// Its name in reports.
    pub name: &'static str,
    /// What is promised.
    pub promise: &'static str,
    /// What breaks for whom when it does not hold.
    pub reason: &'static str,
    /// Where it is.
    pub file: &'static str,
}

const fn checker(
    name: &'static str,
    promise: &'static str,
    reason: &'static str,
    file: &'static str,
) -> Checker {
    Checker { name, promise, reason, file }
}

/// All checkers.
pub const TABLE: &[Checker] = &[
    checker(
        durability::NAME,
        "every acknowledged object reads back byte for byte, and still does when as much is lost as its receipt allows",
        "an archive that forgets is none",
        "checkers/durability.rs",
    ),
    checker(
        durability::AVAILABILITY,
        "a cluster that has healed does what it is asked for",
        "a store that only keeps is a grave",
        "checkers/durability.rs",
    ),
    checker(
        promised::NAME,
        "what the metadata do not mark as missing lies whole on the disk that they name",
        "redundancy that is only believed in is lost by the next fault",
        "checkers/promised.rs",
    ),
    checker(
        told::NAME,
        "whatever a server tells another (a vote, entries, a snapshot, its cluster; a shard, a deletion, a disk) would still be true after a power loss at that moment",
        "who was told builds upon it, and nobody tells him that it is gone",
        "checkers/told/",
    ),
    checker(
        log_alone::NAME,
        "a node that has lost the index of a disk finds the same shards in its log",
        "an index that cannot be made anew is a single copy of where everything is",
        "checkers/log_alone.rs",
    ),
    checker(
        "integrity",
        "a get returns the right bytes or an error",
        "wrong bytes are worse than none",
        "load/",
    ),
    checker(
        linearizability::NAME,
        "each key behaves like one atomic register; listings show what is there",
        "whoever was told that it is done must see it done",
        "checkers/linearizability.rs",
    ),
    checker(
        placement::NAME,
        "no two slots of a group on one disk, no domain with more of them than may be lost, in the metadata and in the real racks",
        "one rack must not take data with it",
        "checkers/placement.rs",
    ),
    checker(
        epochs::NAME,
        "a group's epoch never falls, and rises with every change of its slots",
        "epochs fence out writers of the past",
        "checkers/epochs.rs",
    ),
    checker(
        duties::NAME,
        "no slot comes to a disk that is out of service; a retired disk has none, and stays retired",
        "a disk that was emptied is taken out",
        "checkers/duties.rs",
    ),
    checker(
        tasks::NAME,
        "the progress of a task never falls and counts each slot once; it ends, and what it calls done is done",
        "people switch off what they are told is empty",
        "checkers/tasks.rs",
    ),
    checker(
        evenness::NAME,
        "a rebalance that nothing disturbs moves what its plan says, a tenth more at most, and leaves nothing to plan",
        "a plan that is not kept cannot be agreed to",
        "checkers/evenness.rs",
    ),
    checker(
        rules::FENCING,
        "what is older than its group's slot has no effect: writes, commits, reports of work, moves, work given out; and no command is carried out twice",
        "a shard in the wrong place counts as redundancy and is none",
        "tap/rules.rs, late/",
    ),
    checker(
        rules::QUORUM,
        "a commit is accepted only with as many durable slots as the profile asks for",
        "one disk less must not make an acknowledged object unreadable",
        "tap/rules.rs",
    ),
    checker(
        raft::NAME,
        "one leader a term; committed entries are the same everywhere and never change; equal positions have equal states",
        "a second truth loses acknowledged writes",
        "checkers/raft.rs",
    ),
    checker(
        metadata::NAME,
        "rows, counters and references of the metadata add up",
        "a wrong counter hides a lost row",
        "checkers/metadata.rs",
    ),
    checker(
        receipts::NAME,
        "a receipt never promises more than the places of the shards give",
        "an operator decides by it what may be switched off",
        "checkers/receipts.rs",
    ),
    checker(
        convergence::NAME,
        "once faults have ended, everything is whole, in legal places and clean within a bound of time, and all metadata servers agree",
        "nothing is left for a person to do",
        "checkers/convergence.rs",
    ),
    checker(
        space::NAME,
        "on the disks is what the metadata account for, to the byte, and nothing else",
        "leaked space is bought twice",
        "checkers/space.rs",
    ),
    checker(
        memory::NAME,
        "tasks and bytes in flight keep within their bounds, and go back when the load ends",
        "a queue without a bound takes the node with it",
        "checkers/memory.rs",
    ),
    checker(
        "operations end",
        "every operation ends within its limit",
        "a caller that waits for ever is down",
        "load/",
    ),
    checker(
        "no deadlock",
        "somebody can always go on",
        "nobody restarts a cluster that waits for itself",
        "run.rs",
    ),
    checker("founding", "a cluster without faults can be founded", "the first impression", "run.rs"),
    checker(
        "bug",
        "no assertion of the production code fails",
        "a process that ends by a bug is no fault of the machine",
        "main.rs",
    ),
];

/// The samples of a storm, while it lasts.
pub struct Watch(Arc<AtomicBool>);

impl Watch {
    /// No more samples.
    pub fn end(self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Looks at the cluster every now and then, from now on.
pub fn watch(cluster: &Arc<Cluster>) -> Watch {
    let ended = Arc::new(AtomicBool::new(false));
    let (cluster, flag) = (cluster.clone(), ended.clone());
    cluster.world.clone().spawn("watch", async move {
        let mut watchers = Watchers::default();
        while !flag.load(Ordering::Relaxed) {
            watchers.sample(&cluster);
            cluster.world.sleep(SAMPLE).await;
        }
    });
    Watch(ended)
}

/// What the watching checkers remember from sample to sample.
#[derive(Default)]
struct Watchers {
    epochs: epochs::Epochs,
    raft: raft::Raft,
    receipts: receipts::Receipts,
    duties: duties::Duties,
    tasks: tasks::Tasks,
    samples: usize,
}

impl Watchers {
    fn sample(&mut self, cluster: &Cluster) {
        memory::check(cluster);
        let all = oracle::metadata(cluster);
        self.raft.check(cluster, &all);
        let Some(latest) = all.first() else { return };
        self.epochs.check(cluster, latest);
        placement::check(cluster, latest);
        self.duties.check(cluster, latest);
        self.tasks.check(cluster, latest);
        self.receipts.check(cluster, latest, &self.epochs);
        let disks = oracle::disks(cluster);
        promised::check(cluster, latest, &disks);
        log_alone::check_one(cluster, &disks, self.samples);
        self.samples += 1;
    }
}

/// The last look, when everything should be well.
pub async fn audit(cluster: &Arc<Cluster>) {
    durability::read_all(cluster, "after healing").await;
    memory::at_rest(cluster).await;
    let all = oracle::metadata(cluster);
    metadata::check(cluster, &all);
    if let Some(latest) = all.first() {
        placement::check(cluster, latest);
        let disks = oracle::disks(cluster);
        promised::check(cluster, latest, &disks);
        log_alone::check_all(cluster, &disks);
        if !cluster.plan.beyond {
            // What cannot be decoded any more keeps the disks from becoming clean.
            space::check(cluster, latest, &disks);
        }
    }
    durability::withstand(cluster).await;
    linearizability::check(cluster);
}
