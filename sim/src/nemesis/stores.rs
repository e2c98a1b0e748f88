//! Key-value stores of servers: metadata, or what nodes know of their disks.
//!
//! A store is slow, stuck, full, failing for a while. What was flushed stays, but for the index of a disk, which
//! nobody has promised to keep: it may be gone when its node starts again.

use std::time::Duration;

use proto::NodeId;
use simhost::{Death, Host};

use super::ailments::{Ailment, Trouble};
use super::strike::{Outcome, Strike};
use super::victims;
use crate::cluster::index_of;

/// Longest time that a store ails, in milliseconds.
const LASTING_MS_MAX: u64 = 15_000;
/// How often it is a node's.
const OF_NODES_PPM: u32 = 400_000;
/// How often an operator restarts a node at once whose index has failed.
const RESTART_PPM: u32 = 500_000;
/// Longest rest of a node whose index is lost, in milliseconds.
const REST_MS_MAX: u64 = 8_000;

/// Flushes are slow.
pub(super) fn slow(strike: &Strike<'_>) -> Outcome {
    let trouble = Trouble {
        slow_ppm: strike.ppm(1_000, 1_000_000),
        slow_us_max: strike.draws.skewed(10_000, 3_000_000),
        ..Trouble::default()
    };
    ails(strike, &format!("slow: {trouble:?}"), |host| Ailment::Kv { host, trouble })
}

/// Flushes wait.
pub(super) fn stuck(strike: &Strike<'_>) -> Outcome {
    ails(strike, "stuck", Ailment::KvStuck)
}

/// Nothing can be written.
pub(super) fn full(strike: &Strike<'_>) -> Outcome {
    ails(strike, "full", Ailment::KvFull)
}

/// Writes and flushes fail.
pub(super) fn errors(strike: &Strike<'_>) -> Outcome {
    let trouble = Trouble {
        write_error_ppm: strike.ppm(100, 50_000),
        flush_error_ppm: strike.ppm(100, 50_000),
        ..Trouble::default()
    };
    ails(strike, &format!("fails: {trouble:?}"), |host| Ailment::Kv { host, trouble })
}

fn ails(strike: &Strike<'_>, what: &str, ailment: impl FnOnce(Host) -> Ailment) -> Outcome {
    let (host, node) = if strike.draws.chance(OF_NODES_PPM) {
        let Some(node) = strike.pick(&victims::nodes(strike.cluster)) else { return Outcome::Nobody };
        (node.process.host().clone(), Some(node.id))
    } else {
        let Some(meta) = strike.pick(&victims::metas(strike.cluster)) else { return Outcome::Nobody };
        (meta.process.host().clone(), None)
    };
    let lasting = strike.lasting(100, LASTING_MS_MAX);
    let outcome = strike.hits(Some(&host), || format!("store {what}, for {lasting:?}"));
    strike.ail(vec![ailment(host)], lasting);
    if let Some(node) = node {
        restart_after(strike, node, lasting);
    }
    outcome
}

/// A disk whose index failed takes no more writes until its node is started again.
fn restart_after(strike: &Strike<'_>, node: NodeId, lasting: Duration) {
    if strike.draws.chance(RESTART_PPM) {
        let wait = lasting + strike.lasting(100, 5_000);
        strike.later(wait, move |cluster| {
            if let Some(node) = cluster.nodes().iter().find(|other| other.id == node) {
                node.stop();
            }
        });
    }
}

/// A node's process ends, and the indexes of its disks are gone, or that of one.
pub(super) fn index_lost(strike: &Strike<'_>) -> Outcome {
    let Some(node) = strike.pick(&victims::nodes(strike.cluster)) else { return Outcome::Nobody };
    let mut indexes: Vec<String> = node.disks.iter().map(|path| index_of(path)).collect();
    if strike.draws.chance(500_000) {
        indexes = strike.pick(&indexes).into_iter().collect();
    }
    let death = if strike.draws.chance(500_000) { Death::Process } else { Death::Power };
    let rest = strike.lasting(0, REST_MS_MAX);
    let host = node.process.host();
    let outcome = strike.hits(Some(host), || format!("dies ({death:?}) and loses {}", indexes.join(", ")));
    node.process.kill(death, rest);
    for index in &indexes {
        host.kvs().remove_at_rest(index);
    }
    outcome
}
