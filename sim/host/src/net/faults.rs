//! What can be done to the network, and what can be seen of it.

use bytes::Bytes;

use crate::host::HostId;

/// How the network behaves between all hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetFaults {
    /// Time that a message takes one way, from and to, in microseconds.
    pub latency_us: (u64, u64),
    /// How many messages in a million were lost once and sent again.
    pub spike_ppm: u32,
    /// Time that this adds, from and to, in microseconds.
    pub spike_us: (u64, u64),
    /// How many writes in a million break their connection, with a part of their bytes delivered.
    pub reset_ppm: u32,
    /// How many writes in a million arrive in two pieces, cut anywhere, at two moments.
    pub split_ppm: u32,
}

impl Default for NetFaults {
    /// A data centre on a good day.
    fn default() -> Self {
        Self {
            latency_us: (50, 500),
            spike_ppm: 200,
            spike_us: (10_000, 300_000),
            reset_ppm: 0,
            split_ppm: 30_000,
        }
    }
}

/// One direction between two hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// It works.
    #[default]
    Up,
    /// Nothing arrives.
    Cut,
    /// Everything takes longer.
    Slow {
        /// By so many microseconds.
        extra_us: u64,
    },
}

/// One write, just before it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// Who writes.
    pub from: HostId,
    /// Who is to read it.
    pub to: HostId,
    /// The connection: numbered from 1 on in the order in which they were made.
    pub connection: u64,
    /// The stream: numbered within the connection.
    pub stream: u64,
    /// Whether the side that writes has opened the stream.
    pub opener: bool,
    /// Which write it is within its direction of the stream, from 0 on.
    pub index: u64,
    /// What is written; not empty.
    pub bytes: &'a Bytes,
}

/// What becomes of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent.
    Pass,
    /// These bytes are sent in its place.
    Replace(Bytes),
    /// It is not sent: both sides see that the other gave up the stream. The connection goes on.
    Reset,
}

/// Sees each write of all connections, before it is sent.
///
/// It is called with no lock held: it may cut links and break connections.
pub trait Tap: Send + Sync {
    /// What becomes of this write. It must depend on nothing but what happens in the world.
    fn message(&self, sent: Sent<'_>) -> Verdict;
}
