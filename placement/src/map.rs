//! The cluster map.

use std::collections::BTreeMap;

use proto::{DiskId, DiskUuid, GroupId, InvalidInput, NodeId, ProfileId, wire};

use crate::domain::{Domain, DomainRef, FailureDomain};
use crate::group::Group;
use crate::profile::Profile;
use crate::topology::{Disk, Duty, Health, Node};
use crate::usage::{DiskUse, NodeUse, Writable, count};

/// Nodes, disks, profiles and groups, and the indexes over them.
///
/// Rows go in with the four `put_` methods, which insert or replace; each names what it refers to
/// first (a disk's node, a group's disks and profile), and nothing is ever removed. What the map
/// answers depends on the rows alone, never on the order in which they came.
///
/// A change of a group costs the logarithm of the map, a change of a disk's health or duty also a visit
/// to each group on it.
#[derive(Clone, Debug, Default)]
pub struct ClusterMap {
    version: u64,
    nodes: BTreeMap<NodeId, Node>,
    disks: BTreeMap<DiskId, Disk>,
    profiles: BTreeMap<ProfileId, Profile>,
    groups: BTreeMap<GroupId, Group>,
    by_uuid: BTreeMap<DiskUuid, DiskId>,
    node_use: BTreeMap<NodeId, NodeUse>,
    disk_use: BTreeMap<DiskId, DiskUse>,
    writable: BTreeMap<ProfileId, Writable>,
}

impl ClusterMap {
    /// A map without rows, version 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raised by the owner of the map with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Sets the version; the map itself never does.
    pub fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    /// All nodes by id.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }

    /// All disks by id.
    pub fn disks(&self) -> &BTreeMap<DiskId, Disk> {
        &self.disks
    }

    /// All profiles by id.
    pub fn profiles(&self) -> &BTreeMap<ProfileId, Profile> {
        &self.profiles
    }

    /// All groups by id.
    pub fn groups(&self) -> &BTreeMap<GroupId, Group> {
        &self.groups
    }

    /// The disk with this identity in its superblock.
    pub fn disk_by_uuid(&self, uuid: DiskUuid) -> Option<&Disk> {
        self.by_uuid.get(&uuid).and_then(|id| self.disks.get(id))
    }

    /// The disks of a node, by id.
    pub fn disks_of(&self, node: NodeId) -> impl Iterator<Item = &Disk> {
        let ids = self.node_use.get(&node).into_iter().flat_map(|node| &node.disks);
        ids.filter_map(|id| self.disks.get(id))
    }

    /// The groups with a slot, or the source of a move, on a disk, by id.
    pub fn groups_on(&self, disk: DiskId) -> impl Iterator<Item = &Group> {
        let ids = self.disk_use.get(&disk).into_iter().flat_map(|disk| &disk.groups);
        ids.filter_map(|id| self.groups.get(id))
    }

    /// Slots of all profiles on a disk; sources of moves do not count.
    pub fn slots_on(&self, disk: DiskId) -> u64 {
        self.disk_use.get(&disk).map_or(0, |disk| disk.slots.values().copied().map(u64::from).sum())
    }

    /// Slots of one profile on a disk.
    pub fn profile_slots_on(&self, profile: ProfileId, disk: DiskId) -> u64 {
        self.disk_use.get(&disk).and_then(|disk| disk.slots.get(&profile)).copied().map_or(0, u64::from)
    }

    /// The disk's health or its node's, whichever is worse. A disk that the map does not know is down.
    pub fn disk_health(&self, disk: DiskId) -> Health {
        self.disk_and_node(disk).map_or(Health::Down, |(disk, node)| disk.health.max(node.health))
    }

    /// The domain of `kind` that a disk lies in; `None` when the map does not know the disk.
    pub fn domain_of(&self, kind: FailureDomain, disk: DiskId) -> Option<Domain> {
        self.domain_ref(kind, disk).map(DomainRef::to_domain)
    }

    /// Inserts or replaces a node.
    pub fn put_node(&mut self, node: Node) {
        let id = node.id;
        let health = node.health;
        let before = self.nodes.insert(id, node).map(|node| node.health);
        if before != Some(health) {
            self.recount(id);
            let disks: Vec<DiskId> = self.disks_of(id).map(|disk| disk.id).collect();
            disks.into_iter().for_each(|disk| self.file_groups_on(disk));
        }
    }

