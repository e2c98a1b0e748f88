//! What is wrong, by the records of the metadata service and the reports of disks.

use proto::wire;
use wire::Duty;

use super::Problem;
use crate::output::{count, health, size};
use crate::status::space::Space;

/// What a silent metadata server may take to answer, in milliseconds.
const ANSWER_MS_MAX: u64 = 5_000;
const HEALS: &str = "nothing to do: it heals by itself when the disks answer; clusterctl group ls";
const MAKE_ROOM: &str = "add disks, then clusterctl rebalance; or delete objects";

/// What is wrong, the worst first.
pub(crate) fn problems(status: &wire::GetStatusReply) -> Vec<Problem> {
    let mut list = List(Vec::new());
    redundancy(status, &mut list);
    members(status, &mut list);
    nodes(status, &mut list);
    for (disk, status_of) in served_disks(status) {
        let report = status_of.report.clone().unwrap_or_default();
        disk_problems(status, disk, &report, status_of.slots, &mut list);
    }
    room(status, &mut list);
    healing(status, &mut list);
    list.0
}

/// Disks that are not retired, with their status.
pub(crate) fn served_disks(
    status: &wire::GetStatusReply,
) -> impl Iterator<Item = (&wire::Disk, &wire::DiskStatus)> {
    let disks = status.disks.iter().filter_map(|status| Some((status.disk.as_ref()?, status)));
    disks.filter(|(disk, _)| disk.duty() != Duty::Retired)
}

struct List(Vec<Problem>);

impl List {
    fn add(&mut self, code: &'static str, text: String, next: &str) {
        self.0.push(Problem { code, text, next: next.to_owned() });
    }
}

fn redundancy(status: &wire::GetStatusReply, list: &mut List) {
    if status.groups_unreadable > 0 {
        let groups = count(status.groups_unreadable, "group");
        let text = format!("{groups} with {} cannot be read whole", size(status.bytes_unreadable));
        list.add(
            "UNREADABLE",
            text,
            "bring silent nodes and disks back: nothing can be made again without them",
        );
    }
}

fn members(status: &wire::GetStatusReply, list: &mut List) {
    for member in status.members.iter().filter(|member| !member.is_leader) {
        if member.answered_ms_ago.is_none_or(|ms| ms > ANSWER_MS_MAX) {
            let id = member.member.as_ref().map_or(0, |member| member.id);
            let text = format!("metadata server {id} does not answer the leader");
            list.add("META_SILENT", text, "start it again");
        }
    }
}

fn nodes(status: &wire::GetStatusReply, list: &mut List) {
    for node in status.nodes.iter().filter_map(|status| status.node.as_ref()) {
        // One that was removed, or has no disk, keeps nothing.
        let keeps = served_disks(status).any(|(disk, _)| disk.node == node.id);
        if keeps && health(node.health) != "up" {
            let text = format!("node {} in rack {} is {}", node.id, node.rack, health(node.health));
            let next = format!(
                "start it again; if it is gone for good, wait until its slots are elsewhere, then clusterctl node rm {}",
                node.id
            );
            list.add("NODE_SILENT", text, &next);
        }
    }
}

fn disk_problems(
    status: &wire::GetStatusReply,
    disk: &wire::Disk,
    report: &wire::DiskReport,
    slots: u32,
    list: &mut List,
) {
    let place = format!("disk {} ({} of node {})", disk.id, disk.name, disk.node);
    if disk.duty() == Duty::Failed {
        let left =
            if slots == 0 { String::new() } else { format!(", {} to go", count(slots.into(), "slot")) };
        let text = format!("{place} is given up{left}: {}", disk.duty_reason);
        list.add("DISK_GIVEN_UP", text, &format!("clusterctl disk replace {}", disk.id));
    } else if !disk.reason.is_empty() {
        let next = format!("clusterctl disk replace {}", disk.id);
        list.add("DISK_FAILED", format!("{place}: {}", disk.reason), &next);
    } else {
        fullness(status, report, &place, list);
    }
    if let Some(aside) = report.set_aside.first() {
        let stripes = count(report.set_aside_total.into(), "stripe");
        let text = format!("{stripes} cannot be made again on {place}; the first: {}", aside.reason);
        list.add("SET_ASIDE", text, "bring silent nodes and disks back; it is tried again by itself");
    }
}

