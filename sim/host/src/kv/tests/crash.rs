//! What a death leaves: of a process all its batches, of a power loss a prefix.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::host::SimEnv;
use crate::rng::Stream;

const TWO: Table = "two";
const TABLES: [Table; 2] = [ONE, TWO];

/// What both tables hold.
type State = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// What a process has done, as the test knows it.
struct Record {
    /// The state after each batch; the first one is before all. The last may not have been written.
    states: Vec<State>,
    /// Batches whose write has returned.
    written: usize,
    /// Batches that the last successful flush covers.
    flushed: usize,
    /// Checkpoints: the number of batches when each was begun, and when it was made.
    copies: BTreeMap<String, (usize, Option<usize>)>,
}

impl Default for Record {
    fn default() -> Self {
        Self { states: vec![State::new()], written: 0, flushed: 0, copies: BTreeMap::new() }
    }
}

fn state(kv: &impl KvRead) -> State {
    let rows =
        |table| all(kv, table).into_iter().map(move |(key, value)| ((table, key.to_vec()), value.to_vec()));
    TABLES.into_iter().flat_map(rows).collect()
}

/// A random batch and what it makes of `before`. Few keys, so that changes meet each other; the number
/// of the batch is in it, so that no two states are equal.
fn random_batch(stream: &Stream, number: usize, before: &State) -> (Batch, State) {
    let (mut batch, mut after) = (Batch::new(), before.clone());
    let key = || vec![b"abcdef"[stream.index(6)]; 1 + stream.index(2)];
    for _ in 0..stream.below(5) {
        let table = TABLES[stream.index(2)];
        match stream.below(8) {
            0 => {
                let range = match stream.below(3) {
                    0 => KeyRange::all(),
                    1 => KeyRange { start: key(), end: None },
                    _ => KeyRange { start: key(), end: Some(key()) },
                };
                after.retain(|(of, key), _| *of != table || !range.contains(key));
                batch.delete_range(table, range);
            }
            1 | 2 => {
                let key = key();
                after.remove(&(table, key.clone()));
                batch.delete(table, key);
            }
            _ => {
                let (key, value) = (key(), number.to_le_bytes().to_vec());
                after.insert((table, key.clone()), value.clone());
                batch.put(table, key, value);
            }
        }
    }
    let number = number.to_string().into_bytes();
    after.insert((TWO, b"number".to_vec()), number.clone());
    batch.put(TWO, "number", number);
    (batch, after)
}

/// Writes, flushes and copies, in two tasks at once, until the process dies of it.
async fn live(env: SimEnv, stream: Stream, record: Arc<Mutex<Record>>) {
    let kv = env.kvs().open("store", &TABLES).await.unwrap();
    for name in ["left", "right"] {
        let (life, kv, stream, record) = (env.life().clone(), kv.clone(), stream.fork(name), record.clone());
        env::Spawn::spawn(env.spawn(), name, async move {
            loop {
                one_operation(&kv, name, &stream, &record).await;
                life.alive().await;
            }
        });
    }
    std::future::pending().await
}

async fn one_operation(kv: &SimKv, task: &str, stream: &Stream, record: &Mutex<Record>) {
    match stream.below(10) {
        0 | 1 => {
            let written = lock(record).written;
            kv.flush().await.unwrap();
            let mut record = lock(record);
            record.flushed = record.flushed.max(written);
        }
        2 => {
            let name = {
                let mut record = lock(record);
                let name = format!("copy-{task}-{}", record.copies.len());
                let began = record.written;
                record.copies.insert(name.clone(), (began, None));
                name
            };
            kv.checkpoint(&name).await.unwrap();
            let mut record = lock(record);
            let made = record.written;
            record.copies.entry(name).and_modify(|copy| copy.1 = Some(made));
        }
        _ => {
            let mut record = lock(record);
            let number = record.states.len();
            let (batch, after) = random_batch(stream, number, &record.states[number - 1]);
            record.states.push(after);
            // The dead get an error; they go no further than to their next await.
            if kv.write(batch).is_ok() {
                record.written = number;
            }
        }
    }
}

