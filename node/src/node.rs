//! What the parts of one node share.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use env::rpc::{CallError, Caller, Leader, Local, Reply};
use env::{Clock, Env, Monotonic, Rng, Spawn};
use proto::wire::request::Call;
use proto::wire::response::Result as Outcome;
use proto::{DiskId, ErrorCode, Failure, GroupId, Incarnation, ShardName, wire};
use tokio::sync::{Notify, oneshot};
use tracing::warn;

use crate::aside::Aside;
use crate::budget::Budget;
use crate::coalesce::Coalesced;
use crate::damage::{Loss, LostQueue};
use crate::disks::DiskSet;
use crate::keyed::KeyedLocks;
use crate::options::Options;
use crate::pace::{Meter, Pacer};
use crate::resume::Resume;
use crate::store::StoreError;
use crate::verified::Verified;
use crate::view::{NodeMap, Placement};

/// Groups without room that the node tells of one disk at a time.
const GROUPS_WITHOUT_ROOM_MAX: usize = 64;
/// How long the node waits for an answer of the metadata service.
pub(crate) const META_TIMEOUT: Duration = Duration::from_secs(5);
/// Least time between two refreshes of the node map, whoever asks for them.
const REFRESH_PAUSE: Duration = Duration::from_millis(50);
/// Requests that may wait for memory.
const WAITERS_MAX: usize = 1024;

/// The state of a node.
pub(crate) struct Node<E: Env> {
    pub(crate) env: E,
    pub(crate) options: Options,
    /// `host:port` under which peers reach this node.
    pub(crate) advertised: String,
    pub(crate) local: Local,
    pub(crate) leader: Leader<E>,
    pub(crate) disks: DiskSet<E>,
    /// Payloads of writes, of reads, and shards that are being made.
    pub(crate) writes: Budget,
    pub(crate) reads: Budget,
    pub(crate) repairs: Budget,
    /// Held while shards of a group are dropped or made, so that what was dropped does not come back
    /// by a repair that knew its extent from before.
    pub(crate) groups: KeyedLocks<GroupId>,
    pub(crate) lost: LostQueue,
    /// How fast lost shards may be made again, and slots copied that move.
    pub(crate) repair_pace: Pacer,
    pub(crate) move_pace: Pacer,
    /// How fast they are.
    pub(crate) made: Meter,
    pub(crate) aside: Aside,
    /// Where rebuilds go on that broke off.
    pub(crate) resume: Resume,
    pub(crate) verified: Verified,
    /// Where work keeps failing since a disk has no room for what it should make.
    without_room: Mutex<BTreeSet<(DiskId, GroupId)>>,
    /// Rung when the metadata service has work.
    pub(crate) work: Notify,
    map: Mutex<Arc<NodeMap>>,
    refresh: Coalesced,
    refreshed: Mutex<Option<Monotonic>>,
    incarnation: AtomicU64,
    registered: AtomicBool,
    catch_up_ms: AtomicU64,
}

impl<E: Env> Node<E> {
    pub(crate) fn new(env: E, options: Options, advertised: String) -> Self {
        let local = Local::new();
        let caller = Caller::new(env.clone(), local.clone());
        let budget = |bytes: u64| Budget::new(u32::try_from(bytes).unwrap_or(u32::MAX), WAITERS_MAX);
        Self {
            leader: Leader::new(caller, options.metas.clone()),
            disks: DiskSet::new(options.disks.clone()),
            writes: budget(options.payload_bytes_in_flight.0),
            reads: budget(options.payload_bytes_in_flight.0),
            repairs: budget(options.repair_bytes_in_flight.0),
            groups: KeyedLocks::new(),
            lost: LostQueue::default(),
            repair_pace: Pacer::default(),
            move_pace: Pacer::default(),
            made: Meter::default(),
            aside: Aside::default(),
            resume: Resume::default(),
            verified: Verified::default(),
            without_room: Mutex::default(),
            work: Notify::new(),
            map: Mutex::default(),
            refresh: Coalesced::default(),
            refreshed: Mutex::default(),
            incarnation: AtomicU64::new(env.clock().wall().as_millis()),
            registered: AtomicBool::new(false),
            catch_up_ms: AtomicU64::new(1_000),
            env,
            options,
            advertised,
            local,
        }
    }

    /// The node map as last heard.
    pub(crate) fn map(&self) -> Arc<NodeMap> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The group as last heard.
    pub(crate) fn placement(&self, group: GroupId) -> Option<Placement> {
        self.map().groups.get(&group).cloned()
    }

    /// Asks for the node map; returns when one is known that is no older than this call.
    ///
    /// # Errors
    ///
    /// When the metadata service does not answer.
    pub(crate) async fn refresh_map(&self) -> Result<(), Failure> {
        self.refresh.run(|| self.fetch_map()).await
    }

