//! What is said on the wire: told as a story, checked, and rewritten where a planted bug wants it.
//!
//! Requests and replies are decoded as their readers would. Promises are checked here that can be seen
//! only here: what must not be accepted, from whomever it comes ([`rules`]: "fencing", "quorum"); and nobody
//! but the leader of a term appends in it ("raft"). What was told of places is kept ([`places`]), and what was
//! asked for is remembered by [`late`](crate::late) for later.

mod old_work;
pub(crate) mod places;
pub(crate) mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use placement::Duty;
use proto::frame::{self, LENGTH_BYTES};
use proto::identity;
use proto::wire;
use proto::wire::request::Call;
use proto::wire::response::Result as Reply;
use proto::{DiskId, GroupId};
use simhost::net::{Sent, Tap, Verdict};
use simhost::{HostId, Stream};

use crate::checkers::Told;
use crate::cluster::Cluster;
use crate::oracle;
use crate::plants::Mutation;
use crate::probes;
use crate::process::lock;
use crate::verdict::Kind;
use old_work::{OldWork, Spot};
use places::Places;
use rules::{Bit, Done, Fault, Reported};

/// Epochs of groups, as a node was told.
type Epochs = BTreeMap<u32, u64>;

/// The tap of a cluster.
pub struct Wire {
    cluster: Weak<Cluster>,
    state: Mutex<State>,
    told: Told,
}

#[derive(Default)]
struct State {
    asked: BTreeMap<(u64, u64), Asked>,
    knowledge: BTreeMap<HostId, Knowledge>,
    leaders: BTreeMap<u64, u64>,
    places: Places,
    given_up: Arc<GivenUp>,
    done: Done,
    reported: Reported,
    old_work: Option<OldWork>,
    mutation: Option<Mutation>,
    /// Requests that were sent, by name.
    calls: BTreeMap<&'static str, u64>,
}

/// A request whose reply has not been seen.
struct Asked {
    call: Call,
    /// Why it must not be accepted.
    fault: Option<Fault>,
    /// What was given up by then.
    given_up: Arc<GivenUp>,
}

/// Disks that nothing new goes to.
#[derive(Debug, Default)]
pub(crate) struct GivenUp {
    /// For good.
    pub(crate) retired: BTreeSet<u32>,
    /// Those that have failed, and why people said so.
    pub(crate) failed: BTreeMap<u32, String>,
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
    let tap = Wire { cluster: Arc::downgrade(cluster), state: Mutex::default(), told: Told::default() };
    let tap = Arc::new(tap);
    cluster.world.network().set_tap(Some(tap.clone()));
    lock(&cluster.tap).replace(tap);
}

impl Wire {
    /// From now on this rewrites what is said.
    pub fn mutate(&self, mutation: Mutation) {
        lock(&self.state).mutation = Some(mutation);
    }

    /// From now on, and until then, what nodes are given to do is out of date now and then.
    pub(crate) fn make_work_old(&self, draws: Stream, until: Duration) {
        let mut state = lock(&self.state);
        let before = state.old_work.take();
        state.old_work = Some(OldWork::new(draws, until).after(before));
    }

    /// Disks that nothing new goes to, as the metadata say just now.
    pub(crate) fn learn_given_up(&self, given_up: GivenUp) {
        lock(&self.state).given_up = Arc::new(given_up);
    }

    /// Asks about what was told of places.
    pub(crate) fn places<T>(&self, ask: impl FnOnce(&Places) -> T) -> T {
        ask(&lock(&self.state).places)
    }

    /// May a node have reported this as filled or rebuilt under this epoch or a later one?
    pub(crate) fn may_be_reported(&self, bit: &Bit, since: u64) -> bool {
        lock(&self.state).reported.may_have(bit, since)
    }

