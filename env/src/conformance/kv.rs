//! The key-value stores' suite.

use bytes::Bytes;

use crate::conformance::{kv_model, refuses};
use crate::kv::{Batch, KeyRange, Kv, KvRead, Kvs, Order, Row, Table};
use crate::storage::StorageErrorKind::{AlreadyExists, Invalid, Locked};

const ONE: Table = "one";
const TWO: Table = "two";
const ALL: usize = usize::MAX;

/// Checks [`Kvs`], which has no stores yet, and none when this ends.
///
/// # Panics
///
/// When a clause does not hold.
pub async fn kvs<K: Kvs>(kvs: &K) {
    assert!(kvs.list().await.unwrap().is_empty(), "there are no stores yet");
    one_owner(kvs).await;
    let kv = kvs.open("store", &[ONE, TWO]).await.expect("a store opens when its owner is gone");
    batches(&kv);
    ranges(&kv);
    scans(&kv);
    flushes(&kv).await;
    checkpoints(kvs, &kv).await;
    drop(kv);
    reopens(kvs).await;
    removes(kvs).await;
    kv_model::random_batches(kvs).await;
    assert!(kvs.list().await.unwrap().is_empty(), "all stores are removed");
}

fn rows(pairs: &[(&'static str, &'static str)]) -> Vec<Row> {
    pairs.iter().map(|(key, value)| (Bytes::from(*key), Bytes::from(*value))).collect()
}

fn all<K: KvRead>(kv: &K, table: Table) -> Vec<Row> {
    kv.scan(table, &KeyRange::all(), Order::Ascending, ALL).expect("a scan")
}

fn clear<K: Kv>(kv: &K) {
    let mut batch = Batch::new();
    batch.delete_range(ONE, KeyRange::all());
    batch.delete_range(TWO, KeyRange::all());
    kv.write(batch).expect("a write");
}

fn put<K: Kv>(kv: &K, table: Table, pairs: &[(&'static str, &'static str)]) {
    let mut batch = Batch::new();
    for (key, value) in pairs {
        batch.put(table, *key, *value);
    }
    kv.write(batch).expect("a write");
}

async fn one_owner<K: Kvs>(kvs: &K) {
    for name in ["", "Store", "a/b", "..", "a.b"] {
        refuses("a name that is none", Invalid, kvs.open(name, &[ONE]).await.map(drop));
    }
    let kv = kvs.open("store", &[ONE]).await.expect("a new store opens");
    refuses("second owner", Locked, kvs.open("store", &[ONE]).await.map(drop));
    refuses("removal of an open store", Locked, kvs.remove("store").await);
    let clone = kv.clone();
    drop(kv);
    refuses("second owner while a clone lives", Locked, kvs.open("store", &[ONE]).await.map(drop));
    put(&clone, ONE, &[("a", "1")]);
    drop(clone);
    let kv = kvs.open("store", &[ONE, TWO]).await.expect("a store opens with one more table");
    assert_eq!(all(&kv, ONE), rows(&[("a", "1")]), "a table keeps its rows");
    assert_eq!(all(&kv, TWO), [], "a new table is empty");
    refuses("a table that is none", Invalid, kv.get("three", b"a"));
    clear(&kv);
}

fn batches<K: Kv>(kv: &K) {
    kv.write(Batch::new()).expect("an empty batch");
    let mut batch = Batch::new();
    batch.put(ONE, "a", "first");
    batch.put(ONE, "a", "second");
    batch.put(TWO, "a", "other table");
    batch.put(ONE, "b", "gone");
    batch.delete(ONE, "b");
    batch.delete(ONE, "never there");
    batch.put(ONE, "", "empty key");
    batch.put(ONE, "empty value", "");
    kv.write(batch).expect("a write");
    let expected = rows(&[("", "empty key"), ("a", "second"), ("empty value", "")]);
    assert_eq!(all(kv, ONE), expected, "changes take effect in order");
    assert_eq!(kv.get(TWO, b"a").unwrap().as_deref(), Some(b"other table".as_ref()), "tables are apart");
    assert_eq!(kv.get(TWO, b"empty value").unwrap(), None, "tables are apart");
    assert_eq!(kv.get(ONE, b"empty value").unwrap().as_deref(), Some(b"".as_ref()), "an empty value");
    assert_eq!(kv.get(ONE, b"b").unwrap(), None, "a deleted key");

    // One change that cannot be: the whole batch is not.
    let mut batch = Batch::new();
    batch.put(ONE, "half", "a batch");
    batch.put("three", "half", "a batch");
    refuses("a batch to a table that is none", Invalid, kv.write(batch));
    assert_eq!(kv.get(ONE, b"half").unwrap(), None, "a batch is whole or not at all");
    clear(kv);
}

