//! The simulated side of the seam: hosts in one thread and in virtual time, with everything that can
//! go wrong with them.
//!
//! A [`World`] has a seed and runs tasks; a [`Host`] is a machine with a certificate, disks
//! ([`DiskDevice`]), key-value stores ([`KvDevice`]) and clocks; it is booted into a [`SimEnv`], the
//! simulated `env::Env` of one process, and killed, paused, booted again; the [`Network`] joins them.
//! Each implementation passes the suites of `env::conformance`, as `os` does.
//!
//! Here is the *mechanism* of faults: what can be done to a disk, a link, a clock or a process. Which
//! are done, and when, is decided by the crate `sim`. Nothing here knows what Cadole stores or sends.
//!
//! Everything random comes from named streams of the seed ([`Stream`]), nothing iterates over what
//! has no order, and no wall clock is read: the same seed gives the same [trace](World::trace_hash).

pub mod clock;
pub mod disk;
pub mod host;
pub mod kv;
pub mod net;
pub mod rng;
pub mod trace;
pub mod world;

pub use clock::SimClock;
pub use disk::{DiskDevice, SimDisks};
pub use host::{Death, Host, HostId, Life, SimEnv, SimSpawn};
pub use kv::{KvDevice, SimKvs};
pub use net::{Network, SimNet};
pub use rng::Stream;
pub use trace::Story;
pub use world::{Costs, Schedule, Sleep, Spent, Stuck, TaskHandle, World, WorldOptions, current_host, lock};
