//! What all parts of Cadole agree on: identifiers, units, limits, messages and error codes.
//!
//! No I/O and no async here. The messages are generated from `schema/*.proto` into [`wire`]; what
//! comes in over the wire is parsed into the types of this crate at the border, and cannot be wrong
//! after it.

pub mod error;
pub mod frame;
pub mod hint;
pub mod id;
pub mod identity;
pub mod limits;
pub mod name;
pub mod time;
pub mod units;

pub use error::{Detail, ErrorCode, Failure, InvalidInput, Remedy};
pub use hint::ObjectHint;
pub use id::{
    BucketId, ClusterId, CommandId, DiskId, DiskUuid, Epoch, ExtentId, GroupId, Incarnation, MetaId, NodeId,
    PartitionId, ProfileId, ShardName, SlotIndex, StripeIndex, TaskId, TenantId, TenantTag, Version,
};
pub use identity::{Identity, Role};
pub use name::{BucketName, Label, ObjectKey, OperatorName, ProfileName, TenantName};
pub use prost;
pub use time::Timestamp;
pub use units::ByteSize;

/// The messages of `schema/*.proto`, generated.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/cadole.v1.rs"));

    use super::{error::InvalidInput, id};

    impl From<id::ShardName> for ShardName {
        fn from(name: id::ShardName) -> Self {
            Self {
                group: name.group.0,
                extent: name.extent.to_wire(),
                stripe: name.stripe.0,
                slot: u32::from(name.slot.0),
            }
        }
    }

    impl TryFrom<ShardName> for id::ShardName {
        type Error = InvalidInput;

        fn try_from(wire: ShardName) -> Result<Self, InvalidInput> {
            Ok(Self {
                group: id::GroupId(wire.group),
                extent: id::ExtentId::from_wire(&wire.extent)?,
                stripe: id::StripeIndex(wire.stripe),
                slot: slot_index(wire.slot)?,
            })
        }
    }

    /// A slot's place, from a message.
    ///
    /// # Errors
    ///
    /// When it is not below [`SLOTS_MAX`](crate::limits::SLOTS_MAX).
    pub fn slot_index(slot: u32) -> Result<id::SlotIndex, InvalidInput> {
        u8::try_from(slot)
            .ok()
            .filter(|slot| usize::from(*slot) < crate::limits::SLOTS_MAX)
            .map(id::SlotIndex)
            .ok_or_else(|| InvalidInput::new(format!("slot {slot} is out of range")))
    }
}
