//! The metadata service: Raft, the state machine, the healer.
//!
//! A few metadata servers keep one replicated log. What the log says is applied, entry by entry, by
//! [`state`], a pure function of state and entry: tenants, buckets, objects, the cluster map and its
//! placement groups. Reading order: [`state`] (what is known), [`raft`] (how servers agree on it),
//! [`server`] (how others reach it), [`liveness`] and [`heal`] (what the leader decides on its own), [`plan`] and
//! [`pace`] (what it tells of tasks).
//!
//! *Deciding* and *waiting* live apart: [`state`], [`liveness`], [`heal`], [`plan`] and [`pace`] neither wait nor
//! read a clock; [`raft`] and [`server`] hold no decision of their own.

pub mod heal;
pub mod liveness;
pub mod options;
pub mod pace;
pub mod plan;
pub mod raft;
pub mod server;
pub mod state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use options::{Detection, Fullness, Options, RaftTimings, Throttle};
pub use server::{Server, StartError, Stopped};
