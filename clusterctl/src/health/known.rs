//! What nobody has looked at lately.

use proto::wire;

use crate::output::{count, duration};

use super::served_disks;

/// What is not known to be whole: disks with slots of which some group was not read within the time of an audit. An
/// audit that is a quarter late is none.
pub(crate) fn not_known(status: &wire::GetStatusReply) -> Vec<String> {
    let disks = served_disks(status).filter(|(_, status)| status.slots > 0);
    let known = disks.filter_map(|(disk, status_of)| {
        let report = status_of.report.as_ref()?;
        let place = format!("disk {} ({} of node {})", disk.id, disk.name, disk.node);
        if report.verified_since_ms == 0 {
            let groups = count(u64::from(report.groups_unverified), "group");
            return Some(format!("whether {place} is whole: {groups} of it not read yet"));
        }
        let age_s = status.cluster_time_ms.saturating_sub(report.verified_since_ms) / 1000;
        let limit_s = report.audit_period_s.saturating_add(report.audit_period_s / 4);
        (age_s > limit_s).then(|| {
            let (age, period) = (duration(age_s), duration(report.audit_period_s));
            format!("whether {place} is whole: some of it was last read {age} ago, an audit takes {period}")
        })
    });
    known.collect()
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
            ["whether disk 4 (bay-1 of node 2) is whole: 3 groups of it not read yet"]
        );
        let late = not_known(&status(1, 874_000));
        assert!(late[0].ends_with("last read 2 min 6 s ago, an audit takes 1 min 40 s"), "{late:?}");
    }
}
