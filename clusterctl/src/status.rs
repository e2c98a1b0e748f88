//! `clusterctl status`: is anything wrong, and what to do.

use std::time::Duration;

use proto::{Timestamp, wire};
use serde_json::{Value, json};

use crate::Session;
use crate::output::{count, health, hex, size, table};

/// How often `--wait` looks.
const POLL: Duration = Duration::from_millis(500);

/// What `status` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is missing by the metadata service's records, and all is up.
    Whole,
    /// Something is.
    NotWhole,
}

/// Prints the state of the cluster; with `wait`, first waits until it is whole or the time is over.
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
    let problems = problems(&status);
    session.format.print(&to_json(&status, &problems), || to_text(&status, &problems));
    Ok(if problems.is_empty() { Verdict::Whole } else { Verdict::NotWhole })
}

/// One thing that is wrong.
struct Problem {
    code: &'static str,
    text: String,
    next: String,
}

fn problems(status: &wire::GetStatusReply) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |code, text, next: &str| problems.push(Problem { code, text, next: next.to_owned() });
    for member in status.members.iter().filter(|member| !member.is_leader) {
        if member.answered_ms_ago.is_none_or(|ms| ms > 5_000) {
            let id = member.member.as_ref().map_or(0, |member| member.id);
            add("META_SILENT", format!("metadata server {id} does not answer the leader"), "start it again");
        }
    }
    for node in status.nodes.iter().filter_map(|status| status.node.as_ref()) {
        if health(node.health) != "up" {
            add(
                "NODE_SILENT",
                format!("node {} in rack {} is {}", node.id, node.rack, health(node.health)),
                "look at its log, start it again; clusterctl node ls",
            );
        }
    }
    for status in &status.disks {
        let Some(disk) = &status.disk else { continue };
        let report = status.report.clone().unwrap_or_default();
        if !disk.reason.is_empty() {
            add(
                "DISK_FAILED",
                format!("disk {} ({} of node {}): {}", disk.id, disk.name, disk.node, disk.reason),
                "clusterctl disk ls",
            );
        } else if report.full {
            add(
                "DISK_FULL",
                format!(
                    "disk {} ({} of node {}) is full{}",
                    disk.id,
                    disk.name,
                    disk.node,
                    match report.groups_without_room.len() {
                        0 => String::new(),
                        groups => format!(", {} cannot be repaired there", count(groups as u64, "group")),
                    }
                ),
                "add disks, or delete objects",
            );
        }
    }
    let healing = "nothing to do: it heals by itself when the disks answer; clusterctl group ls";
    if status.slots_missing > 0 {
        add(
            "SHARDS_MISSING",
            format!(
                "{} together {}",
                count(status.extents_incomplete, "extent"),
                if status.slots_missing == 1 {
                    "misses 1 slot".into()
                } else {
                    format!("miss {} slots", status.slots_missing)
                }
            ),
            healing,
        );
    }
    if status.slots_rebuilding > 0 {
        add("REBUILDING", format!("{} being filled", count(status.slots_rebuilding, "slot")), healing);
    }
    if status.groups_below_policy > 0 {
        add(
            "BELOW_POLICY",
            format!(
                "{} in places that the profile does not allow",
                count(status.groups_below_policy, "group")
            ),
            healing,
        );
    }
    problems
}

