//! Erasure-code profiles.

use proto::limits::{BLOCK_BYTES, SHARD_BYTES_MAX, SHARD_BYTES_MIN, SLOTS_MAX};
use proto::{InvalidInput, ProfileId, ProfileName, wire};

use crate::domain::FailureDomain;

/// Where small objects go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmallObjects {
    /// Objects of up to this size.
    pub bytes_max: u32,
    /// Their profile, with `k = 1`.
    pub profile: ProfileId,
}

/// What [`Profile::parse`] is given.
#[derive(Clone, Debug)]
pub struct ProfileSettings {
    /// Its name.
    pub name: ProfileName,
    /// Data shards of a stripe.
    pub k: u32,
    /// Parity shards of a stripe.
    pub m: u32,
    /// Bytes of a shard of a full stripe.
    pub shard_bytes: u32,
    /// At most `m` slots of a group lie in one domain of this kind.
    pub failure_domain: FailureDomain,
    /// Where small objects go; `None`: nowhere else.
    pub small: Option<SmallObjects>,
    /// A commit needs this many durable shards of each stripe; `None`: `k + 1`.
    pub min_durable: Option<u32>,
    /// A put fails rather than stand below policy.
    pub refuse_below_policy: bool,
}

/// An erasure-code profile that keeps all rules: a value of this type can be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    id: ProfileId,
    name: ProfileName,
    k: u8,
    m: u8,
    shard_bytes: u32,
    failure_domain: FailureDomain,
    small: Option<SmallObjects>,
    min_durable: u8,
    refuse_below_policy: bool,
}

impl Profile {
    /// Checks `settings`.
    ///
    /// # Errors
    ///
    /// Says which rule is broken and what would be right.
    pub fn parse(id: ProfileId, settings: ProfileSettings) -> Result<Self, InvalidInput> {
        let bad = |rule: String| InvalidInput::new(format!("profile {}: {rule}", settings.name));
        if id.0 == 0 {
            return Err(bad("0 stands for no profile and cannot be an id".into()));
        }
        let (k, m) = parse_code(settings.k, settings.m).map_err(bad)?;
        check_shard_bytes(settings.shard_bytes).map_err(bad)?;
        let min_durable = parse_min_durable(k, m, settings.min_durable).map_err(bad)?;
        if let Some(small) = settings.small {
            check_small(id, small).map_err(bad)?;
        }
        Ok(Self {
            id,
            k,
            m,
            min_durable,
            name: settings.name,
            shard_bytes: settings.shard_bytes,
            failure_domain: settings.failure_domain,
            small: settings.small,
            refuse_below_policy: settings.refuse_below_policy,
        })
    }

    /// Its id; never 0.
    pub fn id(&self) -> ProfileId {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &ProfileName {
        &self.name
    }

    /// Data shards of a stripe; at least 1.
    pub fn k(&self) -> usize {
        usize::from(self.k)
    }

    /// Parity shards of a stripe; at least 1.
    pub fn m(&self) -> usize {
        usize::from(self.m)
    }

    /// Slots of a group: `k + m`, at most [`SLOTS_MAX`].
    pub fn slots(&self) -> usize {
        self.k() + self.m()
    }

    /// Bytes of a shard of a full stripe.
    pub fn shard_bytes(&self) -> u32 {
        self.shard_bytes
    }

    /// At most `m` slots of a group lie in one domain of this kind.
    pub fn failure_domain(&self) -> FailureDomain {
        self.failure_domain
    }

    /// Where small objects go.
    pub fn small(&self) -> Option<SmallObjects> {
        self.small
    }

    /// A commit needs this many durable shards of each stripe: `k` to `k + m`.
    pub fn min_durable(&self) -> usize {
        usize::from(self.min_durable)
    }

    /// A put fails rather than stand below policy.
    pub fn refuse_below_policy(&self) -> bool {
        self.refuse_below_policy
    }

    /// True when data that was written under `other` can be read under this: the code is the same.
    pub(crate) fn same_code(&self, other: &Self) -> bool {
        (self.k, self.m, self.shard_bytes) == (other.k, other.m, other.shard_bytes)
    }
}

fn parse_code(k: u32, m: u32) -> Result<(u8, u8), String> {
    let slots = u64::from(k) + u64::from(m);
    match (u8::try_from(k), u8::try_from(m)) {
        (Ok(0), _) => Err("k is 0; a stripe needs at least one data shard".into()),
        (_, Ok(0)) => Err("m is 0; without parity the loss of any disk loses data: m is at least 1".into()),
        (Ok(k), Ok(m)) if usize::from(k) + usize::from(m) <= SLOTS_MAX => Ok((k, m)),
        _ => Err(format!("k + m is {slots}; at most {SLOTS_MAX} slots are allowed")),
    }
}

fn check_shard_bytes(shard_bytes: u32) -> Result<(), String> {
    let right = usize::try_from(shard_bytes)
        .is_ok_and(|b| (SHARD_BYTES_MIN..=SHARD_BYTES_MAX).contains(&b) && b.is_multiple_of(BLOCK_BYTES));
    if right {
        return Ok(());
    }
    Err(format!(
        "a shard of {shard_bytes} bytes is not allowed; expected a multiple of {BLOCK_BYTES} from \
         {SHARD_BYTES_MIN} to {SHARD_BYTES_MAX}"
    ))
}

fn parse_min_durable(k: u8, m: u8, min_durable: Option<u32>) -> Result<u8, String> {
    let min = min_durable.unwrap_or(u32::from(k) + 1);
    u8::try_from(min)
        .ok()
        .filter(|min| (k..=k + m).contains(min))
        .ok_or_else(|| format!("min_durable is {min}; expected from k = {k} to k + m = {}", k + m))
}

fn check_small(id: ProfileId, small: SmallObjects) -> Result<(), String> {
    if small.profile == id {
        return Err("small objects cannot go to the profile itself".into());
    }
    if small.profile.0 == 0 || small.bytes_max == 0 {
        return Err("small objects need both a size and a profile".into());
    }
    if usize::try_from(small.bytes_max).is_ok_and(|bytes| bytes <= SHARD_BYTES_MAX) {
        return Ok(());
    }
    Err(format!("small objects of {} bytes do not fit one shard of {SHARD_BYTES_MAX}", small.bytes_max))
}

impl TryFrom<wire::Profile> for Profile {
    type Error = InvalidInput;

