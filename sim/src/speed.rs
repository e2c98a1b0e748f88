//! How fast simulated time runs: three metadata servers, nine nodes of two disks and six clients under
//! load, without faults, on one core.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::OnceLock;
use std::time::Duration;

use simhost::{Spent, Story, World, WorldOptions};

use crate::cluster::Cluster;
use crate::plan::Plan;
use crate::process::lock;
use crate::{load, logs, tap};

/// Virtual time that is measured.
const MEASURED: Duration = Duration::from_secs(120);
/// Lines of each table.
const LINES: usize = 12;

/// All that counts up while a world runs.
struct Counts {
    messages: u64,
    polls: u64,
    timers: u64,
    calls: BTreeMap<&'static str, u64>,
    spent: BTreeMap<(String, &'static str), Spent>,
}

impl Counts {
    fn of(world: &World, cluster: &Cluster) -> Self {
        let costs = world.costs();
        let mut spent: BTreeMap<_, Spent> = BTreeMap::new();
        for ((host, task), added) in world.task_times() {
            let name = world.host_name(host);
            let kind = name.split_once('-').map_or(name.as_str(), |(kind, _)| kind);
            let spent = spent.entry((kind.to_owned(), task)).or_default();
            spent.polls += added.polls;
            spent.time += added.time;
        }
        Self {
            messages: world.network().messages(),
            polls: costs.polls,
            timers: costs.timers,
            calls: lock(&cluster.tap).as_ref().map_or_else(BTreeMap::new, |tap| tap.calls()),
            spent,
        }
    }
}

/// Real time since the first call: the one measurement of real time in the simulator, of itself.
#[allow(clippy::disallowed_methods)]
fn real_time() -> Duration {
    static FIRST: OnceLock<std::time::Instant> = OnceLock::new();
    FIRST.get_or_init(std::time::Instant::now).elapsed()
}

/// Time that this process, of one thread, has had a core, as Linux counts it: on a busy machine less than
/// real time. None elsewhere.
fn core_time() -> Option<Duration> {
    let counted = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    counted.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// Runs the cluster, with clients that pause for `pause_max` at most between two operations, and says how
/// long it took, in words. With a `breakdown`, also where the time went; measuring that takes time too.
pub fn measure(seed: u64, pause_max: Duration, breakdown: bool) -> String {
    let mut plan = Plan::bench(seed);
    plan.load.pause_max = pause_max;
    let (clients, workers) = (plan.load.clients, plan.load.workers);
    let world = World::new(WorldOptions { seed, schedule: plan.schedule, story: Story::Untold });
    let _logs = logs::into_world(&world);
    let cluster = Cluster::build(&world, plan);
    tap::install(&cluster);
    let founding = world.run(Duration::from_secs(600), cluster.found());
    if !matches!(founding, Ok(Ok(()))) {
        return format!("the cluster was not founded: {founding:?}");
    }
    if breakdown {
        world.time_tasks(real_time);
    }
    let before = Counts::of(&world, &cluster);
    let (began, began_core) = (real_time(), core_time());
    let ended = world.run(MEASURED + Duration::from_secs(600), async {
        let load = load::start(&cluster);
        world.sleep(MEASURED).await;
        load.end(&cluster).await;
    });
    let waited = real_time() - began;
    let on_core = began_core.and_then(|began| core_time()?.checked_sub(began));
    let took = on_core.unwrap_or(waited);
    let (operations, acknowledged) = load::counts(&cluster);
    let after = Counts::of(&world, &cluster);
    world.end_of_days();

    let mut text = format!(
        "{clients} clients, {workers} workers each, one operation outstanding a worker, pauses up to {} ms between two\n\
         {} s of virtual time in {:.3} s of a core: {:.0} times faster than real time ({:.3} s by the clock on the wall)\n\
         per virtual second: {:.1} operations ({acknowledged} of {operations} acknowledged), {:.0} messages, {:.0} polls, {:.0} timers\n\
         per message: {:.2} us; ended: {ended:?}",
        pause_max.as_millis(),
        MEASURED.as_secs(),
        took.as_secs_f64(),
        MEASURED.as_secs_f64() / took.as_secs_f64(),
        waited.as_secs_f64(),
        a_second(operations),
        a_second(after.messages - before.messages),
        a_second(after.polls - before.polls),
        a_second(after.timers - before.timers),
        took.as_secs_f64() * 1e6 / number(after.messages - before.messages),
    );
    if breakdown {
        text += &tables(&before, &after, waited);
    }
    text
}

/// Tasks by real time, and requests by name.
fn tables(before: &Counts, after: &Counts, took: Duration) -> String {
    let mut tasks: Vec<_> = after.spent.iter().collect();
    tasks.sort_by_key(|(_, spent)| std::cmp::Reverse(spent.time));
    let in_tasks: Duration = tasks.iter().map(|(_, spent)| spent.time).sum();
    let percent = |time: Duration| time.as_secs_f64() * 100.0 / took.as_secs_f64();
    // Writing to a string does not fail.
    let mut text = format!("\n\n{:<30}{:>8}{:>18}", "host and task", "% time", "polls a virtual s");
    for ((host, task), spent) in tasks.into_iter().take(LINES) {
        let name = format!("{host} {task}");
        _ = write!(text, "\n{name:<30}{:>8.1}{:>18.1}", percent(spent.time), a_second(spent.polls));
    }
    _ = write!(text, "\n{:<30}{:>8.1}", "executor, timers", percent(took.saturating_sub(in_tasks)));

    let sent = |name: &'static str, count: u64| count - before.calls.get(name).unwrap_or(&0);
    let mut calls: Vec<_> = after.calls.iter().map(|(name, count)| (sent(name, *count), *name)).collect();
    calls.sort_by_key(|(count, name)| (std::cmp::Reverse(*count), *name));
    _ = write!(text, "\n\n{:<30}{:>26}", "request", "sent a virtual second");
    for (count, name) in calls.into_iter().take(LINES) {
        _ = write!(text, "\n{name:<30}{:>26.1}", a_second(count));
    }
    text
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn a_second(count: u64) -> f64 {
    number(count) / MEASURED.as_secs_f64()
}
