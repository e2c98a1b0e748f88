//! What the stores of a metadata server say, to whoever looks at them from outside: tools, the
//! simulator's checkers. Nothing is changed, and no server need run.

use std::io;

use env::kv::Change;
use env::{KeyRange, KvRead, Order};
use proto::wire;

use super::encoding;
use super::handle::{corrupt, io_error};
use super::replica;
use super::root::{LOG, META, STATE};
use super::types::{Entry, LogId, Vote};

/// The name of the store that holds the state, from the store `raft`.
///
/// # Errors
///
/// When the store cannot be read.
pub fn state_store(raft: &impl KvRead) -> io::Result<String> {
    let number = raft.get(META, STATE).map_err(io_error)?;
    let number = number.and_then(|bytes| <[u8; 8]>::try_from(&bytes[..]).ok()).map_or(0, u64::from_be_bytes);
    Ok(replica::store_name(number))
}

/// The last entry that the state has applied, from the store of the state.
///
/// # Errors
///
/// When the store cannot be read.
pub fn applied(state: &impl KvRead) -> io::Result<Option<LogId>> {
    Ok(replica::read_meta(state)?.last_log_id)
}

/// The vote, from the store `raft`.
///
/// # Errors
///
/// When the store cannot be read.
pub fn vote(raft: &impl KvRead) -> io::Result<Option<Vote>> {
    let Some(stored) = raft.get(META, b"vote").map_err(io_error)? else { return Ok(None) };
    let wire: wire::Vote = encoding::message("the vote", stored).map_err(corrupt)?;
    Ok(Some(encoding::parse_vote(&wire)))
}

/// Does the server belong to a cluster, as the store `raft` says?
///
/// # Errors
///
/// When the store cannot be read.
pub fn has_cluster(raft: &impl KvRead) -> io::Result<bool> {
    Ok(raft.get(META, b"cluster").map_err(io_error)?.is_some())
}

/// The id of the entry at an index, from the store `raft`; none when the log has none there.
///
/// # Errors
///
/// When the store cannot be read, or the entry.
pub fn entry_id(raft: &impl KvRead, index: u64) -> io::Result<Option<LogId>> {
    let Some(stored) = raft.get(LOG, &index.to_be_bytes()).map_err(io_error)? else { return Ok(None) };
    let entry = encoding::message("an entry of the log", stored).and_then(encoding::parse_entry);
    Ok(Some(entry.map_err(corrupt)?.log_id))
}

/// Do these changes of the store `raft` name another state store?
pub fn names_state(changes: &[Change]) -> bool {
    changes.iter().any(|change| matches!(change, Change::Put(META, key, _) if key[..] == *STATE))
}

/// Up to which entry these changes of the store `raft` purge its log.
pub fn purges(changes: &[Change]) -> Option<u64> {
    changes.iter().find_map(|change| match change {
        Change::DeleteRange(LOG, KeyRange { start, end: Some(end) }) if start.is_empty() => {
            <[u8; 8]>::try_from(&end[..]).ok().map(u64::from_be_bytes)?.checked_sub(1)
        }
        _ => None,
    })
}

/// Entries of the log from index `first` on, at most `limit`, from the store `raft`.
///
/// # Errors
///
/// When the store cannot be read, or an entry of it.
pub fn entries(raft: &impl KvRead, first: u64, limit: usize) -> io::Result<Vec<Entry>> {
    let range = KeyRange { start: first.to_be_bytes().to_vec(), end: None };
    let rows = raft.scan(LOG, &range, Order::Ascending, limit).map_err(io_error)?;
    let parse = |(_, value)| encoding::message("an entry of the log", value).and_then(encoding::parse_entry);
    rows.into_iter().map(|row| parse(row).map_err(corrupt)).collect()
}
