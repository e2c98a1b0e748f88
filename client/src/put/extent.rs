//! Writing one extent: a window of stripes on their way to the disks of one group.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use codec::{SlotMask, block_checksums};
use env::rpc::CallError;
use env::{Clock, Elapsed, Env};
use futures_util::stream::{FusedStream, FuturesUnordered, Stream, StreamExt};
use proto::{
    Epoch, ErrorCode, ExtentId, Failure, GroupId, ShardName, SlotIndex, StripeIndex, TenantTag, wire,
};

use super::choice::Choice;
use super::hint::Hints;
use super::progress::Progress;
use super::shard::{ShardDone, ShardWrite, Unsent};
use crate::cluster::Shared;
use crate::error::{PutError, Reasons};
use crate::group::Group;

/// Stripes in memory: being read, on their way, or waiting for another group.
pub(super) const WINDOW_STRIPES: usize = 3;
/// How often an extent follows its group to another epoch.
const REFRESHES_MAX: u32 = 4;

/// What an extent is written with.
pub(super) struct Limits {
    /// How long nothing may move.
    pub(super) idle: Duration,
    /// How long the last slots of a stripe are waited for.
    pub(super) patience: Duration,
    /// Whether to try another group as long as nothing of the extent has left memory.
    pub(super) may_restart: bool,
}

/// An extent as far as it came.
pub(super) struct Written {
    /// None when no stripe came through.
    pub(super) extent: Option<wire::Extent>,
    pub(super) below_policy: bool,
    pub(super) end: End,
}

/// Why an extent ended.
pub(super) enum End {
    /// The object has no more bytes.
    Source,
    /// The extent is as long as extents get.
    Full,
    /// Too few disks went along: what is in memory belongs into another group.
    Broken {
        /// The group that failed.
        group: GroupId,
        /// Slots that still went along.
        durable: usize,
        /// Slots that must.
        needed: usize,
        /// What happened.
        reasons: Reasons,
    },
}

/// Writes one extent.
pub(super) struct ExtentWriter<'a, E: Env> {
    shared: &'a Shared<E>,
    tag: TenantTag,
    id: ExtentId,
    /// The group's epoch at the start: what stands in the record.
    epoch: Epoch,
    /// As it is known now.
    group: Group,
    limits: Limits,
    progress: Progress,
    hints: Hints,
    /// The bytes of the stripes that `progress` has in its window.
    window: VecDeque<Bytes>,
    length: u64,
    refreshes: u32,
    reasons: Vec<String>,
}

enum Event {
    Stripe(Option<Result<Bytes, PutError>>),
    Shard(ShardDone),
    Laggards,
}

impl<'a, E: Env> ExtentWriter<'a, E> {
    pub(super) fn new(
        shared: &'a Shared<E>,
        tag: TenantTag,
        id: ExtentId,
        choice: Choice,
        hints: Hints,
        limits: Limits,
    ) -> Self {
        let Choice { group, missing } = choice;
        Self {
            shared,
            tag,
            id,
            epoch: group.epoch,
            limits,
            progress: Progress::new(group.geometry().k(), group.slots(), missing),
            group,
            hints,
            window: VecDeque::with_capacity(WINDOW_STRIPES),
            length: 0,
            refreshes: 0,
            reasons: Vec::new(),
        }
    }

