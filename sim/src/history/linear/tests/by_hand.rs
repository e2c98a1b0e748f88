//! Small histories whose verdict is plain.

use super::*;
use crate::history::linear::{Limits, Verdict, check};

type Case = (&'static str, Vec<Operation>);

fn o(call: u64, ret: u64, op: Op, outcome: Outcome) -> Operation {
    operation(call, ret, op, outcome)
}

fn good() -> Vec<Case> {
    use Condition::MustNotExist;
    use Outcome::{Failed, Refused, Unknown};
    vec![
        ("nothing happened", vec![]),
        ("put, then read", vec![o(1, 2, put(1), acknowledged(5)), o(3, 4, get(), found(1, 5))]),
        (
            "read during the put, old or new",
            vec![
                o(1, 2, put(1), acknowledged(5)),
                o(3, 8, put(2), acknowledged(6)),
                o(4, 5, get(), found(1, 5)),
                o(6, 7, Op::Head, found_version(6)),
            ],
        ),
        (
            "concurrent puts end in the other order",
            vec![
                o(1, 3, put(1), acknowledged(9)),
                o(2, 4, put(2), acknowledged(8)),
                o(5, 6, get(), found(1, 9)),
            ],
        ),
        ("unknown put never seen", vec![o(1, 0, put(1), Unknown), o(2, 3, get(), NOTHING)]),
        (
            "unknown put seen late, over another",
            vec![
                o(1, 2, put(1), Unknown),
                o(3, 4, put(2), acknowledged(5)),
                o(5, 6, get(), found(2, 5)),
                o(7, 8, get(), found(1, 9)),
            ],
        ),
        (
            "unknown put seen by its version only",
            vec![o(1, 0, put(1), Unknown), o(2, 3, Op::List, found_version(7)), o(4, 5, get(), found(1, 7))],
        ),
        (
            "unknown delete explains an absence",
            vec![
                o(1, 2, put(1), acknowledged(5)),
                o(3, 0, delete(), Unknown),
                o(4, 5, get(), found(1, 5)),
                o(6, 7, get(), NOTHING),
            ],
        ),
        (
            "unknown put explains a delete and a refusal",
            vec![
                o(1, 0, put(1), Unknown),
                o(2, 0, put(2), Unknown),
                o(3, 4, put_if(MustNotExist, 3), Refused),
                o(5, 6, delete(), DELETED),
                o(7, 8, delete(), DELETED),
            ],
        ),
        (
            "chain of unknowns: deleted, put if absent, seen",
            vec![
                o(1, 2, put(1), acknowledged(5)),
                o(3, 0, delete(), Unknown),
                o(4, 0, put_if(MustNotExist, 2), Unknown),
                o(5, 6, get(), found(2, 6)),
            ],
        ),
        (
            "conditional put on a version that only a condition names",
            vec![
                o(1, 0, put(1), Unknown),
                o(2, 0, put_if(if_version(4), 2), Unknown),
                o(3, 4, get(), found(2, 6)),
            ],
        ),
        (
            "of two conditional puts one succeeds",
            vec![
                o(1, 5, put_if(MustNotExist, 1), acknowledged(3)),
                o(2, 6, put_if(MustNotExist, 2), Refused),
                o(7, 9, put_if(if_version(3), 3), acknowledged(4)),
                o(8, 10, put_if(if_version(3), 4), Refused),
            ],
        ),
        (
            "failed put and failed read say nothing",
            vec![
                o(1, 2, put(1), Failed),
                o(3, 4, get(), Failed),
                o(5, 6, get(), NOTHING),
                o(7, 8, delete(), NOT_DELETED),
            ],
        ),
    ]
}

fn bad() -> Vec<Case> {
    use Condition::MustNotExist;
    use Outcome::{Failed, Refused, Unknown};
    let two_puts = || vec![o(1, 2, put(1), acknowledged(5)), o(3, 4, put(2), acknowledged(6))];
    let then = |more: Vec<Operation>| two_puts().into_iter().chain(more).collect::<Vec<_>>();
    vec![
        ("stale read", then(vec![o(5, 6, get(), found(1, 5))])),
        ("stale head", then(vec![o(5, 6, Op::Head, found_version(5))])),
        ("lost put", then(vec![o(5, 6, get(), NOTHING)])),
        ("read of what was never put", then(vec![o(5, 6, get(), found(3, 7))])),
        ("version that nobody made", then(vec![o(5, 6, Op::List, found_version(7))])),
        ("wrong version of a value", then(vec![o(5, 6, get(), found(2, 7))])),
        ("right version, other value", then(vec![o(5, 6, get(), found(1, 6))])),
        ("read of a put that failed", vec![o(1, 2, put(1), Failed), o(3, 4, get(), found(1, 5))]),
        ("read before the put", vec![o(1, 2, get(), found(1, 5)), o(3, 4, put(1), acknowledged(5))]),
        ("versions fall", vec![o(1, 2, put(1), acknowledged(6)), o(3, 4, put(2), acknowledged(5))]),
        ("one version twice", vec![o(1, 4, put(1), acknowledged(6)), o(2, 3, put(2), acknowledged(6))]),
        ("resurrected", then(vec![o(5, 6, delete(), DELETED), o(7, 8, get(), found(2, 6))])),
        ("deleted twice", then(vec![o(5, 6, delete(), DELETED), o(7, 8, delete(), DELETED)])),
        ("delete that saw nothing", then(vec![o(5, 6, delete(), NOT_DELETED)])),
        (
            "lost update: two conditional puts succeed",
            then(vec![
                o(5, 7, put_if(if_version(6), 3), acknowledged(7)),
                o(6, 8, put_if(if_version(6), 4), acknowledged(8)),
            ]),
        ),
        (
            "two puts if absent succeed",
            vec![
                o(1, 3, put_if(MustNotExist, 1), acknowledged(5)),
                o(2, 4, put_if(MustNotExist, 2), acknowledged(6)),
            ],
        ),
        ("refused though it held", vec![o(1, 2, put_if(MustNotExist, 1), Refused)]),
        ("refused without a condition", vec![o(1, 2, put(1), Refused)]),
        (
            "back in time during a put",
            vec![
                o(1, 2, put(1), acknowledged(5)),
                o(3, 10, put(2), acknowledged(6)),
                o(4, 5, get(), found(2, 6)),
                o(6, 7, get(), found(1, 5)),
            ],
        ),
        (
            "unknown put seen, unseen and seen again",
            vec![
                o(1, 2, put(1), acknowledged(5)),
                o(3, 0, put(2), Unknown),
                o(4, 5, get(), found(2, 6)),
                o(6, 7, get(), found(1, 5)),
            ],
        ),
        (
            "unknown put has two versions",
            vec![o(1, 0, put(1), Unknown), o(2, 3, get(), found(1, 5)), o(4, 5, get(), found(1, 6))],
        ),
        (
            "two versions, one unknown put",
            vec![
                o(1, 0, put(1), Unknown),
                o(2, 3, Op::Head, found_version(5)),
                o(4, 5, Op::Head, found_version(6)),
            ],
        ),
        (
            "unknown put has the version before the one it must follow",
            vec![o(1, 2, put(1), acknowledged(5)), o(3, 0, put(2), Unknown), o(4, 5, get(), found(2, 4))],
        ),
        (
            "unknown delete explains one absence, not the object's return",
            vec![
                o(1, 2, put(1), acknowledged(5)),
                o(3, 0, delete(), Unknown),
                o(4, 5, get(), NOTHING),
                o(6, 7, get(), found(1, 5)),
            ],
        ),
        (
            "one unknown put, two deletes",
            vec![o(1, 0, put(1), Unknown), o(2, 3, delete(), DELETED), o(4, 5, delete(), DELETED)],
        ),
        ("unknown put has not begun", vec![o(1, 2, delete(), DELETED), o(3, 0, put(1), Unknown)]),
    ]
}

/// What an atomic register may do is accepted.
#[test]
fn good_histories_are_accepted() {
    for (name, history) in good() {
        let verdict = check(&history, Limits::default());
        assert!(matches!(verdict, Verdict::Linearizable { .. }), "{name}: {verdict}");
    }
}

/// What none does is refused, and the explanation is a fault by itself.
#[test]
fn bad_histories_are_refused() {
    for (name, history) in bad() {
        let Verdict::Violation(explanation) = check(&history, Limits::default()) else {
            panic!("{name} was accepted");
        };
        println!("{name}: {explanation}");
        let again = check(&explanation.operations, Limits::default());
        assert!(matches!(again, Verdict::Violation(_)), "{name}: {again}");
    }
}

/// An explanation leaves out what has nothing to do with the fault, and names the operation at fault.
#[test]
fn explanations_are_short() {
    let mut history: Vec<Operation> = Vec::new();
    for round in 0..200 {
        let at = round * 4 + 1;
        history.push(o(at, at + 1, put(round + 1), acknowledged(at)));
        history.push(o(at + 2, at + 3, get(), found(round + 1, at)));
    }
    history[201] = o(403, 404, get(), found(100, 397));
    let Verdict::Violation(explanation) = check(&history, Limits::default()) else {
        panic!("a stale read was accepted");
    };
    println!("{explanation}");
    assert_eq!(explanation.last, history[201]);
    assert_eq!(explanation.operations, [198, 200, 201].map(|index: usize| history[index].clone()));
    assert_eq!(explanation.others, 99);
}

/// A history beyond the limits is neither good nor bad, and says how large it is.
#[test]
fn what_is_too_hard_is_said_to_be() {
    let history: Vec<Operation> = (1..=20).map(|at| o(at, at + 100, put(at), acknowledged(at))).collect();
    let verdict = check(&history, Limits { configurations_max: 3 });
    assert!(matches!(verdict, Verdict::TooHard { definite: 20, unknown: 0, .. }), "{verdict}");
}
