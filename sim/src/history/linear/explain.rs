//! Why a history is not linearizable, in as few operations as will do.
//!
//! First the shortest beginning that fails: what had not ended by then is taken as unknown. Histories
//! of a register stay such when cut, so halving finds it. Then operations are weakened, many at once and then
//! one by one, as long as the rest still fails: what changes nothing is left out, a put or delete becomes
//! one of unknown outcome. Both keep a good history good, so what is left is a fault by itself.

use std::fmt;

use super::super::operation::{Condition, Op, Operation, Outcome};
use super::Limits;
use super::problem::Problem;
use super::search::{Search, Searched};

/// Checks made while the operations are weakened.
const CHECKS_MAX: usize = 400;

/// Configurations of each of these checks.
const CONFIGURATIONS_MAX: usize = 5_000;

/// Operations that no atomic register explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Those that contradict each other, and the puts that they speak of, in the order of their begins.
    pub operations: Vec<Operation>,
    /// The one whose end cannot be explained: up to its end, and without it, all could be.
    pub last: Operation,
    /// Other puts and deletes that had begun by then; none of them helps, whether it took effect or not.
    pub others: usize,
    /// The contradiction in words, when it is a plain one.
    pub reason: Option<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "{reason}")?,
            None => f.write_str("no order explains what these operations were told")?,
        }
        for operation in &self.operations {
            let mark = if *operation == self.last { '>' } else { ' ' };
            write!(f, "\n{mark} {operation}")?;
        }
        match self.others {
            0 => Ok(()),
            others => {
                write!(f, "\n  (and {others} earlier or unknown puts and deletes, none of which helps)")
            }
        }
    }
}

impl Explanation {
    /// Of a history that is known to fail.
    pub(super) fn of(history: &[Operation], limits: Limits) -> Self {
        let end = shortest(history, limits);
        let begun: Vec<&Operation> = history.iter().filter(|operation| operation.call <= end).collect();
        let mut weak: Vec<bool> = begun.iter().map(|operation| !has_ended(operation, end)).collect();
        weaken(&begun, &mut weak, end);

        let strong: Vec<&Operation> = pick(&begun, &weak, false).collect();
        let is_told_of = |put: &&Operation| strong.iter().any(|other| speaks_of(other, put));
        let told_of: Vec<&Operation> =
            pick(&begun, &weak, true).filter(|other| other.op.is_write()).filter(is_told_of).collect();
        let mut operations: Vec<Operation> = strong.iter().chain(&told_of).copied().cloned().collect();
        operations.sort_by_key(|operation| (operation.call, operation.index));
        let writes = begun.iter().filter(|other| other.op.is_write() && other.outcome != Outcome::Failed);
        let shown = operations.iter().filter(|operation| operation.op.is_write());
        let others = writes.count().saturating_sub(shown.count());
        let reason = strong.iter().find_map(|operation| plain_reason(operation, history));
        let ended = begun.iter().filter(|operation| operation.ret == Some(end));
        let last = ended.chain(&begun).next().copied().or(history.first());
        assert!(last.is_some(), "an empty history fails");
        let last = last.cloned().unwrap_or_else(|| operations[0].clone());
        Self { operations, last, others, reason }
    }
}

/// The event at which the shortest beginning ends that fails.
fn shortest(history: &[Operation], limits: Limits) -> u64 {
    let mut ends: Vec<u64> = history.iter().filter_map(|operation| operation.ret).collect();
    ends.sort_unstable();
    // The whole fails; a beginning that is too hard counts as one that does not.
    let good = ends.partition_point(|end| {
        let begun: Vec<&Operation> = history.iter().filter(|operation| operation.call <= *end).collect();
        let weak: Vec<bool> = begun.iter().map(|operation| !has_ended(operation, *end)).collect();
        !fails(&begun, &weak, limits)
    });
    ends.get(good).or(ends.last()).copied().unwrap_or_default()
}

fn has_ended(operation: &Operation, end: u64) -> bool {
    operation.ret.is_some_and(|ret| ret <= end)
}

