//! From what was found to which versions of which objects can be saved; without any waiting.
//!
//! A put is one version. Its stripes have places in the object; where an extent was given up for another one, stripes
//! of both hold the same bytes, and either will do. A version is whole when every byte from the first to the end has a
//! stripe with `k` shards. Its end is certain where a stripe is not full, since the object's last alone is not;
//! likely where a full stripe ends at the length that the writer was told; and open elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use codec::Geometry;
use proto::limits::OBJECT_BYTES_MAX;
use proto::{BucketName, ExtentId, ObjectHint, ObjectKey, SlotIndex, TenantName};

use super::collect::{Found, Shard, StripeName};

/// Which objects are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) tenant: Option<TenantName>,
    pub(super) bucket: Option<BucketName>,
    pub(super) prefix: String,
}

/// What can be saved, and what cannot.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// In the order of their names.
    pub(super) objects: Vec<Object>,
    /// Stripes of which no shard carries a hint.
    pub(super) nameless: u64,
    /// Stripes whose hint cannot be, by what is wrong with it.
    pub(super) refused: BTreeMap<String, u64>,
}

/// Whose, where and what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectName {
    pub(super) tenant: TenantName,
    pub(super) bucket: BucketName,
    pub(super) key: ObjectKey,
}

/// All versions of an object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) name: ObjectName,
    /// Another object's key begins with this one and a slash: both cannot be files.
    pub(super) is_directory: bool,
    /// What can be saved, the best first: those whose end is known before those whose end is open; the newest first.
    pub(super) versions: Vec<Version>,
    /// What cannot; the newest first.
    pub(super) lost: Vec<Version>,
}

/// One put.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) put: ExtentId,
    pub(super) geometry: Geometry,
    pub(super) parts: Vec<Part>,
    pub(super) bytes: u64,
    pub(super) end: End,
    pub(super) missing: Vec<Missing>,
}

/// How far the end of a version is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its last stripe is not full.
    Certain,
    /// It is as long as the writer was told.
    Told,
    /// Nothing says that it does not go on.
    Open,
}

/// One stripe of a version.
#[derive(Debug)]
pub(super) struct Part {
    /// Where it begins in the object.
    pub(super) offset: u64,
    /// Bytes of the object.
    pub(super) bytes: u32,
    /// Stripes that hold these bytes, each with `k` shards or more; the best first.
    pub(super) copies: Vec<Copy>,
}

/// A stripe as it was found.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub(super) stripe: StripeName,
    /// Which of the put's extents.
    extent: u32,
    bytes: u32,
    /// By slot; a slot may have several.
    pub(super) shards: Vec<(SlotIndex, usize)>,
}

/// What keeps a version from being saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// A stripe has too few shards.
    Shards { offset: u64, bytes: u32, stripe: StripeName, found: usize, needed: usize },
    /// Nothing was found of these bytes; up to an unknown end when there is no `to`.
    Bytes { from: u64, to: u64 },
}

/// A version in the making.
struct Building {
    hint: Arc<ObjectHint>,
    geometry: Geometry,
    stripes: BTreeMap<u64, Vec<Copy>>,
}

impl Filter {
    fn takes(&self, hint: &ObjectHint) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| *tenant == hint.tenant)
            && self.bucket.as_ref().is_none_or(|bucket| *bucket == hint.bucket)
            && hint.key.as_str().starts_with(&self.prefix)
    }
}

impl Plan {
    /// Bytes of all that can be saved.
    pub(super) fn bytes(&self) -> u64 {
        self.objects.iter().flat_map(|object| &object.versions).map(|version| version.bytes).sum()
    }
}

/// Puts together what was found.
pub(super) fn plan(found: &Found, filter: &Filter) -> Plan {
    let mut plan = Plan::default();
    let mut objects: BTreeMap<ObjectName, BTreeMap<ExtentId, Building>> = BTreeMap::new();
    for (stripe, shards) in &found.stripes {
        let said: BTreeSet<usize> = shards.iter().filter_map(|shard| shard.hint).collect();
        if said.is_empty() {
            plan.nameless += 1;
        }
        for number in &said {
            let Some(hint) = found.hints.get(*number) else { continue };
            // Shards without a hint belong to the others, if these are of one mind.
            let agrees = |shard: &&Shard| shard.hint.map_or(said.len() == 1, |hint| hint == *number);
            let shards = shards.iter().filter(agrees);
            let added = match hint {
                Ok(hint) if filter.takes(hint) => add(&mut objects, hint, *stripe, shards),
                Ok(_) => Ok(()),
                Err(problem) => Err(problem.clone()),
            };
            if let Err(problem) = added {
                *plan.refused.entry(problem).or_default() += 1;
            }
        }
    }
    plan.objects = objects.into_iter().map(|(name, puts)| Object::new(name, puts)).collect();
    mark_directories(&mut plan.objects);
    plan
}