    async fn fetch_map(&self) -> Result<(), Failure> {
        // Peers can make a node ask; they cannot make it ask without a pause.
        let before = *self.refreshed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = before {
            self.env.clock().sleep_until(before.after(REFRESH_PAUSE)).await;
        }
        *self.refreshed.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.env.clock().now());
        let call = Call::GetNodeMap(wire::GetNodeMap { node: self.options.id.0 });
        let Outcome::GetNodeMap(reply) = self.ask_meta(call).await?.result else {
            return Err(unexpected("get-node-map"));
        };
        let map = NodeMap::parse(reply)?;
        let mut known = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if map.version >= known.version {
            *known = Arc::new(map);
        }
        Ok(())
    }

    /// Asks the leader of the metadata service.
    ///
    /// # Errors
    ///
    /// What it refused, or `Unavailable` when it cannot be reached.
    pub(crate) async fn ask_meta(&self, call: Call) -> Result<Reply, Failure> {
        self.leader.call(call, META_TIMEOUT).await.map_err(to_failure)
    }

    /// Tells this process from those before it under the same id. It is the wall clock at the start, or
    /// cluster time if that is later, and more when the metadata service has seen a later one: nothing of
    /// it needs to be kept on a disk.
    pub(crate) fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation.load(Ordering::SeqCst))
    }

    /// A process before had a later incarnation, since its clock was ahead: goes past it, by longer
    /// steps each time. A process that was registered once never does that, for then the later one
    /// runs beside it.
    pub(crate) fn pass_predecessor(&self) {
        if !self.registered.load(Ordering::SeqCst) {
            let step_ms = self.catch_up_ms.load(Ordering::SeqCst);
            self.catch_up_ms.store(step_ms.saturating_mul(2), Ordering::SeqCst);
            self.raise_incarnation(self.incarnation().0.saturating_add(step_ms));
        }
    }

    /// The metadata service knows this process.
    pub(crate) fn set_registered(&self) {
        self.registered.store(true, Ordering::SeqCst);
    }

    /// The incarnation is at least `least_ms` from now on.
    pub(crate) fn raise_incarnation(&self, least_ms: u64) {
        self.incarnation.fetch_max(least_ms, Ordering::SeqCst);
    }

    /// Remembers a shard that should be whole and is not, so that it gets made again.
    pub(crate) fn note_lost(&self, disk: DiskId, shard: &ShardName, error: &StoreError) {
        let should_be_there = || {
            let map = self.map();
            let place = map.groups.get(&shard.group).and_then(|group| group.place(shard.slot));
            place.is_some_and(|place| place.at.disk == disk && !place.rebuilding)
        };
        let loss = match error {
            StoreError::Damaged { .. } => Some(Loss::Damaged),
            // The metadata service ignores extents that were deleted or never committed.
            StoreError::NoSuchShard(_) => Some(Loss::Absent).filter(|_| should_be_there()),
            _ => None,
        };
        if loss.is_some_and(|loss| !self.lost.push(disk, shard, loss)) {
            warn!(%shard, "too many lost shards wait for being reported");
        }
    }

    /// What the node knows of a disk beyond what the disk itself tells.
    pub(crate) fn complete_report(&self, report: &mut wire::DiskReport) {
        let disk = DiskId(report.disk);
        let groups = self.groups_without_room(disk);
        report.groups_without_room = groups.into_iter().map(|group| group.0).collect();
        report.made_bytes_per_s = self.made.bytes_per_s(disk, self.env.clock().now());
        let known = self.verified.of(disk, &self.map().groups_on(disk));
        report.verified_since_ms = known.since.as_millis();
        report.groups_unverified = u32::try_from(known.unverified).unwrap_or(u32::MAX);
        report.audit_period_s = self.options.audit_period.as_secs();
        (report.set_aside, report.set_aside_total) = self.aside.report(disk);
    }

    /// Remembers where work keeps failing for lack of room.
    pub(crate) fn set_without_room(&self, places: BTreeSet<(DiskId, GroupId)>) {
        *self.without_room.lock().unwrap_or_else(PoisonError::into_inner) = places;
    }

    /// Groups of which the disk has no room for what it should make.
    pub(crate) fn groups_without_room(&self, disk: DiskId) -> Vec<GroupId> {
        let places = self.without_room.lock().unwrap_or_else(PoisonError::into_inner);
        let of_disk = places.range((disk, GroupId(0))..=(disk, GroupId(u32::MAX)));
        of_disk.take(GROUPS_WITHOUT_ROOM_MAX).map(|(_, group)| *group).collect()
    }

    /// A pause that grows with the number of failures, from 100 ms to about 5 s, never the same twice.
    pub(crate) async fn back_off(&self, failures: u32) {
        let whole_ms = (100_u64 << failures.min(6)).min(5_000);
        let pause_ms = whole_ms / 2 + self.env.rng().below(whole_ms / 2 + 1);
        self.env.clock().sleep(Duration::from_millis(pause_ms)).await;
    }

    /// Runs `work` to its end in a task of its own, even when the caller is dropped meanwhile.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the host dies.
    pub(crate) async fn finish<T, F>(&self, name: &'static str, work: F) -> Result<T, Failure>
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let (send, receive) = oneshot::channel();
        let task = async move {
            // Nobody waits any more: the work is done all the same.
            let _ = send.send(work.await);
        };
        self.env.spawn().spawn(name, task);
        receive.await.map_err(|_| Failure::new(ErrorCode::Unavailable, "the node is stopping"))
    }
}

/// An error of a call, for those who asked this node.
pub(crate) fn to_failure(error: CallError) -> Failure {
    match error {
        CallError::Failed(failure) => failure,
        other => Failure::new(ErrorCode::Unavailable, other.to_string()),
    }
}

/// A peer answered something else than it was asked for.
pub(crate) fn unexpected(call: &str) -> Failure {
    Failure::new(ErrorCode::Internal, format!("{call} was answered by another reply"))
}
