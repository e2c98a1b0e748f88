//! Beginning a task: the plan, the question, the start.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::bail;
use client::Admin;
use os::Host;
use proto::{ByteSize, DiskId, NodeId, wire};
use serde_json::{Value, json};
use wire::{Duty, TaskKind};

use super::watch::watch;
use super::{Long, to_json, what};
use crate::Session;
use crate::output::{Format, count, duration, size};

/// Empties the disks of a node.
///
/// # Errors
///
/// What the cluster refused: the missing capacity or domain is named.
pub(crate) async fn drain_node(session: &Session, node: NodeId, long: &Long) -> anyhow::Result<()> {
    let begin = wire::BeginTask { node: node.0, ..of_kind(TaskKind::DrainNode) };
    let next = format!(
        "node {node} is empty: stop its daemon, then `clusterctl node rm {node}`, or bring it back with \
                        `clusterctl node undrain {node}`"
    );
    run(session, begin, long, &next).await
}

/// Empties a disk.
///
/// # Errors
///
/// What the cluster refused: the missing capacity or domain is named.
pub(crate) async fn drain_disk(session: &Session, disk: DiskId, long: &Long) -> anyhow::Result<()> {
    let begin = wire::BeginTask { disk: disk.0, ..of_kind(TaskKind::DrainDisk) };
    let next = format!("disk {disk} is empty; `clusterctl disk undrain {disk}` brings it back");
    run(session, begin, long, &next).await
}

/// Gives up a disk: its slots go elsewhere, and nothing new is written there.
///
/// # Errors
///
/// What the cluster refused.
pub(crate) async fn fail_disk(
    session: &Session,
    disk: DiskId,
    reason: String,
    long: &Long,
) -> anyhow::Result<()> {
    let begin = wire::BeginTask { disk: disk.0, reason, ..of_kind(TaskKind::FailDisk) };
    let next = format!("nothing lies on disk {disk} any more; next: clusterctl disk replace {disk}");
    run(session, begin, long, &next).await
}

/// Evens out how full the disks are.
///
/// # Errors
///
/// What the cluster refused.
pub(crate) async fn rebalance(session: &Session, long: &Long) -> anyhow::Result<()> {
    run(session, of_kind(TaskKind::Rebalance), long, "the disks are evened out").await
}

fn of_kind(kind: TaskKind) -> wire::BeginTask {
    wire::BeginTask { kind: kind.into(), ..Default::default() }
}

async fn run(session: &Session, begin: wire::BeginTask, long: &Long, next: &str) -> anyhow::Result<()> {
    let cluster = session.connect().await?;
    let admin = cluster.admin();
    let Some((plan, task)) = begin_or_find(session, &admin, begin, long).await? else { return Ok(()) };
    let ended = if long.no_wait { task } else { watch(session, &admin, task.id).await? };
    let json = json!({ "plan": plan.as_ref().map(plan_json), "task": to_json(&ended, None) });
    session.format.print(&json, || {
        if long.no_wait {
            return format!(
                "task {} ({}) goes on: clusterctl task show {}",
                ended.id,
                what(&ended),
                ended.id
            );
        }
        let about = if ended.reason.is_empty() { String::new() } else { format!("; {}", ended.reason) };
        let moved = format!("{}, {}", count(ended.slots_done, "slot"), size(ended.bytes_done));
        format!("task {} ({}) is done: {moved} moved{about}\n{next}", ended.id, what(&ended))
    });
    Ok(())
}

