//! What an error says about what has happened.
//!
//! The promise of the client library decides, not what its code happens to do: "nothing of it is
//! visible" is taken at its word, so that a put that is said to have failed and is seen later is a bug
//! that the checkers find. Where the service itself says that it cannot tell, the outcome is unknown.

use client::{DeleteError, Error, GetError, PutError};
use proto::ErrorCode;

use crate::history::Outcome;

/// How an operation ended without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// For the ledger.
    pub(super) outcome: Outcome,
    /// As a probe.
    pub(super) probe: &'static str,
    /// The metadata service was not there for it.
    pub(super) is_unavailable: bool,
}

const fn ended(outcome: Outcome, probe: &'static str) -> Ended {
    Ended { outcome, probe, is_unavailable: false }
}

/// A call about which the service gave an answer that is none, or that nothing can be told: only its
/// effect tells whether it was carried out.
fn is_open(error: &Error) -> bool {
    matches!(error.code(), Some(ErrorCode::CommandExpired | ErrorCode::VersionMismatch))
}

/// How a put ended. Only [`PutError::Unknown`] leaves open whether it is visible, says its contract; a
/// commit that is refused for its age says so itself.
pub(super) fn of_put(error: &PutError) -> Ended {
    match error {
        PutError::PreconditionFailed(_) => ended(Outcome::Refused, "the condition of a put did not hold"),
        PutError::Unknown(_) => {
            Ended { is_unavailable: true, ..ended(Outcome::Unknown, "the commit of a put was not answered") }
        }
        PutError::Service(error) if is_open(error) => ended(Outcome::Unknown, "a put became too old"),
        PutError::Invalid(_) => ended(Outcome::Failed, "a put was invalid"),
        PutError::Source(_) => ended(Outcome::Failed, "a put failed: its source did"),
        PutError::NotDurable { .. } => ended(Outcome::Failed, "a put failed: too few disks took its shards"),
        PutError::PlacementChanged(_) => ended(Outcome::Failed, "a put failed: its places kept changing"),
        PutError::DeadlineExceeded(_) => ended(Outcome::Failed, "a put failed: nothing moved"),
        PutError::Service(error) => of_service(error),
    }
}

/// How a delete ended. It is one command, sent until it is answered; its id keeps it from being carried
/// out twice.
pub(super) fn of_delete(error: &DeleteError) -> Ended {
    match error {
        DeleteError::PreconditionFailed(_) => {
            ended(Outcome::Refused, "the condition of a delete did not hold")
        }
        DeleteError::Unknown(_) => {
            Ended { is_unavailable: true, ..ended(Outcome::Unknown, "a delete was not answered") }
        }
        DeleteError::Service(error) if is_open(error) => ended(Outcome::Unknown, "a delete became too old"),
        DeleteError::Service(error) => of_service(error),
    }
}

/// How a get or head ended. Whether that may be is judged in the calm; during faults everything may be
/// out of reach.
pub(super) fn of_get(error: &GetError) -> Ended {
    match error {
        GetError::NoSuchObject(_) => ended(Outcome::Read(None), "a get found nothing"),
        GetError::NoSuchBucket(_) => ended(Outcome::Failed, "a get found no bucket"),
        GetError::BadRange { .. } => ended(Outcome::Failed, "a get asked for a range behind the end"),
        GetError::Undecodable { .. } => ended(Outcome::Failed, "a get failed: too few shards in reach"),
        GetError::Damaged(_) => ended(Outcome::Failed, "a get failed: the object is damaged"),
        GetError::Changed { .. } => {
            ended(Outcome::Failed, "a get failed: another version took the key's place")
        }
        GetError::DeadlineExceeded { .. } => {
            ended(Outcome::Failed, "a get failed: a stripe did not come in time")
        }
        GetError::Service(error) => of_service(error),
    }
}

/// How a call without effect ended.
pub(super) fn of_service(error: &Error) -> Ended {
    let is_unavailable = matches!(error, Error::Unavailable(_));
    let probe = match error {
        Error::Unavailable(_) => "an operation failed: the metadata service was not available",
        Error::Invalid(_) | Error::Refused(_) => "an operation was refused",
    };
    Ended { is_unavailable, ..ended(Outcome::Failed, probe) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use env::rpc::CallError;
    use proto::Failure;

    use super::*;

    fn silence() -> CallError {
        CallError::TimedOut { address: "a".into(), call: "x", after: Duration::ZERO }
    }

    fn refused(code: ErrorCode) -> Error {
        Error::Refused(Failure::new(code, "x"))
    }

    /// A put's fate is open only where nobody can tell; a condition that did not hold is told apart.
    #[test]
    fn puts() {
        let failure = || Failure::new(ErrorCode::PreconditionFailed, "x");
        assert_eq!(of_put(&PutError::PreconditionFailed(failure())).outcome, Outcome::Refused);
        assert_eq!(of_put(&PutError::Unknown(silence())).outcome, Outcome::Unknown);
        for (error, outcome) in [
            (Error::Unavailable(silence()), Outcome::Failed),
            (refused(ErrorCode::NoLegalPlace), Outcome::Failed),
            (refused(ErrorCode::NoSuchBucket), Outcome::Failed),
            (refused(ErrorCode::CommandExpired), Outcome::Unknown),
        ] {
            assert_eq!(of_put(&PutError::Service(error.clone())).outcome, outcome, "{error:?}");
        }
        assert_eq!(of_put(&PutError::DeadlineExceeded(Duration::ZERO)).outcome, Outcome::Failed);
    }

    /// A delete that was not answered may come yet; one that was refused will not.
    #[test]
    fn deletes() {
        assert_eq!(of_delete(&DeleteError::from(Error::Unavailable(silence()))).outcome, Outcome::Unknown);
        for (code, outcome) in [
            (ErrorCode::PreconditionFailed, Outcome::Refused),
            (ErrorCode::NoSuchBucket, Outcome::Failed),
            (ErrorCode::CommandExpired, Outcome::Unknown),
        ] {
            assert_eq!(of_delete(&DeleteError::from(refused(code))).outcome, outcome, "{code:?}");
        }
    }

    /// That nothing is there is an answer; everything else is none.
    #[test]
    fn gets() {
        assert_eq!(of_get(&GetError::from(refused(ErrorCode::NoSuchObject))).outcome, Outcome::Read(None));
        assert_eq!(of_get(&GetError::from(refused(ErrorCode::NoSuchBucket))).outcome, Outcome::Failed);
        assert!(of_get(&GetError::from(Error::Unavailable(silence()))).is_unavailable);
    }
}
