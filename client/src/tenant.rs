//! A tenant's buckets.

use std::fmt;

use env::Env;
use proto::{BucketName, ProfileName, TenantName, wire};

use crate::bucket::Bucket;
use crate::cluster::{Cluster, ask};
use crate::error::Error;

/// Work for one tenant. The certificate must be the tenant's own or an operator's.
#[derive(Clone)]
pub struct Tenant<E: Env> {
    cluster: Cluster<E>,
    name: TenantName,
}

impl<E: Env> fmt::Debug for Tenant<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<E: Env> Tenant<E> {
    pub(crate) fn new(cluster: Cluster<E>, name: TenantName) -> Self {
        Self { cluster, name }
    }

    /// Its name.
    pub fn name(&self) -> &TenantName {
        &self.name
    }

    /// Creates a bucket whose objects are coded by `profile`. One that exists with the same profile
    /// is a success. Dropping this leaves open whether it was created.
    ///
    /// # Errors
    ///
    /// When the tenant or profile does not exist, the bucket has another profile, or nobody answers.
    pub async fn create_bucket(
        &self,
        name: &BucketName,
        profile: &ProfileName,
    ) -> Result<wire::Bucket, Error> {
        let shared = &self.cluster.shared;
        let call = wire::CreateBucket {
            tenant: self.name.to_string(),
            bucket: name.to_string(),
            profile: profile.to_string(),
            command_id: shared.command_id().to_wire(),
        };
        let reply = ask!(shared, shared.limit(None), CreateBucket(call))?;
        reply.bucket.ok_or_else(|| Error::odd_reply("create-bucket"))
    }

    /// Its buckets, in the order of their names.
    ///
    /// # Errors
    ///
    /// When the tenant does not exist, or nobody answers.
    pub async fn buckets(&self) -> Result<Vec<wire::Bucket>, Error> {
        let shared = &self.cluster.shared;
        let call = wire::ListBuckets { tenant: self.name.to_string() };
        Ok(ask!(shared, shared.limit(None), ListBuckets(call))?.buckets)
    }

    /// Work on one bucket. Nothing is sent: whether it exists is seen at the first operation.
    pub fn bucket(&self, name: BucketName) -> Bucket<E> {
        Bucket::new(self.cluster.clone(), self.name.clone(), name)
    }
}