    fn try_from(wire: wire::Profile) -> Result<Self, InvalidInput> {
        let small = match (wire.small_bytes_max, wire.small_profile) {
            (0, 0) => None,
            (bytes_max, profile) => Some(SmallObjects { bytes_max, profile: ProfileId(profile) }),
        };
        let settings = ProfileSettings {
            name: wire.name.parse()?,
            k: wire.k,
            m: wire.m,
            shard_bytes: wire.shard_bytes,
            failure_domain: FailureDomain::from_wire(wire.failure_domain)?,
            small,
            min_durable: Some(wire.min_durable).filter(|min| *min > 0),
            refuse_below_policy: wire.refuse_below_policy,
        };
        Self::parse(ProfileId(wire.id), settings)
    }
}

impl From<&Profile> for wire::Profile {
    fn from(profile: &Profile) -> Self {
        Self {
            id: profile.id.0,
            name: profile.name.to_string(),
            k: profile.k.into(),
            m: profile.m.into(),
            shard_bytes: profile.shard_bytes,
            failure_domain: profile.failure_domain.to_wire(),
            small_bytes_max: profile.small.map_or(0, |small| small.bytes_max),
            small_profile: profile.small.map_or(0, |small| small.profile.0),
            min_durable: profile.min_durable.into(),
            refuse_below_policy: profile.refuse_below_policy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> wire::Profile {
        wire::Profile {
            id: 2,
            name: "rs-4-2".into(),
            k: 4,
            m: 2,
            shard_bytes: 1 << 20,
            failure_domain: 3,
            small_bytes_max: 65_536,
            small_profile: 1,
            ..Default::default()
        }
    }

    /// A good profile passes, gets its default, and survives the way to the wire and back.
    #[test]
    fn good_profiles_round_trip() {
        let profile = Profile::try_from(wire()).unwrap();
        assert_eq!((profile.slots(), profile.min_durable()), (6, 5));
        assert_eq!(Profile::try_from(wire::Profile::from(&profile)).unwrap(), profile);
    }

    /// Each rule refuses what breaks it, and names itself.
    #[test]
    fn each_rule_is_named() {
        type Break = fn(&mut wire::Profile);
        let cases: [(Break, &str); 14] = [
            (|p| p.id = 0, "cannot be an id"),
            (|p| p.name = "RS".into(), "allowed are"),
            (|p| p.k = 0, "k is 0"),
            (|p| p.m = 0, "m is 0"),
            (|p| p.k = 23, "at most 24"),
            (|p| (p.k, p.m) = (u32::MAX, u32::MAX), "k + m is 8589934590"),
            (|p| p.shard_bytes = 65_537, "multiple of 65536"),
            (|p| p.shard_bytes = 0, "multiple of 65536"),
            (|p| p.failure_domain = 0, "failure domain 0"),
            (|p| p.min_durable = 3, "from k = 4 to k + m = 6"),
            (|p| p.min_durable = 7, "from k = 4 to k + m = 6"),
            (|p| p.small_profile = 2, "itself"),
            (|p| p.small_profile = 0, "both a size and a profile"),
            (|p| p.small_bytes_max = u32::MAX, "do not fit"),
        ];
        for (spoil, part) in cases {
            let mut bad = wire();
            spoil(&mut bad);
            let error = Profile::try_from(bad).expect_err(part).to_string();
            assert!(error.contains(part), "expected {part:?} in {error:?}");
        }
    }
}
