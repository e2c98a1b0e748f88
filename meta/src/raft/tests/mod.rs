//! Tests of log and state machine over stores in memory that forget what was not flushed, and of the
//! runtime.

mod log;
mod runtime;
mod snapshot;

use bytes::Bytes;
use openraft::EntryPayload;
use proto::wire;

use super::types::{CommittedLeaderId, Entry, LogId, Proposal};

fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index }
}

fn entry(index: u64, bytes: usize) -> Entry {
    let payload = EntryPayload::Normal(Proposal(Bytes::from(vec![7; bytes])));
    Entry { log_id: log_id(1, index), payload }
}

fn command(index: u64, action: wire::command::Action) -> Entry {
    let command = wire::Command { proposed_ms: 1_000 + index, action: Some(action) };
    Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(Proposal::new(&command)) }
}
