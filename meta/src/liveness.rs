//! Who is alive: heartbeats in, changes of health out; and which disks stay away for so long that their
//! slots should go elsewhere.
//!
//! A plain structure of the leader; nothing of it is replicated but the changes that it proposes. A new
//! leader has heard nobody: silence counts from when it first looks, and it never takes a node for
//! better than the map says before it has heard the node itself. A node that has registered anew counts
//! as just heard. How long a disk is down is known to one leader only, too: its successor waits anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use env::Monotonic;
use placement::{ClusterMap, Disk, Duty, Health, Node, REASON_BYTES_MAX};
use proto::limits::NAME_BYTES_MAX;
use proto::{DiskId, ErrorCode, Failure, GroupId, Incarnation, NodeId, wire};

use crate::options::Detection;
use crate::state::shortened;

/// Groups without room of one disk that are remembered; the others come later.
const GROUPS_WITHOUT_ROOM_MAX: usize = 64;
/// Stripes set aside of one disk that are remembered by name.
const SET_ASIDE_MAX: usize = 16;
const UNREPORTED: &str = "its node does not report it";

/// See the module.
#[derive(Clone, Debug)]
pub struct Liveness {
    detection: Detection,
    nodes: BTreeMap<NodeId, Heard>,
    /// Since when each disk has been down whenever anybody looked.
    down_since: BTreeMap<DiskId, Monotonic>,
}

/// Which disks are given up for now; see [`Liveness::outs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outs {
    /// These have been down for long.
    Disks(BTreeSet<DiskId>),
    /// None, because so many are down at once.
    HeldBack {
        /// Disks that are down and in use.
        down: usize,
        /// All disks but those that are down and not in use.
        disks: usize,
    },
}

#[derive(Clone, Debug)]
struct Heard {
    incarnation: Incarnation,
    /// When silence began to count.
    at: Monotonic,
    /// The latest report of each disk; none before the first heartbeat.
    disks: Option<BTreeMap<DiskId, wire::DiskReport>>,
}

impl Liveness {
    /// Nobody is heard yet.
    pub fn new(detection: &Detection) -> Self {
        Self { detection: detection.clone(), nodes: BTreeMap::new(), down_since: BTreeMap::new() }
    }

    /// A heartbeat has come. Reports of disks that are not the node's are passed over, so that memory
    /// is bounded by the map.
    ///
    /// # Errors
    ///
    /// `StaleNode` when the node is not registered, or a later life of it is; `Unavailable` when this
    /// life of it is not registered here (yet). Nothing is changed then.
    pub fn heard(
        &mut self,
        map: &ClusterMap,
        node: NodeId,
        incarnation: Incarnation,
        now: Monotonic,
        reports: Vec<wire::DiskReport>,
    ) -> Result<(), Failure> {
        let stale = |sentence: String| Failure::new(ErrorCode::StaleNode, sentence);
        let known = map.nodes().get(&node);
        let known =
            known.ok_or_else(|| stale(format!("node {node} is not registered: register it first")))?;
        if incarnation < known.incarnation {
            let sentence = format!(
                "node {node} is known with incarnation {}, this is {incarnation}: another daemon runs under its id",
                known.incarnation
            );
            return Err(stale(sentence));
        }
        if incarnation > known.incarnation {
            let sentence =
                format!("incarnation {incarnation} of node {node} is not registered: register it again");
            return Err(Failure::new(ErrorCode::Unavailable, sentence));
        }
        let own = |report: &wire::DiskReport| {
            map.disks().get(&DiskId(report.disk)).is_some_and(|disk| disk.node == node)
        };
        let disks = reports.into_iter().filter(own).map(|report| (DiskId(report.disk), bounded(report)));
        self.nodes.insert(node, Heard { incarnation, at: now, disks: Some(disks.collect()) });
        Ok(())
    }

    /// What should change in the map; to be asked several times within the time of suspicion.
    pub fn changes(&mut self, now: Monotonic, map: &ClusterMap) -> Option<wire::SetHealth> {
        let mut set = wire::SetHealth::default();
        for node in map.nodes().values() {
            let heard = self.nodes.entry(node.id).or_insert_with(|| Heard::unheard(node.incarnation, now));
            if heard.incarnation < node.incarnation {
                *heard = Heard::unheard(node.incarnation, now);
            }
            let silent = now.since(heard.at);
            let health = self.judge(node, silent, self.nodes.get(&node.id));
            if health != node.health {
                let incarnation = node.incarnation.0;
                set.nodes.push(wire::NodeHealth { node: node.id.0, incarnation, health: health.to_wire() });
            }
            let reports = self.nodes.get(&node.id).and_then(|heard| heard.disks.as_ref());
            if let Some(reports) = reports {
                set.disks
                    .extend(map.disks_of(node.id).filter_map(|disk| judge_disk(disk, reports.get(&disk.id))));
            }
        }
        (!set.nodes.is_empty() || !set.disks.is_empty()).then_some(set)
    }

