//! Listing a bucket.
//!
//! A page is complete or an error. Folding by a delimiter skips from one folded prefix to the next
//! without reading the keys under it, so a page costs what it shows, whatever the bucket holds.

use bytes::Bytes;
use env::kv::successor_of_prefix;
use env::{KeyRange, KvRead, Order, Row, StorageError};
use proto::limits::{KEY_BYTES_MAX, LIST_PAGE_MAX};
use proto::{BucketId, wire};

use crate::state::error::{Error, invalid};
use crate::state::query::{describe, page_limit};
use crate::state::tx::decode;
use crate::state::{Machine, tables as t};

/// Rows read at once when the next one may be folded away.
const FOLDING_CHUNK: usize = 32;

/// One page of the keys that begin with a prefix, in byte order.
///
/// The token is the last key or folded prefix of the page before. Objects that are put or deleted
/// between two pages may be in the listing or not; all others are, once.
///
/// # Errors
///
/// `NoSuchTenant`, `NoSuchBucket`, `InvalidRequest`; those of the store.
pub fn list_objects(
    machine: &Machine,
    kv: &impl KvRead,
    list: &wire::ListObjects,
) -> Result<wire::ListObjectsReply, Error> {
    let bucket = BucketId(machine.bucket(&list.tenant, &list.bucket)?.id);
    for (what, bytes) in [("prefix", &list.prefix), ("token", &list.token), ("delimiter", &list.delimiter)] {
        if bytes.len() > KEY_BYTES_MAX {
            return Err(invalid(format!(
                "the {what} has {} bytes; keys have at most {KEY_BYTES_MAX}",
                bytes.len()
            )));
        }
    }
    let fold = Fold { prefix: list.prefix.clone(), delimiter: list.delimiter.clone() };
    if !list.token.is_empty() && !list.token.starts_with(&list.prefix) {
        return Err(invalid("the token is of a listing with another prefix: start again without it"));
    }
    let mut cursor = Cursor {
        kv,
        range: KeyRange::prefix(&t::object_key(bucket, &list.prefix)),
        rows: Vec::new().into_iter(),
    };
    if let Some(folded) = fold.of(&list.token) {
        cursor.skip(&t::object_key(bucket, &folded));
    } else if !list.token.is_empty() {
        cursor.range = cursor.range.after(&t::object_key(bucket, &list.token));
    }

    let limit = page_limit(list.limit, LIST_PAGE_MAX);
    let chunk = if list.delimiter.is_empty() {
        limit.saturating_add(1)
    } else {
        FOLDING_CHUNK.min(limit.saturating_add(1))
    };
    let mut reply = wire::ListObjectsReply::default();
    let mut last = Bytes::new();
    while let Some((key, value)) = cursor.next(chunk)? {
        if reply.objects.len().saturating_add(reply.prefixes.len()) >= limit {
            reply.next_token = last;
            break;
        }
        let object = t::object_of(&key)?;
        if let Some(folded) = fold.of(&object) {
            cursor.skip(&t::object_key(bucket, &folded));
            reply.prefixes.push(folded.clone());
            last = folded;
        } else {
            reply.objects.push(describe(&object, &decode(t::OBJECTS, value)?));
            last = object;
        }
    }
    Ok(reply)
}

struct Fold {
    prefix: Bytes,
    delimiter: Bytes,
}

impl Fold {
    /// The key up to and with the first delimiter after the prefix, if there is one.
    fn of(&self, key: &Bytes) -> Option<Bytes> {
        let rest = key.get(self.prefix.len()..).filter(|_| !self.delimiter.is_empty())?;
        let at = rest.windows(self.delimiter.len()).position(|window| window == self.delimiter)?;
        Some(key.slice(..self.prefix.len().saturating_add(at).saturating_add(self.delimiter.len())))
    }
}

/// Rows of a range, a chunk at a time, with a way to leave some out.
struct Cursor<'a, K> {
    kv: &'a K,
    /// What has not been read.
    range: KeyRange,
    rows: std::vec::IntoIter<Row>,
}

impl<K: KvRead> Cursor<'_, K> {
    fn next(&mut self, chunk: usize) -> Result<Option<Row>, StorageError> {
        if self.rows.as_slice().is_empty() {
            let rows = self.kv.scan(t::OBJECTS, &self.range, Order::Ascending, chunk)?;
            if let Some((last, _)) = rows.last() {
                self.range = std::mem::take(&mut self.range).after(last);
            }
            self.rows = rows.into_iter();
        }
        Ok(self.rows.next())
    }

    /// Goes on behind all keys that begin with `prefix`.
    fn skip(&mut self, prefix: &[u8]) {
        while self.rows.as_slice().first().is_some_and(|(key, _)| key.starts_with(prefix)) {
            self.rows.next();
        }
        if let Some(beyond) = successor_of_prefix(prefix) {
            self.range = std::mem::take(&mut self.range).from(&beyond);
        }
    }
}
