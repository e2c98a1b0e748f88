//! What nobody has looked at lately.

use proto::wire;

use crate::output::{count, duration};

use super::served_disks;

/// What is not known to be whole: disks with slots of which some group was not read within the time of an audit. An
/// audit that is a quarter late is none.
pub(crate) fn not_known(status: &wire::GetStatusReply) -> Vec<String> {
    let (mut unread, mut groups) = (Vec::new(), 0u64);
    let (mut late, mut oldest_s) = (Vec::new(), 0);
    for (disk, status_of) in served_disks(status).filter(|(_, status)| status.slots > 0) {
        let report = status_of.report.clone().unwrap_or_default();
        let age_s = status.cluster_time_ms.saturating_sub(report.verified_since_ms) / 1000;
        if report.verified_since_ms == 0 {
            unread.push(disk);
            groups += u64::from(report.groups_unverified);
        } else if age_s > report.audit_period_s.saturating_add(report.audit_period_s / 4) {
            late.push(disk);
            oldest_s = age_s.max(oldest_s);
        }
    }
    let unread = named(&unread).map(|disks| {
        format!("whether {disks} whole: {} not read yet, see `clusterctl disk ls`", count(groups, "group"))
    });
    let late = named(&late).map(|disks| {
        format!(
            "whether {disks} whole: some groups were last read {} ago, later than an audit",
            duration(oldest_s)
        )
    });
    unread.into_iter().chain(late).collect()
}

/// `disk 4 (bay-1 of node 2) is`, `17 disks are`; nothing for none.
fn named(disks: &[&wire::Disk]) -> Option<String> {
    match disks {
        [] => None,
        [disk] => Some(format!("disk {} ({} of node {}) is", disk.id, disk.name, disk.node)),
        disks => Some(format!("{} disks are", disks.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(slots: u32, verified_since_ms: u64) -> wire::GetStatusReply {
        let disk = wire::Disk { id: 4, name: "bay-1".into(), node: 2, ..Default::default() };
        let report = wire::DiskReport {
            verified_since_ms,
            groups_unverified: 3,
            audit_period_s: 100,
            ..Default::default()
        };
        wire::GetStatusReply {
            cluster_time_ms: 1_000_000,
            disks: vec![wire::DiskStatus { disk: Some(disk), report: Some(report), slots }],
            ..Default::default()
        }
    }

    /// Known is what was read within an audit and a quarter; a disk without a slot has nothing to know.
    #[test]
    fn what_was_read_is_known() {
        assert_eq!(not_known(&status(1, 875_000)), Vec::<String>::new());
        assert_eq!(not_known(&status(0, 0)), Vec::<String>::new());
        assert_eq!(
            not_known(&status(1, 0)),
            ["whether disk 4 (bay-1 of node 2) is whole: 3 groups not read yet, see `clusterctl disk ls`"]
        );
        let late = not_known(&status(1, 874_000));
        assert!(late[0].ends_with("last read 2 min 6 s ago, later than an audit"), "{late:?}");
        let mut two = status(1, 0);
        two.disks.extend(status(1, 0).disks);
        assert!(not_known(&two)[0].starts_with("whether 2 disks are whole: 6 groups"), "{two:?}");
    }
}
