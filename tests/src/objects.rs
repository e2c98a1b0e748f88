//! Putting and getting [`Content`]s, in as few words as a scenario has patience for.

use std::ops::Range;
use std::time::Duration;

use client::{Bucket, GetError, GetOptions, PutError, PutOptions, Receipt};
use os::Host;
use proto::ObjectKey;

use crate::Content;

/// The bucket that every test cluster has.
pub const BUCKET: &str = cadoled::dev::BUCKET;

/// How long one operation may go without any progress. Far beyond what any fault of these tests
/// should cost: reaching it is a finding.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A key.
pub fn key(text: &str) -> ObjectKey {
    text.parse().expect("a valid key")
}

/// Puts a content, told without its size.
///
/// # Errors
///
/// As the library says.
pub async fn put(bucket: &Bucket<Host>, name: &str, content: Content) -> Result<Receipt, PutError> {
    put_with(bucket, name, content, PutOptions::default()).await
}

/// Puts a content.
///
/// # Errors
///
/// As the library says.
pub async fn put_with(
    bucket: &Bucket<Host>,
    name: &str,
    content: Content,
    options: PutOptions,
) -> Result<Receipt, PutError> {
    let options = PutOptions { timeout: options.timeout.or(Some(PATIENCE)), ..options };
    bucket.put(&key(name), content.source(), options).await
}

/// Gets a whole object.
///
/// # Errors
///
/// As the library says.
pub async fn get(bucket: &Bucket<Host>, name: &str) -> Result<Vec<u8>, GetError> {
    collect(bucket, name, None).await
}

/// Gets a part of an object.
///
/// # Errors
///
/// As the library says.
pub async fn get_range(bucket: &Bucket<Host>, name: &str, range: Range<u64>) -> Result<Vec<u8>, GetError> {
    collect(bucket, name, Some(range)).await
}

async fn collect(bucket: &Bucket<Host>, name: &str, range: Option<Range<u64>>) -> Result<Vec<u8>, GetError> {
    let options = GetOptions { range, timeout: Some(PATIENCE) };
    let mut object = bucket.get(&key(name), options).await?;
    let mut all = Vec::new();
    while let Some(bytes) = object.next().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}
