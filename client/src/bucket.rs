//! The objects of a bucket.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use env::Env;
use proto::{BucketName, ObjectKey, TenantName, wire};

use crate::cluster::{Cluster, Shared, ask};
use crate::error::{DeleteError, Error, GetError, PutError};
use crate::get::ObjectStream;
use crate::listing::{ListOptions, Listing};
use crate::object::{ObjectInfo, ObjectStat, Precondition, Receipt, check_metadata};
use crate::put::Put;
use crate::source::Source;

/// How to put.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// MIME type; at most 255 bytes, not looked at.
    pub content_type: String,
    /// Names and values, at most 2 KiB together.
    pub user_metadata: BTreeMap<String, String>,
    /// What must hold at the commit.
    pub precondition: Precondition,
    /// Bytes of the object, if known; helps to choose places. Nothing breaks when it is wrong.
    pub size_hint: Option<u64>,
    /// How long nothing may move before the put fails; the cluster's default when absent. The source
    /// counts too: one that gives nothing for so long fails the put. A large object may take longer.
    pub timeout: Option<Duration>,
}

/// How to get.
#[derive(Clone, Debug, Default)]
pub struct GetOptions {
    /// Which bytes; all when absent. An end after the object's is taken as the object's.
    pub range: Option<Range<u64>>,
    /// How long one stripe may take; the cluster's default when absent.
    pub timeout: Option<Duration>,
}

/// Work on the objects of one bucket.
#[derive(Clone)]
pub struct Bucket<E: Env> {
    cluster: Cluster<E>,
    tenant: TenantName,
    name: BucketName,
}

impl<E: Env> fmt::Debug for Bucket<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, name, .. } = self;
        f.debug_struct("Bucket").field("tenant", tenant).field("name", name).finish_non_exhaustive()
    }
}

impl<E: Env> Bucket<E> {
    pub(crate) fn new(cluster: Cluster<E>, tenant: TenantName, name: BucketName) -> Self {
        Self { cluster, tenant, name }
    }

    /// Its name.
    pub fn name(&self) -> &BucketName {
        &self.name
    }

    /// The tenant whose it is.
    pub fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// Puts what `source` gives under `key`. When this returns, the object is durable as the receipt
    /// says, and visible; before, nothing of it is visible. Holds at most three stripes.
    ///
    /// The whole must be done within an hour of cluster time, the life of a grant. Dropping this
    /// before the end leaves the key as it was, unless the commit was under way just then.
    ///
    /// # Errors
    ///
    /// See [`PutError`].
    pub async fn put<S: Source>(
        &self,
        key: &ObjectKey,
        source: S,
        options: PutOptions,
    ) -> Result<Receipt, PutError> {
        check_metadata(&options.content_type, &options.user_metadata)?;
        Put::new(self.shared(), &self.tenant, &self.name, key, options).run(source).await
    }

    /// The object under `key`, or a range of it: its bytes come from the stream as they arrive.
    ///
    /// # Errors
    ///
    /// See [`GetError`].
    pub async fn get(&self, key: &ObjectKey, options: GetOptions) -> Result<ObjectStream<E>, GetError> {
        ObjectStream::open(self.shared().clone(), &self.tenant, &self.name, key, options).await
    }

    /// What is known of the object under `key`, without its bytes.
    ///
    /// # Errors
    ///
    /// See [`GetError`].
    pub async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, GetError> {
        let reply = self.get_object(key, true).await?;
        let object = reply.object.ok_or_else(|| Error::odd_reply("get-object"))?;
        Ok(ObjectInfo::parse(object).map_err(Error::from)?)
    }

    /// The object under `key` and where its bytes lie.
    ///
    /// # Errors
    ///
    /// See [`GetError`].
    pub async fn stat(&self, key: &ObjectKey) -> Result<ObjectStat, GetError> {
        let reply = self.get_object(key, false).await?;
        let object = reply.object.ok_or_else(|| Error::odd_reply("get-object"))?;
        Ok(ObjectStat {
            info: ObjectInfo::parse(object).map_err(Error::from)?,
            tolerates: reply.tolerance.unwrap_or_default().into(),
            is_inline: reply.extents.is_empty(),
            extents: reply.extents,
            placements: reply.placements,
        })
    }

    /// Deletes what is under `key`; false when nothing was. Dropping this leaves open whether it was.
    ///
    /// # Errors
    ///
    /// See [`DeleteError`].
    pub async fn delete(&self, key: &ObjectKey, precondition: Precondition) -> Result<bool, DeleteError> {
        let shared = self.shared();
        let call = wire::DeleteObject {
            tenant: self.tenant.to_string(),
            bucket: self.name.to_string(),
            key: key.as_bytes().clone(),
            command_id: shared.command_id().to_wire(),
            precondition: precondition.to_wire(),
        };
        let reply = ask!(shared, shared.limit(None), DeleteObject(call))?;
        Ok(reply.existed)
    }

    /// The objects of the bucket, page by page, in the order of their keys. Nothing is sent yet.
    pub fn list(&self, options: ListOptions) -> Listing<E> {
        Listing::new(self.shared().clone(), &self.tenant, &self.name, options)
    }

    fn shared(&self) -> &Arc<Shared<E>> {
        &self.cluster.shared
    }

    async fn get_object(&self, key: &ObjectKey, head: bool) -> Result<wire::GetObjectReply, Error> {
        let shared = self.shared();
        let call = wire::GetObject {
            tenant: self.tenant.to_string(),
            bucket: self.name.to_string(),
            key: key.as_bytes().clone(),
            head,
        };
        ask!(shared, shared.limit(None), GetObject(call))
    }
}
