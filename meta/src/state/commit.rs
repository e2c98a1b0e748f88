//! A put becomes visible.

use std::collections::BTreeSet;

use env::KvRead;
use placement::{Group, Profile, Tolerance, tolerance_of_written};
use proto::limits::{
    CONTENT_TYPE_BYTES_MAX, EXTENT_BYTES_MAX, EXTENTS_MAX, INLINE_BYTES_MAX, OBJECT_BYTES_MAX,
    USER_METADATA_BYTES_MAX,
};
use proto::{BucketId, Detail, Epoch, ErrorCode, ExtentId, Failure, GroupId, ObjectKey, ProfileId, wire};
use wire::outcome::Outcome as Answer;

use crate::state::error::{Error, invalid, refuse};
use crate::state::objects::Found;
use crate::state::parse::{bit, check_precondition, granted_extent};
use crate::state::{Machine, Tx, tables as t};

/// An extent that may be committed.
struct NewExtent {
    id: ExtentId,
    group: GroupId,
    length: u64,
    missing: u32,
}

impl Machine {
    pub(super) fn commit_object<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        commit: wire::CommitObject,
    ) -> Result<Answer, Error> {
        let key = ObjectKey::parse(commit.key.clone())?;
        check_attributes(&commit)?;
        check_content(&commit)?;
        let bucket = self.bucket(&commit.tenant, &commit.bucket)?;
        let (bucket_id, profile) = (BucketId(bucket.id), ProfileId(bucket.profile));
        let found = Found::read(tx, bucket_id, key.as_bytes())?;
        check_precondition(commit.precondition.as_ref(), found.version())?;
        let (extents, tolerance) = self.check_extents(tx, &commit, profile)?;

        if let Some(old) = &found.row {
            self.retire(tx, old)?;
        }
        for extent in &extents {
            self.add_extent(tx, bucket_id, &key, extent)?;
        }
        self.count_object(tx, bucket_id, found.row.map(|row| row.size), Some(commit.size))?;
        let row = wire::ObjectRow {
            version: tx.version.0,
            size: commit.size,
            crc32c: commit.crc32c,
            modified_ms: tx.now.as_millis(),
            content_type: commit.content_type,
            user_metadata: commit.user_metadata,
            inline: commit.inline,
            extents: extents.iter().map(NewExtent::to_ref).collect(),
        };
        tx.put(t::OBJECTS, found.table_key, &row);
        Ok(Answer::CommitObject(wire::CommitObjectReply {
            version: row.version,
            modified_ms: row.modified_ms,
            tolerance,
            repeated: false,
        }))
    }

    /// The extents of a commit, and what the object withstands; nothing for one without extents.
    fn check_extents<K: KvRead>(
        &self,
        tx: &Tx<'_, K>,
        commit: &wire::CommitObject,
        profile: ProfileId,
    ) -> Result<(Vec<NewExtent>, Option<wire::Tolerance>), Error> {
        let mut ids = BTreeSet::new();
        let mut tolerance = Tolerance::UNLIMITED;
        let mut extents = Vec::with_capacity(commit.extents.len());
        for extent in &commit.extents {
            let id = granted_extent(&extent.id, tx.now)?;
            if !ids.insert(id) {
                return Err(invalid(format!("the commit names extent {id} twice")));
            }
            tolerance = tolerance.min_of(self.check_extent(extent, id, profile)?);
            let group = GroupId(extent.group);
            let key = t::extent_key(group, id);
            let known = tx.row::<wire::ExtentRow>(t::EXTENTS, &key)?.is_some()
                || tx.row::<wire::GarbageRow>(t::GARBAGE, &key)?.is_some();
            if known {
                let sentence =
                    format!("extent {id} was committed before, by another command: write the object anew");
                return Err(invalid(sentence));
            }
            extents.push(NewExtent { id, group, length: extent.length, missing: extent.missing });
        }
        let tolerance = (!extents.is_empty()).then(|| tolerance.into());
        Ok((extents, tolerance))
    }

    fn check_extent(
        &self,
        extent: &wire::Extent,
        id: ExtentId,
        of_bucket: ProfileId,
    ) -> Result<Tolerance, Error> {
        let group = self.map.groups().get(&GroupId(extent.group));
        let group =
            group.ok_or_else(|| invalid(format!("extent {id}: there is no group {}", extent.group)))?;
        let profiles = self.map.profiles();
        let small = profiles.get(&of_bucket).and_then(Profile::small);
        let profile = profiles.get(&group.profile).filter(|profile| {
            profile.id() == of_bucket || small.is_some_and(|small| small.profile == profile.id())
        });
        let profile = profile.ok_or_else(|| {
            invalid(format!("extent {id}: group {} does not belong to the bucket's profile", group.id))
        })?;
        if profile.id() != of_bucket && small.is_none_or(|small| extent.length > u64::from(small.bytes_max)) {
            let sentence = format!(
                "extent {id}: {} bytes are too many for group {}, which keeps small objects",
                extent.length, group.id
            );
            return Err(invalid(sentence));
        }
        check_mask(extent, id, group, profile)?;
        Ok(tolerance_of_written(&self.map, profile, &group.slots, extent.missing, Epoch(extent.epoch)))
    }

    fn add_extent<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        bucket: BucketId,
        key: &ObjectKey,
        extent: &NewExtent,
    ) -> Result<(), Error> {
        let row = wire::ExtentRow {
            length: extent.length,
            missing: 0,
            bucket: bucket.0,
            key: key.as_bytes().clone(),
            version: tx.version.0,
        };
        self.totals.extents = self.totals.extents.saturating_add(1);
        self.count_bytes(tx, extent.group, 0, extent.length);
        self.set_missing(tx, extent.group, extent.id, row, extent.missing)
    }
}

