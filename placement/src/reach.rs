//! A group with all that a peer needs to reach its slots.

use proto::{DiskId, InvalidInput, wire};

use crate::group::{Group, Slot};
use crate::map::ClusterMap;
use crate::topology::{Health, Node};

/// The message that clients and nodes get of a group. A disk that is given up is not better than suspect: it is
/// asked last, and nothing new goes there.
///
/// # Errors
///
/// When the map does not know the group's profile or one of its disks.
pub fn to_placement(map: &ClusterMap, group: &Group) -> Result<wire::Placement, InvalidInput> {
    let bad = |rule: String| InvalidInput::new(format!("group {}: {rule}", group.id));
    let profile = map.profiles().get(&group.profile);
    let profile = profile.ok_or_else(|| bad(format!("profile {} is unknown", group.profile)))?;
    let places: Result<Vec<_>, _> = group.slots.iter().map(|slot| to_place(map, slot)).collect();
    let code = wire::Profile::from(profile);
    Ok(wire::Placement {
        group: group.id.0,
        epoch: group.epoch.0,
        profile: group.profile.0,
        k: code.k,
        m: code.m,
        shard_bytes: code.shard_bytes,
        min_durable: code.min_durable,
        below_policy: group.below_policy,
        places: places.map_err(bad)?,
    })
}

fn to_place(map: &ClusterMap, slot: &Slot) -> Result<wire::Place, String> {
    let node = node_of(map, slot.disk)?;
    let mut place = wire::Place {
        disk: slot.disk.0,
        node: node.id.0,
        address: node.address.clone(),
        rack: format!("{}/{}", node.site, node.rack),
        health: health_of(map, slot.disk).to_wire(),
        state: slot.state.to_wire(),
        since_epoch: slot.since_epoch.0,
        ..Default::default()
    };
    if let Some(source) = slot.source() {
        let node = node_of(map, source)?;
        place.source_disk = source.0;
        place.source_node = node.id.0;
        place.source_address.clone_from(&node.address);
        place.source_health = health_of(map, source).to_wire();
    }
    Ok(place)
}

fn health_of(map: &ClusterMap, disk: DiskId) -> Health {
    let health = map.disk_health(disk);
    if map.disk_duty(disk).is_given_up() { health.max(Health::Suspect) } else { health }
}

fn node_of(map: &ClusterMap, disk: DiskId) -> Result<&Node, String> {
    map.disk_and_node(disk).map(|(_, node)| node).ok_or_else(|| format!("disk {disk} is unknown"))
}
