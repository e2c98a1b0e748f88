//! The work loop: takes work from the metadata service, does it, and reports what the disk has proven.
//!
//! All work is idempotent, and the metadata service derives it from its tables each time: a report
//! that is lost only makes the same work be offered again.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use env::{Clock, Env};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use proto::limits::WORK_PAGE_MAX;
use proto::wire::request::Call;
use proto::wire::response::Result as Outcome;
use proto::{DiskId, Epoch, ErrorCode, ExtentId, Failure, GroupId, SlotIndex, Timestamp, wire};
use tracing::{debug, info, warn};

use crate::board::{self, Board, Job, Offer};
use crate::disks::StoreOf;
use crate::node::{Node, unexpected};
use crate::rebuild::{ExtentToMake, SlotMaker, is_of_disk};
use crate::resume::Progress;
use crate::store::{Durable, Removed};
use crate::view::Placement;

/// Extents of a group that are made under one hold of its lock.
const EXTENTS_PER_PAGE: u32 = 8;
/// Failures in a row after which people hear of it.
const FAILURES_TO_WARN: u32 = 3;
/// Extents of a slot that may fail in one attempt.
const EXTENTS_FAILED_MAX: usize = 16;
/// Bytes that are made under one hold of a group's lock, but for those of one extent.
const BYTES_PER_HOLD: u64 = 64 << 20;

type Outcomes = FuturesUnordered<BoxFuture<'static, (Job, Result<Done, Failure>)>>;

/// What a job brought.
enum Done {
    Dropped(Durable<Removed>),
    /// Every shard was written or verified, under this epoch of the group.
    Made(Epoch),
    /// There is nothing to do any more, and nothing to report.
    Obsolete,
}

/// Works until dropped.
pub(crate) async fn run<E: Env>(node: Arc<Node<E>>) {
    let mut board = Board::default();
    let mut running = Outcomes::new();
    let mut ended = Vec::new();
    let mut due = true;
    loop {
        if due {
            due = false;
            match while_working(&mut running, &mut ended, take(&node)).await {
                Ok(offers) => {
                    // While there is some there may be more; once there is none, the answer to a heartbeat tells
                    // of what is new.
                    due = !offers.is_empty();
                    for Offer { job, placement, .. } in board.choose(offers, node.env.clock().now()) {
                        running.push(perform(node.clone(), job, placement).boxed());
                    }
                    node.resume.retain(|job| board.knows(job));
                    node.aside.retain(|disk, shard| board.makes(disk, shard));
                }
                Err(error) => debug!(%error, "no work taken"),
            }
        }
        node.set_without_room(board.without_room());
        if ended.is_empty() {
            tokio::select! {
                biased;
                Some(end) = running.next(), if !running.is_empty() => ended.push(end),
                () = node.work.notified() => due = true,
            }
        }
        while let Some(Some(end)) = running.next().now_or_never() {
            ended.push(end);
        }
        let report = settle(&node, &mut board, std::mem::take(&mut ended));
        if let Some(report) = report {
            let sent = while_working(&mut running, &mut ended, node.ask_meta(Call::ReportWork(report))).await;
            if let Err(error) = sent {
                debug!(%error, "report not delivered: the work will be offered again");
            }
        }
    }
}

/// Waits for `other` while the jobs go on.
async fn while_working<T>(
    running: &mut Outcomes,
    ended: &mut Vec<(Job, Result<Done, Failure>)>,
    other: impl Future<Output = T>,
) -> T {
    let mut other = std::pin::pin!(other);
    loop {
        tokio::select! {
            biased;
            output = &mut other => return output,
            Some(end) = running.next(), if !running.is_empty() => ended.push(end),
        }
    }
}

async fn take<E: Env>(node: &Node<E>) -> Result<Vec<Offer>, Failure> {
    let limit = u32::try_from(WORK_PAGE_MAX).unwrap_or(u32::MAX);
    let call = Call::TakeWork(wire::TakeWork { node: node.options.id.0, limit });
    match node.ask_meta(call).await?.result {
        Outcome::TakeWork(reply) => Ok(board::parse(reply)),
        _ => Err(unexpected("take-work")),
    }
}

