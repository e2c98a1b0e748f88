//! RocksDB and the simulator's model of it answer alike, and die alike.
//!
//! A history is a sequence of random steps, each a function of the seed and of its number. Both sides
//! take it; their answers and all that they hold are compared. For crashes the test runs itself again
//! as a child, which takes the history on RocksDB and says which step it has done, and kills it: what
//! is there afterwards must be what the model holds after such a death.
//!
//! A power loss is made from a killed process: of its log, what was written after the last flush is cut
//! off, zeroed, or zeroed sector by sector. That a flush reaches the disk at all cannot be seen so.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the real side of the seam")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use env::{Batch, Env, KeyRange, Kv, KvRead, Kvs, Order, Rng, Row, StorageError, StorageErrorKind, Table};
use os::kv::OsKvs;
use os::rng::OsRng;
use simhost::{Death, Host, SimKvs, Stream, World, WorldOptions};
use tokio::runtime::Runtime;

const TABLES: [Table; 2] = ["left", "right"];
const STORE: &str = "store";
const COPIES: [&str; 3] = ["copy-a", "copy-b", "copy-c"];
const SECTOR: u64 = 512;
/// No step of the model takes that long.
const LIMIT: Duration = Duration::from_secs(60);

const DIRECTORY: &str = "CADOLE_KV_MODEL_DIRECTORY";
const SEED: &str = "CADOLE_KV_MODEL_SEED";
const FROM: &str = "CADOLE_KV_MODEL_FROM";

/// What a history does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mix {
    /// Everything.
    All,
    /// Nothing that puts RocksDB's batches anywhere but at the end of one log.
    Log,
}

