//! Hosts: what lives, dies and comes back, and what stays of it.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use env::Env;
use proto::Identity;

use crate::clock::{ClockState, SimClock};
use crate::disk::{DiskDevice, SimDisks};
use crate::kv::{KvDevice, SimKvs};
use crate::net::SimNet;
use crate::rng::Stream;
use crate::world::{Owner, Task, TaskHandle, World, lock};

/// A host; 0 is the world itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub u32);

/// How a host dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The process is killed: what it wrote is there, flushed or not.
    Process,
    /// The machine loses power: of what was not flushed anything may be gone.
    Power,
}

/// When a host dies of itself.
#[derive(Clone, Copy, Debug)]
struct Doom {
    /// Only operations of this name count; none for all.
    at: Option<&'static str>,
    /// Seam operations until then.
    operations: u64,
    death: Death,
    /// Whether the last operation takes effect.
    after: bool,
}

/// Parked tasks of a host that stands still.
type Parked = Option<Vec<Arc<Task>>>;

pub(crate) struct HostState {
    world: World,
    id: HostId,
    name: String,
    identity: Identity,
    life: AtomicU64,
    lives: AtomicU64,
    death: Mutex<Option<Death>>,
    power_failed: Mutex<Option<Duration>>,
    doom: Mutex<Option<Doom>>,
    operations: AtomicU64,
    parked: Mutex<Parked>,
    pub(crate) clock: Mutex<ClockState>,
    pub(crate) stream: Stream,
    disks: Mutex<BTreeMap<String, DiskDevice>>,
    kvs: KvDevice,
}

/// A machine: it has an address, a certificate, disks and stores, and runs one process at a time.
/// Clones are the same machine.
#[derive(Clone)]
pub struct Host(pub(crate) Arc<HostState>);

/// Marks the life number of a host that is down.
const DEAD: u64 = 0;

