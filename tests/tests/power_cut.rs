//! The log of a disk on real file systems, with the power cut at any moment: `CADOLE_POWER_CUTS` of each kind.

// A panic is how a test fails; real files and clocks are what is tested here.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use env::{Disk, Kv, Priority};
use node::store::{NewShard, ShardStore, StoreError, survey};
use os::disk::EngineChoice;
use proto::{Epoch, TenantTag};
use tests::Random;
use tests::block::{
    Change, Cut, Cutter, Event, FileSystem, Image, Mounted, Promises, Recorder, Trace, Version, content,
    isolated, keep,
};
use tests::log_disk::{LogDisk, Store, name};
use tokio::runtime::Runtime;

const SEED: u64 = 4;
/// Nothing but what was written takes memory.
const DEVICE_BYTES: u64 = 320 << 20;
/// Long enough for much to be written meanwhile.
const FLUSH: Duration = Duration::from_millis(1);
const WRITERS: u64 = 16;
/// Shards that a writer puts and deletes in turn, about half of which are there at any time.
const SHARDS: u64 = 6;
const CHANGES: u64 = 120;
/// A few times more is written, so that the log goes around.
const LIMIT_BYTES: u64 = 12 << 20;
const SEGMENT_BYTES: u64 = 512 << 10;
/// Put after a cut, to see that it goes on.
const AFTERWARDS: u64 = 1_000_000;

/// What is wrong after a cut.
enum Finding {
    /// A shard was acknowledged and is not there.
    Lost(String),
    /// What was deleted is there.
    Back(String),
    /// Something is not as it was written.
    Damaged(String),
    /// It cannot be mounted, opened or used.
    Unusable(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, told) = match self {
            Self::Lost(told) => ("lost", told),
            Self::Back(told) => ("back", told),
            Self::Damaged(told) => ("damaged", told),
            Self::Unusable(told) => ("unusable", told),
        };
        write!(f, "{what}: {told}")
    }
}

/// What was done until the power failed.
struct Recording {
    trace: Trace,
    promises: Promises,
}

/// One look at what a cut left.
struct Look<'a> {
    promises: &'a Promises,
    /// The position of the cut.
    at: usize,
    findings: Vec<Finding>,
}

