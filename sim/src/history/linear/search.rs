//! The search for an order.
//!
//! An operation may come next when no other that ended before it began is left. The search keeps the
//! set of those taken, and the state. The rules that keep it small:
//!
//! **What changes nothing is taken as soon as it fits.** If it comes later in some order, it can be
//! moved here: it fits, nothing that must precede it is left, and the others do not notice.
//!
//! **Named versions come in their order**, so that a put whose name is not the lowest of the certain
//! ones left would leave one that can never be put.
//!
//! **A state is not left while somebody must still see it**, since each value is put once.
//!
//! **An operation without outcome is taken only if the next needs it.** Take an order with as few of
//! them as can be, and let the first rule move what it moves. If the operation after one, `u`, fits
//! without `u` and its effect does not depend on what was there before, `u` can be left out: what follows
//! is as before, and versions only have more room. So the next one, `r`, fits after `u` and not before it;
//! it may come next at once, for `u`, having no end, precedes nothing. If `r` changes something, nothing
//! may come between; hence after a `u` that no observation took up only an operation with a condition,
//! or a delete that found something, is tried.
//!
//! **Of those that are alike, the oldest.** Once begun, an operation without outcome stays possible for
//! ever; so two that do the same under the same condition can change places wherever both are possible.
//!
//! Sets are remembered by a 128-bit sum of words drawn for each member (Zobrist 1970). Two sets with one sum
//! among a million would be a chance of 10^-26, and the draw is fixed, so a verdict repeats.

use std::collections::BTreeSet;

use super::Limits;
use super::problem::{Cond, Effect, Problem, State, Step};

/// What came of the search.
pub(super) enum Searched {
    Found { configurations: usize },
    Impossible,
    GaveUp { configurations: usize },
}

/// The state, and what else of the past matters besides the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Now {
    state: State,
    /// Names below this one have been, or will never be.
    next_name: usize,
    /// An operation without outcome made this state and nobody has needed it yet.
    is_unused: bool,
}

#[derive(Clone, Copy, Debug)]
enum Taken {
    Definite(usize),
    Class(usize),
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Definite(usize),
    Class(usize, State),
}

/// A configuration under way: how to get back before it, and what is left to try.
struct Frame {
    before: Now,
    taken_before: usize,
    moves: Vec<Move>,
}

pub(super) struct Search<'a> {
    problem: &'a Problem,
    limits: Limits,
    /// By name: the first certain name from it on.
    certain_from: Vec<usize>,
    now: Now,
    done: Vec<bool>,
    /// All before are done.
    low: usize,
    left: usize,
    /// By class: how many were taken.
    used: Vec<usize>,
    /// By name: definite operations left that only it fits.
    needs: Vec<usize>,
    /// In the order of their taking.
    taken: Vec<Taken>,
    sum: u128,
    seen: BTreeSet<u128>,
}

impl<'a> Search<'a> {
    pub(super) fn new(problem: &'a Problem, limits: Limits) -> Self {
        let mut needs = vec![0; problem.names.len()];
        for name in problem.definite.iter().filter_map(|definite| definite.step.needs()) {
            needs[name] += 1;
        }
        let mut certain_from = vec![problem.names.len(); problem.names.len() + 1];
        for (index, name) in problem.names.iter().enumerate().rev() {
            certain_from[index] = if name.is_certain { index } else { certain_from[index + 1] };
        }
        Self {
            problem,
            limits,
            certain_from,
            now: Now { state: State::Absent, next_name: 0, is_unused: false },
            done: vec![false; problem.definite.len()],
            low: 0,
            left: problem.definite.len(),
            used: vec![0; problem.classes.len()],
            needs,
            taken: Vec::new(),
            sum: 0,
            seen: BTreeSet::new(),
        }
    }

    pub(super) fn run(mut self) -> Searched {
        let mut frames = Vec::new();
        let before = self.now;
        self.enter(before, 0, &mut frames);
        while self.left > 0 {
            if self.seen.len() > self.limits.configurations_max {
                return Searched::GaveUp { configurations: self.seen.len() };
            }
            let Some(frame) = frames.last_mut() else { return Searched::Impossible };
            if let Some(next) = frame.moves.pop() {
                let (before, taken_before) = (self.now, self.taken.len());
                self.make(next);
                self.enter(before, taken_before, &mut frames);
            } else {
                let (before, taken_before) = (frame.before, frame.taken_before);
                frames.pop();
                self.go_back(before, taken_before);
            }
        }
        Searched::Found { configurations: self.seen.len() }
    }

    /// Takes what fits, and stays if the configuration is new.
    fn enter(&mut self, before: Now, taken_before: usize, frames: &mut Vec<Frame>) {
        self.observe();
        if self.left == 0 {
            return;
        }
        if self.seen.insert(self.sum ^ self.now.word()) {
            let moves = self.moves();
            frames.push(Frame { before, taken_before, moves });
        } else {
            self.go_back(before, taken_before);
        }
    }

    fn go_back(&mut self, before: Now, taken_before: usize) {
        while self.taken.len() > taken_before {
            let Some(taken) = self.taken.pop() else { break };
            match taken {
                Taken::Definite(index) => {
                    self.sum ^= word(index, usize::MAX);
                    self.done[index] = false;
                    self.low = self.low.min(index);
                    self.left += 1;
                    if let Some(name) = self.problem.definite[index].step.needs() {
                        self.needs[name] += 1;
                    }
                }
                Taken::Class(class) => {
                    self.used[class] -= 1;
                    self.sum ^= word(self.used[class], class);
                }
            }
        }
        self.now = before;
    }

