//! From a ledger to a report.

use std::time::Duration;

use bytes::Bytes;
use proto::{ObjectKey, Version};

use super::*;

const SIZE: u64 = 10;

/// A ledger and its clock.
#[derive(Default)]
struct Story {
    ledger: Ledger,
    seconds: u64,
}

fn key(name: &str) -> Key {
    Key { bucket: 1, name: ObjectKey::parse(name.to_owned()).unwrap() }
}

fn listed(name: &str, version: u64) -> Listed {
    Listed { name: key(name).name, version: Version(version), size: SIZE }
}

fn page(objects: &[(&str, u64)], prefixes: &[&str], token: &str) -> Page {
    Page {
        objects: objects.iter().map(|(name, version)| listed(name, *version)).collect(),
        prefixes: prefixes.iter().map(|prefix| Bytes::from((*prefix).to_owned())).collect(),
        token: Bytes::from(token.to_owned()),
    }
}

impl Story {
    /// The objects `a/1`, `a/2`, `b`, `c` and `d`, as versions 1 to 5.
    fn of_five() -> Self {
        let mut story = Self::default();
        for (name, version) in ["a/1", "a/2", "b", "c", "d"].iter().zip(1..) {
            story.put(name, version);
        }
        story
    }

    fn now(&mut self) -> Duration {
        self.seconds += 1;
        Duration::from_secs(self.seconds)
    }

    fn put(&mut self, name: &str, version: u64) -> ValueId {
        let value = self.ledger.new_value();
        let op = Op::Put { value, size: SIZE, condition: Condition::Any };
        let version = Version(version);
        let receipt = Receipt { version, disks: 2, nodes: 2, racks: 1, slots_missing: 0 };
        self.run(name, op, Outcome::Acknowledged(receipt));
        value
    }

    fn run(&mut self, name: &str, op: Op, outcome: Outcome) {
        let now = self.now();
        let index = self.ledger.begin(3, key(name), op, now);
        let now = self.now();
        self.ledger.end(index, outcome, now);
    }

    fn list(&mut self, delimiter: &'static str, token: &'static str, page: Page) {
        let now = self.now();
        let request = PageRequest {
            bucket: 1,
            prefix: Bytes::new(),
            delimiter: Bytes::from(delimiter),
            token: Bytes::from(token),
        };
        let index = self.ledger.begin_page(4, request, now);
        let now = self.now();
        self.ledger.end_page(index, Some(page), now);
    }

    fn report(&self) -> Report {
        Report::of(&self.ledger, Limits::default())
    }

    /// The keys at fault, and whether pages are.
    fn faults(&self) -> (Vec<String>, bool) {
        let report = self.report();
        assert!(report.too_hard.is_empty(), "{report:?}");
        report.faults.iter().for_each(|fault| println!("{fault}"));
        report.page_faults.iter().for_each(|fault| println!("{fault}"));
        let keys = report.faults.iter().map(|fault| fault.key.name.to_string()).collect();
        (keys, !report.page_faults.is_empty())
    }
}

/// Right pages in any cut are accepted, folded ones too.
#[test]
fn right_pages_are_accepted() {
    let mut story = Story::of_five();
    story.list("", "", page(&[("a/1", 1), ("a/2", 2)], &[], "a/2"));
    story.list("", "a/2", page(&[("b", 3), ("c", 4), ("d", 5)], &[], ""));
    story.list("/", "", page(&[], &["a/"], "a/"));
    story.list("/", "a/", page(&[("b", 3), ("c", 4)], &[], "c"));
    story.list("/", "c", page(&[("d", 5)], &[], ""));
    story.list("", "d", page(&[], &[], ""));
    let report = story.report();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.keys, 5);
    assert_eq!(report.operations, 5 + 5 + 3);
}

/// A key that a page leaves out, invents, or shows as it was is found; so is a lost folded prefix, and
/// a page of which nothing came speaks of no key.
#[test]
fn wrong_pages_are_found() {
    type Case = (&'static str, &'static str, Page, &'static [&'static str]);
    let cases: [Case; 7] = [
        ("", "", page(&[("a/1", 1), ("b", 3), ("c", 4), ("d", 5)], &[], ""), &["a/2"]),
        ("", "a/2", page(&[("b", 3), ("c", 4)], &[], ""), &["d"]),
        ("", "a/2", page(&[("b", 3), ("d", 5)], &[], "d"), &["c"]),
        ("", "c", page(&[("d", 4)], &[], ""), &["d"]),
        ("", "d", page(&[("e", 6)], &[], ""), &["e"]),
        ("/", "", page(&[("b", 3)], &[], "b"), &["a/1", "a/2"]),
        ("/", "a/", page(&[], &[], ""), &["b", "c", "d"]),
    ];
    for (case, (delimiter, token, page, expected)) in cases.into_iter().enumerate() {
        let mut story = Story::of_five();
        story.list(delimiter, token, page);
        assert_eq!(
            story.faults(),
            (expected.iter().map(ToString::to_string).collect(), false),
            "case {case}"
        );
    }
    let mut story = Story::of_five();
    let index = story.ledger.begin_page(4, PageRequest::default(), Duration::ZERO);
    story.ledger.end_page(index, None, Duration::ZERO);
    assert!(story.report().is_clean());
}

