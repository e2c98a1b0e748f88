//! Where a new object may be written.

use std::collections::BTreeSet;

use placement::{Avoid, Group, Health, Profile, pick_for_write, to_placement};
use proto::limits::{GRANT_MS, INLINE_BYTES_MAX, OBJECT_BYTES_MAX};
use proto::{DiskId, ErrorCode, GroupId, ProfileId, Timestamp, wire};

use crate::state::Machine;
use crate::state::error::{Error, invalid, refuse};
use crate::state::query::wrong_map;

/// Groups of each kind in an answer: one to write, others for when it fails.
const CHOICES: usize = 4;
/// What a writer may want to avoid.
const AVOID_MAX: usize = 1024;
/// Groups that are looked at for one with room, when all have full disks.
const FULL_PROBES: usize = 256;
/// Groups that are looked at for one that is good enough, when none is healthy.
const PROBES_MAX: usize = 4096;

/// The answer to an `OpenPut`.
#[derive(Clone, Debug, PartialEq)]
pub enum Opened {
    /// Write there.
    Granted(Box<wire::OpenPutReply>),
    /// No group of the profile is healthy: have others formed, then ask once more, with the profile in
    /// [`OpenOptions::tried`]. Of a profile that is there [`open_put`] does not answer this.
    NeedSubstitutes {
        /// The profile that needs them.
        profile: ProfileId,
    },
}

/// How to choose.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions<'a> {
    /// Spreads writers over groups: a random number.
    pub spread: u64,
    /// Now, by the leader's clock; the grant begins then, or at cluster time if that is later.
    pub now: Timestamp,
    /// The profiles for which it was just tried to form substitute groups. A put of unknown size may need
    /// them of two.
    pub tried: &'a BTreeSet<ProfileId>,
    /// Disks that report to be full: avoided as long as there are others.
    pub full_disks: &'a BTreeSet<DiskId>,
}

/// Grants a put: groups that are healthy and not to be avoided; if there are none, healthy ones; if there
/// are none, substitutes; if there cannot be any, groups with as many healthy slots as a commit needs.
/// While the size is unknown, groups of one kind are enough: who needs the others asks again, and is told.
///
/// # Errors
///
/// `NoSuchTenant`, `NoSuchBucket`, `InvalidRequest`; `NoLegalPlace` when nothing is left to write to, `ClusterFull`
/// when that is for lack of room.
pub fn open_put(machine: &Machine, open: &wire::OpenPut, options: OpenOptions<'_>) -> Result<Opened, Error> {
    let bucket = machine.bucket(&open.tenant, &open.bucket)?;
    if !open.size_unknown && open.bytes_hint > OBJECT_BYTES_MAX {
        let sentence = format!(
            "the object has {} bytes; at most {OBJECT_BYTES_MAX} are allowed: split it",
            open.bytes_hint
        );
        return Err(invalid(sentence));
    }
    if open.avoid_groups.len() > AVOID_MAX || open.avoid_disks.len() > AVOID_MAX {
        return Err(invalid(format!("at most {AVOID_MAX} groups and disks can be avoided: start over")));
    }
    let profile = machine.map().profiles().get(&ProfileId(bucket.profile));
    let profile =
        profile.ok_or_else(|| wrong_map(proto::InvalidInput::new("a bucket's profile is unknown")))?;
    let small = profile.small();
    let small_max = small.map_or(0, |small| small.bytes_max);
    let inline_max = u64::try_from(INLINE_BYTES_MAX).unwrap_or(u64::MAX);
    let (mut needs_small, mut needs_groups) = (true, true);
    if !open.size_unknown {
        needs_groups = open.bytes_hint > inline_max && open.bytes_hint > u64::from(small_max);
        needs_small = open.bytes_hint > inline_max && !needs_groups;
    }
    let granted = options.now.max(machine.cluster_time()).as_millis();
    let mut reply = wire::OpenPutReply {
        granted_ms: granted,
        expires_ms: granted.saturating_add(GRANT_MS),
        inline_bytes_max: u32::try_from(INLINE_BYTES_MAX).unwrap_or(u32::MAX),
        small_bytes_max: small_max,
        ..Default::default()
    };
    let wanted = [
        (small.map(|small| small.profile).filter(|_| needs_small), &mut reply.small_groups),
        (Some(profile.id()).filter(|_| needs_groups), &mut reply.groups),
    ];
    let avoid = Avoid {
        groups: open.avoid_groups.iter().copied().map(GroupId).collect(),
        disks: open
            .avoid_disks
            .iter()
            .copied()
            .map(DiskId)
            .chain(options.full_disks.iter().copied())
            .collect(),
    };
    let mut nowhere = None;
    for (profile, places) in wanted {
        let Some(profile) = profile else { continue };
        let groups = match choose(machine, profile, &avoid, options) {
            Ok(Choice::Groups(groups)) => groups,
            Ok(Choice::NeedSubstitutes) => return Ok(Opened::NeedSubstitutes { profile }),
            Err(Error::Refused(failure))
                if matches!(failure.code, ErrorCode::NoLegalPlace | ErrorCode::ClusterFull) =>
            {
                nowhere = Some(failure);
                continue;
            }
            Err(error) => return Err(error),
        };
        for group in groups {
            places.push(to_placement(machine.map(), group).map_err(wrong_map)?);
        }
    }
    match nowhere {
        Some(failure) if reply.small_groups.is_empty() && reply.groups.is_empty() => Err(failure.into()),
        _ => Ok(Opened::Granted(Box::new(reply))),
    }
}

