//! A history, resolved: what each operation needs and does, in terms of few states.
//!
//! The states that can be told apart are: nothing; a put that somebody names by its version (a *name*);
//! any other put (*anonymous*). Nobody reads an anonymous put, so all of them are alike.
//!
//! A name is a version that a receipt, a read or a condition gives. It is *attributed* when a receipt,
//! or a read that got bytes, tells whose it is. Else it is an *orphan*: any put without receipt or name
//! of its own may have made it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::super::content::ValueId;
use super::super::operation::{Condition, Found, Op, Operation, Outcome};

/// What is under the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Absent,
    Anonymous,
    Named(usize),
}

/// A condition of a put or delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cond {
    Any,
    Absent,
    Named(usize),
    /// A version that nobody ever saw.
    Never,
}

/// What an operation that changes nothing needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Is(State),
    /// A refusal.
    Not(Cond),
    /// A delete that found nothing.
    AbsentAnd(Cond),
    /// What cannot be.
    Never,
}

/// An operation that must be taken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Observe(Want),
    Put {
        name: usize,
        cond: Cond,
    },
    /// Of what was there.
    Delete {
        cond: Cond,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Definite {
    pub(super) call: u64,
    pub(super) ret: u64,
    pub(super) step: Step,
}

/// What an operation without outcome would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// A put whose name is known.
    Named(usize),
    /// A put that is anonymous, or has an orphan's name if it has its size.
    Loose {
        size: u64,
    },
    Delete,
}

/// Operations without outcome that are alike.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub(super) effect: Effect,
    pub(super) cond: Cond,
    /// Their begins, in order.
    pub(super) calls: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    version: u64,
    /// Somebody certainly saw or made it. Else it is only in conditions of unknown outcome.
    pub(super) is_certain: bool,
    /// The put that made it.
    maker: Option<ValueId>,
    /// As reads give it; none when nobody does. Only of an orphan.
    size: Option<u64>,
}

impl Name {
    /// May a put without a name of its own, of `size` bytes, have made it?
    pub(super) fn may_be(&self, size: u64) -> bool {
        self.maker.is_none() && self.size.is_none_or(|of| of == size)
    }
}

pub(super) struct Problem {
    /// In the order of their begins.
    pub(super) definite: Vec<Definite>,
    pub(super) classes: Vec<Class>,
    /// In the order of their versions.
    pub(super) names: Vec<Name>,
}

impl State {
    pub(super) fn is_present(self) -> bool {
        self != Self::Absent
    }
}

impl Cond {
    pub(super) fn holds(self, state: State) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => state == State::Absent,
            Self::Named(name) => state == State::Named(name),
            Self::Never => false,
        }
    }
}

impl Step {
    /// Can it be taken in this state?
    pub(super) fn fits(self, state: State) -> bool {
        match self {
            Self::Observe(Want::Is(wanted)) => state == wanted,
            Self::Observe(Want::Not(cond)) => !cond.holds(state),
            Self::Observe(Want::AbsentAnd(cond)) => state == State::Absent && cond.holds(state),
            Self::Observe(Want::Never) => false,
            Self::Put { cond, .. } => cond.holds(state),
            Self::Delete { cond } => state.is_present() && cond.holds(state),
        }
    }

    /// The only name in whose state it can be taken, if there is one.
    pub(super) fn needs(self) -> Option<usize> {
        match self {
            Self::Observe(Want::Is(State::Named(name))) => Some(name),
            Self::Put { cond: Cond::Named(name), .. } | Self::Delete { cond: Cond::Named(name) } => {
                Some(name)
            }
            _ => None,
        }
    }
}

impl Class {
    /// Can one of them take effect in this state? A delete of nothing has none.
    pub(super) fn fits(&self, state: State) -> bool {
        self.cond.holds(state) && (self.effect != Effect::Delete || state.is_present())
    }
}

impl Problem {
    pub(super) fn of(history: &[Operation]) -> Self {
        let keys = history.windows(2).find(|pair| pair[0].key != pair[1].key);
        assert!(keys.is_none(), "a history of several keys: {keys:?}");
        let told = history.iter().find(|other| other.ret.is_none() && other.outcome != Outcome::Unknown);
        assert!(told.is_none(), "an outcome without an end: {told:?}");
        let names = Names::of(history);
        let mut definite = Vec::new();
        let mut classes: BTreeMap<(Effect, Cond), Vec<u64>> = BTreeMap::new();
        for operation in history {
            let call = operation.call;
            match (names.step(operation), operation.ret) {
                (Some(step), Some(ret)) => definite.push(Definite { call, ret, step }),
                _ => {
                    if let Some(class) = names.class(operation) {
                        classes.entry(class).or_default().push(call);
                    }
                }
            }
        }
        definite.sort_by_key(|definite: &Definite| definite.call);
        let class = |((effect, cond), mut calls): (_, Vec<u64>)| {
            calls.sort_unstable();
            Class { effect, cond, calls }
        };
        Self { definite, classes: classes.into_iter().map(class).collect(), names: names.names }
    }

    pub(super) fn unknown_len(&self) -> usize {
        self.classes.iter().map(|class| class.calls.len()).sum()
    }
}

/// The names of a history while it is resolved.
struct Names {
    names: Vec<Name>,
    by_version: BTreeMap<u64, usize>,
    puts: BTreeMap<ValueId, Put>,
}

struct Put {
    size: u64,
    /// The version of its receipt or, without one, of the first read of it.
    version: Option<u64>,
}

