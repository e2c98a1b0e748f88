//! The storage node: keeps shards on its disks, gives them out, and makes lost ones again.
//!
//! ```text
//!  peers ──► service ──► fence (view) ──► store ──► disk        one store a disk
//!                                          ▲
//!  metadata ◄── agent: register, heartbeat │ lost shards
//!  service  ◄── work: take, do, report ────┤
//!           │          └─ rebuild: copy or decode from peers
//!           ◄── audit: compare, verify ─────┘
//! ```
//!
//! Promised: a write is acknowledged once it is on stable storage, and only under the group's epoch
//! that the metadata service has told; what is read is verified; what is found damaged is reported and
//! made again; one bad disk does not stop the others. Formats are in docs/formats.md.
//!
//! Left to others: which disk keeps what (placement, decided by the metadata service), encoding and
//! hedging (client), what a disk and a network really are (the seam, `env`).
//!
//! Decisions are plain functions with tests of their own: what a directory is ([`superblock`]), what a
//! record of the log holds and whether there is room for it ([`store`]), who may write, whom to ask for a
//! shard, what work to begin, and which shards an audit finds superfluous or lost.

mod agent;
mod aside;
mod audit;
mod block;
mod board;
mod budget;
mod coalesce;
mod damage;
mod disks;
mod keyed;
mod node;
mod options;
mod pace;
mod rebuild;
mod resume;
mod server;
mod service;
pub mod store;
pub mod superblock;
#[cfg(any(fuzzing, test))]
#[cfg_attr(fuzzing, allow(dead_code, reason = "tests use all of it"))]
#[allow(clippy::panic, clippy::unwrap_used, reason = "a panic is how a test fails")]
mod testing;
mod verified;
mod view;
mod work;

pub use block::BlockProblem;
pub use options::{DiskOptions, Options, StartError};
pub use server::Server;