impl NewExtent {
    fn to_ref(&self) -> wire::ExtentRef {
        wire::ExtentRef { id: self.id.to_wire(), group: self.group.0, length: self.length }
    }
}

/// Are the slots that the writer wrote still the group's, and are they enough?
fn check_mask(extent: &wire::Extent, id: ExtentId, group: &Group, profile: &Profile) -> Result<(), Error> {
    let epoch = Epoch(extent.epoch);
    if epoch.0 == 0 || epoch > group.epoch {
        let sentence = format!("extent {id}: group {} was never in epoch {epoch}", group.id);
        return Err(invalid(sentence));
    }
    let all = bit(profile.slots()).wrapping_sub(1);
    if extent.missing & !all != 0 {
        let sentence =
            format!("extent {id}: the mask {:#x} names slots beyond {}", extent.missing, profile.slots());
        return Err(invalid(sentence));
    }
    let moved = group.slots.iter().enumerate().filter(|(_, slot)| slot.since_epoch > epoch);
    if let Some((slot, _)) = moved.into_iter().find(|(slot, _)| extent.missing & bit(*slot) == 0) {
        let sentence = format!(
            "extent {id}: slot {slot} of group {} moved in epoch {}; write its shards to the new disk, or name the \
             slot as missing",
            group.id, group.epoch
        );
        return Err(Failure::new(ErrorCode::StaleEpoch, sentence).with(Detail::Epoch(group.epoch)).into());
    }
    let missing = usize::try_from(extent.missing.count_ones()).unwrap_or(usize::MAX);
    let durable = profile.slots().saturating_sub(missing);
    if durable < profile.min_durable() {
        let sentence = format!(
            "extent {id}: {durable} slots are durable, profile {} wants {} or more: write it to another group",
            profile.name(),
            profile.min_durable()
        );
        return Err(invalid(sentence));
    }
    Ok(())
}

fn check_attributes(commit: &wire::CommitObject) -> Result<(), Error> {
    let type_bytes = commit.content_type.len();
    if type_bytes > CONTENT_TYPE_BYTES_MAX {
        return Err(invalid(format!(
            "the content type has {type_bytes} bytes; at most {CONTENT_TYPE_BYTES_MAX} are allowed: shorten it"
        )));
    }
    if commit.content_type.chars().any(char::is_control) {
        return Err(invalid("the content type has a control character in it"));
    }
    let metadata = &commit.user_metadata;
    let bytes =
        metadata.iter().fold(0usize, |sum, (name, value)| sum.saturating_add(name.len() + value.len()));
    if bytes > USER_METADATA_BYTES_MAX {
        return Err(invalid(format!(
            "the user metadata has {bytes} bytes; at most {USER_METADATA_BYTES_MAX} are allowed: keep it in the object"
        )));
    }
    if metadata.contains_key("") {
        return Err(invalid("the user metadata has an entry without a name"));
    }
    Ok(())
}

/// Does what is sent, or was written, add up to the size?
fn check_content(commit: &wire::CommitObject) -> Result<(), Error> {
    let size = commit.size;
    if size > OBJECT_BYTES_MAX {
        return Err(invalid(format!(
            "the object has {size} bytes; at most {OBJECT_BYTES_MAX} are allowed: split it"
        )));
    }
    if commit.extents.is_empty() {
        return check_inline(commit);
    }
    if !commit.inline.is_empty() {
        return Err(invalid("the commit has both extents and bytes of its own: send one of them"));
    }
    if commit.extents.len() > EXTENTS_MAX {
        let sentence = format!(
            "the commit has {} extents; at most {EXTENTS_MAX} are allowed: make them larger",
            commit.extents.len()
        );
        return Err(invalid(sentence));
    }
    let mut sum = 0u64;
    for extent in &commit.extents {
        if extent.length == 0 || extent.length > EXTENT_BYTES_MAX {
            let sentence = format!("an extent has {} bytes; expected 1 to {EXTENT_BYTES_MAX}", extent.length);
            return Err(invalid(sentence));
        }
        sum = sum.saturating_add(extent.length);
    }
    if sum != size {
        return Err(invalid(format!("the object has {size} bytes, its extents {sum}: they must be equal")));
    }
    Ok(())
}

fn check_inline(commit: &wire::CommitObject) -> Result<(), Error> {
    let found = commit.inline.len();
    if found > INLINE_BYTES_MAX {
        return Err(invalid(format!(
            "the commit carries {found} bytes; at most {INLINE_BYTES_MAX} are allowed: write them to a group"
        )));
    }
    if u64::try_from(found) != Ok(commit.size) {
        return Err(invalid(format!("the object has {} bytes, the commit carries {found}", commit.size)));
    }
    if crc32c::crc32c(&commit.inline) != commit.crc32c {
        return Err(refuse(
            ErrorCode::ChecksumMismatch,
            "the bytes in the commit do not match their CRC-32C: they were damaged on the way; send them again",
        ));
    }
    Ok(())
}
