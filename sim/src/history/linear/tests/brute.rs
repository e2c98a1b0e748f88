//! The checker and a plain one agree on small histories.
//!
//! The plain one tries every order, every subset of the unknowns and every version they might have,
//! with none of the rules of the search.

use super::register::Run;
use super::*;
use crate::history::linear::{Limits, Verdict, check};

#[derive(Clone, Copy)]
struct Object {
    value: u64,
    size: u64,
    /// None: a version that nobody names.
    version: Option<u64>,
}

struct Brute<'a> {
    history: &'a [Operation],
    /// Every version that anybody names.
    versions: Vec<u64>,
}

impl Brute<'_> {
    fn is_linearizable(history: &[Operation]) -> bool {
        let mut versions: Vec<u64> = history.iter().flat_map(versions_of).collect();
        versions.sort_unstable();
        versions.dedup();
        let mut taken = vec![false; history.len()];
        Brute { history, versions }.can_go_on(&mut taken, None, 0)
    }

    fn can_go_on(&self, taken: &mut [bool], object: Option<Object>, version_max: u64) -> bool {
        let left = |index: &usize| !taken[*index] && is_definite(&self.history[*index]);
        let Some(end) = (0..taken.len()).filter(left).filter_map(|index| self.history[index].ret).min()
        else {
            return true;
        };
        for index in 0..taken.len() {
            if taken[index] || self.history[index].call > end {
                continue;
            }
            taken[index] = true;
            for next in self.effects(&self.history[index], object) {
                let version = next.and_then(|next| next.version);
                let is_new = match (next, object) {
                    (Some(next), Some(object)) => next.value != object.value,
                    (next, _) => next.is_some(),
                };
                if is_new && version.is_some_and(|version| version <= version_max) {
                    continue;
                }
                if self.can_go_on(taken, next, version.unwrap_or(0).max(version_max)) {
                    return true;
                }
            }
            taken[index] = false;
        }
        false
    }

    /// What may be there after an operation; nothing when it does not fit.
    fn effects(&self, operation: &Operation, object: Option<Object>) -> Vec<Option<Object>> {
        let holds = |condition: Condition| match condition {
            Condition::Any => true,
            Condition::MustNotExist => object.is_none(),
            Condition::IfVersion(version) => object.is_some_and(|object| object.version == Some(version.0)),
        };
        let when = |fits: bool, next: Option<Object>| if fits { vec![next] } else { vec![] };
        match (&operation.op, &operation.outcome) {
            (Op::Put { value, size, condition }, Outcome::Acknowledged(receipt)) => {
                let version = Some(receipt.version.0);
                when(holds(*condition), Some(Object { value: value.0, size: *size, version }))
            }
            (Op::Put { value, size, condition }, Outcome::Unknown) if holds(*condition) => {
                let versions = self.versions.iter().copied().map(Some).chain([None]);
                versions.map(|version| Some(Object { value: value.0, size: *size, version })).collect()
            }
            (Op::Put { condition, .. } | Op::Delete { condition }, Outcome::Refused) => {
                when(!holds(*condition), object)
            }
            (Op::Delete { condition }, Outcome::Deleted { existed }) => {
                when(holds(*condition) && *existed == object.is_some(), None)
            }
            (Op::Delete { condition }, Outcome::Unknown) => when(holds(*condition), None),
            (_, Outcome::Read(None)) => when(object.is_none(), None),
            (_, Outcome::Read(Some(found))) => {
                let fits = object.is_some_and(|object| {
                    found.value.is_none_or(|value| value.0 == object.value)
                        && Some(found.version.0) == object.version
                        && found.size == object.size
                });
                when(fits, object)
            }
            _ => vec![],
        }
    }
}

fn is_definite(operation: &Operation) -> bool {
    !matches!(operation.outcome, Outcome::Unknown | Outcome::Failed)
}

fn versions_of(operation: &Operation) -> Vec<u64> {
    let mut versions = Vec::new();
    match &operation.outcome {
        Outcome::Acknowledged(receipt) => versions.push(receipt.version.0),
        Outcome::Read(Some(found)) => versions.push(found.version.0),
        _ => {}
    }
    if let Op::Put { condition: Condition::IfVersion(version), .. }
    | Op::Delete { condition: Condition::IfVersion(version) } = &operation.op
    {
        versions.push(version.0);
    }
    versions
}

fn any_condition(draw: &mut Draw) -> Condition {
    match draw.below(6) {
        0 => Condition::MustNotExist,
        1 => if_version(1 + draw.below(4)),
        _ => Condition::Any,
    }
}

