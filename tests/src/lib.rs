//! The harness of the end-to-end and chaos tests: real processes, real sockets, real files.
//!
//! [`TestCluster`] starts the `cadoled` that lies next to the test, in a directory of its own and on
//! free ports, and ends its processes whatever happens to the test. [`Content`] is data that can be
//! made again for comparison, [`Ledger`] knows what was acknowledged, [`shards`] reaches behind a
//! node's back to its disks, and [`peer`] speaks the protocol in ways that the library would not.
//! [`log_disk`] is one disk without a node, and [`block`] a device whose power can fail.
//!
//! The simulator finds more and finds it sooner; what it cannot prove is that the real sides of the
//! seam keep their contracts when a process is killed. That is what these tests are for. None of them
//! passes or fails by speed: deadlines are generous, and what takes time is printed.

// Tests are where real processes, files and clocks are.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
// A panic is how a test fails, and most of this crate runs within one.
#![allow(clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

pub mod block;
mod cluster;
mod content;
mod ledger;
pub mod log_disk;
mod objects;
pub mod peer;
pub mod program;
pub mod shards;
mod watchdog;

pub use cluster::{SharedCluster, TestCluster, shape};
pub use content::{Content, ContentSource, Random};
pub use ledger::{Ledger, Verdict};
pub use objects::{BUCKET, PATIENCE, get, get_range, key, put, put_with};
