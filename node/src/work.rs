//! The work loop: takes work from the metadata service, does it, and reports what the disk has proven.
//!
//! All work is idempotent, and the metadata service derives it from its tables each time: a report
//! that is lost only makes the same work be offered again.

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
use crate::rebuild::{ExtentToMake, SlotMaker};
use crate::store::{Durable, Removed};
use crate::view::Placement;

/// Extents of a group that are made under one hold of its lock.
const EXTENTS_PER_PAGE: u32 = 8;
/// Failures in a row after which people hear of it.
const FAILURES_TO_WARN: u32 = 3;

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
            let taken = while_working(&mut running, &mut ended, take(&node)).await;
            let offers = taken.unwrap_or_else(|error| {
                debug!(%error, "no work taken");
                Vec::new()
            });
            // While there is some there may be more; once there is none, the answer to a heartbeat tells of
            // what is new.
            due = !offers.is_empty();
            for Offer { job, placement } in board.choose(offers, node.env.clock().now()) {
                running.push(perform(node.clone(), job, placement).boxed());
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
        (Job::Rebuild { disk, slot, .. }, Some(placement)) => rebuild(&node, disk, placement, slot).await,
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
    let Some(found) = page.extents.first() else { return Ok(Done::Obsolete) };
    let to_make = ExtentToMake::parse(found, &placement)?;
    if to_make.extent != extent {
        return Ok(Done::Obsolete);
    }
    SlotMaker::new(node, &store, &placement, slot).make_extent(to_make).await?;
    Ok(Done::Made(placement.epoch))
}

async fn rebuild<E: Env>(
    node: &Node<E>,
    disk: DiskId,
    mut placement: Placement,
    slot: SlotIndex,
) -> Result<Done, Failure> {
    let store = store_of(node, disk)?;
    let group = placement.group;
    info!(%group, %slot, %disk, "rebuild begins");
    let (mut after, mut extents, mut is_full) = (None, 0_u64, false);
    loop {
        let _alone = node.groups.lock(group).await;
        let page = list_extents(node, group, after, EXTENTS_PER_PAGE, Timestamp::ZERO).await?;
        let maker = SlotMaker::new(node, &store, &placement, slot);
        let mut left_out = Vec::new();
        for found in &page.extents {
            let to_make = ExtentToMake::parse(found, &placement)?;
            // What the slot is known to miss is filled, and reported, extent by extent.
            if !to_make.missing.contains(slot) && !make_if_it_fits(&maker, to_make, &mut is_full).await? {
                left_out.push(to_make.extent);
            }
            (after, extents) = (Some(to_make.extent), extents + 1);
        }
        report_left_out(node, disk, &placement, slot, left_out).await?;
        if !page.more {
            break;
        }
        if page.extents.is_empty() {
            return Err(Failure::new(ErrorCode::Internal, "a page of no extents that is not the last"));
        }
        if let Some(newer) = node.placement(group) {
            placement = newer;
        }
        if !placement.has(slot, disk) {
            return Ok(Done::Obsolete);
        }
    }
    info!(%group, %slot, %disk, extents, "rebuild is whole");
    Ok(Done::Made(placement.epoch))
}

/// Makes what a rebuild needs of an extent; false when the disk `is_full` and the extent has to be left out. As
/// long as another disk still has the slot's shards nothing is left out: it keeps them until all are here.
async fn make_if_it_fits<E: Env>(
    maker: &SlotMaker<'_, E>,
    extent: ExtentToMake,
    is_full: &mut bool,
) -> Result<bool, Failure> {
    if *is_full {
        return maker.has_extent(extent).await;
    }
    match maker.make_extent(extent).await {
        Ok(()) => Ok(true),
        Err(error) if error.code == ErrorCode::DiskFull && !maker.has_source() => {
            *is_full = true;
            Ok(false)
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
