//! Error codes: what went over the wire, and what a caller may do about it.

use std::fmt;

/// What the caller may do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Ask again, after a pause: nothing was changed, or repeating has no second effect.
    Retry,
    /// Ask the leader.
    FindLeader,
    /// What the caller knows of the cluster is old: ask the metadata service, then again.
    RefreshMap,
    /// This place cannot; another may.
    GoElsewhere,
    /// The request itself has to change.
    FixRequest,
    /// Somebody has to act on the cluster.
    AskOperator,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $remedy:ident;)*) => {
        /// Stable numbers: added, never used again. docs/errors.md has a line for each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $code,)*
        }

        impl ErrorCode {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The number in messages.
            pub const fn number(self) -> u32 {
                self as u32
            }

            /// From a message; a code that this version does not know is [`ErrorCode::Internal`].
            pub const fn from_number(number: u32) -> Self {
                match number {
                    $($code => Self::$name,)*
                    _ => Self::Internal,
                }
            }

            /// Short stable name for programs.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What the caller may do.
            pub const fn remedy(self) -> Remedy {
                match self { $(Self::$name => Remedy::$remedy,)* }
            }
        }
    };
}

codes! {
    /// A bug, or something that the answering side could not name.
    Internal = 1, "internal", Retry;
    /// The request breaks a rule; the message says which.
    InvalidRequest = 2, "invalid-request", FixRequest;
    /// The certificate's role may not do this.
    Forbidden = 3, "forbidden", FixRequest;
    /// The request's time was over before the answer.
    DeadlineExceeded = 4, "deadline-exceeded", Retry;
    /// A queue is full.
    Overloaded = 5, "overloaded", Retry;
    /// The daemon is stopping or starting.
    Unavailable = 6, "unavailable", Retry;
    /// Header or payload is over the limit.
    TooLarge = 7, "too-large", FixRequest;
    /// The two sides share no protocol version.
    VersionMismatch = 8, "version-mismatch", AskOperator;
    /// The peer belongs to another cluster.
    WrongCluster = 9, "wrong-cluster", AskOperator;

    /// This metadata server is not the leader.
    NotLeader = 20, "not-leader", FindLeader;
    /// The cluster has not been founded.
    NotBootstrapped = 21, "not-bootstrapped", AskOperator;
    /// The cluster has been founded already.
    AlreadyBootstrapped = 22, "already-bootstrapped", FixRequest;
    /// A command id older than a grant lives.
    CommandExpired = 23, "command-expired", FixRequest;
    /// A change of membership is under way, or cannot be made.
    MembershipRefused = 24, "membership-refused", FixRequest;

    /// No such tenant.
    NoSuchTenant = 30, "no-such-tenant", FixRequest;
    /// No such bucket.
    NoSuchBucket = 31, "no-such-bucket", FixRequest;
    /// No object under this key.
    NoSuchObject = 32, "no-such-object", FixRequest;
    /// No such profile.
    NoSuchProfile = 33, "no-such-profile", FixRequest;
    /// It exists with other properties.
    AlreadyExists = 34, "already-exists", FixRequest;
    /// The precondition of a put or delete does not hold.
    PreconditionFailed = 35, "precondition-failed", FixRequest;
    /// The topology cannot keep the profile's promise; the message names what is missing.
    NoLegalPlace = 36, "no-legal-place", AskOperator;
    /// No such node, or an older incarnation of it.
    StaleNode = 37, "stale-node", AskOperator;
    /// Too many disks are full for a put; deletes still work.
    ClusterFull = 38, "cluster-full", AskOperator;

    /// The group's slots have changed since the caller learned of them.
    StaleEpoch = 50, "stale-epoch", RefreshMap;
    /// The node does not know this group or disk.
    NotMine = 51, "not-mine", RefreshMap;
    /// The disk has no such shard.
    NoSuchShard = 52, "no-such-shard", GoElsewhere;
    /// The shard's bytes do not match their checksum.
    DamagedShard = 53, "damaged-shard", GoElsewhere;
    /// Another shard stands under this name already.
    ShardConflict = 54, "shard-conflict", FixRequest;
    /// The disk is full; deletes still work.
    DiskFull = 55, "disk-full", GoElsewhere;
    /// The disk fails.
    DiskFailed = 56, "disk-failed", GoElsewhere;
    /// Payload and its checksums disagree: damaged on the way.
    ChecksumMismatch = 57, "checksum-mismatch", Retry;
}

