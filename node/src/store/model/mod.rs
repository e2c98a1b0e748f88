//! The proof of the log store: histories on a simulated host, each step compared with a reference.
//!
//! [`history`] says what is asked of a store and when its host dies, [`machine`] does it, [`acts`] says what each
//! answer means, and [`reference`] what may be answered. After every step, and whenever the store has been opened
//! again, everything is looked at: each name is read whole and compared byte for byte, all pages of all listings, and
//! the accounts. At the end of a history the power fails and the index is lost; then compaction has to come to an
//! end, and once everything is deleted there has to be room again.

mod acts;
mod found;
mod history;
mod machine;
mod plants;
mod reference;
mod universe;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use simhost::{Death, Story};

use acts::Answer;
use history::{Doom, Fate, History, Operation, Step, When, histories};
use machine::{Look, Machine, ROOM_BYTES};
use plants::Bug;
use reference::{Act, Reference};
use universe::{NAMES, Shard};

/// Virtual time; no history takes that long.
const LIMIT: Duration = Duration::from_secs(100_000);
/// Compactions of an idle store until there is nothing left to compact.
const COMPACTIONS_MAX: usize = 100;
/// Worlds in which a history is tried that seems to fail: what a power loss leaves depends on all that came before,
/// so a shorter history fails in another world.
const WORLDS_OF_SUSPECTS: u64 = 12;

/// How closely a run is watched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// After every step, and through to an empty store.
    Always,
    /// When the store has been opened again.
    Reopened,
}

/// A store that runs, and what it may say.
struct Run {
    machine: Machine,
    reference: Reference,
    watch: Watch,
}

impl Run {
    async fn history(&mut self, steps: &[Step]) -> Result<(), String> {
        self.machine.open(Fate::Kept).await?;
        for (at, step) in steps.iter().enumerate() {
            self.machine.remember();
            self.step(step).await.map_err(|problem| format!("step {at}: {problem}"))?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::AtOnce(operations) => self.at_once(operations).await?,
            Step::Churn { shard, times } => {
                let (put, delete) = (Operation::Put(*shard), Operation::Delete { name: shard.name });
                for operation in [put, delete].iter().cycle().take(2 * usize::from(*times)) {
                    self.at_once(std::slice::from_ref(operation)).await?;
                }
            }
            Step::Dies(dooms) => self.machine.doom(dooms),
            Step::Close(fate) => {
                self.machine.close().await;
                if self.machine.is_alive() {
                    self.machine.open(*fate).await?;
                }
                return self.settle(true).await;
            }
            Step::Wait(ms) => self.machine.wait(Duration::from_millis(*ms)).await,
        }
        self.settle(self.watch == Watch::Always).await
    }

    /// Operations at the same time; none of a dead host's.
    async fn at_once(&mut self, operations: &[Operation]) -> Result<(), String> {
        if !self.machine.is_alive() {
            return Ok(());
        }
        let answers = self.machine.at_once(operations).await;
        if let ([operation], [Some(answer)]) = (operations, answers.as_slice()) {
            self.alone(operation, answer)?;
        }
        let mut all: Vec<Vec<Act>> = (0..NAMES).map(|_| Vec::new()).collect();
        for (operation, answer) in operations.iter().zip(&answers) {
            let acts = match answer {
                Some(answer) => {
                    self.room(operations, answer)?;
                    operation.answered(answer)?
                }
                None if self.machine.is_alive() => return Err(format!("{operation:?} was not answered")),
                None => operation.unanswered(),
            };
            acts.into_iter().for_each(|(name, act)| all[usize::from(name)].push(act));
        }
        let mut acts_of = (0..NAMES).zip(&all).filter(|(_, acts)| !acts.is_empty());
        acts_of.try_for_each(|(name, acts)| self.reference.happened(name, acts))
    }

    /// When nothing else happens, the sum of what was deleted is known.
    fn alone(&self, operation: &Operation, answer: &Answer) -> Result<(), String> {
        let Answer::Removed(Ok(removed)) = answer else { return Ok(()) };
        let expected = self.reference.removed(&operation.names());
        if expected == *removed {
            return Ok(());
        }
        Err(format!("{operation:?}: {expected:?} expected, {removed:?} answered"))
    }

