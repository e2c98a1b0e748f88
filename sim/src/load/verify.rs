//! Is what was read what was put?
//!
//! A put names its value in the object's user metadata, so that an object without bytes has one too. What
//! the metadata service says of an object and the bytes that come from the disks must both agree with the
//! ledger, and hence with each other.

use std::ops::Range;

use client::ObjectInfo;

use crate::history::content::{Looks, Mismatch, Wrong, identify, verify};
use crate::history::{Key, Ledger, Op, Outcome, ValueId};

/// Under which name the user metadata tell the value.
pub const VALUE: &str = "value";

/// The value that an object's metadata name.
pub fn value_of(info: &ObjectInfo) -> Option<ValueId> {
    info.user_metadata.get(VALUE)?.parse().ok().map(ValueId)
}

/// Does what the service says of an object fit a put of its key? The value, if so.
///
/// # Errors
///
/// What does not fit, in words.
pub fn check_info(ledger: &Ledger, key: &Key, info: &ObjectInfo) -> Result<ValueId, String> {
    let said = || format!("{key}: {} of {} bytes, {:?}", info.version, info.size, info.user_metadata);
    if info.key != key.name {
        return Err(format!("{} was given for {}", info.key, said()));
    }
    let value = value_of(info).ok_or_else(|| format!("{} names no value", said()))?;
    let put = ledger.put_of(value).ok_or_else(|| format!("{}: {value} was never put", said()))?;
    if put.key != *key {
        return Err(format!("{}: that was put elsewhere, {}: {put}", said(), put.key));
    }
    match put.op {
        Op::Put { size, .. } if size == info.size => {}
        _ => return Err(format!("{} is not what was put: {put}", said())),
    }
    match &put.outcome {
        Outcome::Acknowledged(receipt) if receipt.version != info.version => {
            Err(format!("{} has another version than its receipt: {put}", said()))
        }
        Outcome::Refused | Outcome::Failed => {
            Err(format!("{} was said to have had no effect: {put}", said()))
        }
        _ => Ok(value),
    }
}

/// The part of an object of `size` bytes that `asked` means.
///
/// # Errors
///
/// What was asked for lies behind its end.
pub fn range_of(asked: Option<&Range<u64>>, size: u64) -> Result<Range<u64>, String> {
    let Some(Range { start, end }) = asked else { return Ok(0..size) };
    if start > end || (*start >= size && start != end) {
        return Err(format!("bytes {start} to {end} of an object of {size} bytes should have been refused"));
    }
    Ok((*start).min(size)..(*end).min(size))
}

/// The bytes of a value as they come, in order.
#[derive(Clone, Debug)]
pub struct Reading {
    key: Key,
    value: ValueId,
    size: u64,
    next: u64,
    end: u64,
}

