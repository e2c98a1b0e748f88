//! Faults that last, and how they add up.
//!
//! Several may hit the same thing at once: a link that two partitions cut is cut until both have healed.
//! So what is set on a disk, a link or a clock is always computed from all that lasts just now.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use simhost::disk::DiskFaults;
use simhost::kv::KvFaults;
use simhost::net::{Link, NetFaults};
use simhost::{Host, HostId};

use super::victims::{self, DiskAt};
use crate::cluster::Cluster;
use crate::process::lock;

/// A page of a file system, by which space is counted.
const PAGE_BYTES: u64 = 4096;

/// How slow something is, and how often it fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Operations in a million that are slow.
    pub(super) slow_ppm: u32,
    /// By how much, at most, in microseconds.
    pub(super) slow_us_max: u64,
    /// Batches of transfers in a million that are refused.
    pub(super) busy_ppm: u32,
    /// Reads in a million that fail.
    pub(super) read_error_ppm: u32,
    /// Writes in a million that fail.
    pub(super) write_error_ppm: u32,
    /// Flushes in a million that fail.
    pub(super) flush_error_ppm: u32,
}

impl Trouble {
    fn worse(self, other: Self) -> Self {
        Self {
            slow_ppm: self.slow_ppm.max(other.slow_ppm),
            slow_us_max: self.slow_us_max.max(other.slow_us_max),
            busy_ppm: self.busy_ppm.max(other.busy_ppm),
            read_error_ppm: self.read_error_ppm.max(other.read_error_ppm),
            write_error_ppm: self.write_error_ppm.max(other.write_error_ppm),
            flush_error_ppm: self.flush_error_ppm.max(other.flush_error_ppm),
        }
    }
}

/// A fault that lasts.
#[derive(Clone)]
pub(super) enum Ailment {
    /// A direction between two hosts is cut, or slow.
    Link { from: HostId, to: HostId, link: Link },
    /// Messages take longer everywhere.
    Spikes { ppm: u32, us_max: u64 },
    /// A disk is slow or fails.
    Disk { disk: DiskAt, trouble: Trouble },
    /// It does not answer.
    DiskStuck(DiskAt),
    /// It is not there.
    DiskAway(DiskAt),
    /// It has `left_bytes` of room, beyond what it held when this began; its size is `capacity_bytes`.
    DiskFull { disk: DiskAt, left_bytes: u64, capacity_bytes: u64 },
    /// A store is slow or fails.
    Kv { host: Host, trouble: Trouble },
    /// It does not flush.
    KvStuck(Host),
    /// It is full.
    KvFull(Host),
    /// A process stands still.
    Pause(Host),
    /// A clock runs too fast or too slow.
    Drift { host: Host, ppm: i32 },
}

/// What is set by all ailments of one kind on one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Link(HostId, HostId),
    Spikes,
    Disk(HostId, String),
    DiskStuck(HostId, String),
    DiskAway(HostId, String),
    DiskFull(HostId, String),
    Kv(HostId),
    KvStuck(HostId),
    KvFull(HostId),
    Pause(HostId),
    Drift(HostId),
}

/// All that lasts, by the number of its strike.
#[derive(Default)]
pub(super) struct Ailments(BTreeMap<u64, Vec<Ailment>>);

impl Ailment {
    fn subject(&self) -> Subject {
        let at = |disk: &DiskAt| (disk.host.id(), disk.path.clone());
        match self {
            Self::Link { from, to, .. } => Subject::Link(*from, *to),
            Self::Spikes { .. } => Subject::Spikes,
            Self::Disk { disk, .. } => Subject::Disk(at(disk).0, at(disk).1),
            Self::DiskStuck(disk) => Subject::DiskStuck(at(disk).0, at(disk).1),
            Self::DiskAway(disk) => Subject::DiskAway(at(disk).0, at(disk).1),
            Self::DiskFull { disk, .. } => Subject::DiskFull(at(disk).0, at(disk).1),
            Self::Kv { host, .. } => Subject::Kv(host.id()),
            Self::KvStuck(host) => Subject::KvStuck(host.id()),
            Self::KvFull(host) => Subject::KvFull(host.id()),
            Self::Pause(host) => Subject::Pause(host.id()),
            Self::Drift { host, .. } => Subject::Drift(host.id()),
        }
    }
}

impl Ailments {
    fn of(&self, subject: &Subject) -> Vec<Ailment> {
        self.0.values().flatten().filter(|ailment| ailment.subject() == *subject).cloned().collect()
    }
}