/// Shows the plan, asks, and begins; or finds the task that does the same already. Nothing when it was only to be
/// shown, or there is nothing to do.
///
/// # Errors
///
/// What stands in its way, and what to do about it.
pub(super) async fn begin_or_find(
    session: &Session,
    admin: &Admin<Host>,
    mut begin: wire::BeginTask,
    long: &Long,
) -> anyhow::Result<Option<(Option<wire::TaskPlan>, wire::Task)>> {
    begin.limit_bytes_per_s = long.limit.map_or(0, |limit| limit.0);
    let asked = admin.begin_task(wire::BeginTask { dry_run: true, ..begin.clone() }).await?;
    if let Some(task) = asked.task {
        let task = follow_limit(admin, task, long).await?;
        if long.dry_run {
            session.format.print(&json!({ "task": to_json(&task, None) }), || runs_already(&task));
            return Ok(None);
        }
        say(session, &runs_already(&task));
        return Ok(Some((None, task)));
    }
    let plan = asked.plan.unwrap_or_default();
    let kind = TaskKind::try_from(begin.kind).unwrap_or_default();
    if long.dry_run {
        session.format.print(&json!({ "plan": plan_json(&plan) }), || plan_text(kind, &plan));
    }
    let may_wait = matches!(kind, TaskKind::FailDisk | TaskKind::ReplaceDisk);
    if !plan.shortage.is_empty() && !may_wait {
        bail!("this cannot be done: {}", plan.shortage);
    }
    if long.dry_run {
        return Ok(None);
    }
    if kind == TaskKind::Rebalance && plan.slots == 0 {
        session.format.print(&json!({ "plan": plan_json(&plan) }), || plan_text(kind, &plan));
        return Ok(None);
    }
    if plan.slots == 0 && is_drained(&admin.map().await?, kind, &begin) {
        session.format.print(&json!({ "plan": plan_json(&plan) }), || "it is drained already".to_owned());
        return Ok(None);
    }
    say(session, &plan_text(kind, &plan));
    ask(session, long.yes, "go on?")?;
    let begun = admin.begin_task(begin).await?;
    let task =
        begun.task.ok_or_else(|| anyhow::anyhow!("the cluster began no task: see `clusterctl task ls`"))?;
    say(session, &format!("task {} ({}) begins", task.id, what(&task)));
    Ok(Some((begun.plan.or(Some(plan)), task)))
}

/// Is it out of service by a drain that is done?
fn is_drained(map: &wire::Map, kind: TaskKind, begin: &wire::BeginTask) -> bool {
    let meant = |disk: &&wire::Disk| match kind {
        TaskKind::DrainNode => disk.node == begin.node && disk.duty() != Duty::Retired,
        TaskKind::DrainDisk => disk.id == begin.disk,
        _ => false,
    };
    let mut disks = map.disks.iter().filter(meant).peekable();
    disks.peek().is_some() && disks.all(|disk| disk.duty() != Duty::Unspecified)
}

/// A task that runs gets the limit that was typed now.
async fn follow_limit(admin: &Admin<Host>, task: wire::Task, long: &Long) -> anyhow::Result<wire::Task> {
    match long.limit {
        Some(limit) if limit.0 != task.limit_bytes_per_s && !long.dry_run => {
            let set = wire::SetTask { id: task.id, limit_bytes_per_s: Some(limit.0), ..Default::default() };
            Ok(admin.set_task(set).await?)
        }
        _ => Ok(task),
    }
}

fn runs_already(task: &wire::Task) -> String {
    format!("task {} ({}) is under way already", task.id, what(task))
}

/// For people, beside the result.
pub(super) fn say(session: &Session, text: &str) {
    if session.format == Format::Text {
        eprintln!("{text}");
    }
}

/// Goes on only if somebody says yes.
///
/// # Errors
///
/// When nobody does, or nobody can be asked.
pub(super) fn ask(session: &Session, yes: bool, question: &str) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if session.format == Format::Json || !std::io::stdin().is_terminal() {
        bail!("nobody can be asked here: look at the plan with --dry-run, then say --yes");
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { bail!("nothing was changed") }
}

/// What would be done, for people.
pub(super) fn plan_text(kind: TaskKind, plan: &wire::TaskPlan) -> String {
    let mut lines = Vec::new();
    if kind == TaskKind::Rebalance && plan.slots == 0 {
        lines.push("nothing to move".to_owned());
    } else {
        lines.push(format!("moves     {}, {}", count(plan.slots, "slot"), size(plan.bytes)));
    }
    for (when, imbalance) in [("before", &plan.before), ("after", &plan.after)] {
        if let Some(imbalance) = imbalance {
            lines.push(format!("{when:<10}{}", imbalance_text(imbalance)));
        }
    }
    if kind != TaskKind::Rebalance && plan.fullest_disk != 0 {
        let (disk, fill) = (plan.fullest_disk, percent(plan.fullest_permille));
        lines.push(format!("fullest   disk {disk}, {fill} once all is done"));
    }
    if plan.slots > 0 {
        lines.push(format!("takes     {}", time_text(plan)));
    }
    if !plan.stuck.is_empty() {
        lines.push(format!("ends      outside of its goal: {}", plan.stuck));
    }
    if !plan.shortage.is_empty() {
        lines.push(format!("missing   {}", plan.shortage));
    }
    lines.join("\n")
}

fn time_text(plan: &wire::TaskPlan) -> String {
    match plan.limit_bytes_per_s {
        0 => "as long as the disks need: there is no limit".to_owned(),
        limit => format!("{} at {}/s", duration(plan.bytes.div_ceil(limit)), ByteSize(limit)),
    }
}