fn fullness(status: &wire::GetStatusReply, report: &wire::DiskReport, place: &str, list: &mut List) {
    let fullness = status.fullness.unwrap_or_default();
    let (used, capacity) = (u128::from(report.used_bytes), u128::from(report.capacity_bytes));
    let filled = |percent: u32| percent > 0 && capacity > 0 && used * 100 >= capacity * u128::from(percent);
    let percent = (used * 100).checked_div(capacity).unwrap_or_default();
    let without_room = match report.groups_without_room.len() {
        0 => String::new(),
        groups => format!(", {} cannot be repaired there", count(groups as u64, "group")),
    };
    if report.full || filled(fullness.full_percent) {
        let text = format!("{place} is full, at {percent} %{without_room}");
        list.add("DISK_FULL", text, MAKE_ROOM);
    } else if filled(fullness.backfill_full_percent) {
        list.add("DISK_BACKFILL_FULL", format!("{place} takes no more slots, at {percent} %"), MAKE_ROOM);
    } else if filled(fullness.near_full_percent) {
        list.add("DISK_NEAR_FULL", format!("{place} is at {percent} %"), MAKE_ROOM);
    }
}

/// Is there room for what the largest rack has, should it be lost?
fn room(status: &wire::GetStatusReply, list: &mut List) {
    let (space, fullness) = (Space::of(status), status.fullness.unwrap_or_default());
    let near = space.without_largest(fullness.near_full_percent);
    if near < space.used_bytes && fullness.near_full_percent > 0 {
        let text = format!(
            "were {} lost, {} would not fit the others below {} %",
            space.largest,
            size(space.used_bytes.saturating_sub(near)),
            fullness.near_full_percent
        );
        list.add("SPACE_SHORT", text, MAKE_ROOM);
    }
}