/// A request failed, and why: what a server answers and what a caller gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which error.
    pub code: ErrorCode,
    /// What failed and where, for people.
    pub message: String,
    /// What a program needs besides the code.
    pub detail: Detail,
}

/// What comes with some codes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Nothing.
    #[default]
    None,
    /// With [`ErrorCode::NotLeader`]: where the leader is.
    Leader {
        /// Its id.
        id: crate::id::MetaId,
        /// Its address.
        address: String,
    },
    /// With [`ErrorCode::StaleEpoch`]: the epoch that the answering side knows.
    Epoch(crate::id::Epoch),
}

impl Failure {
    /// A failure without detail.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: Detail::None }
    }

    /// The same with `detail`.
    #[must_use]
    pub fn with(self, detail: Detail) -> Self {
        Self { detail, ..self }
    }

    /// What the caller may do.
    pub fn remedy(&self) -> Remedy {
        self.code.remedy()
    }

    /// As it goes over the wire.
    pub fn to_wire(&self) -> crate::wire::Failure {
        let mut wire = crate::wire::Failure {
            code: self.code.number(),
            message: self.message.clone(),
            ..Default::default()
        };
        match &self.detail {
            Detail::None => {}
            Detail::Leader { id, address } => {
                wire.leader_id = id.0;
                wire.leader_address.clone_from(address);
            }
            Detail::Epoch(epoch) => wire.epoch = epoch.0,
        }
        wire
    }

    /// From the wire.
    pub fn from_wire(wire: crate::wire::Failure) -> Self {
        let code = ErrorCode::from_number(wire.code);
        let detail = match code {
            ErrorCode::NotLeader if wire.leader_id != 0 => {
                Detail::Leader { id: crate::id::MetaId(wire.leader_id), address: wire.leader_address }
            }
            ErrorCode::StaleEpoch => Detail::Epoch(crate::id::Epoch(wire.epoch)),
            _ => Detail::None,
        };
        Self { code, message: wire.message, detail }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code.name())
    }
}

impl std::error::Error for Failure {}

impl From<InvalidInput> for Failure {
    fn from(error: InvalidInput) -> Self {
        Self::new(ErrorCode::InvalidRequest, error.to_string())
    }
}

/// Something from outside breaks a rule; the text says which, and what is expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidInput(String);

impl InvalidInput {
    /// With the sentence for the person or peer who sent it.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes survive the wire, and an unknown one does not break an old reader.
    #[test]
    fn codes_round_trip() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), *code);
        }
        assert_eq!(ErrorCode::from_number(u32::MAX), ErrorCode::Internal);
    }

    /// The page for people has a line for each code.
    #[test]
    fn codes_are_documented() {
        let page = include_str!("../../docs/errors.md");
        for code in ErrorCode::ALL {
            let line = format!("| {} | `{}` |", code.number(), code.name());
            assert!(page.contains(&line), "docs/errors.md has no line that begins {line}");
        }
    }

    /// Details survive the wire.
    #[test]
    fn failures_round_trip() {
        for failure in [
            Failure::new(ErrorCode::DiskFull, "disk 3 is full"),
            Failure::new(ErrorCode::StaleEpoch, "x").with(Detail::Epoch(crate::id::Epoch(7))),
            Failure::new(ErrorCode::NotLeader, "x")
                .with(Detail::Leader { id: crate::id::MetaId(2), address: "[::1]:7000".into() }),
        ] {
            assert_eq!(Failure::from_wire(failure.to_wire()), failure);
        }
    }
}
