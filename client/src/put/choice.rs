//! Which of the offered groups takes the next extent.

use codec::SlotMask;
use proto::GroupId;
use proto::wire::Health;

use crate::group::{Group, Place};

/// A group, and the slots that are not even tried.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) group: Group,
    pub(super) missing: SlotMask,
}

/// The first group without a bad place; else the one with the fewest. Its bad places are left out
/// when enough others remain; when not, all are tried: suspicion may be wrong.
///
/// A place is bad when it `has_failed` this client a moment ago, or is down. Groups in `avoid` come
/// after others that are as good.
pub(super) fn choose(
    groups: Vec<Group>,
    avoid: &[GroupId],
    has_failed: impl Fn(&Place) -> bool,
) -> Option<Choice> {
    let bad_of = |group: &Group| -> SlotMask {
        let bad = |place: &&Place| place.health == Health::Down || has_failed(place);
        group.places.iter().filter(bad).map(|place| place.slot).collect()
    };
    let best = groups.into_iter().min_by_key(|group| (bad_of(group).len(), avoid.contains(&group.id)))?;
    let bad = bad_of(&best);
    let missing = if best.slots() - bad.len() >= best.min_durable { bad } else { SlotMask::EMPTY };
    Some(Choice { group: best, missing })
}

#[cfg(test)]
mod tests {
    use proto::{DiskId, SlotIndex};

    use super::*;
    use crate::group::tests::group;

    fn groups() -> Vec<Group> {
        let numbered = |id| Group { id: GroupId(id), ..group(4, 2) };
        let mut groups = vec![numbered(1), numbered(2), numbered(3)];
        for (group, base) in groups.iter_mut().zip([10, 20, 20]) {
            for place in &mut group.places {
                place.disk = DiskId(base + u32::from(place.slot.0));
            }
        }
        groups
    }

    /// Order of preference rules while nothing has failed; then the clean group, though it is later.
    #[test]
    fn clean_groups_come_first() {
        let first = choose(groups(), &[], |_| false).unwrap();
        assert_eq!((first.group.id, first.missing), (GroupId(1), SlotMask::EMPTY));
        let other = choose(groups(), &[], |place| place.disk == DiskId(13)).unwrap();
        assert_eq!((other.group.id, other.missing), (GroupId(2), SlotMask::EMPTY));
        let third = choose(groups(), &[GroupId(1), GroupId(2)], |_| false).unwrap();
        assert_eq!(third.group.id, GroupId(3));
    }

    /// Without a clean group, bad slots are left out as long as enough remain.
    #[test]
    fn bad_slots_are_left_out_if_enough_remain() {
        let one_bad = choose(groups(), &[], |place| place.slot == SlotIndex(5)).unwrap();
        assert_eq!(one_bad.missing.iter().collect::<Vec<_>>(), [SlotIndex(5)]);
        let two_bad = choose(groups(), &[], |place| place.slot.0 >= 4).unwrap();
        assert_eq!(two_bad.missing, SlotMask::EMPTY, "4 of 6 are fewer than min_durable");
        assert!(choose(Vec::new(), &[], |_| false).is_none());
    }

    /// What the cluster calls down is as bad as what failed here.
    #[test]
    fn places_that_are_down_are_bad() {
        let mut all = groups();
        all[0].places[0].health = Health::Down;
        assert_eq!(choose(all, &[], |_| false).unwrap().group.id, GroupId(2));
    }
}
