//! A page of a listing, read as what it says of each key.
//!
//! A page covers the keys from behind its token to its last entry, or to the end of the prefix when it
//! is the last one. Of a covered key it says what is there, or that nothing is. A key folded into a
//! listed prefix is not spoken of; one whose prefix is not listed is said to be absent.

use std::time::Duration;

use bytes::Bytes;
use proto::{ObjectKey, Version};

use super::operation::{Found, Key, Op, OpIndex, Operation, Outcome};

/// Which page of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageIndex(pub usize);

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Which bucket, as in [`Key::bucket`].
    pub bucket: u32,
    /// Only keys that begin so.
    pub prefix: Bytes,
    /// What keys are folded at, after the prefix; empty when they are not.
    pub delimiter: Bytes,
    /// The token of the page before; empty for the first.
    pub token: Bytes,
}

/// An object in a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub name: ObjectKey,
    /// Its version.
    pub version: Version,
    /// Its bytes.
    pub size: u64,
}

/// A page as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Objects, in the order of their keys.
    pub objects: Vec<Listed>,
    /// Prefixes that keys were folded into, in order.
    pub prefixes: Vec<Bytes>,
    /// Where the next page begins; empty on the last.
    pub token: Bytes,
}

/// A page that no service may give, whatever the objects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    /// Its entries are not in order, or one is there twice.
    #[error("page {}: {:?} does not come after the entry before it", .0.0, .1)]
    OutOfOrder(PageIndex, Bytes),
    /// An entry was not asked for, lies behind the page's own token, or should have been folded.
    #[error("page {}: {:?} does not belong in it", .0.0, .1)]
    Misplaced(PageIndex, Bytes),
    /// The next page would begin at or before this one.
    #[error("page {}: its token {:?} does not lead on", .0.0, .1)]
    Circular(PageIndex, Bytes),
    /// No key that was ever put begins so.
    #[error("page {}: no key was ever put under the prefix {:?}", .0.0, .1)]
    EmptyPrefix(PageIndex, Bytes),
}

/// A page in the ledger.
#[derive(Clone, Debug)]
pub(super) struct PageRead {
    pub(super) index: PageIndex,
    pub(super) op: OpIndex,
    pub(super) client: u32,
    pub(super) request: PageRequest,
    pub(super) page: Option<Page>,
    pub(super) call: u64,
    pub(super) ret: Option<u64>,
    pub(super) began: Duration,
    pub(super) ended: Option<Duration>,
}

impl PageRead {
    /// What the page says of a key; none when it does not speak of it, or never came.
    pub(super) fn says_of(&self, key: &Key) -> Option<Operation> {
        let page = self.page.as_ref()?;
        let name = key.name.as_bytes();
        if key.bucket != self.request.bucket || !self.request.covers(page, name) {
            return None;
        }
        if self.request.fold(name).is_some_and(|folded| page.prefixes.contains(&folded)) {
            return None;
        }
        let entry = page.objects.iter().find(|object| object.name == key.name);
        let found = entry.map(|entry| Found { value: None, version: entry.version, size: entry.size });
        Some(Operation {
            index: self.op,
            client: self.client,
            key: key.clone(),
            op: Op::List,
            outcome: Outcome::Read(found),
            call: self.call,
            ret: self.ret,
            began: self.began,
            ended: self.ended,
        })
    }

    /// The keys of the objects in it.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        let objects = self.page.iter().flat_map(|page| &page.objects);
        objects.map(|object| Key { bucket: self.request.bucket, name: object.name.clone() })
    }

    /// What is wrong with it whatever the objects. `is_put` tells whether any key of the bucket that
    /// begins with a prefix was ever put.
    pub(super) fn fault(&self, is_put: impl Fn(&Bytes) -> bool) -> Option<PageFault> {
        let page = self.page.as_ref()?;
        let request = &self.request;
        if !page.token.is_empty() && page.token <= request.token {
            return Some(PageFault::Circular(self.index, page.token.clone()));
        }
        let names: Vec<&Bytes> = page.objects.iter().map(|object| object.name.as_bytes()).collect();
        let folded: Vec<&Bytes> = page.prefixes.iter().collect();
        for entries in [&names, &folded] {
            if let Some(pair) = entries.windows(2).find(|pair| pair[0] >= pair[1]) {
                return Some(PageFault::OutOfOrder(self.index, pair[1].clone()));
            }
        }
        let stray = |name: &&&Bytes| !request.covers(page, name) || request.fold(name).is_some();
        if let Some(name) = names.iter().find(stray) {
            return Some(PageFault::Misplaced(self.index, (*name).clone()));
        }
        let stray =
            |name: &&&Bytes| !request.covers(page, name) || request.fold(name).as_ref() != Some(**name);
        if let Some(name) = folded.iter().find(stray) {
            return Some(PageFault::Misplaced(self.index, (*name).clone()));
        }
        let empty = folded.into_iter().find(|folded| !is_put(folded))?;
        Some(PageFault::EmptyPrefix(self.index, empty.clone()))
    }
}

impl PageRequest {
    /// Does the page speak of what lies at this place in the order of keys?
    fn covers(&self, page: &Page, name: &Bytes) -> bool {
        let is_behind_start = match self.fold(&self.token) {
            Some(folded) => name > &folded && !name.starts_with(&folded),
            None => self.token.is_empty() || name > &self.token,
        };
        let is_before_end = page.token.is_empty()
            || name <= &page.token
            || self.fold(&page.token).is_some_and(|folded| name.starts_with(&folded));
        name.starts_with(&self.prefix) && is_behind_start && is_before_end
    }

    /// What a key is folded into: itself up to and with the first delimiter after the prefix.
    fn fold(&self, name: &Bytes) -> Option<Bytes> {
        let rest = name.get(self.prefix.len()..).filter(|_| !self.delimiter.is_empty())?;
        let at = rest.windows(self.delimiter.len()).position(|window| window == self.delimiter)?;
        Some(name.slice(..self.prefix.len() + at + self.delimiter.len()))
    }
}