fn healing(status: &wire::GetStatusReply, list: &mut List) {
    if status.slots_missing > 0 {
        let slots = match status.slots_missing {
            1 => "misses 1 slot".to_owned(),
            slots => format!("miss {slots} slots"),
        };
        let text = format!("{} together {slots}", count(status.extents_incomplete, "extent"));
        list.add("SHARDS_MISSING", text, HEALS);
    }
    if status.slots_rebuilding > 0 {
        list.add("REBUILDING", format!("{} being filled", count(status.slots_rebuilding, "slot")), HEALS);
    }
    if status.groups_below_policy > 0 {
        let groups = count(status.groups_below_policy, "group");
        list.add("BELOW_POLICY", format!("{groups} in places that the profile does not allow"), HEALS);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn disk(id: u32, used_percent: u64) -> wire::DiskStatus {
        let disk =
            wire::Disk { id, node: id, name: "bay".into(), capacity_bytes: 1000, ..Default::default() };
        let report =
            wire::DiskReport { used_bytes: used_percent * 10, capacity_bytes: 1000, ..Default::default() };
        wire::DiskStatus { disk: Some(disk), report: Some(report), slots: 1 }
    }

    fn node(id: u32, health: wire::Health) -> wire::NodeStatus {
        let node = wire::Node { id, rack: format!("r{id}"), health: health.into(), ..Default::default() };
        wire::NodeStatus { node: Some(node), ..Default::default() }
    }

    /// Three nodes with a disk each, in racks of their own.
    fn status() -> wire::GetStatusReply {
        let fullness = wire::Fullness { near_full_percent: 85, backfill_full_percent: 90, full_percent: 95 };
        wire::GetStatusReply {
            nodes: [1, 2, 3].map(|id| node(id, wire::Health::Up)).to_vec(),
            disks: [1, 2, 3].map(|id| disk(id, 10)).to_vec(),
            fullness: Some(fullness),
            ..Default::default()
        }
    }

    fn codes(status: &wire::GetStatusReply) -> Vec<&'static str> {
        problems(status).iter().map(|problem| problem.code).collect()
    }

    fn disk_of(status: &mut wire::GetStatusReply, at: usize) -> &mut wire::Disk {
        status.disks[at].disk.as_mut().expect("a disk")
    }

    /// Each level of fullness has its own code, from its percentage on.
    #[test]
    fn levels_of_fullness() {
        assert_eq!(codes(&status()), Vec::<&str>::new());
        for (percent, code) in [
            (84, None),
            (85, Some("DISK_NEAR_FULL")),
            (90, Some("DISK_BACKFILL_FULL")),
            (95, Some("DISK_FULL")),
        ] {
            let mut status = status();
            status.disks[1] = disk(2, percent);
            assert_eq!(codes(&status), code.into_iter().collect::<Vec<_>>(), "{percent}");
        }
        let mut status = status();
        status.disks[1].report.as_mut().expect("a report").full = true;
        assert_eq!(codes(&status), ["DISK_FULL"]);
    }

    /// Room is judged as after the loss of the largest rack.
    #[test]
    fn room_without_a_rack() {
        let mut status = status();
        status.disks = [1, 2, 3].map(|id| disk(id, 60)).to_vec();
        let problems = problems(&status);
        assert_eq!(problems[0].code, "SPACE_SHORT");
        assert!(problems[0].text.contains("100 B would not fit"), "{}", problems[0].text);
    }

    /// A node whose disks are all retired is no problem; one with a disk in service is. What a disk is given up for
    /// is told, and what replaces it.
    #[test]
    fn what_is_gone_is_forgotten() {
        let mut status = status();
        status.nodes[0] = node(1, wire::Health::Down);
        disk_of(&mut status, 0).reason = "silent".into();
        assert_eq!(codes(&status), ["NODE_SILENT", "DISK_FAILED"]);
        disk_of(&mut status, 0).duty = Duty::Retired.into();
        assert_eq!(codes(&status), Vec::<&str>::new());
        let failed = disk_of(&mut status, 1);
        (failed.duty, failed.duty_reason) = (Duty::Failed.into(), "task 3".into());
        let problems = problems(&status);
        assert_eq!(
            (problems[0].code, problems[0].next.as_str()),
            ("DISK_GIVEN_UP", "clusterctl disk replace 2")
        );
    }

    /// Every problem that there can be has a line in docs/health.md, and what cannot be read comes first.
    #[test]
    fn problems_are_documented() {
        let mut all = status();
        all.members = vec![wire::MemberStatus::default()];
        all.nodes[0] = node(1, wire::Health::Down);
        all.disks = [(1, 10), (2, 85), (3, 90), (4, 95), (5, 10)].map(|(id, used)| disk(id, used)).to_vec();
        disk_of(&mut all, 0).reason = "silent".into();
        disk_of(&mut all, 4).duty = Duty::Failed.into();
        let report = all.disks[4].report.as_mut().expect("a report");
        (report.set_aside, report.set_aside_total) = (vec![wire::SetAside::default()], 1);
        (all.groups_unreadable, all.slots_missing, all.slots_rebuilding, all.groups_below_policy) =
            (1, 1, 1, 1);
        let mut codes = codes(&all);
        assert_eq!(codes[0], "UNREADABLE");
        let mut short = status();
        short.disks = [1, 2, 3].map(|id| disk(id, 60)).to_vec();
        codes.extend(self::codes(&short));
        let page = include_str!("../../../docs/health.md");
        let documented: BTreeSet<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(code, _)| code)
            .collect();
        assert_eq!(codes.into_iter().collect::<BTreeSet<_>>(), documented);
    }
}