    /// The disks that have been down, each time this was asked, for the time of [`Detection::out_after`];
    /// to be asked as often as [`changes`](Self::changes), with the map as it is after these.
    ///
    /// A disk without a slot in any group has nothing to lose: a dead one that was replaced does not count
    /// for the share that is down, or dead disks would add up over the years.
    pub fn outs(&mut self, now: Monotonic, map: &ClusterMap) -> Outs {
        let is_down = |disk: DiskId| map.disk_health(disk) == Health::Down;
        let (down, up): (Vec<DiskId>, Vec<DiskId>) = map.disks().keys().partition(|disk| is_down(**disk));
        self.down_since.retain(|disk, _| is_down(*disk));
        for disk in &down {
            self.down_since.entry(*disk).or_insert(now);
        }
        // What somebody has given up is no part of an outage.
        let counts =
            |disk: &DiskId| map.groups_on(*disk).next().is_some() && !map.disk_duty(*disk).is_given_up();
        let in_use: Vec<DiskId> = down.into_iter().filter(counts).collect();
        let (down, disks) = (in_use.len(), in_use.len().saturating_add(up.len()));
        let is_out = |disk: &DiskId| {
            let since = self.down_since.get(disk);
            since.is_some_and(|since| now.since(*since) >= self.detection.out_after)
        };
        let out: BTreeSet<DiskId> = in_use.into_iter().filter(is_out).collect();
        let share_max = usize::from(self.detection.out_share_max_percent);
        if !out.is_empty() && down.saturating_mul(100) > disks.saturating_mul(share_max) {
            return Outs::HeldBack { down, disks };
        }
        Outs::Disks(out)
    }

    fn judge(&self, node: &Node, silent: Duration, heard: Option<&Heard>) -> Health {
        let by_silence = if silent >= self.detection.down_after {
            Health::Down
        } else if silent >= self.detection.suspect_after {
            Health::Suspect
        } else {
            Health::Up
        };
        match heard {
            Some(Heard { disks: Some(_), .. }) => by_silence,
            _ => by_silence.max(node.health),
        }
    }

    /// The latest report of a disk; none when its node has not been heard.
    pub fn report(&self, map: &ClusterMap, disk: DiskId) -> Option<&wire::DiskReport> {
        let node = map.disks().get(&disk)?.node;
        self.nodes.get(&node)?.disks.as_ref()?.get(&disk)
    }

    /// How long ago the node was heard; none when never.
    pub fn heard_ago(&self, node: NodeId, now: Monotonic) -> Option<Duration> {
        let heard = self.nodes.get(&node)?;
        heard.disks.as_ref().map(|_| now.since(heard.at))
    }

    /// Disks that last reported to be full, or to be filled to this percentage of what they hold at most.
    pub fn full_disks(&self, percent: u8) -> impl Iterator<Item = DiskId> {
        let reports = self.nodes.values().filter_map(|heard| heard.disks.as_ref()).flatten();
        reports.filter(move |(_, report)| report.full || is_filled(report, percent)).map(|(disk, _)| *disk)
    }

    /// What disks last reported to hold, in bytes.
    pub fn used_bytes(&self) -> impl Iterator<Item = (DiskId, u64)> {
        let reports = self.nodes.values().filter_map(|heard| heard.disks.as_ref()).flatten();
        reports.map(|(disk, report)| (*disk, report.used_bytes))
    }

    /// Disks that last reported to have no room for what they should make again, and of which groups.
    pub fn without_room(&self) -> impl Iterator<Item = (DiskId, GroupId)> {
        let reports = self.nodes.values().filter_map(|heard| heard.disks.as_ref()).flatten();
        reports.flat_map(|(disk, report)| {
            report.groups_without_room.iter().map(|group| (*disk, GroupId(*group)))
        })
    }
}

impl Heard {
    fn unheard(incarnation: Incarnation, now: Monotonic) -> Self {
        Self { incarnation, at: now, disks: None }
    }
}

