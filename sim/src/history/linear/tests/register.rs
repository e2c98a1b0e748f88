//! A correct register under concurrent clients, delays and lost answers.

use super::*;
use crate::history::linear::{Limits, Verdict, check};

struct Pending {
    operation: Operation,
    /// What it was told at its instant; none before.
    told: Option<Outcome>,
}

/// Clients that work on one register.
pub(super) struct Run<'a> {
    draw: &'a mut Draw,
    clients: usize,
    /// How often, in percent, an answer is lost.
    lost: u64,
    object: Option<(u64, u64)>,
    version: u64,
    event: u64,
    pending: Vec<Pending>,
    /// Their client is gone.
    orphans: Vec<Pending>,
    ended: Vec<Operation>,
}

impl<'a> Run<'a> {
    pub(super) fn new(draw: &'a mut Draw, clients: usize, lost: u64) -> Self {
        let (pending, orphans, ended) = (Vec::new(), Vec::new(), Vec::new());
        Self { draw, clients, lost, object: None, version: 0, event: 0, pending, orphans, ended }
    }

    /// `operations` of them, those of unknown outcome included.
    pub(super) fn history(mut self, operations: usize) -> Vec<Operation> {
        let mut begun = 0;
        while begun < operations || !self.pending.is_empty() {
            if begun < operations && self.pending.len() < self.clients && self.draw.is(40) {
                begun += 1;
                self.begin(begun);
            } else if !self.orphans.is_empty() && self.draw.is(5) {
                let mut orphan = self.orphans.swap_remove(self.draw.index(self.orphans.len()));
                self.happen(&mut orphan);
            } else if !self.pending.is_empty() {
                let pending = self.pending.swap_remove(self.draw.index(self.pending.len()));
                self.go_on(pending);
            }
        }
        self.ended.sort_by_key(|operation| operation.call);
        self.ended
    }

    fn begin(&mut self, value: usize) {
        self.event += 1;
        let known = 1 + self.draw.below(self.version + 1);
        let current = self.object.map_or(known, |(_, version)| version);
        let condition = match self.draw.below(10) {
            0 | 1 => Condition::MustNotExist,
            2 => if_version(known),
            3 | 4 => if_version(current),
            _ => Condition::Any,
        };
        let op = match self.draw.below(10) {
            0..4 => put_if(condition, value as u64),
            4..6 => Op::Delete { condition },
            6 => Op::Head,
            _ => get(),
        };
        let operation = operation(self.event, 0, op, Outcome::Unknown);
        self.pending.push(Pending { operation, told: None });
    }

    fn go_on(&mut self, mut pending: Pending) {
        if self.draw.is(self.lost / 2) {
            self.ended.push(pending.operation.clone());
            if pending.told.is_none() {
                self.orphans.push(pending);
            }
            return;
        }
        match pending.told {
            None => {
                self.happen(&mut pending);
                self.pending.push(pending);
            }
            Some(outcome) => {
                self.event += 1;
                let Operation { call, op, .. } = pending.operation;
                self.ended.push(operation(call, self.event, op, outcome));
            }
        }
    }

    /// The instant of an operation.
    fn happen(&mut self, pending: &mut Pending) {
        let holds = |condition: &Condition| match condition {
            Condition::Any => true,
            Condition::MustNotExist => self.object.is_none(),
            Condition::IfVersion(of) => self.object.is_some_and(|(_, version)| version == of.0),
        };
        let outcome = match &pending.operation.op {
            Op::Put { condition, .. } | Op::Delete { condition } if !holds(condition) => Outcome::Refused,
            Op::Put { value, .. } => {
                self.version += 1 + self.draw.below(2);
                self.object = Some((value.0, self.version));
                acknowledged(self.version)
            }
            Op::Delete { .. } => Outcome::Deleted { existed: self.object.take().is_some() },
            Op::Head => self.object.map_or(NOTHING, |(_, version)| found_version(version)),
            Op::Get { .. } | Op::List => {
                self.object.map_or(NOTHING, |(value, version)| found(value, version))
            }
        };
        pending.told = Some(outcome);
    }
}

/// Whatever a correct register does is accepted, with many clients and many lost answers.
#[test]
fn a_register_is_always_accepted() {
    for seed in 0..3_000 {
        let mut draw = Draw(seed);
        let (clients, lost) = (1 + draw.index(16), draw.below(40));
        let operations = 1 + draw.index(120);
        let history = Run::new(&mut draw, clients, lost).history(operations);
        let verdict = check(&history, Limits::default());
        assert!(
            matches!(verdict, Verdict::Linearizable { .. }),
            "seed {seed}, {clients} clients, {lost} % lost: {verdict}"
        );
    }
}

/// A long history of a hot key is decided within few configurations, good or with one stale read.
#[test]
fn long_histories_are_decided() {
    for seed in 0..40 {
        let mut draw = Draw(seed);
        let lost = [0, 2, 5, 20][draw.index(4)];
        let mut history = Run::new(&mut draw, 16, lost).history(2_000);
        let verdict = check(&history, Limits { configurations_max: 100_000 });
        let Verdict::Linearizable { configurations } = verdict else { panic!("seed {seed}: {verdict}") };

        let is_get = |operation: &&Operation| matches!(operation.outcome, Outcome::Read(Some(found)) if found.value.is_some());
        let early = history.iter().filter(is_get).nth(5).unwrap().outcome;
        let late = history.iter_mut().rev().find(|operation| is_get(&&**operation)).unwrap();
        late.outcome = early;
        match check(&history, Limits { configurations_max: 100_000 }) {
            Verdict::Violation(explanation) => {
                let shown = explanation.operations.len();
                println!(
                    "seed {seed}, {lost} % lost: {configurations} tried; {shown} operations explain the stale read"
                );
                assert!(shown <= 12, "seed {seed}: {explanation}");
            }
            verdict => panic!("seed {seed}: {verdict}"),
        }
    }
}
