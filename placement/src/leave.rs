//! May these disks be emptied? The question of a drain before it begins.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use proto::{ByteSize, DiskId, ErrorCode, Failure, GroupId, ProfileId, SlotIndex};
use serde::Serialize;

use crate::create::{legal_rule, shortage_without};
use crate::fill::{DiskFill, Fill, percent};
use crate::group::{Group, Slot, slot_index};
use crate::map::ClusterMap;
use crate::pool::{Pool, Rule};
use crate::profile::Profile;
use crate::reject::{NoLegalPlace, Rejected, Shortage};

/// What it takes to empty disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DrainPlan {
    /// Slots that move.
    pub slots: u64,
    /// Bytes that they have.
    pub bytes: u64,
    /// Of the disks that take slots, the fullest then.
    pub fullest: Option<DiskFill>,
}

/// Why disks cannot be emptied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CannotLeave {
    /// The other disks cannot keep the policy of a profile.
    NoLegalPlace(NoLegalPlace),
    /// The other disks that may take the slots have too little space.
    NoRoom {
        /// What would move.
        bytes: u64,
        /// What of it finds no space.
        missing: u64,
        /// Disks are filled up to here at most, in thousandths of their capacity.
        full_permille: u32,
    },
}

impl fmt::Display for CannotLeave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLegalPlace(error) => error.fmt(f),
            Self::NoRoom { bytes, missing, full_permille } => write!(
                f,
                "{} would move, and {} of it finds no space on other disks that may take it, filled up to {}: \
                 add disks, or delete data",
                ByteSize(*bytes),
                ByteSize(*missing),
                percent(*full_permille)
            ),
        }
    }
}

impl std::error::Error for CannotLeave {}

impl From<CannotLeave> for Failure {
    fn from(error: CannotLeave) -> Self {
        match error {
            CannotLeave::NoLegalPlace(error) => error.into(),
            CannotLeave::NoRoom { .. } => Self::new(ErrorCode::NoLegalPlace, error.to_string()),
        }
    }
}

/// Moves every slot off `disks`, in thought: each to where [`relocate`](crate::relocate) would bring it were
/// none of these disks usable, small slots first. `bytes` is what one slot of a group has, `used` what
/// lies on each disk now (one that is not named counts as empty), and no disk is filled above `full_permille` of its capacity.
/// The map is not changed, and says nothing of what will be written meanwhile.
///
/// # Errors
///
/// What is missing, when a slot finds no place: domains or disks, or space.
pub fn can_leave(
    map: &ClusterMap,
    disks: &BTreeSet<DiskId>,
    bytes: &dyn Fn(GroupId) -> u64,
    used: &BTreeMap<DiskId, u64>,
    full_permille: u32,
) -> Result<DrainPlan, CannotLeave> {
    let mut leave = Leave {
        map,
        disks,
        full: Fill::from_permille(full_permille),
        used: used.clone(),
        places: BTreeMap::new(),
    };
    let (mut with_room, mut in_any) = (Pools::new(&leave), Pools::new(&leave));
    let (mut slots, mut total, mut missing) = (0u64, 0u64, 0u64);
    for (bytes, group, slot) in leave.slots(bytes) {
        slots += 1;
        total = total.saturating_add(bytes);
        let Some(asked) = leave.ask(group, slot) else { continue };
        let place = leave.place(&mut with_room, &asked, Some(bytes));
        match place.or_else(|| leave.place(&mut in_any, &asked, None)) {
            Some(to) => leave.put(&asked, to, bytes),
            None => return Err(CannotLeave::NoLegalPlace(leave.shortage(&asked))),
        }
        if place.is_none() {
            missing = missing.saturating_add(bytes);
        }
    }
    if missing > 0 {
        return Err(CannotLeave::NoRoom { bytes: total, missing, full_permille });
    }
    Ok(DrainPlan { slots, bytes: total, fullest: leave.fullest() })
}

/// A slot that needs a place.
struct Asked<'a> {
    profile: &'a Profile,
    group: GroupId,
    slot: SlotIndex,
    from: DiskId,
    others: Vec<DiskId>,
    leaving: Vec<DiskId>,
}

/// The state of the thought.
struct Leave<'a> {
    map: &'a ClusterMap,
    disks: &'a BTreeSet<DiskId>,
    full: Fill,
    used: BTreeMap<DiskId, u64>,
    /// Groups that moved, and where their slots are then.
    places: BTreeMap<GroupId, Vec<DiskId>>,
}