/// Takes ended jobs off the board; what there is to report.
fn settle<E: Env>(
    node: &Node<E>,
    board: &mut Board,
    ended: Vec<(Job, Result<Done, Failure>)>,
) -> Option<wire::ReportWork> {
    let mut report = wire::ReportWork { node: node.options.id.0, ..Default::default() };
    let now = node.env.clock().now();
    for (job, result) in ended {
        let failures = board.done(&job, result.as_ref().err().map(|error| error.code), now);
        match result {
            Ok(done) => add_to_report(&mut report, &job, &done),
            Err(error) if failures == FAILURES_TO_WARN => warn!(?job, %error, "work keeps failing"),
            Err(error) => debug!(?job, %error, "work failed, will be tried again"),
        }
    }
    let empty = report.dropped.is_empty() && report.filled.is_empty() && report.rebuilt.is_empty();
    (!empty).then_some(report)
}

fn add_to_report(report: &mut wire::ReportWork, job: &Job, done: &Done) {
    match (*job, done) {
        (Job::Drop { disk, group, slot, extent, epoch }, Done::Dropped(removed)) => {
            let Removed { shards, bytes } = *removed.get();
            debug!(%disk, %group, %slot, shards, bytes, "shards dropped");
            report.dropped.push(wire::DropExtent {
                group: group.0,
                extent: extent.map(ExtentId::to_wire).unwrap_or_default(),
                slot: u32::from(slot.0),
                disk: disk.0,
                epoch: epoch.0,
            });
        }
        (Job::Fill { disk, group, slot, extent }, Done::Made(epoch)) => {
            report.filled.push(wire::SlotFilled {
                group: group.0,
                extent: extent.to_wire(),
                slot: u32::from(slot.0),
                disk: disk.0,
                epoch: epoch.0,
            });
        }
        (Job::Rebuild { disk, group, slot, .. }, Done::Made(epoch)) => {
            report.rebuilt.push(wire::SlotRebuilt {
                group: group.0,
                slot: u32::from(slot.0),
                disk: disk.0,
                epoch: epoch.0,
            });
        }
        (_, Done::Obsolete | Done::Dropped(_) | Done::Made(_)) => {}
    }
}

async fn perform<E: Env>(
    node: Arc<Node<E>>,
    job: Job,
    placement: Option<Placement>,
) -> (Job, Result<Done, Failure>) {
    let result = match (job, placement) {
        (Job::Drop { disk, group, slot, extent: Some(extent), .. }, _) => {
            drop_extent(&node, disk, (group, slot), extent).await
        }
        (Job::Drop { disk, group, slot, extent: None, .. }, _) => drop_slot(&node, disk, (group, slot)).await,
        (Job::Fill { disk, slot, extent, .. }, Some(placement)) => {
            fill(&node, disk, placement, slot, extent).await
        }
        (Job::Rebuild { disk, .. }, Some(placement)) => {
            let mut progress = node.resume.take(&job);
            let result = rebuild(&node, disk, placement, &job, &mut progress).await;
            if result.is_err() {
                node.resume.keep(job, progress);
            }
            result
        }
        (Job::Fill { .. } | Job::Rebuild { .. }, None) => {
            Err(Failure::new(ErrorCode::InvalidRequest, "work without a placement"))
        }
    };
    (job, result)
}

fn store_of<E: Env>(node: &Node<E>, disk: DiskId) -> Result<StoreOf<E>, Failure> {
    let refusal = || Failure::new(ErrorCode::DiskFailed, format!("disk {disk} does not serve"));
    node.disks.store(disk).ok_or_else(refusal)
}

async fn drop_extent<E: Env>(
    node: &Node<E>,
    disk: DiskId,
    (group, slot): (GroupId, SlotIndex),
    extent: ExtentId,
) -> Result<Done, Failure> {
    let store = store_of(node, disk)?;
    let _alone = node.groups.lock(group).await;
    Ok(Done::Dropped(store.delete_extent(group, extent, slot).await?))
}

/// Drops a slot that moved away. Never on the word of old work alone: the node map, as it is now, must
/// say that the slot is elsewhere and that nobody needs this disk as its source.
async fn drop_slot<E: Env>(
    node: &Node<E>,
    disk: DiskId,
    (group, slot): (GroupId, SlotIndex),
) -> Result<Done, Failure> {
    let store = store_of(node, disk)?;
    let _alone = node.groups.lock(group).await;
    node.refresh_map().await?;
    if node.placement(group).is_some_and(|placement| needs(&placement, slot, disk)) {
        let text = format!("slot {slot} of group {group} is still needed on disk {disk}");
        return Err(Failure::new(ErrorCode::StaleEpoch, text));
    }
    Ok(Done::Dropped(store.delete_slot(group, slot).await?))
}

pub(crate) fn needs(placement: &Placement, slot: SlotIndex, disk: DiskId) -> bool {
    placement.place(slot).is_some_and(|place| {
        place.at.disk == disk || place.source.as_ref().is_some_and(|source| source.disk == disk)
    })
}

