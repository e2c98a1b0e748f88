//! openraft on a host of our own, without any runtime of tokio: virtual time, one thread.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use env::{Clock, Monotonic, Spawn, Task};
use futures_util::future::BoxFuture;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::rt::testing::{DetsimSuite, Suite};
use openraft::storage::Snapshot;
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::CommittedLeaderIdOf;
use openraft::{Config, Instant, OptionalSend, Raft, RaftNetworkFactory, RaftNetworkV2};
use proto::{Timestamp, wire};

use crate::raft::machine::StateMachine;
use crate::raft::runtime::{Dropped, HostInstant, HostRuntime, host, scope};
use crate::raft::snapshot::SnapshotData;
use crate::raft::testing::open;
use crate::raft::types::{Proposal, RaftPeer, TypeConfig, Vote};
use crate::testing::MemoryKvs;

/// Polls of all tasks in one millisecond: enough for what wakes one another.
const ROUNDS: usize = 64;
const STEP: Duration = Duration::from_millis(1);
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// A host that polls all its tasks in turn, and moves its clock on in between.
#[derive(Clone, Default)]
struct Virtual {
    tasks: Arc<Mutex<Vec<BoxFuture<'static, ()>>>>,
    time: Arc<Mutex<Duration>>,
}

struct VirtualTask;

impl Task for VirtualTask {
    fn abort(&self) {
        unreachable!("nobody aborts here");
    }

    async fn join(self) {
        unreachable!("nobody joins here");
    }
}

impl Spawn for Virtual {
    type Task = VirtualTask;

    fn spawn<F>(&self, _name: &'static str, work: F) -> VirtualTask
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.lock().unwrap().push(Box::pin(work));
        VirtualTask
    }
}

