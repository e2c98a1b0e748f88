//! The audit: what each disk has is compared with what the metadata service says is committed, and read.
//!
//! Two passes go over each disk again and again, group by group, and within a group in the order of
//! extents; extents are ordered by age:
//!
//! - The *search for orphans*, each [`orphan_period`](crate::Options::orphan_period), compares the index in
//!   memory with the commits, and drops what was written and never committed. From the second on it begins
//!   where the grants were not over yet the last time, and asks nothing about groups without shards of that
//!   age; so it costs what was written since, and nothing on an idle disk.
//! - The *audit*, over about [`audit_period`](crate::Options::audit_period), compares everything, which also
//!   finds shards that are absent, and reads and verifies each shard. It begins with the groups that were read longest
//!   ago, after a start at a random one, so that a node that is often restarted still comes to all of them. When
//!   each group was read last is told with the heartbeats.
//!
//! What is lost goes to the metadata service with the next heartbeat, which has it made again. So do slots
//! that have no part in their group, to be dropped like what a move leaves behind.
//!
//! A page is compared under the lock of its group, like drops and repairs: nothing is made or dropped
//! between the questions. A node compares one page at a time, whatever the number of its disks, so that the
//! metadata service is not flooded when many nodes start; of each disk one shard is in memory at a time. A group that cannot be compared is
//! left out until the next pass, and nothing follows for it.
//!
//! Dropping the future of a pass leaves open which orphans of its last page are gone; the next finds the
//! others.

mod compare;

use std::sync::Arc;
use std::time::Duration;

use env::{Clock, Env, Monotonic, Priority, Rng};
use futures_util::future::{join, join_all};
use proto::limits::GRANT_MS;
use proto::wire::request::Call;
use proto::{
    DiskId, ErrorCode, ExtentId, Failure, GroupId, ShardName, SlotIndex, StripeIndex, Timestamp, wire,
};
use tokio::sync::Mutex;
use tracing::{debug, info, warn};

use crate::damage::Loss;
use crate::disks::StoreOf;
use crate::node::Node;
use crate::store::{Held, Presence, Removed, StoreError};
use crate::work::{list_extents, needs};
use compare::{Answer, Duty, LAST};

/// Shards of a page, but for those of its last extent.
const PAGE_SHARDS: usize = 4096;
/// Extents of an answer of the metadata service.
const PAGE_EXTENTS: u32 = 1024;
/// Least time between two pages of a node.
const PAGE_PAUSE: Duration = Duration::from_millis(50);
/// Attempts at a page before its group is left out.
const ATTEMPTS_MAX: u32 = 6;

/// Audits all disks until dropped.
pub(crate) async fn run<E: Env>(node: Arc<Node<E>>) {
    let turn = Mutex::new(());
    let disks = (0..node.options.disks.len()).map(|place| {
        let (node, turn) = (&*node, &turn);
        join(search_for_orphans(node, turn, place), audit(node, turn, place))
    });
    join_all(disks).await;
}

async fn search_for_orphans<E: Env>(node: &Node<E>, turn: &Mutex<()>, place: usize) {
    let clock = node.env.clock();
    let mut floor = Timestamp::ZERO;
    loop {
        let next = clock.now().after(node.options.orphan_period);
        let Some((disk, store)) = serving(node, place) else {
            clock.sleep(node.options.disk_retry.min(node.options.orphan_period)).await;
            continue;
        };
        let mut pass = Pass { node, turn, disk, store, floor, pace: None, removed: Removed::default() };
        floor = pass.run().await.unwrap_or(floor);
        clock.sleep_until(next.max(clock.now().after(PAGE_PAUSE))).await;
    }
}

