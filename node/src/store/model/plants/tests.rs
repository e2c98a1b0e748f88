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

fn try_with(bug: Option<Bug>, history: &History) -> Result<usize, String> {
    run(&history.steps, history.seed, Watch::Always, bug, Story::Untold)
}

/// Each planted bug breaks a promise in one of the histories, and without it that history breaks none.
/// `docs/store.md` has the table that this prints.
#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let found = all_histories().take(HISTORIES_MAX).enumerate().find_map(|(at, history)| {
            let problem = try_with(Some(bug), &history).err()?;
            Some((at + 1, history, problem))
        });
        let Some((histories, history, problem)) = found else {
            missed.push(bug);
            continue;
        };
        println!("| `{bug:?}` | {histories} | {problem}");
        let without = try_with(None, &history);
        assert!(without.is_ok(), "history {histories}, without a bug: {without:?}\n{history:?}");
    }
    assert!(missed.is_empty(), "{missed:?} are not found in {HISTORIES_MAX} histories");
}
