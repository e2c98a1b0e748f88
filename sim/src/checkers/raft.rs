//! Raft's own promises, from what the servers have stored: one leader a term; what is committed is the
//! same everywhere and never changes; who has applied as much has the same state.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use env::{KvRead, Order};
use meta::raft::inspect;
use meta::state::tables;
use proto::MetaId;
use proto::prost::Message;

use crate::cluster::Cluster;
use crate::oracle::Metadata;
use crate::verdict::Kind;

/// See [`super::TABLE`].
pub(super) const NAME: &str = "raft";

/// What is known of the log.
#[derive(Default)]
pub(super) struct Raft {
    leaders: BTreeMap<u64, MetaId>,
    /// Of each committed entry: its term and a hash of it.
    committed: BTreeMap<u64, (u64, u64)>,
    /// Of each server: up to where its log was compared.
    compared: BTreeMap<MetaId, u64>,
}

impl Raft {
    /// Compares what the servers have with one another and with what was there before.
    pub(super) fn check(&mut self, cluster: &Cluster, all: &[Metadata]) {
        let broken = |text: String| cluster.findings.report(&cluster.world, Kind::Correctness, NAME, text);
        self.leaders(cluster).err().into_iter().for_each(broken);
        for metadata in all {
            self.log(metadata).err().into_iter().for_each(broken);
        }
        equal_states(all).err().into_iter().for_each(broken);
    }

    fn leaders(&mut self, cluster: &Cluster) -> Result<(), String> {
        for meta in cluster.metas() {
            let Some(standing) = meta.server().and_then(|server| server.standing()) else { continue };
            if !standing.leads {
                continue;
            }
            let leader = *self.leaders.entry(standing.term).or_insert(meta.id);
            if leader != meta.id {
                return Err(format!("term {} has two leaders, {leader} and {}", standing.term, meta.id));
            }
        }
        Ok(())
    }

    /// What a server has applied is committed: it must be what the others have.
    fn log(&mut self, metadata: &Metadata) -> Result<(), String> {
        let Some(root) = metadata.meta.process.host().kvs().forensic("raft") else { return Ok(()) };
        if !is_log_of_state(&root, metadata) {
            return Ok(());
        }
        let next = self.compared.entry(metadata.meta.id).or_insert(0);
        if *next > metadata.applied {
            // It lost what was not flushed: it will apply it again.
            *next = 0;
        }
        let first = *next;
        let entries = inspect::entries(&root, first, usize::MAX)
            .map_err(|error| format!("the log of {}: {error}", metadata.meta.id))?;
        for entry in entries.iter().filter(|entry| entry.log_id.index <= metadata.applied) {
            let (index, term) = (entry.log_id.index, entry.log_id.leader_id.term);
            let mut hasher = DefaultHasher::new();
            meta::raft::encoding::entry(entry).encode_to_vec().hash(&mut hasher);
            let found = (term, hasher.finish());
            let known = *self.committed.entry(index).or_insert(found);
            if known != found {
                let text = format!(
                    "entry {index} is committed in term {}, {} has applied another one, of term {term}",
                    known.0, metadata.meta.id
                );
                return Err(text);
            }
            *self.compared.entry(metadata.meta.id).or_insert(0) = index + 1;
        }
        Ok(())
    }
}

/// Does the log have the entry that was applied last? A server that has just adopted a snapshot still has what it
/// wrote before, which may never have been committed, until it purges that; and what is purged needs no look.
fn is_log_of_state(root: &impl KvRead, metadata: &Metadata) -> bool {
    let applied = inspect::applied(&metadata.kv).ok().flatten();
    applied.is_some_and(|applied| inspect::entry_id(root, applied.index).ok().flatten() == Some(applied))
}

/// Servers that have applied as much have the same rows.
pub(super) fn equal_states(all: &[Metadata]) -> Result<(), String> {
    for pair in all.windows(2) {
        let [a, b] = pair else { continue };
        if a.applied != b.applied {
            continue;
        }
        for table in tables::ALL {
            let rows = |metadata: &Metadata| {
                metadata
                    .kv
                    .scan(table, &tables::whole_table(), Order::Ascending, usize::MAX)
                    .unwrap_or_default()
            };
            let (of_a, of_b) = (rows(a), rows(b));
            if of_a != of_b {
                let differing = of_a.iter().zip(&of_b).position(|(x, y)| x != y);
                let text = format!(
                    "{} and {} have both applied entry {}, and their tables {table} differ: {} and {} rows, the first difference at row {differing:?}",
                    a.meta.id,
                    b.meta.id,
                    a.applied,
                    of_a.len(),
                    of_b.len()
                );
                return Err(text);
            }
        }
    }
    Ok(())
}
