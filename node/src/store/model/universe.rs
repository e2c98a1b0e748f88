//! Few names and few contents, so that histories meet themselves again and again.

use std::sync::LazyLock;

use bytes::Bytes;
use proto::limits::SLOTS_MAX;
use proto::{Epoch, ExtentId, GroupId, ShardName, SlotIndex, StripeIndex, TenantTag};
use simhost::Stream;

use super::super::record::PAGE_BYTES;
use crate::store::{CheckedShard, NewShard, ShardStat};

/// Names are numbered in their order: two groups of two extents of two stripes of two slots, at their limits.
pub(super) const NAMES: u8 = 16;
/// Lengths of the contents that each name can have; the first two differ in their bytes alone.
const SIZES: [usize; 10] = [64, 64, 4_096, 4_160, 20_032, 65_536, 65_600, 106_496, 131_072, 245_760];
/// How many contents each name can have.
pub(super) const KINDS: u8 = 10;
/// Bytes from the start of one content to that of the next; not a multiple of any sector.
const STRIDE: usize = 1009;

/// All contents overlap in here, each at an offset of its own.
static NOISE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut noise = vec![0; usize::from(NAMES) * usize::from(KINDS) * STRIDE + SIZES[SIZES.len() - 1]];
    Stream::new(1).fill(&mut noise);
    Bytes::from(noise)
});

/// The name of a number.
pub(super) fn name(number: u8) -> ShardName {
    let upper = |bit: u8| number >> bit & 1 == 1;
    let slot_max = u8::try_from(SLOTS_MAX - 1).unwrap();
    ShardName {
        group: group(number >> 3),
        extent: ExtentId(if upper(2) { u128::MAX } else { 7 }),
        stripe: StripeIndex(if upper(1) { u32::MAX } else { 0 }),
        slot: SlotIndex(if upper(0) { slot_max } else { 0 }),
    }
}

/// The group of a number.
pub(super) fn group(number: u8) -> GroupId {
    GroupId(if number & 1 == 1 { u32::MAX } else { 1 })
}

/// The number of a name, if it is one of them.
pub(super) fn number(name: &ShardName) -> Option<u8> {
    (0..NAMES).find(|number| self::name(*number) == *name)
}

/// One of the contents of one of the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shard {
    pub(super) name: u8,
    pub(super) kind: u8,
}

impl Shard {
    pub(super) fn bytes(self) -> Bytes {
        let start = (usize::from(self.name) * usize::from(KINDS) + usize::from(self.kind)) * STRIDE;
        NOISE.slice(start..start + SIZES[usize::from(self.kind)])
    }

    fn epoch(self) -> Epoch {
        Epoch(10 + u64::from(self.kind))
    }

    pub(super) fn tenant_tag(self) -> TenantTag {
        TenantTag(100 + u64::from(self.name))
    }

    /// What is kept with it.
    pub(super) fn hint(self) -> Bytes {
        self.bytes().slice(..10 * usize::from(self.kind % 3))
    }

    pub(super) fn stat(self) -> ShardStat {
        let shard_bytes = u32::try_from(SIZES[usize::from(self.kind)]).unwrap();
        ShardStat { name: name(self.name), shard_bytes, epoch: self.epoch() }
    }

    /// Bytes that it takes on the disk.
    pub(super) fn record_bytes(self) -> u64 {
        (PAGE_BYTES + SIZES[usize::from(self.kind)].next_multiple_of(PAGE_BYTES)) as u64
    }

    /// To be put.
    pub(super) fn checked(self) -> CheckedShard {
        let bytes = self.bytes();
        let mut shard = NewShard::new(name(self.name), self.epoch(), self.tenant_tag(), bytes.len()).unwrap();
        shard.push(&bytes).unwrap();
        let shard = shard.with_hint(self.hint()).unwrap();
        shard.seal().unwrap()
    }
}

/// Names are in the order of their numbers, and no two contents of a name are alike.
#[test]
fn names_and_contents_differ() {
    assert!((1..NAMES).all(|number| name(number - 1) < name(number)));
    assert_eq!(SIZES.len(), usize::from(KINDS));
    for name in 0..NAMES {
        for kind in 1..KINDS {
            let (one, other) = (Shard { name, kind: kind - 1 }, Shard { name, kind });
            assert!(one.bytes()[..64] != other.bytes()[..64], "{one:?} {other:?}");
        }
    }
}
