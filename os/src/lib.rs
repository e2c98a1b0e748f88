//! The real side of the seam: Linux.
//!
//! This is the one crate that touches sockets, files, threads, the wall clock and the operating
//! system's randomness. [`Host`] bundles what it offers as an [`env::Env`]: QUIC with certificates
//! on both sides ([`net`]), disks ([`disk`]), RocksDB ([`kv`]), time, randomness and tasks. Each
//! passes the suites of `env::conformance`, and so does the simulator's counterpart.
//!
//! Besides the seam it holds what belongs to certificates: the cluster's own authority ([`ca`]) and
//! the credentials that a process starts with ([`credentials`]).

// The one place where the machine is touched: the bans of clippy.toml send everybody here.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod blocking;
pub mod ca;
mod certificate;
pub mod clock;
pub mod credentials;
pub mod disk;
mod fatal;
mod host;
pub mod kv;
mod memory;
pub mod net;
pub mod rng;
pub mod spawn;

pub use credentials::{CredentialPaths, Credentials, CredentialsError};
pub use host::{Host, HostOptions, StartError};