/// A change of the disk's own health, by the latest heartbeat of its node.
fn judge_disk(disk: &Disk, report: Option<&wire::DiskReport>) -> Option<wire::DiskHealth> {
    if disk.duty == Duty::Retired {
        return None;
    }
    let reason = report.map_or(UNREPORTED, |report| &report.failure);
    let health = if reason.is_empty() { Health::Up } else { Health::Down };
    (health != disk.health).then(|| wire::DiskHealth {
        disk: disk.id.0,
        health: health.to_wire(),
        reason: reason.to_owned(),
    })
}

fn is_filled(report: &wire::DiskReport, percent: u8) -> bool {
    let (used, capacity) = (u128::from(report.used_bytes), u128::from(report.capacity_bytes));
    capacity > 0 && used.saturating_mul(100) >= capacity.saturating_mul(percent.into())
}

/// A report whose texts and lists have a bound.
fn bounded(mut report: wire::DiskReport) -> wire::DiskReport {
    report.groups_without_room.truncate(GROUPS_WITHOUT_ROOM_MAX);
    report.groups_without_room.shrink_to_fit();
    report.set_aside.truncate(SET_ASIDE_MAX);
    report.set_aside.shrink_to_fit();
    for aside in &mut report.set_aside {
        aside.reason = shortened(&aside.reason, REASON_BYTES_MAX);
        aside.shard = aside.shard.take().filter(|shard| shard.extent.len() == size_of::<u128>());
    }
    wire::DiskReport {
        name: shortened(&report.name, NAME_BYTES_MAX),
        failure: shortened(&report.failure, REASON_BYTES_MAX),
        engine: shortened(&report.engine, REASON_BYTES_MAX),
        uuid: report.uuid.slice(..report.uuid.len().min(size_of::<u128>())),
        ..report
    }
}

#[cfg(test)]
mod tests {
    use placement::Group;
    use proto::{DiskUuid, Epoch, GroupId, Label, ProfileId};

    use super::*;

    fn liveness() -> Liveness {
        Liveness::new(&Detection {
            suspect_after: Duration::from_secs(3),
            down_after: Duration::from_secs(15),
            out_after: Duration::from_mins(1),
            out_share_max_percent: 50,
        })
    }

    fn at(seconds: u64) -> Monotonic {
        Monotonic::new(Duration::from_secs(seconds))
    }

    /// Two nodes, with disks 1 and 2, and 3.
    fn map(health: Health) -> ClusterMap {
        let label: Label = "x".parse().unwrap();
        let mut map = ClusterMap::new();
        for node in [1, 2] {
            map.put_node(Node {
                id: NodeId(node),
                site: label.clone(),
                rack: label.clone(),
                address: "h:1".into(),
                health,
                incarnation: Incarnation(1),
            });
        }
        for (disk, node) in [(1, 1), (2, 1), (3, 2)] {
            map.put_disk(Disk {
                id: DiskId(disk),
                uuid: DiskUuid(disk.into()),
                node: NodeId(node),
                name: label.clone(),
                capacity_bytes: 1,
                health: Health::Up,
                reason: String::new(),
                duty: placement::Duty::InService,
                duty_reason: String::new(),
                damaged_shards: 0,
                damaged_since: proto::Timestamp::ZERO,
            })
            .unwrap();
        }
        map
    }

    fn reports(disks: &[u32]) -> Vec<wire::DiskReport> {
        disks.iter().map(|disk| wire::DiskReport { disk: *disk, ..Default::default() }).collect()
    }

    fn beat(liveness: &mut Liveness, map: &ClusterMap, node: u32, seconds: u64) {
        let disks = reports(&[1, 2, 3]);
        liveness.heard(map, NodeId(node), Incarnation(1), at(seconds), disks).unwrap();
    }

    fn nodes(set: Option<wire::SetHealth>) -> Vec<(u32, i32)> {
        set.into_iter().flat_map(|set| set.nodes).map(|node| (node.node, node.health)).collect()
    }

