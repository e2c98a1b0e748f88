//! One operation of one client: what it asked, when, and how it ended.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use proto::{ObjectKey, Version};

use super::content::ValueId;

/// A key of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Which bucket: a number of the workload's own, unique over all tenants.
    pub bucket: u32,
    /// The object's key.
    pub name: ObjectKey,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bucket {} key {}", self.bucket, self.name)
    }
}

/// What must hold for a put or delete to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Nothing.
    Any,
    /// No object is under the key.
    MustNotExist,
    /// This version is under the key.
    IfVersion(Version),
}

/// ` if absent`, with the space before it; nothing when nothing is asked.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::MustNotExist => f.write_str(" if absent"),
            Self::IfVersion(version) => write!(f, " if version {version}"),
        }
    }
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Put a value.
    Put {
        /// Which; used by no other put of the ledger.
        value: ValueId,
        /// Its bytes.
        size: u64,
        /// What must hold.
        condition: Condition,
    },
    /// Get an object or a range of it.
    Get {
        /// Which bytes; all when absent.
        range: Option<Range<u64>>,
    },
    /// Ask what is known of an object.
    Head,
    /// Delete an object.
    Delete {
        /// What must hold.
        condition: Condition,
    },
    /// What a page of a listing says of the key; the ledger makes these.
    List,
}

impl Op {
    /// May it change what is under the key?
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Delete { .. })
    }

    /// Can an operation of this kind end so?
    pub fn may_end_as(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Acknowledged(_) => matches!(self, Self::Put { .. }),
            Outcome::Deleted { .. } => matches!(self, Self::Delete { .. }),
            Outcome::Refused => self.is_write(),
            Outcome::Read(_) => !self.is_write(),
            Outcome::Failed | Outcome::Unknown => true,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { value, size, condition } => write!(f, "put {value} ({size} bytes){condition}"),
            Self::Get { range: None } => f.write_str("get"),
            Self::Get { range: Some(range) } => write!(f, "get {}..{}", range.start, range.end),
            Self::Head => f.write_str("head"),
            Self::Delete { condition } => write!(f, "delete{condition}"),
            Self::List => f.write_str("list"),
        }
    }
}

/// What a put's receipt says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The version that it made.
    pub version: Version,
    /// Any so many disks may be lost.
    pub disks: u32,
    /// Any so many nodes may be lost.
    pub nodes: u32,
    /// Any so many racks may be lost.
    pub racks: u32,
    /// Shards that some slots still missed.
    pub slots_missing: usize,
}

/// What a read saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Whose bytes it got, verified; none when it got no bytes, or too few to tell.
    pub value: Option<ValueId>,
    /// The version that the service named.
    pub version: Version,
    /// Bytes of the object, as the service named them.
    pub size: u64,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A put that was done.
    Acknowledged(Receipt),
    /// A put or delete whose condition did not hold: it had no effect.
    Refused,
    /// It failed: it has had no effect and will have none, or it was a read.
    Failed,
    /// It may have an effect, at any time from its begin on, or never.
    Unknown,
    /// A read, and what was there.
    Read(Option<Found>),
    /// A delete that was done.
    Deleted {
        /// Was there anything?
        existed: bool,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acknowledged(receipt) => write!(f, "acknowledged as version {}", receipt.version),
            Self::Refused => f.write_str("refused: the condition did not hold"),
            Self::Failed => f.write_str("failed without effect"),
            Self::Unknown => f.write_str("unknown"),
            Self::Read(None) => f.write_str("found nothing"),
            Self::Read(Some(Found { value: Some(value), version, size })) => {
                write!(f, "found {value} as version {version} ({size} bytes)")
            }
            Self::Read(Some(Found { value: None, version, size })) => {
                write!(f, "found version {version} ({size} bytes)")
            }
            Self::Deleted { existed: true } => f.write_str("deleted it"),
            Self::Deleted { existed: false } => f.write_str("found nothing to delete"),
        }
    }
}

/// Which operation of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpIndex(pub usize);

/// An operation in the ledger.
///
/// Whether one ended before another began is told by `call` and `ret`, which count the ledger's events;
/// many events share one instant of virtual time, so the times are for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its number in the ledger; that of the page when it is [`Op::List`].
    pub index: OpIndex,
    /// Whose it is.
    pub client: u32,
    /// On what.
    pub key: Key,
    /// What was asked for.
    pub op: Op,
    /// How it ended; [`Outcome::Unknown`] until it has.
    pub outcome: Outcome,
    /// The event of its begin.
    pub call: u64,
    /// The event of its end, if it has ended.
    pub ret: Option<u64>,
    /// Virtual time of its begin.
    pub began: Duration,
    /// Virtual time of its end, if it has ended.
    pub ended: Option<Duration>,
}

/// `operation 12, client 3, 1.204000 s to 1.310000 s: put value-7 (10 bytes): acknowledged as version 9`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.op == Op::List { "page" } else { "operation" };
        let Self { index, client, .. } = self;
        write!(f, "{what} {}, client {client}, {:.6} s to ", index.0, self.began.as_secs_f64())?;
        match self.ended {
            Some(ended) => write!(f, "{:.6} s", ended.as_secs_f64())?,
            None => f.write_str("no end")?,
        }
        write!(f, ": {}: {}", self.op, self.outcome)
    }
}