/// The disks that stay, by profile.
struct Pools<'a> {
    map: &'a ClusterMap,
    closed: &'a BTreeSet<DiskId>,
    by_profile: BTreeMap<ProfileId, Pool<'a>>,
}

impl<'a> Pools<'a> {
    fn new(leave: &Leave<'a>) -> Self {
        Self { map: leave.map, closed: leave.disks, by_profile: BTreeMap::new() }
    }

    fn of(&mut self, profile: &Profile) -> &mut Pool<'a> {
        self.by_profile.entry(profile.id()).or_insert_with(|| {
            let mut pool = Pool::new(self.map, profile.id());
            self.closed.iter().for_each(|disk| pool.close(*disk));
            pool
        })
    }
}

impl<'a> Leave<'a> {
    /// All slots on the disks, those with few bytes first: a disk that has no room for one has none for those that
    /// follow.
    fn slots(&self, bytes: &dyn Fn(GroupId) -> u64) -> Vec<(u64, GroupId, SlotIndex)> {
        let mut slots = Vec::new();
        for disk in self.disks {
            for group in self.map.groups_on(*disk) {
                let here = group.slots.iter().enumerate().filter(|(_, slot)| slot.disk == *disk);
                slots.extend(here.map(|(place, _)| (bytes(group.id), group.id, slot_index(place))));
            }
        }
        slots.sort_unstable();
        slots
    }

    fn ask(&self, group: GroupId, slot: SlotIndex) -> Option<Asked<'a>> {
        let row: &Group = self.map.groups().get(&group)?;
        let profile = self.map.profiles().get(&row.profile)?;
        let from = row.slot(slot).ok()?.disk;
        let now = self.places.get(&group).cloned();
        let now = now.unwrap_or_else(|| row.slots.iter().map(|slot| slot.disk).collect());
        let others = now.into_iter().enumerate().filter(|(place, _)| slot_index(*place) != slot);
        Some(Asked {
            profile,
            group,
            slot,
            from,
            others: others.map(|(_, disk)| disk).collect(),
            leaving: row.slots.iter().filter_map(Slot::source).chain([from]).collect(),
        })
    }

    /// A disk for the slot: with room for so many bytes, if they are given.
    fn place(&self, pools: &mut Pools<'a>, asked: &Asked<'_>, bytes: Option<u64>) -> Option<DiskId> {
        let pool = pools.of(asked.profile);
        let legal = legal_rule(asked.profile);
        for rule in [legal, Rule { beside: Some(asked.from), ..legal }] {
            loop {
                let mut draft = pool.draft(asked.group, &asked.others, &asked.leaving);
                let Some(to) = pool.pick(&mut draft, rule) else { break };
                if bytes.is_none_or(|bytes| self.has_room(to, bytes)) {
                    return Some(to);
                }
                pool.close(to);
            }
        }
        None
    }

    fn has_room(&self, disk: DiskId, bytes: u64) -> bool {
        let used = self.used.get(&disk).copied().unwrap_or_default().saturating_add(bytes);
        self.map.disks().get(&disk).is_some_and(|disk| used <= self.full.load(disk.capacity_bytes))
    }

    fn put(&mut self, asked: &Asked<'_>, to: DiskId, bytes: u64) {
        let used = self.used.entry(to).or_default();
        *used = used.saturating_add(bytes);
        let mut disks = asked.others.clone();
        disks.insert(usize::from(asked.slot.0).min(disks.len()), to);
        self.places.insert(asked.group, disks);
    }

    fn shortage(&self, asked: &Asked<'_>) -> NoLegalPlace {
        let Asked { profile, slot, others, leaving, .. } = asked;
        let shortage = shortage_without(self.map, profile, profile.failure_domain(), self.disks);
        let leaving: Vec<DiskId> = leaving.iter().chain(self.disks).copied().collect();
        let rejected = Rejected::collect(self.map, profile, others, &leaving, &[]);
        NoLegalPlace::new(profile, shortage.unwrap_or(Shortage::Slot(*slot)), rejected)
    }

    fn fullest(&self) -> Option<DiskFill> {
        let stay = self
            .map
            .disks()
            .values()
            .filter(|disk| self.map.is_usable(disk) && !self.disks.contains(&disk.id));
        let fills = stay.map(|disk| {
            let used = self.used.get(&disk.id).copied().unwrap_or_default();
            let permille = Fill::of(used.into(), disk.capacity_bytes.into()).permille();
            DiskFill { disk: disk.id, permille }
        });
        fills.max_by_key(|fill| (fill.permille, std::cmp::Reverse(fill.disk)))
    }
}
