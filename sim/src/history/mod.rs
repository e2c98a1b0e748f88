//! What clients did and saw, and whether that can be right.
//!
//! Plain data in, verdict out; nothing here waits, draws or touches a host.
//!
//! * [`content`]: the bytes of each value, made from its id, so that no object need be kept to be
//!   compared, and wrong bytes say whose they are.
//! * [`Ledger`]: every operation of every client, from its begin to its end. Its owner puts it in a lock.
//! * [`linear`]: is the history of one key that of an atomic register?
//! * [`Report`]: the verdict over all keys of a ledger.
//!
//! A workload calls, around each operation,
//!
//! ```text
//! let value = ledger.new_value();
//! let index = ledger.begin(client, key, Op::Put { value, size, condition: Condition::Any }, now);
//! let result = bucket.put(key, Content::new(value, size) …).await;
//! ledger.end(index, Outcome::Acknowledged(receipt), now);
//! ```
//!
//! [`Ledger::begin_page`] and [`Ledger::end_page`] do the same for a page of a listing, and at the end
//! `Report::of(&ledger, Limits::default())` tells. What never ended counts as [`Outcome::Unknown`].
//!
//! Left to others: whether receipts promise too much, and anything that joins several keys at one
//! instant. A page of a listing is one instant for the service; here it is one read per key.

pub mod content;
mod ledger;
pub mod linear;
mod operation;
mod page;
mod report;
#[cfg(test)]
mod tests;

pub use content::ValueId;
pub use ledger::Ledger;
pub use linear::{Limits, Verdict};
pub use operation::{Condition, Found, Key, Op, OpIndex, Operation, Outcome, Receipt};
pub use page::{Listed, Page, PageFault, PageIndex, PageRequest};
pub use report::{KeyFault, Report};