impl Names {
    fn of(history: &[Operation]) -> Self {
        let mut puts = puts(history);
        let mut makers: BTreeMap<u64, ValueId> = BTreeMap::new();
        for (value, put) in &puts {
            if let Some(version) = put.version {
                makers.entry(version).or_insert(*value);
            }
        }
        for found in history.iter().filter_map(found_of) {
            let (Some(value), version) = (found.value, found.version.0) else { continue };
            let Some(put) = puts.get_mut(&value).filter(|put| put.version.is_none()) else { continue };
            if let Entry::Vacant(free) = makers.entry(version) {
                free.insert(value);
                put.version = Some(version);
            }
        }
        let mut found: BTreeMap<u64, Name> = BTreeMap::new();
        for (version, is_certain, size) in history.iter().flat_map(mentions) {
            let maker = makers.get(&version).copied();
            let name = found.entry(version).or_insert(Name { version, is_certain, maker, size });
            name.is_certain |= is_certain;
            name.size = name.size.or(size);
        }
        let names: Vec<Name> = found.into_values().collect();
        let by_version = names.iter().enumerate().map(|(index, name)| (name.version, index)).collect();
        Self { names, by_version, puts }
    }

    /// What an operation that ended must have done; none when that is not known, or nothing.
    fn step(&self, operation: &Operation) -> Option<Step> {
        Some(match (&operation.op, &operation.outcome) {
            (Op::Put { condition, .. }, Outcome::Acknowledged(receipt)) => {
                let name = self.by_version.get(&receipt.version.0).copied()?;
                Step::Put { name, cond: self.cond(*condition) }
            }
            (Op::Put { condition, .. } | Op::Delete { condition }, Outcome::Refused) => {
                Step::Observe(Want::Not(self.cond(*condition)))
            }
            (Op::Delete { condition }, Outcome::Deleted { existed: true }) => {
                Step::Delete { cond: self.cond(*condition) }
            }
            (Op::Delete { condition }, Outcome::Deleted { existed: false }) => {
                Step::Observe(Want::AbsentAnd(self.cond(*condition)))
            }
            (_, Outcome::Read(None)) => Step::Observe(Want::Is(State::Absent)),
            (_, Outcome::Read(Some(found))) => Step::Observe(self.want(found)),
            _ => return None,
        })
    }

    /// What an operation without outcome would do; none when that cannot matter.
    fn class(&self, operation: &Operation) -> Option<(Effect, Cond)> {
        if operation.outcome != Outcome::Unknown {
            return None;
        }
        let (effect, cond) = match &operation.op {
            Op::Put { value, size, condition } => {
                let version = self.puts.get(value).and_then(|put| put.version);
                let name = version.and_then(|version| self.by_version.get(&version));
                let effect = match name {
                    Some(name) => Effect::Named(*name),
                    None => Effect::Loose { size: self.size_that_matters(*size) },
                };
                (effect, self.cond(*condition))
            }
            // It would delete nothing.
            Op::Delete { condition: Condition::MustNotExist } => return None,
            Op::Delete { condition } => (Effect::Delete, self.cond(*condition)),
            Op::Get { .. } | Op::Head | Op::List => return None,
        };
        (cond != Cond::Never).then_some((effect, cond))
    }

    /// Sizes that no orphan has are alike.
    fn size_that_matters(&self, size: u64) -> u64 {
        let is_known = self.names.iter().any(|name| name.maker.is_none() && name.size == Some(size));
        if is_known { size } else { u64::MAX }
    }

    fn cond(&self, condition: Condition) -> Cond {
        match condition {
            Condition::Any => Cond::Any,
            Condition::MustNotExist => Cond::Absent,
            Condition::IfVersion(version) => {
                self.by_version.get(&version.0).map_or(Cond::Never, |name| Cond::Named(*name))
            }
        }
    }

    fn want(&self, found: &Found) -> Want {
        let Some(index) = self.by_version.get(&found.version.0).copied() else { return Want::Never };
        let Some(name) = self.names.get(index) else { return Want::Never };
        let size = match name.maker {
            Some(maker) => self.puts.get(&maker).map(|put| put.size),
            None => name.size,
        };
        let is_right = size == Some(found.size) && found.value.is_none_or(|value| Some(value) == name.maker);
        if is_right { Want::Is(State::Named(index)) } else { Want::Never }
    }
}

fn puts(history: &[Operation]) -> BTreeMap<ValueId, Put> {
    let mut puts = BTreeMap::new();
    for operation in history {
        let Op::Put { value, size, .. } = &operation.op else { continue };
        let version = match &operation.outcome {
            Outcome::Acknowledged(receipt) => Some(receipt.version.0),
            Outcome::Unknown => None,
            // It made nothing.
            _ => continue,
        };
        let earlier = puts.insert(*value, Put { size: *size, version });
        assert!(earlier.is_none(), "{value} is put a second time: {operation}");
    }
    puts
}

fn found_of(operation: &Operation) -> Option<&Found> {
    match &operation.outcome {
        Outcome::Read(found) => found.as_ref(),
        _ => None,
    }
}

/// The versions that an operation shows to have been, whether for certain, and the size with it.
///
/// A refusal shows none: were its version no name, the refusal would only be easier to explain.
fn mentions(operation: &Operation) -> impl Iterator<Item = (u64, bool, Option<u64>)> {
    let made = match &operation.outcome {
        Outcome::Acknowledged(receipt) => Some((receipt.version.0, true, None)),
        Outcome::Read(Some(found)) => Some((found.version.0, true, Some(found.size))),
        _ => None,
    };
    let condition = match &operation.op {
        Op::Put { condition, .. } | Op::Delete { condition } => *condition,
        _ => Condition::Any,
    };
    let is_certain = matches!(operation.outcome, Outcome::Acknowledged(_) | Outcome::Deleted { .. });
    let needed = match condition {
        Condition::IfVersion(version) if is_certain || operation.outcome == Outcome::Unknown => {
            Some((version.0, is_certain, None))
        }
        _ => None,
    };
    made.into_iter().chain(needed)
}
