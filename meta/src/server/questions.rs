//! Requests that are answered from the state, by the leader, with all that was committed before.

use std::collections::BTreeSet;

use env::{Clock, Env, KvRead, Rng};
use proto::wire::command::Action;
use proto::wire::request::Call;
use proto::wire::response::Result as Reply;
use proto::{DiskId, ErrorCode, Failure, Incarnation, NodeId, wire};

use super::service::{Shared, failed};
use crate::options::Throttle;
use crate::pace::throttle_of;
use crate::state::open::{OpenOptions, Opened, open_put};
use crate::state::{Error, Machine, list, query, take};

/// Substitute groups formed at a time, so that writers spread.
const SUBSTITUTES: u32 = 8;

impl<E: Env> Shared<E> {
    pub(super) async fn ask(&self, question: Call) -> Result<Reply, Failure> {
        match question {
            // Not through Raft: a heartbeat says nothing about the state.
            Call::Heartbeat(request) => self.heartbeat(request).map(Reply::Heartbeat),
            Call::OpenPut(request) => self.open_put(&request).await.map(Reply::OpenPut),
            question => {
                if let Call::ListGroupExtents(list) = &question {
                    self.reach(list.not_before_ms).await?;
                }
                self.node.linearize().await?;
                let answered = self.node.replica().read(|machine, kv| answer(machine, kv, &question));
                match answered.map_err(failed)? {
                    Reply::GetObject(mut reply) if !matches!(&question, Call::GetObject(get) if get.head) => {
                        reply.tolerance.get_or_insert_with(|| self.node.withstands());
                        Ok(Reply::GetObject(reply))
                    }
                    reply => Ok(reply),
                }
            }
        }
    }

    /// Moves cluster time on to the leader's clock, if that takes it to `wanted_ms`: while nothing else is
    /// committed it stands still.
    async fn reach(&self, wanted_ms: u64) -> Result<(), Failure> {
        let reached_ms = self.node.replica().read(|machine, _| machine.cluster_time()).as_millis();
        if reached_ms < wanted_ms && wanted_ms <= self.env.clock().wall().as_millis() {
            self.propose(Action::Tick(wire::Tick {})).await?;
        }
        Ok(())
    }

    fn heartbeat(&self, beat: wire::Heartbeat) -> Result<wire::HeartbeatReply, Failure> {
        let standing = self.node.standing();
        if !standing.leads {
            return Err(self.node.not_leader_now());
        }
        let (node, incarnation) = (NodeId(beat.node), Incarnation(beat.incarnation));
        let now = self.env.clock().now();
        self.node.replica().read(|machine, _| {
            let mut watch = self.watch(standing.term);
            watch.liveness.heard(machine.map(), node, incarnation, now, beat.disks)?;
            let Throttle { repair_bytes_per_s, move_bytes_per_s } =
                throttle_of(machine, node, &self.options.throttle);
            Ok(wire::HeartbeatReply {
                map_version: machine.map().version(),
                work: take::has_work(machine, node),
                repair_bytes_per_s,
                move_bytes_per_s,
            })
        })
    }

    async fn open_put(&self, request: &wire::OpenPut) -> Result<wire::OpenPutReply, Failure> {
        self.node.linearize().await?;
        let term = self.node.standing().term;
        let full_percent = self.options.fullness.full_percent;
        let full_disks: BTreeSet<DiskId> = self.watch(term).liveness.full_disks(full_percent).collect();
        let mut tried = BTreeSet::new();
        // Each turn but the last tries one profile more, and an object has two at most.
        loop {
            let (spread, now) = (self.env.rng().u64(), self.env.clock().wall());
            let options = OpenOptions { spread, now, tried: &tried, full_disks: &full_disks };
            let opened = self.node.replica().read(|machine, _| open_put(machine, request, options));
            let profile = match opened.map_err(failed)? {
                Opened::Granted(reply) => return Ok(*reply),
                Opened::NeedSubstitutes { profile } => profile,
            };
            let form = wire::FormSubstitutes { profile: profile.0, groups: SUBSTITUTES };
            match self.propose(Action::FormSubstitutes(form)).await {
                Ok(_) => {}
                // None can be formed: what else there is, the next question finds.
                Err(refused) if refused.code == ErrorCode::NoLegalPlace => {}
                Err(failure) => return Err(failure),
            }
            tried.insert(profile);
        }
    }
}

fn answer(machine: &Machine, kv: &impl KvRead, question: &Call) -> Result<Reply, Error> {
    match question {
        Call::GetObject(get) => query::get_object(machine, kv, get).map(Reply::GetObject),
        Call::GetPlacement(get) => query::get_placement(machine, get).map(Reply::GetPlacement),
        Call::ListObjects(list) => list::list_objects(machine, kv, list).map(Reply::ListObjects),
        Call::ListBuckets(list) => query::list_buckets(machine, list).map(Reply::ListBuckets),
        Call::ListTenants(_) => query::list_tenants(machine).map(Reply::ListTenants),
        Call::GetMap(_) => Ok(Reply::GetMap(query::get_map(machine))),
        Call::GetNodeMap(get) => query::get_node_map(machine, NodeId(get.node)).map(Reply::GetNodeMap),
        Call::TakeWork(work) => {
            take::take_work(machine, kv, NodeId(work.node), work.limit).map(Reply::TakeWork)
        }
        Call::ListGroupExtents(list) => {
            query::list_group_extents(machine, kv, list).map(Reply::ListGroupExtents)
        }
        _ => Err(Failure::new(ErrorCode::InvalidRequest, "a metadata server does not answer this").into()),
    }
}
