//! What can go wrong, per operation: a kind exists where a caller would act differently.

use std::fmt;
use std::time::Duration;

use env::rpc::CallError;
use proto::{ErrorCode, Failure, InvalidInput, Remedy, StripeIndex, Version};

/// A call to the cluster brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// What was asked for breaks a rule; nothing was sent.
    #[error("{0}")]
    Invalid(#[from] InvalidInput),
    /// The cluster refused.
    #[error("{0}")]
    Refused(Failure),
    /// The cluster did not answer, or could not yet. What was asked for may have been done.
    #[error("the cluster is not available: {0}")]
    Unavailable(CallError),
}

impl Error {
    /// What the caller may do.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Invalid(_) => Remedy::FixRequest,
            Self::Refused(failure) => failure.remedy(),
            Self::Unavailable(error) => error.remedy(),
        }
    }

    /// The cluster's code, when it gave one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Invalid(_) => Some(ErrorCode::InvalidRequest),
            Self::Refused(failure) => Some(failure.code),
            Self::Unavailable(error) => error.code(),
        }
    }

    /// An answer of another kind than the question's.
    pub(crate) fn odd_reply(call: &str) -> Self {
        let text = format!("the answer to {call} is not one that this version understands");
        Self::Refused(Failure::new(ErrorCode::VersionMismatch, text))
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Failed(failure) if !matches!(failure.remedy(), Remedy::Retry | Remedy::FindLeader) => {
                Self::Refused(failure)
            }
            other => Self::Unavailable(other),
        }
    }
}

/// Where an object's bytes come from failed.
#[derive(Debug, thiserror::Error)]
#[error("the source of the object's bytes failed: {0}")]
pub struct SourceError(#[from] Box<dyn std::error::Error + Send + Sync>);

impl SourceError {
    /// From the source's own error.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

/// A put did not end with a receipt.
///
/// Unless it is [`PutError::Unknown`], nothing is visible under the key that was not there before;
/// shards that were written are dropped by the nodes once the grant is over.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// What was asked for breaks a rule.
    #[error("{0}")]
    Invalid(#[from] InvalidInput),
    /// The precondition does not hold.
    #[error("{0}")]
    PreconditionFailed(Failure),
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Too few disks took the shards, in every group that was tried.
    #[error("too few disks took the shards: {durable} of a stripe where {needed} are needed; {reasons}")]
    NotDurable {
        /// Slots that took theirs, in the last group.
        durable: usize,
        /// Slots that must.
        needed: usize,
        /// Why the others did not.
        reasons: Reasons,
    },
    /// Groups changed under the put more than can be mended; put again.
    #[error("the places of the object's shards changed while it was written ({0}): put it again")]
    PlacementChanged(Failure),
    /// Nothing moved for the whole idle limit.
    #[error("nothing moved for {} ms", .0.as_millis())]
    DeadlineExceeded(Duration),
    /// The commit was sent and not answered: the object may be there or not. `head` tells.
    #[error("the commit was not answered, the object may be there or not: {0}")]
    Unknown(CallError),
    /// The metadata service refused or did not answer.
    #[error(transparent)]
    Service(#[from] Error),
}

impl PutError {
    /// The cluster's code, when the error comes from there.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Invalid(_) => Some(ErrorCode::InvalidRequest),
            Self::PreconditionFailed(failure) | Self::PlacementChanged(failure) => Some(failure.code),
            Self::Unknown(error) => error.code(),
            Self::Service(error) => error.code(),
            Self::Source(_) | Self::NotDurable { .. } | Self::DeadlineExceeded(_) => None,
        }
    }

    /// What the caller may do.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Invalid(_) | Self::PreconditionFailed(_) | Self::Source(_) => Remedy::FixRequest,
            Self::NotDurable { .. }
            | Self::PlacementChanged(_)
            | Self::DeadlineExceeded(_)
            | Self::Unknown(_) => Remedy::Retry,
            Self::Service(error) => error.remedy(),
        }
    }
}