fn ranges<K: Kv>(kv: &K) {
    let keys = [("a", "1"), ("b", "2"), ("b2", "3"), ("c", "4"), ("d", "5"), ("d2", "6")];
    put(kv, ONE, &keys);
    put(kv, TWO, &keys);
    let mut batch = Batch::new();
    batch.put(ONE, "b3", "in the range");
    batch.delete_range(ONE, KeyRange { start: b"b".to_vec(), end: Some(b"c".to_vec()) });
    batch.put(ONE, "b4", "after the range's removal");
    batch.put(ONE, "z", "beyond all keys");
    batch.delete_range(ONE, KeyRange { start: b"d2".to_vec(), end: None });
    batch.delete_range(ONE, KeyRange { start: b"b".to_vec(), end: Some(b"a".to_vec()) });
    batch.delete_range(ONE, KeyRange { start: b"a".to_vec(), end: Some(b"a".to_vec()) });
    kv.write(batch).expect("a write");
    let expected = rows(&[("a", "1"), ("b4", "after the range's removal"), ("c", "4"), ("d", "5")]);
    assert_eq!(all(kv, ONE), expected, "what a removed range leaves");
    assert_eq!(all(kv, TWO), rows(&keys), "another table's rows");
    assert_eq!(kv.get(ONE, b"b2").unwrap(), None, "a key of a removed range");
    clear(kv);
    assert_eq!(all(kv, ONE), [], "a range without end takes all");
    clear(kv);
}

fn scans<K: Kv>(kv: &K) {
    let keys = [("a", "1"), ("ab", "2"), ("ab\u{1}", "3"), ("abc", "4"), ("b", "5"), ("c", "6")];
    put(kv, ONE, &keys);
    let mut high = Batch::new();
    high.put(TWO, vec![0xff], "1");
    high.put(TWO, vec![0xff, 0xff], "2");
    high.put(TWO, vec![0xfe], "3");
    kv.write(high).expect("a write");

    let scan = |range: &KeyRange, order, limit| {
        let rows = kv.scan(ONE, range, order, limit).expect("a scan");
        rows.into_iter().map(|(_, value)| String::from_utf8(value.to_vec()).unwrap()).collect::<String>()
    };
    let (up, down) = (Order::Ascending, Order::Descending);
    let prefix = KeyRange::prefix(b"ab");
    let cases = [
        ("all upwards", KeyRange::all(), up, ALL, "123456"),
        ("all downwards", KeyRange::all(), down, ALL, "654321"),
        ("a limit upwards", KeyRange::all(), up, 2, "12"),
        ("a limit downwards", KeyRange::all(), down, 2, "65"),
        ("no rows asked for", KeyRange::all(), up, 0, ""),
        ("a prefix upwards", prefix.clone(), up, ALL, "234"),
        ("a prefix downwards", prefix.clone(), down, ALL, "432"),
        ("a prefix downwards, limited", prefix.clone(), down, 1, "4"),
        ("beyond a key", prefix.clone().after(b"ab"), up, ALL, "34"),
        ("beyond a key, downwards", prefix.clone().after(b"ab"), down, ALL, "43"),
        ("from a key", prefix.clone().from(b"abc"), up, ALL, "4"),
        ("beyond a range", prefix.clone().after(b"x"), up, ALL, ""),
        ("beyond a range, downwards", prefix.after(b"x"), down, ALL, ""),
        ("an end between keys", KeyRange { start: vec![], end: Some(b"aa".to_vec()) }, down, ALL, "1"),
        ("an end that is a key", KeyRange { start: vec![], end: Some(b"b".to_vec()) }, down, 1, "4"),
        ("an empty range", KeyRange { start: b"b".to_vec(), end: Some(b"b".to_vec()) }, up, ALL, ""),
    ];
    for (clause, range, order, limit, expected) in cases {
        assert_eq!(scan(&range, order, limit), expected, "{clause}");
    }
    let highest = kv.scan(TWO, &KeyRange::prefix(&[0xff]), up, ALL).unwrap();
    assert_eq!(highest.len(), 2, "a prefix without successor");
    clear(kv);
}

