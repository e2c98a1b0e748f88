//! Every planted bug is found.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use simhost::Story;

use super::Bug;
use crate::store::model::history::{History, histories};
use crate::store::model::{Watch, run};

/// Histories that are tried with each bug.
const HISTORIES_MAX: usize = 3_000;

/// The histories, always the same ones.
fn all_histories() -> impl Iterator<Item = History> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[17; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = histories(40);
    std::iter::from_fn(move || Some(strategy.new_tree(&mut runner).unwrap().current()))
}

/// In how many histories a bug is found, and as what.
fn found(bug: Option<Bug>, histories_max: usize) -> Option<(usize, String)> {
    all_histories().take(histories_max).enumerate().find_map(|(at, history)| {
        let outcome = run(&history.steps, history.seed, Watch::Always, bug, Story::Untold);
        outcome.err().map(|problem| (at + 1, problem))
    })
}

/// Each planted bug breaks a promise in one of the histories; in the same histories, none is broken without a bug.
/// `docs/store.md` has the table that this prints.
#[test]
fn every_planted_bug_is_found() {
    let (mut most, mut missed) = (0, Vec::new());
    for bug in Bug::ALL {
        match found(Some(bug), HISTORIES_MAX) {
            Some((histories, problem)) => {
                most = most.max(histories);
                println!("| {bug:?} | {histories} | {problem}");
            }
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "{missed:?} are not found in {HISTORIES_MAX} histories");
    assert_eq!(found(None, most), None, "without a bug");
}
