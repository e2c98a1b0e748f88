//! What is said on the wire: told as a story, checked, and rewritten where a planted bug wants it.
//!
//! Requests and replies are decoded as their readers would. Promises are checked here that can be seen
//! only here: a node acknowledges no write under an older epoch than the one it knows, and the metadata
//! service no commit that takes a slot for filled which moved after the commit's epoch ("fencing"); nobody
//! but the leader of a term appends in it ("raft").

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use proto::frame::{self, LENGTH_BYTES};
use proto::identity;
use proto::wire;
use proto::wire::request::Call;
use proto::wire::response::Result as Reply;
use simhost::HostId;
use simhost::net::{Sent, Tap, Verdict};

use crate::cluster::Cluster;
use crate::plants::Mutation;
use crate::probes;
use crate::process::lock;
use crate::verdict::Kind;

/// Epochs of groups, as a node was told.
type Epochs = BTreeMap<u32, u64>;

/// The tap of a cluster.
pub struct Wire {
    cluster: Weak<Cluster>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    asked: BTreeMap<(u64, u64), Asked>,
    knowledge: BTreeMap<HostId, Knowledge>,
    leaders: BTreeMap<u64, u64>,
    /// Since which epoch each slot of a group is where it is, as anybody was told.
    since: BTreeMap<(u32, usize), u64>,
    mutation: Option<Mutation>,
}

/// A request whose reply has not been seen.
struct Asked {
    call: Call,
    /// The epoch that the node knew for sure when a write was sent to it.
    fence: Option<u64>,
    /// What a commit passes over though it was known when the commit was sent.
    passed_over: Option<String>,
}

/// What a node knows for sure.
#[derive(Default)]
struct Knowledge {
    /// Maps that were sent to it, by version.
    told: BTreeMap<u64, Epochs>,
    /// The map that it said it has.
    known: Epochs,
}

/// Installs the tap of a cluster.
pub fn install(cluster: &Arc<Cluster>) {
    let tap = Wire { cluster: Arc::downgrade(cluster), state: Mutex::default() };
    let tap = Arc::new(tap);
    cluster.world.network().set_tap(Some(tap.clone()));
    lock(&cluster.tap).replace(tap);
}

impl Wire {
    /// From now on this rewrites what is said.
    pub fn mutate(&self, mutation: Mutation) {
        lock(&self.state).mutation = Some(mutation);
    }

    fn request(&self, cluster: &Cluster, sent: Sent<'_>) -> Verdict {
        let Some(mut request) = parse::<wire::Request>(sent.bytes) else { return Verdict::Pass };
        let Some(mut call) = request.call.take() else { return Verdict::Pass };
        let mut state = lock(&self.state);
        let changed = state.mutation.as_mut().is_some_and(|mutation| mutation.request(&mut call));
        let broken = state.note_request(sent, &call);
        let fence = state.fence_of(sent.to, &call);
        let passed_over = state.passed_over_by(&call);
        let asked = Asked { call: call.clone(), fence, passed_over };
        state.asked.insert((sent.connection, sent.stream), asked);
        drop(state);
        if let Some(text) = broken {
            cluster.findings.report(&cluster.world, Kind::Correctness, "raft", text);
        }
        cluster.world.tell(Some(sent.from), || {
            format!("-> {}: {}", cluster.world.host_name(Some(sent.to)), story_of(&call))
        });
        if !changed {
            return Verdict::Pass;
        }
        request.call = Some(call);
        frame::encode(&request).map_or(Verdict::Pass, Verdict::Replace)
    }

    fn reply(&self, cluster: &Cluster, sent: Sent<'_>) -> Verdict {
        let Some(mut response) = parse::<wire::Response>(sent.bytes) else { return Verdict::Pass };
        let Some(mut result) = response.result.take() else { return Verdict::Pass };
        let mut state = lock(&self.state);
        let Some(asked) = state.asked.remove(&(sent.connection, sent.stream)) else { return Verdict::Pass };
        let changed =
            state.mutation.as_mut().is_some_and(|mutation| mutation.reply(&asked.call, &mut result));
        state.note_reply(sent.to, &result);
        let broken = unfenced(&asked, &result).or_else(|| committed_too_late(&asked, &result));
        if state.mutation.is_some() {
            // What follows of the payload may be rewritten too.
            state.asked.insert((sent.connection, sent.stream), asked);
        }
        drop(state);
        if let Some(text) = broken {
            let text = format!("{} {text}", cluster.world.host_name(Some(sent.from)));
            cluster.findings.report(&cluster.world, Kind::Correctness, "fencing", text);
        }
        if let Reply::Failure(failure) = &result {
            if let Some(probe) = probes::of_code(failure.code) {
                cluster.world.probe(probe);
            }
            cluster.world.tell(Some(sent.from), || {
                format!(
                    "-> {}: refused, code {}: {}",
                    cluster.world.host_name(Some(sent.to)),
                    failure.code,
                    failure.message
                )
            });
        }
        if !changed {
            return Verdict::Pass;
        }
        response.result = Some(result);
        frame::encode(&response).map_or(Verdict::Pass, Verdict::Replace)
    }

    fn payload(&self, sent: Sent<'_>) -> Verdict {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let asked = state.asked.get(&(sent.connection, sent.stream));
        let (Some(mutation), Some(asked)) = (state.mutation.as_mut(), asked) else { return Verdict::Pass };
        mutation
            .payload(&asked.call, sent.opener, sent.index, sent.bytes)
            .map_or(Verdict::Pass, Verdict::Replace)
    }
}