impl Reading {
    /// Expects `range` of `value`, which has `size` bytes.
    pub fn new(key: &Key, value: ValueId, size: u64, range: Range<u64>) -> Self {
        Self { key: key.clone(), value, size, next: range.start, end: range.end }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// They are not those that follow: which is wrong, and whose it is.
    pub fn take(&mut self, ledger: &Ledger, bytes: &[u8]) -> Result<(), String> {
        let (from, length) = (self.next, u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.next = from.saturating_add(length);
        if let Err(mismatch) = verify(self.value, self.size, from, bytes) {
            return Err(self.explain(ledger, &mismatch, from, bytes));
        }
        if self.next > self.end {
            let text = format!("{}: bytes up to {} came where {} was the end", self.key, self.next, self.end);
            return Err(text);
        }
        Ok(())
    }

    /// There is no more.
    ///
    /// # Errors
    ///
    /// There should be.
    pub fn end(&self) -> Result<(), String> {
        if self.next == self.end {
            return Ok(());
        }
        let Self { key, value, next, end, .. } = self;
        Err(format!("{key}: {value} ended without an error at byte {next}, before byte {end}"))
    }

    fn explain(&self, ledger: &Ledger, mismatch: &Mismatch, from: u64, bytes: &[u8]) -> String {
        let whose = match mismatch.wrong {
            Wrong::Byte { looks: Looks::Value(value), .. } => Some(value),
            _ => identify(from, bytes).filter(|value| *value != self.value),
        };
        let whose = whose
            .and_then(|value| ledger.put_of(value))
            .map_or_else(String::new, |put| format!("; they are those of {}, {put}", put.key));
        format!("{}: bytes {from} to {}: {mismatch}{whose}", self.key, self.next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proto::{Timestamp, Version};

    use super::*;
    use crate::history::content::fill;
    use crate::history::{Condition, Receipt};
    use crate::load::choice::key_name;

    fn info(key: &Key, value: ValueId, size: u64, version: u64) -> ObjectInfo {
        ObjectInfo {
            key: key.name.clone(),
            version: Version(version),
            size,
            crc32c: 0,
            modified: Timestamp::ZERO,
            content_type: String::new(),
            user_metadata: BTreeMap::from([(VALUE.to_owned(), value.0.to_string())]),
        }
    }

    fn put(ledger: &mut Ledger, key: &Key, outcome: Outcome) -> ValueId {
        let value = ledger.new_value();
        let op = Op::Put { value, size: 100, condition: Condition::Any };
        let index = ledger.begin(1, key.clone(), op, Duration::ZERO);
        ledger.end(index, outcome, Duration::ZERO);
        value
    }

    fn acknowledged(version: u64) -> Outcome {
        let version = Version(version);
        Outcome::Acknowledged(Receipt { version, disks: 1, nodes: 1, racks: 1, slots_missing: 0 })
    }

    /// Only what was put under the key, whole and as the version of its receipt, is taken for it.
    #[test]
    fn infos_must_fit_a_put() {
        let (mut ledger, key, other) = (Ledger::new(), key_name(1), key_name(2));
        let value = put(&mut ledger, &key, acknowledged(7));
        assert_eq!(check_info(&ledger, &key, &info(&key, value, 100, 7)), Ok(value));
        for (key, info, why) in [
            (&key, info(&key, value, 99, 7), "size"),
            (&key, info(&key, value, 100, 8), "version"),
            (&key, info(&key, ValueId(77), 100, 7), "never put"),
            (&other, info(&other, value, 100, 7), "other key"),
            (&key, info(&other, value, 100, 7), "answer for another key"),
        ] {
            assert!(check_info(&ledger, key, &info).is_err(), "{why}");
        }
        for (outcome, is_right) in
            [(Outcome::Unknown, true), (Outcome::Failed, false), (Outcome::Refused, false)]
        {
            let value = put(&mut ledger, &key, outcome);
            let found = check_info(&ledger, &key, &info(&key, value, 100, 9));
            assert_eq!(found.is_ok(), is_right, "{outcome}: {found:?}");
        }
    }

    /// Bytes are taken in order, to the end and no further; wrong ones tell whose they are.
    #[test]
    fn bytes_must_follow() {
        let (mut ledger, key) = (Ledger::new(), key_name(1));
        let value = put(&mut ledger, &key, acknowledged(7));
        let stranger = put(&mut ledger, &key_name(2), acknowledged(8));
        let mut bytes = [0; 100];
        fill(value, 0, &mut bytes);
        let mut reading = Reading::new(&key, value, 100, 10..90);
        assert_eq!(reading.take(&ledger, &bytes[10..50]), Ok(()));
        assert!(reading.end().is_err());
        assert!(reading.clone().take(&ledger, &bytes[49..90]).is_err(), "a byte twice");
        assert!(reading.clone().take(&ledger, &bytes[50..91]).is_err(), "a byte too many");
        assert_eq!(reading.take(&ledger, &bytes[50..90]), Ok(()));
        assert_eq!(reading.end(), Ok(()));
        fill(stranger, 0, &mut bytes);
        let told = Reading::new(&key, value, 100, 0..100).take(&ledger, &bytes).unwrap_err();
        assert!(told.contains(&key_name(2).to_string()), "{told}");
    }

    /// Ranges mean what the client library says.
    #[test]
    fn ranges() {
        assert_eq!(range_of(None, 5), Ok(0..5));
        assert_eq!(range_of(Some(&(2..99)), 5), Ok(2..5));
        assert_eq!(range_of(Some(&(7..7)), 5), Ok(5..5));
        assert!(range_of(Some(&(5..6)), 5).is_err());
    }
}
