//! Placement groups and their slots.

use proto::limits::SLOTS_MAX;
use proto::{DiskId, Epoch, GroupId, InvalidInput, ProfileId, SlotIndex, TaskId, wire};
use serde::Serialize;

/// What a slot's disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotState {
    /// Every shard of the slot but those recorded as missing.
    Whole,
    /// What was written since the disk took the slot; older shards may still be absent.
    Rebuilding {
        /// The disk that still holds the older shards. `None`: they are made from the other slots.
        source: Option<DiskId>,
    },
}

/// One place of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// The disk that new shards go to.
    pub disk: DiskId,
    /// What it holds.
    pub state: SlotState,
    /// The group's epoch at which this disk took the slot.
    pub since_epoch: Epoch,
    /// While it is rebuilding: the task that moved it, if one did.
    pub task: Option<TaskId>,
}

impl Slot {
    /// The disk that still holds the older shards.
    pub fn source(&self) -> Option<DiskId> {
        match self.state {
            SlotState::Whole => None,
            SlotState::Rebuilding { source } => source,
        }
    }
}

/// A placement group: `k + m` slots in the order of the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its profile.
    pub profile: ProfileId,
    /// Raised whenever the disk of a slot changes; from 1.
    pub epoch: Epoch,
    /// In the order of the code: `0..k` are data, the rest parity.
    pub slots: Vec<Slot>,
    /// Stands against the profile's failure domain, to be moved to legal places.
    pub below_policy: bool,
}

impl Group {
    /// A new group, whole on `disks`, in epoch 1.
    pub(crate) fn new(id: GroupId, profile: ProfileId, disks: &[DiskId], below_policy: bool) -> Self {
        let epoch = Epoch(1);
        let slot =
            |disk: &DiskId| Slot { disk: *disk, state: SlotState::Whole, since_epoch: epoch, task: None };
        Self { id, profile, epoch, slots: disks.iter().map(slot).collect(), below_policy }
    }

    /// The slot at `index`.
    ///
    /// # Errors
    ///
    /// When the group has no such slot.
    pub fn slot(&self, index: SlotIndex) -> Result<&Slot, InvalidInput> {
        self.slots.get(usize::from(index.0)).ok_or_else(|| {
            InvalidInput::new(format!("group {} has no slot {index}: it has {}", self.id, self.slots.len()))
        })
    }

    /// Every disk that the group needs: its slots' and their sources, with repetitions.
    pub fn disks(&self) -> impl Iterator<Item = DiskId> + '_ {
        self.slots.iter().flat_map(|slot| std::iter::once(slot.disk).chain(slot.source()))
    }
}

/// The group after `slot` has got all its shards: whole, without a source and a task. The epoch stays, since
/// writers go to the same disk as before. A slot that was whole already is left as it is.
///
/// # Errors
///
/// When the group has no such slot.
pub fn slot_rebuilt(group: &Group, slot: SlotIndex) -> Result<Group, InvalidInput> {
    group.slot(slot)?;
    let mut after = group.clone();
    if let Some(rebuilt) = after.slots.get_mut(usize::from(slot.0)) {
        rebuilt.state = SlotState::Whole;
        rebuilt.task = None;
    }
    Ok(after)
}

/// The [`SlotIndex`] of a place in a list of slots.
pub(crate) fn slot_index(place: usize) -> SlotIndex {
    SlotIndex(u8::try_from(place).unwrap_or(u8::MAX))
}

impl TryFrom<wire::Slot> for Slot {
    type Error = InvalidInput;

    fn try_from(wire: wire::Slot) -> Result<Self, InvalidInput> {
        let source = Some(DiskId(wire.source_disk)).filter(|disk| disk.0 != 0);
        let state = match (wire::SlotState::try_from(wire.state), source) {
            (Ok(wire::SlotState::Whole), None) => SlotState::Whole,
            (Ok(wire::SlotState::Whole), Some(source)) => {
                return Err(InvalidInput::new(format!("a whole slot has the source {source}")));
            }
            (Ok(wire::SlotState::Rebuilding), source) => SlotState::Rebuilding { source },
            (Ok(wire::SlotState::Unspecified) | Err(_), _) => {
                return Err(InvalidInput::new(format!("slot state {} is unknown", wire.state)));
            }
        };
        if wire.disk == 0 {
            return Err(InvalidInput::new("a slot has no disk"));
        }
        let task = Some(TaskId(wire.task)).filter(|task| task.0 != 0);
        if task.is_some() && state == SlotState::Whole {
            return Err(InvalidInput::new(format!("a whole slot belongs to task {}", wire.task)));
        }
        Ok(Self { disk: DiskId(wire.disk), state, since_epoch: Epoch(wire.since_epoch), task })
    }
}

impl From<&Slot> for wire::Slot {
    fn from(slot: &Slot) -> Self {
        Self {
            disk: slot.disk.0,
            state: slot.state.to_wire(),
            since_epoch: slot.since_epoch.0,
            source_disk: slot.source().map_or(0, |disk| disk.0),
            task: slot.task.map_or(0, |task| task.0),
        }
    }
}

impl SlotState {
    /// The number in a message.
    pub fn to_wire(self) -> i32 {
        i32::from(match self {
            Self::Whole => wire::SlotState::Whole,
            Self::Rebuilding { .. } => wire::SlotState::Rebuilding,
        })
    }
}

impl TryFrom<wire::Group> for Group {
    type Error = InvalidInput;

    fn try_from(wire: wire::Group) -> Result<Self, InvalidInput> {
        let id = GroupId(wire.id);
        let bad = |rule: String| InvalidInput::new(format!("group {id}: {rule}"));
        if wire.slots.len() > SLOTS_MAX {
            return Err(bad(format!("has {} slots; at most {SLOTS_MAX} are allowed", wire.slots.len())));
        }
        if wire.epoch == 0 {
            return Err(bad("has epoch 0; epochs begin at 1".into()));
        }
        let slots: Result<Vec<Slot>, _> = wire.slots.into_iter().map(Slot::try_from).collect();
        let slots = slots.map_err(|e| bad(e.to_string()))?;
        let epoch = Epoch(wire.epoch);
        if let Some(slot) = slots.iter().find(|slot| slot.since_epoch > epoch) {
            return Err(bad(format!("has epoch {epoch}, but a slot since {}", slot.since_epoch)));
        }
        Ok(Self { id, profile: ProfileId(wire.profile), epoch, slots, below_policy: wire.below_policy })
    }
}

impl From<&Group> for wire::Group {
    fn from(group: &Group) -> Self {
        Self {
            id: group.id.0,
            profile: group.profile.0,
            epoch: group.epoch.0,
            slots: group.slots.iter().map(wire::Slot::from).collect(),
            below_policy: group.below_policy,
        }
    }
}
