//! `clusterctl status`: how the cluster does, is anything wrong, and what to do.

pub(crate) mod space;

use std::time::Duration;

use proto::{Timestamp, wire};
use serde_json::{Value, json};

use crate::Session;
use crate::health::{Problem, Verdict, not_known, problems, served_disks, verdict};
use crate::output::{count, duration, health, hex, size};
use crate::task;
use space::Space;

/// How often `--wait` looks.
const POLL: Duration = Duration::from_millis(500);

/// Prints the state of the cluster; with `wait`, first waits until nothing is wrong or the time is over.
///
/// # Errors
///
/// When no metadata server answers.
pub(crate) async fn run(session: &Session, wait: Option<Duration>) -> anyhow::Result<Verdict> {
    let cluster = session.connect().await?;
    let admin = cluster.admin();
    let mut left = wait.unwrap_or_default();
    let status = loop {
        let status = admin.status().await?;
        if left.is_zero() || problems(&status).is_empty() {
            break status;
        }
        tokio::time::sleep(POLL.min(left)).await;
        left = left.saturating_sub(POLL);
    };
    let mut tasks = admin.tasks().await?;
    tasks.tasks.retain(task::is_active);
    let problems = problems(&status);
    session.format.print(&to_json(&status, &tasks, &problems), || to_text(&status, &tasks, &problems));
    Ok(if problems.is_empty() { Verdict::Good } else { Verdict::Problems })
}

fn to_text(status: &wire::GetStatusReply, tasks: &wire::ListTasksReply, problems: &[Problem]) -> String {
    let full_percent = status.fullness.unwrap_or_default().full_percent;
    let (nodes_up, nodes) = nodes_up(status);
    let (disks_up, disks) = disks_up(status);
    let objects = format!(
        "{} in {} of {}, {}",
        status.objects,
        count(status.buckets, "bucket"),
        count(status.tenants, "tenant"),
        size(status.object_bytes)
    );
    let mut rows = vec![
        ("cluster", hex(&status.cluster_id)),
        ("view of", format!("metadata server {}, the leader of term {}", status.leader_id, status.term)),
        ("nodes", format!("{nodes_up} of {nodes} up")),
        ("disks", format!("{disks_up} of {disks} up")),
        ("space", Space::of(status).text(full_percent)),
        ("objects", objects),
    ];
    rows.extend(
        losses(status)
            .into_iter()
            .zip(["losses"].into_iter().chain(std::iter::repeat("")))
            .map(|(line, key)| (key, line)),
    );
    rows.extend(healing(status).map(|line| ("healing", line)));
    rows.extend(tasks.tasks.iter().map(|task| ("task", task::line(task, task::pace(tasks, task.id)))));
    rows.push(("to drop", count(status.garbage_extents, "deleted extent")));
    let mut text: Vec<String> = rows.iter().map(|(key, value)| format!("{key:<9}{value}")).collect();
    text.push(String::new());
    text.push(verdict(problems, &not_known(status)));
    text.join("\n")
}

/// The histogram of redundancy, those first that withstand least.
fn losses(status: &wire::GetStatusReply) -> Vec<String> {
    let mut lines = Vec::new();
    let line = |groups: u64, bytes: u64, what: &str| {
        format!("{:<12} {:>10}  {what}", count(groups, "group"), size(bytes))
    };
    if status.groups_unreadable > 0 {
        lines.push(line(status.groups_unreadable, status.bytes_unreadable, "cannot be read whole now"));
    }
    for (disks, groups) in status.groups_by_disks_tolerated.iter().enumerate() {
        // Those that cannot be read count among those that withstand nothing.
        let groups = if disks == 0 { groups.saturating_sub(status.groups_unreadable) } else { *groups };
        let bytes = status.bytes_by_disks_tolerated.get(disks).copied().unwrap_or_default();
        if groups > 0 {
            let what = match disks {
                0 => "withstand no further loss".to_owned(),
                disks => format!("withstand the loss of {}", count(disks as u64, "more disk")),
            };
            lines.push(line(groups, bytes, &what));
        }
    }
    if lines.is_empty() {
        lines.push("no groups yet".to_owned());
    }
    lines
}