    /// Writes stripes, from `backlog` first, until an end. What was read and did not come through is
    /// in `backlog` then.
    pub(super) async fn run<S>(
        mut self,
        stripes: &mut S,
        backlog: &mut VecDeque<Bytes>,
    ) -> Result<Written, PutError>
    where
        S: Stream<Item = Result<Bytes, PutError>> + FusedStream + Unpin + Send,
    {
        let shared = self.shared;
        let clock = shared.env.clock();
        let geometry = self.group.geometry();
        let stripes_max = geometry.extent_bytes_max() / geometry.stripe_bytes() as u64;
        let idle = self.limits.idle;
        let write = |shard: ShardWrite| shard.run(shared, idle);
        let mut writes = FuturesUnordered::new();
        loop {
            self.pop_done();
            let is_full = u64::from(self.progress.begun()) >= stripes_max;
            let has_room = self.window.len() < WINDOW_STRIPES && !is_full;
            if has_room && let Some(bytes) = backlog.pop_front() {
                self.begin(bytes)?.into_iter().for_each(|shard| writes.push(write(shard)));
                continue;
            }
            let read = has_room && !stripes.is_terminated();
            if self.window.is_empty() && !read {
                return self.finish(if is_full { End::Full } else { End::Source });
            }
            let laggards_due = self.progress.laggards_due(self.limits.patience);
            let event = next_event(clock, stripes, read, &mut writes, laggards_due);
            let event = clock.timeout(idle, event).await;
            let broken = match event {
                Err(Elapsed) => return Err(PutError::DeadlineExceeded(idle)),
                Ok(Event::Stripe(None)) => false,
                Ok(Event::Stripe(Some(bytes))) => {
                    self.begin(bytes?)?.into_iter().for_each(|shard| writes.push(write(shard)));
                    false
                }
                Ok(Event::Shard(done)) => match self.settle(done).await {
                    Settled::Going => false,
                    Settled::Again(shard) => {
                        writes.push(write(*shard));
                        false
                    }
                    Settled::Broken => true,
                },
                Ok(Event::Laggards) => self.give_up_laggards(),
            };
            if broken {
                while let Some(bytes) = self.window.pop_back() {
                    backlog.push_front(bytes);
                }
                return self.finish_broken();
            }
        }
    }

    /// Encodes a stripe; the shards to send.
    fn begin(&mut self, bytes: Bytes) -> Result<Vec<ShardWrite>, PutError> {
        let encoded = self.group.codec.encode(bytes.clone()).map_err(|error| {
            PutError::Invalid(proto::InvalidInput::new(format!("a stripe cannot be encoded: {error}")))
        })?;
        let hint = self.hints.of_stripe(bytes.len());
        self.window.push_back(bytes);
        let (stripe, slots) = self.progress.begin();
        let mut shards = encoded.into_shards();
        let taken = slots.iter().map(|slot| {
            let payload = std::mem::take(&mut shards[usize::from(slot.0)]);
            self.shard(stripe, slot, Unsent { payload, hint: hint.clone() })
        });
        Ok(taken.collect())
    }

    fn shard(&self, stripe: StripeIndex, slot: SlotIndex, shard: Unsent) -> ShardWrite {
        let Unsent { payload, hint } = shard;
        let place = self.group.place(slot);
        let name = ShardName { group: self.group.id, extent: self.id, stripe, slot };
        let call = wire::WriteShard {
            shard: Some(name.into()),
            disk: place.disk.0,
            epoch: self.group.epoch.0,
            tenant_tag: self.tag.0,
            block_crc32c: block_checksums(&payload),
            hint,
        };
        ShardWrite { stripe, slot, target: place.target(), call, payload }
    }

    /// Lets go what every slot has.
    fn pop_done(&mut self) {
        while self.progress.pop() {
            self.length += self.window.pop_front().map_or(0, |bytes| bytes.len() as u64);
        }
    }

    async fn settle(&mut self, done: ShardDone) -> Settled {
        let ShardDone { stripe, slot, epoch, result } = done;
        let (error, shard) = match result {
            Ok(()) => {
                self.progress.acknowledged(stripe, slot, self.shared.env.clock().now());
                return Settled::Going;
            }
            Err(failed) => failed,
        };
        if !self.progress.awaits(stripe, slot) {
            return Settled::Going;
        }
        if matches!(error.code(), Some(ErrorCode::StaleEpoch | ErrorCode::NotMine))
            && (self.group.epoch > epoch || self.refresh().await)
        {
            return self.after_refresh(stripe, slot, shard);
        }
        self.shared.note_failure(self.group.place(slot), &error);
        self.fail(stripe, slot, &error.to_string());
        self.verdict()
    }

    /// The group has another epoch: unless the slot moved, its disk takes the shard under that one.
    fn after_refresh(&mut self, stripe: StripeIndex, slot: SlotIndex, shard: Unsent) -> Settled {
        match self.verdict() {
            Settled::Going if self.progress.awaits(stripe, slot) => {
                Settled::Again(Box::new(self.shard(stripe, slot, shard)))
            }
            other => other,
        }
    }

