//! openraft's types, as this crate configures them.

use std::fmt;

use bytes::Bytes;
use openraft::rt::deterministic_rng::DeterministicRng;
use openraft::type_config::alias;
use proto::prost::Message;
use proto::wire;

use super::runtime::HostRuntime;

/// A metadata server, as Raft's membership knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftPeer {
    /// `host:port`.
    pub address: String,
}

impl fmt::Display for RaftPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// A [`wire::Command`], encoded once and carried as bytes from proposal to apply.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal(pub Bytes);

impl Proposal {
    /// Encodes a command.
    pub fn new(command: &wire::Command) -> Self {
        Self(command.encode_to_vec().into())
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({} bytes)", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What `apply` answered to the proposer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied(pub wire::Outcome);

openraft::declare_raft_types!(
    /// What openraft is told about this crate. Tasks and time are the host's, randomness comes from a
    /// seed, so that the simulator decides them.
    pub TypeConfig:
        D = Proposal,
        R = Applied,
        NodeId = u64,
        Node = RaftPeer,
        // Of the two kinds that openraft has, the one that lets a term have one leader at most.
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = DeterministicRng<HostRuntime>,
);

/// Term and index of an entry.
pub type LogId = alias::LogIdOf<TypeConfig>;
/// Who may lead in which term.
pub type Vote = alias::VoteOf<TypeConfig>;
/// The candidate or leader of a term, as a vote names it.
pub type LeaderId = alias::LeaderIdOf<TypeConfig>;
/// The leader of a term, as entries name it: by its term.
pub type CommittedLeaderId = alias::CommittedLeaderIdOf<TypeConfig>;
/// An entry of the log.
pub type Entry = alias::EntryOf<TypeConfig>;
/// Voters and learners.
pub type Membership = openraft::Membership<u64, RaftPeer>;
/// A membership and the entry that brought it.
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
/// Up to where a snapshot goes.
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
