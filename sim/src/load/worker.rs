//! A worker: one thing after another.

use std::sync::Arc;
use std::time::Duration;

use client::{Bucket, ObjectInfo, Precondition};
use env::{Clock, Env};
use futures_util::future::join_all;
use proto::Version;
use simhost::{SimEnv, Stream};

use super::choice::{Choice, Kind as Do, key_name};
use super::client::Session;
use super::outcome::{self, Ended};
use super::running::{Begun, Limit, What};
use super::verify::check_info;
use super::{INTEGRITY, Workload};
use crate::cluster::Cluster;
use crate::history::{Condition, Key, Op, Outcome, ValueId};
use crate::process::lock;
use crate::verdict::Kind;

/// Failures in a row after which a worker connects anew.
const UNAVAILABLE_MAX: u32 = 4;
/// Rest of a worker to whom nobody answers.
const REST: Duration = Duration::from_millis(500);

/// Was the metadata service there for an operation?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Reached,
    Unavailable,
}

/// A worker of one life of a client. Its stream goes on in the next life.
pub(super) struct Worker {
    pub(super) cluster: Arc<Cluster>,
    pub(super) workload: Arc<Workload>,
    pub(super) session: Arc<Session>,
    pub(super) choice: Choice,
    pub(super) stream: Stream,
    pub(super) env: SimEnv,
    pub(super) client: u32,
}

impl Worker {
    /// Works until the load ends.
    pub(super) async fn run(self) {
        let mut unavailable = 0;
        loop {
            self.env.clock().sleep(self.choice.pause(&self.stream)).await;
            let Some((number, bucket)) = self.session.bucket().await else {
                self.env.clock().sleep(REST).await;
                continue;
            };
            if self.workload.take_tickets(1) == 0 {
                return;
            }
            match self.one(&bucket).await {
                Service::Reached => unavailable = 0,
                Service::Unavailable => unavailable += 1,
            }
            if unavailable >= UNAVAILABLE_MAX {
                unavailable = 0;
                self.session.give_up(number).await;
            }
        }
    }

    async fn one(&self, bucket: &Bucket<SimEnv>) -> Service {
        let (choice, stream) = (&self.choice, &self.stream);
        let kind = choice.kind(stream);
        let drawn = choice.key(stream);
        // Most keys of a young bucket have no object: that is read now and then, not mostly.
        let key = if kind.wants_object() && stream.chance(750_000) { self.seen_near(drawn) } else { drawn };
        let (version, size) = self.seen(key);
        match kind {
            Do::Put => self.put(bucket, key, choice.size(stream), Condition::Any).await,
            Do::PutIf => {
                let condition = choice.put_condition(stream, version);
                self.put(bucket, key, choice.size(stream), condition).await
            }
            Do::Get => self.get(bucket, key, None).await,
            Do::GetRange => {
                let range = choice.range(stream, size.unwrap_or_else(|| choice.size(stream)));
                self.get(bucket, key, Some(range)).await
            }
            Do::Head => self.head(bucket, key).await,
            Do::Delete => self.delete(bucket, key, Condition::Any).await,
            Do::DeleteIf => self.delete(bucket, key, choice.condition(stream, version)).await,
            Do::List => self.list(bucket).await,
            Do::Batch => self.batch(bucket).await,
        }
    }

    /// Many small puts at once.
    async fn batch(&self, bucket: &Bucket<SimEnv>) -> Service {
        let more = self.workload.take_tickets(self.choice.batch(&self.stream) - 1);
        let puts = (0..=more).map(|_| {
            let (key, size) = (self.choice.key(&self.stream), self.choice.small_size(&self.stream));
            self.put(bucket, key, size, Condition::Any)
        });
        let ended = join_all(puts).await;
        if ended.contains(&Service::Reached) { Service::Reached } else { Service::Unavailable }
    }