/// Pages that no service may give are found whatever the objects.
#[test]
fn impossible_pages_are_found() {
    let all = [("a/1", 1), ("a/2", 2), ("b", 3), ("c", 4), ("d", 5)];
    let cases = [
        ("", "", page(&[all[1], all[0], all[2], all[3], all[4]], &[], "")),
        ("", "c", page(&[all[4], all[4]], &[], "")),
        ("", "c", page(&[all[3], all[4]], &[], "")),
        ("", "c", page(&[], &[], "c")),
        ("/", "", page(&all, &[], "")),
        ("/", "", page(&all[2..], &["a/", "b/"], "")),
        ("/", "", page(&all[2..], &["a"], "")),
    ];
    for (case, (delimiter, token, page)) in cases.into_iter().enumerate() {
        let mut story = Story::of_five();
        story.list(delimiter, token, page);
        assert!(story.faults().1, "case {case} was accepted");
    }
}

/// An operation that never ends counts as one of unknown outcome; times that are equal do not make
/// operations concurrent.
#[test]
fn the_order_of_calls_is_the_order_of_time() {
    let mut story = Story::default();
    let value = story.ledger.new_value();
    let op = Op::Put { value, size: SIZE, condition: Condition::Any };
    let begun = story.ledger.begin(1, key("k"), op, Duration::ZERO);
    story.run("k", Op::Head, Outcome::Read(None));
    assert!(story.report().is_clean());
    let found = Found { value: Some(value), version: Version(1), size: SIZE };
    story.run("k", Op::Get { range: None }, Outcome::Read(Some(found)));
    assert!(story.report().is_clean());
    story.run("k", Op::Head, Outcome::Read(None));
    assert_eq!(story.faults(), (vec!["k".to_owned()], false));
    assert_eq!(story.ledger.operations()[begun.0].ret, None);

    let mut ledger = Ledger::new();
    let first = ledger.begin(1, key("k"), Op::Delete { condition: Condition::Any }, Duration::ZERO);
    ledger.end(first, Outcome::Deleted { existed: true }, Duration::ZERO);
    let value = ledger.new_value();
    let op = Op::Put { value, size: SIZE, condition: Condition::Any };
    ledger.begin(1, key("k"), op, Duration::ZERO);
    assert_eq!(Report::of(&ledger, Limits::default()).faults.len(), 1, "deleted before it was put");
}

/// Bytes of another key are said to be theirs.
#[test]
fn bytes_of_another_key_are_named() {
    let mut story = Story::default();
    story.put("mine", 1);
    let theirs = story.put("theirs", 2);
    let found = Found { value: Some(theirs), version: Version(1), size: SIZE };
    story.run("mine", Op::Get { range: None }, Outcome::Read(Some(found)));
    let report = story.report();
    let [fault] = report.faults.as_slice() else { panic!("{report:?}") };
    let text = fault.to_string();
    println!("{text}");
    assert!(text.contains("value-2 belongs to bucket 1 key theirs"), "{text}");
}

/// A workload that errs is stopped: a value twice, an end twice, an end of another kind.
#[test]
fn misuse_is_stopped() {
    let put = || Op::Put { value: ValueId(1), size: SIZE, condition: Condition::Any };
    let tries: [fn(&mut Ledger, Op); 3] = [
        |ledger, put| {
            ledger.begin(1, key("other"), put, Duration::ZERO);
        },
        |ledger, _| {
            ledger.end(OpIndex(0), Outcome::Failed, Duration::ZERO);
            ledger.end(OpIndex(0), Outcome::Failed, Duration::ZERO);
        },
        |ledger, _| ledger.end(OpIndex(0), Outcome::Read(None), Duration::ZERO),
    ];
    for (case, misuse) in tries.into_iter().enumerate() {
        let mut ledger = Ledger::new();
        ledger.begin(1, key("k"), put(), Duration::ZERO);
        let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| misuse(&mut ledger, put())));
        assert!(stopped.is_err(), "case {case} went on");
    }
}
