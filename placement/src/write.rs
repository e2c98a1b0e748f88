//! Which groups a new extent may go to.

use std::collections::BTreeSet;

use proto::{DiskId, GroupId, ProfileId};

use crate::group_set::GroupSet;
use crate::hash::{Purpose, hash};
use crate::map::ClusterMap;

/// Probes for each group asked for, before the search goes on in order.
const PROBES_PER_GROUP: usize = 8;

/// What a writer does not want.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Avoid {
    /// Groups that just failed it.
    pub groups: BTreeSet<GroupId>,
    /// Disks that just failed it, or are full.
    pub disks: BTreeSet<DiskId>,
}

/// Up to `limit` groups for a new extent, in order of preference: groups of the profile whose every slot
/// is on a disk that is up, not given up and not to be avoided; legal ones first, of these last the ones with
/// a slot on a disk that is drained; then, unless the profile refuses them, those below policy. `spread` (a random number, say) decides which of the many; equal input gives
/// equal output.
///
/// The map keeps the writable groups of each profile as a set that can be asked for its n-th member, so
/// this takes a few probes at hashed places. Only when these meet too many groups to be avoided does it
/// go on in order, and then it passes at most the groups that are avoided, or lie on avoided disks.
pub fn pick_for_write(
    map: &ClusterMap,
    profile: ProfileId,
    avoid: &Avoid,
    limit: usize,
    spread: u64,
) -> Vec<GroupId> {
    let Some(writable) = map.writable(profile) else { return Vec::new() };
    let refuses = map.profiles().get(&profile).is_none_or(|profile| profile.refuse_below_policy());
    let mut picked = Vec::new();
    let below = Some(&writable.below).filter(|_| !refuses);
    let sets = [Some(&writable.legal), Some(&writable.leaving), below];
    for set in sets.into_iter().flatten() {
        search(map, set, avoid, limit, spread, &mut picked);
    }
    picked
}

fn search(
    map: &ClusterMap,
    set: &GroupSet,
    avoid: &Avoid,
    limit: usize,
    spread: u64,
    picked: &mut Vec<GroupId>,
) {
    let Ok(members) = u64::try_from(set.len()) else { return };
    if members == 0 || picked.len() >= limit {
        return;
    }
    let wanted = limit.saturating_sub(picked.len()).min(set.len());
    let mut probes = (0..).map_while(|probe| {
        let place = hash(Purpose::Write, spread, probe) % members;
        set.nth(usize::try_from(place).unwrap_or_default())
    });
    let mut start = None;
    for group in probes.by_ref().take(wanted.saturating_mul(PROBES_PER_GROUP)) {
        start.get_or_insert(group);
        offer(map, avoid, group, picked);
        if picked.len() >= limit {
            return;
        }
    }
    let Some(start) = start else { return };
    let before = set.from(GroupId(0)).take_while(|group| *group < start);
    for group in set.from(start).chain(before) {
        offer(map, avoid, group, picked);
        if picked.len() >= limit {
            return;
        }
    }
}

fn offer(map: &ClusterMap, avoid: &Avoid, group: GroupId, picked: &mut Vec<GroupId>) {
    let good = |group: &crate::Group| group.slots.iter().all(|slot| !avoid.disks.contains(&slot.disk));
    if !avoid.groups.contains(&group)
        && !picked.contains(&group)
        && map.groups().get(&group).is_some_and(good)
    {
        picked.push(group);
    }
}