/// What is being made, how fast, and how long it takes; nothing when there is nothing.
fn healing(status: &wire::GetStatusReply) -> Option<String> {
    if status.slots_rebuilding == 0 && status.slots_missing == 0 {
        return None;
    }
    let rate = made_bytes_per_s(status);
    let left = match (status.bytes_rebuilding, rate) {
        (0, _) => String::new(),
        (bytes, 0) => format!(", at most {} left", size(bytes)),
        (bytes, rate) => format!(", at most {} or {} left", size(bytes), duration(bytes.div_ceil(rate))),
    };
    Some(format!(
        "{} being filled, shards missing in {}; {}/s{left}",
        count(status.slots_rebuilding, "slot"),
        count(status.extents_incomplete, "extent"),
        size(rate)
    ))
}

/// How fast disks make shards again, or copy them.
fn made_bytes_per_s(status: &wire::GetStatusReply) -> u64 {
    let reports = served_disks(status).filter_map(|(_, status)| status.report.as_ref());
    reports.map(|report| report.made_bytes_per_s).fold(0, u64::saturating_add)
}

/// Nodes that are up, of those that have disks or are.
fn nodes_up(status: &wire::GetStatusReply) -> (usize, usize) {
    let is_up = |node: &&wire::Node| health(node.health) == "up";
    let keeps = |id: u32| served_disks(status).any(|(disk, _)| disk.node == id);
    let nodes = status.nodes.iter().filter_map(|status| status.node.as_ref());
    let nodes: Vec<&wire::Node> = nodes.filter(|node| is_up(node) || keeps(node.id)).collect();
    (nodes.iter().copied().filter(|node| is_up(node)).count(), nodes.len())
}

/// Disks that are up, on nodes that are, of those that are not retired.
fn disks_up(status: &wire::GetStatusReply) -> (usize, usize) {
    let nodes = || status.nodes.iter().filter_map(|status| status.node.as_ref());
    let is_up = |id: u32| nodes().any(|node| node.id == id && health(node.health) == "up");
    let disks = || served_disks(status).map(|(disk, _)| disk);
    let up = disks().filter(|disk| health(disk.health) == "up" && is_up(disk.node)).count();
    (up, disks().count())
}

fn to_json(status: &wire::GetStatusReply, tasks: &wire::ListTasksReply, problems: &[Problem]) -> Value {
    let member = |m: &wire::MemberStatus| {
        let member = m.member.clone().unwrap_or_default();
        json!({
            "id": member.id, "address": member.address, "voter": member.voter, "leader": m.is_leader,
            "matched_index": m.matched_index, "answered_ms_ago": m.answered_ms_ago,
        })
    };
    let (nodes_up, nodes) = nodes_up(status);
    let (disks_up, disks) = disks_up(status);
    let not_known = not_known(status);
    json!({
        "cluster_id": hex(&status.cluster_id),
        "view_of": status.leader_id,
        "term": status.term,
        "applied_index": status.applied_index,
        "whole": problems.is_empty(),
        "healthy": problems.is_empty() && not_known.is_empty(),
        "problems": problems.iter().map(Problem::to_json).collect::<Value>(),
        "not_known": not_known,
        "members": status.members.iter().map(member).collect::<Value>(),
        "nodes_up": nodes_up,
        "nodes": nodes,
        "disks_up": disks_up,
        "disks": disks,
        "space": Space::of(status).to_json(status.fullness.unwrap_or_default()),
        "tenants": status.tenants,
        "buckets": status.buckets,
        "objects": status.objects,
        "object_bytes": status.object_bytes,
        "redundancy": redundancy_json(status),
        "tasks": tasks.tasks.iter().map(|t| task::to_json(t, task::pace(tasks, t.id))).collect::<Value>(),
    })
}

