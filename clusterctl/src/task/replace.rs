//! `clusterctl disk replace`: the whole runbook of a dead disk.
//!
//! Each step is read off the cluster, so that the command may be typed again at any time and goes on where it was:
//! the slots leave the disk, a person changes it, the new one registers, and redundancy is whole again.

use std::time::Duration;

use anyhow::{Context, bail};
use client::Admin;
use os::Host;
use proto::{DiskId, wire};
use serde_json::json;
use wire::{Duty, TaskKind};

use super::begin::{begin_or_find, say};
use super::watch::watch;
use super::{Long, to_json};
use crate::Session;
use crate::output::{count, health};

/// Between two looks.
const POLL: Duration = Duration::from_secs(1);

/// Replaces a disk, from its slots to the redundancy.
///
/// # Errors
///
/// What the cluster refused, or nobody answers; what was begun goes on.
pub(crate) async fn replace(
    session: &Session,
    disk: DiskId,
    new: Option<DiskId>,
    long: &Long,
) -> anyhow::Result<()> {
    let cluster = session.connect().await?;
    let admin = cluster.admin();
    let old = find(&admin.map().await?, disk)?;
    let mut task = None;
    if old.duty() != Duty::Retired {
        say(session, &steps(&old, new.is_some()));
        let to_disk = new.map_or(0, |new| new.0);
        let kind = TaskKind::ReplaceDisk.into();
        let begin = wire::BeginTask { kind, disk: disk.0, to_disk, ..Default::default() };
        let Some((_, begun)) = begin_or_find(session, &admin, begin, long).await? else { return Ok(()) };
        task = Some(if long.no_wait { begun } else { watch(session, &admin, begun.id).await? });
        if long.no_wait {
            let json = json!({ "task": task.as_ref().map(|task| to_json(task, None)) });
            session.format.print(&json, || {
                format!("step 1 goes on by itself; to watch it and go on: clusterctl disk replace {disk}")
            });
            return Ok(());
        }
    }
    say(
        session,
        &format!(
            "disk {disk} has no slot any more, and is retired: change it now, if that is not done (2, 3)"
        ),
    );
    let new = wait_for_new(session, &admin, &old, new).await?;
    wait_for_redundancy(session, &admin).await?;
    let json =
        json!({ "disk": disk.0, "new_disk": new.id, "task": task.as_ref().map(|task| to_json(task, None)) });
    session.format.print(&json, || {
        format!(
            "disk {disk} is replaced by disk {} ({} of node {}), and nothing is missing\nnext, to fill it: clusterctl \
             rebalance",
            new.id, new.name, new.node
        )
    });
    Ok(())
}

fn find(map: &wire::Map, disk: DiskId) -> anyhow::Result<wire::Disk> {
    let found = map.disks.iter().find(|known| known.id == disk.0);
    found.cloned().with_context(|| format!("there is no disk {disk}: see `clusterctl disk ls`"))
}

/// What is to be done, and by whom.
fn steps(old: &wire::Disk, has_new: bool) -> String {
    let wire::Disk { id, name, node, .. } = old;
    let serves = health(old.health) == "up";
    let pull =
        if serves { "once step 1 is done: it still serves" } else { "now, if you like: it does not serve" };
    let mut lines = vec![
        format!("disk {id} ({name} of node {node}, {}) is to be replaced:", health(old.health)),
        "  1. its slots go to other disks: the cluster does that, this command waits".to_owned(),
    ];
    if has_new {
        lines.push(format!("  2. pull it {pull}"));
    } else {
        lines.push(format!("  2. stop the daemon of node {node} and pull the disk {pull}"));
        lines.push(format!(
            "  3. mount the new disk, empty, at the path of {name} in the node's configuration, and start the daemon: it \
             takes the disk into use by itself"
        ));
    }
    lines.push("  4. the new disk gets an id of its own: this command waits".to_owned());
    lines.push("  5. redundancy is whole again: this command waits".to_owned());
    lines.join("\n")
}

/// The disk that came in place of `old`: the one that was named, else one of the same name on the same node.
fn successor<'a>(map: &'a wire::Map, old: &wire::Disk, new: Option<DiskId>) -> Option<&'a wire::Disk> {
    let serves = |disk: &&wire::Disk| disk.duty() == Duty::Unspecified && health(disk.health) == "up";
    let mut serving = map.disks.iter().filter(serves);
    match new {
        Some(new) => serving.find(|disk| disk.id == new.0),
        None => serving.find(|disk| disk.node == old.node && disk.name == old.name && disk.id > old.id),
    }
}

async fn wait_for_new(
    session: &Session,
    admin: &Admin<Host>,
    old: &wire::Disk,
    new: Option<DiskId>,
) -> anyhow::Result<wire::Disk> {
    let mut told = false;
    loop {
        let map = admin.map().await?;
        if let Some(new) = successor(&map, old, new) {
            say(session, &format!("disk {} ({} of node {}) serves in its place", new.id, new.name, new.node));
            return Ok(new.clone());
        }
        if let Some(new) = new
            && find(&map, new)?.duty() != Duty::Unspecified
        {
            bail!("disk {new} is not in service: name another one with --new");
        }
        if !std::mem::replace(&mut told, true) {
            say(session, "waiting for the new disk; it may be broken off and typed again");
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn wait_for_redundancy(session: &Session, admin: &Admin<Host>) -> anyhow::Result<()> {
    let mut told = None;
    loop {
        let status = admin.status().await?;
        let left = (status.slots_rebuilding, status.slots_missing);
        if left == (0, 0) {
            return Ok(());
        }
        if told != Some(left) {
            let (rebuilding, missing) = left;
            let filled = count(rebuilding, "slot");
            say(
                session,
                &format!("waiting: {filled} being filled, shards missing in {}", count(missing, "place")),
            );
            told = Some(left);
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(id: u32, node: u32, name: &str, health: wire::Health, duty: Duty) -> wire::Disk {
        let (health, duty) = (health.into(), duty.into());
        wire::Disk { id, node, name: name.into(), health, duty, ..Default::default() }
    }

    /// The successor has the name and the node of the old disk and serves, or is the one that was named.
    #[test]
    fn successors() {
        use wire::Health::{Down, Up};
        let old = disk(3, 1, "bay-1", Down, Duty::Retired);
        let others = [
            disk(1, 1, "bay-0", Up, Duty::Unspecified),
            disk(2, 2, "bay-1", Up, Duty::Unspecified),
            disk(4, 1, "bay-1", Up, Duty::Retired),
        ];
        let mut map = wire::Map { disks: others.to_vec(), ..Default::default() };
        assert_eq!(successor(&map, &old, None), None);
        assert_eq!(successor(&map, &old, Some(DiskId(1))).map(|disk| disk.id), Some(1));
        map.disks.push(disk(5, 1, "bay-1", Up, Duty::Unspecified));
        assert_eq!(successor(&map, &old, None).map(|disk| disk.id), Some(5));
        map.disks.last_mut().expect("a disk").health = Down.into();
        assert_eq!(successor(&map, &old, None), None);
    }

    /// A disk that still serves is not to be pulled yet; a dead one is.
    #[test]
    fn steps_fit_the_disk() {
        let (up, down) = (wire::Health::Up, wire::Health::Down);
        let text = steps(&disk(7, 3, "bay-1", up, Duty::Unspecified), false);
        assert!(text.contains("once step 1 is done") && text.contains("path of bay-1"), "{text}");
        let text = steps(&disk(7, 3, "bay-1", down, Duty::Failed), true);
        assert!(text.contains("now, if you like") && !text.contains("3. mount"), "{text}");
    }
}
