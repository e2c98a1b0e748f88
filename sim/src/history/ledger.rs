//! The record of what all clients asked and were told.
//!
//! A plain struct; its owner puts it in a lock. The order of its calls is taken as the order of time:
//! whoever ends an operation before beginning another must call in that order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::content::ValueId;
use super::operation::{Key, Op, OpIndex, Operation, Outcome};
use super::page::{Page, PageFault, PageIndex, PageRead, PageRequest};

/// Every operation of every client.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    operations: Vec<Operation>,
    pages: Vec<PageRead>,
    puts: BTreeMap<ValueId, OpIndex>,
    values: u64,
    events: u64,
}

impl Ledger {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value that was never given out before.
    pub fn new_value(&mut self) -> ValueId {
        self.values += 1;
        ValueId(self.values)
    }

    /// `client` begins an operation, at virtual time `now`.
    ///
    /// # Panics
    ///
    /// When a value is put a second time, or `op` is [`Op::List`]: the workload is wrong.
    pub fn begin(&mut self, client: u32, key: Key, op: Op, now: Duration) -> OpIndex {
        assert!(op != Op::List, "{key}: pages begin with `begin_page`");
        let index = OpIndex(self.operations.len());
        if let Op::Put { value, .. } = op {
            let earlier = self.puts.insert(value, index);
            assert!(earlier.is_none(), "{key}: {value} is put a second time, first by {earlier:?}");
        }
        let call = self.event();
        let outcome = Outcome::Unknown;
        let operation =
            Operation { index, client, key, op, outcome, call, ret: None, began: now, ended: None };
        self.operations.push(operation);
        index
    }

    /// An operation ends, at virtual time `now`. One that never ends stays [`Outcome::Unknown`].
    ///
    /// # Panics
    ///
    /// When there is no such operation, it has ended already, or cannot end so.
    pub fn end(&mut self, index: OpIndex, outcome: Outcome, now: Duration) {
        let event = self.event();
        let operations = self.operations.len();
        let operation = self.operations.get_mut(index.0);
        assert!(operation.is_some(), "{index:?} ends, of {operations} operations");
        let Some(operation) = operation else { return };
        assert!(operation.ret.is_none(), "{operation} ends a second time, as {outcome}");
        assert!(operation.op.may_end_as(&outcome), "{operation} cannot end as {outcome}");
        operation.outcome = outcome;
        operation.ret = Some(event);
        operation.ended = Some(now);
    }

    /// `client` asks for a page of a listing, at virtual time `now`.
    pub fn begin_page(&mut self, client: u32, request: PageRequest, now: Duration) -> PageIndex {
        let index = PageIndex(self.pages.len());
        let call = self.event();
        self.pages.push(PageRead {
            index,
            op: OpIndex(index.0),
            client,
            request,
            page: None,
            call,
            ret: None,
            began: now,
            ended: None,
        });
        index
    }

    /// A page comes, at virtual time `now`; none when it failed.
    ///
    /// # Panics
    ///
    /// When there is no such page, or it has come already.
    pub fn end_page(&mut self, index: PageIndex, page: Option<Page>, now: Duration) {
        let event = self.event();
        let pages = self.pages.len();
        let read = self.pages.get_mut(index.0);
        assert!(read.is_some(), "{index:?} ends, of {pages} pages");
        let Some(read) = read else { return };
        assert!(read.ret.is_none(), "{index:?} ends a second time");
        read.page = page;
        read.ret = Some(event);
        read.ended = Some(now);
    }

    /// All operations in the order of their begin; pages are not among them.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The put of a value, whatever became of it.
    pub fn put_of(&self, value: ValueId) -> Option<&Operation> {
        self.puts.get(&value).and_then(|index| self.operations.get(index.0))
    }

    /// All keys that were asked for or seen in a page.
    pub fn keys(&self) -> BTreeSet<Key> {
        let asked = self.operations.iter().map(|operation| operation.key.clone());
        asked.chain(self.pages.iter().flat_map(PageRead::keys)).collect()
    }

    /// What happened to each key, in the order of the begins, with what pages said of it.
    pub fn histories(&self) -> BTreeMap<Key, Vec<Operation>> {
        let mut histories: BTreeMap<Key, Vec<Operation>> =
            self.keys().into_iter().map(|key| (key, Vec::new())).collect();
        for operation in &self.operations {
            if let Some(history) = histories.get_mut(&operation.key) {
                history.push(operation.clone());
            }
        }
        for (key, history) in &mut histories {
            history.extend(self.pages.iter().filter_map(|page| page.says_of(key)));
            history.sort_by_key(|operation| operation.call);
        }
        histories
    }

    /// Pages that no service may give, whatever the objects.
    pub fn page_faults(&self) -> Vec<PageFault> {
        let mut put: BTreeMap<u32, BTreeSet<&[u8]>> = BTreeMap::new();
        for operation in &self.operations {
            if matches!(operation.op, Op::Put { .. }) {
                put.entry(operation.key.bucket).or_default().insert(operation.key.name.as_bytes());
            }
        }
        let fault = |page: &PageRead| {
            page.fault(|prefix| {
                let keys = put.get(&page.request.bucket);
                let first = keys.and_then(|keys| keys.range(&prefix[..]..).next());
                first.is_some_and(|key| key.starts_with(prefix))
            })
        };
        self.pages.iter().filter_map(fault).collect()
    }

    fn event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }
}
