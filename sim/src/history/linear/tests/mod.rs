//! Histories, by hand and by chance.

mod brute;
mod by_hand;
mod register;

use std::time::Duration;

use proto::{ObjectKey, Version};

use crate::history::{Condition, Found, Key, Op, OpIndex, Operation, Outcome, Receipt, ValueId};

/// An operation from event `call` to `ret`, without end when that is 0; each has a client of its own.
fn operation(call: u64, ret: u64, op: Op, outcome: Outcome) -> Operation {
    let name = ObjectKey::parse("key").unwrap();
    let ret = (ret > 0).then_some(ret);
    Operation {
        index: OpIndex(usize::try_from(call).unwrap()),
        client: u32::try_from(call).unwrap(),
        key: Key { bucket: 0, name },
        op,
        outcome,
        call,
        ret,
        began: Duration::from_millis(call),
        ended: ret.map(Duration::from_millis),
    }
}

fn put_if(condition: Condition, value: u64) -> Op {
    Op::Put { value: ValueId(value), size: 10, condition }
}

fn put(value: u64) -> Op {
    put_if(Condition::Any, value)
}

fn delete() -> Op {
    Op::Delete { condition: Condition::Any }
}

fn get() -> Op {
    Op::Get { range: None }
}

fn if_version(version: u64) -> Condition {
    Condition::IfVersion(Version(version))
}

fn acknowledged(version: u64) -> Outcome {
    let version = Version(version);
    Outcome::Acknowledged(Receipt { version, disks: 2, nodes: 2, racks: 1, slots_missing: 0 })
}

fn found(value: u64, version: u64) -> Outcome {
    Outcome::Read(Some(Found { value: Some(ValueId(value)), version: Version(version), size: 10 }))
}

fn found_version(version: u64) -> Outcome {
    Outcome::Read(Some(Found { value: None, version: Version(version), size: 10 }))
}

const NOTHING: Outcome = Outcome::Read(None);
const DELETED: Outcome = Outcome::Deleted { existed: true };
const NOT_DELETED: Outcome = Outcome::Deleted { existed: false };

/// Numbers drawn from a seed.
struct Draw(u64);

impl Draw {
    /// Below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % end
    }

    fn is(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }
}
