//! What a server tells another is durable at that moment.
//!
//! The tap sees what leaves a host, and this compares it with what a power loss then and there would leave of
//! the host's stores and disks: no power need fail for a forgotten flush to be found. [`metas`] has the rules
//! for metadata servers, [`nodes`] those for nodes; this file knows who speaks, and which rule that calls for.
//!
//! A server may know more than it has told, and may have given up since what it told: each rule says what it
//! passes over so that nothing is found in a server that is right.

mod metas;
mod nodes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use env::FileName;
use proto::wire;
use proto::wire::raft_append_reply::Outcome;
use proto::wire::request::Call;
use proto::wire::response::Result as Reply;
use simhost::kv::{KvAct, KvDevice};
use simhost::{DiskDevice, Host, HostId};

use crate::cluster::Cluster;
use crate::process::lock;
use crate::verdict::Kind;

/// See [`super::TABLE`].
pub(super) const NAME: &str = "told is durable";

/// One acknowledged shard in so many is looked for as if the power had failed: that reads a whole log.
const SHARDS_LOOKED_AT: u64 = 32;
/// … and one report of what was dropped in so many.
const DROPS_LOOKED_AT: u64 = 3;

/// What is broken, in words.
type Rule = Result<(), String>;

/// What was told, as far as later rules need it.
#[derive(Default)]
pub(crate) struct Told(Mutex<State>);

#[derive(Default)]
struct State {
    /// Metadata servers whose stores are watched.
    watched: BTreeSet<HostId>,
    /// Servers that led, and their terms.
    leaders: BTreeSet<(HostId, u64)>,
    /// Where a disk is mounted.
    paths: BTreeMap<(HostId, u32), String>,
    /// What nodes were asked to drop, and whether it came again since: then nothing is known of it.
    drops: BTreeMap<Drop, bool>,
    /// Shards that were acknowledged.
    shards: u64,
    /// Reports that something was dropped from a disk.
    dropped: u64,
}

/// A node, and what it drops: group, extent (none for all), slot.
type Drop = (HostId, u32, Bytes, u32);

impl Told {
    /// A request leaves a host.
    pub(crate) fn request(&self, cluster: &Arc<Cluster>, from: HostId, call: &Call) {
        let broken = match call {
            Call::RaftAppend(append) => self.leads(cluster, from, append),
            Call::RaftJoin(_) => self.with_stores(cluster, from, metas::cluster),
            Call::RegisterNode(node) => with_machine(cluster, from, |host| {
                watch_node(cluster, host);
                registered(host, node)
            }),
            Call::ReportWork(report) => {
                with_machine(cluster, from, |host| self.reported(cluster, host, report))
            }
            Call::WriteShard(write) => {
                self.came_again(from, write);
                Ok(())
            }
            _ => Ok(()),
        };
        report(cluster, from, broken);
    }

    /// A reply leaves a host.
    pub(crate) fn reply(&self, cluster: &Arc<Cluster>, from: HostId, asked: &Call, reply: &Reply) {
        let broken = match (asked, reply) {
            (Call::RaftVote(asked), Reply::RaftVote(reply)) if reply.granted && !asked.pre_vote => {
                self.with_stores(cluster, from, |kvs| metas::vote(kvs, asked.vote.as_ref()))
            }
            (Call::RaftAppend(asked), Reply::RaftAppend(reply)) => {
                let told = match reply.outcome() {
                    Outcome::Success => last_of(asked),
                    Outcome::Partial => reply.matching,
                    _ => None,
                };
                self.with_stores(cluster, from, |kvs| metas::entries(kvs, told, asked.vote.as_ref()))
            }
            (Call::RaftSnapshot(asked), Reply::RaftSnapshot(reply)) if asked.vote == reply.vote => self
                .with_stores(cluster, from, |kvs| {
                    metas::entries(kvs, asked.last_log_id, asked.vote.as_ref())
                }),
            (Call::RaftJoin(_), Reply::RaftJoin(_)) => self.with_stores(cluster, from, metas::cluster),
            (Call::WriteShard(asked), Reply::WriteShard(_)) => {
                self.came_again(from, asked);
                with_machine(cluster, from, |host| self.written(cluster, host, asked))
            }
            (Call::RegisterNode(asked), Reply::RegisterNode(reply)) => {
                self.learn_paths(cluster, asked, reply);
                Ok(())
            }
            (Call::TakeWork(asked), Reply::TakeWork(work)) => {
                self.asked_to_drop(cluster, asked.node, work);
                Ok(())
            }
            _ => Ok(()),
        };
        report(cluster, from, broken);
    }