    /// Inserts or replaces a disk.
    ///
    /// # Errors
    ///
    /// When its id is 0, its node is unknown, or another disk has its uuid. Nothing is changed then.
    pub fn put_disk(&mut self, disk: Disk) -> Result<(), InvalidInput> {
        let id = disk.id;
        let bad = |rule: String| Err(InvalidInput::new(format!("disk {id}: {rule}")));
        if id.0 == 0 {
            return bad("0 stands for no disk and cannot be an id".into());
        }
        if !self.nodes.contains_key(&disk.node) {
            return bad(format!("its node {} is unknown; register the node first", disk.node));
        }
        if let Some(other) = self.by_uuid.get(&disk.uuid).filter(|other| **other != id) {
            return bad(format!("disk {other} has the same uuid {}", disk.uuid));
        }
        let (node, uuid) = (disk.node, disk.uuid);
        if let Some(before) = self.disks.insert(id, disk) {
            self.by_uuid.remove(&before.uuid);
            if before.node != node {
                self.node_use.entry(before.node).or_default().disks.remove(&id);
                self.recount(before.node);
            }
        }
        self.by_uuid.insert(uuid, id);
        self.node_use.entry(node).or_default().disks.insert(id);
        self.recount(node);
        self.file_groups_on(id);
        Ok(())
    }

    /// Inserts or replaces a profile.
    ///
    /// # Errors
    ///
    /// When another profile has its name, when it changes the code of a profile (what was written under
    /// it could not be read any more), or when its small objects go to a profile that does not
    /// replicate. Nothing is changed then.
    pub fn put_profile(&mut self, profile: Profile) -> Result<(), InvalidInput> {
        let bad = |rule: String| Err(InvalidInput::new(format!("profile {}: {rule}", profile.name())));
        if let Some(other) = self.profile_named(profile.name().as_str())
            && other.id() != profile.id()
        {
            return bad(format!("profile {} has the same name", other.id()));
        }
        if self.profiles.get(&profile.id()).is_some_and(|before| !before.same_code(&profile)) {
            return bad("k, m and shard_bytes of a profile cannot be changed; make a new one".into());
        }
        let small = profile.small().and_then(|small| self.profiles.get(&small.profile));
        if let Some(small) = small.filter(|small| small.k() != 1) {
            return bad(format!(
                "small objects go to {}, which has k = {}; expected 1",
                small.name(),
                small.k()
            ));
        }
        self.profiles.insert(profile.id(), profile);
        Ok(())
    }

    /// Inserts or replaces a group. Whether it keeps the failure-domain policy is not looked at.
    ///
    /// # Errors
    ///
    /// When its profile or one of its disks is unknown, when it has not exactly `k + m` slots on
    /// different disks, when it changes the profile, when the epoch falls, or when a slot's disk changes
    /// and the epoch does not rise. Nothing is changed then.
    pub fn put_group(&mut self, group: Group) -> Result<(), InvalidInput> {
        self.check_row(&group).map_err(|rule| InvalidInput::new(format!("group {}: {rule}", group.id)))?;
        let id = group.id;
        if let Some(before) = self.groups.remove(&id) {
            before.disks().for_each(|disk| {
                self.disk_use.entry(disk).or_default().groups.remove(&id);
            });
            self.count_slots(&before, false);
        }
        group.disks().for_each(|disk| {
            self.disk_use.entry(disk).or_default().groups.insert(id);
        });
        self.count_slots(&group, true);
        self.groups.insert(id, group);
        self.file_group(id);
        Ok(())
    }

    /// The profile of this name.
    pub fn profile_named(&self, name: &str) -> Option<&Profile> {
        self.profiles.values().find(|profile| profile.name().as_str() == name)
    }

    pub(crate) fn disk_and_node(&self, disk: DiskId) -> Option<(&Disk, &Node)> {
        let disk = self.disks.get(&disk)?;
        Some((disk, self.nodes.get(&disk.node)?))
    }