fn fails(begun: &[&Operation], weak: &[bool], limits: Limits) -> bool {
    let history: Vec<Operation> =
        begun.iter().zip(weak).filter_map(|(operation, weak)| as_weak(operation, *weak)).collect();
    let problem = Problem::of(&history);
    matches!(Search::new(&problem, limits).run(), Searched::Impossible)
}

fn as_weak(operation: &Operation, is_weak: bool) -> Option<Operation> {
    match operation.outcome {
        Outcome::Failed => None,
        _ if !is_weak => Some(operation.clone()),
        Outcome::Unknown | Outcome::Acknowledged(_) | Outcome::Deleted { .. } | Outcome::Refused
            if operation.op.is_write() =>
        {
            Some(Operation { outcome: Outcome::Unknown, ret: None, ..operation.clone() })
        }
        _ => None,
    }
}

/// Weakens what need not be strong: halves, quarters and so on, the oldest first.
fn weaken(begun: &[&Operation], weak: &mut Vec<bool>, end: u64) {
    let limits = Limits { configurations_max: CONFIGURATIONS_MAX };
    let is_strong = |weak: &[bool], index: usize| !weak[index] && begun[index].ret != Some(end);
    let mut length = begun.len();
    let mut checks = 0;
    while length > 0 {
        let strong: Vec<usize> = (0..begun.len()).filter(|index| is_strong(weak, *index)).collect();
        for part in strong.chunks(length) {
            checks += 1;
            if checks > CHECKS_MAX {
                return;
            }
            let mut weaker = weak.clone();
            part.iter().for_each(|index| weaker[*index] = true);
            if fails(begun, &weaker, limits) {
                *weak = weaker;
            }
        }
        length /= 2;
    }
}

fn pick<'a>(begun: &[&'a Operation], weak: &[bool], wanted: bool) -> impl Iterator<Item = &'a Operation> {
    begun.iter().zip(weak).filter(move |(_, weak)| **weak == wanted).map(|(operation, _)| *operation)
}

/// Does the outcome or the condition of an operation name this put?
fn speaks_of(operation: &Operation, put: &Operation) -> bool {
    let Op::Put { value, .. } = &put.op else { return false };
    let version = match &put.outcome {
        Outcome::Acknowledged(receipt) => Some(receipt.version),
        _ => None,
    };
    let condition = match &operation.op {
        Op::Put { condition: Condition::IfVersion(of), .. }
        | Op::Delete { condition: Condition::IfVersion(of) } => Some(*of),
        _ => None,
    };
    let found = match &operation.outcome {
        Outcome::Read(found) => *found,
        _ => None,
    };
    found.is_some_and(|found| found.value == Some(*value) || Some(found.version) == version)
        || (condition.is_some() && condition == version)
}

/// What one operation alone, or with the put that it saw, shows to be wrong.
fn plain_reason(operation: &Operation, history: &[Operation]) -> Option<String> {
    if operation.outcome == Outcome::Refused
        && let Op::Put { condition: Condition::Any, .. } | Op::Delete { condition: Condition::Any } =
            operation.op
    {
        return Some("a condition was refused that nobody made".to_owned());
    }
    let Outcome::Read(Some(found)) = &operation.outcome else { return None };
    let value = found.value?;
    let is_its = |put: &&Operation| matches!(put.op, Op::Put { value: of, .. } if of == value);
    let Some(put) = history.iter().find(is_its) else {
        return Some(format!("{value} was read and never put under this key"));
    };
    match (&put.op, &put.outcome) {
        (_, Outcome::Failed | Outcome::Refused) => {
            Some(format!("{value} was read, whose put had no effect: {}", put.outcome))
        }
        (Op::Put { size, .. }, _) if *size != found.size => {
            Some(format!("{value} was read with {} bytes and put with {size}", found.size))
        }
        (_, Outcome::Acknowledged(receipt)) if receipt.version != found.version => Some(format!(
            "{value} was read as version {} and acknowledged as version {}",
            found.version, receipt.version
        )),
        _ if operation.ret.is_some_and(|ret| ret < put.call) => {
            Some(format!("{value} was read before its put began"))
        }
        _ => None,
    }
}
