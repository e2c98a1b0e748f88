//! The simulated network: QUIC as it looks from above quinn.
//!
//! Connections are between the holders of two identities, with ordered streams on them. Datagrams do
//! not exist here: one that is lost, repeated or overtaken shows above QUIC as a delay of its stream and
//! nothing else, so each write has a moment of arrival, drawn when it is sent, and keeps its place in its
//! stream. Streams do not wait for one another. The limits and timeouts are those of `os`: 1 MiB of unread
//! bytes a stream and 16 MiB a direction, 256 streams opened by a side, 2.5 s to connect, 5 s of silence.
//!
//! What can be done to it, by [`Network`]: latencies and their spikes, connections that break within a
//! message, writes that arrive in pieces ([`NetFaults`]); links cut or slowed, each direction for itself
//! ([`Link`]); connections broken, with each end learning of it at its own moment; and a [`Tap`] that sees,
//! replaces or refuses single writes. A host that dies leaves its peers waiting for the idle timeout,
//! unless its successor listens at the same address before. One that stands still keeps its connections
//! for as long.
//!
//! Promised whatever is done: bytes of a stream arrive whole, in order and unchanged, or the stream fails,
//! unless the tap replaces them. Left out: bandwidth (a write takes as long as its latency, whatever its
//! length), and the latency of news about streams that may be opened anew.
//!
//! | file | |
//! | --- | --- |
//! | `network` | links, listeners, connections; what is done to them |
//! | `faults` | what can be configured, and the tap |
//! | `simnet`, `listener`, `connection` | the seam's traits |
//! | `conn` | a connection's two ends, and how each learns of its loss |
//! | `flow` | what an end does with streams |
//! | `pipe` | one direction of a stream |
//! | `wait` | who waits, with one timer each |

mod conn;
mod connection;
mod faults;
mod flow;
mod listener;
mod network;
mod pipe;
mod simnet;
#[cfg(test)]
mod tests;
mod wait;

pub use connection::{SimConnection, SimRecv, SimSend};
pub use faults::{Link, NetFaults, Sent, Tap, Verdict};
pub use listener::SimListener;
pub use network::Network;
pub use simnet::SimNet;
