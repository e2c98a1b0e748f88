//! Runs whose seeds once broke a promise, and what the simulator promises of itself.

use sim::run::{RunOptions, run};
use sim::verdict::{Kind, Report};
use simhost::Story;

fn run_seed(seed: u64, plant: Option<&str>) -> Report {
    let options = RunOptions { seed, plant: plant.map(str::to_owned), ..RunOptions::default() };
    run(&options, Story::Untold)
}

/// Groups without extents never left disks that stayed away; shards that were whole stayed missing, or were
/// not asked for; puts found no group as long as a node was silent; a metadata server acknowledged entries that
/// it had found in its log and not flushed; a lost slot waited for a disk that waited for the slot; nobody asked a disk
/// that came back for what it had kept; a disk that was gone counted as healthy; a command that had been carried out was refused; a
/// rebalance left groups out: what these seeds found was mended, and they keep every promise.
#[test]
fn seeds_that_found_bugs() {
    let seeds = [
        2,
        44,
        61,
        105,
        120,
        30_002,
        100_674,
        901_826,
        952_115,
        127_610_400_707,
        255_621_046_872,
        255_621_047_048,
        403_075_665_448,
        818_095_263_016,
        818_095_263_225,
    ];
    for seed in seeds {
        let report = run_seed(seed, None);
        assert!(report.findings.is_empty(), "seed {seed}: {:?}", report.findings);
        assert!(report.operations > 0, "seed {seed} did nothing");
    }
}

/// Data that vanish from all disks are noticed, and that is a matter of correctness.
#[test]
fn the_canary_is_found() {
    let report = run_seed(1, Some("canary"));
    assert_eq!(report.findings.first().map(|finding| finding.kind), Some(Kind::Correctness));
}

/// The same seed gives the same trace; another seed gives another.
#[test]
fn seeds_repeat() {
    let [once, again, other] = [7, 7, 8].map(|seed| run_seed(seed, None));
    assert_eq!((&once.trace_hash, once.events), (&again.trace_hash, again.events));
    assert_ne!(once.trace_hash, other.trace_hash);
}

/// What is left out stays out, and changes nothing else of the plan.
#[test]
fn options_leave_out() {
    let options =
        RunOptions { seed: 3, operations_max: Some(10), faults_max: Some(0), ..RunOptions::default() };
    let report = run(&options, Story::Untold);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let whole = run_seed(3, None);
    assert!(report.operations < whole.operations, "{} and {}", report.operations, whole.operations);
    assert_eq!(report.faults.values().sum::<u64>(), 0);
}
