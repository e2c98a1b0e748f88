//! Putting an object.
//!
//! [`Put`] decides by size what becomes of the bytes: into the commit itself, into a group that
//! replicates, or into coded groups, extent after extent. An [`ExtentWriter`] sends the stripes of
//! one extent; when too few disks go along, the stripes still in memory begin another extent in
//! another group. One commit at the end makes it all visible; it names the slots that miss
//! something, and if a group's slots moved meanwhile, those as well.

mod choice;
mod extent;
mod hint;
mod progress;
mod shard;

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use codec::SlotMask;
use env::rpc::CallError;
use env::{Clock, Elapsed, Env};
use futures_util::stream::{FusedStream, Stream, StreamExt, unfold};
use proto::limits::{INLINE_BYTES_MAX, SLOTS_MAX};
use proto::{
    BucketName, CommandId, Epoch, ErrorCode, Failure, GroupId, InvalidInput, ObjectKey, TenantName,
    TenantTag, Timestamp, Version, wire,
};

use crate::bucket::PutOptions;
use crate::cluster::{Shared, ask};
use crate::error::{Error, PutError};
use crate::group::Group;
use crate::object::Receipt;
use crate::source::{Feed, Source};
use choice::{Choice, choose};
use extent::{End, ExtentWriter, Limits, Written, slots_missing};
use hint::{Hints, Told};

/// Extents in a row of which nothing came through, before the put fails.
const FRUITLESS_MAX: u32 = 6;
/// Of these, how many go to another group at the first failure.
const RESTARTS_MAX: u32 = 3;
/// Commits that were refused since groups changed, before the put fails.
const STALE_COMMITS_MAX: u32 = 4;
/// Groups that are avoided at a time.
const AVOID_MAX: usize = 64;

/// One put.
pub(crate) struct Put<'a, E: Env> {
    shared: &'a Shared<E>,
    tenant: &'a TenantName,
    bucket: &'a BucketName,
    key: &'a ObjectKey,
    options: PutOptions,
    idle: Duration,
}

/// Where to write, and under which grant.
struct Grant {
    granted: Timestamp,
    small_bytes_max: usize,
    small_groups: Vec<Group>,
    groups: Vec<Group>,
}

impl Grant {
    /// The groups for objects of this kind.
    fn offered(&self, is_small: bool) -> &[Group] {
        if is_small { &self.small_groups } else { &self.groups }
    }

    /// A size for which the next grants have groups of this kind and no others.
    fn size_of_kind(&self, is_small: bool) -> u64 {
        let small_max = self.small_bytes_max as u64;
        if is_small { small_max } else { small_max.max(INLINE_BYTES_MAX as u64) + 1 }
    }
}

/// What has been written.
#[derive(Default)]
struct Body {
    inline: Bytes,
    extents: Vec<wire::Extent>,
    below_policy: bool,
    size: u64,
    crc32c: u32,
}

impl<'a, E: Env> Put<'a, E> {
    pub(crate) fn new(
        shared: &'a Shared<E>,
        tenant: &'a TenantName,
        bucket: &'a BucketName,
        key: &'a ObjectKey,
        options: PutOptions,
    ) -> Self {
        let idle = shared.limit(options.timeout);
        Self { shared, tenant, bucket, key, options, idle }
    }

    pub(crate) async fn run<S: Source>(self, source: S) -> Result<Receipt, PutError> {
        let mut feed = Feed::new(source);
        if self.moving(feed.ends_within(INLINE_BYTES_MAX)).await? {
            let inline = self.moving(feed.stripe(INLINE_BYTES_MAX)).await?.unwrap_or_default();
            let (size, crc32c) = feed.totals();
            return self.commit(Body { inline, size, crc32c, ..Body::default() }).await;
        }
        let (grant, is_small) = self.first_grant(&mut feed).await?;
        let geometry = grant.offered(is_small).first().ok_or_else(no_group)?.geometry();
        // A small object has been read to its end.
        let object_bytes = if is_small { Some(feed.totals().0) } else { self.options.size_hint };
        let told = Told { tenant: self.tenant, bucket: self.bucket, key: self.key, geometry, object_bytes };
        let mut body = Body::default();
        {
            let stripe_bytes = geometry.stripe_bytes();
            let stripes = unfold(&mut feed, move |feed| async move {
                let stripe = feed.stripe(stripe_bytes).await.transpose()?;
                Some((stripe, feed))
            });
            let stripes = pin!(stripes.fuse());
            self.write(grant, is_small, told, stripes, &mut body).await?;
        }
        (body.size, body.crc32c) = feed.totals();
        self.commit(body).await
    }