fn log_disk(engine: EngineChoice) -> LogDisk {
    LogDisk { engine, segment_bytes: SEGMENT_BYTES, limit_bytes: LIMIT_BYTES }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Formats a disk, puts and deletes, and records what the device sees of it.
fn record(file_system: FileSystem, engine: EngineChoice) -> Recording {
    let image = file_system.fresh(DEVICE_BYTES).expect("a file system");
    let mounted = Mounted::new(image, FLUSH, file_system).expect("mounted");
    let promises = Arc::new(Promises::default());
    let trace = runtime().block_on(async {
        let (store, writer) = log_disk(engine).open(mounted.path()).await.expect("a store");
        let work = |writer| tokio::spawn(change(store.clone(), promises.clone(), mounted.recorder(), writer));
        for done in futures_util::future::join_all((0..WRITERS).map(work)).await {
            done.expect("a writer");
        }
        let trace = mounted.trace();
        eprintln!("{}, {}", file_system.name(), store.report().await.engine);
        drop(store);
        writer.await.expect("the writer ends");
        trace
    });
    mounted.unmount().expect("unmounted");
    let promises = Arc::into_inner(promises).expect("the writers have ended");
    let acknowledged = promises.acknowledgements();
    eprintln!(
        "{} changes acknowledged, {} MB written in {} calls, {} flushes",
        acknowledged.len(),
        trace.written_bytes() / 1_000_000,
        trace.end() - trace.flushes().len(),
        trace.flushes().len()
    );
    assert_eq!(acknowledged.len() as u64, WRITERS * CHANGES);
    assert!(trace.written_bytes() > 3 * LIMIT_BYTES, "the log does not go around");
    Recording { trace, promises }
}

async fn change(store: Store, promises: Arc<Promises>, recorder: Recorder, writer: u64) {
    let mut random = Random::new(SEED + writer);
    let mut there: BTreeMap<u64, Version> = BTreeMap::new();
    for version in 0..CHANGES {
        // Some more often than others, so that old and young lie side by side.
        let number = writer * SHARDS + random.below(SHARDS).min(random.below(SHARDS));
        let now = there.entry(number).or_default();
        let began = recorder.position();
        *now = match now {
            Some(_) => {
                store.delete(name(number)).await.expect("deleted");
                None
            }
            None => {
                put(&store, number, version).await.expect("put");
                Some(version)
            }
        };
        promises.add(number, Change { to: *now, began, acked: recorder.position() });
    }
}

async fn put(store: &Store, number: u64, version: u64) -> Result<(), StoreError> {
    let bytes = content(number, version).bytes();
    let mut shard = NewShard::new(name(number), Epoch(1), TenantTag(1), bytes.len())?;
    shard.push(&bytes)?;
    store.put(shard.seal()?, Priority::Client).await.map(|_| ())
}

impl Look<'_> {
    /// Compares what a store has with what was promised, and says what it has.
    async fn compare<D: Disk, K: Kv>(&mut self, store: &ShardStore<D, K>) -> BTreeMap<u64, Version> {
        let mut there = BTreeMap::new();
        for number in self.promises.numbers() {
            let allowed = self.promises.allowed(number, self.at);
            let told = format!("shard {number}, which may be {allowed:?} at {}", self.at);
            let found = match store.read(name(number), 0, 0, Priority::Client).await {
                Ok(read) => {
                    let is = |version: u64| content(number, version).difference(&read.bytes).is_none();
                    let all = self.promises.of(number).into_iter().filter_map(|change| change.to);
                    let Some(version) = all.into_iter().find(|version| is(*version)) else {
                        self.findings.push(Finding::Damaged(format!("{told}: wrong bytes")));
                        continue;
                    };
                    if !allowed.contains(&Some(version)) {
                        self.findings.push(Finding::Back(format!("{told}: it is version {version}")));
                    }
                    Some(version)
                }
                Err(StoreError::NoSuchShard(_)) => {
                    if !allowed.contains(&None) {
                        self.findings.push(Finding::Lost(told));
                    }
                    None
                }
                Err(error) => {
                    self.findings.push(Finding::Damaged(format!("{told}: {error}")));
                    continue;
                }
            };
            there.insert(number, found);
        }
        let damaged = store.report().await.damaged_blocks;
        if damaged > 0 {
            self.findings
                .push(Finding::Damaged(format!("{damaged} blocks or records are counted as damaged")));
        }
        there
    }

    /// The log alone, without an index and without a change. Its end may be torn unless something was written since.
    async fn survey(
        &mut self,
        disk: &LogDisk,
        dir: &Path,
        may_be_torn: bool,
    ) -> Result<(BTreeMap<u64, Version>, u64), String> {
        let evidence = survey::open(disk.disk(dir).await?).await.map_err(|error| error.to_string())?;
        let there = self.compare(&evidence).await;
        let damage = evidence.log_damage(|| ()).await.map_err(|error| error.to_string())?;
        for damage in damage.into_iter().filter(|damage| !(damage.is_torn_end && may_be_torn)) {
            self.findings.push(Finding::Damaged(format!("the log is damaged: {damage:?}")));
        }
        Ok((there, evidence.used_bytes()))
    }

    /// As a node does at its start; then goes on writing, and looks at the log once more.
    async fn open(&mut self, disk: &LogDisk, dir: &Path) -> Result<(), String> {
        if dir.join("disk/superblock").exists() {
            self.survey(disk, dir, true).await?;
        }
        let (store, writer) = disk.open(dir).await?;
        let there = self.compare(&store).await;
        put(&store, AFTERWARDS, 0).await.map_err(|error| error.to_string())?;
        let used_bytes = store.used_bytes();
        drop(store);
        writer.await.map_err(|error| error.to_string())?;
        let (in_log, in_log_bytes) = self.survey(disk, dir, false).await?;
        if (&there, used_bytes) != (&in_log, in_log_bytes) {
            let told = format!("index and log disagree: {used_bytes} and {in_log_bytes} bytes");
            self.findings.push(Finding::Damaged(told));
        }
        for entry in std::fs::read_dir(dir.join("disk")).map_err(|error| error.to_string())?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("foreign-") {
                self.findings.push(Finding::Damaged(format!("{:?} was put aside", entry.file_name())));
            }
        }
        Ok(())
    }
}