impl HostState {
    pub(crate) fn id(&self) -> HostId {
        self.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    pub(crate) fn is_life(&self, life: u64) -> bool {
        life != DEAD && self.life.load(Ordering::Relaxed) == life
    }

    pub(crate) fn is_paused(&self) -> bool {
        lock(&self.parked).is_some()
    }

    /// Keeps the task until the host goes on, if it stands still.
    pub(crate) fn park(&self, task: &Arc<Task>) -> bool {
        let mut parked = lock(&self.parked);
        let Some(tasks) = parked.as_mut() else { return false };
        tasks.push(task.clone());
        true
    }

    pub(crate) fn end_life(&self) -> u64 {
        lock(&self.doom).take();
        self.life.swap(DEAD, Ordering::Relaxed)
    }
}

impl World {
    /// A new machine, switched off. `name` is for people; hosts are numbered from 1 on.
    pub fn add_host(&self, name: &str, identity: Identity) -> Host {
        let mut hosts = lock(&self.0.hosts);
        let id = HostId(u32::try_from(hosts.len()).unwrap_or(u32::MAX).saturating_add(1));
        let stream = self.stream(name);
        let state = HostState {
            world: self.clone(),
            id,
            name: name.to_owned(),
            identity,
            life: AtomicU64::new(DEAD),
            lives: AtomicU64::new(0),
            death: Mutex::new(None),
            power_failed: Mutex::new(None),
            doom: Mutex::new(None),
            operations: AtomicU64::new(0),
            parked: Mutex::new(None),
            clock: Mutex::new(ClockState::default()),
            kvs: KvDevice::new(stream.fork("kv")),
            disks: Mutex::default(),
            stream,
        };
        let state = Arc::new(state);
        hosts.push(state.clone());
        Host(state)
    }
}

impl Host {
    /// Its number.
    pub fn id(&self) -> HostId {
        self.0.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The name of its address: every `host:port` of this machine is `<this>:<port>`.
    pub fn address(&self) -> String {
        format!("h{}", self.0.id.0)
    }

    /// Whom its certificate names.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The world.
    pub fn world(&self) -> &World {
        &self.0.world
    }

    /// Starts a process on the machine: its environment. Nothing of an earlier process is left in it.
    ///
    /// # Panics
    ///
    /// When one is running.
    pub fn boot(&self) -> SimEnv {
        assert!(!self.is_alive(), "{} runs already", self.0.name);
        let life = self.0.lives.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.life.store(life, Ordering::Relaxed);
        lock(&self.0.clock).boot(self.0.world.now(), &self.0.stream);
        self.0.world.event(Some(self.0.id), "boot", &[life], || format!("life {life}"));
        SimEnv::new(Life { host: self.0.clone(), number: life })
    }

    /// Does a process run?
    pub fn is_alive(&self) -> bool {
        self.0.life.load(Ordering::Relaxed) != DEAD
    }

    /// How often it was booted.
    pub fn lives(&self) -> u64 {
        self.0.lives.load(Ordering::Relaxed)
    }

    /// The process ends at once, at whatever await points its tasks are; its connections break, and
    /// its disks and stores keep what such a death leaves. Nothing happens when none runs.
    pub fn kill(&self, death: Death) {
        let life = self.0.end_life();
        if life == DEAD {
            return;
        }
        let world = &self.0.world;
        world.event(Some(self.0.id), "death", &[life], || format!("{death:?} of life {life}"));
        *lock(&self.0.death) = Some(death);
        if death == Death::Power {
            *lock(&self.0.power_failed) = Some(world.now());
        }
        lock(&self.0.parked).take();
        world.died(self.0.id, life);
        for disk in lock(&self.0.disks).values() {
            disk.owner_died(death);
        }
        self.0.kvs.owner_died(death);
        world.network().host_died(world, self.0.id);
    }

    /// How the last process died; none when it did not.
    pub fn last_death(&self) -> Option<Death> {
        *lock(&self.0.death)
    }

    /// When the power last failed under a process.
    pub fn last_power_failure(&self) -> Option<Duration> {
        *lock(&self.0.power_failed)
    }

    /// The process dies of itself, in the middle of what it does: at the seam operation (a transfer, a
    /// flush, a write of a store, a message) that comes `operations` after this; it takes effect or not.
    pub fn doom(&self, operations: u64, death: Death, after: bool) {
        *lock(&self.0.doom) = Some(Doom { at: None, operations, death, after });
    }

    /// As [`doom`](Self::doom), and only operations of this name count, such as `disk.rename`.
    pub fn doom_at(&self, at: &'static str, operations: u64, death: Death, after: bool) {
        *lock(&self.0.doom) = Some(Doom { at: Some(at), operations, death, after });
    }

    /// The process stands still: none of its tasks runs until [`resume`](Self::resume).
    pub fn pause(&self) {
        lock(&self.0.parked).get_or_insert_default();
        self.0.world.network().host_paused(self.0.id);
        self.0.world.event(Some(self.0.id), "pause", &[], String::new);
    }

    /// The process goes on.
    pub fn resume(&self) {
        let tasks = lock(&self.0.parked).take().unwrap_or_default();
        self.0.world.network().host_resumed(self.0.id);
        self.0.world.event(Some(self.0.id), "resume", &[], String::new);
        self.0.world.unpark(tasks);
    }

    /// Does it stand still?
    pub fn is_paused(&self) -> bool {
        self.0.is_paused()
    }

    /// Its wall clock jumps.
    pub fn jump_wall(&self, by_ms: i64) {
        lock(&self.0.clock).jump(by_ms);
        self.0.world.event(Some(self.0.id), "clock-jump", &[by_ms.unsigned_abs()], || format!("{by_ms} ms"));
    }

    /// Its clocks run faster by `ppm` millionths, or slower.
    pub fn drift(&self, ppm: i32) {
        lock(&self.0.clock).drift(self.0.world.now(), ppm);
        self.0
            .world
            .event(Some(self.0.id), "clock-drift", &[u64::from(ppm.unsigned_abs())], || format!("{ppm} ppm"));
    }

    /// What its wall clock shows, in milliseconds since 1970.
    pub fn wall_ms(&self) -> u64 {
        lock(&self.0.clock).wall_ms(self.0.world.now())
    }

    /// Puts an empty disk in, mounted at `path`. One that was there is gone for good.
    pub fn insert_disk(&self, path: &str, capacity_bytes: u64) -> DiskDevice {
        let number = self.0.lives.load(Ordering::Relaxed);
        let stream = self.0.stream.fork(&format!("disk {path} {number}"));
        let device = DiskDevice::new(self.clone(), path, capacity_bytes, stream);
        if let Some(before) = lock(&self.0.disks).insert(path.to_owned(), device.clone()) {
            before.remove();
        }
        device
    }

    /// The disk at `path`, if there is one.
    pub fn disk(&self, path: &str) -> Option<DiskDevice> {
        lock(&self.0.disks).get(path).cloned()
    }

    /// All its disks, by path.
    pub fn disks(&self) -> BTreeMap<String, DiskDevice> {
        lock(&self.0.disks).clone()
    }

    /// Its key-value stores.
    pub fn kvs(&self) -> &KvDevice {
        &self.0.kvs
    }
}

/// One life of a host: what a process can do until it dies. Clones are the same life.
#[derive(Clone)]
pub struct Life {
    pub(crate) host: Arc<HostState>,
    pub(crate) number: u64,
}

impl Life {
    /// Has it not ended?
    pub fn is_alive(&self) -> bool {
        self.host.is_life(self.number)
    }

