//! What clients do: the workload.
//!
//! Each client is a machine of the tenant's whose process is started again when it was killed, so that
//! clients vanish in the middle of what they do. Its workers run closed loops: choose, ask, check,
//! write into the ledger, pause.
//!
//! What comes back is judged at once where one answer is enough: each byte, each size, and whose version
//! it is ("integrity"). What needs the whole history is left to the checkers, who read the ledger. How
//! long operations took is judged when the load has ended ("operations end").
//!
//! * `choice`: what to do next, drawn.
//! * `client`, `worker`: who does it. `put`, `read`, `list`: how.
//! * `source`: where the bytes of puts come from, at times slowly, or not at all.
//! * `outcome`: what an error says about what has happened.
//! * [`verify`]: is what was read what was put?
//! * `running`: what is under way, and how long it may take.

mod choice;
mod client;
mod list;
mod outcome;
mod put;
mod read;
mod running;
mod source;
pub mod verify;
mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::Version;
use simhost::{Death, World};

use crate::cluster::Cluster;
use crate::history::{Outcome, ValueId};
use crate::process::lock;
use crate::verdict::Kind;
pub(crate) use put::ledger_receipt;
use running::Running;

/// The number of the clients' bucket in the ledger.
pub const BUCKET: u32 = 1;
/// Wrong bytes, or bytes of somebody else.
const INTEGRITY: &str = "integrity";
/// An operation that takes longer than it may.
const OPERATIONS_END: &str = "operations end";
/// How often the end of the load is looked for.
const LOOK: Duration = Duration::from_millis(250);

/// The load of a run, while it goes on.
pub struct Load(Arc<Workload>);

/// What all clients share.
struct Workload {
    world: World,
    tickets: AtomicU64,
    is_ending: AtomicBool,
    /// The newest version seen of each key, and its size.
    seen: Mutex<BTreeMap<u64, (Version, u64)>>,
    /// As which version each value was seen: it never changes.
    versions: Mutex<BTreeMap<ValueId, Version>>,
    running: Running,
}

impl Workload {
    /// Leave to do up to `wanted` operations more; how many. None when the load ends.
    fn take_tickets(&self, wanted: u64) -> u64 {
        if self.is_ending.load(Ordering::Relaxed) {
            return 0;
        }
        let left = self.tickets.load(Ordering::Relaxed);
        let taken = left.min(wanted);
        self.tickets.store(left - taken, Ordering::Relaxed);
        taken
    }
}

/// Starts the plan's clients.
pub fn start(cluster: &Arc<Cluster>) -> Load {
    let workload = Arc::new(Workload {
        world: cluster.world.clone(),
        tickets: AtomicU64::new(cluster.plan.load.operations_max),
        is_ending: AtomicBool::new(false),
        seen: Mutex::default(),
        versions: Mutex::default(),
        running: Running::default(),
    });
    for number in 1..=cluster.plan.load.clients {
        client::start(cluster, &workload, number);
    }
    Load(workload)
}

impl Load {
    /// Ends the load: from now on nothing is begun. Returns when all that was under way has ended, its
    /// client has died, or its time without faults is over; then all that took too long is reported, and
    /// the clients are switched off.
    ///
    /// Faults must have ended.
    pub async fn end(self, cluster: &Arc<Cluster>) {
        let workload = self.0;
        workload.is_ending.store(true, Ordering::Relaxed);
        let since = workload.world.now();
        while workload.running.is_any_in_time(since, workload.world.now()) {
            workload.world.sleep(LOOK).await;
        }
        let too_long = workload.running.too_long(&lock(&cluster.ledger), since, workload.world.now());
        for text in too_long {
            cluster.findings.report(&workload.world, Kind::Liveness, OPERATIONS_END, text);
        }
        for client in cluster.clients() {
            client.want(false);
            client.kill(Death::Process, Duration::ZERO);
        }
    }
}

/// Operations that were begun, and those of them that were carried out; pages of listings are not counted.
pub fn counts(cluster: &Cluster) -> (u64, u64) {
    let ledger = lock(&cluster.ledger);
    let is_done = |outcome: &Outcome| {
        matches!(outcome, Outcome::Acknowledged(_) | Outcome::Deleted { .. } | Outcome::Read(_))
    };
    let done = ledger.operations().iter().filter(|operation| is_done(&operation.outcome)).count();
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    (number(ledger.operations().len()), number(done))
}
