//! Disks that are slow, stuck, full, failing or away for a while. What was flushed stays.

use std::time::Duration;

use super::ailments::{self, Ailment, Trouble};
use super::strike::{Outcome, Strike};
use super::victims::{self, DiskAt};
use crate::cluster::Cluster;

/// Longest time, in milliseconds.
const LASTING_MS_MAX: u64 = 20_000;
/// How often an operator restarts a node at once whose disk takes no more writes.
const RESTART_PPM: u32 = 500_000;

/// A disk is slow, and may refuse what it cannot do in time.
pub(super) fn slow(strike: &Strike<'_>) -> Outcome {
    let refuses = strike.draws.below(3) == 0;
    let trouble = Trouble {
        slow_ppm: strike.ppm(1_000, 1_000_000),
        slow_us_max: strike.draws.skewed(10_000, 3_000_000),
        busy_ppm: if refuses { strike.ppm(1_000, 500_000) } else { 0 },
        ..Trouble::default()
    };
    let Some(disk) = strike.pick(&victims::disks(strike.cluster)) else { return Outcome::Nobody };
    lasts(strike, &disk, &format!("slow: {trouble:?}"), Ailment::Disk { disk: disk.clone(), trouble });
    Outcome::Struck
}

/// A disk does not answer.
pub(super) fn stuck(strike: &Strike<'_>) -> Outcome {
    let Some(disk) = strike.pick(&victims::disks(strike.cluster)) else { return Outcome::Nobody };
    lasts(strike, &disk, "stuck", Ailment::DiskStuck(disk.clone()));
    Outcome::Struck
}

/// Operations of a disk fail now and then.
pub(super) fn errors(strike: &Strike<'_>) -> Outcome {
    let kinds = 1 + strike.draws.below(7);
    let rate = |kind: u64| if kinds & kind != 0 { strike.ppm(500, 200_000) } else { 0 };
    let trouble = Trouble {
        read_error_ppm: rate(1),
        write_error_ppm: rate(2),
        flush_error_ppm: rate(4),
        ..Trouble::default()
    };
    let Some(disk) = strike.pick(&victims::disks(strike.cluster)) else { return Outcome::Nobody };
    let lasting =
        lasts(strike, &disk, &format!("fails: {trouble:?}"), Ailment::Disk { disk: disk.clone(), trouble });
    restart_after(strike, &disk, lasting);
    Outcome::Struck
}

/// A disk is full.
pub(super) fn full(strike: &Strike<'_>) -> Outcome {
    let Some(disk) = strike.pick(&victims::disks(strike.cluster)) else { return Outcome::Nobody };
    let left_bytes = strike.draws.skewed(0, 4 << 20);
    let capacity_bytes = ailments::capacity_bytes(strike.cluster, &disk);
    let ailment = Ailment::DiskFull { disk: disk.clone(), left_bytes, capacity_bytes };
    lasts(strike, &disk, &format!("full: {left_bytes} bytes are left"), ailment);
    Outcome::Struck
}

/// A disk is not there for a while.
pub(super) fn away(strike: &Strike<'_>) -> Outcome {
    let Some(disk) = strike.pick(&victims::disks(strike.cluster)) else { return Outcome::Nobody };
    let lasting = lasts(strike, &disk, "away", Ailment::DiskAway(disk.clone()));
    restart_after(strike, &disk, lasting);
    Outcome::Struck
}

fn lasts(strike: &Strike<'_>, disk: &DiskAt, what: &str, ailment: Ailment) -> Duration {
    let lasting = strike.lasting(100, LASTING_MS_MAX);
    strike.hits(Some(&disk.host), || format!("{} {what}, for {lasting:?}", disk.path));
    strike.ail(vec![ailment], lasting);
    lasting
}

/// A disk on which a write failed takes no more of them until its node is started again.
fn restart_after(strike: &Strike<'_>, disk: &DiskAt, lasting: Duration) {
    if strike.draws.chance(RESTART_PPM) {
        let (node, wait) = (disk.node, lasting + strike.lasting(100, 5_000));
        strike.later(wait, move |cluster: &std::sync::Arc<Cluster>| {
            if let Some(node) = cluster.nodes().iter().find(|other| other.id == node) {
                node.stop();
            }
        });
    }
}
