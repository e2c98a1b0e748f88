//! One thread, virtual time: the executor on which all hosts of a simulation run.
//!
//! Time stands still while a task can run, and then jumps to the next timer. Which of the ready tasks
//! runs next comes from the seed. Tasks belong to the life of a host, or to the world (the workload's
//! driver, the faults); a host that dies takes its tasks with it at once, whatever they wait for.
//!
//! The loop runs inside a tokio runtime only so that tokio's own random choices (`select!`, `watch`)
//! come from the seed too; nothing is ever spawned there.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::host::{HostId, HostState};
use crate::net::Network;
use crate::rng::Stream;
use crate::trace::{Story, Trace};

mod sleep;
mod stopwatch;

pub use sleep::Sleep;
pub use stopwatch::Spent;
use stopwatch::Stopwatch;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// In which order ready tasks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Any of them, by the seed.
    Random,
    /// First come, first served.
    Fifo,
    /// Mostly the last that became ready: some starve as long as others go on.
    Starving,
}

/// How a world begins.
pub struct WorldOptions {
    /// Decides everything.
    pub seed: u64,
    /// Order of ready tasks.
    pub schedule: Schedule,
    /// Where the story goes.
    pub story: Story,
}

impl WorldOptions {
    /// Random order, no story.
    pub fn new(seed: u64) -> Self {
        Self { seed, schedule: Schedule::Random, story: Story::Untold }
    }
}

/// Why a run ended before its main future.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// No task is ready and no timer is set: everybody waits for somebody.
    Deadlock,
    /// The limit of virtual time was reached.
    TimeLimit,
    /// [`World::stop`] was called, for this reason.
    Stopped(String),
}

/// What a run has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// Polls of tasks.
    pub polls: u64,
    /// Tasks started.
    pub tasks: u64,
    /// Timers set.
    pub timers: u64,
}

/// A world. Clones are the same.
#[derive(Clone)]
pub struct World(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) seed: u64,
    schedule: Schedule,
    order: Stream,
    streams: Stream,
    ready: Mutex<Vec<Arc<Task>>>,
    timers: Mutex<Timers>,
    tasks: Mutex<Tasks>,
    deaths: Mutex<Vec<Death>>,
    stop: Mutex<Option<String>>,
    /// There is a death or a stop to see to before the next task.
    interrupted: AtomicBool,
    until: Mutex<Option<String>>,
    trace: Mutex<Trace>,
    probes: Mutex<BTreeMap<&'static str, u64>>,
    pub(crate) hosts: Mutex<Vec<Arc<HostState>>>,
    pub(crate) network: Network,
    polls: AtomicU64,
    stopwatch: OnceLock<Stopwatch>,
}

#[derive(Default)]
struct Timers {
    now: Duration,
    next: u64,
    waiting: BTreeMap<(Duration, u64), Waker>,
}

#[derive(Default)]
struct Tasks {
    next: u64,
    living: BTreeMap<u64, Arc<Task>>,
}

struct Death {
    host: HostId,
    life: u64,
}

/// Whose a task is.
#[derive(Clone)]
pub(crate) struct Owner {
    pub(crate) host: Arc<HostState>,
    pub(crate) life: u64,
}

pub(crate) struct Task {
    id: u64,
    name: &'static str,
    owner: Option<Owner>,
    world: std::sync::Weak<Inner>,
    work: Mutex<Option<Work>>,
    queued: AtomicBool,
    aborted: AtomicBool,
    joiners: Mutex<Joiners>,
}

#[derive(Default)]
struct Joiners {
    ended: bool,
    waiting: Vec<Waker>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed)
            && let Some(world) = self.world.upgrade()
        {
            lock(&world.ready).push(self);
        }
    }
}

thread_local! {
    static CURRENT: Cell<Option<HostId>> = const { Cell::new(None) };
}

/// The host whose task runs just now on this thread; none for tasks of the world.
pub fn current_host() -> Option<HostId> {
    CURRENT.with(Cell::get)
}

