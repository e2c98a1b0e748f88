//! Looks for planted bugs, seed by seed, until each is found.
//!
//! A bug counts as found by a seed only if the same seed without it keeps every promise: a seed that
//! fails by itself proves nothing.

use std::time::{Duration, Instant};

use super::case::Case;
use super::pool::{self, Work};
use super::program::Program;
use super::progress::Progress;
use super::report::Finding;
use super::stop::Stop;

/// A planted bug that is looked for.
#[derive(Clone, Debug)]
pub(crate) struct Bug {
    /// Its name.
    pub(crate) name: String,
    /// The mistake it stands for.
    pub(crate) meaning: String,
    /// The next seed to try.
    next_seed: u64,
    /// The seed that found it, and how.
    pub(crate) found: Option<(u64, Finding)>,
    /// Seeds that fail without the bug, too.
    pub(crate) fail_anyway: Vec<u64>,
    /// Real time of all runs with it.
    pub(crate) took: Duration,
}

impl Bug {
    /// A bug, as the simulator lists it, that nobody has looked for yet.
    pub(crate) fn listed(line: &str) -> Self {
        let (name, meaning) = line.split_once(": ").unwrap_or((line, ""));
        Self {
            name: name.to_owned(),
            meaning: meaning.to_owned(),
            next_seed: 1,
            found: None,
            fail_anyway: Vec::new(),
            took: Duration::ZERO,
        }
    }
}

/// What came of one seed with one bug.
pub(crate) struct Attempt {
    /// What was found with the bug.
    pub(crate) finding: Option<Finding>,
    /// The seed fails without the bug, too.
    pub(crate) fails_anyway: bool,
    took: Duration,
}

/// Tries a seed with a bug; none when it was stopped.
///
/// # Errors
///
/// When the simulator cannot be started.
pub(crate) fn attempt(program: &Program, seed: u64, bug: &str) -> anyhow::Result<Option<Attempt>> {
    let Some(run) = program.run(&Case::planted(seed, bug))? else { return Ok(None) };
    let finding = run.report.worst().cloned();
    let fails_anyway = if finding.is_some() {
        let Some(plain) = program.run(&Case::of_campaign(seed))? else { return Ok(None) };
        plain.report.worst().is_some()
    } else {
        false
    };
    Ok(Some(Attempt { finding, fails_anyway, took: run.took }))
}

/// Bugs that are looked for.
pub(crate) struct Hunt {
    bugs: Vec<Bug>,
    limit: u64,
    deadline: Option<Instant>,
    stop: Stop,
    progress: Progress,
}

impl Hunt {
    /// Looks for `bugs` with the seeds from 1 to `limit`, one bug after the other, each with as many
    /// seeds at once as there are jobs, and gives up after `time`.
    ///
    /// # Errors
    ///
    /// When the simulator cannot be started.
    pub(crate) fn run(
        program: &Program,
        bugs: Vec<Bug>,
        limit: u64,
        time: Option<Duration>,
        jobs: usize,
    ) -> anyhow::Result<Vec<Bug>> {
        let deadline = time.map(|time| Instant::now() + time);
        let progress = Progress::new("planted bugs", u64::try_from(bugs.len()).ok(), None)?;
        let mut hunt = Self { bugs, limit, deadline, stop: program.stop().clone(), progress };
        pool::run(jobs, &mut hunt, &|task: &Task| attempt(program, task.seed, &task.name))?;
        Ok(hunt.bugs)
    }
}

/// A seed to try with a bug.
pub(crate) struct Task {
    bug: usize,
    name: String,
    seed: u64,
}

impl Work for Hunt {
    type Task = Task;
    type Done = Attempt;

    fn next(&mut self) -> Option<Task> {
        if self.stop.is_asked() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return None;
        }
        let open = |bug: &Bug| bug.found.is_none() && bug.next_seed <= self.limit;
        let index = self.bugs.iter().position(open)?;
        let bug = &mut self.bugs[index];
        let seed = bug.next_seed;
        bug.next_seed += 1;
        self.progress.note(index, format!("{}, seed {seed}", bug.name));
        Some(Task { bug: index, name: bug.name.clone(), seed })
    }

    fn finished(&mut self, task: Task, attempt: Attempt) {
        let bug = &mut self.bugs[task.bug];
        bug.took += attempt.took;
        let Some(finding) = attempt.finding else { return };
        if attempt.fails_anyway {
            self.progress.say(&format!("seed {} fails without {}, too", task.seed, bug.name));
            bug.fail_anyway.push(task.seed);
        } else if bug.found.as_ref().is_none_or(|(seed, _)| task.seed < *seed) {
            // A seed that began earlier may end later: the lowest counts.
            self.progress.say(&format!("{} found by seed {}: {}", bug.name, task.seed, finding.checker));
            bug.found = Some((task.seed, finding));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::report::Kind;

    fn hunt(limit: u64) -> Hunt {
        let bugs = vec![Bug::listed("a: one"), Bug::listed("b: other")];
        let progress = Progress::new("test", Some(2), None).expect("a bar");
        Hunt { bugs, limit, deadline: None, stop: Stop::default(), progress }
    }

    fn result(found: bool, fails_anyway: bool) -> Attempt {
        let finding = Finding { kind: Kind::Crash, checker: "c".into(), text: String::new(), at_ms: 0 };
        Attempt { finding: found.then_some(finding), fails_anyway, took: Duration::from_secs(1) }
    }

    /// Seeds are tried in order until one finds the bug; the lowest of those that run at once counts, and
    /// one that fails without the bug does not.
    #[test]
    fn the_lowest_seed_counts() {
        let mut hunt = hunt(100);
        let mut tasks: Vec<Task> = (0..4).filter_map(|_| hunt.next()).collect();
        assert_eq!(tasks.iter().map(|task| task.seed).collect::<Vec<_>>(), [1, 2, 3, 4]);
        let fourth = tasks.remove(3);
        hunt.finished(fourth, result(true, false));
        for (task, attempt) in
            tasks.into_iter().zip([result(true, true), result(true, false), result(true, false)])
        {
            hunt.finished(task, attempt);
        }
        let bug = &hunt.bugs[0];
        assert_eq!(bug.found.as_ref().map(|(seed, _)| *seed), Some(2));
        assert_eq!((bug.fail_anyway.as_slice(), bug.took), ([1].as_slice(), Duration::from_secs(4)));
        assert_eq!(hunt.next().map(|task| (task.name, task.seed)), Some(("b".to_owned(), 1)));
    }

    /// A bug that no seed finds does not keep the next one waiting for ever.
    #[test]
    fn the_limit_ends_a_search() {
        let mut hunt = hunt(2);
        let mut tried = Vec::new();
        while let Some(task) = hunt.next() {
            tried.push((task.bug, task.seed));
            hunt.finished(task, result(false, false));
        }
        assert_eq!(tried, [(0, 1), (0, 2), (1, 1), (1, 2)]);
    }
}
