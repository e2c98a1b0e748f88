//! A process on a machine, and the supervisor that starts it again, as systemd would.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) use simhost::lock;
use simhost::{Death, Host, SimEnv, World};

/// How often the supervisor looks.
const LOOK: Duration = Duration::from_millis(250);
/// Rest after a process that ended by itself.
const RESTART_AFTER: Duration = Duration::from_secs(1);

type Main = Arc<dyn Fn(SimEnv) + Send + Sync>;

/// A machine with the process that should run on it. Clones are the same.
#[derive(Clone)]
pub struct Process(Arc<Inner>);

struct Inner {
    host: Host,
    main: Main,
    wanted: AtomicBool,
    not_before: Mutex<Duration>,
}

impl Process {
    /// Supervises a process from now on: `main` is called with each life's environment, and starts
    /// its tasks.
    pub fn supervise(host: Host, main: impl Fn(SimEnv) + Send + Sync + 'static) -> Self {
        let world = host.world().clone();
        let process = Self(Arc::new(Inner {
            host,
            main: Arc::new(main),
            wanted: AtomicBool::new(true),
            not_before: Mutex::new(Duration::ZERO),
        }));
        process.start_if_due(&world);
        let supervised = process.clone();
        world.clone().spawn("supervisor", async move {
            let mut was_alive = true;
            loop {
                world.sleep(LOOK).await;
                let alive = supervised.0.host.is_alive();
                if was_alive && !alive {
                    let mut not_before = lock(&supervised.0.not_before);
                    *not_before = (*not_before).max(world.now() + RESTART_AFTER);
                }
                was_alive = alive || supervised.start_if_due(&world);
            }
        });
        process
    }

    fn start_if_due(&self, world: &World) -> bool {
        let due = !self.0.host.is_alive()
            && self.0.wanted.load(Ordering::Relaxed)
            && world.now() >= *lock(&self.0.not_before);
        if due {
            let env = self.0.host.boot();
            (self.0.main)(env);
        }
        due
    }

    /// The machine.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// Ends the process, for so long at least.
    pub fn kill(&self, death: Death, rest: Duration) {
        self.rest(rest);
        self.0.host.kill(death);
    }

    /// The next start, if the process ends, comes no sooner than this.
    pub fn rest(&self, rest: Duration) {
        *lock(&self.0.not_before) = self.0.host.world().now() + rest;
    }

    /// It should not run (any more), or should again.
    pub fn want(&self, wanted: bool) {
        self.0.wanted.store(wanted, Ordering::Relaxed);
        if wanted {
            *lock(&self.0.not_before) = Duration::ZERO;
        }
    }

    /// Should it run?
    pub fn is_wanted(&self) -> bool {
        self.0.wanted.load(Ordering::Relaxed)
    }
}
