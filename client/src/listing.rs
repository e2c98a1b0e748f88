//! Listing a bucket.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use env::Env;
use proto::limits::LIST_PAGE_MAX;
use proto::{BucketName, TenantName, wire};

use crate::cluster::{Shared, ask};
use crate::error::Error;
use crate::object::ObjectInfo;

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Only keys that begin so.
    pub prefix: Bytes,
    /// When not empty: keys that share the part up to the next delimiter after the prefix are folded
    /// into one prefix.
    pub delimiter: Bytes,
    /// Entries of a page, at most [`LIST_PAGE_MAX`]; that many when absent.
    pub page: Option<usize>,
    /// Continue where an earlier listing's [`Page::token`] says; empty for the start.
    pub token: Bytes,
}

/// One page: complete, or an error instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Objects, in the order of their keys.
    pub objects: Vec<ObjectInfo>,
    /// What keys were folded into.
    pub prefixes: Vec<Bytes>,
    /// Where the next page begins; empty on the last.
    pub token: Bytes,
}

/// A listing under way. Each page is consistent in itself; changes between pages are seen or not.
pub struct Listing<E: Env> {
    shared: Arc<Shared<E>>,
    next: Option<wire::ListObjects>,
}

impl<E: Env> fmt::Debug for Listing<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").field("next", &self.next).finish_non_exhaustive()
    }
}

impl<E: Env> Listing<E> {
    pub(crate) fn new(
        shared: Arc<Shared<E>>,
        tenant: &TenantName,
        bucket: &BucketName,
        options: ListOptions,
    ) -> Self {
        let limit = options.page.unwrap_or(LIST_PAGE_MAX).clamp(1, LIST_PAGE_MAX);
        let next = wire::ListObjects {
            tenant: tenant.to_string(),
            bucket: bucket.to_string(),
            prefix: options.prefix,
            token: options.token,
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            delimiter: options.delimiter,
        };
        Self { shared, next: Some(next) }
    }

    /// The next page; none after the last. Dropping this loses nothing, and after an error it may be
    /// called again.
    ///
    /// # Errors
    ///
    /// When the bucket does not exist, or nobody answers.
    pub async fn next_page(&mut self) -> Result<Option<Page>, Error> {
        let Some(call) = self.next.clone() else { return Ok(None) };
        let reply = ask!(self.shared, self.shared.limit(None), ListObjects(call.clone()))?;
        let objects = reply.objects.into_iter().map(ObjectInfo::parse).collect::<Result<_, _>>()?;
        let token = reply.next_token;
        if token == call.token && !token.is_empty() {
            // A page that leads to itself would never end.
            return Err(Error::odd_reply("list-objects"));
        }
        self.next = (!token.is_empty()).then(|| wire::ListObjects { token: token.clone(), ..call });
        Ok(Some(Page { objects, prefixes: reply.prefixes, token }))
    }
}
