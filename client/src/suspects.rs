//! Places that failed a moment ago: asked last, so that one dead host costs one wait and not one for
//! each stripe.

use std::collections::BTreeMap;
use std::time::Duration;

use env::Monotonic;
use proto::DiskId;

use crate::group::Place;

/// How long a place that failed is avoided.
const FAILED_FOR: Duration = Duration::from_secs(10);
/// How long a place that was only slow is avoided.
const SLOW_FOR: Duration = Duration::from_secs(3);
/// Entries kept; what is over is forgotten, and costs a wait.
const SUSPECTS_MAX: usize = 4096;

/// Disks and addresses to avoid, each until a point in time.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    failed: BTreeMap<DiskId, Monotonic>,
    slow: BTreeMap<DiskId, Monotonic>,
    addresses: BTreeMap<String, Monotonic>,
}

impl Suspects {
    /// The disk failed.
    pub(crate) fn disk_failed(&mut self, disk: DiskId, now: Monotonic) {
        note(&mut self.failed, disk, now, FAILED_FOR);
    }

    /// The disk let its readers wait.
    pub(crate) fn disk_slow(&mut self, disk: DiskId, now: Monotonic) {
        note(&mut self.slow, disk, now, SLOW_FOR);
    }

    /// Nobody answered there: all disks of that host.
    pub(crate) fn address_failed(&mut self, address: &str, now: Monotonic) {
        note(&mut self.addresses, address.to_owned(), now, FAILED_FOR);
    }

    /// Has the place failed, or let its readers wait?
    pub(crate) fn suspect(&self, place: &Place, now: Monotonic) -> bool {
        self.failed(place, now) || noted(self.slow.get(&place.disk), now)
    }

    /// Has the place failed?
    pub(crate) fn failed(&self, place: &Place, now: Monotonic) -> bool {
        noted(self.failed.get(&place.disk), now) || noted(self.addresses.get(&place.address), now)
    }

    /// The disks that failed.
    pub(crate) fn failed_disks(&self, now: Monotonic) -> Vec<u32> {
        self.failed.iter().filter(|(_, until)| noted(Some(until), now)).map(|(disk, _)| disk.0).collect()
    }
}

fn noted(until: Option<&Monotonic>, now: Monotonic) -> bool {
    until.is_some_and(|until| *until > now)
}

fn note<K: Ord>(entries: &mut BTreeMap<K, Monotonic>, key: K, now: Monotonic, duration: Duration) {
    if entries.len() >= SUSPECTS_MAX {
        entries.retain(|_, until| *until > now);
    }
    if entries.len() < SUSPECTS_MAX || entries.contains_key(&key) {
        let until = entries.entry(key).or_default();
        *until = now.after(duration).max(*until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::group;

    /// A failure is remembered for its time and not longer; slowness does not shorten it, nor count as
    /// a failure; a dead host takes all its disks with it.
    #[test]
    fn suspicion_passes() {
        let mut suspects = Suspects::default();
        let group = group(4, 2);
        let (start, place) = (Monotonic::new(Duration::from_secs(5)), &group.places[1]);
        assert!(!suspects.suspect(place, start));
        suspects.disk_failed(place.disk, start);
        suspects.disk_slow(place.disk, start);
        let late = start.after(FAILED_FOR - Duration::from_millis(1));
        assert!(suspects.suspect(place, late));
        assert_eq!(suspects.failed_disks(late), [place.disk.0]);
        assert!(!suspects.suspect(place, start.after(FAILED_FOR)));
        suspects.disk_slow(group.places[3].disk, start);
        assert!(suspects.suspect(&group.places[3], start) && !suspects.failed(&group.places[3], start));
        assert!(!suspects.suspect(&group.places[2], late));
        suspects.address_failed(&group.places[2].address, start);
        assert!(suspects.suspect(&group.places[2], late));
    }

    /// The memory is bounded, and makes room for the new by forgetting the old.
    #[test]
    fn memory_is_bounded() {
        let mut suspects = Suspects::default();
        let start = Monotonic::default();
        for disk in 0..10_000 {
            suspects.disk_failed(DiskId(disk), start);
        }
        assert_eq!(suspects.failed.len(), SUSPECTS_MAX);
        suspects.disk_failed(DiskId(20_000), start.after(FAILED_FOR));
        assert_eq!(suspects.failed_disks(start.after(FAILED_FOR)), [20_000]);
    }
}