/// A get, or a piece of it, failed. What was given out before is right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GetError {
    /// No object under the key.
    #[error("{0}")]
    NoSuchObject(Failure),
    /// No such bucket or tenant.
    #[error("{0}")]
    NoSuchBucket(Failure),
    /// The range begins after the object's end, or is none.
    #[error("bytes {start} to {end} of an object of {size} bytes")]
    BadRange {
        /// First byte asked for.
        start: u64,
        /// End of the range, not included.
        end: u64,
        /// Bytes of the object.
        size: u64,
    },
    /// Fewer shards of a stripe are in reach than decoding needs.
    #[error(
        "stripe {stripe} of the extent at byte {extent_start}: {reachable} shards in reach, {needed} needed; {reasons}"
    )]
    Undecodable {
        /// Where the stripe's extent begins in the object.
        extent_start: u64,
        /// The stripe within its extent.
        stripe: StripeIndex,
        /// Shards that have not failed.
        reachable: usize,
        /// Shards that are needed.
        needed: usize,
        /// Why the others could not.
        reasons: Reasons,
    },
    /// The object's bytes do not match its checksum or its size, though every shard matched its own.
    #[error("the object is damaged: {0}")]
    Damaged(String),
    /// Another version took the key's place while this one was read.
    #[error("version {version} was replaced or deleted while it was read: get it again")]
    Changed {
        /// The version that was read.
        version: Version,
    },
    /// A stripe did not come within the limit.
    #[error("a stripe did not come within {} ms; {reasons}", after.as_millis())]
    DeadlineExceeded {
        /// The limit.
        after: Duration,
        /// What failed until then.
        reasons: Reasons,
    },
    /// The metadata service refused or did not answer.
    #[error(transparent)]
    Service(Error),
}

impl GetError {
    /// The cluster's code, when the error comes from there.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::NoSuchObject(failure) | Self::NoSuchBucket(failure) => Some(failure.code),
            Self::Service(error) => error.code(),
            Self::BadRange { .. }
            | Self::Undecodable { .. }
            | Self::Damaged(_)
            | Self::Changed { .. }
            | Self::DeadlineExceeded { .. } => None,
        }
    }

    /// What the caller may do.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::NoSuchObject(_) | Self::NoSuchBucket(_) | Self::BadRange { .. } => Remedy::FixRequest,
            Self::Undecodable { .. } | Self::Changed { .. } | Self::DeadlineExceeded { .. } => Remedy::Retry,
            Self::Damaged(_) => Remedy::AskOperator,
            Self::Service(error) => error.remedy(),
        }
    }
}

impl From<Error> for GetError {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(failure) if failure.code == ErrorCode::NoSuchObject => Self::NoSuchObject(failure),
            Error::Refused(failure)
                if matches!(failure.code, ErrorCode::NoSuchBucket | ErrorCode::NoSuchTenant) =>
            {
                Self::NoSuchBucket(failure)
            }
            other => Self::Service(other),
        }
    }
}

/// A delete failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteError {
    /// The precondition does not hold.
    #[error("{0}")]
    PreconditionFailed(Failure),
    /// Not answered: it may be done or not. Deleting again is safe.
    #[error("the delete was not answered, it may be done or not: {0}")]
    Unknown(CallError),
    /// The metadata service refused.
    #[error(transparent)]
    Service(Error),
}

impl DeleteError {
    /// The cluster's code, when the error comes from there.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::PreconditionFailed(failure) => Some(failure.code),
            Self::Unknown(error) => error.code(),
            Self::Service(error) => error.code(),
        }
    }

    /// What the caller may do.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::PreconditionFailed(_) => Remedy::FixRequest,
            Self::Unknown(_) => Remedy::Retry,
            Self::Service(error) => error.remedy(),
        }
    }
}

impl From<Error> for DeleteError {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(failure) if failure.code == ErrorCode::PreconditionFailed => {
                Self::PreconditionFailed(failure)
            }
            // An earlier attempt may have been carried out, and its outcome forgotten since.
            Error::Refused(failure) if failure.code == ErrorCode::CommandExpired => {
                Self::Unknown(CallError::Failed(failure))
            }
            Error::Unavailable(error) => Self::Unknown(error),
            other => Self::Service(other),
        }
    }
}

/// Why places failed, a line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reasons(Vec<String>);

impl Reasons {
    /// A line each.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

impl FromIterator<String> for Reasons {
    fn from_iter<I: IntoIterator<Item = String>>(lines: I) -> Self {
        Self(lines.into_iter().collect())
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("no place has failed yet")
        } else {
            f.write_str(&self.0.join("; "))
        }
    }
}