    /// A grant with groups for what the source turns out to be, and whether that is a small object. The hint
    /// may have been wrong, or there was a place for objects of the other kind alone: then it is asked again.
    async fn first_grant<S: Source>(&self, feed: &mut Feed<S>) -> Result<(Grant, bool), PutError> {
        let hint = self.options.size_hint.filter(|bytes| *bytes > INLINE_BYTES_MAX as u64);
        let (grant, is_small) = self.grant_for(feed, hint).await?;
        if !grant.offered(is_small).is_empty() {
            return Ok((grant, is_small));
        }
        let is_longer = !grant.small_groups.is_empty();
        self.grant_for(feed, is_longer.then(|| grant.size_of_kind(false))).await
    }

    async fn grant_for<S: Source>(
        &self,
        feed: &mut Feed<S>,
        hint: Option<u64>,
    ) -> Result<(Grant, bool), PutError> {
        let grant = self.open(hint, &[]).await?;
        let has_small = grant.small_bytes_max > 0 && !grant.small_groups.is_empty();
        let is_small = has_small && self.moving(feed.ends_within(grant.small_bytes_max)).await?;
        Ok((grant, is_small))
    }

    /// Writes all stripes, extent after extent.
    async fn write<S>(
        &self,
        mut grant: Grant,
        is_small: bool,
        told: Told<'_>,
        mut stripes: S,
        body: &mut Body,
    ) -> Result<(), PutError>
    where
        S: Stream<Item = Result<Bytes, PutError>> + FusedStream + Unpin + Send,
    {
        let size_hint = grant.size_of_kind(is_small);
        let mut begun = 0;
        let mut put_id = None;
        let mut backlog = VecDeque::new();
        let mut avoid: Vec<GroupId> = Vec::new();
        let mut fruitless = 0;
        loop {
            let offered = if is_small { grant.small_groups } else { grant.groups };
            let alike = offered.into_iter().filter(|group| group.geometry() == told.geometry).collect();
            let choice: Choice =
                choose(alike, &avoid, |place| self.shared.has_failed(place)).ok_or_else(no_group)?;
            let limits = Limits {
                idle: self.idle,
                patience: self.shared.options.shard_timeout,
                may_restart: fruitless < RESTARTS_MAX,
            };
            let id = self.shared.extent_id(grant.granted);
            let before = body.extents.iter().map(|extent| extent.length).sum();
            let hints = Hints::new(told, *put_id.get_or_insert(id), begun, before);
            begun += 1;
            let tag = TenantTag::of(self.tenant);
            let writer = ExtentWriter::new(self.shared, tag, id, choice, hints, limits);
            let Written { extent, below_policy, end } = writer.run(&mut stripes, &mut backlog).await?;
            fruitless = if extent.is_some() { 0 } else { fruitless + 1 };
            body.below_policy |= below_policy && extent.is_some();
            body.extents.extend(extent);
            match end {
                End::Source => return Ok(()),
                End::Full => match self.moving_next(&mut stripes, &backlog).await? {
                    Some(stripe) => backlog.extend(stripe),
                    None => return Ok(()),
                },
                End::Broken { durable, needed, reasons, .. } if fruitless >= FRUITLESS_MAX => {
                    return Err(PutError::NotDurable { durable, needed, reasons });
                }
                End::Broken { group, reasons, .. } => {
                    tracing::debug!(%group, %reasons, "put goes on in another group");
                    if avoid.len() < AVOID_MAX {
                        avoid.push(group);
                    }
                }
            }
            grant = self.open(Some(size_hint), &avoid).await?;
        }
    }

