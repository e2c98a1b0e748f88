//! The cluster map: choosing, moving and checking places; the promise as a function.
//!
//! Everything here is a pure function of the [`ClusterMap`]: no I/O, no clock, no randomness, no floats,
//! and no panic, since the metadata service calls it from `apply`. The service that chooses places, the
//! planner that moves them, the simulator's invariants and the operators' questions are the same code.
//!
//! | question | answer |
//! | --- | --- |
//! | is this group as its policy wants? | [`check_group`], the one validator |
//! | which disks for new groups? | [`create_groups`], [`choose_slots`], or below policy [`create_substitutes`] |
//! | how many groups? | [`groups_wanted`] |
//! | what next, to bring a group back to its policy? | [`legalize`] |
//! | where to, from a disk that is drained or dead? | [`relocate`], [`relocate_except`] |
//! | may these disks be emptied? | [`can_leave`] |
//! | what moves, so that all disks are equally full? | [`Rebalance`] |
//! | what becomes of the group? | [`apply_move`], the one gate for moves, and [`slot_rebuilt`] |
//! | what may be lost at once? | [`tolerance`], [`tolerance_of_written`], [`may_lose`] |
//! | where may a new extent go? | [`pick_for_write`] |
//! | how is a group reached? | [`to_placement`] |
//! | why here? | [`explain`] |
//!
//! # How a disk is chosen
//!
//! Slots are chosen one after another; for each:
//!
//! 1. Only disks that are up, in service, have a size and are not in the group, on nodes whose failure domain (of
//!    the profile's kind) has fewer than `m` slots of the group.
//! 2. Of their nodes, those with the fewest slots of the group; for substitutes, of these the ones in
//!    racks with the fewest.
//! 3. Of these, the nodes whose load (slots of the profile on usable disks, by their capacity) is not above
//!    what the lowest would have with one slot more. Loads are compared as fractions, by cross-multiplying.
//! 4. Of these, the node with the lowest hash of (group, node).
//! 5. On that node, the disk by the rules 3 and 4, over its disks.
//!
//! Rule 3 keeps slots in proportion to capacity: nobody runs ahead of the emptiest by more than a slot.
//! Within that slot the lot decides, so that sets of disks do not repeat even when no two disks are of one
//! size. Greedy choice never ends in a dead end, as a domain with room for `min(m, disks)` slots loses
//! exactly one by taking one; so groups exist if and only if the sum of that room reaches `k + m`.
//!
//! Finally the chosen disks are put in the order of a third hash: data slots are read more than parity.
//!
//! `docs/placement.md` specifies all of it, the hash included, bit by bit, with test vectors.
//!
//! What this crate leaves to others: when a disk counts as down (the metadata service), which disks are
//! full (the caller avoids them), and who carries the data over (the nodes).

mod check;
mod create;
mod domain;
mod explain;
mod fill;
mod group;
mod group_set;
mod hash;
mod leave;
mod map;
mod moves;
mod pool;
mod profile;
mod reach;
mod rebalance;
mod reject;
mod tolerance;
mod topology;
mod usage;
mod write;

pub use check::{Violation, check_group};
pub use create::{Choice, SLOTS_PER_DISK, choose_slots, create_groups, create_substitutes, groups_wanted};
pub use domain::{Domain, FailureDomain};
pub use explain::{Explanation, SlotExplanation, explain};
pub use fill::{DiskFill, Imbalance};
pub use group::{Group, Slot, SlotState, slot_rebuilt};
pub use leave::{CannotLeave, DrainPlan, can_leave};
pub use map::ClusterMap;
pub use moves::{
    Legalize, Move, RelocateError, apply_move, legalize, legalize_except, relocate, relocate_except,
};
pub use profile::{Profile, ProfileSettings, SmallObjects};
pub use reach::to_placement;
pub use rebalance::{Goal, Plan, PlannedMove, Rebalance, Room, Stuck, StuckBy};
pub use reject::{NoLegalPlace, REJECTIONS_MAX, Reason, Rejected, Rejection, Shortage};
pub use tolerance::{Tolerance, may_lose, tolerance, tolerance_of_written};
pub use topology::{ADDRESS_BYTES_MAX, Disk, Duty, Health, Node, REASON_BYTES_MAX};
pub use write::{Avoid, pick_for_write};