async fn audit<E: Env>(node: &Node<E>, turn: &Mutex<()>, place: usize) {
    let clock = node.env.clock();
    loop {
        let began = clock.now();
        let period = node.options.audit_period;
        let Some((disk, store)) = serving(node, place) else {
            clock.sleep(node.options.disk_retry.min(period)).await;
            continue;
        };
        let pace = Pace { began, period, total_bytes: store.used_bytes(), done_bytes: 0 };
        let floor = Timestamp::ZERO;
        let mut pass = Pass { node, turn, disk, store, floor, pace: Some(pace), removed: Removed::default() };
        pass.run().await;
        debug!(%disk, "disk audited");
        clock.sleep_until(began.after(period).max(clock.now().after(PAGE_PAUSE))).await;
    }
}

/// The disk, once it serves and the node knows its groups.
fn serving<E: Env>(node: &Node<E>, place: usize) -> Option<(DiskId, StoreOf<E>)> {
    node.disks.serving(place).filter(|_| node.map().version > 0)
}

/// Spreads the reads of a pass over its time.
#[derive(Clone, Copy, Debug)]
struct Pace {
    began: Monotonic,
    period: Duration,
    /// Bytes that the disk had when the pass began.
    total_bytes: u64,
    /// Bytes that were read.
    done_bytes: u64,
}

impl Pace {
    /// When this much should have been read. What was written since the pass began comes for free.
    fn due(&self) -> Monotonic {
        let period_ns = self.period.as_nanos();
        let done = u128::from(self.done_bytes.min(self.total_bytes));
        let due_ns = period_ns.saturating_mul(done).checked_div(self.total_bytes.into()).unwrap_or(0);
        self.began.after(Duration::from_nanos(u64::try_from(due_ns).unwrap_or(u64::MAX)))
    }
}

/// One pass over one disk.
struct Pass<'a, E: Env> {
    node: &'a Node<E>,
    /// Held while a page is compared, and for the pause behind it.
    turn: &'a Mutex<()>,
    disk: DiskId,
    store: StoreOf<E>,
    /// Extents granted before this are left out.
    floor: Timestamp,
    /// Of the reads; none for a search for orphans.
    pace: Option<Pace>,
    removed: Removed,
}

/// One page that was compared.
struct Page {
    as_of: Timestamp,
    /// The next page begins behind this; nothing after the last.
    next_after: Option<ExtentId>,
    to_verify: Vec<(ShardName, usize)>,
}