    pub(crate) fn domain_ref(&self, kind: FailureDomain, disk: DiskId) -> Option<DomainRef<'_>> {
        self.disk_and_node(disk).map(|(disk, node)| DomainRef::of(kind, disk, node))
    }

    /// What the disk is meant for. A disk that the map does not know is retired.
    pub fn disk_duty(&self, disk: DiskId) -> Duty {
        self.disks.get(&disk).map_or(Duty::Retired, |disk| disk.duty)
    }

    /// Up, in service and with a size: fit to take a slot.
    pub fn is_usable(&self, disk: &Disk) -> bool {
        disk.capacity_bytes > 0 && disk.duty == Duty::InService && self.disk_health(disk.id) == Health::Up
    }

    /// Is new data fit for the disk's slots?
    pub(crate) fn is_writable(&self, disk: DiskId) -> bool {
        self.disk_health(disk) == Health::Up && !self.disk_duty(disk).is_given_up()
    }

    pub(crate) fn node_use(&self, node: NodeId) -> Option<&NodeUse> {
        self.node_use.get(&node)
    }

    pub(crate) fn writable(&self, profile: ProfileId) -> Option<&Writable> {
        self.writable.get(&profile)
    }

    fn check_row(&self, group: &Group) -> Result<(), String> {
        let Some(profile) = self.profiles.get(&group.profile) else {
            return Err(format!("its profile {} is unknown", group.profile));
        };
        if group.slots.len() != profile.slots() {
            let (found, wanted) = (group.slots.len(), profile.slots());
            return Err(format!("has {found} slots; profile {} wants {wanted}", profile.name()));
        }
        if let Some(disk) = group.disks().find(|disk| !self.disks.contains_key(disk)) {
            return Err(format!("its disk {disk} is unknown"));
        }
        let mut disks: Vec<DiskId> = group.slots.iter().map(|slot| slot.disk).collect();
        disks.sort_unstable();
        if let Some(pair) = disks.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(format!("has two slots on one disk: {pair:?}"));
        }
        self.groups.get(&group.id).map_or(Ok(()), |before| check_succession(before, group))
    }

    fn count_slots(&mut self, group: &Group, up: bool) {
        for slot in &group.slots {
            count(&mut self.disk_use.entry(slot.disk).or_default().slots, group.profile, up);
            let Some(disk) = self.disks.get(&slot.disk) else { continue };
            if self.is_usable(disk) {
                let node = disk.node;
                let slots = self.node_use.entry(node).or_default().slots.entry(group.profile).or_default();
                *slots = if up { slots.saturating_add(1) } else { slots.saturating_sub(1) };
            }
        }
    }

    /// Makes the totals of a node anew from its disks.
    fn recount(&mut self, node: NodeId) {
        let mut totals = NodeUse::default();
        for disk in self.disks_of(node).filter(|disk| self.is_usable(disk)) {
            totals.usable += 1;
            totals.capacity = totals.capacity.saturating_add(disk.capacity_bytes.into());
            for (profile, slots) in self.disk_use.get(&disk.id).into_iter().flat_map(|disk| &disk.slots) {
                *totals.slots.entry(*profile).or_default() += u64::from(*slots);
            }
        }
        let entry = self.node_use.entry(node).or_default();
        totals.disks = std::mem::take(&mut entry.disks);
        *entry = totals;
    }

    fn file_groups_on(&mut self, disk: DiskId) {
        let groups: Vec<GroupId> = self.groups_on(disk).map(|group| group.id).collect();
        groups.into_iter().for_each(|group| self.file_group(group));
    }

    fn file_group(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let writable = group.slots.iter().all(|slot| self.is_writable(slot.disk));
        let leaves = group.slots.iter().any(|slot| self.disk_duty(slot.disk) != Duty::InService);
        self.writable.entry(group.profile).or_default().file(group, writable, leaves);
    }
}

/// What may become of a group that exists.
fn check_succession(before: &Group, after: &Group) -> Result<(), String> {
    if before.profile != after.profile {
        return Err(format!("cannot go from profile {} to {}", before.profile, after.profile));
    }
    if after.epoch < before.epoch {
        return Err(format!("the epoch would fall from {} to {}", before.epoch, after.epoch));
    }
    let moved = before.slots.iter().zip(&after.slots).any(|(before, after)| before.disk != after.disk);
    if moved && after.epoch == before.epoch {
        return Err(format!("a slot moved, but the epoch is still {}", after.epoch));
    }
    Ok(())
}

impl TryFrom<wire::Map> for ClusterMap {
    type Error = InvalidInput;

    fn try_from(wire: wire::Map) -> Result<Self, InvalidInput> {
        let mut map = Self { version: wire.version, ..Self::default() };
        for node in wire.nodes {
            map.put_node(node.try_into()?);
        }
        for disk in wire.disks {
            map.put_disk(disk.try_into()?)?;
        }
        for profile in wire.profiles {
            map.put_profile(profile.try_into()?)?;
        }
        for group in wire.groups {
            map.put_group(group.try_into()?)?;
        }
        Ok(map)
    }
}

impl From<&ClusterMap> for wire::Map {
    fn from(map: &ClusterMap) -> Self {
        Self {
            version: map.version,
            nodes: map.nodes.values().map(Into::into).collect(),
            disks: map.disks.values().map(Into::into).collect(),
            profiles: map.profiles.values().map(Into::into).collect(),
            groups: map.groups.values().map(Into::into).collect(),
        }
    }
}