fn to_text(status: &wire::GetStatusReply, problems: &[Problem]) -> String {
    let up = |list: &mut dyn Iterator<Item = i32>| {
        let all: Vec<i32> = list.collect();
        format!("{} of {} up", all.iter().filter(|h| health(**h) == "up").count(), all.len())
    };
    let nodes = up(&mut status.nodes.iter().filter_map(|n| n.node.as_ref()).map(|n| n.health));
    let disks = format!("{} of {} up", disks_up(status), status.disks.len());
    let (used, capacity) = space(status);
    let tolerated = status.groups_by_disks_tolerated.iter().enumerate();
    let tolerated: Vec<String> = tolerated
        .filter(|(_, groups)| **groups > 0)
        .map(|(disks, groups)| {
            format!("{} tolerate {}", count(*groups, "group"), count(disks as u64, "more disk"))
        })
        .collect();
    let rows = [
        ("cluster", hex(&status.cluster_id)),
        ("view of", format!("metadata server {}, the leader of term {}", status.leader_id, status.term)),
        ("nodes", nodes),
        ("disks", format!("{disks}; {} used of {}", size(used), size(capacity))),
        (
            "objects",
            format!(
                "{} in {} of {}, {}",
                status.objects,
                count(status.buckets, "bucket"),
                count(status.tenants, "tenant"),
                size(status.object_bytes)
            ),
        ),
        ("losses", if tolerated.is_empty() { "no groups yet".into() } else { tolerated.join("; ") }),
        ("to drop", count(status.garbage_extents, "deleted extent")),
    ];
    let mut text: Vec<String> = rows.iter().map(|(key, value)| format!("{key:<9}{value}")).collect();
    if problems.is_empty() {
        text.push(
            "\nnothing is missing by the metadata service's records, and every node and disk answers".into(),
        );
    } else {
        text.push(String::new());
        let rows = problems.iter().map(|p| vec![p.code.to_owned(), p.text.clone(), p.next.clone()]).collect();
        text.push(table(&["problem", "what", "next"], &[], rows));
    }
    text.join("\n")
}

/// Disks that are up, on nodes that are.
fn disks_up(status: &wire::GetStatusReply) -> usize {
    let up = |id: u32| {
        status.nodes.iter().filter_map(|n| n.node.as_ref()).any(|n| n.id == id && health(n.health) == "up")
    };
    let disks = status.disks.iter().filter_map(|d| d.disk.as_ref());
    disks.filter(|disk| health(disk.health) == "up" && up(disk.node)).count()
}

fn space(status: &wire::GetStatusReply) -> (u64, u64) {
    let used = status.disks.iter().filter_map(|d| d.report.as_ref()).map(|r| r.used_bytes).sum();
    let capacity = status.disks.iter().filter_map(|d| d.disk.as_ref()).map(|d| d.capacity_bytes).sum();
    (used, capacity)
}

fn to_json(status: &wire::GetStatusReply, problems: &[Problem]) -> Value {
    let (used, capacity) = space(status);
    let problem = |p: &Problem| json!({ "code": p.code, "what": p.text, "next": p.next });
    let member = |m: &wire::MemberStatus| {
        let member = m.member.clone().unwrap_or_default();
        json!({
            "id": member.id, "address": member.address, "voter": member.voter, "leader": m.is_leader,
            "matched_index": m.matched_index, "answered_ms_ago": m.answered_ms_ago,
        })
    };
    json!({
        "cluster_id": hex(&status.cluster_id),
        "view_of": status.leader_id,
        "term": status.term,
        "applied_index": status.applied_index,
        "whole": problems.is_empty(),
        "problems": problems.iter().map(problem).collect::<Vec<_>>(),
        "members": status.members.iter().map(member).collect::<Vec<_>>(),
        "nodes_up": status.nodes.iter().filter_map(|n| n.node.as_ref()).filter(|n| health(n.health) == "up").count(),
        "nodes": status.nodes.len(),
        "disks_up": disks_up(status),
        "disks": status.disks.len(),
        "space": { "used_bytes": used, "capacity_bytes": capacity },
        "tenants": status.tenants,
        "buckets": status.buckets,
        "objects": status.objects,
        "object_bytes": status.object_bytes,
        "redundancy": {
            "groups": status.groups,
            "groups_by_disks_tolerated": status.groups_by_disks_tolerated,
            "groups_below_policy": status.groups_below_policy,
            "slots_rebuilding": status.slots_rebuilding,
            "extents": status.extents,
            "extents_incomplete": status.extents_incomplete,
            "slots_missing": status.slots_missing,
            "garbage_extents": status.garbage_extents,
        },
    })
}

/// A point in time for people; nothing for 0.
pub(crate) fn time(millis: u64) -> String {
    if millis == 0 { String::new() } else { Timestamp::from_millis(millis).to_string() }
}