    /// The world.
    pub fn world(&self) -> &World {
        &self.host.world
    }

    /// The machine.
    pub fn host(&self) -> Host {
        Host(self.host.clone())
    }

    /// Never returns for the dead.
    pub async fn alive(&self) {
        if !self.is_alive() {
            pending().await
        }
    }

    /// A seam operation begins, or has taken effect: every one calls this once before and once after.
    /// False when the host died of it, or was dead: then the operation ends nowhere, which
    /// [`alive`](Self::alive) sees to.
    pub fn step(&self, what: &'static str, after: bool) -> bool {
        if !self.is_alive() {
            return false;
        }
        if !after {
            self.host.operations.fetch_add(1, Ordering::Relaxed);
        }
        let death = {
            let mut doom = lock(&self.host.doom);
            match doom.as_mut() {
                Some(due) if due.after != after || due.at.is_some_and(|at| at != what) => None,
                Some(due) if due.operations > 0 => {
                    due.operations -= 1;
                    None
                }
                _ => doom.take().map(|doom| doom.death),
            }
        };
        if let Some(death) = death {
            self.world().tell(Some(self.host.id), || {
                format!("dies {} {what}", if after { "just after" } else { "just before" })
            });
            self.world().probe(if after {
                "died just after a seam operation"
            } else {
                "died just before a seam operation"
            });
            self.host().kill(death);
            return false;
        }
        true
    }

    pub(crate) fn spawn(
        &self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> TaskHandle {
        let owner = Owner { host: self.host.clone(), life: self.number };
        self.world().start(name, Some(owner), Box::pin(work))
    }

    pub(crate) fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static {
        self.world().sleep(duration)
    }
}

/// The simulated environment of one process.
#[derive(Clone)]
pub struct SimEnv {
    life: Life,
    clock: SimClock,
    rng: Stream,
    spawn: SimSpawn,
    disks: SimDisks,
    net: SimNet,
    kvs: SimKvs,
}

impl SimEnv {
    fn new(life: Life) -> Self {
        Self {
            clock: SimClock::new(life.clone()),
            rng: life.host.stream.fork(&format!("life {}", life.number)),
            spawn: SimSpawn(life.clone()),
            disks: SimDisks::new(life.clone()),
            net: SimNet::new(life.clone()),
            kvs: SimKvs::new(life.clone()),
            life,
        }
    }

    /// Whose environment it is.
    pub fn life(&self) -> &Life {
        &self.life
    }
}

impl Env for SimEnv {
    type Clock = SimClock;
    type Rng = Stream;
    type Spawn = SimSpawn;
    type Disks = SimDisks;
    type Net = SimNet;
    type Kvs = SimKvs;

    fn clock(&self) -> &SimClock {
        &self.clock
    }

    fn rng(&self) -> &Stream {
        &self.rng
    }

    fn spawn(&self) -> &SimSpawn {
        &self.spawn
    }

    fn disks(&self) -> &SimDisks {
        &self.disks
    }

    fn net(&self) -> &SimNet {
        &self.net
    }

    fn kvs(&self) -> &SimKvs {
        &self.kvs
    }
}

/// Tasks of one life: they die with it.
#[derive(Clone)]
pub struct SimSpawn(Life);

impl env::Spawn for SimSpawn {
    type Task = TaskHandle;

    fn spawn<F>(&self, name: &'static str, work: F) -> TaskHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.spawn(name, work)
    }
}
