//! Tenants and buckets.

use env::KvRead;
use proto::{BucketName, ErrorCode, ProfileId, ProfileName, TenantId, TenantName, wire};
use wire::outcome::Outcome as Answer;

use crate::state::error::{Error, invalid, refuse};
use crate::state::{Machine, Tx, tables as t};

/// Ends the names of profiles that only serve another one's small objects.
pub(super) const SMALL_SUFFIX: &str = ".small";

impl Machine {
    pub(super) fn create_tenant<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        create: wire::CreateTenant,
    ) -> Result<Answer, Error> {
        let name: TenantName = create.tenant.parse()?;
        if !self.tenants.contains_key(name.as_str()) {
            let (id, next) = next_id(self.totals.next_tenant, "tenants")?;
            self.totals.next_tenant = next;
            let row = wire::TenantRow { id, name: name.to_string(), created_ms: tx.now.as_millis() };
            tx.put(t::TENANTS, t::number_key(id), &row);
            self.tenants.insert(name.to_string(), row);
        }
        let row = self.tenant(name.as_str())?;
        Ok(Answer::CreateTenant(wire::CreateTenantReply { tenant: Some(self.describe_tenant(row)) }))
    }

    pub(super) fn create_bucket<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        create: wire::CreateBucket,
    ) -> Result<Answer, Error> {
        let tenant = TenantId(self.tenant(&create.tenant)?.id);
        let name: BucketName = create.bucket.parse()?;
        let profile = self.profile_for_bucket(&create.profile)?;
        match self.bucket(&create.tenant, name.as_str()) {
            Ok(known) if known.profile == profile.0 => {}
            Ok(known) => {
                let sentence = format!(
                    "bucket {name} exists with profile {}; a bucket's profile cannot be changed: take another name",
                    self.profile_name(ProfileId(known.profile))
                );
                return Err(refuse(ErrorCode::AlreadyExists, sentence));
            }
            Err(_) => {
                let (id, next) = next_id(self.totals.next_bucket, "buckets")?;
                self.totals.next_bucket = next;
                let row = wire::BucketRow {
                    id,
                    name: name.to_string(),
                    tenant: tenant.0,
                    profile: profile.0,
                    created_ms: tx.now.as_millis(),
                    ..Default::default()
                };
                tx.put(t::BUCKETS, t::number_key(id), &row);
                self.remember_bucket(row);
            }
        }
        let row = self.bucket(&create.tenant, name.as_str())?;
        Ok(Answer::CreateBucket(wire::CreateBucketReply { bucket: Some(self.describe_bucket(row)) }))
    }

    fn profile_for_bucket(&self, name: &str) -> Result<ProfileId, Error> {
        let name: ProfileName = name.parse()?;
        if name.as_str().ends_with(SMALL_SUFFIX) {
            let sentence =
                format!("profile {name} only serves small objects: name the profile without {SMALL_SUFFIX}");
            return Err(invalid(sentence));
        }
        let profile = self.map.profile_named(name.as_str());
        let missing =
            || refuse(ErrorCode::NoSuchProfile, format!("there is no profile {name}; create it first"));
        Ok(profile.ok_or_else(missing)?.id())
    }

    fn profile_name(&self, profile: ProfileId) -> String {
        let known = self.map.profiles().get(&profile);
        known.map_or_else(|| profile.to_string(), |profile| profile.name().to_string())
    }

    /// A bucket as callers see it.
    pub(super) fn describe_bucket(&self, row: &wire::BucketRow) -> wire::Bucket {
        wire::Bucket {
            id: row.id,
            name: row.name.clone(),
            profile: self.profile_name(ProfileId(row.profile)),
            objects: row.objects,
            bytes: row.bytes,
            created_ms: row.created_ms,
        }
    }

    /// A tenant as callers see it, with the sums over its buckets.
    pub(super) fn describe_tenant(&self, row: &wire::TenantRow) -> wire::Tenant {
        let mut tenant = wire::Tenant {
            id: row.id,
            name: row.name.clone(),
            created_ms: row.created_ms,
            ..Default::default()
        };
        for bucket in self.buckets_of(TenantId(row.id)) {
            tenant.buckets = tenant.buckets.saturating_add(1);
            tenant.objects = tenant.objects.saturating_add(bucket.objects);
            tenant.bytes = tenant.bytes.saturating_add(bucket.bytes);
        }
        tenant
    }
}

/// An id from a counter that begins at 1, and the counter after it.
pub(super) fn next_id(counter: u32, of: &str) -> Result<(u32, u32), Error> {
    let id = counter.max(1);
    let next = id.checked_add(1).ok_or_else(|| invalid(format!("the ids of {of} are used up")))?;
    Ok((id, next))
}