fn imbalance_text(imbalance: &wire::Imbalance) -> String {
    format!(
        "mean {}, fullest disk {} at {}, emptiest disk {} at {}",
        percent(imbalance.mean_permille),
        imbalance.fullest_disk,
        percent(imbalance.fullest_permille),
        imbalance.emptiest_disk,
        percent(imbalance.emptiest_permille)
    )
}

fn percent(permille: u32) -> String {
    format!("{}.{} %", permille / 10, permille % 10)
}

/// For programs.
pub(super) fn plan_json(plan: &wire::TaskPlan) -> Value {
    let imbalance = |imbalance: &wire::Imbalance| {
        json!({
            "mean_permille": imbalance.mean_permille,
            "fullest_disk": imbalance.fullest_disk, "fullest_permille": imbalance.fullest_permille,
            "emptiest_disk": imbalance.emptiest_disk, "emptiest_permille": imbalance.emptiest_permille,
        })
    };
    let limit = plan.limit_bytes_per_s;
    json!({
        "slots": plan.slots, "bytes": plan.bytes,
        "limit_bytes_per_s": limit, "seconds": (limit > 0).then(|| plan.bytes.div_ceil(limit)),
        "fullest_disk": plan.fullest_disk, "fullest_permille": plan.fullest_permille,
        "before": plan.before.as_ref().map(imbalance), "after": plan.after.as_ref().map(imbalance),
        "stuck": plan.stuck, "shortage": plan.shortage,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rebalance_plan() -> wire::TaskPlan {
        let imbalance = |fullest_permille, emptiest_permille| wire::Imbalance {
            mean_permille: 412,
            fullest_disk: 3,
            fullest_permille,
            emptiest_disk: 9,
            emptiest_permille,
        };
        wire::TaskPlan {
            slots: 24,
            bytes: 40 << 30,
            limit_bytes_per_s: 128 << 20,
            before: Some(imbalance(480, 0)),
            after: Some(imbalance(430, 395)),
            ..Default::default()
        }
    }

    /// A plan of a rebalance says what moves, what it brings and how long it takes.
    #[test]
    fn a_rebalance() {
        let text = plan_text(TaskKind::Rebalance, &rebalance_plan());
        let expected = "moves     24 slots, 40 GiB\n\
                        before    mean 41.2 %, fullest disk 3 at 48.0 %, emptiest disk 9 at 0.0 %\n\
                        after     mean 41.2 %, fullest disk 3 at 43.0 %, emptiest disk 9 at 39.5 %\n\
                        takes     5 min 20 s at 128 MiB/s";
        assert_eq!(text, expected);
        let json = plan_json(&rebalance_plan());
        assert_eq!((&json["seconds"], &json["after"]["fullest_permille"]), (&json!(320), &json!(430)));
    }

    /// What is drained already is not drained again; a disk that came since is.
    #[test]
    fn drained_already() {
        let disk = |id, node, duty: Duty| wire::Disk { id, node, duty: duty.into(), ..Default::default() };
        let disks =
            vec![disk(1, 1, Duty::Draining), disk(2, 1, Duty::Retired), disk(3, 2, Duty::Unspecified)];
        let mut map = wire::Map { disks, ..Default::default() };
        let node = |node| wire::BeginTask { node, ..Default::default() };
        let disk_of = |disk| wire::BeginTask { disk, ..Default::default() };
        assert!(is_drained(&map, TaskKind::DrainNode, &node(1)));
        assert!(!is_drained(&map, TaskKind::DrainNode, &node(2)));
        assert!(!is_drained(&map, TaskKind::DrainNode, &node(9)));
        assert!(is_drained(&map, TaskKind::DrainDisk, &disk_of(1)));
        assert!(!is_drained(&map, TaskKind::FailDisk, &disk_of(1)));
        map.disks.push(disk(4, 1, Duty::Unspecified));
        assert!(!is_drained(&map, TaskKind::DrainNode, &node(1)));
    }

    /// A drain names the disk that is filled most, and what is missing when it cannot be done.
    #[test]
    fn a_drain() {
        let plan = wire::TaskPlan {
            slots: 1,
            bytes: 1 << 20,
            fullest_disk: 2,
            fullest_permille: 871,
            shortage: "rack r3 is needed".into(),
            ..Default::default()
        };
        let expected = "moves     1 slot, 1 MiB\nfullest   disk 2, 87.1 % once all is done\n\
                        takes     as long as the disks need: there is no limit\nmissing   rack r3 is needed";
        assert_eq!(plan_text(TaskKind::DrainNode, &plan), expected);
        assert_eq!(plan_text(TaskKind::Rebalance, &wire::TaskPlan::default()), "nothing to move");
    }
}