    /// Looks at the stores of a metadata server, whose changes are watched from now on.
    fn with_stores(
        &self,
        cluster: &Arc<Cluster>,
        from: HostId,
        rule: impl FnOnce(&KvDevice) -> Rule,
    ) -> Rule {
        let metas = cluster.metas();
        let Some(meta) = metas.iter().find(|meta| meta.process.host().id() == from) else { return Ok(()) };
        let host = meta.process.host();
        if lock(&self.0).watched.insert(from) {
            watch(cluster, host);
        }
        rule(host.kvs())
    }

    /// Whoever leads has given itself its vote. Asked once a term.
    fn leads(&self, cluster: &Arc<Cluster>, from: HostId, append: &wire::RaftAppend) -> Rule {
        let Some(vote) = append.vote.as_ref() else { return Ok(()) };
        if !lock(&self.0).leaders.insert((from, vote.term)) {
            return Ok(());
        }
        self.with_stores(cluster, from, |kvs| metas::vote(kvs, Some(vote)))
    }

    fn disk(&self, host: &Host, disk: u32) -> Option<DiskDevice> {
        let path = lock(&self.0).paths.get(&(host.id(), disk)).cloned()?;
        host.disk(&path)
    }

    fn learn_paths(&self, cluster: &Cluster, node: &wire::RegisterNode, reply: &wire::RegisterNodeReply) {
        let Some(host) = host_of(cluster, node.node) else { return };
        let mut state = lock(&self.0);
        for (report, disk) in node.disks.iter().zip(&reply.disks).filter(|(_, disk)| **disk != 0) {
            state.paths.insert((host.id(), *disk), path_of(report));
        }
    }

    fn asked_to_drop(&self, cluster: &Cluster, node: u32, work: &wire::TakeWorkReply) {
        let Some(host) = host_of(cluster, node) else { return };
        let mut state = lock(&self.0);
        for drop in &work.drops {
            state.drops.entry((host.id(), drop.group, drop.extent.clone(), drop.slot)).or_insert(false);
        }
        // What it drops may be written anew meanwhile.
        let rebuilds = work.rebuilds.iter().map(|work| (&work.placement, Bytes::new(), work.slot));
        let fills = work.fills.iter().map(|work| (&work.placement, work.extent.clone(), work.slot));
        for (placement, extent, slot) in rebuilds.chain(fills) {
            let group = placement.as_ref().map_or(0, |placement| placement.group);
            state.came_again(host.id(), group, extent, slot);
        }
    }

    fn came_again(&self, node: HostId, write: &wire::WriteShard) {
        if let Some(shard) = write.shard.as_ref() {
            lock(&self.0).came_again(node, shard.group, shard.extent.clone(), shard.slot);
        }
    }

    fn written(&self, cluster: &Cluster, host: &Host, write: &wire::WriteShard) -> Rule {
        let Some(disk) = self.disk(host, write.disk) else { return Ok(()) };
        nodes::shard(host, &disk, write)?;
        let count = {
            let mut state = lock(&self.0);
            state.shards += 1;
            state.shards
        };
        if count % SHARDS_LOOKED_AT != 0 || is_scarred(cluster, host, &disk) {
            return Ok(());
        }
        nodes::found_again(host, &disk, write)
    }

    fn reported(&self, cluster: &Cluster, host: &Host, report: &wire::ReportWork) -> Rule {
        let mut drops: BTreeMap<u32, Vec<&wire::DropExtent>> = BTreeMap::new();
        for drop in &report.dropped {
            let key = (host.id(), drop.group, drop.extent.clone(), drop.slot);
            if lock(&self.0).drops.get(&key) == Some(&false) {
                drops.entry(drop.disk).or_default().push(drop);
            }
        }
        for (disk, drops) in drops {
            let count = {
                let mut state = lock(&self.0);
                state.dropped += 1;
                state.dropped
            };
            let disk = self.disk(host, disk).filter(|_| count % DROPS_LOOKED_AT == 0);
            if let Some(disk) = disk.filter(|disk| !is_scarred(cluster, host, disk)) {
                nodes::dropped(host, &disk, &drops)?;
            }
        }
        for filled in &report.filled {
            if let Some(disk) = self.disk(host, filled.disk) {
                nodes::filled(host, &disk, filled)?;
            }
        }
        Ok(())
    }
}