/// Which prefix the store holds.
fn prefix(device: &KvDevice, record: &Record) -> Option<usize> {
    let found = device.forensic("store").map(|kv| state(&kv)).unwrap_or_default();
    record.states.iter().position(|state| *state == found)
}

fn check(device: &KvDevice, record: &Record, death: Death, case: &str) -> usize {
    let prefix = prefix(device, record).unwrap_or_else(|| panic!("{case}: the state of no prefix"));
    let (flushed, written, tried) = (record.flushed, record.written, record.states.len() - 1);
    let least = if death == Death::Process { written } else { flushed };
    assert!(
        (least..=tried).contains(&prefix),
        "{case}: {prefix} batches; {flushed} flushed, {written} written, {tried} tried"
    );
    for name in device.stores().iter().filter(|name| *name != "store") {
        let copy = state(&device.forensic(name).unwrap());
        let (from, to) = *record.copies.get(name).unwrap_or_else(|| panic!("{case}: {name} was never made"));
        let moments = &record.states[from..=to.unwrap_or(tried)];
        assert!(moments.contains(&copy), "{case}: {name} is of no moment of its making");
    }
    for (name, (_, made)) in &record.copies {
        assert!(made.is_none() || device.holds(name), "{case}: {name} is gone");
    }
    prefix
}

/// A life after the other, each ending in the middle of an operation; the next goes on from what is there.
fn lives(seed: u64, deaths: &[(u64, bool, bool)]) {
    let world = World::new(WorldOptions::new(seed));
    let host = world.add_host("a", "node/1".parse().unwrap());
    let mut record = Record::default();
    for (life, &(operations, power, after)) in deaths.iter().enumerate() {
        let death = if power { Death::Power } else { Death::Process };
        let case = format!("seed {seed}, life {life}, {death:?} at operation {operations}, after: {after}");
        let stream = world.stream(&format!("life {life}"));
        let shared = Arc::new(Mutex::new(record));
        let env = host.boot();
        host.doom(operations, death, after);
        let process = live(env.clone(), stream, shared.clone());
        let task = env::Spawn::spawn(env.spawn(), "live", process);
        world.run(LIMIT, env::Task::join(task)).unwrap();
        record = std::mem::take(&mut *lock(&shared));
        let prefix = check(host.kvs(), &record, death, &case);
        // The next life goes on from this prefix; what a power loss has left stays for good.
        record.states.truncate(prefix + 1);
        record.written = prefix;
        record.flushed = if power { prefix } else { record.flushed };
        for name in std::mem::take(&mut record.copies).into_keys() {
            world.run(LIMIT, remove(&host, &name)).unwrap();
        }
    }
}

async fn remove(host: &Host, name: &str) {
    let env = host.boot();
    env.kvs().remove(name).await.unwrap();
    host.kill(Death::Process);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever operation a host dies at, a killed process leaves all its batches, a power loss a prefix
    /// not shorter than the last flush, and checkpoints are whole or not there, life after life.
    #[test]
    fn death_leaves_a_prefix(seed: u64, deaths in prop::collection::vec((0_u64..120, any::<bool>(), any::<bool>()), 1..6)) {
        println!("seed {seed}, deaths {deaths:?}");
        lives(seed, &deaths);
    }
}

/// A power loss can take all that was not flushed, none of it, and some of it; never more.
#[test]
fn power_loss_takes_any_tail() {
    let mut left = BTreeMap::new();
    for seed in 0..200 {
        let host = host(seed);
        let env = host.boot();
        let test = async {
            let kv = env.kvs().open("store", &[ONE]).await.unwrap();
            put(&kv, "a");
            put(&kv, "b");
            kv.flush().await.unwrap();
            put(&kv, "c");
            put(&kv, "d");
            host.kill(Death::Power);
        };
        host.world().run(LIMIT, test).unwrap();
        *left.entry(keys(&host.kvs().forensic("store").unwrap())).or_insert(0) += 1;
    }
    println!("{left:?}");
    let found: Vec<&str> = left.keys().map(String::as_str).collect();
    assert_eq!(found, ["a b", "a b c", "a b c d"]);
}

