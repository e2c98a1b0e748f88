//! `clusterctl node ls`, `disk ls`, `group ls`.

use proto::wire;
use serde_json::{Value, json};

use crate::Session;
use crate::output::{duty, health, hex, size, table};
use crate::status::time;

/// Prints the nodes.
///
/// # Errors
///
/// When no metadata server answers.
pub(crate) async fn nodes(session: &Session) -> anyhow::Result<()> {
    let status = session.connect().await?.admin().status().await?;
    let heard =
        |ms: Option<u64>| ms.map_or_else(|| "never".to_owned(), |ms| format!("{:.1} s ago", seconds(ms)));
    let nodes: Vec<(wire::Node, Option<u64>)> =
        status.nodes.iter().filter_map(|n| Some((n.node.clone()?, n.heard_ms_ago))).collect();
    let disks =
        |node: u32| status.disks.iter().filter(|d| d.disk.as_ref().is_some_and(|d| d.node == node)).count();
    let to_json = |(node, heard): &(wire::Node, Option<u64>)| {
        json!({
            "id": node.id, "site": node.site, "rack": node.rack, "address": node.address,
            "health": health(node.health), "disks": disks(node.id), "heard_ms_ago": heard,
        })
    };
    session.format.print(&nodes.iter().map(to_json).collect::<Value>(), || {
        let row = |(node, ms): &(wire::Node, Option<u64>)| {
            vec![
                node.id.to_string(),
                node.site.clone(),
                node.rack.clone(),
                node.address.clone(),
                health(node.health).to_owned(),
                disks(node.id).to_string(),
                heard(*ms),
            ]
        };
        let header = ["node", "site", "rack", "address", "health", "disks", "heard"];
        view(&status, table(&header, &[0, 5], nodes.iter().map(row).collect()))
    });
    Ok(())
}

/// Prints the disks.
///
/// # Errors
///
/// When no metadata server answers.
pub(crate) async fn disks(session: &Session) -> anyhow::Result<()> {
    let status = session.connect().await?.admin().status().await?;
    let disks: Vec<(wire::Disk, wire::DiskReport, u32)> = status
        .disks
        .iter()
        .filter_map(|d| Some((d.disk.clone()?, d.report.clone().unwrap_or_default(), d.slots)))
        .collect();
    let to_json = |(disk, report, slots): &(wire::Disk, wire::DiskReport, u32)| {
        json!({
            "id": disk.id, "uuid": hex(&disk.uuid), "node": disk.node, "name": disk.name,
            "health": health(disk.health), "reason": disk.reason, "slots": slots,
            "duty": duty(disk.duty), "duty_reason": disk.duty_reason, "damaged_extents": disk.damaged_shards,
            "verified_since_ms": (report.verified_since_ms != 0).then_some(report.verified_since_ms),
            "made_bytes_per_s": report.made_bytes_per_s, "stripes_set_aside": report.set_aside_total,
            "capacity_bytes": disk.capacity_bytes, "used_bytes": report.used_bytes, "shards": report.shards,
            "damaged_blocks": report.damaged_blocks, "full": report.full,
            "groups_without_room": report.groups_without_room, "engine": report.engine,
        })
    };
    session.format.print(&disks.iter().map(to_json).collect::<Value>(), || {
        let row = |(disk, report, slots): &(wire::Disk, wire::DiskReport, u32)| {
            vec![
                disk.id.to_string(),
                disk.node.to_string(),
                disk.name.clone(),
                if disk.reason.is_empty() { health(disk.health).to_owned() } else { disk.reason.clone() },
                duty(disk.duty).to_owned(),
                slots.to_string(),
                report.shards.to_string(),
                size(report.used_bytes),
                size(disk.capacity_bytes),
                report.damaged_blocks.to_string(),
                time(report.verified_since_ms),
                report.engine.clone(),
            ]
        };
        let header = [
            "disk",
            "node",
            "name",
            "health",
            "duty",
            "slots",
            "shards",
            "used",
            "capacity",
            "damaged",
            "read since",
            "engine",
        ];
        view(&status, table(&header, &[0, 1, 5, 6, 7, 8, 9], disks.iter().map(row).collect()))
    });
    Ok(())
}

/// Prints the placement groups: all, or only those that are not whole and legal.
///
/// # Errors
///
/// When no metadata server answers.
pub(crate) async fn groups(session: &Session, only_problems: bool) -> anyhow::Result<()> {
    let map = session.connect().await?.admin().map().await?;
    let rebuilding = i32::from(wire::SlotState::Rebuilding);
    let profile =
        |id: u32| map.profiles.iter().find(|p| p.id == id).map_or_else(|| id.to_string(), |p| p.name.clone());
    let fine =
        |group: &wire::Group| !group.below_policy && group.slots.iter().all(|slot| slot.state != rebuilding);
    let groups: Vec<&wire::Group> = map.groups.iter().filter(|g| !only_problems || !fine(g)).collect();
    let to_json = |group: &&wire::Group| {
        let slot = |slot: &wire::Slot| {
            json!({
                "disk": slot.disk, "rebuilding": slot.state == rebuilding,
                "source_disk": (slot.source_disk != 0).then_some(slot.source_disk),
                "since_epoch": slot.since_epoch,
            })
        };
        json!({
            "id": group.id, "profile": profile(group.profile), "epoch": group.epoch,
            "below_policy": group.below_policy, "slots": group.slots.iter().map(slot).collect::<Vec<_>>(),
        })
    };
    session.format.print(&groups.iter().map(to_json).collect::<Value>(), || {
        let slot = |slot: &wire::Slot| {
            if slot.state == rebuilding && slot.source_disk != 0 {
                format!("{}<-{}", slot.disk, slot.source_disk)
            } else if slot.state == rebuilding {
                format!("{}*", slot.disk)
            } else {
                slot.disk.to_string()
            }
        };
        let row = |group: &&wire::Group| {
            vec![
                group.id.to_string(),
                profile(group.profile),
                group.epoch.to_string(),
                if group.below_policy { "below" } else { "legal" }.to_owned(),
                group.slots.iter().map(slot).collect::<Vec<_>>().join(" "),
            ]
        };
        let header =
            ["group", "profile", "epoch", "policy", "disks by slot (a<-b: a is filled, b still serves)"];
        format!(
            "cluster map, version {}\n{}",
            map.version,
            table(&header, &[0, 2], groups.iter().map(row).collect())
        )
    });
    Ok(())
}

fn view(status: &wire::GetStatusReply, table: String) -> String {
    format!("as metadata server {} sees it, the leader of term {}\n{table}", status.leader_id, status.term)
}

#[allow(clippy::cast_precision_loss)]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
