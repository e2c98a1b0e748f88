//! The way in, and what all operations share.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use env::rpc::{CallError, Caller, Leader, Local};
use env::{Clock, Env, NetError, Rng};
use proto::wire::request::Call;
use proto::wire::response::Result as Outcome;
use proto::{ClusterId, CommandId, ErrorCode, ExtentId, GroupId, InvalidInput, TenantName, Timestamp};
use proto::{identity, limits, wire};

use crate::admin::Admin;
use crate::error::Error;
use crate::get::Latencies;
use crate::group::{Group, Place};
use crate::suspects::Suspects;
use crate::tenant::Tenant;

/// How to reach a cluster, and how patient to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses of metadata servers (`host:port`); one that answers is enough.
    pub metas: Vec<String>,
    /// Limit of an operation that does not set its own: of the whole for short ones, of the time in
    /// which nothing moves for puts and gets. More than [`limits::TIMEOUT_MS_MAX`] is taken as that.
    pub timeout: Duration,
    /// How long a put waits for the last disks of a stripe once `k` of them have their shards durable;
    /// then it goes elsewhere, or on without them.
    pub shard_timeout: Duration,
}

impl Options {
    /// With a timeout of 30 s, and 4 s for a shard.
    pub fn new(metas: Vec<String>) -> Self {
        Self { metas, timeout: Duration::from_secs(30), shard_timeout: Duration::from_secs(4) }
    }
}

/// A cluster that answered. Clones are the same: they share connections, and what was learned of
/// slow and dead places.
pub struct Cluster<E: Env> {
    pub(crate) shared: Arc<Shared<E>>,
}

impl<E: Env> Clone for Cluster<E> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<E: Env> fmt::Debug for Cluster<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl<E: Env> Cluster<E> {
    /// Asks the metadata servers who they are, and keeps to that cluster from then on. One that was
    /// not founded yet is fine too: [`Admin::bootstrap`] founds it.
    ///
    /// # Errors
    ///
    /// When no address is given, none answers within `options.timeout`, or none will talk to us.
    pub async fn connect(env: E, options: Options) -> Result<Self, Error> {
        if options.metas.is_empty() {
            return Err(InvalidInput::new("no metadata server is given").into());
        }
        let local = Local::new();
        let leader = Leader::new(Caller::new(env.clone(), local.clone()), options.metas.clone());
        let shared =
            Shared { env, local, leader, options, suspects: Mutex::default(), latencies: Mutex::default() };
        match shared.cluster_info().await {
            Ok(_) => {}
            Err(error) if error.code() == Some(ErrorCode::NotBootstrapped) => {}
            Err(error) => return Err(error),
        }
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Its id; none when it was not founded at the time of `connect`.
    pub fn id(&self) -> Option<ClusterId> {
        self.shared.local.cluster()
    }

    /// Cluster time, as far as it is known here.
    pub fn now(&self) -> Timestamp {
        self.shared.leader.cluster_now()
    }

    /// Work for a tenant. Nothing is sent.
    pub fn tenant(&self, name: TenantName) -> Tenant<E> {
        Tenant::new(self.clone(), name)
    }

    /// Work for operators. Nothing is sent.
    pub fn admin(&self) -> Admin<E> {
        Admin::new(self.clone())
    }
}

/// What all operations on a cluster share.
pub(crate) struct Shared<E: Env> {
    pub(crate) env: E,
    pub(crate) local: Local,
    pub(crate) leader: Leader<E>,
    pub(crate) options: Options,
    suspects: Mutex<Suspects>,
    latencies: Mutex<Latencies>,
}

/// Asks the metadata service, and takes the answer of the same name.
macro_rules! ask {
    ($shared:expr, $timeout:expr, $name:ident($message:expr)) => {
        $shared
            .ask(::proto::wire::request::Call::$name($message), $timeout, |outcome| match outcome {
                ::proto::wire::response::Result::$name(reply) => Some(reply),
                _ => None,
            })
            .await
    };
}
pub(crate) use ask;

impl<E: Env> Shared<E> {
    /// Use [`ask!`].
    pub(crate) async fn ask<T>(
        &self,
        call: Call,
        timeout: Duration,
        pick: fn(Outcome) -> Option<T>,
    ) -> Result<T, Error> {
        let name = identity::rule(&call).name;
        let reply = self.leader.call(call, timeout).await?;
        pick(reply.result).ok_or_else(|| Error::odd_reply(name))
    }

    /// Who they are; this process belongs to their cluster from then on.
    pub(crate) async fn cluster_info(&self) -> Result<wire::ClusterInfoReply, Error> {
        let info = ask!(self, self.options.timeout, ClusterInfo(wire::ClusterInfo {}))?;
        if !info.cluster_id.is_empty() {
            let cluster = ClusterId::from_wire(&info.cluster_id)?;
            self.local.join(cluster).map_err(Error::Refused)?;
        }
        Ok(info)
    }

    /// Where the group's slots are now.
    pub(crate) async fn placement(&self, group: GroupId, timeout: Duration) -> Result<Group, Error> {
        let reply = ask!(self, timeout, GetPlacement(wire::GetPlacement { group: group.0 }))?;
        let placement = reply.placement.ok_or_else(|| Error::odd_reply("get-placement"))?;
        Ok(Group::parse(placement)?)
    }

    /// The limit of an operation: what it asks for, or the default; never more than a peer accepts.
    pub(crate) fn limit(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or(self.options.timeout).min(Duration::from_millis(limits::TIMEOUT_MS_MAX))
    }

    pub(crate) fn command_id(&self) -> CommandId {
        CommandId::new(self.leader.cluster_now(), self.env.rng().u128())
    }

    pub(crate) fn extent_id(&self, granted: Timestamp) -> ExtentId {
        ExtentId::new(granted, self.env.rng().u128())
    }

    pub(crate) fn is_suspect(&self, place: &Place) -> bool {
        let now = self.env.clock().now();
        self.suspects().suspect(place, now)
    }

    pub(crate) fn has_failed(&self, place: &Place) -> bool {
        let now = self.env.clock().now();
        self.suspects().failed(place, now)
    }

    pub(crate) fn failed_disks(&self) -> Vec<u32> {
        let now = self.env.clock().now();
        self.suspects().failed_disks(now)
    }

    /// Remembers what a failed call says of the place.
    pub(crate) fn note_failure(&self, place: &Place, error: &CallError) {
        let now = self.env.clock().now();
        match error {
            CallError::Net { error: NetError::Reset, .. } => self.suspects().disk_slow(place.disk, now),
            CallError::Net { .. } | CallError::TimedOut { .. } => {
                let mut suspects = self.suspects();
                suspects.disk_failed(place.disk, now);
                suspects.address_failed(&place.address, now);
            }
            CallError::Failed(failure) => match failure.code {
                ErrorCode::DiskFull | ErrorCode::DiskFailed => self.suspects().disk_failed(place.disk, now),
                ErrorCode::Overloaded | ErrorCode::Unavailable | ErrorCode::DeadlineExceeded => {
                    self.suspects().disk_slow(place.disk, now);
                }
                _ => {}
            },
        }
    }

    pub(crate) fn note_slow(&self, place: &Place) {
        let now = self.env.clock().now();
        self.suspects().disk_slow(place.disk, now);
    }

    pub(crate) fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspects(&self) -> MutexGuard<'_, Suspects> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
