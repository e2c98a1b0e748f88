//! When which class strikes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use simhost::Stream;

use super::ailments;
use super::class::FaultClass;
use super::strike::{Strike, strike};
use crate::cluster::Cluster;
use crate::run::RunOptions;

/// A strike to come.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Planned {
    /// Since the storm began.
    at: Duration,
    class: FaultClass,
    /// How often the class has struck before: names the stream of its draws.
    nth: u64,
}

/// Faults, for as long as the plan says.
pub async fn storm(cluster: &Arc<Cluster>, options: &RunOptions) {
    let world = cluster.world.clone();
    ailments::weather(cluster);
    let began = world.now();
    let root = world.stream("nemesis");
    for (number, planned) in (1..).zip(schedule(&root, &cluster.plan.faults, cluster.plan.storm)) {
        world.sleep_until(began + planned.at).await;
        if options.skip.contains(&number) || options.faults_max.is_some_and(|most| number > most) {
            continue;
        }
        let Planned { class, nth, .. } = planned;
        let draws = root.fork(&format!("{class} {nth}"));
        strike(&Strike { cluster, number, class, draws });
    }
    world.sleep_until(began + cluster.plan.storm).await;
}

/// All strikes in the order of time. The times of a class depend on nothing but the seed and its pace.
fn schedule(root: &Stream, faults: &BTreeMap<FaultClass, Duration>, storm: Duration) -> Vec<Planned> {
    let mut all = Vec::new();
    for (class, pace) in faults {
        let stream = root.fork(&format!("times of {class}"));
        let mut at = pause(&stream, *pace);
        let mut nth = 0;
        while at < storm {
            all.push(Planned { at, class: *class, nth });
            at += pause(&stream, *pace);
            nth += 1;
        }
    }
    all.sort_by_key(|planned| (planned.at, planned.class, planned.nth));
    all
}

/// `mean` on the average, often much shorter and sometimes much longer.
fn pause(stream: &Stream, mean: Duration) -> Duration {
    let mean_us = u64::try_from(mean.as_micros()).unwrap_or(u64::MAX / 8);
    // The average of a uniform number is half its bound, and here the bound is one, too.
    Duration::from_micros(1 + stream.below(stream.below(mean_us.saturating_mul(4)).saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(classes: &[FaultClass]) -> BTreeMap<FaultClass, Duration> {
        classes.iter().map(|class| (*class, Duration::from_secs(3))).collect()
    }

    /// A class strikes at its pace, in order, and without regard to what other classes are on.
    #[test]
    fn times_of_a_class_are_its_own() {
        let storm = Duration::from_secs(3_000);
        let (root, both) = (Stream::new(5), [FaultClass::Doom, FaultClass::Pause]);
        let all = schedule(&root, &faults(&both), storm);
        assert!(all.is_sorted_by_key(|planned| planned.at));
        for class in both {
            let alone = schedule(&root, &faults(&[class]), storm);
            let among: Vec<Planned> = all.iter().filter(|planned| planned.class == class).cloned().collect();
            assert_eq!(alone, among, "{class}");
            assert!(
                (700..1_300).contains(&alone.len()),
                "{class} strikes {} times, expected about 1000",
                alone.len()
            );
        }
    }
}
