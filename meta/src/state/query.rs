//! Questions about single things: objects, names, the map.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use env::{KvRead, Order, StorageError};
use placement::{Group, Tolerance, to_placement, tolerance};
use proto::limits::WORK_PAGE_MAX;
use proto::{BucketId, ErrorCode, ExtentId, GroupId, NodeId, ObjectKey, TenantId, wire};

use crate::state::error::{Error, corrupt, refuse};
use crate::state::tx::{decode, row};
use crate::state::{Machine, tables as t, to_placement_with_kept};

/// Extents of one page: 48 bytes each.
const EXTENTS_PAGE_MAX: usize = 16 * WORK_PAGE_MAX;

/// What is under a key, and where its bytes are.
///
/// `tolerance` is absent for an object without extents: that is as safe as the metadata service, which
/// the caller knows better.
///
/// # Errors
///
/// `NoSuchTenant`, `NoSuchBucket`, `NoSuchObject`, `InvalidRequest`; those of the store.
pub fn get_object(
    machine: &Machine,
    kv: &impl KvRead,
    get: &wire::GetObject,
) -> Result<wire::GetObjectReply, Error> {
    let bucket = BucketId(machine.bucket(&get.tenant, &get.bucket)?.id);
    let key = ObjectKey::parse(get.key.clone())?;
    let found: Option<wire::ObjectRow> = row(kv, t::OBJECTS, &t::object_key(bucket, key.as_bytes()))?;
    let found = found.ok_or_else(|| {
        refuse(ErrorCode::NoSuchObject, format!("bucket {} has no object under {key:?}", get.bucket))
    })?;
    let mut reply = wire::GetObjectReply { object: Some(describe(&get.key, &found)), ..Default::default() };
    if get.head {
        return Ok(reply);
    }
    let mut withstands = Tolerance::UNLIMITED;
    let mut groups = BTreeSet::new();
    for extent in &found.extents {
        let (extent, of_extent) = locate(machine, kv, extent)?;
        withstands = withstands.min_of(of_extent);
        if groups.insert(extent.group) {
            let group = group_of(machine, GroupId(extent.group))?;
            reply.placements.push(to_placement_with_kept(machine.map(), kv, group)?);
        }
        reply.extents.push(extent);
    }
    reply.tolerance = (!found.extents.is_empty()).then(|| withstands.into());
    reply.inline = found.inline;
    Ok(reply)
}

fn locate(
    machine: &Machine,
    kv: &impl KvRead,
    extent: &wire::ExtentRef,
) -> Result<(wire::Extent, Tolerance), StorageError> {
    let id = ExtentId::from_wire(&extent.id).map_err(|e| corrupt("an object's extent").because(e))?;
    let group = group_of(machine, GroupId(extent.group))?;
    let found: Option<wire::ExtentRow> = row(kv, t::EXTENTS, &t::extent_key(group.id, id))?;
    let found = found.ok_or_else(|| corrupt(format!("extent {id} of group {} has no row", group.id)))?;
    let profile = machine.map().profiles().get(&group.profile);
    let profile = profile.ok_or_else(|| corrupt(format!("profile {} is unknown", group.profile)))?;
    let withstands = tolerance(machine.map(), profile, &group.slots, found.missing);
    Ok((to_extent(id, group, &found), withstands))
}

fn to_extent(id: ExtentId, group: &Group, row: &wire::ExtentRow) -> wire::Extent {
    wire::Extent {
        id: id.to_wire(),
        group: group.id.0,
        epoch: group.epoch.0,
        length: row.length,
        missing: row.missing,
    }
}

/// An object as callers see it.
pub(super) fn describe(key: &Bytes, row: &wire::ObjectRow) -> wire::Object {
    wire::Object {
        key: key.clone(),
        version: row.version,
        size: row.size,
        crc32c: row.crc32c,
        modified_ms: row.modified_ms,
        content_type: row.content_type.clone(),
        user_metadata: row.user_metadata.clone(),
    }
}

fn group_of(machine: &Machine, group: GroupId) -> Result<&Group, StorageError> {
    machine.map().groups().get(&group).ok_or_else(|| corrupt(format!("group {group} is unknown")))
}

pub(super) fn wrong_map(error: proto::InvalidInput) -> StorageError {
    corrupt("the map contradicts itself").because(error)
}