    /// The definite operations that may come next, and the end before which others must begin.
    fn open(&mut self) -> (Vec<usize>, u64) {
        while self.done.get(self.low) == Some(&true) {
            self.low += 1;
        }
        let mut open = Vec::new();
        let mut end = u64::MAX;
        for (index, definite) in self.problem.definite.iter().enumerate().skip(self.low) {
            if definite.call > end {
                break;
            }
            if !self.done[index] {
                open.push(index);
                end = end.min(definite.ret);
            }
        }
        // Those found before the earliest end was known all begin before it: begins are in order.
        (open, end)
    }

    fn observe(&mut self) {
        loop {
            let taken_before = self.taken.len();
            for index in self.open().0 {
                let step = self.problem.definite[index].step;
                if matches!(step, Step::Observe(_)) && step.fits(self.now.state) {
                    self.take(index);
                    self.now.is_unused = false;
                }
            }
            if self.taken.len() == taken_before {
                return;
            }
        }
    }

    fn take(&mut self, index: usize) {
        self.sum ^= word(index, usize::MAX);
        self.done[index] = true;
        self.left -= 1;
        if let Some(name) = self.problem.definite[index].step.needs() {
            self.needs[name] -= 1;
        }
        self.taken.push(Taken::Definite(index));
    }

    fn make(&mut self, next: Move) {
        let state = match next {
            Move::Definite(index) => {
                self.take(index);
                match self.problem.definite[index].step {
                    Step::Put { name, .. } => State::Named(name),
                    Step::Delete { .. } => State::Absent,
                    Step::Observe(_) => self.now.state,
                }
            }
            Move::Class(class, state) => {
                self.sum ^= word(self.used[class], class);
                self.used[class] += 1;
                self.taken.push(Taken::Class(class));
                state
            }
        };
        self.now.state = state;
        self.now.is_unused = matches!(next, Move::Class(..));
        if let State::Named(name) = state {
            self.now.next_name = name + 1;
        }
    }

    /// What may change the state next; the last is tried first.
    fn moves(&mut self) -> Vec<Move> {
        let (open, end) = self.open();
        let mut moves = Vec::new();
        for (class, of) in self.problem.classes.iter().enumerate() {
            let is_open = of.calls.get(self.used[class]).is_some_and(|call| *call < end);
            let is_used = !self.now.is_unused || of.cond != Cond::Any;
            if is_open && is_used && of.fits(self.now.state) && self.may_leave(None) {
                let states = self.results(of.effect).into_iter();
                let needed = states.filter(|state| self.is_needed(*state, &open, end));
                moves.extend(needed.map(|state| Move::Class(class, state)));
            }
        }
        for index in open {
            let step = self.problem.definite[index].step;
            let is_possible = match step {
                Step::Observe(_) => false,
                Step::Put { name, cond } => {
                    (!self.now.is_unused || cond != Cond::Any) && self.may_be_next(name)
                }
                Step::Delete { .. } => true,
            };
            if is_possible && step.fits(self.now.state) && self.may_leave(step.needs()) {
                moves.push(Move::Definite(index));
            }
        }
        moves
    }

    /// Has everybody seen the state who must, but for the one who leaves it?
    fn may_leave(&self, needed: Option<usize>) -> bool {
        match self.now.state {
            State::Named(name) => self.needs[name] == usize::from(needed == Some(name)),
            State::Absent | State::Anonymous => true,
        }
    }

    /// Is no certain name passed over?
    fn may_be_next(&self, name: usize) -> bool {
        name >= self.now.next_name && self.certain_from[self.now.next_name] >= name
    }

    /// The states that an operation without outcome may make.
    fn results(&self, effect: Effect) -> Vec<State> {
        match effect {
            Effect::Delete => vec![State::Absent],
            Effect::Named(name) if self.may_be_next(name) => vec![State::Named(name)],
            Effect::Named(_) => Vec::new(),
            Effect::Loose { size } => {
                let last = self.certain_from[self.now.next_name];
                let names = self.problem.names.iter().enumerate().skip(self.now.next_name);
                let within = names.take_while(|(index, _)| *index <= last);
                let may_be = within.filter(|(_, name)| name.may_be(size));
                let mut states: Vec<State> = may_be.map(|(index, _)| State::Named(index)).collect();
                states.push(State::Anonymous);
                states
            }
        }
    }

    /// Does something that may come next need this state, and not fit now?
    fn is_needed(&self, state: State, open: &[usize], end: u64) -> bool {
        let definite = open.iter().map(|index| self.problem.definite[*index].step);
        let mut classes = self.problem.classes.iter().zip(&self.used);
        definite.into_iter().any(|step| step.fits(state) && !step.fits(self.now.state))
            || classes.any(|(class, used)| {
                class.cond != Cond::Any
                    && class.calls.get(*used).is_some_and(|call| *call < end)
                    && class.fits(state)
                    && !class.fits(self.now.state)
            })
    }
}

impl Now {
    fn word(self) -> u128 {
        let state = match self.state {
            State::Absent => 0,
            State::Anonymous => 1,
            State::Named(name) => name + 2,
        };
        word(state * 2 + usize::from(self.is_unused), usize::MAX - 1) ^ word(self.next_name, usize::MAX - 2)
    }
}

/// A word for a member of a set of a kind.
fn word(member: usize, kind: usize) -> u128 {
    let seed = wide(member).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ mix(wide(kind));
    u128::from(mix(seed)) << 64 | u128::from(mix(seed ^ 0x5851_f42d_4c95_7f2d))
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// The end of SplitMix64.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
