//! Between openraft's types and the messages of `raft.proto`: the only form in which they lie on
//! disk and go over the wire, so that another version of openraft changes neither.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use proto::prost::Message;
use proto::{InvalidInput, wire};

use super::types::{
    CommittedLeaderId, Entry, LeaderId, LogId, Membership, Proposal, RaftPeer, SnapshotMeta,
    StoredMembership, TypeConfig, Vote,
};

/// Bytes of a message.
pub(crate) fn bytes(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

/// A message from bytes. `what` names it in the error.
///
/// # Errors
///
/// When the bytes are no such message.
pub(crate) fn message<M: Message + Default>(what: &str, bytes: Bytes) -> Result<M, InvalidInput> {
    M::decode(bytes).map_err(|error| InvalidInput::new(format!("{what} cannot be read: {error}")))
}

/// To the wire.
pub fn log_id(id: &LogId) -> wire::LogId {
    wire::LogId { term: id.leader_id.term, index: id.index }
}

/// From the wire.
pub fn parse_log_id(id: &wire::LogId) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(id.term), index: id.index }
}

/// To the wire.
pub fn vote(vote: &Vote) -> wire::Vote {
    wire::Vote { term: vote.leader_id.term, leader: vote.leader_id.voted_for, committed: vote.committed }
}

/// From the wire.
pub fn parse_vote(vote: &wire::Vote) -> Vote {
    Vote { leader_id: LeaderId { term: vote.term, voted_for: vote.leader }, committed: vote.committed }
}

/// From the wire, where it must be.
///
/// # Errors
///
/// When it is absent.
pub fn require_vote(vote: Option<wire::Vote>) -> Result<Vote, InvalidInput> {
    vote.as_ref().map(parse_vote).ok_or_else(|| InvalidInput::new("the message has no vote"))
}

/// To the wire.
pub fn membership(membership: &Membership) -> wire::Membership {
    let configs = membership
        .get_joint_config()
        .iter()
        .map(|ids| wire::VoterSet { ids: ids.iter().copied().collect() })
        .collect();
    let members = membership
        .nodes()
        .map(|(id, peer)| wire::MemberAddress { id: *id, address: peer.address.clone() })
        .collect();
    wire::Membership { configs, members }
}

/// From the wire.
///
/// # Errors
///
/// When a set of voters is empty, or a voter has no address.
pub fn parse_membership(wire: wire::Membership) -> Result<Membership, InvalidInput> {
    let configs: Vec<BTreeSet<u64>> =
        wire.configs.into_iter().map(|set| set.ids.into_iter().collect()).collect();
    let members: BTreeMap<u64, RaftPeer> =
        wire.members.into_iter().map(|member| (member.id, RaftPeer { address: member.address })).collect();
    Membership::new(configs, members).map_err(|error| InvalidInput::new(format!("a membership: {error}")))
}

/// To the wire.
pub fn stored_membership(stored: &StoredMembership) -> wire::StoredMembership {
    wire::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id),
        membership: Some(membership(stored.membership())),
    }
}

/// From the wire.
///
/// # Errors
///
/// As [`parse_membership`].
pub fn parse_stored_membership(wire: wire::StoredMembership) -> Result<StoredMembership, InvalidInput> {
    let membership = parse_membership(wire.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(wire.log_id.as_ref().map(parse_log_id), membership))
}

/// To the wire.
pub fn entry(entry: &Entry) -> wire::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => wire::entry::Payload::Blank(true),
        EntryPayload::Normal(proposal) => wire::entry::Payload::Command(proposal.0.clone()),
        EntryPayload::Membership(change) => wire::entry::Payload::Membership(membership(change)),
    };
    wire::Entry { log_id: Some(log_id(&entry.log_id)), payload: Some(payload) }
}

/// From the wire.
///
/// # Errors
///
/// When it has no id, or a payload that this version does not know.
pub fn parse_entry(wire: wire::Entry) -> Result<Entry, InvalidInput> {
    let log_id =
        wire.log_id.as_ref().map(parse_log_id).ok_or_else(|| InvalidInput::new("an entry has no log id"))?;
    let payload = match wire.payload {
        Some(wire::entry::Payload::Blank(_)) => EntryPayload::Blank,
        Some(wire::entry::Payload::Command(command)) => EntryPayload::Normal(Proposal(command)),
        Some(wire::entry::Payload::Membership(change)) => EntryPayload::Membership(parse_membership(change)?),
        None => return Err(InvalidInput::new("an entry has a payload that this version does not know")),
    };
    Ok(Entry { log_id, payload })
}

