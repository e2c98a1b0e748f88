//! One simulated host with one disk, on which a store runs, dies and is opened again.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use env::{Batch, Disks, Env, KeyRange, Kv, KvRead, Kvs, Order, Spawn, Task};
use futures_util::future::join_all;
use proto::{ClusterId, DiskUuid, ExtentId, GroupId, Timestamp};
use simhost::kv::ForensicKv;
use simhost::{Death, Host, SimEnv, Story, TaskHandle, World, WorldOptions, lock};

use super::super::ShardStore;
use super::super::index::TABLES;
use super::acts::{Answer, Store};
use super::history::{Doom, Fate, Operation, When};
use super::plants::{Bug, Plant, PlantedDisk, PlantedKv};
use super::universe::{NAMES, group};
use crate::store::{Held, ShardStat, StoreError, StoreReport};
use crate::superblock::Superblock;

const PATH: &str = "/disk";
const INDEX: &str = "index";
/// Small, so that segments fill up and are used again.
const SEGMENT_BYTES: u64 = 256 << 10;
const SEGMENTS: u64 = 12;
const SUPERBLOCK: Superblock = Superblock {
    cluster: ClusterId(1),
    uuid: DiskUuid(2),
    created: Timestamp::ZERO,
    salt: 0x5a17_5a17,
    segment_bytes: SEGMENT_BYTES,
};
/// Steps whose index is remembered.
const SNAPSHOTS_MAX: usize = 12;
/// Shards on a page when everything is looked at.
const PAGE: usize = 3;

/// So much has room whatever else happened: each record may need a segment that is half empty then, and some
/// segments are spare.
pub(super) const ROOM_BYTES: u64 = (SEGMENTS - 4) * (SEGMENT_BYTES / 2 - 4096);

/// A store that is open.
struct Running {
    store: Store,
    writer: TaskHandle,
}

/// See the module.
pub(super) struct Machine {
    host: Host,
    plant: Plant,
    /// Of the last process, dead or alive.
    env: Option<SimEnv>,
    running: Option<Running>,
    /// The index as it was before each step, the last at the end.
    snapshots: VecDeque<ForensicKv>,
    /// Deaths to come, in their order.
    dooms: VecDeque<Doom>,
    /// The first of them is on its way.
    armed: bool,
    killer: Option<TaskHandle>,
}

/// All that a store says of itself.
pub(super) struct Look {
    /// A read of each name, whole.
    pub(super) reads: Vec<(Operation, Answer)>,
    /// What the pages of each group list, or why they cannot.
    pub(super) listed: Vec<(GroupId, Result<Vec<ShardStat>, String>)>,
    /// What is held of each group up to an extent.
    pub(super) held: Vec<(GroupId, ExtentId, Result<Vec<Held>, String>)>,
    pub(super) groups: Result<Vec<GroupId>, StoreError>,
    pub(super) used_bytes: u64,
    pub(super) report: StoreReport,
}

/// A world in which a machine stands.
pub(super) fn world(seed: u64, story: Story) -> World {
    World::new(WorldOptions { story, ..WorldOptions::new(seed) })
}