    /// Requests that were sent so far, by name.
    pub fn calls(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.state).calls.clone()
    }

    fn request(&self, cluster: &Arc<Cluster>, sent: Sent<'_>) -> Verdict {
        let Some(mut request) = parse::<wire::Request>(sent.bytes) else { return Verdict::Pass };
        let Some(mut call) = request.call.take() else { return Verdict::Pass };
        let mut state = lock(&self.state);
        let changed = state.mutation.as_mut().is_some_and(|mutation| mutation.request(&mut call));
        let is_late = cluster.late.is_one_of_us(sent.from);
        let broken = state.note_request(sent, &call, is_late);
        // A stranger only claims it.
        let dropped = if is_late { Vec::new() } else { state.dropped_by(&call) };
        let fault = state.fault_of(sent.to, &call);
        if is_late && fault.is_some() {
            cluster.world.probe("something was asked for that must be refused");
        }
        *state.calls.entry(identity::rule(&call).name).or_insert(0) += 1;
        let name = |host| cluster.world.host_name(Some(host));
        // Places may change while a client commits; how many slots it needs does not.
        let rude = fault.clone().filter(|(checker, _)| *checker == rules::QUORUM && !is_late);
        let given_up = state.given_up.clone();
        state.asked.insert((sent.connection, sent.stream), Asked { call: call.clone(), fault, given_up });
        drop(state);
        if !is_late {
            cluster.late.remember(sent, &call, request.payload_bytes);
        }
        let broken = broken.map(|text| ("raft", text)).or_else(|| still_needed(cluster, &dropped));
        let broken = broken
            .or_else(|| rude.map(|(checker, text)| (checker, format!("{} sent {text}", name(sent.from)))));
        if let Some((checker, text)) = broken {
            cluster.findings.report(&cluster.world, Kind::Correctness, checker, text);
        }
        cluster.world.tell(Some(sent.from), || {
            format!("-> {}: {}", cluster.world.host_name(Some(sent.to)), story_of(&call))
        });
        self.told.request(cluster, sent.from, &call);
        if !changed {
            return Verdict::Pass;
        }
        request.call = Some(call);
        frame::encode(&request).map_or(Verdict::Pass, Verdict::Replace)
    }

    fn reply(&self, cluster: &Arc<Cluster>, sent: Sent<'_>) -> Verdict {
        let Some(mut response) = parse::<wire::Response>(sent.bytes) else { return Verdict::Pass };
        let Some(mut result) = response.result.take() else { return Verdict::Pass };
        let mut state = lock(&self.state);
        let Some(asked) = state.asked.remove(&(sent.connection, sent.stream)) else { return Verdict::Pass };
        let changed =
            state.mutation.as_mut().is_some_and(|mutation| mutation.reply(&asked.call, &mut result));
        let is_old = state.make_old(cluster.world.now(), &asked.call, &mut result);
        if is_old && matches!(result, Reply::TakeWork(_)) {
            cluster.world.probe("a node was asked to drop what it needs");
        }
        let changed = changed || is_old;
        state.note_reply(sent.to, &result);
        let again = state.done.note(&asked.call, &result);
        let broken = asked.fault.clone().filter(|_| is_accepted(&result)).or(again);
        self.told.reply(cluster, sent.from, &asked.call, &result);
        let granted = rules::granted_on_failed(&result, &asked.given_up.failed);
        if state.mutation.is_some() {
            // What follows of the payload may be rewritten too.
            state.asked.insert((sent.connection, sent.stream), asked);
        }
        drop(state);
        if let Some((disk, reason)) = granted.filter(|(disk, reason)| is_still_failed(cluster, *disk, reason))
        {
            let text =
                format!("a put was granted disk {disk} as if it were well, which has failed: {reason}");
            cluster.findings.report(&cluster.world, Kind::Correctness, rules::FENCING, text);
        }
        if let Some((checker, text)) = broken {
            let text = format!("{} accepted {text}", cluster.world.host_name(Some(sent.from)));
            cluster.findings.report(&cluster.world, Kind::Correctness, checker, text);
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

    fn payload(&self, cluster: &Cluster, sent: Sent<'_>) -> Verdict {
        if sent.opener {
            cluster.late.remember_payload(sent);
        }
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
            _ => self.payload(&cluster, sent),
        }
    }
}

impl State {
    /// Remembers what a request says of its sender; what is wrong with it, in words.
    fn note_request(&mut self, sent: Sent<'_>, call: &Call, is_late: bool) -> Option<String> {
        match call {
            Call::ReportWork(report) if !is_late => {
                self.reported.note(report);
                None
            }
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
        match reply {
            Reply::GetNodeMap(map) => {
                map.placements.iter().for_each(|placement| self.places.learn(placement));
                let epochs = map.placements.iter().map(|placement| (placement.group, placement.epoch));
                self.knowledge.entry(to).or_default().told.insert(map.map_version, epochs.collect());
            }
            Reply::OpenPut(open) => {
                open.small_groups
                    .iter()
                    .chain(&open.groups)
                    .for_each(|placement| self.places.learn(placement));
            }
            _ => {}
        }
    }

    /// Why a request must not be accepted, as far as is known now.
    fn fault_of(&self, to: HostId, call: &Call) -> Option<Fault> {
        match call {
            Call::WriteShard(write) => {
                let group = write.shard.as_ref()?.group;
                let known = self.knowledge.get(&to);
                let fence = known.and_then(|knowledge| knowledge.known.get(&group).copied());
                rules::of_write(write, fence, &self.places)
            }
            Call::CommitObject(commit) => rules::of_commit(commit, &self.places, &self.given_up.retired),
            _ => None,
        }
    }

    /// Slots that were dropped on the word of work that was out of date.
    fn dropped_by(&self, call: &Call) -> Vec<(Spot, u64)> {
        match (call, &self.old_work) {
            (Call::ReportWork(report), Some(old)) => old.done(report),
            _ => Vec::new(),
        }
    }

    fn make_old(&mut self, now: Duration, asked: &Call, reply: &mut Reply) -> bool {
        let Self { old_work, places, .. } = self;
        old_work.as_mut().is_some_and(|old| old.rewrite(now, places, asked, reply))
    }
}

/// Was it carried out now? What had been before may be answered again.
fn is_accepted(reply: &Reply) -> bool {
    match reply {
        Reply::WriteShard(_) => true,
        Reply::CommitObject(done) => !done.repeated,
        _ => false,
    }
}

/// Do people still say so, and for the same reason?
fn is_still_failed(cluster: &Cluster, disk: u32, reason: &str) -> bool {
    let Some(metadata) = oracle::latest(cluster) else { return false };
    let known = metadata.machine.map().disks().get(&DiskId(disk));
    known.is_some_and(|disk| disk.duty == Duty::Failed && disk.duty_reason == reason)
}

/// A node says that it dropped these slots. Was one of them its own all the time?
fn still_needed(cluster: &Cluster, dropped: &[(Spot, u64)]) -> Option<Fault> {
    let metadata = if dropped.is_empty() { None } else { oracle::latest(cluster) }?;
    dropped.iter().find_map(|((group, slot, disk), since)| {
        let found = metadata.machine.map().groups().get(&GroupId(*group))?;
        let at = found.slots.get(usize::try_from(*slot).ok()?)?;
        (at.disk.0 == *disk && at.since_epoch.0 == *since).then(|| {
            let text = format!("slot {slot} of group {group} was dropped from disk {disk}, which has had it since epoch {since}");
            (rules::FENCING, text)
        })
    })
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