fn any_read(draw: &mut Draw) -> Outcome {
    if draw.is(25) {
        return NOTHING;
    }
    let value = draw.is(50).then(|| ValueId(draw.below(5)));
    let size = if draw.is(90) { 10 } else { 20 };
    Outcome::Read(Some(Found { value, version: Version(1 + draw.below(4)), size }))
}

/// Operations that overlap at random and are told anything at all.
fn anything(draw: &mut Draw) -> Vec<Operation> {
    let operations = 2 + draw.below(6);
    let mut events: Vec<u64> = (1..=2 * operations).collect();
    for index in (1..events.len()).rev() {
        events.swap(index, draw.index(index + 1));
    }
    if draw.is(50) {
        // Little overlap.
        events.chunks_mut(4).enumerate().for_each(|(chunk, events)| {
            events.iter_mut().zip(1..).for_each(|(event, at)| *event = 4 * chunk as u64 + at);
            let other = draw.index(events.len());
            events.swap(0, other);
        });
    }
    let mut history = Vec::new();
    for (value, pair) in events.chunks(2).enumerate() {
        let (call, ret) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
        let size = if draw.is(80) { 10 } else { 20 };
        let condition = any_condition(draw);
        let (op, outcome) = match draw.below(10) {
            0..4 => {
                let op = Op::Put { value: ValueId(value as u64), size, condition };
                let outcomes =
                    [acknowledged(1 + draw.below(4)), Outcome::Unknown, Outcome::Unknown, Outcome::Refused];
                (op, outcomes[draw.index(4)])
            }
            4..6 => {
                let outcomes = [DELETED, NOT_DELETED, Outcome::Unknown, Outcome::Refused];
                (Op::Delete { condition }, outcomes[draw.index(4)])
            }
            _ => (get(), any_read(draw)),
        };
        history.push(operation(call, ret, op, outcome));
    }
    history.sort_by_key(|operation| operation.call);
    history
}

/// Tells one operation something else.
fn mutate(history: &mut [Operation], draw: &mut Draw) {
    let index = draw.index(history.len());
    let end = history.iter().filter_map(|operation| operation.ret).max().unwrap_or(0).max(100) + 1;
    let other = history[draw.index(history.len())].outcome;
    let operation = &mut history[index];
    match operation.outcome {
        Outcome::Read(_) if matches!(other, Outcome::Read(_)) => operation.outcome = other,
        Outcome::Read(_) => operation.outcome = any_read(draw),
        Outcome::Deleted { existed } => operation.outcome = Outcome::Deleted { existed: !existed },
        Outcome::Refused => operation.outcome = Outcome::Unknown,
        Outcome::Acknowledged(_) => operation.outcome = acknowledged(1 + draw.below(8)),
        Outcome::Unknown if matches!(operation.op, Op::Delete { .. }) => operation.outcome = DELETED,
        _ => operation.outcome = Outcome::Failed,
    }
    operation.ret = operation.ret.or(Some(end));
}

fn compare(history: &[Operation], case: &str) -> bool {
    let brute = Brute::is_linearizable(history);
    let verdict = check(history, Limits::default());
    let story = || history.iter().map(|operation| format!("\n{operation}")).collect::<String>();
    match &verdict {
        Verdict::Linearizable { .. } => assert!(brute, "{case}: accepted wrongly:{}", story()),
        Verdict::Violation(explanation) => {
            assert!(!brute, "{case}: refused wrongly:{}\n{explanation}", story());
        }
        Verdict::TooHard { .. } => panic!("{case}: {verdict}:{}", story()),
    }
    brute
}

/// On histories of at most 7 operations told anything at all, the two verdicts are equal.
#[test]
fn agrees_with_brute_force_on_anything() {
    let mut good = 0;
    for seed in 0..60_000 {
        let history = anything(&mut Draw(seed));
        good += u32::from(compare(&history, &format!("seed {seed}")));
    }
    println!("{good} of 60000 are linearizable");
    assert!((2_000..58_000).contains(&good), "one verdict is hardly tried: {good} good");
}

/// On histories of a register, and with one or two outcomes changed, the two verdicts are equal.
#[test]
fn agrees_with_brute_force_on_mutants() {
    let mut good = 0;
    for seed in 0..30_000 {
        let mut draw = Draw(seed);
        let clients = 2 + draw.index(3);
        let mut history = Run::new(&mut draw, clients, 25).history(7);
        assert!(compare(&history, &format!("seed {seed}, as it was")), "seed {seed}: refused by brute force");
        for _ in 0..1 + draw.below(2) {
            mutate(&mut history, &mut draw);
        }
        good += u32::from(compare(&history, &format!("seed {seed}")));
    }
    println!("{good} of 30000 mutants are linearizable");
    assert!((2_000..28_000).contains(&good), "one verdict is hardly tried: {good} good");
}
