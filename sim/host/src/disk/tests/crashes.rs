//! Power losses against a model of what the contract allows.
//!
//! Random operations on a few files, some under way when the power goes. The model knows for each sector
//! and each name which states a crash may leave: the one that was flushed last and all later ones. Every
//! sector carries the number of its write, so what is found tells where it comes from.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::disk::names::FileNumber;
use crate::host::Death;
use crate::rng::Stream;

const PAGES: u64 = 6;
const SECTOR: usize = 512;
const SECTORS: usize = ALIGN_BYTES / SECTOR;

/// The states that a thing had since its last flush, the flushed one first.
#[derive(Clone)]
struct States<T>(Vec<T>);

impl<T: Copy + PartialEq> States<T> {
    fn last(&self) -> T {
        *self.0.last().unwrap()
    }

    fn flushed(&mut self) {
        self.0 = vec![self.last()];
    }
}

#[derive(Default)]
struct Model {
    names: BTreeMap<FileName, States<Option<FileNumber>>>,
    /// By file and sector: numbers of writes; 0 is zeros.
    sectors: BTreeMap<(FileNumber, usize), States<u64>>,
    /// Files that had a name since the last flush of names without a break.
    safe: BTreeSet<FileNumber>,
}

impl Model {
    fn set_name(&mut self, name: &FileName, file: Option<FileNumber>) {
        self.names.entry(name.clone()).or_insert(States(vec![None])).0.push(file);
    }

    fn named(&self) -> BTreeMap<FileName, FileNumber> {
        self.names.iter().filter_map(|(name, states)| Some((name.clone(), states.last()?))).collect()
    }

    fn names_flushed(&mut self) {
        self.names.values_mut().for_each(States::flushed);
        self.safe = self.named().into_values().collect();
    }
}

struct Run<'a> {
    random: &'a Stream,
    device: &'a DiskDevice,
    disk: SimDisk,
    files: BTreeMap<FileNumber, SimFile>,
    model: Model,
    writes: u64,
}

fn stamped(count: usize, write: u64) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(count * ALIGN_BYTES);
    buf.as_mut_slice().chunks_mut(8).for_each(|word| word.copy_from_slice(&write.to_le_bytes()));
    buf
}

/// The number of the write of each sector; a sector of two writes has none.
fn stamps(content: &[u8]) -> Vec<u64> {
    let stamp = |sector: &[u8]| {
        let first = &sector[..8];
        assert!(sector.chunks(8).all(|word| word == first), "a sector is torn");
        u64::from_le_bytes(first.try_into().unwrap())
    };
    content.chunks(SECTOR).map(stamp).collect()
}

impl Run<'_> {
    fn number(&self, name: &FileName) -> Option<FileNumber> {
        self.device.with(|state| state.names.get(name))
    }

    async fn create(&mut self, name: &FileName) {
        if self.number(name).is_some() {
            return;
        }
        let file = self.disk.create(name, PAGES * PAGE).await.unwrap();
        let number = self.number(name).unwrap();
        self.model.set_name(name, Some(number));
        self.files.insert(number, file);
    }

    async fn rename(&mut self, from: &FileName, to: &FileName) {
        let Some(number) = self.number(from).filter(|_| from != to) else { return };
        if let Some(replaced) = self.number(to) {
            self.model.safe.remove(&replaced);
        }
        self.disk.rename(from, to).await.unwrap();
        self.model.set_name(from, None);
        self.model.set_name(to, Some(number));
    }

    async fn remove(&mut self, name: &FileName) {
        let Some(number) = self.number(name) else { return };
        self.model.safe.remove(&number);
        self.disk.remove(name).await.unwrap();
        self.model.set_name(name, None);
    }

    async fn write(&mut self, number: FileNumber) {
        self.writes += 1;
        let first = self.random.below(PAGES);
        let count = usize::try_from(self.random.between(1, PAGES - first)).unwrap();
        write(&self.files[&number], first, stamped(count, self.writes)).await.unwrap();
        let from = usize::try_from(first).unwrap() * SECTORS;
        for sector in from..from + count * SECTORS {
            self.model.sectors.entry((number, sector)).or_insert(States(vec![0])).0.push(self.writes);
        }
    }

    /// Half of the flushes have a write beside them, which they do not cover.
    async fn flush(&mut self, number: FileNumber) {
        let file = self.files[&number].clone();
        if self.random.chance(500_000) {
            file.flush().await.unwrap();
            self.flushed(number);
            return;
        }
        self.flushed(number);
        let (flushed, ()) = tokio::join!(biased; file.flush(), self.write(number));
        flushed.unwrap();
    }

    fn flushed(&mut self, number: FileNumber) {
        self.model.sectors.range_mut((number, 0)..(number + 1, 0)).for_each(|(_, states)| states.flushed());
    }

    async fn step(&mut self, names: &[FileName]) {
        let name = self.random.pick(names).unwrap().clone();
        let numbers: Vec<FileNumber> = self.files.keys().copied().collect();
        match (self.random.below(14), self.random.pick(&numbers).copied()) {
            (0..2, _) => self.create(&name).await,
            (2..4, _) => self.rename(&name, self.random.pick(names).unwrap()).await,
            (4, _) => self.remove(&name).await,
            (5, _) => {
                self.disk.flush_names().await.unwrap();
                self.model.names_flushed();
            }
            (6..11, Some(number)) => self.write(number).await,
            (11.., Some(number)) => self.flush(number).await,
            _ => {}
        }
    }
}

