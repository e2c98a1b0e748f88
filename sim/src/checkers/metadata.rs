//! Rows, counters and references of the metadata add up, on every server.

use meta::state::verify;

use crate::cluster::Cluster;
use crate::oracle::Metadata;
use crate::verdict::Kind;

/// See [`super::TABLE`].
pub(super) const NAME: &str = "metadata";

/// Looks at all servers.
pub(super) fn check(cluster: &Cluster, all: &[Metadata]) {
    for metadata in all {
        let wrong = match verify::verify(&metadata.machine, &metadata.kv) {
            Ok(wrong) => wrong,
            Err(error) => vec![error.to_string()],
        };
        if !wrong.is_empty() {
            let text = format!("{} at entry {}: {}", metadata.meta.id, metadata.applied, wrong.join("; "));
            cluster.findings.report(&cluster.world, Kind::Correctness, NAME, text);
        }
    }
}