async fn fill<E: Env>(
    node: &Node<E>,
    disk: DiskId,
    placement: Placement,
    slot: SlotIndex,
    extent: ExtentId,
) -> Result<Done, Failure> {
    let store = store_of(node, disk)?;
    let _alone = node.groups.lock(placement.group).await;
    // The work may be older than the extent's deletion: whether it still exists is asked under the lock.
    let before = extent.0.checked_sub(1).map(ExtentId);
    let page = list_extents(node, placement.group, before, 1, Timestamp::ZERO).await?;
    let found = page.extents.first().map(|found| ExtentToMake::parse(found, &placement)).transpose()?;
    let Some(to_make) = found.filter(|found| found.extent == extent) else {
        node.aside.forget(disk, placement.group, slot, Some(extent));
        return Ok(Done::Obsolete);
    };
    SlotMaker::new(node, &store, &placement, slot).make_extent(to_make).await?;
    Ok(Done::Made(placement.epoch))
}

/// Makes all that the slot misses since its disk took it over, from where the attempt before broke off. What fails is
/// left for the end, and then for the next attempt: the slot is whole once nothing is left.
async fn rebuild<E: Env>(
    node: &Node<E>,
    disk: DiskId,
    placement: Placement,
    job: &Job,
    progress: &mut Progress,
) -> Result<Done, Failure> {
    let Job::Rebuild { group, slot, .. } = *job else { return Ok(Done::Obsolete) };
    let store = store_of(node, disk)?;
    if *progress == Progress::default() {
        info!(%group, %slot, %disk, "rebuild begins");
    }
    let mut rebuild = Rebuild { node, disk, store, placement, slot, failed: Vec::new(), is_full: false };
    while !progress.at_end {
        if !rebuild.page(progress).await? {
            node.aside.forget(disk, group, slot, None);
            return Ok(Done::Obsolete);
        }
    }
    rebuild.make_left(progress).await?;
    node.aside.forget(disk, group, slot, None);
    info!(%group, %slot, %disk, "rebuild is whole");
    Ok(Done::Made(rebuild.placement.epoch))
}

/// One attempt at a slot.
struct Rebuild<'a, E: Env> {
    node: &'a Node<E>,
    disk: DiskId,
    store: StoreOf<E>,
    placement: Placement,
    slot: SlotIndex,
    /// Extents that failed in this attempt, and how.
    failed: Vec<(ExtentId, Failure)>,
    is_full: bool,
}