    /// Nobody is refused for want of room while there is enough.
    fn room(&self, operations: &[Operation], answer: &Answer) -> Result<(), String> {
        if !answer.is_full() {
            return Ok(());
        }
        let bytes = |operation: &Operation| match operation {
            Operation::Put(shard) => shard.record_bytes(),
            _ => 0,
        };
        let wanted = self.reference.used_bytes_max() + operations.iter().map(bytes).sum::<u64>();
        if wanted > ROOM_BYTES {
            return Ok(());
        }
        Err(format!("{operations:?}: {} with {wanted} bytes at most", answer.told()))
    }

    /// Opens the store again if its host is dead, and looks at it then, or in any case.
    async fn settle(&mut self, mut look: bool) -> Result<(), String> {
        loop {
            if !self.machine.is_alive() {
                self.machine.reopen().await?;
                look = true;
            }
            if !look {
                return Ok(());
            }
            if let Some(look) = self.machine.look().await {
                return self.compare(look);
            }
        }
    }

    fn compare(&mut self, look: Look) -> Result<(), String> {
        let Look { reads, listed, held, groups, used_bytes, report } = look;
        for (read, answer) in reads {
            for (name, act) in read.answered(&answer)? {
                self.reference.happened(name, &[act])?;
            }
        }
        let reference = &self.reference;
        same("groups", &Ok(reference.groups()), &groups)?;
        for (group, stats) in listed {
            same(&format!("the list of group {group}"), &Ok(reference.listed(group)), &stats)?;
        }
        for (group, through, held) in held {
            let what = format!("what is held of group {group} up to {through}");
            same(&what, &Ok(reference.held(group, through)), &held)?;
        }
        let shards = reference.shards().len() as u64;
        same("used bytes", &reference.used_bytes(), &used_bytes)?;
        same("used bytes reported", &reference.used_bytes(), &report.used_bytes)?;
        same("shards reported", &shards, &report.shards)?;
        same("damaged blocks", &0, &report.damaged_blocks)?;
        same("failure", &None, &report.failure)
    }

    /// The power fails and the index is lost.
    async fn lose_all_but_the_log(&mut self) -> Result<(), String> {
        self.machine.lose_power();
        self.machine.open(Fate::Missing).await?;
        self.settle(true).await
    }

    /// Everything can be compacted, deleted, and written again.
    async fn empty(&mut self) -> Result<(), String> {
        let mut compactions = 0;
        loop {
            let answers = self.machine.at_once(&[Operation::Compact]).await;
            match answers.as_slice() {
                [Some(Answer::Compact(Ok(true)))] if compactions < COMPACTIONS_MAX => compactions += 1,
                [Some(Answer::Compact(Ok(false)))] => break,
                [Some(answer)] => return Err(format!("compaction {compactions}: {}", answer.told())),
                _ => return Err("a compaction was not answered".to_owned()),
            }
        }
        self.settle(true).await?;
        for name in [0, 1, 8, 9] {
            self.at_once(&[Operation::DeleteSlot { name }]).await?;
        }
        for name in 0..4 {
            self.at_once(&[Operation::Put(Shard { name, kind: universe::KINDS - 1 })]).await?;
        }
        self.settle(true).await?;
        same("shards in the end", &4, &self.reference.shards().len())
    }

    async fn end(&mut self) -> Result<(), String> {
        self.lose_all_but_the_log().await?;
        if self.watch == Watch::Reopened {
            return Ok(());
        }
        self.step(&Step::Close(Fate::Kept)).await?;
        self.empty().await?;
        self.lose_all_but_the_log().await
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, found: &T) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    Err(format!("{what}: {expected:?} expected, {found:?} found"))
}

/// Runs a history in the world of `seed`: how many of the deaths did not come, or what was broken.
fn run(history: &[Step], seed: u64, watch: Watch, bug: Option<Bug>, story: Story) -> Result<usize, String> {
    let world = machine::world(seed, story);
    let mut run = Run { machine: Machine::new(&world, bug), reference: Reference::new(), watch };
    let ran = catch_unwind(AssertUnwindSafe(|| {
        world.run(LIMIT, async {
            run.history(history).await?;
            let left = run.machine.dooms();
            run.end().await.map_err(|problem| format!("at the end: {problem}"))?;
            Ok(left)
        })
    }));
    let outcome = match ran {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(stuck)) => Err(format!("nothing happens any more: {stuck:?}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied());
            Err(format!("a panic: {}", text.unwrap_or("without a text")))
        }
    };
    let lines = world.last_lines();
    drop(run);
    world.end_of_days();
    outcome.map_err(|problem| {
        let story = if lines.is_empty() { String::new() } else { format!("\n{}", lines.join("\n")) };
        format!("seed {seed}: {problem}{story}")
    })
}