async fn flushes<K: Kv>(kv: &K) {
    put(kv, ONE, &[("a", "1")]);
    let (one, two, three) = tokio::join!(kv.flush(), kv.flush(), kv.flush());
    one.and(two).and(three).expect("flushes together");
    kv.flush().await.expect("a flush of nothing");
    clear(kv);
}

async fn checkpoints<K: Kvs>(kvs: &K, kv: &K::Kv) {
    put(kv, ONE, &[("a", "then"), ("b", "then")]);
    put(kv, TWO, &[("c", "then")]);
    kv.checkpoint("copy").await.expect("a checkpoint");
    put(kv, ONE, &[("a", "now"), ("d", "now")]);
    refuses("a checkpoint over one", AlreadyExists, kv.checkpoint("copy").await);
    refuses("a checkpoint over itself", AlreadyExists, kv.checkpoint("store").await);
    refuses("a checkpoint without a name", Invalid, kv.checkpoint("").await);
    assert_eq!(kvs.list().await.unwrap(), ["copy", "store"], "stores in byte order");

    let copy = kvs.open("copy", &[ONE, TWO]).await.expect("a checkpoint is a store");
    let then = rows(&[("a", "then"), ("b", "then")]);
    assert_eq!(all(&copy, ONE), then, "a checkpoint stays at its moment");
    assert_eq!(all(&copy, TWO), rows(&[("c", "then")]), "a checkpoint has all tables");
    put(&copy, ONE, &[("a", "copy")]);
    let now = rows(&[("a", "now"), ("b", "then"), ("d", "now")]);
    assert_eq!(all(kv, ONE), now, "the original does not see its checkpoint's writes");
    copy.checkpoint("copy-of-copy").await.expect("a checkpoint of a checkpoint");
    drop(copy);
    kvs.remove("copy").await.expect("remove");
    assert_eq!(all(kv, ONE), now, "the original survives its checkpoint");
}

async fn reopens<K: Kvs>(kvs: &K) {
    let now = rows(&[("a", "now"), ("b", "then"), ("d", "now")]);
    let kv = kvs.open("store", &[ONE, TWO]).await.expect("a store opens when its owner is gone");
    assert_eq!(all(&kv, ONE), now, "rows after reopening");
    put(&kv, ONE, &[("e", "flushed")]);
    kv.flush().await.expect("a flush");
    drop(kv);
    // Not all tables are asked for; they stay all the same.
    let kv = kvs.open("store", &[ONE]).await.expect("a store opens when its owner is gone");
    assert_eq!(kv.get(ONE, b"e").unwrap().as_deref(), Some(b"flushed".as_ref()), "a row that was flushed");
    drop(kv);
    let kv = kvs.open("store", &[ONE, TWO]).await.expect("a store opens when its owner is gone");
    assert_eq!(all(&kv, TWO), rows(&[("c", "then")]), "a table that was not asked for meanwhile");
}

async fn removes<K: Kvs>(kvs: &K) {
    kvs.remove("store").await.expect("remove");
    kvs.remove("store").await.expect("what does not exist is removed already");
    assert_eq!(kvs.list().await.unwrap(), ["copy-of-copy"], "stores after a removal");
    let copy = kvs.open("copy-of-copy", &[ONE, TWO]).await.expect("a checkpoint survives its original");
    assert_eq!(copy.get(ONE, b"a").unwrap().as_deref(), Some(b"copy".as_ref()), "a checkpoint's row");
    drop(copy);
    let kv = kvs.open("store", &[ONE]).await.expect("a removed name is free");
    assert_eq!(all(&kv, ONE), [], "a store under a removed one's name is new");
    drop(kv);
    kvs.remove("store").await.expect("remove");
    kvs.remove("copy-of-copy").await.expect("remove");
}
