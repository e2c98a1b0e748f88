//! Fetching a part of one stripe.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use codec::{SlotMask, StripePart, verify_blocks};
use env::rpc::{CallError, Reply, Target};
use env::{Clock, Env, Monotonic, NetError};
use futures_util::stream::{FuturesUnordered, StreamExt};
use proto::wire::request::Call;
use proto::wire::response::Result as Outcome;
use proto::wire::{self, Health};
use proto::{DiskId, ErrorCode, Failure, ShardName, SlotIndex, TenantTag};

use super::plan::PlannedExtent;
use super::stripe::{Blocks, Standing, Step, StripeRead};
use crate::cluster::Shared;
use crate::error::{GetError, Reasons};
use crate::group::Place;

/// A part of a stripe to fetch.
pub(crate) struct Fetch<E: Env> {
    pub(crate) shared: Arc<Shared<E>>,
    pub(crate) extent: Arc<PlannedExtent>,
    pub(crate) part: StripePart,
    pub(crate) tag: TenantTag,
    pub(crate) timeout: Duration,
}

/// What came of it.
pub(crate) struct Fetched {
    pub(crate) result: Result<Vec<Bytes>, GetError>,
    /// A place said that it is not the one: the plan is old.
    pub(crate) is_stale: bool,
    /// Enough of the places that failed may answer a moment later.
    pub(crate) may_pass: bool,
}

/// An answer for one slot.
type Answer = (SlotIndex, Blocks, Result<Bytes, CallError>);

/// How the waiting ended.
enum Event {
    Answer(Answer),
    Hedge,
    Over,
}

impl<E: Env> Fetch<E> {
    /// Fetches it: verified, decoded if need be. Ends within the timeout.
    pub(crate) async fn run(self) -> Fetched {
        let clock = self.shared.env.clock();
        let deadline = clock.now().after(self.timeout);
        let group = &self.extent.group;
        let slots = SlotMask::first(group.slots()).iter();
        let standings: Vec<Standing> = slots.map(|slot| self.standing(slot)).collect();
        let mut read = StripeRead::new(group.geometry().k(), &self.part, &standings);
        let mut reasons = Vec::new();
        let (mut is_stale, mut passing) = (false, 0);
        let mut calls = FuturesUnordered::new();
        let mut hedge_at = deadline;
        loop {
            match read.step() {
                Step::Ask(asks) => {
                    asks.into_iter().for_each(|(slot, blocks)| calls.push(self.ask(slot, blocks, deadline)));
                    hedge_at = clock.now().after(self.shared.latencies().hedge_delay());
                }
                Step::Wait => {}
                Step::Done => {
                    read.slow().iter().for_each(|slot| self.shared.note_slow(group.place(slot)));
                    let made =
                        read.assemble(&group.codec).map_err(|error| GetError::Damaged(error.to_string()));
                    return Fetched { result: made, is_stale, may_pass: false };
                }
                Step::Lost => {
                    let may_pass = read.reachable() + passing >= group.geometry().k();
                    let result = Err(self.undecodable(read.reachable(), reasons));
                    return Fetched { result, is_stale, may_pass };
                }
            }
            match next_event(clock, &mut calls, hedge_at, deadline).await {
                Event::Answer((slot, blocks, Ok(bytes))) => read.received(slot, blocks, bytes),
                Event::Answer((slot, _, Err(error))) => {
                    is_stale |= is_stale_answer(&error, group.place(slot));
                    passing += usize::from(may_pass(&error));
                    read.failed(slot);
                    reasons.push(format!("slot {slot} on disk {}: {error}", group.place(slot).disk));
                }
                Event::Hedge => {
                    read.hedge();
                    hedge_at = clock.now().after(self.shared.latencies().hedge_delay());
                }
                Event::Over => {
                    read.hedge();
                    read.slow().iter().for_each(|slot| self.shared.note_slow(group.place(slot)));
                    let reasons = Reasons::from_iter(reasons);
                    let result = Err(GetError::DeadlineExceeded { after: self.timeout, reasons });
                    return Fetched { result, is_stale, may_pass: false };
                }
            }
        }
    }

    /// The blocks of one slot: from its disk, or while it is being filled from a disk that had the slot before.
    async fn ask(&self, slot: SlotIndex, blocks: Blocks, deadline: Monotonic) -> Answer {
        let place = self.extent.group.place(slot);
        let started = self.shared.env.clock().now();
        let mut result = self.read(slot, blocks, place.disk, &place.target(), deadline).await;
        if matches!(result, Err(CallError::Net { error: NetError::Lost(_), .. })) {
            // Perhaps only the connection is dead: that of a node that was started again.
            result = self.read(slot, blocks, place.disk, &place.target(), deadline).await;
        }
        match &result {
            Ok(_) => {
                let took = self.shared.env.clock().now().since(started);
                self.shared.latencies().add(took);
            }
            Err(error) => {
                self.shared.note_failure(place, error);
                for (disk, target) in &place.sources {
                    result = self.read(slot, blocks, *disk, target, deadline).await;
                    if result.is_ok() {
                        break;
                    }
                }
            }
        }
        (slot, blocks, result)
    }