/// The usual pace of network, disks and stores, as the plan has it. Called when the storm begins, and
/// whenever a machine or a disk is new.
pub(super) fn weather(cluster: &Cluster) {
    settle_network(cluster, &[]);
    for disk in victims::disks(cluster) {
        settle_disk(cluster, &disk);
    }
    for server in victims::servers(cluster) {
        settle_kv(cluster, server.host());
    }
}

/// These begin.
pub(super) fn begin(cluster: &Cluster, number: u64, ailments: Vec<Ailment>) {
    lock(&cluster.nemesis.ailments).0.insert(number, ailments.clone());
    for ailment in &ailments {
        settle(cluster, ailment);
    }
}

/// What this strike began ends, if it has not ended yet.
pub(super) fn end(cluster: &Cluster, number: u64) {
    let ended = lock(&cluster.nemesis.ailments).0.remove(&number).unwrap_or_default();
    if !ended.is_empty() {
        cluster.world.event(None, "fault-ends", &[number], || number.to_string());
    }
    for ailment in &ended {
        settle(cluster, ailment);
    }
}

/// Everything that lasts ends.
pub(super) fn end_all(cluster: &Cluster) {
    let numbers: Vec<u64> = lock(&cluster.nemesis.ailments).0.keys().copied().collect();
    for number in numbers {
        end(cluster, number);
    }
}

/// Sets what all ailments on the same thing add up to.
fn settle(cluster: &Cluster, changed: &Ailment) {
    let same = lock(&cluster.nemesis.ailments).of(&changed.subject());
    match changed {
        Ailment::Link { from, to, .. } => cluster.world.network().set_link(*from, *to, worst_link(&same)),
        Ailment::Spikes { .. } => settle_network(cluster, &same),
        Ailment::Disk { disk, .. } => settle_disk(cluster, disk),
        Ailment::DiskStuck(disk) => {
            if let Some(device) = disk.device() {
                device.set_stuck(!same.is_empty());
            }
        }
        Ailment::DiskAway(disk) => {
            // What is gone for good does not come back.
            let lost = {
                let lost = lock(&cluster.nemesis.lost);
                lost.nodes.contains_key(&disk.node)
                    || lost.disks.contains_key(&(disk.node, disk.path.clone()))
            };
            if let Some(device) = disk.device().filter(|_| !lost) {
                device.set_gone(!same.is_empty());
            }
        }
        Ailment::DiskFull { disk, capacity_bytes, .. } => settle_capacity(disk, *capacity_bytes, &same),
        Ailment::Kv { host, .. } => settle_kv(cluster, host),
        Ailment::KvStuck(host) => host.kvs().set_stuck(!same.is_empty()),
        Ailment::KvFull(host) => host.kvs().set_full(!same.is_empty()),
        Ailment::Pause(host) => match (same.is_empty(), host.is_paused()) {
            (false, false) if host.is_alive() => host.pause(),
            // A process that died meanwhile stands no longer.
            (true, true) => host.resume(),
            _ => {}
        },
        Ailment::Drift { host, .. } => {
            let last = same.iter().rev().find_map(|ailment| match ailment {
                Ailment::Drift { ppm, .. } => Some(*ppm),
                _ => None,
            });
            host.drift(last.unwrap_or(0));
        }
    }
}

fn worst_link(same: &[Ailment]) -> Link {
    let worst = |worst: Link, ailment: &Ailment| match (worst, ailment) {
        (Link::Cut, _) | (_, Ailment::Link { link: Link::Cut, .. }) => Link::Cut,
        (Link::Slow { extra_us: one }, Ailment::Link { link: Link::Slow { extra_us: other }, .. }) => {
            Link::Slow { extra_us: one.max(*other) }
        }
        (Link::Up, Ailment::Link { link, .. }) => *link,
        (worst, _) => worst,
    };
    same.iter().fold(Link::Up, worst)
}

/// In the calm the network keeps its latency, and nothing else.
fn settle_network(cluster: &Cluster, same: &[Ailment]) {
    let plan = &cluster.plan.network;
    let mut faults = NetFaults {
        latency_us: plan.latency_us,
        spike_ppm: plan.spike_ppm,
        spike_us: (0, plan.spike_us_max),
        reset_ppm: plan.reset_ppm,
        ..NetFaults::default()
    };
    if cluster.nemesis.is_calm() {
        (faults.spike_ppm, faults.reset_ppm) = (0, 0);
    }
    for ailment in same {
        if let Ailment::Spikes { ppm, us_max } = ailment {
            faults.spike_ppm = faults.spike_ppm.max(*ppm);
            faults.spike_us.1 = faults.spike_us.1.max(*us_max);
        }
    }
    cluster.world.network().configure(faults);
}