impl Tap for Wire {
    fn message(&self, sent: Sent<'_>) -> Verdict {
        let Some(cluster) = self.cluster.upgrade() else { return Verdict::Pass };
        match (sent.opener, sent.index) {
            (true, 0) => self.request(&cluster, sent),
            (false, 0) => self.reply(&cluster, sent),
            _ => self.payload(sent),
        }
    }
}

impl State {
    /// Remembers what a request says of its sender; what is wrong with it, in words.
    fn note_request(&mut self, sent: Sent<'_>, call: &Call) -> Option<String> {
        match call {
            Call::RegisterNode(_) => {
                self.knowledge.remove(&sent.from);
                None
            }
            Call::Heartbeat(beat) => {
                let knowledge = self.knowledge.entry(sent.from).or_default();
                if let Some(map) = knowledge.told.get(&beat.map_version) {
                    knowledge.known = map.clone();
                }
                knowledge.told.retain(|version, _| *version >= beat.map_version);
                None
            }
            Call::RaftAppend(append) => {
                let vote = append.vote.as_ref()?;
                let leader = *self.leaders.entry(vote.term).or_insert(vote.leader);
                (leader != vote.leader).then(|| {
                    format!(
                        "term {} has two leaders that append: meta-{leader} and meta-{}",
                        vote.term, vote.leader
                    )
                })
            }
            _ => None,
        }
    }

    fn note_reply(&mut self, to: HostId, reply: &Reply) {
        if let Reply::GetNodeMap(map) = reply {
            for placement in &map.placements {
                for (slot, place) in placement.places.iter().enumerate() {
                    let since = self.since.entry((placement.group, slot)).or_insert(0);
                    *since = place.since_epoch.max(*since);
                }
            }
            let epochs = map.placements.iter().map(|placement| (placement.group, placement.epoch)).collect();
            self.knowledge.entry(to).or_default().told.insert(map.map_version, epochs);
        }
    }

    /// A slot that moved after the epoch of the commit, and that the commit does not name as missing.
    fn passed_over_by(&self, call: &Call) -> Option<String> {
        let Call::CommitObject(commit) = call else { return None };
        commit.extents.iter().find_map(|extent| {
            let slots = self.since.range((extent.group, 0)..(extent.group.saturating_add(1), 0));
            let named = |slot: usize| extent.missing.checked_shr(u32::try_from(slot).unwrap_or(32)).unwrap_or(0) & 1 == 1;
            let mut moved = slots.filter(|((_, slot), since)| **since > extent.epoch && !named(*slot));
            let ((group, slot), since) = moved.next()?;
            Some(format!(
                "a commit under epoch {} of group {group}, whose slot {slot} moved in epoch {since} and is not named as missing",
                extent.epoch
            ))
        })
    }

    fn fence_of(&self, node: HostId, call: &Call) -> Option<u64> {
        let Call::WriteShard(write) = call else { return None };
        let group = write.shard.as_ref()?.group;
        self.knowledge.get(&node)?.known.get(&group).copied()
    }
}

/// A write that should not have been acknowledged.
fn unfenced(asked: &Asked, reply: &Reply) -> Option<String> {
    let (Call::WriteShard(write), Reply::WriteShard(_), Some(fence)) = (&asked.call, reply, asked.fence)
    else {
        return None;
    };
    (write.epoch < fence).then(|| {
        format!(
            "acknowledged a write under epoch {} of a group whose epoch {fence} it knew: {:?}",
            write.epoch, write.shard
        )
    })
}

/// A commit that should have been refused. One that was carried out before the slot moved may be repeated.
fn committed_too_late(asked: &Asked, reply: &Reply) -> Option<String> {
    let Reply::CommitObject(done) = reply else { return None };
    let passed_over = asked.passed_over.as_ref().filter(|_| !done.repeated)?;
    Some(format!("accepted {passed_over}"))
}

fn parse<M: proto::prost::Message + Default>(bytes: &Bytes) -> Option<M> {
    if bytes.len() < LENGTH_BYTES {
        return None;
    }
    frame::decode(bytes.slice(LENGTH_BYTES..)).ok()
}

/// A request in a line.
fn story_of(call: &Call) -> String {
    let name = identity::rule(call).name;
    let shard = |shard: &Option<wire::ShardName>| {
        let name = shard.clone().and_then(|shard| proto::ShardName::try_from(shard).ok());
        name.map_or_else(|| "no shard".to_owned(), |name| name.to_string())
    };
    match call {
        Call::WriteShard(call) => {
            format!("{name} {} to disk {} under epoch {}", shard(&call.shard), call.disk, call.epoch)
        }
        Call::ReadShard(call) => format!("{name} {} from disk {}", shard(&call.shard), call.disk),
        Call::CommitObject(call) => {
            format!("{name} {:?}, {} bytes, extents {:?}", call.key, call.size, call.extents)
        }
        Call::GetObject(call) => format!("{name} {:?}", call.key),
        Call::DeleteObject(call) => format!("{name} {:?}", call.key),
        Call::ReportWork(call) => format!("{name} {call:?}"),
        Call::RaftVote(call) => format!("{name} {:?}, pre-vote {}", call.vote, call.pre_vote),
        Call::RaftAppend(call) => format!(
            "{name} {} entries after {:?}, committed {:?}",
            call.entries.len(),
            call.prev_log_id.as_ref().map(|id| id.index),
            call.leader_commit.as_ref().map(|id| id.index)
        ),
        _ => name.to_owned(),
    }
}
