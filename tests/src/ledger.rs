//! What was acknowledged, and what may therefore be found.

use std::collections::BTreeMap;

use client::{Bucket, GetError};
use os::Host;

use crate::Content;

/// Keys, each written by one writer at a time, and what was promised about them.
#[derive(Debug, Default)]
pub struct Ledger {
    keys: BTreeMap<String, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    acknowledged: Option<Content>,
    /// Sent and not, or not yet, acknowledged: may be found or not.
    open: Vec<Content>,
}

/// What reading everything back showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Objects that read back as acknowledged.
    pub right: usize,
    /// Unacknowledged puts whose object is there, whole.
    pub whole_unacknowledged: usize,
    /// Unacknowledged puts that left nothing.
    pub absent_unacknowledged: usize,
    /// Whatever breaks the promise, a line each.
    pub wrong: Vec<String>,
}

impl Ledger {
    /// Nothing written yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A put begins.
    pub fn begin(&mut self, key: &str, content: Content) {
        self.keys.entry(key.to_owned()).or_default().open.push(content);
    }

    /// A put was acknowledged.
    pub fn acknowledge(&mut self, key: &str, content: Content) {
        let entry = self.keys.entry(key.to_owned()).or_default();
        entry.open.retain(|open| *open != content);
        entry.acknowledged = Some(content);
    }

    /// Keys with an acknowledged object.
    pub fn acknowledged(&self) -> impl Iterator<Item = (&str, Content)> {
        self.keys.iter().filter_map(|(key, entry)| Some((key.as_str(), entry.acknowledged?)))
    }

    /// Reads every key back, several at a time.
    pub async fn read_back(&self, bucket: &Bucket<Host>) -> Verdict {
        use futures_util::{StreamExt, stream};
        let reads =
            self.keys.iter().map(|(key, entry)| async move { (key, entry, crate::get(bucket, key).await) });
        let mut verdict = Verdict::default();
        let mut reads = stream::iter(reads).buffer_unordered(6);
        while let Some((key, entry, read)) = reads.next().await {
            verdict.judge(key, entry, read.as_deref());
        }
        verdict
    }

    /// Reads every key back and fails when anything is not as promised.
    pub async fn check(&self, bucket: &Bucket<Host>, when: &str) {
        let verdict = self.read_back(bucket).await;
        assert!(
            verdict.wrong.is_empty(),
            "{when}: {} of {} keys are wrong:\n{}",
            verdict.wrong.len(),
            self.keys.len(),
            verdict.wrong.join("\n")
        );
        eprintln!(
            "{when}: {} objects right; unacknowledged: {} whole, {} absent",
            verdict.right, verdict.whole_unacknowledged, verdict.absent_unacknowledged
        );
    }
}

impl Verdict {
    fn judge(&mut self, key: &str, entry: &Entry, read: Result<&[u8], &GetError>) {
        let matches = |content: &Content, bytes| content.difference(bytes).is_none();
        match (read, &entry.acknowledged) {
            (Ok(bytes), Some(acknowledged)) if matches(acknowledged, bytes) => self.right += 1,
            (Ok(bytes), _) if entry.open.iter().any(|open| matches(open, bytes)) => {
                self.whole_unacknowledged += 1;
            }
            (Err(GetError::NoSuchObject(_)), None) => self.absent_unacknowledged += 1,
            (Ok(bytes), Some(acknowledged)) => {
                let difference = acknowledged.difference(bytes).unwrap_or_default();
                self.wrong.push(format!("{key}: WRONG BYTES: {difference}"));
            }
            (Ok(bytes), None) => {
                self.wrong.push(format!("{key}: {} bytes that nobody wrote", bytes.len()));
            }
            (Err(error), Some(_)) => self.wrong.push(format!("{key}: acknowledged, but: {error}")),
            (Err(error), None) => self.wrong.push(format!("{key}: cannot tell whether it is there: {error}")),
        }
    }
}
