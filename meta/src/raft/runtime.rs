//! openraft's runtime: the tasks, the clock and the randomness of the host it runs on.
//!
//! openraft asks for time and tasks by static methods, but every host has its own. So the host is
//! *ambient*: [`scope`] names it for a piece of work, and each task started there inherits it. Only
//! [`core`](super::core) and this module enter a scope. Time or a task asked for outside of one is a
//! bug, and stops the process.
//!
//! Channels and locks are those of tokio, which need nobody to run them. [`HostRuntime::new`] is for
//! openraft's own suites, which want to start something: see [`standalone`](super::standalone).

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use env::{Clock, Elapsed, Monotonic, Spawn};
use futures_util::future::BoxFuture;
use openraft::rt::deterministic_rng::DeterministicRng;
use openraft::{AsyncRuntime, Instant, OptionalSend};
use openraft_rt_tokio::{TokioMpsc, TokioMutex, TokioOneshot, TokioRuntime, TokioWatch};
use tokio::sync::oneshot;

use super::standalone::Standalone;

/// The name of openraft's tasks.
const TASK: &str = "raft";

openraft::rt::task_local! {
    static HOST: Arc<dyn Host>;
}

/// What openraft needs of a host.
pub(crate) trait Host: Send + Sync {
    /// Starts a task.
    fn spawn(&self, work: BoxFuture<'static, ()>);
    /// The monotonic clock.
    fn now(&self) -> Monotonic;
    /// Waits until `deadline`. Lets other tasks run even if it has passed.
    fn sleep_until(&self, deadline: Monotonic) -> BoxFuture<'static, ()>;
}

/// Tasks and clock of the seam. No more of [`env::Env`] is kept, so that openraft's tasks hold no store
/// open.
struct Seam<S, C> {
    spawn: S,
    clock: C,
}

impl<S: Spawn, C: Clock> Host for Seam<S, C> {
    fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.spawn.spawn(TASK, work);
    }

    fn now(&self) -> Monotonic {
        self.clock.now()
    }

    fn sleep_until(&self, deadline: Monotonic) -> BoxFuture<'static, ()> {
        let clock = self.clock.clone();
        Box::pin(async move { clock.sleep(deadline.since(clock.now())).await })
    }
}

/// A host of the seam, as openraft needs it.
pub(crate) fn host(spawn: impl Spawn, clock: impl Clock) -> Arc<dyn Host> {
    Arc::new(Seam { spawn, clock })
}

/// Runs `work` on `host`, with openraft's randomness from `seed`.
pub(crate) fn scope<F: Future>(
    host: Arc<dyn Host>,
    seed: u64,
    work: F,
) -> impl Future<Output = F::Output> + use<F> {
    HOST.scope(host, DeterministicRng::<HostRuntime>::scope(seed, work))
}

fn ambient() -> Arc<dyn Host> {
    let Ok(host) = HOST.try_get() else {
        unreachable!(
            "openraft asked for time or a task outside of a host's scope: call it through raft::core"
        )
    };
    host
}

/// openraft's runtime on the seam. Its randomness is that of the seed in scope: openraft must be given
/// [`DeterministicRng`] of this.
pub struct HostRuntime {
    tokio: TokioRuntime,
    host: Arc<Standalone>,
}

impl fmt::Debug for HostRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostRuntime").finish_non_exhaustive()
    }
}

impl AsyncRuntime for HostRuntime {
    type JoinError = Dropped;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = BoxFuture<'static, ()>;
    type Instant = HostInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = <DeterministicRng<TokioRuntime> as AsyncRuntime>::ThreadLocalRng;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let host = ambient();
        let work = HOST.scope(host.clone(), async move {
            // What the task held is dropped before anybody hears that it has ended.
            let output = future.await;
            // Whoever started it may not care how it ends.
            drop(sender.send(output));
        });
        host.spawn(Box::pin(work));
        JoinHandle(receiver)
    }

    /// The time begins now, not when it is first waited for.
    fn sleep(duration: Duration) -> Self::Sleep {
        let host = ambient();
        host.sleep_until(host.now().after(duration))
    }

    fn sleep_until(deadline: HostInstant) -> Self::Sleep {
        ambient().sleep_until(deadline.0)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Timeout<F> {
        Timeout { work: Box::pin(future), sleep: Self::sleep(duration) }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: HostInstant, future: F) -> Timeout<F> {
        Timeout { work: Box::pin(future), sleep: Self::sleep_until(deadline) }
    }

    /// Never: a host does not outlive a task that panics.
    fn is_panic(_: &Dropped) -> bool {
        false
    }

    /// # Panics
    ///
    /// Outside of a scope.
    fn thread_rng() -> Self::ThreadLocalRng {
        DeterministicRng::<TokioRuntime>::thread_rng()
    }

    type Mpsc = TokioMpsc;
    type Watch = TokioWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    /// A host for openraft's own suites, on threads of its own.
    fn new(threads: usize) -> Self {
        Self { tokio: TokioRuntime::new(threads), host: Arc::new(Standalone::new()) }
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.tokio.block_on(HOST.scope(self.host.clone(), future))
    }

    /// Refused: there are no threads on this side of the seam, and openraft asks for none.
    async fn spawn_blocking<F, T>(_: F) -> Result<T, io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}

/// A task was dropped before it ended: its host has died.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task was dropped before it ended")]
pub struct Dropped;

/// Waits for a task's output. Dropping it leaves the task running.
#[derive(Debug)]
pub struct JoinHandle<T>(oneshot::Receiver<T>);

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Dropped>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(|_| Dropped)
    }
}

/// Work with a deadline. Work that is ready at the deadline wins.
pub struct Timeout<F> {
    work: Pin<Box<F>>,
    sleep: BoxFuture<'static, ()>,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.work.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        self.sleep.as_mut().poll(context).map(|()| Err(Elapsed))
    }
}

/// A point on the host's monotonic clock. Arithmetic saturates: before the clock's start nothing has
/// happened on this host, so a point there stands for any earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostInstant(Monotonic);

impl HostInstant {
    /// As the host's clock gave it.
    pub(crate) fn new(point: Monotonic) -> Self {
        Self(point)
    }
}

impl Instant for HostInstant {
    fn now() -> Self {
        Self(ambient().now())
    }
}

impl Add<Duration> for HostInstant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.after(duration))
    }
}

impl AddAssign<Duration> for HostInstant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for HostInstant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(Monotonic::new(self.0.since_start().saturating_sub(duration)))
    }
}

impl SubAssign<Duration> for HostInstant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for HostInstant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.since(earlier.0)
    }
}