    async fn delete(&self, bucket: &Bucket<SimEnv>, number: u64, condition: Condition) -> Service {
        let key = key_name(number);
        let begun = self.begin(&key, Op::Delete { condition }, Limit::call(self.timeout()));
        match bucket.delete(&key.name, precondition(condition)).await {
            Ok(existed) => {
                self.gone(number);
                begun.end(Outcome::Deleted { existed });
                Service::Reached
            }
            Err(error) => self.failed(begun, outcome::of_delete(&error), &error),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.cluster.plan.tunables.timeout
    }

    /// How long a put or get of `bytes` bytes of an object of `size` bytes may take, which takes `extra`
    /// by itself and gives up when nothing moves for `idle`.
    pub(super) fn limit(&self, idle: Duration, size: u64, bytes: u64, extra: Duration) -> Limit {
        let profile = &self.cluster.plan.profile;
        let stripe_bytes = u64::from(profile.shard_bytes) * u64::from(profile.k);
        let is_inline = usize::try_from(size).is_ok_and(|size| size <= proto::limits::INLINE_BYTES_MAX);
        // A range may begin in the middle of one.
        let stripes = if is_inline { 0 } else { bytes.div_ceil(stripe_bytes.max(1)).saturating_add(1) };
        Limit::stripes(idle, u32::try_from(stripes).unwrap_or(u32::MAX), extra)
    }

    pub(super) fn begin(&self, key: &Key, op: Op, limit: Limit) -> Begun {
        let now = self.cluster.world.now();
        let host = self.env.life().host().id();
        let index = lock(&self.cluster.ledger).begin(self.client, key.clone(), op.clone(), now);
        let number = u64::try_from(index.0).unwrap_or(u64::MAX);
        self.cluster
            .world
            .event(Some(host), "begins", &[number], || format!("operation {number} on {key}: {op}"));
        Begun::new(&self.cluster, &self.workload, &self.env, What::Operation(index), limit)
    }

    /// An operation ended without success.
    pub(super) fn failed(&self, begun: Begun, ended: Ended, error: &dyn std::error::Error) -> Service {
        let host = self.env.life().host().id();
        self.cluster.world.tell(Some(host), || format!("{}: {error}", ended.probe));
        self.cluster.world.probe(ended.probe);
        begun.end(ended.outcome);
        if ended.is_unavailable { Service::Unavailable } else { Service::Reached }
    }

    /// What was read is wrong.
    pub(super) fn broken(&self, text: impl Into<String>) {
        self.cluster.findings.report(&self.cluster.world, Kind::Correctness, INTEGRITY, text);
    }

    /// Checks what the service says of an object against the ledger and against what it said before.
    pub(super) fn check(&self, key: &Key, info: &ObjectInfo) -> Option<ValueId> {
        let checked = check_info(&lock(&self.cluster.ledger), key, info);
        match checked {
            Ok(value) => {
                let before = *lock(&self.workload.versions).entry(value).or_insert(info.version);
                if before != info.version {
                    self.broken(format!("{key}: {value} was {before} before and is {} now", info.version));
                }
                Some(value)
            }
            Err(text) => {
                self.broken(text);
                None
            }
        }
    }

    /// The newest version of a key that was seen, and its bytes.
    fn seen(&self, number: u64) -> (Option<Version>, Option<u64>) {
        let seen = lock(&self.workload.seen).get(&number).copied();
        (seen.map(|(version, _)| version), seen.map(|(_, size)| size))
    }

    /// A key at which an object was seen, the next one from `number` on; `number` itself when there is
    /// none.
    fn seen_near(&self, number: u64) -> u64 {
        let seen = lock(&self.workload.seen);
        seen.range(number..).chain(seen.iter()).next().map_or(number, |(number, _)| *number)
    }

    pub(super) fn saw(&self, number: u64, version: Version, size: u64) {
        lock(&self.workload.seen).insert(number, (version, size));
    }

    pub(super) fn gone(&self, number: u64) {
        lock(&self.workload.seen).remove(&number);
    }
}

pub(super) fn precondition(condition: Condition) -> Precondition {
    match condition {
        Condition::Any => Precondition::None,
        Condition::MustNotExist => Precondition::IfAbsent,
        Condition::IfVersion(version) => Precondition::IfVersion(version),
    }
}