impl Machine {
    /// A machine with an empty disk, switched off.
    pub(super) fn new(world: &World, bug: Option<Bug>) -> Self {
        let host = world.add_host("a", "node/1".parse().unwrap());
        host.insert_disk(PATH, SEGMENTS * SEGMENT_BYTES);
        Self {
            host,
            plant: Plant::new(bug, SUPERBLOCK.realm()),
            env: None,
            running: None,
            snapshots: VecDeque::new(),
            dooms: VecDeque::new(),
            armed: false,
            killer: None,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.host.is_alive()
    }

    /// Deaths that have not come yet.
    pub(super) fn dooms(&self) -> usize {
        self.dooms.len()
    }

    /// Remembers what the index holds now.
    pub(super) fn remember(&mut self) {
        self.snapshots.extend(self.host.kvs().forensic(INDEX));
        if self.snapshots.len() > SNAPSHOTS_MAX {
            self.snapshots.pop_front();
        }
    }

    /// These deaths come from now on, and no others.
    pub(super) fn doom(&mut self, dooms: &[Doom]) {
        self.disarm();
        self.dooms = dooms.iter().copied().collect();
        if self.host.is_alive() {
            self.arm();
        }
    }

    fn arm(&mut self) {
        let Some(Doom { when, death, .. }) = self.dooms.front().copied().filter(|_| !self.armed) else {
            return;
        };
        self.armed = true;
        match when {
            When::Operations { count, after } => self.host.doom(count, death, after),
            When::Micros(micros) => {
                let host = self.host.clone();
                self.killer = Some(self.host.world().spawn("killer", async move {
                    host.world().sleep(Duration::from_micros(micros)).await;
                    host.kill(death);
                }));
            }
        }
    }

    fn disarm(&mut self) {
        self.host.doom(u64::MAX, Death::Process, false);
        if let Some(killer) = self.killer.take() {
            killer.abort();
        }
        self.armed = false;
    }

    /// The power fails, and no other death is to come.
    pub(super) fn lose_power(&mut self) {
        self.doom(&[]);
        self.host.kill(Death::Power);
    }

    /// What becomes of the index of a process that has died.
    fn fate(&mut self) -> Fate {
        self.running = None;
        self.killer = None;
        if !std::mem::take(&mut self.armed) {
            return Fate::Kept;
        }
        self.dooms.pop_front().map_or(Fate::Kept, |doom| doom.index)
    }

    /// Opens the store again after a death.
    pub(super) async fn reopen(&mut self) -> Result<(), String> {
        let fate = self.fate();
        self.open(fate).await
    }

    /// Opens the store with this index, and however often the host dies of it.
    pub(super) async fn open(&mut self, mut fate: Fate) -> Result<(), String> {
        loop {
            if !self.host.is_alive() {
                self.env = Some(self.host.boot());
            }
            match self.recover(fate).await {
                Some(Ok(running)) => {
                    self.running = Some(running);
                    return Ok(());
                }
                Some(Err(error)) => return Err(format!("the store cannot be opened: {error}")),
                None => fate = self.fate(),
            }
        }
    }

    async fn recover(&mut self, fate: Fate) -> Option<Result<Running, String>> {
        let env = self.env.clone()?;
        let kv = self.on_host(index(env.clone(), self.plant.clone(), self.snapshot(fate), fate)).await?;
        self.arm();
        self.plant.booted();
        let plant = self.plant.clone();
        self.on_host(async move { start(env, plant, kv?).await }).await
    }

    fn snapshot(&self, fate: Fate) -> Option<ForensicKv> {
        let Fate::Older(steps) = fate else { return None };
        self.snapshots.iter().nth_back(steps).or(self.snapshots.front()).cloned()
    }

    /// Closes the store: its writer ends, and whoever comes next can open it.
    pub(super) async fn close(&mut self) {
        if let Some(Running { store, writer }) = self.running.take() {
            drop(store);
            writer.join().await;
        }
    }

    /// Time passes.
    pub(super) async fn wait(&self, duration: Duration) {
        self.host.world().sleep(duration).await;
    }

    /// Asks for all at the same time. No answer of those that the host did not live to give.
    pub(super) async fn at_once(&self, operations: &[Operation]) -> Vec<Option<Answer>> {
        let ask = |operation: &Operation| {
            let (operation, store) = (operation.clone(), self.store());
            self.on_host(async move { Some(operation.perform(store?).await) })
        };
        join_all(operations.iter().map(ask)).await.into_iter().map(Option::flatten).collect()
    }

    /// Looks at everything; nothing when the host dies of it.
    pub(super) async fn look(&self) -> Option<Look> {
        let store = self.store()?;
        self.on_host(look(store)).await
    }

    fn store(&self) -> Option<Store> {
        self.running.as_ref().map(|running| running.store.clone())
    }

    /// The outcome of a task of the host; nothing when the host dies first.
    async fn on_host<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let env = self.env.as_ref().filter(|env| env.life().is_alive())?;
        let outcome = Arc::new(Mutex::new(None));
        let (life, place) = (env.life().clone(), outcome.clone());
        let task = env.spawn().spawn("model", async move {
            let value = work.await;
            // What a dead process says, nobody hears.
            if life.is_alive() {
                *lock(&place) = Some(value);
            }
        });
        task.join().await;
        lock(&outcome).take()
    }
}

