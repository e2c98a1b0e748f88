//! As many processes at once as there are cores.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What there is to do, and what becomes of it. Called by one worker at a time.
pub(crate) trait Work: Send {
    /// Something to do.
    type Task: Send;
    /// What came of it.
    type Done: Send;

    /// The next task; none when a worker that asks now is not needed any more.
    fn next(&mut self) -> Option<Self::Task>;

    /// A task has been done.
    fn finished(&mut self, task: Self::Task, done: Self::Done);
}

/// Does all of `work`, `jobs` tasks at a time. A task of which `perform` makes nothing was stopped: its
/// worker ends, and it counts as not done.
///
/// # Errors
///
/// The first error of `perform`; what is running then ends first.
pub(crate) fn run<W, P>(jobs: usize, work: &mut W, perform: &P) -> anyhow::Result<()>
where
    W: Work,
    P: Fn(&W::Task) -> anyhow::Result<Option<W::Done>> + Sync,
{
    let shared = Mutex::new((work, None));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(task) = next(&shared) {
                    match perform(&task) {
                        Ok(Some(done)) => lock(&shared).0.finished(task, done),
                        Ok(None) => break,
                        Err(error) => {
                            lock(&shared).1.get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    shared.into_inner().unwrap_or_else(PoisonError::into_inner).1.map_or(Ok(()), Err)
}

type Shared<'a, W> = Mutex<(&'a mut W, Option<anyhow::Error>)>;

fn lock<'a, 'w, W>(shared: &'a Shared<'w, W>) -> MutexGuard<'a, (&'w mut W, Option<anyhow::Error>)> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nothing more after an error.
fn next<W: Work>(shared: &Shared<'_, W>) -> Option<W::Task> {
    let mut shared = lock(shared);
    if shared.1.is_some() { None } else { shared.0.next() }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Squares {
        next: u64,
        done: Vec<(u64, u64)>,
    }

    impl Work for Squares {
        type Task = u64;
        type Done = u64;

        fn next(&mut self) -> Option<u64> {
            self.next += 1;
            (self.next <= 100).then_some(self.next)
        }

        fn finished(&mut self, task: u64, done: u64) {
            self.done.push((task, done));
        }
    }

    /// Every task is done once, however many workers there are.
    #[test]
    fn everything_is_done_once() {
        for jobs in [0, 1, 7] {
            let mut work = Squares { next: 0, done: Vec::new() };
            run(jobs, &mut work, &|task| Ok(Some(task * task))).expect("done");
            work.done.sort_unstable();
            assert_eq!(work.done, (1..=100).map(|n| (n, n * n)).collect::<Vec<_>>(), "{jobs} jobs");
        }
    }

    /// An error ends the work and is told; a task that was stopped is not counted.
    #[test]
    fn errors_and_stops_end_the_work() {
        let mut work = Squares { next: 0, done: Vec::new() };
        let failed = run(1, &mut work, &|task| if *task == 5 { anyhow::bail!("five") } else { Ok(Some(0)) });
        assert_eq!(failed.expect_err("an error").to_string(), "five");
        assert_eq!(work.done.len(), 4);
        let mut work = Squares { next: 0, done: Vec::new() };
        run(1, &mut work, &|task| Ok((*task < 3).then_some(0))).expect("stopped");
        assert_eq!(work.done.len(), 2);
    }
}