fn redundancy_json(status: &wire::GetStatusReply) -> Value {
    json!({
        "groups": status.groups,
        "groups_by_disks_tolerated": status.groups_by_disks_tolerated,
        "groups_unreadable": status.groups_unreadable,
        "bytes_by_disks_tolerated": status.bytes_by_disks_tolerated,
        "bytes_unreadable": status.bytes_unreadable,
        "groups_below_policy": status.groups_below_policy,
        "slots_rebuilding": status.slots_rebuilding,
        "bytes_rebuilding": status.bytes_rebuilding,
        "made_bytes_per_s": made_bytes_per_s(status),
        "extents": status.extents,
        "extents_incomplete": status.extents_incomplete,
        "slots_missing": status.slots_missing,
        "garbage_extents": status.garbage_extents,
    })
}

/// A point in time for people; nothing for 0.
pub(crate) fn time(millis: u64) -> String {
    if millis == 0 { String::new() } else { Timestamp::from_millis(millis).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> wire::GetStatusReply {
        let node = wire::Node { id: 1, health: wire::Health::Up.into(), ..Default::default() };
        let disk = wire::Disk {
            node: 1,
            health: wire::Health::Up.into(),
            capacity_bytes: 10 << 30,
            ..Default::default()
        };
        let report = wire::DiskReport {
            used_bytes: 1 << 30,
            made_bytes_per_s: 64 << 20,
            verified_since_ms: 1,
            ..Default::default()
        };
        wire::GetStatusReply {
            cluster_id: vec![1, 2].into(),
            leader_id: 2,
            term: 3,
            nodes: vec![wire::NodeStatus { node: Some(node), ..Default::default() }],
            disks: vec![wire::DiskStatus { disk: Some(disk), report: Some(report), slots: 1 }],
            fullness: Some(wire::Fullness { full_percent: 95, ..Default::default() }),
            groups_by_disks_tolerated: vec![3, 0, 40],
            bytes_by_disks_tolerated: vec![1 << 20, 0, 5 << 30],
            groups_unreadable: 1,
            bytes_unreadable: 7,
            slots_rebuilding: 4,
            bytes_rebuilding: 256 << 20,
            ..Default::default()
        }
    }

    /// The histogram begins with what is worst, healing has its estimate, and a task its progress.
    #[test]
    fn the_whole_picture() {
        let task = wire::Task {
            id: 4,
            kind: wire::TaskKind::DrainNode.into(),
            state: wire::TaskState::Running.into(),
            node: 9,
            slots_total: 2,
            bytes_total: 1 << 30,
            ..Default::default()
        };
        let tasks = wire::ListTasksReply { tasks: vec![task], ..Default::default() };
        let expected = "\
cluster  0102
view of  metadata server 2, the leader of term 3
nodes    1 of 1 up
disks    1 of 1 up
space    1 GiB used of 10 GiB; 8.5 GiB may still be written, parity included
objects  0 in 0 buckets of 0 tenants, 0 B
losses   1 group             7 B  cannot be read whole now
         2 groups          1 MiB  withstand no further loss
         40 groups         5 GiB  withstand the loss of 2 more disks
healing  4 slots being filled, shards missing in 0 extents; 64 MiB/s, at most 256 MiB or 4 s left
task     4, drain of node 9: 0 of 2 slots, 0 B of 1 GiB
to drop  0 deleted extents

healthy";
        let text = to_text(&status(), &tasks, &[]);
        assert!(text.starts_with(expected), "{text}");
        let json = to_json(&status(), &tasks, &[]);
        assert_eq!(json["space"]["used_bytes"], 1_u64 << 30);
        assert_eq!((&json["healthy"], &json["tasks"][0]["id"]), (&json!(true), &json!(4)));
    }

    /// Where nothing is to be healed nothing is said of it; without a rate there is no estimate.
    #[test]
    fn healing_says_what_it_knows() {
        let mut status = status();
        status.disks.clear();
        assert_eq!(
            healing(&status).as_deref(),
            Some("4 slots being filled, shards missing in 0 extents; 0 B/s, at most 256 MiB left")
        );
        status.slots_rebuilding = 0;
        assert_eq!(healing(&status), None);
    }
}