/// Opens the index in the state that it is to have.
async fn index(
    env: SimEnv,
    plant: Plant,
    snapshot: Option<ForensicKv>,
    fate: Fate,
) -> Result<PlantedKv, String> {
    let kvs = env.kvs();
    let restored = async {
        if fate != Fate::Kept {
            kvs.remove(INDEX).await?;
        }
        let kv = kvs.open(INDEX, TABLES).await?;
        let Some(snapshot) = snapshot else { return Ok(kv) };
        let mut batch = Batch::new();
        for &table in TABLES {
            for (key, value) in snapshot.scan(table, &KeyRange::all(), Order::Ascending, usize::MAX)? {
                batch.put(table, key, value);
            }
        }
        kv.write(batch)?;
        kv.flush().await?;
        Ok(kv)
    };
    let kv = restored.await.map_err(|error: env::StorageError| format!("its index: {error}"));
    kv.map(|kv| PlantedKv::new(kv, plant))
}

async fn start(env: SimEnv, plant: Plant, kv: PlantedKv) -> Result<Running, String> {
    let disk = env.disks().open(PATH).await.map_err(|error| error.to_string())?;
    let disk = PlantedDisk::new(disk, plant.clone());
    let opened: Result<(Store, _), StoreError> = ShardStore::open(disk, kv, SUPERBLOCK, None).await;
    let (store, work) = opened.map_err(|error| error.to_string())?;
    plant.opened();
    Ok(Running { store, writer: env.spawn().spawn("log", work) })
}

async fn look(store: Store) -> Look {
    let mut reads = Vec::new();
    for name in 0..NAMES {
        let read = Operation::Read { name, first: 0, blocks: 0 };
        reads.push((read.clone(), read.perform(store.clone()).await));
    }
    let (mut listed, mut held) = (Vec::new(), Vec::new());
    for group in [group(0), group(1), GroupId(5)] {
        listed.push((group, list(&store, group).await));
        for through in [ExtentId(7), ExtentId(u128::MAX)] {
            held.push((group, through, hold(&store, group, through)));
        }
    }
    let (groups, used_bytes) = (store.groups(), store.used_bytes());
    let report = store.report().await;
    Look { reads, listed, held, groups, used_bytes, report }
}

/// All pages of a group.
async fn list(store: &Store, group: GroupId) -> Result<Vec<ShardStat>, String> {
    let mut all: Vec<ShardStat> = Vec::new();
    loop {
        let after = all.last().map(|stat| stat.name);
        let page = store.list(group, after, PAGE).await.map_err(|error| error.to_string())?;
        if page.shards.len() > PAGE || page.more && page.shards.len() < PAGE || all.len() > usize::from(NAMES)
        {
            return Err(format!("a page has {} shards, more: {}", page.shards.len(), page.more));
        }
        all.extend(page.shards);
        if !page.more {
            return Ok(all);
        }
    }
}

/// All pages of what is held of a group.
fn hold(store: &Store, group: GroupId, through: ExtentId) -> Result<Vec<Held>, String> {
    let mut all: Vec<Held> = Vec::new();
    loop {
        let after = all.last().map(|held| held.extent);
        let (page, more) = store.held(group, after, through, PAGE).map_err(|error| error.to_string())?;
        let shards: usize = page.iter().map(|held| held.stripes.len()).sum();
        if more && shards < PAGE || all.len() > usize::from(NAMES) {
            return Err(format!("a page holds {shards} shards, more: {more}"));
        }
        all.extend(page);
        if !more {
            return Ok(all);
        }
    }
}
