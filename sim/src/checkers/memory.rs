//! Tasks and bytes in flight keep within their bounds, and go back when the load ends.

use std::collections::BTreeMap;
use std::time::Duration;

use simhost::HostId;

use crate::cluster::Cluster;
use crate::verdict::Kind;

/// See [`super::TABLE`].
pub(super) const NAME: &str = "bounded memory";

/// Tasks of one host: some for itself, one a request, a few a peer.
const TASKS_MAX: usize = 3_000;
/// Bytes that one host has sent and nobody has read: what windows and budgets of bytes in flight allow.
const UNREAD_BYTES_MAX: u64 = 512 << 20;
/// Tasks that a host at rest may have: its own, and a few for each peer.
const TASKS_AT_REST_MAX: usize = 200;
/// Time for the last requests to end.
const REST: Duration = Duration::from_secs(40);

/// Looks at all hosts.
pub(super) fn check(cluster: &Cluster) {
    judge(cluster, TASKS_MAX);
    let unread = cluster.world.network().unread_bytes();
    if unread > UNREAD_BYTES_MAX {
        let text = format!("{unread} bytes are under way and unread, expected at most {UNREAD_BYTES_MAX}");
        cluster.findings.report(&cluster.world, Kind::Liveness, NAME, text);
    }
}

/// After a rest, no host has more tasks than one that was just started.
pub(super) async fn at_rest(cluster: &Cluster) {
    cluster.world.sleep(REST).await;
    judge(cluster, TASKS_AT_REST_MAX);
}

fn judge(cluster: &Cluster, most: usize) {
    let mut by_host: BTreeMap<HostId, usize> = BTreeMap::new();
    let living = cluster.world.living_tasks();
    for ((host, _), count) in &living {
        if let Some(host) = host {
            *by_host.entry(*host).or_insert(0) += count;
        }
    }
    if let Some((host, count)) = by_host.iter().find(|(_, count)| **count > most) {
        let names: Vec<String> = living
            .iter()
            .filter(|((of, _), _)| of == &Some(*host))
            .map(|((_, name), count)| format!("{count} {name}"))
            .collect();
        let text = format!(
            "{} has {count} tasks, expected at most {most}: {}",
            cluster.world.host_name(Some(*host)),
            names.join(", ")
        );
        cluster.findings.report(&cluster.world, Kind::Liveness, NAME, text);
    }
}
