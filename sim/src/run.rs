//! One run, phase after phase.
//!
//! | phase | what happens | what is checked |
//! | --- | --- | --- |
//! | founding | the cluster of the plan is started and founded, without faults | it must succeed |
//! | storm | faults and load | safety, all along |
//! | calm | faults end, machines that are left come back; load ends | operations end in time |
//! | healing | time passes; new operations as soon as everything is whole | the cluster is whole within [`HEALING_LIMIT`], and then without what is only suspected |
//! | audit | every object read, every disk looked at | everything |

use std::sync::Arc;
use std::time::Duration;

use simhost::{Stuck, World, WorldOptions};

use crate::cluster::Cluster;
use crate::verdict::{Kind, Report, millis};
use crate::{checkers, load, logs, nemesis, plants, probes, tap};

/// Bound of healing once faults have ended, in virtual time.
pub const HEALING_LIMIT: Duration = Duration::from_secs(600);
/// No run is longer, in virtual time.
const RUN_LIMIT: Duration = Duration::from_secs(3_600);

/// What is asked of a run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The seed.
    pub seed: u64,
    /// More may be lost than the promises cover.
    pub beyond: bool,
    /// The planted bug, by its name.
    pub plant: Option<String>,
    /// Classes of faults that are off whatever the seed says.
    pub without: Vec<nemesis::FaultClass>,
    /// Numbers of faults that are left out.
    pub skip: Vec<u64>,
    /// Faults after this one are left out.
    pub faults_max: Option<u64>,
    /// Operations of clients, at most.
    pub operations_max: Option<u64>,
    /// Ends as soon as the story has a line with this text.
    pub until: Option<String>,
}

/// Runs a seed to its end.
pub fn run(options: &RunOptions, story: simhost::Story) -> Report {
    let plan = plan_of(options);
    let world = World::new(WorldOptions { seed: options.seed, schedule: plan.schedule, story });
    let _logs = logs::into_world(&world);
    world.set_until(options.until.clone());
    let cluster = Cluster::build(&world, plan);
    tap::install(&cluster);
    plants::install(&cluster, options.plant.as_deref());
    let ended = world.run(RUN_LIMIT, phases(cluster.clone(), options.clone()));
    judge_end(&cluster, ended);
    let report = report(&cluster, options);
    world.end_of_days();
    report
}

/// The plan of the seed, with what the options leave out.
pub fn plan_of(options: &RunOptions) -> crate::plan::Plan {
    let mut plan = crate::plan::Plan::draw(options.seed, options.beyond);
    plan.faults.retain(|class, _| !options.without.contains(class));
    if let Some(most) = options.operations_max {
        plan.load.operations_max = plan.load.operations_max.min(most);
    }
    plan
}

async fn phases(cluster: Arc<Cluster>, options: RunOptions) {
    let world = cluster.world.clone();
    world.event(None, "phase", &[1], || format!("founding: {:?}", cluster.plan));
    if let Err(error) = cluster.found().await {
        cluster.findings.report(&world, Kind::Liveness, "founding", error);
        return;
    }
    let watch = checkers::watch(&cluster);
    let load = load::start(&cluster);
    world.event(None, "phase", &[2], || "storm".to_owned());
    nemesis::storm(&cluster, &options).await;
    world.event(None, "phase", &[3], || "calm".to_owned());
    nemesis::calm(&cluster).await;
    load.end(&cluster).await;
    nemesis::leap(&cluster);
    world.event(None, "phase", &[4], || "healing".to_owned());
    checkers::healing(&cluster, HEALING_LIMIT).await;
    world.event(None, "phase", &[5], || "audit".to_owned());
    watch.end();
    checkers::audit(&cluster).await;
}

fn judge_end(cluster: &Cluster, ended: Result<(), Stuck>) {
    let findings = &cluster.findings;
    match ended {
        Ok(()) | Err(Stuck::Stopped(_)) => {}
        Err(Stuck::Deadlock) => {
            findings.report(&cluster.world, Kind::Liveness, "no deadlock", "everybody waits for somebody");
        }
        Err(Stuck::TimeLimit) => {
            let text = format!("the run did not end within {} s of virtual time", RUN_LIMIT.as_secs());
            findings.report(&cluster.world, Kind::Liveness, "no deadlock", text);
        }
    }
}

fn report(cluster: &Cluster, options: &RunOptions) -> Report {
    let world = &cluster.world;
    let (hash, events) = world.trace_hash();
    let findings = cluster.findings.all();
    let (operations, acknowledged) = load::counts(cluster);
    Report {
        seed: options.seed,
        planted: options.plant.clone(),
        last_events: if findings.is_empty() { Vec::new() } else { world.last_lines() },
        findings,
        trace_hash: format!("{hash:016x}"),
        events,
        simulated_ms: millis(world.now()),
        operations,
        acknowledged,
        faults: nemesis::counts(cluster),
        probes: probes::reached(world),
        polls: world.costs().polls,
        messages: world.network().messages(),
    }
}
