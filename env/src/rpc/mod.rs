//! Requests and replies over a [`Net`](crate::Net).
//!
//! A request is one stream: a length-prefixed [`wire::Request`](proto::wire::Request), then its
//! payload; the reply comes back on the same stream in the same form. The first stream of a
//! connection carries a [`wire::Hello`](proto::wire::Hello) each way instead, so that both sides
//! know which versions the other speaks and that both mean the same cluster.
//!
//! [`serve`] answers requests: it checks the peer's right to ask, keeps the deadline, and turns each
//! error into an answer, so that nothing a peer sends stops the daemon. [`Caller`] asks: it keeps a
//! connection to each peer; [`Leader`] asks the metadata service, whoever leads it.

mod caller;
mod hello;
mod leader;
mod server;
mod stream;

pub use caller::{CallError, Caller, Reply, Target};
pub use hello::Local;
pub use leader::Leader;
pub use server::{Answer, Handler, Incoming, serve};
pub use stream::Payload;
