//! Space, to the byte.

use std::collections::BTreeMap;

use proto::wire;
use serde_json::{Value, json};

use crate::health::served_disks;
use crate::output::size;

/// The space of all disks but retired and given up ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) used_bytes: u64,
    pub(crate) capacity_bytes: u64,
    /// The rack with the most capacity, in words, and its capacity.
    pub(crate) largest: String,
    pub(crate) largest_bytes: u64,
}

impl Space {
    /// As disks have reported.
    pub(crate) fn of(status: &wire::GetStatusReply) -> Self {
        let rack_of = |node: u32| {
            let nodes = status.nodes.iter().filter_map(|status| status.node.as_ref());
            let mut found = nodes.filter(|known| known.id == node);
            found.next().map(|node| (node.site.clone(), node.rack.clone())).unwrap_or_default()
        };
        let mut space = Self::default();
        let mut racks: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (disk, status) in served_disks(status) {
            let used = status.report.as_ref().map_or(0, |report| report.used_bytes);
            space.used_bytes = space.used_bytes.saturating_add(used);
            if disk.duty() == wire::Duty::Failed {
                continue;
            }
            space.capacity_bytes = space.capacity_bytes.saturating_add(disk.capacity_bytes);
            let rack = racks.entry(rack_of(disk.node)).or_default();
            *rack = rack.saturating_add(disk.capacity_bytes);
        }
        if racks.len() > 1
            && let Some(((_, rack), bytes)) = racks.into_iter().max_by_key(|(_, bytes)| *bytes)
        {
            (space.largest, space.largest_bytes) = (format!("rack {rack}"), bytes);
        }
        space
    }

    /// What disks may hold up to this percentage once the largest rack is lost.
    pub(crate) fn without_largest(&self, percent: u32) -> u64 {
        let left = u128::from(self.capacity_bytes.saturating_sub(self.largest_bytes));
        u64::try_from(left * u128::from(percent) / 100).unwrap_or(u64::MAX)
    }

    /// What may still be written, parity included, such that it fits below `percent` without the largest rack.
    pub(crate) fn free_bytes(&self, percent: u32) -> u64 {
        self.without_largest(percent).saturating_sub(self.used_bytes)
    }

    /// `1.2 GiB used of 40 GiB; 20 GiB may still be written, parity included, as after the loss of rack r2`.
    pub(super) fn text(&self, full_percent: u32) -> String {
        let after = match self.largest.as_str() {
            "" => String::new(),
            largest => format!(", as after the loss of {largest}"),
        };
        format!(
            "{} used of {}; {} may still be written, parity included{after}",
            size(self.used_bytes),
            size(self.capacity_bytes),
            size(self.free_bytes(full_percent))
        )
    }

    /// For programs.
    pub(super) fn to_json(&self, fullness: wire::Fullness) -> Value {
        json!({
            "used_bytes": self.used_bytes, "capacity_bytes": self.capacity_bytes,
            "largest_domain": self.largest, "largest_domain_bytes": self.largest_bytes,
            "usable_bytes": self.without_largest(fullness.full_percent),
            "free_bytes": self.free_bytes(fullness.full_percent),
            "near_full_percent": fullness.near_full_percent,
            "backfill_full_percent": fullness.backfill_full_percent,
            "full_percent": fullness.full_percent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(disks: &[(u32, wire::Duty)]) -> wire::GetStatusReply {
        let node = |id: u32| wire::Node { id, rack: format!("r{id}"), ..Default::default() };
        let disk = |(node, duty): &(u32, wire::Duty)| {
            let disk =
                wire::Disk { node: *node, capacity_bytes: 1000, duty: (*duty).into(), ..Default::default() };
            let report = wire::DiskReport { used_bytes: 101, ..Default::default() };
            wire::DiskStatus { disk: Some(disk), report: Some(report), slots: 0 }
        };
        wire::GetStatusReply {
            nodes: [1, 2, 3]
                .map(|id| wire::NodeStatus { node: Some(node(id)), ..Default::default() })
                .to_vec(),
            disks: disks.iter().map(disk).collect(),
            ..Default::default()
        }
    }

    /// What may be written is what fits without the largest rack; what is retired or given up gives no room, and
    /// what lies on a disk that is given up needs some.
    #[test]
    fn without_the_largest_rack() {
        use wire::Duty::{Draining, Failed, Retired, Unspecified};
        let space = Space::of(&status(&[
            (1, Unspecified),
            (2, Unspecified),
            (2, Draining),
            (3, Failed),
            (3, Retired),
        ]));
        assert_eq!((space.used_bytes, space.capacity_bytes), (404, 3000));
        assert_eq!((space.largest.as_str(), space.largest_bytes), ("rack r2", 2000));
        assert_eq!((space.without_largest(95), space.free_bytes(95)), (950, 546));
        let one = Space::of(&status(&[(1, Unspecified)]));
        assert_eq!((one.largest.as_str(), one.free_bytes(95)), ("", 849));
    }
}