    /// Silence makes suspect, then down; a heartbeat makes well at once.
    #[test]
    fn silence_and_return() {
        let (mut liveness, up) = (liveness(), map(Health::Up));
        assert_eq!(liveness.changes(at(0), &up), None);
        beat(&mut liveness, &up, 1, 10);
        beat(&mut liveness, &up, 2, 12);
        assert_eq!(liveness.changes(at(12), &up), None);
        assert_eq!(nodes(liveness.changes(at(13), &up)), [(1, 2)]);
        assert_eq!(nodes(liveness.changes(at(25), &up)), [(1, 3), (2, 2)]);
        beat(&mut liveness, &up, 1, 26);
        assert_eq!(nodes(liveness.changes(at(26), &map(Health::Down))), [(1, 1), (2, 2)]);
        assert_eq!(liveness.heard_ago(NodeId(1), at(28)), Some(Duration::from_secs(2)));
    }

    /// A new leader takes nobody for better than the map says, nor for worse before the time is over.
    #[test]
    fn a_new_leader_waits() {
        let mut liveness = liveness();
        assert_eq!(liveness.changes(at(100), &map(Health::Up)), None);
        assert_eq!(liveness.changes(at(102), &map(Health::Down)), None);
        assert_eq!(nodes(liveness.changes(at(103), &map(Health::Up))), [(1, 2), (2, 2)]);
        assert_eq!(liveness.heard_ago(NodeId(1), at(103)), None);
    }

    fn disk_down(map: &mut ClusterMap, disk: u32, health: Health) {
        let disk = Disk { health, ..map.disks()[&DiskId(disk)].clone() };
        map.put_disk(disk).unwrap();
    }

    /// The map with one group on disks 1, 2 and 3.
    fn map_with_group() -> ClusterMap {
        use placement::{Profile, Slot, SlotState};
        let mut map = map(Health::Up);
        let profile = wire::Profile {
            id: 1,
            name: "p".into(),
            k: 2,
            m: 1,
            shard_bytes: 1 << 16,
            failure_domain: wire::Domain::Disk.into(),
            min_durable: 2,
            ..Default::default()
        };
        map.put_profile(Profile::try_from(profile).unwrap()).unwrap();
        let slot =
            |disk| Slot { disk: DiskId(disk), state: SlotState::Whole, since_epoch: Epoch(1), task: None };
        let slots = vec![slot(1), slot(2), slot(3)];
        let (id, profile) = (GroupId(1), ProfileId(1));
        map.put_group(Group { id, profile, epoch: Epoch(1), slots, below_policy: false }).unwrap();
        map
    }

    /// Out is what was down, at each look, for long enough; a return in between begins anew, and what has
    /// no slot is not out.
    #[test]
    fn disks_go_out() {
        let (mut liveness, mut map) = (liveness(), map_with_group());
        let mut out = |map: &ClusterMap, seconds| match liveness.outs(at(seconds), map) {
            Outs::Disks(disks) => disks.into_iter().map(|disk| disk.0).collect::<Vec<_>>(),
            Outs::HeldBack { .. } => panic!("held back at {seconds} s"),
        };
        disk_down(&mut map, 1, Health::Down);
        assert_eq!(out(&map, 100), []);
        assert_eq!(out(&map, 159), []);
        assert_eq!(out(&map, 160), [1]);
        disk_down(&mut map, 1, Health::Up);
        assert_eq!(out(&map, 161), []);
        disk_down(&mut map, 1, Health::Down);
        assert_eq!(out(&map, 162), []);
        assert_eq!(out(&map, 221), []);
        assert_eq!(out(&map, 222), [1]);
        let mut unused = self::map(Health::Up);
        disk_down(&mut unused, 1, Health::Down);
        assert_eq!(out(&unused, 300), []);
    }

    /// While too many are down at once none is out, and as soon as enough are back the others are.
    #[test]
    fn an_outage_is_no_loss() {
        let (mut liveness, mut map) = (liveness(), map_with_group());
        disk_down(&mut map, 1, Health::Down);
        disk_down(&mut map, 3, Health::Down);
        assert_eq!(liveness.outs(at(0), &map), Outs::Disks(BTreeSet::new()));
        assert_eq!(liveness.outs(at(60), &map), Outs::HeldBack { down: 2, disks: 3 });
        disk_down(&mut map, 3, Health::Up);
        assert_eq!(liveness.outs(at(61), &map), Outs::Disks(BTreeSet::from([DiskId(1)])));
    }

