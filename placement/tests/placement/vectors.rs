//! The vectors of `docs/placement.md`. If one of these changes, replicas of different versions disagree.

use placement::{FailureDomain, create_groups, create_substitutes};
use proto::GroupId;

use crate::common::*;

/// Three racks of two nodes of two equal disks, rs-4-2 by rack.
#[test]
fn equal_disks() {
    let groups =
        create_groups(&map(&even(3, 2, 2), 1), &profile(1, 4, 2, FailureDomain::Rack), 6, GroupId(1));
    let disks: Vec<Vec<u32>> = groups.unwrap().iter().map(disks_of).collect();
    assert_eq!(disks, EQUAL, "{disks:?}");
}

/// The same with disks of 12 and 24 TB by turns, rs-2-1 by node.
#[test]
fn unequal_disks() {
    let mut plan = even(3, 2, 2);
    plan.iter_mut().flatten().for_each(|node| node[1].0 *= 2);
    let groups = create_groups(&map(&plan, 1), &profile(1, 2, 1, FailureDomain::Node), 6, GroupId(100));
    let disks: Vec<Vec<u32>> = groups.unwrap().iter().map(disks_of).collect();
    assert_eq!(disks, UNEQUAL, "{disks:?}");
}

/// Two racks of two nodes of two disks, rs-4-2 by rack: substitutes.
#[test]
fn substitutes() {
    let groups =
        create_substitutes(&map(&even(2, 2, 2), 1), &profile(1, 4, 2, FailureDomain::Rack), 4, GroupId(1));
    let disks: Vec<Vec<u32>> = groups.unwrap().iter().map(disks_of).collect();
    assert_eq!(disks, SUBSTITUTES, "{disks:?}");
}

const EQUAL: [[u32; 6]; 6] = [
    [1, 6, 12, 3, 9, 8],
    [5, 9, 8, 3, 1, 12],
    [4, 2, 11, 7, 10, 5],
    [8, 3, 9, 12, 1, 6],
    [11, 6, 10, 2, 4, 7],
    [8, 10, 4, 2, 6, 11],
];
const UNEQUAL: [[u32; 3]; 6] = [[1, 8, 12], [10, 2, 11], [9, 6, 7], [9, 3, 6], [4, 10, 5], [1, 12, 4]];
const SUBSTITUTES: [[u32; 6]; 4] =
    [[1, 4, 6, 3, 7, 8], [5, 7, 8, 3, 2, 1], [4, 2, 8, 6, 1, 5], [8, 2, 3, 1, 6, 7]];
