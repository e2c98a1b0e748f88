//! How the servers agree: openraft, and what it needs of us.
//!
//! All of openraft stays in this module; the rest of the crate sees a [`Node`]. Ours are the tasks and
//! the clock that it runs on ([`runtime`], [`core`]), the log ([`log`]), the copy of the state and its
//! snapshots ([`replica`], [`machine`], [`snapshot`], [`transfer`]), the messages ([`network`]) and
//! every byte that lies on disk or goes over the wire ([`encoding`]).
//!
//! Two stores: `raft` for the log, the vote and who this server is ([`root`]); `state-<n>` for the
//! state. A snapshot is a checkpoint of the latter. A snapshot from a leader goes into a fresh
//! `state-<n+1>`, and takes its place when it is complete, checked and durable.

mod core;
pub mod encoding;
mod flusher;
pub(crate) mod handle;
pub mod inspect;
pub mod log;
pub mod machine;
pub mod network;
pub(crate) mod node;
pub mod replica;
pub(crate) mod root;
pub mod runtime;
pub mod snapshot;
mod standalone;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod transfer;
pub mod types;

pub use node::{Node, Standing};
pub use replica::Replica;