/// Starts a machine with this image after a cut at this position: what is wrong, and what it did to the device.
fn examine(
    image: Image,
    (file_system, engine): (FileSystem, EngineChoice),
    (promises, at): (&Promises, usize),
    is_index_lost: bool,
) -> (Vec<Finding>, Option<Trace>) {
    let mounted = match Mounted::new(image, Duration::ZERO, file_system) {
        Ok(mounted) => mounted,
        Err(error) => return (vec![Finding::Unusable(error)], None),
    };
    if is_index_lost && mounted.path().join("data").exists() {
        std::fs::remove_dir_all(mounted.path().join("data")).expect("removed");
    }
    let mut look = Look { promises, at, findings: Vec::new() };
    if let Err(error) = runtime().block_on(look.open(&log_disk(engine), mounted.path())) {
        look.findings.push(Finding::Unusable(error));
    }
    let trace = mounted.trace();
    mounted.unmount().expect("unmounted");
    (look.findings, Some(trace))
}

/// Any position, those just before a flush ends, and those of acknowledgements; in order.
fn positions(recording: &Recording, random: &mut Random) -> Vec<usize> {
    let each = std::env::var("CADOLE_POWER_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let (flushes, acknowledged) = (recording.trace.flushes(), recording.promises.acknowledgements());
    let mut all = Vec::new();
    for _ in 0..each {
        all.push(below(random, recording.trace.end() + 1));
        all.push(flushes[below(random, flushes.len())]);
        all.push(acknowledged[below(random, acknowledged.len())]);
    }
    all.sort_unstable();
    all
}

fn below(random: &mut Random, end: usize) -> usize {
    usize::try_from(random.below(end as u64)).expect("a position")
}

/// A cut on an honest disk.
fn cut(at: usize, trace: &Trace, file_system: FileSystem, random: &mut Random) -> Cut {
    let kept_percent = [0, 10, 50, 90, 100][below(random, 5)];
    let sectors = file_system.sectors_bytes();
    let sector_bytes = sectors[below(random, sectors.len())];
    Cut { at, lies_from: trace.end(), kept_percent, sector_bytes }
}

/// Cuts the power at many positions, and for some a second time while the machine starts again.
fn survive(test: &str, file_system: FileSystem, engine: EngineChoice) {
    if !isolated(test, file_system) {
        return;
    }
    let machine = (file_system, engine);
    let recording = record(file_system, engine);
    let (trace, promises) = (&recording.trace, &recording.promises);
    let mut random = Random::new(SEED);
    let mut cutter = Cutter::new(trace);
    let (mut cuts, mut unflushed) = (0, 0);
    for (round, at) in positions(&recording, &mut random).into_iter().enumerate() {
        let first = cut(at, trace, file_system, &mut random);
        let image = cutter.image(&first, &mut random);
        let is_index_lost = round % 4 == 3;
        let (findings, started) = examine(image.clone(), machine, (promises, at), is_index_lost);
        let told = format!("cut {round}: {first:?}, index lost: {is_index_lost}");
        expect_none(test, &told, &findings, &image);
        (cuts, unflushed) = (cuts + 1, unflushed + at - trace.durable(&first));
        if round % 4 < 2
            && let Some(started) = started
        {
            let at_start = below(&mut random, started.end() + 1);
            let second = cut(at_start, &started, file_system, &mut random);
            let image = Cutter::new(&started).image(&second, &mut random);
            let (findings, _) = examine(image.clone(), machine, (promises, at), false);
            expect_none(test, &format!("{told}, then {second:?}"), &findings, &image);
            cuts += 1;
        }
    }
    eprintln!("{cuts} cuts survived; {unflushed} calls were not durable");
}

fn expect_none(test: &str, told: &str, findings: &[Finding], image: &Image) {
    if !findings.is_empty() {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.img"));
        let kept = keep(image, &path).map_or_else(|error| error.to_string(), |()| path.display().to_string());
        let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
        panic!("{told}\n{}\nthe device's image: {kept}", findings.join("\n"));
    }
}

/// Whenever the power fails: what was acknowledged is there byte for byte, what was deleted is not, nothing counts as
/// damaged, and the store goes on; with the index as it is found, and without. On ext4, with io_uring.
#[test]
fn ext4_and_io_uring() {
    survive("ext4_and_io_uring", FileSystem::Ext4, EngineChoice::Best);
}

/// The same with calls that wait.
#[test]
fn ext4_and_threads() {
    survive("ext4_and_threads", FileSystem::Ext4, EngineChoice::Threads);
}

/// The same on xfs.
#[test]
fn xfs_and_io_uring() {
    survive("xfs_and_io_uring", FileSystem::Xfs, EngineChoice::Best);
}

/// A disk that says that it flushed and did not is found out, whether all is lost that it had to keep or a part of it:
/// these tests can fail.
#[test]
fn lying_disk_is_found() {
    if !isolated("lying_disk_is_found", FileSystem::Ext4) {
        return;
    }
    let machine = (FileSystem::Ext4, EngineChoice::Best);
    let recording = record(machine.0, machine.1);
    let (trace, promises) = (&recording.trace, &recording.promises);
    let acknowledged = promises.acknowledgements();
    let mut random = Random::new(SEED);
    let mut cutter = Cutter::new(trace);
    let (mut lost, mut back) = (0, 0);
    for round in 0..12 {
        let since = acknowledged.len() / 13 * (round + 1);
        let (lies_from, at) = (acknowledged[since], acknowledged[since + 60]);
        let kept_percent = if round % 2 == 0 { 0 } else { 50 };
        let cut = Cut { at, lies_from, kept_percent, sector_bytes: 4096 };
        let image = cutter.image(&cut, &mut random);
        let (findings, _) = examine(image, machine, (promises, at), false);
        assert!(!findings.is_empty(), "not found: {cut:?}");
        lost += findings.iter().filter(|finding| matches!(finding, Finding::Lost(_))).count();
        back += findings.iter().filter(|finding| matches!(finding, Finding::Back(_))).count();
    }
    eprintln!("{lost} shards were lost and {back} came back");
    assert!(lost > 0 && back > 0, "{lost} lost, {back} back");
}

/// What a cut leaves: all that was flushed; of what came later nothing, all, or some sectors; nothing of what lies are
/// told of.
#[test]
fn a_cut_leaves_what_was_flushed() {
    let write = |page: u64, byte: u8| Event::Write { offset: page * 4096, data: vec![byte; 8192].into() };
    // The flush began before the second write.
    let events = vec![write(1, 1), write(3, 2), Event::Flush { begun: 1 }, write(5, 3), write(7, 4)];
    let trace = Trace::new(Image::new(1 << 20), events);
    let mut random = Random::new(1);
    let mut left = |at, lies_from, kept_percent| {
        let cut = Cut { at, lies_from, kept_percent, sector_bytes: 512 };
        let image = Cutter::new(&trace).image(&cut, &mut random);
        (trace.durable(&cut), [1, 3, 5, 7].map(|page| image.read(page * 4096, 8192)))
    };
    let (durable, pages) = left(4, 5, 0);
    assert_eq!((durable, pages.map(|page| page[0])), (1, [1, 0, 0, 0]));
    let (durable, pages) = left(2, 5, 0);
    assert_eq!((durable, pages.map(|page| page[0])), (0, [0, 0, 0, 0]), "the flush has not ended");
    let (durable, pages) = left(5, 2, 0);
    assert_eq!((durable, pages.map(|page| page[0])), (0, [0, 0, 0, 0]), "the flush is a lie");
    let (mut whole, mut torn) = (0, 0);
    for _ in 0..40 {
        let (_, [first, _, third, fourth]) = left(4, 5, 100);
        assert!(first.iter().all(|byte| *byte == 1), "what is durable is not torn");
        assert!(fourth.iter().all(|byte| *byte == 0), "it came after the cut");
        assert!(third.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        let there = third.iter().filter(|byte| **byte == 3).count();
        (whole, torn) = (whole + usize::from(there == 8192), torn + usize::from(there < 8192));
    }
    assert!(whole > 5 && torn > 2, "{whole} whole, {torn} torn");
}
