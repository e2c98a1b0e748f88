//! Those who speak too late, or out of turn.
//!
//! A network or a process that stands still may keep a message for as long as it likes, and deliver it to a
//! cluster that has changed meanwhile. Epochs, command ids and the number of durable slots are there so that
//! such a message does no harm; without somebody who sends it they are never asked. So there are machines
//! here that no fault touches, with the certificates of clients and nodes:
//!
//! * an old process (`repeat`) that sends again what was really sent (`memory`), once the epoch of its
//!   group has changed (for which it has slots move now and then), and that claims under old epochs to have done work (`claims`) or decided a move;
//! * a rude client (`rude`) that lets its groups change before it commits, commits with too few slots, and
//!   writes to foreign disks.
//!
//! What of this is accepted though it is older than its group's slot is a finding at once: of requests the
//! [`tap`](crate::tap) says so, of claims the metadata themselves. Whatever a correct cluster may accept (a
//! command that was never carried out and that nothing has overtaken, a write under an epoch that its node
//! does not know to be over) is not judged here, and all other checkers go on as ever.

mod claims;
mod ghost;
mod memory;
mod repeat;
mod rude;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use proto::Identity;
use proto::wire::request::Call;
use simhost::net::Sent;
use simhost::{Death, HostId, World};

use crate::cluster::Cluster;
use crate::nemesis::FaultClass;
use crate::process::lock;
use ghost::Ghost;
use memory::Memory;

pub(crate) use repeat::repeat;
pub(crate) use rude::{BUCKET, be_rude};

/// What they remember, and who they are; a part of the cluster.
pub struct State {
    memory: Mutex<Memory>,
    ghosts: Mutex<BTreeMap<Identity, Ghost>>,
    hosts: Mutex<BTreeSet<HostId>>,
    remembers: bool,
}

impl State {
    /// Nothing yet. Only a run in which something comes again remembers anything.
    pub(crate) fn new(world: &World, plan: &crate::plan::Plan) -> Self {
        Self {
            memory: Mutex::new(Memory::new(world.stream("what comes late"))),
            ghosts: Mutex::default(),
            hosts: Mutex::default(),
            remembers: plan.faults.contains_key(&FaultClass::LateRequests),
        }
    }

    /// Is it a machine of those who speak too late?
    pub(crate) fn is_one_of_us(&self, host: HostId) -> bool {
        lock(&self.hosts).contains(&host)
    }

    /// Somebody asks for something; `payload_bytes` follow.
    pub(crate) fn remember(&self, sent: Sent<'_>, call: &Call, payload_bytes: u64) {
        if self.remembers {
            lock(&self.memory).request(sent, call, payload_bytes);
        }
    }

    /// What follows comes.
    pub(crate) fn remember_payload(&self, sent: Sent<'_>) {
        if self.remembers {
            lock(&self.memory).payload(sent);
        }
    }
}

/// Nobody speaks out of turn any more.
pub(crate) fn end(cluster: &Cluster) {
    let ghosts = std::mem::take(&mut *lock(&cluster.late.ghosts));
    for ghost in ghosts.into_values() {
        ghost.host().kill(Death::Process);
    }
}