/// Locks, whoever panicked with it: a panic ends the run anyhow.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// An empty world.
    pub fn new(options: WorldOptions) -> Self {
        let root = Stream::new(options.seed);
        let inner = Inner {
            seed: options.seed,
            schedule: options.schedule,
            order: root.fork("schedule"),
            network: Network::new(root.fork("network")),
            streams: root,
            ready: Mutex::default(),
            timers: Mutex::default(),
            tasks: Mutex::default(),
            deaths: Mutex::default(),
            stop: Mutex::default(),
            interrupted: AtomicBool::new(false),
            until: Mutex::default(),
            trace: Mutex::new(Trace::new(options.story)),
            probes: Mutex::default(),
            hosts: Mutex::default(),
            polls: AtomicU64::new(0),
            stopwatch: OnceLock::new(),
        };
        Self(Arc::new(inner))
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// A random stream of this name, the same for the same seed.
    pub fn stream(&self, name: &str) -> Stream {
        self.0.streams.fork(name)
    }

    /// Virtual time since the world began.
    pub fn now(&self) -> Duration {
        lock(&self.0.timers).now
    }

    /// Waits, in virtual time. Dropping it cancels it.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now().saturating_add(duration))
    }

    /// Waits until a point of virtual time; lets others run even when it has passed.
    pub fn sleep_until(&self, deadline: Duration) -> Sleep {
        Sleep::new(self.clone(), deadline)
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.0.network
    }

    /// Starts a task of the world's own.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> TaskHandle {
        self.start(name, None, Box::pin(work))
    }

    pub(crate) fn start(&self, name: &'static str, owner: Option<Owner>, work: Work) -> TaskHandle {
        let task = {
            let mut tasks = lock(&self.0.tasks);
            tasks.next += 1;
            let task = Arc::new(Task {
                id: tasks.next,
                name,
                owner,
                world: Arc::downgrade(&self.0),
                work: Mutex::new(Some(work)),
                queued: AtomicBool::new(false),
                aborted: AtomicBool::new(false),
                joiners: Mutex::default(),
            });
            tasks.living.insert(task.id, task.clone());
            task
        };
        task.clone().wake();
        TaskHandle(task)
    }

    /// Runs until `main` ends, for at most `limit` of virtual time from now.
    ///
    /// # Errors
    ///
    /// See [`Stuck`].
    ///
    /// # Panics
    ///
    /// When a task does: that is a bug, and the seed tells how to come here again.
    pub fn run<T>(&self, limit: Duration, main: impl Future<Output = T>) -> Result<T, Stuck> {
        let seed = tokio::runtime::RngSeed::from_bytes(&self.0.seed.to_le_bytes());
        let runtime = tokio::runtime::Builder::new_current_thread().rng_seed(seed).build();
        let deadline = self.now().saturating_add(limit);
        let looping = async move { self.turn(deadline, main) };
        match runtime {
            Ok(runtime) => runtime.block_on(tokio::task::unconstrained(looping)),
            Err(error) => Err(Stuck::Stopped(format!("no runtime: {error}"))),
        }
    }

    fn turn<T>(&self, deadline: Duration, main: impl Future<Output = T>) -> Result<T, Stuck> {
        let mut main = pin!(main);
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(flag.clone());
        loop {
            if flag.0.swap(false, Ordering::Relaxed)
                && let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return Ok(output);
            }
            if self.0.interrupted.swap(false, Ordering::Relaxed) {
                self.bury();
                if let Some(reason) = lock(&self.0.stop).take() {
                    return Err(Stuck::Stopped(reason));
                }
            }
            if flag.0.load(Ordering::Relaxed) {
                continue;
            }
            match self.next_ready() {
                Some(task) => self.poll(&task),
                None => self.advance(deadline)?,
            }
        }
    }

    fn next_ready(&self) -> Option<Arc<Task>> {
        let mut ready = lock(&self.0.ready);
        let len = ready.len();
        match self.0.schedule {
            _ if len == 0 => None,
            _ if len == 1 => ready.pop(),
            Schedule::Fifo => Some(ready.remove(0)),
            Schedule::Starving if self.0.order.chance(900_000) => ready.pop(),
            Schedule::Random | Schedule::Starving => Some(ready.swap_remove(self.0.order.index(len))),
        }
    }

    fn poll(&self, task: &Arc<Task>) {
        if let Some(owner) = &task.owner {
            if !owner.host.is_life(owner.life) {
                return;
            }
            if owner.host.park(task) {
                return;
            }
        }
        task.queued.store(false, Ordering::Relaxed);
        let Some(mut work) = lock(&task.work).take() else { return };
        self.0.polls.fetch_add(1, Ordering::Relaxed);
        let host = task.owner.as_ref().map(|owner| owner.host.id());
        CURRENT.set(host);
        let waker = Waker::from(task.clone());
        let began = self.0.stopwatch.get().map(|watch| (watch, watch.now()));
        let poll = work.as_mut().poll(&mut Context::from_waker(&waker));
        if let Some((watch, began)) = began {
            watch.charge(host, task.name, began);
        }
        CURRENT.set(None);
        if poll.is_ready() || task.aborted.load(Ordering::Relaxed) {
            drop(work);
            self.end(task);
        } else {
            *lock(&task.work) = Some(work);
        }
    }

    fn end(&self, task: &Arc<Task>) {
        lock(&self.0.tasks).living.remove(&task.id);
        let waiting = {
            let mut joiners = lock(&task.joiners);
            joiners.ended = true;
            std::mem::take(&mut joiners.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Time jumps to the next timer.
    fn advance(&self, limit: Duration) -> Result<(), Stuck> {
        let mut due = Vec::new();
        {
            let mut timers = lock(&self.0.timers);
            let Some(((at, _), _)) = timers.waiting.first_key_value() else { return Err(Stuck::Deadlock) };
            let at = *at;
            if at > limit {
                return Err(Stuck::TimeLimit);
            }
            timers.now = timers.now.max(at);
            while timers.waiting.first_key_value().is_some_and(|((next, _), _)| *next == at) {
                due.extend(timers.waiting.pop_first().map(|(_, waker)| waker));
            }
        }
        due.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Drops the tasks of lives that have ended.
    fn bury(&self) {
        loop {
            let Some(death) = lock(&self.0.deaths).pop() else { return };
            let of_it = |task: &Arc<Task>| {
                task.owner
                    .as_ref()
                    .is_some_and(|owner| owner.host.id() == death.host && owner.life == death.life)
            };
            let dead: Vec<Arc<Task>> =
                lock(&self.0.tasks).living.values().filter(|task| of_it(task)).cloned().collect();
            for task in dead {
                let work = lock(&task.work).take();
                CURRENT.set(Some(death.host));
                drop(work);
                CURRENT.set(None);
                self.end(&task);
            }
        }
    }

    pub(crate) fn died(&self, host: HostId, life: u64) {
        lock(&self.0.deaths).push(Death { host, life });
        self.0.interrupted.store(true, Ordering::Relaxed);
    }

    /// Ends the run, with an error of this reason.
    pub fn stop(&self, reason: impl Into<String>) {
        lock(&self.0.stop).get_or_insert(reason.into());
        self.0.interrupted.store(true, Ordering::Relaxed);
    }

    /// Names of the tasks that live, with how many of each, by host.
    pub fn living_tasks(&self) -> BTreeMap<(Option<HostId>, &'static str), usize> {
        let mut names = BTreeMap::new();
        for task in lock(&self.0.tasks).living.values() {
            let host = task.owner.as_ref().map(|owner| owner.host.id());
            *names.entry((host, task.name)).or_insert(0) += 1;
        }
        names
    }

    /// Drops all tasks: the world has ended, and nothing of it stays in memory.
    pub fn end_of_days(&self) {
        let all: Vec<Arc<Task>> = std::mem::take(&mut lock(&self.0.tasks).living).into_values().collect();
        for host in lock(&self.0.hosts).clone() {
            host.end_life();
        }
        for task in all {
            let work = lock(&task.work).take();
            drop(work);
        }
        lock(&self.0.ready).clear();
        lock(&self.0.timers).waiting.clear();
        // Hosts know their world: the knot is cut here.
        let hosts = std::mem::take(&mut *lock(&self.0.hosts));
        drop(hosts);
    }

    /// Something happened: it goes into the hash, and into the story if there is one. Numbers that
    /// differ from run to run of a seed (addresses in memory, say) must not come here.
    pub fn event(
        &self,
        host: Option<HostId>,
        what: &'static str,
        numbers: &[u64],
        story: impl FnOnce() -> String,
    ) {
        let now = self.now();
        let mut trace = lock(&self.0.trace);
        trace.add(now, host.map_or(0, |host| host.0), what, numbers);
        if trace.wants_story() {
            drop(trace);
            self.add_line(now, host, &format!("{what} {}", story()));
        }
    }

    fn add_line(&self, now: Duration, host: Option<HostId>, line: &str) {
        lock(&self.0.trace).tell(now, &self.host_name(host), line);
        if lock(&self.0.until).as_ref().is_some_and(|text| line.contains(text)) {
            self.stop(format!("reached: {line}"));
        }
    }

    /// The run ends as soon as the story has a line with this text.
    pub fn set_until(&self, text: Option<String>) {
        *lock(&self.0.until) = text;
    }

    /// Part of the story only.
    pub fn tell(&self, host: Option<HostId>, story: impl FnOnce() -> String) {
        if lock(&self.0.trace).wants_story() {
            self.add_line(self.now(), host, &story());
        }
    }

    /// Is there anybody who reads the story?
    pub fn wants_story(&self) -> bool {
        lock(&self.0.trace).wants_story()
    }

    /// The hash of all that happened, and the number of events.
    pub fn trace_hash(&self) -> (u64, u64) {
        lock(&self.0.trace).hash()
    }

    /// The last lines of the story.
    pub fn last_lines(&self) -> Vec<String> {
        lock(&self.0.trace).last_lines()
    }

    /// A rare situation was reached.
    pub fn probe(&self, name: &'static str) {
        *lock(&self.0.probes).entry(name).or_insert(0) += 1;
    }

    /// How often each was reached.
    pub fn probes(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.0.probes).clone()
    }

    /// What it has cost so far.
    pub fn costs(&self) -> Costs {
        Costs {
            polls: self.0.polls.load(Ordering::Relaxed),
            tasks: lock(&self.0.tasks).next,
            timers: lock(&self.0.timers).next,
        }
    }

    /// From now on the real time of each task is measured with this clock. The second call does nothing.
    pub fn time_tasks(&self, clock: fn() -> Duration) {
        // A stopwatch that runs already goes on.
        drop(self.0.stopwatch.set(Stopwatch::new(clock)));
    }

    /// Real time spent in tasks since [`time_tasks`](Self::time_tasks), by host and name of the task.
    pub fn task_times(&self) -> BTreeMap<(Option<HostId>, &'static str), Spent> {
        self.0.stopwatch.get().map_or_else(BTreeMap::new, Stopwatch::spent)
    }

    /// A host's name; `world` for none.
    pub fn host_name(&self, host: Option<HostId>) -> String {
        let Some(host) = host else { return "world".to_owned() };
        let index = usize::try_from(host.0).unwrap_or(usize::MAX).wrapping_sub(1);
        lock(&self.0.hosts).get(index).map_or_else(String::new, |host| host.name().to_owned())
    }

    /// Puts tasks that waited for their host's pause to end back into the queue.
    pub(crate) fn unpark(&self, tasks: Vec<Arc<Task>>) {
        lock(&self.0.ready).extend(tasks);
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A task. Dropping the handle leaves it running.
pub struct TaskHandle(Arc<Task>);

impl env::Task for TaskHandle {
    fn abort(&self) {
        // The future of a task that runs just now is taken out: it is dropped at its next await point.
        self.0.aborted.store(true, Ordering::Relaxed);
        let work = lock(&self.0.work).take();
        if work.is_some()
            && let Some(world) = self.0.world.upgrade()
        {
            drop(work);
            World(world).end(&self.0);
        }
    }

    async fn join(self) {
        std::future::poll_fn(|context| {
            let mut joiners = lock(&self.0.joiners);
            if joiners.ended {
                return Poll::Ready(());
            }
            if !joiners.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                joiners.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
