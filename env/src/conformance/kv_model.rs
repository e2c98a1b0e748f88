//! Random batches against a model in memory, with fixed seeds.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::conformance::Fixed;
use crate::kv::{Batch, Change, KeyRange, Kv, KvRead, Kvs, Order, Row, Table};

const TABLES: [Table; 2] = ["left", "right"];
const NAME: &str = "model";
const STEPS: usize = 400;

/// What a store holds: the keys of each table in order.
type Model = BTreeMap<Table, BTreeMap<Bytes, Bytes>>;

/// Writes, scans, reopens and checkpoints, and compares with the model after each step.
pub(super) async fn random_batches<K: Kvs>(kvs: &K) {
    for seed in 1..=3 {
        let mut random = Fixed(seed);
        let mut model: Model = TABLES.map(|table| (table, BTreeMap::new())).into();
        let mut kv = kvs.open(NAME, &TABLES).await.expect("open");
        for step in 0..STEPS {
            match random.below(40) {
                0 => {
                    drop(kv);
                    kv = kvs.open(NAME, &TABLES).await.expect("open again");
                    compare(&kv, &model, seed, step);
                }
                1 => kv.flush().await.expect("flush"),
                2 => check_checkpoint(kvs, &kv, &model, seed, step).await,
                3..20 => write(&kv, &mut model, &mut random),
                _ => check_scan(&kv, &model, &mut random, seed, step),
            }
        }
        compare(&kv, &model, seed, STEPS);
        drop(kv);
        kvs.remove(NAME).await.expect("remove");
    }
}

/// Few short keys, so that changes meet each other.
fn key(random: &mut Fixed) -> Vec<u8> {
    (0..random.below(4)).map(|_| [0, b'a', b'b', 0xff][random.below(4)]).collect()
}

fn range(random: &mut Fixed) -> KeyRange {
    match random.below(4) {
        0 => KeyRange::prefix(&key(random)),
        1 => KeyRange { start: key(random), end: None },
        2 => KeyRange::prefix(&key(random)).after(&key(random)),
        _ => KeyRange { start: key(random), end: Some(key(random)) },
    }
}

fn write<K: Kv>(kv: &K, model: &mut Model, random: &mut Fixed) {
    let mut batch = Batch::new();
    for _ in 0..=random.below(12) {
        let table = TABLES[random.below(2)];
        match random.below(10) {
            0 => batch.delete_range(table, range(random)),
            1 | 2 => batch.delete(table, key(random)),
            _ => batch.put(table, key(random), random.next().to_le_bytes().to_vec()),
        }
    }
    for change in batch.clone().into_changes() {
        apply(model, change);
    }
    kv.write(batch).expect("write");
}

fn apply(model: &mut Model, change: Change) {
    match change {
        Change::Put(table, key, value) => {
            model.entry(table).or_default().insert(key, value);
        }
        Change::Delete(table, key) => {
            model.entry(table).or_default().remove(&key);
        }
        Change::DeleteRange(table, range) => {
            model.entry(table).or_default().retain(|key, _| !range.contains(key));
        }
    }
}

fn expected(model: &Model, table: Table, range: &KeyRange, order: Order, limit: usize) -> Vec<Row> {
    let rows = model[table].iter().filter(|(key, _)| range.contains(key));
    let rows = rows.map(|(key, value)| (key.clone(), value.clone()));
    match order {
        Order::Ascending => rows.take(limit).collect(),
        Order::Descending => rows.rev().take(limit).collect(),
    }
}

fn check_scan<K: KvRead>(kv: &K, model: &Model, random: &mut Fixed, seed: u64, step: usize) {
    let table = TABLES[random.below(2)];
    let range = range(random);
    let order = [Order::Ascending, Order::Descending][random.below(2)];
    let limit = [0, 1, 3, usize::MAX][random.below(4)];
    let got = kv.scan(table, &range, order, limit).expect("scan");
    let expected = expected(model, table, &range, order, limit);
    assert_eq!(got, expected, "seed {seed}, step {step}: {table} {range:?} {order:?} {limit}");
    let key = key(random);
    let got = kv.get(table, &key).expect("get");
    assert_eq!(got.as_ref(), model[table].get(key.as_slice()), "seed {seed}, step {step}: {key:?}");
}

fn compare<K: KvRead>(kv: &K, model: &Model, seed: u64, step: usize) {
    for table in TABLES {
        let got = kv.scan(table, &KeyRange::all(), Order::Ascending, usize::MAX).expect("scan");
        let expected = expected(model, table, &KeyRange::all(), Order::Ascending, usize::MAX);
        assert_eq!(got, expected, "seed {seed}, step {step}: {table}");
    }
}

async fn check_checkpoint<K: Kvs>(kvs: &K, kv: &K::Kv, model: &Model, seed: u64, step: usize) {
    kv.checkpoint("model-copy").await.expect("checkpoint");
    let mut later = Batch::new();
    later.delete_range(TABLES[0], KeyRange::all());
    let copy = kvs.open("model-copy", &TABLES).await.expect("open a checkpoint");
    compare(&copy, model, seed, step);
    copy.write(later).expect("write to a checkpoint");
    compare(kv, model, seed, step);
    drop(copy);
    kvs.remove("model-copy").await.expect("remove a checkpoint");
}