    /// After a full extent: is there more? `Some(None)` when the backlog has it already.
    async fn moving_next<S>(
        &self,
        stripes: &mut S,
        backlog: &VecDeque<Bytes>,
    ) -> Result<Option<Option<Bytes>>, PutError>
    where
        S: Stream<Item = Result<Bytes, PutError>> + FusedStream + Unpin + Send,
    {
        if !backlog.is_empty() {
            return Ok(Some(None));
        }
        if stripes.is_terminated() {
            return Ok(None);
        }
        let next = async { stripes.next().await.transpose() };
        Ok(self.moving(next).await?.map(Some))
    }

    /// Asks where to write an object of about that size. Groups and disks that failed are avoided, if that
    /// leaves any.
    async fn open(&self, size_hint: Option<u64>, avoid: &[GroupId]) -> Result<Grant, PutError> {
        let call = wire::OpenPut {
            tenant: self.tenant.to_string(),
            bucket: self.bucket.to_string(),
            bytes_hint: size_hint.unwrap_or(0),
            size_unknown: size_hint.is_none(),
            avoid_groups: avoid.iter().map(|group| group.0).collect(),
            avoid_disks: self.shared.failed_disks(),
        };
        let avoids = !call.avoid_groups.is_empty() || !call.avoid_disks.is_empty();
        let reply = match ask!(self.shared, self.idle, OpenPut(call.clone())) {
            Err(error) if avoids && error.code() == Some(ErrorCode::NoLegalPlace) => {
                let call = wire::OpenPut { avoid_groups: Vec::new(), avoid_disks: Vec::new(), ..call };
                ask!(self.shared, self.idle, OpenPut(call))?
            }
            other => other?,
        };
        let parse = |placements: Vec<wire::Placement>| {
            placements.into_iter().map(Group::parse).collect::<Result<Vec<_>, InvalidInput>>()
        };
        Ok(Grant {
            granted: Timestamp::from_millis(reply.granted_ms),
            small_bytes_max: reply.small_bytes_max as usize,
            small_groups: parse(reply.small_groups)?,
            groups: parse(reply.groups)?,
        })
    }

    /// Makes the object visible. Refusals because a group's slots moved are answered by naming those
    /// slots as missing, as long as enough remain.
    async fn commit(&self, mut body: Body) -> Result<Receipt, PutError> {
        let command_id = self.shared.command_id();
        for _ in 0..STALE_COMMITS_MAX {
            match ask!(self.shared, self.idle, CommitObject(self.commit_call(&body, command_id))) {
                Ok(reply) => return Ok(receipt(&reply, &body)),
                Err(Error::Refused(failure)) if failure.code == ErrorCode::StaleEpoch => {
                    self.mark_moved(&mut body.extents, &failure).await?;
                }
                Err(error) => return Err(commit_error(error)),
            }
        }
        let text = "groups kept changing";
        Err(PutError::PlacementChanged(Failure::new(ErrorCode::StaleEpoch, text)))
    }

    fn commit_call(&self, body: &Body, command_id: CommandId) -> wire::CommitObject {
        wire::CommitObject {
            tenant: self.tenant.to_string(),
            bucket: self.bucket.to_string(),
            key: self.key.as_bytes().clone(),
            command_id: command_id.to_wire(),
            precondition: self.options.precondition.to_wire(),
            size: body.size,
            crc32c: body.crc32c,
            content_type: self.options.content_type.clone(),
            user_metadata: self.options.user_metadata.clone(),
            inline: body.inline.clone(),
            extents: body.extents.clone(),
        }
    }

    /// Adds the slots that moved since their extent was written to what it misses.
    async fn mark_moved(&self, extents: &mut [wire::Extent], failure: &Failure) -> Result<(), PutError> {
        let changed = || PutError::PlacementChanged(failure.clone());
        let mut fresh: BTreeMap<u32, Group> = BTreeMap::new();
        for extent in extents.iter() {
            if let Entry::Vacant(entry) = fresh.entry(extent.group) {
                let group = self.shared.placement(GroupId(extent.group), self.idle).await;
                entry.insert(group.map_err(|error| match error {
                    Error::Unavailable(_) => PutError::Service(error),
                    _ => changed(),
                })?);
            }
        }
        let mut is_news = false;
        for extent in extents {
            let Some(group) = fresh.get(&extent.group) else { continue };
            let missing = with_moved(extent, group).ok_or_else(changed)?;
            is_news |= missing != extent.missing;
            extent.missing = missing;
        }
        // The same again would be refused again.
        if is_news { Ok(()) } else { Err(changed()) }
    }