enum Choice<'a> {
    Groups(Vec<&'a Group>),
    NeedSubstitutes,
}

fn choose<'a>(
    machine: &'a Machine,
    profile: ProfileId,
    avoid: &Avoid,
    options: OpenOptions<'_>,
) -> Result<Choice<'a>, Error> {
    let map = machine.map();
    let profile = map.profiles().get(&profile);
    let profile = profile.ok_or_else(|| wrong_map(proto::InvalidInput::new("a small profile is unknown")))?;
    let full = Avoid { disks: options.full_disks.clone(), ..Avoid::default() };
    for avoid in [avoid, &full] {
        let picked = pick_for_write(map, profile.id(), avoid, CHOICES, options.spread);
        let groups: Vec<&Group> = picked.iter().filter_map(|group| map.groups().get(group)).collect();
        if !groups.is_empty() {
            return Ok(Choice::Groups(groups));
        }
    }
    // A few full disks are as good as a few lost ones, as long as enough shards of each stripe find room.
    let picked = pick_for_write(map, profile.id(), &Avoid::default(), FULL_PROBES, options.spread);
    let groups: Vec<&Group> = picked.iter().filter_map(|group| map.groups().get(group)).collect();
    let with_room = groups.iter().copied().filter(|group| has_room(profile, group, options.full_disks));
    let with_room: Vec<&Group> = with_room.take(CHOICES).collect();
    match (with_room.is_empty(), groups.is_empty()) {
        (false, _) => return Ok(Choice::Groups(with_room)),
        (true, false) => {
            let full = options.full_disks.len();
            let sentence = format!(
                "the cluster is full: each group of profile {} has too many of the {full} full disks. Deletes still \
                 work; delete objects, or add disks and then `clusterctl rebalance`",
                profile.name()
            );
            return Err(refuse(ErrorCode::ClusterFull, sentence));
        }
        (true, true) => {}
    }
    if !options.tried.contains(&profile.id()) {
        return Ok(Choice::NeedSubstitutes);
    }
    let groups = good_enough(machine, profile, options.spread);
    if groups.is_empty() {
        let sentence = format!(
            "no group of profile {} has {} healthy slots: bring disks back, or add some",
            profile.name(),
            profile.min_durable()
        );
        return Err(refuse(ErrorCode::NoLegalPlace, sentence));
    }
    Ok(Choice::Groups(groups))
}

/// Do enough slots of the group lie on disks with room?
fn has_room(profile: &Profile, group: &Group, full_disks: &BTreeSet<DiskId>) -> bool {
    let room = group.slots.iter().filter(|slot| !full_disks.contains(&slot.disk)).count();
    room >= profile.min_durable()
}

/// Groups with the most slots on disks that are up, if these are enough for a commit. Not all groups are
/// looked at: this is asked for each put while a cluster is in need.
fn good_enough<'a>(machine: &'a Machine, profile: &Profile, spread: u64) -> Vec<&'a Group> {
    let map = machine.map();
    let all = map.groups();
    let ids = u64::from(machine.totals().next_group.max(1));
    let start = GroupId(u32::try_from(spread % ids).unwrap_or_default());
    let mut best = Vec::new();
    for (_, group) in all.range(start..).chain(all.range(..start)).take(PROBES_MAX) {
        let is_lost = |disk| map.disk_health(disk) != Health::Up || map.disk_duty(disk).is_given_up();
        let lost = group.slots.iter().filter(|slot| is_lost(slot.disk)).count();
        let enough = profile.slots().saturating_sub(lost) >= profile.min_durable();
        if group.profile == profile.id() && enough {
            best.push((group.below_policy, lost, group));
        }
    }
    best.sort_by_key(|(below_policy, lost, group)| (*lost, *below_policy, group.id));
    best.into_iter().take(CHOICES).map(|(_, _, group)| group).collect()
}