/// What was found is allowed; how many sectors and names are not the last that were written.
async fn check(case: &str, model: &Model, device: &DiskDevice, disk: &SimDisk) -> [usize; 2] {
    let found: BTreeMap<FileName, FileNumber> =
        device.with(|state| state.names.list().map(|(name, file)| (name.clone(), file)).collect());
    assert_eq!(disk.list().await.unwrap(), found.keys().cloned().collect::<Vec<_>>(), "{case}");
    for (name, states) in &model.names {
        let there = found.get(name).copied();
        assert!(states.0.contains(&there), "{case}: {name} is {there:?}, may be {:?}", states.0);
    }
    let files: BTreeSet<FileNumber> = found.values().copied().collect();
    assert_eq!(files.len(), found.len(), "{case}: a file has two names: {found:?}");
    let vanished: Vec<_> = model.safe.difference(&files).collect();
    assert!(vanished.is_empty(), "{case}: files {vanished:?} vanished, there is {found:?}");
    let mut lost = [0, usize::from(found != model.named())];
    for (name, number) in &found {
        let file = disk.open(name).await.unwrap();
        let mut content = Vec::new();
        for at in 0..PAGES {
            content.extend(read(&file, at).await.unwrap());
        }
        // A length that was never flushed may be lost, and with it what lies beyond.
        content.resize(usize::try_from(PAGES).unwrap() * ALIGN_BYTES, 0);
        for (sector, stamp) in stamps(&content).into_iter().enumerate() {
            let states = model.sectors.get(&(*number, sector)).map_or(&[0][..], |states| &states.0);
            assert!(
                states.contains(&stamp),
                "{case}: {name}, sector {sector} is of {stamp}, may be {states:?}"
            );
            lost[0] += usize::from(states.last() != Some(&stamp));
        }
    }
    lost
}

/// After any crash each name and each sector is in a state that it had since its last flush; no file
/// vanishes that was neither replaced nor removed; the space adds up; and crashes do lose something.
#[test]
fn crashes_leave_what_the_contract_allows() {
    let names: Vec<FileName> = ["a", "b", "c", "d"].map(name).into();
    let mut lossy = [0, 0];
    for seed in 0..400 {
        let (world, host, device) = machine(seed, Schedule::Random);
        let random = world.stream("test");
        let test = async {
            let disk = open(&host.boot()).await;
            let mut run = Run {
                random: &random,
                device: &device,
                disk,
                files: BTreeMap::new(),
                model: Model::default(),
                writes: 0,
            };
            let mut losses = [0, 0];
            for life in 0..4 {
                for _ in 0..random.below(40) {
                    run.step(&names).await;
                }
                host.kill(Death::Power);
                run.files.clear();
                run.disk = open(&host.boot()).await;
                let case = format!("seed {seed}, life {life}");
                let lost = check(&case, &run.model, &device, &run.disk).await;
                losses = [losses[0] + lost[0], losses[1] + lost[1]];
                begin_again(&mut run).await;
            }
            losses
        };
        let lost = world.run(LIMIT, test).unwrap();
        lossy = [0, 1].map(|kind| lossy[kind] + usize::from(lost[kind] > 0));
    }
    println!("of 400 runs {} lost content, {} names", lossy[0], lossy[1]);
    assert!(lossy.iter().all(|runs| *runs > 100), "{lossy:?}");
}

/// What was found is what there is, and durable; the space is that of the files.
async fn begin_again(run: &mut Run<'_>) {
    let mut model = Model::default();
    let mut bytes = 0;
    for name in run.disk.list().await.unwrap() {
        let number = run.number(&name).unwrap();
        let file = run.disk.open(&name).await.unwrap();
        bytes += file.size().await.unwrap();
        for at in 0..PAGES {
            for (sector, stamp) in stamps(&read(&file, at).await.unwrap()).into_iter().enumerate() {
                let sector = usize::try_from(at).unwrap() * SECTORS + sector;
                model.sectors.insert((number, sector), States(vec![stamp]));
            }
        }
        model.names.insert(name, States(vec![Some(number)]));
        model.safe.insert(number);
        run.files.insert(number, file);
    }
    let space = run.disk.space().await.unwrap();
    assert_eq!(space.capacity_bytes - space.available_bytes, bytes, "space in use");
    run.model = model;
}