impl<E: Env> Pass<'_, E> {
    /// Goes over all groups. The time before which every grant was judged, so that the next search can begin
    /// there; none when one has to be looked at again or nothing was asked.
    async fn run(&mut self) -> Option<Timestamp> {
        let (mut as_of, mut left_out, mut complete) = (None, 0_u64, true);
        let groups = match self.groups() {
            Ok(groups) => groups,
            Err(error) => {
                warn!(disk = %self.disk, %error, "disk cannot be audited");
                return None;
            }
        };
        for group in groups {
            let began = self.node.leader.cluster_now();
            let audited = self.group(group).await;
            if self.pace.is_some() && audited.is_ok() {
                self.node.verified.note(self.disk, group, began);
            }
            match audited {
                Ok(None) => {}
                Ok(Some(time)) => as_of = Some(as_of.map_or(time, |earliest: Timestamp| earliest.min(time))),
                Err(error) => {
                    debug!(disk = %self.disk, %group, %error, "group not audited");
                    left_out += 1;
                    // One that nobody knows is judged never, and keeps the others from nothing.
                    complete &= error.code == ErrorCode::InvalidRequest;
                }
            }
        }
        let Removed { shards, bytes } = self.removed;
        if shards > 0 {
            info!(disk = %self.disk, shards, bytes, "shards that were never committed are dropped");
        }
        if left_out > 0 {
            warn!(disk = %self.disk, groups = left_out, "groups could not be audited, they come with the next pass");
        }
        as_of
            .filter(|_| complete)
            .map(|time| Timestamp::from_millis(time.as_millis().saturating_sub(GRANT_MS)))
    }

    /// The groups with shards or a slot on the disk: for an audit those first that were read longest ago, else, and
    /// among equals, from a random one on.
    fn groups(&self) -> Result<Vec<GroupId>, StoreError> {
        let mut groups = self.store.groups()?;
        if self.pace.is_some() {
            let map = self.node.map();
            let placed = map.groups.values().filter(|placement| Duty::of(placement, self.disk).is_some());
            groups.extend(placed.map(|placement| placement.group));
            groups.sort_unstable();
            groups.dedup();
        }
        let first = self.node.env.rng().below(groups.len() as u64);
        groups.rotate_left(usize::try_from(first).unwrap_or_default());
        if self.pace.is_some() {
            groups.sort_by_key(|group| self.node.verified.last(self.disk, *group));
        }
        Ok(groups)
    }

    /// One group, page by page. The earliest time of an answer; none when none was needed.
    async fn group(&mut self, group: GroupId) -> Result<Option<Timestamp>, Failure> {
        let clock = self.node.env.clock();
        let mut after = ExtentId::new(self.floor, 0).0.checked_sub(1).map(ExtentId);
        let (mut as_of, mut failures) = (None, 0);
        loop {
            if self.pace.is_none() && self.store.held(group, after, LAST, 1)?.0.is_empty() {
                return Ok(as_of);
            }
            let turn = self.turn.lock().await;
            let page = self.page(group, after).await;
            clock.sleep(PAGE_PAUSE).await;
            drop(turn);
            match page {
                Ok(page) => {
                    failures = 0;
                    // Replicated time never falls, so the first answer is the earliest.
                    as_of = as_of.or(Some(page.as_of));
                    self.verify(page.to_verify).await?;
                    if page.next_after.is_none() {
                        return Ok(as_of);
                    }
                    after = page.next_after;
                }
                Err(error) => {
                    failures += 1;
                    if failures >= ATTEMPTS_MAX || error.code == ErrorCode::InvalidRequest {
                        return Err(error);
                    }
                    self.node.back_off(failures).await;
                }
            }
        }
    }

    /// Compares the extents behind `after`, and settles what differs.
    async fn page(&mut self, group: GroupId, after: Option<ExtentId>) -> Result<Page, Failure> {
        let node = self.node;
        let _alone = node.groups.lock(group).await;
        // Before the question: what comes after it may be committed after it.
        let (before, more) = self.store.held(group, after, LAST, PAGE_SHARDS)?;
        let not_before = compare::worth_asking_at(&before, node.leader.cluster_now());
        let page = list_extents(node, group, after, PAGE_EXTENTS, not_before).await?;
        let endless = || Failure::new(ErrorCode::Internal, "a page of no extents that is not the last");
        let mut answer = Answer::parse(&page)?.ok_or_else(endless)?;
        if let Some(last) = before.last().filter(|_| more) {
            answer.through = answer.through.min(last.extent);
            let through = answer.through;
            answer.extents.retain(|extent, _| *extent <= through);
        }
        for (extent, slot) in compare::orphans(&before, &answer) {
            let Removed { shards, bytes } = *self.store.delete_extent(group, extent, slot).await?.get();
            debug!(disk = %self.disk, %group, %extent, %slot, shards, "never committed, dropped");
            self.removed.shards += shards;
            self.removed.bytes += bytes;
        }
        if let Some(placement) = node.placement(group) {
            for name in compare::superfluous(group, &before, &answer, placement.geometry) {
                let Removed { shards, bytes } = *self.store.delete(name).await?.get();
                debug!(disk = %self.disk, shard = %name, "behind the end of its extent, dropped");
                self.removed.shards += shards;
                self.removed.bytes += bytes;
            }
        }
        self.report_strays(group, &before, &answer).await?;
        let to_verify = self.settle(group, after, &answer)?;
        let next_after = Some(answer.through).filter(|through| *through < LAST);
        Ok(Page { as_of: answer.as_of, next_after, to_verify })
    }

    /// Notes what is lost; what is there, to be verified.
    fn settle(
        &self,
        group: GroupId,
        after: Option<ExtentId>,
        answer: &Answer,
    ) -> Result<Vec<(ShardName, usize)>, StoreError> {
        let duty = self.node.placement(group).and_then(|placement| Duty::of(&placement, self.disk));
        let Some(duty) = duty else { return Ok(Vec::new()) };
        // After the answer: what was committed before it was written before it.
        let (here, _) = self.store.held(group, after, answer.through, usize::MAX)?;
        let lost = compare::lost(&here, answer, &duty);
        if let Some(first) = lost.first() {
            warn!(disk = %self.disk, %group, slot = %duty.slot, extents = lost.len(), %first, "shards are absent");
        }
        let (stripe, slot) = (StripeIndex(0), duty.slot);
        // What there is no room for is found again by the next pass.
        let mut names = lost.into_iter().map(|extent| ShardName { group, extent, stripe, slot });
        names.all(|name| self.node.lost.push(self.disk, &name, Loss::Absent));
        Ok(if self.pace.is_none() { Vec::new() } else { compare::to_verify(group, &here, answer, &duty) })
    }

    /// Tells the metadata service of committed shards in slots that are not this disk's. It knows whether that
    /// is so, sees to it that the slot does not come here meanwhile, and has them dropped.
    async fn report_strays(&self, group: GroupId, before: &[Held], answer: &Answer) -> Result<(), Failure> {
        let placement = self.node.placement(group);
        let is_stray =
            |slot: SlotIndex| placement.as_ref().is_none_or(|placement| !needs(placement, slot, self.disk));
        let committed = before.iter().filter(|held| answer.extents.contains_key(&held.extent));
        let mut slots: Vec<SlotIndex> =
            committed.map(|held| held.slot).filter(|slot| is_stray(*slot)).collect();
        slots.sort_unstable();
        slots.dedup();
        if slots.is_empty() {
            return Ok(());
        }
        let stray = |slot: SlotIndex| wire::DropExtent {
            group: group.0,
            slot: u32::from(slot.0),
            disk: self.disk.0,
            ..Default::default()
        };
        let strays = slots.into_iter().map(stray).collect();
        let report = wire::ReportWork { node: self.node.options.id.0, strays, ..Default::default() };
        self.node.ask_meta(Call::ReportWork(report)).await.map(drop)
    }

    /// Reads shards one after another, no faster than the pace; notes those that are damaged.
    async fn verify(&mut self, shards: Vec<(ShardName, usize)>) -> Result<(), Failure> {
        for (name, shard_bytes) in shards {
            let Some(pace) = &mut self.pace else { return Ok(()) };
            let bytes = self.store.record_bytes(name)?.unwrap_or_default();
            pace.done_bytes = pace.done_bytes.saturating_add(bytes);
            let due = pace.due();
            let good = match self.store.check(name, Priority::Scrub).await {
                Ok(Presence::Whole(stat)) => stat.shard_bytes as usize == shard_bytes,
                Ok(Presence::Damaged) => false,
                // Dropped since the page was compared; if it should not have been, the next pass finds it.
                Ok(Presence::Absent) => true,
                Err(StoreError::Invalid(text)) => {
                    debug!(shard = %name, text, "shard of an odd length");
                    false
                }
                Err(error) => return Err(error.into()),
            };
            if !good && !self.node.lost.push(self.disk, &name, Loss::Damaged) {
                warn!(shard = %name, "too many lost shards wait for being reported");
            }
            self.node.env.clock().sleep_until(due).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pass is as far as its time: never before its start, nor past its end, whatever was written since.
    #[test]
    fn paces() {
        let at = |seconds| Monotonic::new(Duration::from_secs(seconds));
        let due = |total_bytes, done_bytes| {
            Pace { began: at(10), period: Duration::from_secs(100), total_bytes, done_bytes }.due()
        };
        assert_eq!(due(1 << 44, 0), at(10));
        assert_eq!(due(1 << 44, 1 << 43), at(60));
        assert_eq!(due(1 << 44, 1 << 45), at(110));
        assert_eq!(due(0, 5), at(10));
        let period = Duration::MAX;
        Pace { began: at(1), period, total_bytes: u64::MAX, done_bytes: u64::MAX }.due();
    }
}
