//! How fast simulated time runs: three metadata servers, nine nodes of two disks and six clients under
//! load, without faults, on one core.

use std::time::Duration;

use simhost::{Story, World, WorldOptions};

use crate::cluster::Cluster;
use crate::plan::Plan;
use crate::{load, logs, tap};

/// Virtual time that is measured.
const MEASURED: Duration = Duration::from_secs(120);

/// Runs the cluster, with clients that pause for `pause_max` at most between two operations, and says how
/// long it took, in words.
pub fn measure(seed: u64, pause_max: Duration) -> String {
    let mut plan = Plan::bench(seed);
    plan.load.pause_max = pause_max;
    let world = World::new(WorldOptions { seed, schedule: plan.schedule, story: Story::Untold });
    let _logs = logs::into_world(&world);
    let cluster = Cluster::build(&world, plan);
    tap::install(&cluster);
    let founding = world.run(Duration::from_secs(600), cluster.found());
    if !matches!(founding, Ok(Ok(()))) {
        return format!("the cluster was not founded: {founding:?}");
    }
    let (costs, messages) = (world.costs(), world.network().messages());
    // The one measurement of real time in the simulator: of itself.
    #[allow(clippy::disallowed_methods)]
    let began = std::time::Instant::now();
    let ended = world.run(MEASURED + Duration::from_secs(600), async {
        let load = load::start(&cluster);
        world.sleep(MEASURED).await;
        load.end(&cluster).await;
    });
    let took = began.elapsed().as_secs_f64();
    let (operations, acknowledged) = load::counts(&cluster);
    let simulated = MEASURED.as_secs_f64();
    let per = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / simulated;
    let after = world.costs();
    let text = format!(
        "{simulated} s of virtual time in {took:.3} s: {:.0} times faster than real time\n\
         per virtual second: {:.1} operations ({acknowledged} of {operations} acknowledged), {:.0} messages, {:.0} polls, {:.0} timers\n\
         per message: {:.2} us of real time; ended: {ended:?}",
        simulated / took,
        per(operations),
        per(world.network().messages() - messages),
        per(after.polls - costs.polls),
        per(after.timers - costs.timers),
        took * 1e6 / (per(world.network().messages() - messages) * simulated),
    );
    world.end_of_days();
    text
}