    /// Waits for the source, or the like, within the idle limit.
    async fn moving<T: Send>(
        &self,
        work: impl Future<Output = Result<T, PutError>> + Send,
    ) -> Result<T, PutError> {
        match self.shared.env.clock().timeout(self.idle, work).await {
            Ok(result) => result,
            Err(Elapsed) => Err(PutError::DeadlineExceeded(self.idle)),
        }
    }
}

/// What the extent misses in its group as it is now; none when too little is left for a commit.
fn with_moved(extent: &wire::Extent, group: &Group) -> Option<u32> {
    let missing = SlotMask::from_wire(extent.missing, group.slots().min(SLOTS_MAX)).ok()?;
    let missing = missing.union(group.changed_since(Epoch(extent.epoch)));
    (group.slots() - missing.len() >= group.min_durable).then(|| missing.to_wire())
}

fn no_group() -> PutError {
    let text = "the metadata service offered no group to write to";
    Error::Refused(Failure::new(ErrorCode::NoLegalPlace, text)).into()
}

fn commit_error(error: Error) -> PutError {
    match error {
        Error::Refused(failure) if failure.code == ErrorCode::PreconditionFailed => {
            PutError::PreconditionFailed(failure)
        }
        // An earlier attempt may have been carried out, and its outcome forgotten since.
        Error::Refused(failure) if failure.code == ErrorCode::CommandExpired => {
            PutError::Unknown(CallError::Failed(failure))
        }
        // Whatever the last attempt says, an earlier one may have been carried out.
        Error::Unavailable(error) => PutError::Unknown(error),
        other => PutError::Service(other),
    }
}

fn receipt(reply: &wire::CommitObjectReply, body: &Body) -> Receipt {
    Receipt {
        version: Version(reply.version),
        size: body.size,
        crc32c: body.crc32c,
        modified: Timestamp::from_millis(reply.modified_ms),
        tolerates: reply.tolerance.unwrap_or_default().into(),
        below_policy: body.below_policy,
        slots_missing: slots_missing(&body.extents),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::placement;

    /// Moved slots are added to what an extent misses, once, and only while enough remain.
    #[test]
    fn moved_slots_are_named() {
        let mut wire = placement(4, 2);
        wire.epoch = 9;
        wire.places[3].since_epoch = 8;
        let extent = wire::Extent { epoch: 7, missing: 0, ..Default::default() };
        let group = Group::parse(wire.clone()).unwrap();
        assert_eq!(with_moved(&extent, &group), Some(0b1000));
        assert_eq!(with_moved(&wire::Extent { epoch: 8, ..extent.clone() }, &group), Some(0));
        assert_eq!(with_moved(&wire::Extent { missing: 0b1000, ..extent.clone() }, &group), Some(0b1000));
        assert_eq!(with_moved(&wire::Extent { missing: 0b1, ..extent.clone() }, &group), None);
        assert_eq!(with_moved(&wire::Extent { missing: 0b100_0000, ..extent }, &group), None);
    }

    /// A refused precondition is told apart from a commit whose fate is open.
    #[test]
    fn commit_errors_are_told_apart() {
        let refused = |code| commit_error(CallError::from(Failure::new(code, "x")).into());
        assert!(matches!(refused(ErrorCode::PreconditionFailed), PutError::PreconditionFailed(_)));
        for code in [ErrorCode::Unavailable, ErrorCode::NotLeader, ErrorCode::CommandExpired] {
            assert!(matches!(refused(code), PutError::Unknown(_)), "{}", code.name());
        }
        assert!(matches!(refused(ErrorCode::NoSuchBucket), PutError::Service(Error::Refused(_))));
        let silent = CallError::TimedOut { address: "a".into(), call: "x", after: Duration::ZERO };
        assert!(matches!(commit_error(silent.into()), PutError::Unknown(_)));
    }
}
