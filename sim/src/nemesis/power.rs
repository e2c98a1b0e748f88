//! Power: of what was not flushed anything may be gone.

use simhost::Death;

use super::strike::{Outcome, Strike};
use super::victims;
use crate::process::Process;

/// Longest time until a machine is up again after a moment without power, in milliseconds.
const BOOT_MS_MAX: u64 = 8_000;
/// An outage lasts from here …
const OUTAGE_MS_MIN: u64 = 4_000;
/// … to here, in milliseconds.
const OUTAGE_MS_MAX: u64 = 40_000;

/// After what a metadata server is struck: a vote, an entry, its cluster or its state is written or flushed;
/// a snapshot is made, or installed, and the state before it removed.
const META_MOMENTS: &[&str] = &["kv.write", "kv.flush", "kv.open", "kv.checkpoint", "kv.remove", "net.send"];
/// After what a node is struck: a record is there, durable, known to the index; a segment is made, named, freed; the
/// index is durable, or taken up.
const NODE_MOMENTS: &[&str] = &[
    "disk.write",
    "disk.flush",
    "disk.create",
    "disk.flush-names",
    "kv.write",
    "kv.flush",
    "kv.open",
    "net.send",
];
/// Such operations until then, at most.
const AMBUSH_OPERATIONS_MAX: u64 = 20;

/// A server.
pub(super) fn machine(strike: &Strike<'_>) -> Outcome {
    let Some(process) = strike.pick(&victims::running(strike.cluster)) else { return Outcome::Nobody };
    let outcome = strike.hits(Some(process.host()), || "without power for a moment".to_owned());
    fail(strike, &[process]);
    outcome
}

/// All that stands in a rack.
pub(super) fn rack(strike: &Strike<'_>) -> Outcome {
    let Some(rack) = strike.pick(&victims::racks(strike.cluster)) else { return Outcome::Nobody };
    let outcome = strike.hits(None, || format!("rack {rack} without power for a moment"));
    fail(strike, &victims::in_rack(strike.cluster, rack));
    outcome
}

/// Every server.
pub(super) fn all(strike: &Strike<'_>) -> Outcome {
    let outcome = strike.hits(None, || "all servers without power for a moment".to_owned());
    fail(strike, &victims::servers(strike.cluster));
    outcome
}

/// A rack, for longer: its machines come back about the same time.
pub(super) fn rack_outage(strike: &Strike<'_>) -> Outcome {
    let Some(rack) = strike.pick(&victims::racks(strike.cluster)) else { return Outcome::Nobody };
    let lasting = strike.lasting(OUTAGE_MS_MIN, OUTAGE_MS_MAX);
    let outcome = strike.hits(None, || format!("rack {rack} without power for {lasting:?}"));
    for process in victims::in_rack(strike.cluster, rack) {
        process.kill(Death::Power, lasting + strike.lasting(0, 1_000));
    }
    outcome
}

/// A server, as soon as it has done something of which too little may be durable.
pub(super) fn ambush(strike: &Strike<'_>) -> Outcome {
    let metas: Vec<Process> =
        victims::metas(strike.cluster).iter().map(|meta| meta.process.clone()).collect();
    let nodes: Vec<Process> =
        victims::nodes(strike.cluster).iter().map(|node| node.process.clone()).collect();
    let (among, moments) =
        if strike.draws.chance(500_000) { (metas, META_MOMENTS) } else { (nodes, NODE_MOMENTS) };
    let alive: Vec<Process> = among.into_iter().filter(|process| process.host().is_alive()).collect();
    let (Some(process), Some(moment)) = (strike.pick(&alive), strike.pick(moments)) else {
        return Outcome::Nobody;
    };
    let operations = strike.draws.skewed(0, AMBUSH_OPERATIONS_MAX);
    // A process that died alone leaves what was not flushed to the next one.
    let death = if strike.draws.chance(300_000) { Death::Process } else { Death::Power };
    let outcome = strike.hits(Some(process.host()), || {
        format!("dies ({death:?}) after the {moment} that comes {operations} after this")
    });
    process.host().doom_at(moment, operations, death, true);
    outcome
}

/// Each is back when it is ready.
fn fail(strike: &Strike<'_>, processes: &[Process]) {
    for process in processes {
        process.kill(Death::Power, strike.lasting(0, BOOT_MS_MAX));
    }
}