    /// Asks how the group is now. False when that is of no help.
    async fn refresh(&mut self) -> bool {
        self.refreshes += 1;
        if self.refreshes > REFRESHES_MAX {
            return false;
        }
        let fresh = match self.shared.placement(self.group.id, self.limits.idle).await {
            Ok(fresh) if fresh.epoch > self.group.epoch && fresh.geometry() == self.group.geometry() => fresh,
            Ok(_) => return false,
            Err(error) => {
                self.reasons.push(error.to_string());
                return false;
            }
        };
        let moved = fresh.changed_since(self.epoch);
        for slot in moved.iter() {
            self.fail(StripeIndex(0), slot, "the slot moved to another disk");
        }
        self.group = fresh;
        true
    }

    /// Gives up whoever is too slow; true when the extent breaks by it.
    fn give_up_laggards(&mut self) -> bool {
        let now = self.shared.env.clock().now();
        for (stripe, slot) in self.progress.laggards(self.limits.patience, now) {
            let address = self.group.place(slot).address.clone();
            let after = self.limits.patience;
            let error = CallError::TimedOut { address, call: "write-shard", after };
            self.shared.note_failure(self.group.place(slot), &error);
            self.fail(stripe, slot, &error.to_string());
        }
        matches!(self.verdict(), Settled::Broken)
    }

    fn fail(&mut self, stripe: StripeIndex, slot: SlotIndex, reason: &str) {
        if self.progress.failed(stripe, slot) {
            let disk = self.group.place(slot).disk;
            self.reasons.push(format!("slot {slot} on disk {disk}: {reason}"));
        }
    }

    /// After a failure: on without the slot, or elsewhere? Elsewhere costs nothing while all is still
    /// in memory.
    fn verdict(&self) -> Settled {
        let all_in_memory = self.progress.done() == 0;
        let too_few = self.progress.durable() < self.group.min_durable;
        let is_whole = self.reasons.is_empty();
        if too_few || (all_in_memory && self.limits.may_restart && !is_whole) {
            Settled::Broken
        } else {
            Settled::Going
        }
    }

    fn finish_broken(self) -> Result<Written, PutError> {
        let end = End::Broken {
            group: self.group.id,
            durable: self.progress.durable(),
            needed: self.group.min_durable,
            reasons: self.reasons.iter().cloned().collect(),
        };
        self.finish(end)
    }

    fn finish(self, end: End) -> Result<Written, PutError> {
        let done = self.progress.done();
        let missing = self.progress.missing(done);
        if done > 0 && self.group.slots() - missing.len() < self.group.min_durable {
            // Slots moved away under stripes that have left memory.
            let text = format!("group {} changed {missing:?}", self.group.id);
            return Err(PutError::PlacementChanged(Failure::new(ErrorCode::StaleEpoch, text)));
        }
        let extent = (done > 0).then(|| wire::Extent {
            id: self.id.to_wire(),
            group: self.group.id.0,
            epoch: self.epoch.0,
            length: self.length,
            missing: missing.to_wire(),
        });
        Ok(Written { extent, below_policy: self.group.below_policy, end })
    }
}

/// What follows from one shard's fate.
enum Settled {
    Going,
    Again(Box<ShardWrite>),
    Broken,
}

/// Waits for whatever comes first.
async fn next_event<C, S, F>(
    clock: &C,
    stripes: &mut S,
    read: bool,
    writes: &mut FuturesUnordered<F>,
    laggards_due: Option<env::Monotonic>,
) -> Event
where
    C: Clock,
    S: Stream<Item = Result<Bytes, PutError>> + Unpin,
    F: Future<Output = ShardDone>,
{
    tokio::select! {
        biased;
        Some(done) = writes.next(), if !writes.is_empty() => Event::Shard(done),
        stripe = stripes.next(), if read => Event::Stripe(stripe),
        () = clock.sleep_until(laggards_due.unwrap_or_default()), if laggards_due.is_some() => Event::Laggards,
        // Neither reading nor writing: the idle limit ends it.
        else => std::future::pending().await,
    }
}

/// Slots that miss something, over all extents.
pub(super) fn slots_missing(extents: &[wire::Extent]) -> usize {
    extents
        .iter()
        .map(|extent| SlotMask::from_wire(extent.missing, proto::limits::SLOTS_MAX))
        .map(|mask| mask.map_or(0, SlotMask::len))
        .sum()
}