impl<E: Env> Rebuild<'_, E> {
    /// Makes the next extents; false when the slot has moved on.
    async fn page(&mut self, progress: &mut Progress) -> Result<bool, Failure> {
        let (node, group, slot) = (self.node, self.placement.group, self.slot);
        let _alone = node.groups.lock(group).await;
        let page = list_extents(node, group, progress.after, EXTENTS_PER_PAGE, Timestamp::ZERO).await?;
        if page.more && page.extents.is_empty() {
            return Err(Failure::new(ErrorCode::Internal, "a page of no extents that is not the last"));
        }
        let (mut left_out, mut made, mut cut) = (Vec::new(), 0u64, false);
        for found in &page.extents {
            cut = made >= BYTES_PER_HOLD;
            if cut {
                break;
            }
            let to_make = ExtentToMake::parse(found, &self.placement)?;
            // What the slot is known to miss is filled, and reported, extent by extent.
            if !to_make.missing.contains(slot) {
                match self.make(to_make).await {
                    Ok(Some(bytes)) => made = made.saturating_add(bytes),
                    Ok(None) => left_out.push(to_make.extent),
                    Err(failure) => {
                        // Before the cursor passes what is left out.
                        report_left_out(
                            node,
                            self.disk,
                            &self.placement,
                            slot,
                            std::mem::take(&mut left_out),
                        )
                        .await?;
                        self.note_failed(to_make.extent, failure, progress)?;
                    }
                }
            }
            if left_out.is_empty() {
                progress.after = Some(to_make.extent);
            }
        }
        report_left_out(node, self.disk, &self.placement, slot, left_out).await?;
        if !cut {
            let last = page.extents.last().map(|found| ExtentId::from_wire(&found.id)).transpose()?;
            progress.after = last.or(progress.after);
            progress.at_end = !page.more;
        }
        if let Some(newer) = node.placement(group) {
            self.placement = newer;
        }
        Ok(self.placement.has(slot, self.disk))
    }

    /// Tries again what failed, as far as it still exists.
    async fn make_left(&mut self, progress: &mut Progress) -> Result<(), Failure> {
        let failed_now: BTreeSet<ExtentId> = self.failed.iter().map(|(extent, _)| *extent).collect();
        for extent in progress.left.clone() {
            if failed_now.contains(&extent) {
                continue;
            }
            let _alone = self.node.groups.lock(self.placement.group).await;
            let before = extent.0.checked_sub(1).map(ExtentId);
            let page = list_extents(self.node, self.placement.group, before, 1, Timestamp::ZERO).await?;
            let found =
                page.extents.first().map(|found| ExtentToMake::parse(found, &self.placement)).transpose()?;
            let found = found.filter(|found| found.extent == extent && !found.missing.contains(self.slot));
            if let Some(to_make) = found {
                match self.make(to_make).await {
                    Ok(Some(_)) => {}
                    Ok(None) => {
                        report_left_out(self.node, self.disk, &self.placement, self.slot, vec![extent])
                            .await?;
                    }
                    Err(failure) => {
                        self.note_failed(extent, failure, progress)?;
                        continue;
                    }
                }
            }
            progress.left.remove(&extent);
        }
        match self.failed.pop() {
            None => Ok(()),
            Some((extent, Failure { code, message, .. })) => {
                let left = progress.left.len();
                let text =
                    format!("{left} extents of the slot cannot be made for now, such as {extent}: {message}");
                Err(Failure::new(code, text))
            }
        }
    }

    async fn make(&mut self, extent: ExtentToMake) -> Result<Option<u64>, Failure> {
        let maker = SlotMaker::new(self.node, &self.store, &self.placement, self.slot);
        make_if_it_fits(&maker, extent, &mut self.is_full).await
    }

    /// The rest goes on without this extent, unless it is the disk that fails, or too much does.
    fn note_failed(
        &mut self,
        extent: ExtentId,
        failure: Failure,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        if is_of_disk(&failure) || !progress.leave(extent) {
            return Err(failure);
        }
        self.failed.push((extent, failure.clone()));
        if self.failed.len() < EXTENTS_FAILED_MAX { Ok(()) } else { Err(failure) }
    }
}

/// Makes what a rebuild needs of an extent, and so many bytes; none when the disk `is_full` and the extent has to be
/// left out. As long as another disk still has the slot's shards nothing is left out: it keeps them until all are here.
async fn make_if_it_fits<E: Env>(
    maker: &SlotMaker<'_, E>,
    extent: ExtentToMake,
    is_full: &mut bool,
) -> Result<Option<u64>, Failure> {
    if *is_full {
        return Ok(maker.has_extent(extent).await?.then_some(0));
    }
    match maker.make_extent(extent).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.code == ErrorCode::DiskFull && !maker.has_source() => {
            *is_full = true;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The slot misses these extents: so they are filled when there is room, here or where the slot goes then.
async fn report_left_out<E: Env>(
    node: &Node<E>,
    disk: DiskId,
    placement: &Placement,
    slot: SlotIndex,
    extents: Vec<ExtentId>,
) -> Result<(), Failure> {
    if extents.is_empty() {
        return Ok(());
    }
    let group = placement.group;
    info!(%group, %slot, %disk, extents = extents.len(), "rebuild leaves out what the disk has no room for");
    let item = |extent: ExtentId| wire::SlotFilled {
        group: group.0,
        extent: extent.to_wire(),
        slot: u32::from(slot.0),
        disk: disk.0,
        epoch: placement.epoch.0,
    };
    let lost = extents.into_iter().map(item).collect();
    let report = wire::ReportWork { node: node.options.id.0, lost, ..Default::default() };
    node.ask_meta(Call::ReportWork(report)).await.map(drop)
}

/// A page of a group's committed extents, as of cluster time `not_before` if that is past.
pub(crate) async fn list_extents<E: Env>(
    node: &Node<E>,
    group: GroupId,
    after: Option<ExtentId>,
    limit: u32,
    not_before: Timestamp,
) -> Result<wire::ListGroupExtentsReply, Failure> {
    let after = after.map(ExtentId::to_wire).unwrap_or_default();
    let not_before_ms = not_before.as_millis();
    let call = Call::ListGroupExtents(wire::ListGroupExtents { group: group.0, after, limit, not_before_ms });
    match node.ask_meta(call).await?.result {
        Outcome::ListGroupExtents(page) => Ok(page),
        _ => Err(unexpected("list-group-extents")),
    }
}