#[derive(Debug)]
enum Step {
    Write(Batch),
    Flush,
    Get(Table, Vec<u8>),
    Scan(Table, KeyRange, Order, usize),
    Reopen,
    Checkpoint(&'static str),
    Remove(&'static str),
    List,
    /// Opens a store, new or old, writes to it, and closes it.
    WriteTo(&'static str, Batch),
    Open(&'static str),
}

/// What a step was answered.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Value(Option<Bytes>),
    Rows(Vec<Row>),
    Names(Vec<String>),
    Refused(StorageErrorKind),
}

/// All rows of all tables of all stores.
type State = BTreeMap<String, Vec<Vec<Row>>>;

fn key(stream: &Stream) -> Vec<u8> {
    (0..stream.below(4)).map(|_| [0, b'a', b'b', 0xff][stream.index(4)]).collect()
}

fn range(stream: &Stream) -> KeyRange {
    match stream.below(5) {
        0 => KeyRange::prefix(&key(stream)),
        1 => KeyRange { start: key(stream), end: None },
        2 => KeyRange::prefix(&key(stream)).after(&key(stream)),
        3 => KeyRange::all(),
        _ => KeyRange { start: key(stream), end: Some(key(stream)) },
    }
}

/// Mostly a table that there is.
fn table(stream: &Stream) -> Table {
    if stream.chance(10_000) { "neither" } else { TABLES[stream.index(2)] }
}

fn batch(stream: &Stream) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..stream.below(10) {
        let table = table(stream);
        match stream.below(12) {
            0 => batch.delete_range(table, range(stream)),
            1 | 2 => batch.delete(table, key(stream)),
            long => {
                let bytes = if long == 3 { stream.skewed(0, 20_000) } else { stream.below(20) };
                let mut value = vec![0; usize::try_from(bytes).unwrap()];
                stream.fill(&mut value);
                batch.put(table, key(stream), value);
            }
        }
    }
    batch
}

impl Step {
    /// Step `number` of a history.
    fn new(seed: u64, number: u64, mix: Mix) -> Self {
        let stream = Stream::new(seed).fork(&number.to_string());
        let steps = if mix == Mix::All { 100 } else { 80 };
        match stream.below(steps) {
            0..50 => Self::Write(batch(&stream)),
            50..60 => Self::Get(table(&stream), key(&stream)),
            60..74 => {
                let order = [Order::Ascending, Order::Descending][stream.index(2)];
                let limit = [0, 1, 3, usize::MAX][stream.index(4)];
                Self::Scan(table(&stream), range(&stream), order, limit)
            }
            74..80 => Self::Flush,
            80..83 => Self::Reopen,
            83..87 => Self::Checkpoint([COPIES[0], COPIES[1], COPIES[2], STORE, "No"][stream.index(5)]),
            87..91 => Self::Remove([COPIES[0], COPIES[1], COPIES[2], STORE, "no/"][stream.index(5)]),
            91..94 => Self::WriteTo(COPIES[stream.index(3)], batch(&stream)),
            94..97 => Self::List,
            _ => Self::Open([STORE, "", COPIES[0]][stream.index(3)]),
        }
    }
}

/// The stores of one side, with the main one open or not.
struct Side<K: Kvs> {
    kvs: K,
    kv: Option<K::Kv>,
}

impl<K: Kvs> Side<K> {
    fn new(kvs: K) -> Self {
        Self { kvs, kv: None }
    }

    async fn kv(&mut self) -> K::Kv {
        if self.kv.is_none() {
            self.kv = Some(self.kvs.open(STORE, &TABLES).await.expect("the store opens"));
        }
        self.kv.clone().unwrap()
    }

    async fn take(&mut self, step: Step) -> Answer {
        self.try_take(step).await.unwrap_or_else(|error| Answer::Refused(error.kind()))
    }

    async fn try_take(&mut self, step: Step) -> Result<Answer, StorageError> {
        let kv = self.kv().await;
        match step {
            Step::Write(batch) => kv.write(batch)?,
            Step::Flush => kv.flush().await?,
            Step::Get(table, key) => return Ok(Answer::Value(kv.get(table, &key)?)),
            Step::Scan(table, range, order, limit) => {
                return Ok(Answer::Rows(kv.scan(table, &range, order, limit)?));
            }
            Step::Reopen => {
                self.kv = None;
                drop(kv);
                self.kv().await;
            }
            Step::Checkpoint(name) => kv.checkpoint(name).await?,
            Step::Remove(name) => self.kvs.remove(name).await?,
            Step::List => return Ok(Answer::Names(self.kvs.list().await?)),
            Step::WriteTo(name, batch) => self.kvs.open(name, &TABLES).await?.write(batch)?,
            Step::Open(name) => drop(self.kvs.open(name, &TABLES).await?),
        }
        Ok(Answer::Done)
    }

    /// All that is there. The main store is closed for it.
    async fn state(&mut self) -> State {
        self.kv = None;
        let mut state = State::new();
        for name in self.kvs.list().await.expect("a list") {
            let kv = self.kvs.open(&name, &TABLES).await.expect("what is listed opens");
            let all = |table| kv.scan(table, &KeyRange::all(), Order::Ascending, usize::MAX).expect("a scan");
            state.insert(name, TABLES.map(all).to_vec());
        }
        state
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn real(directory: &Path) -> Side<OsKvs> {
    Side::new(OsKvs::new(Some(directory.to_owned())))
}

/// The model, and how far it has come in the history.
struct Model {
    world: World,
    host: Host,
    side: Side<SimKvs>,
    seed: u64,
    mix: Mix,
    steps: u64,
}

impl Model {
    fn new(seed: u64, mix: Mix) -> Self {
        let world = World::new(WorldOptions::new(seed));
        let host = world.add_host("model", "node/1".parse().unwrap());
        let side = Side::new(host.boot().kvs().clone());
        Self { world, host, side, seed, mix, steps: 0 }
    }

    /// Takes the next step.
    fn next(&mut self) -> Answer {
        let step = Step::new(self.seed, self.steps, self.mix);
        self.steps += 1;
        self.world.run(LIMIT, self.side.take(step)).unwrap()
    }

    fn state(&mut self) -> State {
        self.world.run(LIMIT, self.side.state()).unwrap()
    }

    /// The model as it is after these steps, with the deaths that it died meanwhile.
    fn replayed(seed: u64, mix: Mix, deaths: &[DeathAt], steps: u64) -> Self {
        let mut model = Self::new(seed, mix);
        while model.steps < steps {
            match deaths.iter().find(|death| death.step == model.steps) {
                Some(death) => drop(model.die_in_step(*death)),
                None => drop(model.next()),
            }
        }
        model
    }

    /// Takes the next step, in which the model's process is killed, and another one comes; false when
    /// the step was at its end before.
    fn die_in_step(&mut self, death: DeathAt) -> bool {
        let step = Step::new(self.seed, self.steps, self.mix);
        self.steps += 1;
        self.host.doom(death.operations, Death::Process, death.after);
        // A dead process's step may wait for ever: the world finds that nobody goes on.
        drop(self.world.run(LIMIT, self.side.take(step)));
        let died = !self.host.is_alive();
        self.host.kill(Death::Process);
        self.side = Side::new(self.host.boot().kvs().clone());
        died
    }
}

/// Where a process dies: in this step, just before or after so many operations of the store.
#[derive(Clone, Copy, Debug)]
struct DeathAt {
    step: u64,
    operations: u64,
    after: bool,
}

fn assert_same(real: &State, model: &State, case: &str) {
    let names = |state: &State| state.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(real), names(model), "{case}: stores");
    for (name, tables) in real {
        for (index, rows) in tables.iter().enumerate() {
            assert!(*rows == model[name][index], "{case}: {name}, {}", TABLES[index]);
        }
    }
}

/// Both sides answer each step of a random history alike, and hold the same at its end.
#[test]
fn same_answers() {
    let runtime = runtime();
    let fresh = OsRng::new().u64();
    for seed in [1, 2, 3, fresh] {
        println!("seed {seed}");
        let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut real = real(temporary.path());
        let mut model = Model::new(seed, Mix::All);
        for number in 0..600 {
            let step = Step::new(seed, number, Mix::All);
            let what = format!("seed {seed}, step {number}: {step:?}");
            let answer = runtime.block_on(real.take(step));
            assert_eq!(answer, model.next(), "{what}");
            if number % 50 == 49 {
                assert_same(&runtime.block_on(real.state()), &model.state(), &what);
            }
        }
    }
}

/// The child: takes steps on RocksDB until it is killed.
async fn take_steps(directory: &Path, mix: Mix) {
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (seed, mut step) = (number(SEED), number(FROM));
    let mut side = real(directory);
    side.kv().await;
    let log = directory.join(STORE);
    println!("synced {step} {}", last_log(&log).1);
    loop {
        let next = Step::new(seed, step, mix);
        let flushes = matches!(next, Step::Flush);
        side.take(next).await;
        step += 1;
        if flushes && mix == Mix::Log {
            println!("synced {step} {}", last_log(&log).1);
        }
        println!("done {step}");
    }
}

/// The log that a store writes to, and its length.
fn last_log(store: &Path) -> (PathBuf, u64) {
    let entries = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let log = entries.filter(|path| path.extension().is_some_and(|suffix| suffix == "log")).max().unwrap();
    let bytes = std::fs::metadata(&log).unwrap().len();
    (log, bytes)
}

/// What a child had said when it was killed.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// Steps done.
    done: u64,
    /// Steps done when it last flushed, or when it began.
    synced: u64,
    /// The length of the log then.
    synced_bytes: u64,
}

impl Said {
    fn read(&mut self, line: &str) {
        // The test harness may have begun the line.
        let numbers = |what| -> Option<Vec<u64>> {
            let (_, numbers) = line.split_once(what)?;
            Some(numbers.split(' ').map(|number| number.parse().unwrap()).collect())
        };
        if let Some(synced) = numbers("synced ") {
            (self.synced, self.synced_bytes) = (synced[0], synced[1]);
        } else if let Some(done) = numbers("done ") {
            self.done = done[0];
        }
    }
}

fn start_child(test: &str, directory: &Path, seed: u64, from: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, directory)
        .env(SEED, seed.to_string())
        .env(FROM, from.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Lets a child take a random number of steps and kills it. A line is one write of at most a few bytes,
/// so that none is torn.
fn run_and_kill(test: &str, directory: &Path, seed: u64, from: u64) -> Said {
    let mut child = start_child(test, directory, seed, from);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Said { done: from, synced: from, synced_bytes: 0 };
    let until = from + 1 + OsRng::new().below(250);
    while said.done < until {
        said.read(&lines.next().expect("the child ended by itself").unwrap());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    lines.map_while(Result::ok).for_each(|line| said.read(&line));
    said
}

/// Is this process a child? Then it lives as one.
fn lived_as_child(mix: Mix) -> bool {
    let directory = std::env::var_os(DIRECTORY);
    if let Some(directory) = &directory {
        runtime().block_on(take_steps(Path::new(directory), mix));
    }
    directory.is_some()
}

/// A process killed at any step leaves just what the model holds after a death in that step: all steps
/// that were done, flushed or not, and of the one under way as much as the model allows. The next
/// process goes on from there.
#[test]
fn killed_process() {
    if lived_as_child(Mix::All) {
        return;
    }
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let seed = OsRng::new().u64();
    let (mut deaths, mut from) = (Vec::new(), 0);
    for round in 0..8 {
        let said = run_and_kill("killed_process", temporary.path(), seed, from);
        let case = format!("seed {seed}, round {round}, {said:?}, deaths {deaths:?}");
        println!("{case}");
        let found = runtime().block_on(real(temporary.path()).state());
        deaths.push(matching_death(seed, &deaths, said.done, &found, &case));
        from = said.done + 1;
    }
}

/// The death in this step after which the model holds `found`. Without one the test fails.
fn matching_death(seed: u64, deaths: &[DeathAt], step: u64, found: &State, case: &str) -> DeathAt {
    for tried in 0.. {
        let death = DeathAt { step, operations: tried / 2, after: tried % 2 == 1 };
        let mut model = Model::replayed(seed, Mix::All, deaths, step);
        let died = model.die_in_step(death);
        let state = model.state();
        if state == *found {
            return death;
        }
        if !died {
            // The whole step is what can be told best from what was found.
            assert_same(found, &state, case);
        }
    }
    unreachable!("a step has an end")
}

/// What the log may be after a power loss, from what a killed process left.
fn lose_power(log: &Path, synced_bytes: u64, rng: &OsRng) -> String {
    let file = std::fs::OpenOptions::new().write(true).open(log).unwrap();
    let bytes = file.metadata().unwrap().len();
    let from = synced_bytes + rng.below(bytes - synced_bytes + 1);
    let zero = |start: u64, end: u64| {
        let zeros = vec![0; usize::try_from(end - start).unwrap()];
        (&file).seek(SeekFrom::Start(start)).unwrap();
        (&file).write_all(&zeros).unwrap();
    };
    match rng.below(3) {
        0 => {
            file.set_len(from).unwrap();
            format!("{bytes} bytes cut to {from}")
        }
        1 => {
            zero(from, bytes);
            format!("{bytes} bytes zeroed from {from}")
        }
        _ => {
            let (mut start, mut lost) = (synced_bytes, 0);
            while start < bytes {
                let end = bytes.min((start / SECTOR + 1) * SECTOR);
                if rng.below(4) == 0 {
                    zero(start, end);
                    lost += 1;
                }
                start = end;
            }
            format!("{lost} sectors of {bytes} bytes zeroed")
        }
    }
}

/// A power loss leaves a state that the model has: that after some step, none before the last flush.
#[test]
fn power_loss() {
    if lived_as_child(Mix::Log) {
        return;
    }
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let rng = OsRng::new();
    let seed = rng.u64();
    let mut from = 0;
    for round in 0..12 {
        let said = run_and_kill("power_loss", temporary.path(), seed, from);
        let (log, _) = last_log(&temporary.path().join(STORE));
        let lost = lose_power(&log, said.synced_bytes, &rng);
        let case = format!("seed {seed}, round {round}, {said:?}: {lost}");
        let found = runtime().block_on(real(temporary.path()).state());
        from = survived(seed, said, &found).unwrap_or_else(|| panic!("{case}: the state of no prefix"));
        println!("{case}, {from} steps survived");
    }
}

/// After which step, none before the last flush, the model holds `found`. That the model loses just
/// such prefixes when its own power goes is for its own tests.
fn survived(seed: u64, said: Said, found: &State) -> Option<u64> {
    let mut model = Model::replayed(seed, Mix::Log, &[], said.synced);
    // The step under way when the process was killed counts too.
    while model.steps <= said.done + 1 {
        if model.state() == *found {
            return Some(model.steps);
        }
        model.next();
    }
    None
}
