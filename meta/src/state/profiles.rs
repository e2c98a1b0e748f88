//! Profiles and the groups made for them.

use env::KvRead;
use placement::{
    Avoid, FailureDomain, Group, NoLegalPlace, Profile, ProfileSettings, SLOTS_PER_DISK, SmallObjects,
    create_groups, create_substitutes, groups_wanted, pick_for_write,
};
use proto::limits::{BLOCK_BYTES, NAME_BYTES_MAX, SMALL_BYTES_MAX_DEFAULT};
use proto::{ErrorCode, GroupId, ProfileId, ProfileName, wire};
use wire::outcome::Outcome as Answer;

use crate::state::error::{Error, broken, invalid, refuse};
use crate::state::tenancy::{SMALL_SUFFIX, next_id};
use crate::state::{Machine, Tx, tables as t};

/// More distinct sets of disks only make it likelier that three failures hit one.
const SLOTS_PER_DISK_MAX: u32 = 1000;
/// Substitute groups of one command.
pub const SUBSTITUTES_MAX: u32 = 64;

impl Machine {
    pub(super) fn create_profile<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        create: wire::CreateProfile,
    ) -> Result<Answer, Error> {
        let name: ProfileName = create.name.parse()?;
        let known = self.map.profile_named(name.as_str());
        let ids = match known.and_then(|known| Some((known.small()?.profile, known.id()))) {
            Some((small, main)) => (small, main, self.totals.next_profile),
            None => {
                let (small, next) = next_id(self.totals.next_profile, "profiles")?;
                let (main, next) = next_id(next, "profiles")?;
                (ProfileId(small), ProfileId(main), next)
            }
        };
        let (small, main) = parse_profiles(&create, name, ids.0, ids.1)?;
        let slots_per_disk = match create.slots_per_disk {
            0 => SLOTS_PER_DISK,
            slots @ 1..=SLOTS_PER_DISK_MAX => slots,
            slots => {
                let sentence = format!(
                    "slots_per_disk is {slots}; expected 1 to {SLOTS_PER_DISK_MAX}, or 0 for the default"
                );
                return Err(invalid(sentence));
            }
        };
        match self.map.profile_named(main.name().as_str()) {
            Some(known) if *known == main => {}
            Some(known) => {
                let sentence = format!(
                    "profile {} exists with other settings ({}); take another name",
                    main.name(),
                    describe(known)
                );
                return Err(refuse(ErrorCode::AlreadyExists, sentence));
            }
            None => self.found_profiles(tx, small, main.clone(), slots_per_disk, ids.2)?,
        }
        let groups = self.map.groups().values().filter(|group| group.profile == main.id()).count();
        Ok(Answer::CreateProfile(wire::CreateProfileReply {
            profile: Some(wire::Profile::from(&main)),
            groups: u32::try_from(groups).unwrap_or(u32::MAX),
        }))
    }

    fn found_profiles<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        small: Profile,
        main: Profile,
        slots_per_disk: u32,
        next_profile: u32,
    ) -> Result<(), Error> {
        let mut groups = Vec::new();
        let mut next = self.totals.next_group.max(1);
        for profile in [&small, &main] {
            let wanted = groups_wanted(&self.map, profile, slots_per_disk);
            let made =
                create_groups(&self.map, profile, wanted, GroupId(next)).map_err(|none| no_place(&none))?;
            next = after(&made, next)?;
            groups.extend(made);
        }
        for profile in [small, main] {
            let row = wire::Profile::from(&profile);
            self.map.put_profile(profile).map_err(broken)?;
            tx.put(t::PROFILES, t::number_key(row.id), &row);
        }
        self.totals.next_profile = next_profile;
        self.add_groups(tx, groups, next)
    }

    /// Groups on what is left, unless there are groups enough that can be written: legal ones alone, if the
    /// profile refuses others.
    pub(super) fn form_substitutes<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        form: wire::FormSubstitutes,
    ) -> Result<Answer, Error> {
        let id = ProfileId(form.profile);
        let profile = self.map.profiles().get(&id);
        let profile =
            profile.ok_or_else(|| refuse(ErrorCode::NoSuchProfile, format!("there is no profile {id}")))?;
        if form.groups == 0 || form.groups > SUBSTITUTES_MAX {
            return Err(invalid(format!(
                "{} substitute groups; expected 1 to {SUBSTITUTES_MAX}",
                form.groups
            )));
        }
        let wanted = usize::try_from(form.groups).unwrap_or(usize::MAX);
        let writable = pick_for_write(&self.map, id, &Avoid::default(), wanted, 0).len();
        let lacking = wanted.saturating_sub(writable);
        // Several writers ask at once; the first one's groups serve them all.
        if let Some(count) = u32::try_from(lacking).ok().filter(|count| *count > 0) {
            let first = self.totals.next_group.max(1);
            let make = if profile.refuse_below_policy() { create_groups } else { create_substitutes };
            let made = make(&self.map, profile, count, GroupId(first)).map_err(|none| no_place(&none))?;
            let next = after(&made, first)?;
            self.add_groups(tx, made, next)?;
        }
        Ok(Answer::Done(true))
    }

    fn add_groups<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        groups: Vec<Group>,
        next: u32,
    ) -> Result<(), Error> {
        for group in groups {
            self.put_group(tx, group).map_err(broken)?;
        }
        self.totals.next_group = next;
        self.map_changed();
        Ok(())
    }
}