/// What all ailments of the kind say together.
fn worst_trouble(cluster: &Cluster, subject: &Subject) -> Trouble {
    let same = lock(&cluster.nemesis.ailments).of(subject);
    let troubles = same.iter().filter_map(|ailment| match ailment {
        Ailment::Disk { trouble, .. } | Ailment::Kv { trouble, .. } => Some(*trouble),
        _ => None,
    });
    troubles.fold(Trouble::default(), Trouble::worse)
}

/// Sets how slow a disk is, and how often it fails.
pub(super) fn settle_disk(cluster: &Cluster, disk: &DiskAt) {
    let trouble = worst_trouble(cluster, &Subject::Disk(disk.host.id(), disk.path.clone()));
    let us_max = cluster.plan.disk_us_max;
    if let Some(device) = disk.device() {
        device.configure(DiskFaults {
            latency_us: (us_max / 8, us_max),
            flush_us: (us_max / 4, us_max.saturating_mul(2)),
            slow_ppm: trouble.slow_ppm,
            slow_us: (trouble.slow_us_max / 8, trouble.slow_us_max),
            busy_ppm: trouble.busy_ppm,
            read_error_ppm: trouble.read_error_ppm,
            write_error_ppm: trouble.write_error_ppm,
            flush_error_ppm: trouble.flush_error_ppm,
        });
    }
}

/// Sets how slow a store is, and how often it fails.
pub(super) fn settle_kv(cluster: &Cluster, host: &Host) {
    let trouble = worst_trouble(cluster, &Subject::Kv(host.id()));
    let us_max = cluster.plan.disk_us_max;
    host.kvs().configure(KvFaults {
        flush_us: (us_max / 8, us_max),
        slow_ppm: trouble.slow_ppm,
        slow_us: (trouble.slow_us_max / 8, trouble.slow_us_max),
        write_error_ppm: trouble.write_error_ppm,
        flush_error_ppm: trouble.flush_error_ppm,
    });
}

fn settle_capacity(disk: &DiskAt, capacity_bytes: u64, same: &[Ailment]) {
    let Some(device) = disk.device() else { return };
    let left = same.iter().filter_map(|ailment| match ailment {
        Ailment::DiskFull { left_bytes, .. } => Some(*left_bytes),
        _ => None,
    });
    let bytes = match left.min() {
        Some(left) => {
            let files = device.files();
            let used: u64 = files.iter().map(|(_, bytes)| bytes.next_multiple_of(PAGE_BYTES)).sum();
            used.saturating_add(device.occupied_bytes()).saturating_add(left).min(capacity_bytes)
        }
        None => capacity_bytes,
    };
    device.set_capacity(bytes);
}

/// What a disk can hold when nothing is wrong with it, in bytes.
pub(super) fn capacity_bytes(cluster: &Cluster, disk: &DiskAt) -> u64 {
    let subject = Subject::DiskFull(disk.host.id(), disk.path.clone());
    let shrunk = lock(&cluster.nemesis.ailments).of(&subject).into_iter().find_map(|ailment| match ailment {
        Ailment::DiskFull { capacity_bytes, .. } => Some(capacity_bytes),
        _ => None,
    });
    let asked = || {
        let device = disk.device()?;
        let space = env::Disk::space(&device.forensic()).now_or_never()?.ok()?;
        Some(space.capacity_bytes)
    };
    shrunk.or_else(asked).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(link: Link) -> Ailment {
        Ailment::Link { from: HostId(1), to: HostId(2), link }
    }

    /// Of several faults on a link the worst counts, whatever their order.
    #[test]
    fn the_worst_link_counts() {
        let slow = |extra_us| link(Link::Slow { extra_us });
        assert_eq!(worst_link(&[]), Link::Up);
        assert_eq!(worst_link(&[slow(5), slow(9), slow(7)]), Link::Slow { extra_us: 9 });
        assert_eq!(worst_link(&[slow(5), link(Link::Cut)]), Link::Cut);
        assert_eq!(worst_link(&[link(Link::Cut), slow(5)]), Link::Cut);
    }

    /// Of several troubles the worst of each kind counts.
    #[test]
    fn the_worst_trouble_counts() {
        let slow = Trouble { slow_ppm: 10, slow_us_max: 500, ..Trouble::default() };
        let failing = Trouble { slow_ppm: 3, read_error_ppm: 7, ..Trouble::default() };
        let both = Trouble { slow_ppm: 10, slow_us_max: 500, read_error_ppm: 7, ..Trouble::default() };
        assert_eq!(slow.worse(failing), both);
        assert_eq!(failing.worse(slow), both);
    }
}
