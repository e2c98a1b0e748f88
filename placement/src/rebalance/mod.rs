//! Evening out: which slots should move, so that all disks are equally full.
//!
//! What it promises: every move passes [`apply_move`](crate::apply_move) on the map as it is then, and the
//! moves on a map that changes meanwhile end. As few bytes move as bring every disk near the mean, from disks
//! above it to disks below it; a disk that can come no nearer that way, since failure domains bind or slots
//! are large, is helped by disks that are fuller than it. Slots without a byte even the number of slots, at no cost,
//! so that what is written later spreads.
//!
//! What a slot has is not known here: the caller says. Disks that are not usable (away, or about to be
//! emptied) neither give nor take, and groups below their policy are brought back to it by
//! [`legalize`](crate::legalize); here they only get no worse.
//!
//! No floats, no lots but hashes of ids: the same map gives the same moves. It looks at each slot once, and
//! again at those of disks that give; it keeps a few numbers for each disk and for each group that moves.

mod levels;
mod mover;
mod offer;
mod rule;
mod seats;
mod takers;

use std::collections::BTreeSet;
use std::fmt;

use proto::{DiskId, GroupId};
use serde::Serialize;

use crate::fill::{Fill, Imbalance};
use crate::group::Group;
use crate::map::ClusterMap;
use crate::moves::Move;

use mover::Mover;

/// How near to the mean is near enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goal {
    /// Percent of the capacity, above or below.
    pub points: u32,
}

impl Default for Goal {
    fn default() -> Self {
        Self { points: 3 }
    }
}

impl Goal {
    fn fill(self) -> Fill {
        Fill::from_permille(self.points.saturating_mul(10))
    }

    /// What is aimed at: half of it, since data changes while slots move; and where little is stored, a part
    /// of that, since what comes should spread, too.
    fn slack(self, mean: Fill) -> Fill {
        self.fill().divided(2).min(mean.divided(16))
    }
}

/// A question to the planner.
#[derive(Clone, Copy)]
pub struct Rebalance<'a> {
    /// The map as it is.
    pub map: &'a ClusterMap,
    /// The bytes that one slot of a group has on its disk.
    pub bytes: &'a dyn Fn(GroupId) -> u64,
    /// Disks that take no slot, such as those that are full. They may give.
    pub barred: &'a BTreeSet<DiskId>,
    /// Where it ends.
    pub goal: Goal,
}

/// What may begin now.
#[derive(Clone, Copy)]
pub struct Room<'a> {
    /// At most so many moves.
    pub moves: usize,
    /// At most so many slots leave one disk at a time, and as many come to one; those under way count.
    pub per_disk: usize,
    /// False for groups that others move, or of which a disk still has to drop what it kept.
    pub is_free: &'a dyn Fn(&Group) -> bool,
}

/// One move of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedMove {
    /// The group.
    pub group: GroupId,
    /// Its slot, and where it goes.
    pub step: Move,
    /// What is copied.
    pub bytes: u64,
}

/// All moves that it takes from here, each as if those before were done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In order. None moves a slot that one before has moved.
    pub moves: Vec<PlannedMove>,
    /// What is copied in all.
    pub bytes: u64,
    /// How it is.
    pub before: Imbalance,
    /// How it will be.
    pub after: Imbalance,
    /// Set when disks stay outside the goal.
    pub stuck: Option<Stuck>,
}

/// A plan ends outside its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stuck {
    /// The disk that is the farthest from the mean then.
    pub disk: DiskId,
    /// What keeps it there.
    pub why: StuckBy,
}

/// What keeps a disk from the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StuckBy {
    /// Most slots may not go where there is space, as the failure domains there have enough of their groups.
    FailureDomains,
    /// Most slots are so large that moving one would help nobody.
    SlotSize,
    /// The disk is barred from taking.
    Barred,
    /// The slots that could go are being made, or move already.
    Busy,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk {} stays outside the goal: ", self.disk)?;
        f.write_str(match self.why {
            StuckBy::FailureDomains => {
                "groups may not have more slots in the failure domains that have space; add disks to the others"
            }
            StuckBy::SlotSize => "its slots are too large for the difference that is left; more groups would help",
            StuckBy::Barred => "it takes no slots now",
            StuckBy::Busy => "slots are being rebuilt or moved; plan again when they are whole",
        })
    }
}

impl Rebalance<'_> {
    /// How it is. Looks at each slot once.
    pub fn imbalance(&self) -> Imbalance {
        Mover::new(self, None).imbalance()
    }

    /// All that is to be done, from here to the goal.
    pub fn plan(&self) -> Plan {
        let mut mover = Mover::new(self, None);
        let before = mover.imbalance();
        mover.even_bytes();
        let after = mover.imbalance();
        let stuck = mover.worst().map(|disk| Stuck { disk, why: why(&mover, disk) });
        mover.even_slots();
        let bytes = mover.moves.iter().fold(0u64, |sum, step| sum.saturating_add(step.bytes));
        Plan { moves: mover.moves, bytes, before, after, stuck }
    }

    /// The moves that can begin now. To be asked again and again with the map as it is then: when this is
    /// empty, no copy is under way and every group is free, it is done. A group has one slot under way at a time. What is beyond the
    /// goal for failure domains or large slots, and slots without a byte, wait until no copy is under way,
    /// whoever began it.
    pub fn next_moves(&self, room: Room<'_>) -> Vec<PlannedMove> {
        if room.moves == 0 {
            return Vec::new();
        }
        let asked = *self;
        let mut mover = Mover::new(&asked, Some(room));
        mover.even_bytes();
        // How many slots a disk should have is known when the bytes have settled.
        if mover.moves.is_empty() && mover.moving == 0 {
            mover.even_slots();
        }
        mover.moves
    }
}

fn why(mover: &Mover<'_>, disk: DiskId) -> StuckBy {
    let kept = mover.kept;
    if mover.is_barred(disk) {
        StuckBy::Barred
    } else if kept.by_policy == 0 && kept.by_size == 0 {
        StuckBy::Busy
    } else if kept.by_policy >= kept.by_size {
        StuckBy::FailureDomains
    } else {
        StuckBy::SlotSize
    }
}
