//! Each key behaves like one atomic register, and listings show what is there.

use crate::cluster::Cluster;
use crate::history::{Limits, Report};
use crate::process::lock;
use crate::verdict::Kind;

/// See [`super::TABLE`].
pub(super) const NAME: &str = "linearizability";

/// Judges the whole ledger.
pub(super) fn check(cluster: &Cluster) {
    let report = Report::of(&lock(&cluster.ledger), Limits::default());
    let broken = |text: String| cluster.findings.report(&cluster.world, Kind::Correctness, NAME, text);
    report.faults.iter().map(ToString::to_string).for_each(broken);
    report.page_faults.iter().map(ToString::to_string).for_each(broken);
    if !report.too_hard.is_empty() {
        cluster.world.probe("a history was too hard to judge");
    }
}
