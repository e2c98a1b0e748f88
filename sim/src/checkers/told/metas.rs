//! What metadata servers tell one another, and what their stores must be able to start from.

use meta::raft::inspect;
use proto::wire;
use simhost::kv::{KvAct, KvDevice};

use super::Rule;

/// The store of log and vote.
const RAFT: &str = "raft";

/// A vote that was given. A later one may have taken its place: votes only grow, and whom the others made
/// the leader of the term takes the place of whom this one would have made it.
pub(super) fn vote(kvs: &KvDevice, told: Option<&wire::Vote>) -> Rule {
    let (Some(told), Some(raft)) = (told, kvs.durable(RAFT)) else { return Ok(()) };
    let durable = inspect::vote(&raft).map_err(unreadable)?;
    let is_kept = durable.as_ref().is_some_and(|durable| {
        let of = &durable.leader_id;
        of.term > told.term || (of.term == told.term && (durable.committed || of.voted_for == told.leader))
    });
    if is_kept {
        return Ok(());
    }
    let durable = durable.map_or_else(|| "none".to_owned(), |vote| vote.to_string());
    Err(format!(
        "gave meta-{} its vote of term {}, and its durable vote is {durable}",
        told.leader, told.term
    ))
}

/// All entries up to `told`, in the log or in the state. A leader of a later term than that of `vote`, to
/// which the server told it, may have taken them away: its vote is durable before.
pub(super) fn entries(kvs: &KvDevice, told: Option<wire::LogId>, vote: Option<&wire::Vote>) -> Rule {
    let (Some(told), Some(raft)) = (told, kvs.durable(RAFT)) else { return Ok(()) };
    let entry = inspect::entry_id(&raft, told.index).map_err(unreadable)?;
    if entry.is_some_and(|entry| entry.leader_id.term == told.term) {
        return Ok(());
    }
    let applied = applied(kvs, &raft)?;
    if applied.is_some_and(|applied| applied >= told.index) {
        return Ok(());
    }
    let durable = inspect::vote(&raft).map_err(unreadable)?.map_or(0, |vote| vote.leader_id.term);
    if vote.is_some_and(|vote| durable > vote.term) {
        return Ok(());
    }
    Err(format!(
        "acknowledged entry {} of term {}; durable are {}, and the state of entry {applied:?}",
        told.index,
        told.term,
        entry.map_or_else(|| "no entry there".to_owned(), |entry| format!("entry {entry}")),
    ))
}

/// To which cluster it belongs. Once it has said so, nobody invites it again.
pub(super) fn cluster(kvs: &KvDevice) -> Rule {
    let Some(raft) = kvs.durable(RAFT) else { return Ok(()) };
    if inspect::has_cluster(&raft).map_err(unreadable)? {
        return Ok(());
    }
    Err("speaks for a cluster, and nothing durable says that it belongs to one".to_owned())
}

/// Whatever of the store `raft` survives a power loss, the state that it names must be there, and reach as far
/// as the log was purged.
pub(super) fn acted(kvs: &KvDevice, store: &str, act: KvAct<'_>) -> Rule {
    match act {
        KvAct::Removed => not_needed(kvs, store),
        KvAct::Written(changes) if store == RAFT => {
            if inspect::names_state(changes) {
                flushed(kvs)?;
            }
            inspect::purges(changes).map_or(Ok(()), |purged| covered(kvs, purged))
        }
        KvAct::Written(_) => Ok(()),
    }
}

/// The store that was removed is not the one from which it would start.
fn not_needed(kvs: &KvDevice, store: &str) -> Rule {
    let Some(raft) = kvs.durable(RAFT) else { return Ok(()) };
    let needed = inspect::state_store(&raft).map_err(unreadable)?;
    if needed == store {
        return Err(format!("removed {store}, from which it would start after a power loss"));
    }
    Ok(())
}

/// The state that it names as its own is durable, all of it.
fn flushed(kvs: &KvDevice) -> Rule {
    let Some(raft) = kvs.forensic(RAFT) else { return Ok(()) };
    let state = inspect::state_store(&raft).map_err(unreadable)?;
    match kvs.unflushed(&state) {
        Some(0) => Ok(()),
        Some(batches) => {
            Err(format!("starts from {state} from now on, of which {batches} batches are not flushed"))
        }
        None => Err(format!("starts from {state} from now on, which does not exist")),
    }
}

/// The log is purged no further than the durable state goes.
fn covered(kvs: &KvDevice, purged: u64) -> Rule {
    let Some(raft) = kvs.forensic(RAFT) else { return Ok(()) };
    let applied = applied(kvs, &raft)?;
    if applied.is_some_and(|applied| applied >= purged) {
        return Ok(());
    }
    Err(format!("purged its log up to entry {purged}, and its durable state is that of entry {applied:?}"))
}

/// The last entry in the durable state that `raft` names.
fn applied(kvs: &KvDevice, raft: &impl env::KvRead) -> Result<Option<u64>, String> {
    let state = inspect::state_store(raft).map_err(unreadable)?;
    let Some(state) = kvs.durable(&state) else { return Ok(None) };
    Ok(inspect::applied(&state).map_err(unreadable)?.map(|applied| applied.index))
}

fn unreadable(error: std::io::Error) -> String {
    format!("has a store that cannot be read: {error}")
}