/// To the wire.
pub fn vote_request(target: u64, request: &VoteRequest<TypeConfig>, pre_vote: bool) -> wire::RaftVote {
    wire::RaftVote {
        target,
        vote: Some(vote(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id),
        pre_vote,
        leadership_transfer: request.leadership_transfer,
    }
}

/// From the wire.
///
/// # Errors
///
/// When there is no vote in it.
pub fn parse_vote_request(wire: wire::RaftVote) -> Result<VoteRequest<TypeConfig>, InvalidInput> {
    let last_log_id = wire.last_log_id.as_ref().map(parse_log_id);
    let mut request = VoteRequest::new(require_vote(wire.vote)?, last_log_id);
    request.leadership_transfer = wire.leadership_transfer;
    Ok(request)
}

/// To the wire.
pub fn vote_reply(reply: &VoteResponse<TypeConfig>) -> wire::RaftVoteReply {
    wire::RaftVoteReply {
        vote: Some(vote(&reply.vote)),
        granted: reply.vote_granted,
        last_log_id: reply.last_log_id.as_ref().map(log_id),
    }
}

/// From the wire.
///
/// # Errors
///
/// When there is no vote in it.
pub fn parse_vote_reply(wire: wire::RaftVoteReply) -> Result<VoteResponse<TypeConfig>, InvalidInput> {
    let last_log_id = wire.last_log_id.as_ref().map(parse_log_id);
    Ok(VoteResponse::new(require_vote(wire.vote)?, last_log_id, wire.granted))
}

/// To the wire.
pub fn append_request(target: u64, request: &AppendEntriesRequest<TypeConfig>) -> wire::RaftAppend {
    wire::RaftAppend {
        target,
        vote: Some(vote(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id),
        leader_commit: request.leader_commit.as_ref().map(log_id),
        entries: request.entries.iter().map(entry).collect(),
    }
}

/// From the wire.
///
/// # Errors
///
/// When there is no vote in it, an entry is broken, or the entries do not follow one another.
pub fn parse_append_request(
    wire: wire::RaftAppend,
) -> Result<AppendEntriesRequest<TypeConfig>, InvalidInput> {
    let prev_log_id = wire.prev_log_id.as_ref().map(parse_log_id);
    let mut next_index = prev_log_id.as_ref().map_or(Some(0), |id| id.index.checked_add(1));
    let mut entries = Vec::with_capacity(wire.entries.len());
    for entry in wire.entries {
        let entry = parse_entry(entry)?;
        if next_index != Some(entry.log_id.index) {
            return Err(InvalidInput::new(format!(
                "entry {} does not follow the one before",
                entry.log_id.index
            )));
        }
        next_index = entry.log_id.index.checked_add(1);
        entries.push(entry);
    }
    Ok(AppendEntriesRequest {
        vote: require_vote(wire.vote)?,
        prev_log_id,
        entries,
        leader_commit: wire.leader_commit.as_ref().map(parse_log_id),
    })
}

/// To the wire.
pub fn append_reply(reply: &AppendEntriesResponse<TypeConfig>) -> wire::RaftAppendReply {
    use wire::raft_append_reply::Outcome;
    let (outcome, matching, higher) = match reply {
        AppendEntriesResponse::Success => (Outcome::Success, None, None),
        AppendEntriesResponse::PartialSuccess(matching) => (Outcome::Partial, matching.as_ref(), None),
        AppendEntriesResponse::Conflict => (Outcome::Conflict, None, None),
        AppendEntriesResponse::HigherVote(higher) => (Outcome::HigherVote, None, Some(higher)),
    };
    wire::RaftAppendReply { outcome: outcome.into(), matching: matching.map(log_id), vote: higher.map(vote) }
}

/// From the wire.
///
/// # Errors
///
/// When the outcome is unknown, or names no vote where one belongs.
pub fn parse_append_reply(
    wire: wire::RaftAppendReply,
) -> Result<AppendEntriesResponse<TypeConfig>, InvalidInput> {
    use wire::raft_append_reply::Outcome;
    match wire.outcome() {
        Outcome::Success => Ok(AppendEntriesResponse::Success),
        Outcome::Partial => {
            Ok(AppendEntriesResponse::PartialSuccess(wire.matching.as_ref().map(parse_log_id)))
        }
        Outcome::Conflict => Ok(AppendEntriesResponse::Conflict),
        Outcome::HigherVote => Ok(AppendEntriesResponse::HigherVote(require_vote(wire.vote)?)),
        Outcome::Unspecified => Err(InvalidInput::new("an append's outcome is not known to this version")),
    }
}

/// From the wire: up to where an announced snapshot goes.
///
/// # Errors
///
/// As [`parse_membership`].
pub fn parse_snapshot_meta(
    last_log_id: Option<&wire::LogId>,
    membership: Option<wire::StoredMembership>,
) -> Result<SnapshotMeta, InvalidInput> {
    Ok(SnapshotMeta {
        last_log_id: last_log_id.map(parse_log_id),
        last_membership: parse_stored_membership(membership.unwrap_or_default())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId { leader_id: CommittedLeaderId::new(term), index }
    }

    fn peers(addresses: &[(u64, &str)]) -> BTreeMap<u64, RaftPeer> {
        addresses.iter().map(|(id, address)| (*id, RaftPeer { address: (*address).to_owned() })).collect()
    }

    fn samples() -> Vec<(Entry, &'static [u8])> {
        let joint = Membership::new(vec![[1].into(), [1, 2].into()], peers(&[(1, "a:1"), (2, "b:2")]))
            .expect("legal");
        vec![
            (Entry { log_id: id(1, 3), payload: EntryPayload::Blank }, b"\x0a\x04\x08\x01\x18\x03\x10\x01"),
            (
                Entry {
                    log_id: id(1, 300),
                    payload: EntryPayload::Normal(Proposal(Bytes::from_static(b"abc"))),
                },
                b"\x0a\x05\x08\x01\x18\xac\x02\x1a\x03abc",
            ),
            (
                Entry { log_id: id(7, 0), payload: EntryPayload::Membership(joint) },
                b"\x0a\x02\x08\x07\x22\x1d\x0a\x03\x0a\x01\x01\x0a\x04\x0a\x02\x01\x02\
                  \x12\x07\x08\x01\x12\x03a:1\x12\x07\x08\x02\x12\x03b:2",
            ),
        ]
    }

    /// The bytes of an entry never change, and give the entry back.
    #[test]
    fn golden_entries() {
        for (sample, golden) in samples() {
            assert_eq!(bytes(&entry(&sample)).escape_ascii().to_string(), golden.escape_ascii().to_string());
            let read = message("an entry", Bytes::from_static(golden)).and_then(parse_entry);
            assert_eq!(read, Ok(sample));
        }
    }

    /// Entries that name their leader beside its term, as the first servers wrote them, can be read.
    #[test]
    fn leaders_of_entries_are_passed_over() {
        let before = Bytes::from_static(b"\x0a\x06\x08\x01\x10\x02\x18\x03\x10\x01");
        let blank = Entry { log_id: id(1, 3), payload: EntryPayload::Blank };
        assert_eq!(message("an entry", before).and_then(parse_entry), Ok(blank));
    }

    /// The bytes of votes and log ids never change, and give the values back.
    #[test]
    fn golden_votes() {
        let sample = Vote { leader_id: LeaderId { term: 5, voted_for: 3 }, committed: true };
        assert_eq!(&bytes(&vote(&sample))[..], b"\x08\x05\x10\x03\x18\x01");
        assert_eq!(parse_vote(&vote(&sample)), sample);
        assert_eq!(parse_log_id(&log_id(&id(9, 7))), id(9, 7));
    }

    /// The empty membership of a new server survives the disk.
    #[test]
    fn empty_membership_round_trips() {
        let empty = StoredMembership::default();
        assert_eq!(parse_stored_membership(stored_membership(&empty)), Ok(empty));
    }

    /// A voter without address, an empty set of voters and entries with a hole are refused.
    #[test]
    fn broken_messages_are_refused() {
        let voters = |ids: Vec<u64>| wire::Membership {
            configs: vec![wire::VoterSet { ids }],
            members: vec![wire::MemberAddress { id: 1, address: "a:1".into() }],
        };
        assert!(parse_membership(voters(vec![1])).is_ok());
        assert!(parse_membership(voters(vec![1, 2])).is_err());
        assert!(parse_membership(voters(vec![])).is_err());
        let blank = |index| wire::Entry {
            log_id: Some(wire::LogId { term: 1, index }),
            payload: Some(wire::entry::Payload::Blank(true)),
        };
        let append = |entries| wire::RaftAppend {
            vote: Some(wire::Vote { term: 1, leader: 1, committed: true }),
            prev_log_id: Some(wire::LogId { term: 1, index: 4 }),
            entries,
            ..Default::default()
        };
        assert!(parse_append_request(append(vec![blank(5), blank(6)])).is_ok());
        assert!(parse_append_request(append(vec![blank(6)])).is_err());
        assert!(parse_append_request(append(vec![blank(5), blank(7)])).is_err());
        assert!(parse_append_request(wire::RaftAppend::default()).is_err());
    }

    /// Each answer to an append survives the wire.
    #[test]
    fn append_replies_round_trip() {
        let higher = Vote { leader_id: LeaderId { term: 5, voted_for: 3 }, committed: false };
        for reply in [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::PartialSuccess(Some(id(1, 3))),
            AppendEntriesResponse::PartialSuccess(None),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(higher),
        ] {
            assert_eq!(parse_append_reply(append_reply(&reply)), Ok(reply));
        }
    }

    proptest::proptest! {
        /// Random bytes never panic a decoder.
        #[test]
        fn garbage_does_not_panic(garbage: Vec<u8>) {
            let garbage = Bytes::from(garbage);
            let _ = message("entry", garbage.clone()).and_then(parse_entry);
            let _ = message("membership", garbage.clone()).and_then(parse_stored_membership);
            let _ = message("append", garbage.clone()).and_then(parse_append_request);
            let _ = message("reply", garbage.clone()).and_then(parse_append_reply);
            let _ = message("vote", garbage.clone()).and_then(parse_vote_request);
            let _ = message("vote", garbage).and_then(parse_vote_reply);
        }
    }
}