/// What is durable can be looked at all along: the state at the last flush, whatever was written since.
#[test]
fn durable_is_what_was_flushed() {
    for seed in 0..100 {
        let (host, stream) = (host(seed), Stream::new(seed));
        let env = host.boot();
        let test = async {
            let kv = env.kvs().open("store", &TABLES).await.unwrap();
            let (mut now, mut flushed) = (State::new(), State::new());
            for number in 0..40 {
                let (batch, after) = random_batch(&stream, number, &now);
                kv.write(batch).unwrap();
                now = after;
                if stream.chance(150_000) {
                    kv.flush().await.unwrap();
                    flushed = now.clone();
                    assert_eq!(host.kvs().unflushed("store"), Some(0));
                }
                let durable = host.kvs().durable("store").unwrap();
                assert_eq!(state(&durable), flushed, "seed {seed}, batch {number}");
                for (table, key) in now.keys().chain(flushed.keys()) {
                    let row = durable.get(table, key).unwrap().map(|value| value.to_vec());
                    assert_eq!(
                        row.as_ref(),
                        flushed.get(&(*table, key.clone())),
                        "seed {seed}, batch {number}"
                    );
                }
            }
        };
        host.world().run(LIMIT, test).unwrap();
    }
}

/// A flush covers what was written before it began, and nothing that was written meanwhile.
#[test]
fn flush_covers_what_was_before() {
    let mut left = BTreeMap::new();
    for seed in 0..50 {
        let host = host(seed);
        let env = host.boot();
        let world = host.world().clone();
        let test = async {
            let kv = env.kvs().open("store", &[ONE]).await.unwrap();
            put(&kv, "a");
            let meanwhile = async {
                world.sleep(Duration::from_micros(500)).await;
                put(&kv, "b");
            };
            let (flushed, ()) = tokio::join!(kv.flush(), meanwhile);
            flushed.unwrap();
            host.kill(Death::Power);
        };
        world.run(LIMIT, test).unwrap();
        *left.entry(keys(&host.kvs().forensic("store").unwrap())).or_insert(0) += 1;
    }
    println!("{left:?}");
    let found: Vec<&str> = left.keys().map(String::as_str).collect();
    assert_eq!(found, ["a", "a b"]);
}

/// What a killed process had not flushed is there, and a later power loss can still take it; what the
/// power loss left stays through the next one.
#[test]
fn unflushed_stays_unflushed() {
    let mut left = BTreeMap::new();
    for seed in 0..50 {
        let host = host(seed);
        let world = host.world().clone();
        let kill = async |death| {
            let env = host.boot();
            let kv = env.kvs().open("store", &[ONE]).await.unwrap();
            let found = keys(&kv);
            put(&kv, if found.is_empty() { "a" } else { "b" });
            host.kill(death);
        };
        world.run(LIMIT, kill(Death::Process)).unwrap();
        assert_eq!(keys(&host.kvs().forensic("store").unwrap()), "a", "seed {seed}");
        world.run(LIMIT, kill(Death::Power)).unwrap();
        let after = keys(&host.kvs().forensic("store").unwrap());
        let nothing = async {
            host.boot();
            host.kill(Death::Power);
        };
        world.run(LIMIT, nothing).unwrap();
        assert_eq!(keys(&host.kvs().forensic("store").unwrap()), after, "seed {seed}");
        *left.entry(after).or_insert(0) += 1;
    }
    println!("{left:?}");
    let found: Vec<&str> = left.keys().map(String::as_str).collect();
    assert_eq!(found, ["", "a", "a b"]);
}
