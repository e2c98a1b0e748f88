//! The seam between Cadole and the machine.
//!
//! `meta`, `node` and `client` reach time, randomness, tasks, disks, the network and the key-value
//! store through the traits of this crate alone, bundled in [`Env`]. `os` implements them on Linux;
//! the simulator implements them in one process, in virtual time, with faults. Each trait's
//! documentation is its contract, and [`conformance`] (a feature) checks it for every
//! implementation alike.
//!
//! The seam lies above QUIC (ordered streams that can be reset), above the submission ring (owned,
//! aligned buffers, batches, a flush of its own) and above RocksDB (get, ordered scan, atomic batch,
//! sync, checkpoint): narrow contracts that a simulator can keep exactly.
//!
//! [`rpc`] is the one piece of code here that does something: requests and replies over a [`Net`],
//! the same for all three parts.

pub mod buf;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod disk;
pub mod kv;
pub mod net;
pub mod rng;
pub mod rpc;
pub mod spawn;
pub mod storage;

pub use buf::AlignedBuf;
pub use clock::{Clock, Elapsed, Monotonic};
pub use disk::{Disk, DiskFile, Disks, FileName, Priority, Read, Space, Write};
pub use kv::{Batch, KeyRange, Kv, KvRead, Kvs, MemoryKv, Order, Row, Table};
pub use net::{Connection, Expect, Listener, Net, NetError, RecvStream, SendStream};
pub use rng::Rng;
pub use spawn::{Spawn, Task};
pub use storage::{StorageError, StorageErrorKind};

/// All that a part needs of its host. Cheap to clone; clones are the same host.
pub trait Env: Clone + Send + Sync + 'static {
    /// Time.
    type Clock: Clock;
    /// Randomness.
    type Rng: Rng;
    /// Tasks.
    type Spawn: Spawn;
    /// Disks for shards.
    type Disks: Disks;
    /// The network, under this host's certificate.
    type Net: Net;
    /// Key-value stores.
    type Kvs: Kvs;

    /// The host's clock.
    fn clock(&self) -> &Self::Clock;
    /// The host's randomness.
    fn rng(&self) -> &Self::Rng;
    /// The host's tasks.
    fn spawn(&self) -> &Self::Spawn;
    /// The host's disks.
    fn disks(&self) -> &Self::Disks;
    /// The host's network.
    fn net(&self) -> &Self::Net;
    /// The host's key-value stores.
    fn kvs(&self) -> &Self::Kvs;
}
