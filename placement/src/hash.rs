//! The hash that breaks ties between places, specified bit by bit in `docs/placement.md`.
//!
//! Every metadata server, of every version and on every machine, must break a tie the same way, so
//! nothing here may depend on the compiler, the standard library or the width of a word.

use proto::GroupId;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a hash is for. Two purposes never share an order. The numbers are part of the specification.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Which node takes the next slot.
    Node = 1,
    /// Which disk of that node.
    Disk = 2,
    /// Which of the chosen disks is slot 0, 1, and so on.
    SlotOrder = 3,
    /// Which of several misplaced slots moves first.
    Mover = 4,
    /// Where the search for a group to write begins.
    Write = 5,
    /// Which slots a disk gives, and which of equally empty disks takes, when fills are evened.
    Rebalance = 6,
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014; constants by David Stafford, variant 13).
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

const fn fold(hash: u64, value: u64) -> u64 {
    mix((hash ^ value).wrapping_add(GOLDEN))
}

/// `fold(fold(fold(0, purpose), a), b)`.
pub(crate) const fn hash(purpose: Purpose, a: u64, b: u64) -> u64 {
    fold(fold(fold(0, purpose as u64), a), b)
}

/// The hash of a node or disk for a group.
pub(crate) fn rank(purpose: Purpose, group: GroupId, id: u32) -> u64 {
    hash(purpose, u64::from(group.0), u64::from(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first output of splitmix64 with seed 0, as published, and our own vectors of
    /// `docs/placement.md`: the hash is frozen.
    #[test]
    fn vectors() {
        assert_eq!(fold(0, 0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(fold(0, 1), 0x910a_2dec_8902_5cc1);
        let got = [
            rank(Purpose::Node, GroupId(0), 1),
            rank(Purpose::Node, GroupId(1), 1),
            rank(Purpose::Disk, GroupId(1), 1),
            rank(Purpose::SlotOrder, GroupId(1), 7),
            rank(Purpose::Mover, GroupId(u32::MAX), u32::MAX),
            hash(Purpose::Write, u64::MAX, 3),
            rank(Purpose::Rebalance, GroupId(1), 1),
        ];
        assert_eq!(got, VECTORS, "{got:#x?}");
    }

    const VECTORS: [u64; 7] = [
        0x6c57_95e1_4b3b_7e33,
        0x7095_beeb_d765_75e4,
        0x89c6_b79e_1d39_dd80,
        0xd4aa_a85f_f89c_79da,
        0x6a80_0b37_2486_979b,
        0xc278_1cce_b2a1_db34,
        0x11eb_726b_c071_1855,
    ];
}
