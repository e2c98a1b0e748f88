//! Damaged stores are refused, and never begun anew.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the real side of the seam")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;

use env::{Batch, Kv, Kvs, StorageError, StorageErrorKind};
use os::kv::{OsKv, OsKvs};

async fn open(directory: &Path) -> Result<OsKv, StorageError> {
    OsKvs::new(Some(directory.to_owned())).open("store", &["table"]).await
}

async fn make(directory: &Path) {
    let kv = open(directory).await.unwrap();
    let mut batch = Batch::new();
    batch.put("table", "key", "value");
    kv.write(batch).unwrap();
    kv.flush().await.unwrap();
}

/// A store without its root file is corrupt, not new.
#[tokio::test]
async fn lost_root_is_corrupt() {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    make(temporary.path()).await;
    std::fs::remove_file(temporary.path().join("store/CURRENT")).unwrap();
    let error = open(temporary.path()).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Corrupt, "{error}");
}

/// A store whose manifest is damaged is corrupt.
#[tokio::test]
async fn damaged_manifest_is_corrupt() {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    make(temporary.path()).await;
    let store = temporary.path().join("store");
    let current = std::fs::read_to_string(store.join("CURRENT")).unwrap();
    let manifest = store.join(current.trim());
    let mut bytes = std::fs::read(&manifest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&manifest, bytes).unwrap();
    let error = open(temporary.path()).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Corrupt, "{error}");
}

/// A host without a directory for stores has none, and says so.
#[tokio::test]
async fn no_directory_no_stores() {
    let kvs = OsKvs::new(None);
    assert_eq!(kvs.list().await.unwrap(), Vec::<String>::new());
    assert_eq!(kvs.open("store", &[]).await.unwrap_err().kind(), StorageErrorKind::NotFound);
    kvs.remove("store").await.unwrap();
}

/// What a crash leaves of a checkpoint is no store, and is gone after the next look.
#[tokio::test]
async fn half_a_checkpoint_is_none() {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    make(temporary.path()).await;
    let half = temporary.path().join("copy.tmp");
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("000001.sst"), b"half").unwrap();
    let kvs = OsKvs::new(Some(temporary.path().to_owned()));
    assert_eq!(kvs.list().await.unwrap(), ["store"]);
    assert!(!half.exists());
    let kv = open(temporary.path()).await.unwrap();
    kv.checkpoint("copy").await.unwrap();
    assert_eq!(kvs.list().await.unwrap(), ["copy", "store"]);
}