fn parse_profiles(
    create: &wire::CreateProfile,
    name: ProfileName,
    small_id: ProfileId,
    main_id: ProfileId,
) -> Result<(Profile, Profile), Error> {
    if name.as_str().ends_with(SMALL_SUFFIX) {
        return Err(invalid(format!("names that end in {SMALL_SUFFIX} are for the companions of profiles")));
    }
    let longest = NAME_BYTES_MAX - SMALL_SUFFIX.len();
    if name.as_str().len() > longest {
        return Err(invalid(format!("the profile name {name} has over {longest} bytes: shorten it")));
    }
    let bytes_max = match create.small_bytes_max {
        0 => SMALL_BYTES_MAX_DEFAULT,
        bytes_max => bytes_max,
    };
    let failure_domain = FailureDomain::from_wire(create.failure_domain)?;
    let small_name = format!("{name}{SMALL_SUFFIX}").parse()?;
    let main = Profile::parse(
        main_id,
        ProfileSettings {
            name,
            k: create.k,
            m: create.m,
            shard_bytes: create.shard_bytes,
            failure_domain,
            small: Some(SmallObjects { bytes_max, profile: small_id }),
            min_durable: Some(create.min_durable).filter(|min| *min > 0),
            refuse_below_policy: create.refuse_below_policy,
        },
    )?;
    let block = u32::try_from(BLOCK_BYTES).unwrap_or(u32::MAX);
    let small = Profile::parse(
        small_id,
        ProfileSettings {
            name: small_name,
            k: 1,
            m: create.m,
            // A small object is one shard.
            shard_bytes: bytes_max.div_ceil(block).saturating_mul(block),
            failure_domain,
            small: None,
            min_durable: None,
            refuse_below_policy: create.refuse_below_policy,
        },
    )?;
    Ok((small, main))
}

fn after(made: &[Group], first: u32) -> Result<u32, Error> {
    let next = u32::try_from(made.len()).ok().and_then(|made| first.checked_add(made));
    next.ok_or_else(|| invalid("the ids of groups are used up"))
}

fn describe(profile: &Profile) -> String {
    let small = profile.small().map_or(0, |small| small.bytes_max);
    format!(
        "k {}, m {}, shards of {} bytes, domain {}, small up to {small} bytes, min_durable {}, refuse_below_policy {}",
        profile.k(),
        profile.m(),
        profile.shard_bytes(),
        profile.failure_domain(),
        profile.min_durable(),
        profile.refuse_below_policy()
    )
}

fn no_place(none: &NoLegalPlace) -> Error {
    refuse(ErrorCode::NoLegalPlace, none.to_string())
}