    /// What somebody has given up is no part of an outage, and what is retired stays as it is.
    #[test]
    fn given_up_disks_are_no_outage() {
        let (mut liveness, mut map) = (liveness(), map_with_group());
        let set = |map: &mut ClusterMap, disk, duty| {
            let disk = Disk { duty, health: Health::Down, ..map.disks()[&DiskId(disk)].clone() };
            map.put_disk(disk).unwrap();
        };
        set(&mut map, 1, Duty::InService);
        set(&mut map, 3, Duty::InService);
        liveness.outs(at(0), &map);
        assert_eq!(liveness.outs(at(60), &map), Outs::HeldBack { down: 2, disks: 3 });
        set(&mut map, 3, Duty::Failed);
        assert_eq!(liveness.outs(at(61), &map), Outs::Disks(BTreeSet::from([DiskId(1)])));
        beat(&mut liveness, &map, 1, 62);
        beat(&mut liveness, &map, 2, 62);
        let up = |set: Option<wire::SetHealth>| {
            set.into_iter().flat_map(|set| set.disks).map(|disk| disk.disk).collect::<Vec<_>>()
        };
        assert_eq!(up(liveness.changes(at(62), &map)), [1, 3]);
        set(&mut map, 3, Duty::Retired);
        assert_eq!(up(liveness.changes(at(62), &map)), [1]);
    }

    /// A restarted node counts from its registration; its former life is refused.
    #[test]
    fn restarts() {
        let (mut liveness, mut map) = (liveness(), map(Health::Up));
        beat(&mut liveness, &map, 1, 0);
        beat(&mut liveness, &map, 2, 20);
        let restarted = Node { incarnation: Incarnation(2), ..map.nodes()[&NodeId(1)].clone() };
        map.put_node(restarted);
        assert_eq!(liveness.changes(at(20), &map), None);
        let mut heard = |node, incarnation| {
            let heard = liveness.heard(&map, NodeId(node), Incarnation(incarnation), at(20), vec![]);
            heard.map_err(|failure| failure.code)
        };
        assert_eq!(heard(1, 1), Err(ErrorCode::StaleNode));
        assert_eq!(heard(1, 3), Err(ErrorCode::Unavailable));
        assert_eq!(heard(9, 1), Err(ErrorCode::StaleNode));
        assert_eq!(heard(1, 2), Ok(()));
    }

    /// A disk is full when it says so, and when it is filled as far as is allowed, to the byte.
    #[test]
    fn disks_are_full_from_a_percentage_on() {
        let (mut liveness, map) = (liveness(), map(Health::Up));
        let report = |disk, used_bytes| wire::DiskReport {
            disk,
            used_bytes,
            capacity_bytes: 1000,
            ..Default::default()
        };
        liveness.heard(&map, NodeId(1), Incarnation(1), at(0), vec![report(1, 899), report(2, 900)]).unwrap();
        let empty = wire::DiskReport { disk: 3, ..Default::default() };
        liveness.heard(&map, NodeId(2), Incarnation(1), at(0), vec![empty]).unwrap();
        assert_eq!(liveness.full_disks(90).collect::<Vec<_>>(), [DiskId(2)]);
        assert_eq!(liveness.full_disks(91).count(), 0);
    }

    /// Disks fail and return by the reports of their own node; what is not reported is down; texts and
    /// foreign disks take no memory.
    #[test]
    fn disks() {
        let (mut liveness, map) = (liveness(), map(Health::Up));
        let mut disks = reports(&[1, 3, 99]);
        disks[0].failure = "é".repeat(1000);
        disks[0].full = true;
        disks[0].groups_without_room = (0..1000).collect();
        disks[0].set_aside = vec![wire::SetAside { reason: "x".repeat(5000), ..Default::default() }; 100];
        liveness.heard(&map, NodeId(1), Incarnation(1), at(0), disks).unwrap();
        let aside = &liveness.report(&map, DiskId(1)).unwrap().set_aside;
        assert_eq!((aside.len(), aside[0].reason.len()), (16, 1024));
        let set = liveness.changes(at(0), &map).unwrap();
        let down: Vec<_> = set.disks.iter().map(|disk| (disk.disk, disk.health, disk.reason.len())).collect();
        assert_eq!(down, [(1, 3, 1024), (2, 3, UNREPORTED.len())]);
        assert_eq!(liveness.full_disks(100).collect::<Vec<_>>(), [DiskId(1)]);
        let without_room: Vec<_> = liveness.without_room().collect();
        assert_eq!((without_room.len(), without_room[1]), (64, (DiskId(1), GroupId(1))));
        assert!(liveness.report(&map, DiskId(3)).is_none());
        beat(&mut liveness, &map, 1, 1);
        assert_eq!(liveness.changes(at(1), &map), None);
    }
}