/// Every acknowledged shard is read back byte for byte after any crash, what was deleted stays deleted, nothing
/// unknown is there, listings are complete and in order, and the accounts are exact. `CADOLE_LOG_HISTORIES` says
/// how many histories are tried, `CADOLE_LOG_SEED` which: a number, the same histories each time.
#[test]
fn histories_keep_every_promise() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let cases = number("CADOLE_LOG_HISTORIES").and_then(|cases| u32::try_from(cases).ok());
    let config = Config {
        cases: cases.unwrap_or(256),
        rng_seed: RngSeed::Fixed(number("CADOLE_LOG_SEED").unwrap_or_default()),
        failure_persistence: None,
        max_shrink_iters: 4_000,
        max_shrink_time: 120_000,
        ..Config::default()
    };
    let suspect = AtomicBool::new(false);
    let outcome = TestRunner::new(config).run(&histories(40), |history: History| {
        let worlds = if suspect.load(Ordering::Relaxed) { WORLDS_OF_SUSPECTS } else { 1 };
        for seed in (history.seed..=u64::MAX).take(usize::try_from(worlds).unwrap()) {
            run(&history.steps, seed, Watch::Always, None, Story::Untold).map_err(|problem| {
                suspect.store(true, Ordering::Relaxed);
                TestCaseError::fail(problem)
            })?;
        }
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, history)) => {
            let seeds = (history.seed..=u64::MAX).take(usize::try_from(WORLDS_OF_SUSPECTS).unwrap());
            let mut told = seeds.map(|seed| run(&history.steps, seed, Watch::Always, None, Story::Kept));
            let story = told.find_map(Result::err).unwrap_or_default();
            panic!("{reason}\n{history:?}{story}");
        }
        Err(error) => panic!("{error}"),
    }
}

/// What stands in the log before each short history: a segment that is worth compacting.
fn preamble() -> Vec<Step> {
    let put = |name, kind| Step::AtOnce(vec![Operation::Put(Shard { name, kind })]);
    let delete = |name| Step::AtOnce(vec![Operation::Delete { name }]);
    vec![put(4, 8), put(5, 5), put(6, 8), delete(4)]
}

/// What short histories consist of.
fn alphabet() -> [Vec<Operation>; 6] {
    [
        vec![Operation::Put(Shard { name: 0, kind: 0 })],
        // Does not fit the segment that is open.
        vec![Operation::Put(Shard { name: 1, kind: 9 })],
        vec![Operation::Delete { name: 0 }],
        vec![Operation::DeleteExtent { name: 5 }],
        vec![Operation::Compact],
        vec![
            Operation::Put(Shard { name: 2, kind: 3 }),
            Operation::Put(Shard { name: 0, kind: 1 }),
            Operation::Delete { name: 6 },
        ],
    ]
}

/// All histories of up to `steps` steps of the alphabet.
fn short_histories(steps: usize) -> Vec<Vec<Step>> {
    let (mut all, mut longest) = (vec![Vec::new()], vec![Vec::new()]);
    for _ in 0..steps {
        let longer = |short: &Vec<Step>| {
            let short = short.clone();
            alphabet().map(|operations| {
                let mut history = short.clone();
                history.push(Step::AtOnce(operations));
                history
            })
        };
        longest = longest.iter().flat_map(longer).collect();
        all.extend(longest.iter().cloned());
    }
    all
}

/// Every short history keeps every promise, at whatever I/O its host dies.
#[test]
fn short_histories_exhaustively() {
    for history in short_histories(3) {
        for (death, after) in
            [(Death::Power, true), (Death::Power, false), (Death::Process, true), (Death::Process, false)]
        {
            for count in 0.. {
                let index = if count % 2 == 0 { Fate::Kept } else { Fate::Older(1) };
                let doom = Doom { when: When::Operations { count, after }, death, index };
                let mut steps = preamble();
                steps.push(Step::Dies(vec![doom]));
                steps.extend(history.iter().cloned());
                match run(&steps, count, Watch::Reopened, None, Story::Untold) {
                    Ok(0) => {}
                    // It ended before the host could die.
                    Ok(_) => break,
                    Err(problem) => panic!("{problem}\n{:?}", History { seed: count, steps }),
                }
            }
        }
    }
}