impl State {
    fn came_again(&mut self, node: HostId, group: u32, extent: Bytes, slot: u32) {
        for extent in [extent, Bytes::new()] {
            if let Some(again) = self.drops.get_mut(&(node, group, extent, slot)) {
                *again = true;
            }
        }
    }
}

/// The disks that a node says it has.
fn registered(host: &Host, node: &wire::RegisterNode) -> Rule {
    let open = node.disks.iter().filter(|report| !report.uuid.is_empty());
    for disk in open.filter_map(|report| host.disk(&path_of(report))) {
        nodes::disk(&disk)?;
    }
    Ok(())
}

/// Have faults harmed the log of the disk such that it may lose what was told, or keep what was dropped?
fn is_scarred(cluster: &Cluster, host: &Host, disk: &DiskDevice) -> bool {
    lock(&cluster.scars).logs.contains(&(host.id(), disk.path().to_owned()))
}

/// The machine of a node mounts its disks where they are called.
fn path_of(report: &wire::DiskReport) -> String {
    format!("/{}", report.name)
}

fn host_of(cluster: &Cluster, node: u32) -> Option<Host> {
    let nodes = cluster.nodes();
    nodes.iter().find(|other| other.id.0 == node).map(|node| node.process.host().clone())
}

fn with_machine(cluster: &Cluster, from: HostId, rule: impl FnOnce(&Host) -> Rule) -> Rule {
    let nodes = cluster.nodes();
    let node = nodes.iter().find(|node| node.process.host().id() == from);
    node.map_or(Ok(()), |node| rule(node.process.host()))
}

/// The last entry that an append is about.
fn last_of(append: &wire::RaftAppend) -> Option<wire::LogId> {
    append.entries.last().map_or(append.prev_log_id, |entry| entry.log_id)
}

/// What a metadata server does to its stores must leave them such that it could start from them.
fn watch(cluster: &Arc<Cluster>, host: &Host) {
    let (cluster, id) = (Arc::downgrade(cluster), host.id());
    host.kvs().set_witness(Arc::new(move |store: &str, act: KvAct<'_>| {
        let Some(cluster) = cluster.upgrade() else { return };
        let metas = cluster.metas();
        let Some(meta) = metas.iter().find(|meta| meta.process.host().id() == id) else { return };
        report(&cluster, id, metas::acted(meta.process.host().kvs(), store, act));
    }));
}

/// What a node writes must leave its disks and their indexes such that it could start from them. Its disks may be
/// others than before.
fn watch_node(cluster: &Arc<Cluster>, host: &Host) {
    let with_host = |cluster: &Weak<Cluster>, id: HostId, rule: &dyn Fn(&Host) -> Rule| {
        if let Some(cluster) = cluster.upgrade() {
            report(&cluster, id, with_machine(&cluster, id, rule));
        }
    };
    let (weak, id) = (Arc::downgrade(cluster), host.id());
    host.kvs().set_witness(Arc::new(move |store: &str, act: KvAct<'_>| {
        if matches!(act, KvAct::Written(_)) {
            with_host(&weak, id, &|host| nodes::not_ahead(host, store));
        }
    }));
    for (path, disk) in host.disks() {
        let weak = Arc::downgrade(cluster);
        disk.set_witness(Arc::new(move |file: &FileName, offset: u64, page: &Bytes| {
            if offset == 0 {
                with_host(&weak, id, &|host| nodes::left_by_all(host, &path, file, page));
            } else if nodes::is_seal(page)
                && let Some(cluster) = weak.upgrade()
            {
                cluster.world.probe("a log went on in another segment");
            }
        }));
    }
}

fn report(cluster: &Cluster, from: HostId, broken: Rule) {
    if let Err(text) = broken {
        let text = format!("{} {text}", cluster.world.host_name(Some(from)));
        cluster.findings.report(&cluster.world, Kind::Correctness, NAME, text);
    }
}