fn add<'a>(
    objects: &mut BTreeMap<ObjectName, BTreeMap<ExtentId, Building>>,
    hint: &Arc<ObjectHint>,
    stripe: StripeName,
    shards: impl Iterator<Item = &'a Shard>,
) -> Result<(), String> {
    let geometry = Geometry::new(hint.k, hint.m, hint.shard_bytes).map_err(|error| error.to_string())?;
    let offset = u64::from(stripe.stripe.0) * hint.full_stripe_bytes() + hint.extent_offset;
    if offset > OBJECT_BYTES_MAX {
        return Err("its place in the object is beyond the largest object".to_owned());
    }
    let ObjectHint { tenant, bucket, key, .. } = &**hint;
    let name = ObjectName { tenant: tenant.clone(), bucket: bucket.clone(), key: key.clone() };
    let building = objects.entry(name).or_default().entry(hint.put).or_insert_with(|| Building {
        hint: hint.clone(),
        geometry,
        stripes: BTreeMap::new(),
    });
    if building.geometry != geometry {
        return Err("it contradicts other stripes of the same put".to_owned());
    }
    // As Geometry::new took it, the length of a stripe fits.
    let shard_bytes = geometry.shard_bytes_for(hint.stripe_bytes as usize);
    let fits = |shard: &&Shard| {
        usize::from(shard.slot.0) < geometry.slots() && shard.shard_bytes as usize == shard_bytes
    };
    let mut shards: Vec<_> = shards.filter(fits).map(|shard| (shard.slot, shard.disk)).collect();
    shards.sort();
    let copy = Copy { stripe, extent: hint.extent, bytes: hint.stripe_bytes, shards };
    building.stripes.entry(offset).or_default().push(copy);
    Ok(())
}

impl Object {
    fn new(name: ObjectName, puts: BTreeMap<ExtentId, Building>) -> Self {
        let newest_first = puts.into_iter().rev().map(|(put, building)| building.judge(put));
        let (mut versions, lost): (Vec<_>, Vec<_>) =
            newest_first.partition(|version| version.missing.is_empty());
        versions.sort_by_key(|version| version.end == End::Open);
        Self { name, is_directory: false, versions, lost }
    }
}

impl Building {
    fn judge(self, put: ExtentId) -> Version {
        let k = self.geometry.k();
        let full = self.hint.full_stripe_bytes();
        let (mut parts, mut missing, mut end, mut bytes) = (Vec::new(), Vec::new(), End::Open, 0);
        for (offset, mut copies) in self.stripes {
            if offset > bytes {
                missing.push(Missing::Bytes { from: bytes, to: offset });
            }
            // The last extent is the one that was committed, if not all were.
            copies.sort_by_key(|copy| (copy.slots() < k, std::cmp::Reverse(copy.extent)));
            let Some(best) = copies.first() else { continue };
            let length = best.bytes;
            if best.slots() < k {
                let (stripe, found) = (best.stripe, best.slots());
                missing.push(Missing::Shards { offset, bytes: length, stripe, found, needed: k });
            }
            copies.retain(|copy| copy.slots() >= k && copy.bytes == length);
            bytes = offset + u64::from(length);
            end = if u64::from(length) < full { End::Certain } else { End::Open };
            parts.push(Part { offset, bytes: length, copies });
        }
        if let (End::Open, Some(told)) = (end, self.hint.object_bytes) {
            match told.cmp(&bytes) {
                std::cmp::Ordering::Equal => end = End::Told,
                std::cmp::Ordering::Greater => missing.push(Missing::Bytes { from: bytes, to: told }),
                // The writer was told wrong.
                std::cmp::Ordering::Less => {}
            }
        }
        Version { put, geometry: self.geometry, parts, bytes, end, missing }
    }
}

impl Copy {
    /// Slots of which there is a shard.
    fn slots(&self) -> usize {
        self.shards.iter().map(|(slot, _)| slot).collect::<BTreeSet<_>>().len()
    }
}

fn mark_directories(objects: &mut [Object]) {
    let keys: BTreeSet<String> = objects.iter().map(|object| object.name.path()).collect();
    for object in objects {
        let directory = format!("{}/", object.name.path());
        let mut after = keys.range(directory.clone()..);
        object.is_directory = after.next().is_some_and(|key| key.starts_with(&directory));
    }
}

impl ObjectName {
    /// `TENANT/BUCKET/KEY`.
    pub(super) fn path(&self) -> String {
        format!("{}/{}/{}", self.tenant, self.bucket, self.key)
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