    async fn read(
        &self,
        slot: SlotIndex,
        blocks: Blocks,
        disk: DiskId,
        target: &Target,
        deadline: Monotonic,
    ) -> Result<Bytes, CallError> {
        let extent = &self.extent;
        let name = ShardName { group: extent.group.id, extent: extent.id, stripe: self.part.stripe, slot };
        let call = Call::ReadShard(wire::ReadShard {
            shard: Some(name.into()),
            disk: disk.0,
            first_block: blocks.first,
            blocks: blocks.end - blocks.first,
        });
        let left = deadline.since(self.shared.env.clock().now());
        let reply = self.shared.leader.caller().call(target, call, Vec::new(), left).await?;
        check(reply, blocks, self.part.shard_bytes, self.tag).map_err(CallError::Failed)
    }

    fn standing(&self, slot: SlotIndex) -> Standing {
        let place = self.extent.group.place(slot);
        if self.extent.missing.contains(slot) {
            Standing::Missing
        } else if place.health != Health::Up || self.shared.is_suspect(place) {
            Standing::Suspect
        } else if place.hollow {
            Standing::Hollow
        } else {
            Standing::Good
        }
    }

    fn undecodable(&self, reachable: usize, reasons: Vec<String>) -> GetError {
        GetError::Undecodable {
            extent_start: self.extent.start,
            stripe: self.part.stripe,
            reachable,
            needed: self.extent.group.geometry().k(),
            reasons: reasons.into_iter().collect(),
        }
    }
}

/// Waits for whatever comes first.
async fn next_event<C: Clock, F: Future<Output = Answer>>(
    clock: &C,
    calls: &mut FuturesUnordered<F>,
    hedge_at: Monotonic,
    deadline: Monotonic,
) -> Event {
    let wake_at = hedge_at.min(deadline);
    tokio::select! {
        biased;
        Some(answer) = calls.next(), if !calls.is_empty() => Event::Answer(answer),
        () = clock.sleep_until(wake_at) => if wake_at >= deadline { Event::Over } else { Event::Hedge },
    }
}

/// Does the answer say that the plan is old? A disk that is being filled lacks shards anyway.
fn is_stale_answer(error: &CallError, place: &Place) -> bool {
    match error.code() {
        Some(ErrorCode::NotMine | ErrorCode::StaleEpoch) => true,
        Some(ErrorCode::NoSuchShard) => !place.hollow,
        _ => false,
    }
}

/// May the place answer otherwise a moment later? One that has no such shard, or a damaged one, will not.
fn may_pass(error: &CallError) -> bool {
    !matches!(error.code(), Some(ErrorCode::NoSuchShard | ErrorCode::DamagedShard | ErrorCode::Forbidden))
}

/// The bytes of an answer, if they are what was asked for and undamaged.
fn check(reply: Reply, blocks: Blocks, shard_bytes: usize, tag: TenantTag) -> Result<Bytes, Failure> {
    let damaged = |text: String| Err(Failure::new(ErrorCode::DamagedShard, text));
    let Outcome::ReadShard(head) = reply.result else {
        return Err(Failure::new(ErrorCode::VersionMismatch, "not an answer to read-shard"));
    };
    if head.shard_bytes as usize != shard_bytes {
        return damaged(format!("the shard has {} bytes, expected {shard_bytes}", head.shard_bytes));
    }
    if head.tenant_tag != tag.0 {
        return damaged("the shard belongs to another tenant".to_owned());
    }
    let expected = blocks.bytes(shard_bytes).len();
    if reply.payload.len() != expected {
        return damaged(format!("{} bytes came, expected {expected}", reply.payload.len()));
    }
    match verify_blocks(&reply.payload, blocks.first, &head.block_crc32c) {
        Ok(()) => Ok(reply.payload),
        Err(error) => damaged(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use codec::block_checksums;

    use super::*;

    /// Whatever differs from what was asked for is not taken.
    #[test]
    fn answers_are_checked() {
        let shard = Bytes::from(vec![3; 100_032]);
        let (blocks, tag) = (Blocks { first: 1, end: 2 }, TenantTag(9));
        let payload = shard.slice(65_536..);
        let head = wire::ReadShardReply {
            shard_bytes: 100_032,
            block_crc32c: block_checksums(&payload),
            tenant_tag: 9,
            ..Default::default()
        };
        let take = |head: &wire::ReadShardReply, payload: Bytes| {
            let result = Outcome::ReadShard(head.clone());
            check(Reply { result, payload, cluster_time_ms: 0 }, blocks, 100_032, tag).map_err(|f| f.code)
        };
        assert_eq!(take(&head, payload.clone()), Ok(payload.clone()));
        let damaged = Err(ErrorCode::DamagedShard);
        assert_eq!(take(&head, payload.slice(1..)), damaged);
        assert_eq!(take(&head, Bytes::from(vec![4; payload.len()])), damaged);
        for wrong in [
            wire::ReadShardReply { shard_bytes: 100_096, ..head.clone() },
            wire::ReadShardReply { tenant_tag: 8, ..head.clone() },
            wire::ReadShardReply { block_crc32c: Vec::new(), ..head },
        ] {
            assert_eq!(take(&wrong, payload.clone()), damaged);
        }
    }
}