impl Clock for Virtual {
    fn now(&self) -> Monotonic {
        Monotonic::new(*self.time.lock().unwrap())
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    async fn sleep(&self, duration: Duration) {
        let deadline = self.now().after(duration);
        let mut gave_way = false;
        poll_fn(|_| {
            let over = mem::replace(&mut gave_way, true) && self.now() >= deadline;
            if over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Virtual {
    /// Drops all tasks, as a crash does.
    fn crash(&self) {
        let tasks = mem::take(&mut *self.tasks.lock().unwrap());
        drop(tasks);
    }

    fn poll_tasks(&self, context: &mut Context<'_>) {
        let mut tasks = mem::take(&mut *self.tasks.lock().unwrap());
        tasks.retain_mut(|task| task.as_mut().poll(context).is_pending());
        let mut kept = self.tasks.lock().unwrap();
        // Tasks that were started meanwhile come last.
        tasks.append(&mut kept);
        *kept = tasks;
    }

    /// Runs `work` in the scope of this host.
    fn run<T>(&self, seed: u64, work: impl Future<Output = T>) -> T {
        let mut work = pin!(scope(host(self.clone(), self.clone()), seed, work));
        let mut context = Context::from_waker(Waker::noop());
        while *self.time.lock().unwrap() < GIVE_UP_AFTER {
            for _ in 0..ROUNDS {
                if let Poll::Ready(output) = work.as_mut().poll(&mut context) {
                    return output;
                }
                self.poll_tasks(&mut context);
            }
            *self.time.lock().unwrap() += STEP;
        }
        panic!("seed {seed}: nothing came of it in {GIVE_UP_AFTER:?} of virtual time");
    }
}

type SuiteStep = fn() -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! steps {
    ($($step:ident)*) => {
        [$((stringify!($step), (|| Box::pin(Suite::<HostRuntime>::$step())) as SuiteStep)),*]
    };
}

/// openraft's suite for runtimes passes on the seam, in virtual time: its bounds of time are exact.
#[test]
fn openraft_runtime_suite() {
    let steps = steps! {
        test_spawn_join_handle test_thread_rng test_sleep test_instant test_instant_arithmetic
        test_instant_sub_instant test_instant_saturating_duration_since test_instant_ord
        test_sleep_until test_timeout test_timeout_at
        test_mpsc_recv_empty test_mpsc_recv_channel_closed
        test_mpsc_weak_sender_wont_prevent_channel_close test_mpsc_weak_sender_upgrade test_mpsc_send
        test_mpsc_send_to_closed_channel test_mpsc_backpressure
        test_watch_init_value test_watch_overwrite_init_value test_watch_send_error_no_receiver
        test_watch_send_if_modified test_watch_wait_until_ge test_watch_wait_until
        test_watch_changed_marks_as_seen test_watch_borrow_and_update_marks_seen
        test_watch_changed_returns_immediately_when_unseen test_watch_multiple_borrow_then_changed
        test_watch_wait_loop_pattern test_watch_multiple_receivers test_watch_subscribe
        test_watch_send_if_different test_watch_send_if_greater
        test_oneshot_drop_tx test_oneshot test_oneshot_send_from_another_task
        test_oneshot_send_to_dropped_rx test_mutex test_mutex_contention test_mutex_lock_owned
        test_task_local test_task_local_on_completion_drop test_task_local_take_value
        test_task_local_poll_after_take_value test_task_local_get_value
    };
    for (name, step) in steps {
        println!("{name}");
        Virtual::default().run(1, step());
    }
}

/// Randomness comes from the seed, in tasks as well, on the host for openraft's own suites.
#[test]
fn openraft_seeds_suite() {
    DetsimSuite::<HostRuntime>::test_all();
}

/// A task's sleep takes the host's time, and a task of a task has the same host.
#[test]
fn tasks_inherit_the_host() {
    let machine = Virtual::default();
    let ended = machine.run(1, async {
        let inner = async { TypeConfig::sleep(Duration::from_millis(70)).await };
        let outer = TypeConfig::spawn(async { TypeConfig::spawn(inner).await });
        outer.await.expect("outer").expect("inner");
        TypeConfig::now()
    });
    let expected = Duration::from_millis(70)..Duration::from_millis(75);
    let elapsed = ended - HostInstant::new(Monotonic::default());
    assert!(expected.contains(&elapsed), "{elapsed:?}");
}

/// A sleep counts from when it was made, not from when it was first waited for.
#[test]
fn sleep_counts_from_its_making() {
    Virtual::default().run(1, async {
        let start = TypeConfig::now();
        let first = TypeConfig::sleep(Duration::from_millis(50));
        TypeConfig::sleep(Duration::from_millis(50)).await;
        first.await;
        let elapsed = start.elapsed();
        assert!(elapsed < Duration::from_millis(60), "{elapsed:?}");
    });
}

/// Who waits for a task of a host that died hears of it, and nothing panics.
#[test]
fn tasks_die_with_the_host() {
    let machine = Virtual::default();
    let ended = machine.run(1, async {
        let waiting = TypeConfig::spawn(std::future::pending::<u64>());
        TypeConfig::sleep(STEP).await;
        machine.crash();
        waiting.await
    });
    assert_eq!(ended, Err(Dropped));
}

/// Time outside of a scope is a bug, and says what to do.
#[test]
#[should_panic(expected = "outside of a host's scope")]
fn no_time_outside_of_a_scope() {
    TypeConfig::now();
}

/// A cluster of one calls nobody.
struct Nobody;

impl RaftNetworkFactory<TypeConfig> for Nobody {
    type Network = Self;

    async fn new_client(&mut self, target: u64, _: &RaftPeer) -> Self {
        unreachable!("a client for {target}");
    }
}

impl RaftNetworkV2<TypeConfig> for Nobody {
    type SnapshotData = SnapshotData<MemoryKvs>;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        unreachable!("append")
    }

    async fn vote(
        &mut self,
        _: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        unreachable!("vote")
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: Snapshot<CommittedLeaderIdOf<TypeConfig>, u64, RaftPeer, SnapshotData<MemoryKvs>>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        unreachable!("snapshot")
    }
}

/// What a lone server does from its start to its end, and when.
fn lone_server(seed: u64) -> Vec<(Duration, u64, u64)> {
    let machine = Virtual::default();
    machine.run(seed, async {
        let (log, state) = open(MemoryKvs::new(), &machine).await.expect("stores");
        let config = Config { enable_pre_vote: Some(true), ..Config::default() };
        let config = Arc::new(config.validate().expect("settings"));
        let raft: Raft<TypeConfig, StateMachine<MemoryKvs>> =
            Raft::new(1, config, Nobody, log, state).await.expect("start");
        raft.initialize(BTreeMap::from([(1, RaftPeer::default())])).await.expect("first member");
        raft.wait(Some(Duration::from_secs(5))).current_leader(1, "it leads").await.expect("leader");
        let mut seen = Vec::new();
        for _ in 0..3 {
            let written = raft.client_write(Proposal::new(&wire::Command::default())).await.expect("write");
            let term = raft.metrics().borrow_watched().current_term;
            seen.push((machine.now().since_start(), term, written.log_id.index));
            TypeConfig::sleep(Duration::from_secs(2)).await;
        }
        raft.shutdown().await.expect("end");
        seen
    })
}

/// openraft elects, commits and ends on the seam alone, the same way each time, and in no real time.
#[test]
fn lone_server_in_virtual_time() {
    for seed in 1..=3 {
        println!("seed {seed}");
        let seen = lone_server(seed);
        assert_eq!(seen.len(), 3, "{seen:?}");
        assert!(seen.is_sorted_by(|before, after| before.0 < after.0 && before.2 < after.2), "{seen:?}");
        assert_eq!(seen, lone_server(seed));
    }
}