/// A group with all that a writer needs to reach its slots as they are now.
///
/// # Errors
///
/// `NotMine` when there is no such group.
pub fn get_placement(machine: &Machine, get: &wire::GetPlacement) -> Result<wire::GetPlacementReply, Error> {
    let group = machine.map().groups().get(&GroupId(get.group));
    let group =
        group.ok_or_else(|| refuse(ErrorCode::NotMine, format!("there is no group {}", get.group)))?;
    let placement = to_placement(machine.map(), group).map_err(wrong_map)?;
    Ok(wire::GetPlacementReply { placement: Some(placement) })
}

/// The buckets of a tenant, by name.
///
/// # Errors
///
/// `NoSuchTenant`, `InvalidRequest`.
pub fn list_buckets(machine: &Machine, list: &wire::ListBuckets) -> Result<wire::ListBucketsReply, Error> {
    let tenant = TenantId(machine.tenant(&list.tenant)?.id);
    let buckets = machine.buckets_of(tenant).map(|row| machine.describe_bucket(row)).collect();
    Ok(wire::ListBucketsReply { buckets })
}

/// All tenants, by name.
///
/// # Errors
///
/// `NotBootstrapped`.
pub fn list_tenants(machine: &Machine) -> Result<wire::ListTenantsReply, Error> {
    machine.founded()?;
    let tenants = machine.tenants.values().map(|row| machine.describe_tenant(row)).collect();
    Ok(wire::ListTenantsReply { tenants })
}

/// The whole cluster map.
pub fn get_map(machine: &Machine) -> wire::GetMapReply {
    wire::GetMapReply { map: Some(machine.map().into()) }
}

/// Every group with a slot, or the source of a move, on the node's disks, by id.
///
/// # Errors
///
/// `StaleNode` when there is no such node; `Corrupt`.
pub fn get_node_map(machine: &Machine, node: NodeId) -> Result<wire::GetNodeMapReply, Error> {
    known_node(machine, node)?;
    let map = machine.map();
    let groups: BTreeMap<GroupId, &Group> =
        map.disks_of(node).flat_map(|disk| map.groups_on(disk.id)).map(|group| (group.id, group)).collect();
    let placements: Result<Vec<_>, _> = groups.into_values().map(|group| to_placement(map, group)).collect();
    Ok(wire::GetNodeMapReply { map_version: map.version(), placements: placements.map_err(wrong_map)? })
}

pub(super) fn known_node(machine: &Machine, node: NodeId) -> Result<(), Error> {
    machine.founded()?;
    if machine.map().nodes().contains_key(&node) {
        return Ok(());
    }
    Err(refuse(ErrorCode::StaleNode, format!("node {node} is not registered: register it first")))
}

/// A page of a group's committed extents, by id, and the cluster time of the state that it is read from.
///
/// Together they are a proof: an extent of the page's range that is not in it, and whose grant was over at
/// that time, is not committed and never will be, since time in `apply` never falls.
///
/// # Errors
///
/// `InvalidRequest` for an unknown group; those of the store.
pub fn list_group_extents(
    machine: &Machine,
    kv: &impl KvRead,
    list: &wire::ListGroupExtents,
) -> Result<wire::ListGroupExtentsReply, Error> {
    machine.founded()?;
    let group = machine.map().groups().get(&GroupId(list.group));
    let group = group
        .ok_or_else(|| refuse(ErrorCode::InvalidRequest, format!("there is no group {}", list.group)))?;
    let mut range = t::rows_of(list.group);
    if !list.after.is_empty() {
        range = range.after(&t::extent_key(group.id, ExtentId::from_wire(&list.after)?));
    }
    let limit = page_limit(list.limit, EXTENTS_PAGE_MAX);
    let mut rows = kv.scan(t::EXTENTS, &range, Order::Ascending, limit.saturating_add(1))?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let extents: Result<Vec<_>, StorageError> = rows
        .into_iter()
        .map(|(key, value)| Ok(to_extent(t::extent_of(&key)?.1, group, &decode(t::EXTENTS, value)?)))
        .collect();
    let cluster_time_ms = machine.totals().cluster_time_ms;
    Ok(wire::ListGroupExtentsReply { extents: extents?, more, cluster_time_ms })
}

/// What the caller asks for, 0 standing for all that is allowed.
pub(super) fn page_limit(asked: u32, at_most: usize) -> usize {
    match usize::try_from(asked) {
        Ok(0) | Err(_) => at_most,
        Ok(asked) => asked.min(at_most),
    }
}
