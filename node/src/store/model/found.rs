//! Histories that once found something, in the worlds in which they did.

use simhost::Death;

use super::history::Fate::{Kept, Missing, Older};
use super::history::Operation::{self, Compact};
use super::history::Step::{self, AtOnce, Close, Dies};
use super::history::{Doom, When};
use super::universe::Shard;
use super::{Story, Watch, run};

/// An index from before a rebuild took the records behind it for torn ones.
#[test]
fn an_index_from_before_a_rebuild() {
    let put = |name, kind| Operation::Put(Shard { name, kind });
    let delete = |name| Operation::Delete { name };
    let churn = |name, kind, times| Step::Churn { shard: Shard { name, kind }, times };
    let dies = |count, death, index| {
        Dies(vec![Doom { when: When::Operations { count, after: false }, death, index }])
    };
    let steps = vec![
        AtOnce(vec![delete(9)]),
        AtOnce(vec![delete(10)]),
        AtOnce(vec![delete(11)]),
        AtOnce(vec![delete(12)]),
        AtOnce(vec![delete(13)]),
        AtOnce(vec![put(12, 9)]),
        AtOnce(vec![put(9, 5)]),
        AtOnce(vec![put(10, 8)]),
        AtOnce(vec![put(11, 4)]),
        AtOnce(vec![put(13, 9)]),
        AtOnce(vec![delete(11)]),
        dies(0, Death::Power, Missing),
        AtOnce(vec![Compact]),
        AtOnce(vec![delete(9)]),
        AtOnce(vec![delete(13)]),
        churn(11, 9, 1),
        AtOnce(vec![Compact]),
        Close(Missing),
        AtOnce(vec![delete(0)]),
        AtOnce(vec![delete(1)]),
        AtOnce(vec![delete(2)]),
        AtOnce(vec![delete(3)]),
        AtOnce(vec![delete(4)]),
        AtOnce(vec![put(3, 9)]),
        AtOnce(vec![put(0, 5)]),
        AtOnce(vec![put(1, 8)]),
        AtOnce(vec![put(2, 4)]),
        AtOnce(vec![put(4, 9)]),
        AtOnce(vec![delete(2)]),
        dies(0, Death::Power, Missing),
        AtOnce(vec![Compact]),
        AtOnce(vec![delete(0)]),
        AtOnce(vec![delete(4)]),
        churn(2, 9, 1),
        AtOnce(vec![Compact]),
        Close(Missing),
        churn(0, 7, 7),
        AtOnce(vec![put(2, 5), put(0, 0)]),
        AtOnce(vec![Compact]),
        dies(0, Death::Process, Kept),
        dies(97, Death::Process, Kept),
        churn(4, 5, 10),
        dies(8, Death::Process, Kept),
        AtOnce(vec![put(0, 0)]),
        dies(0, Death::Power, Missing),
        AtOnce(vec![put(4, 0), put(0, 0)]),
        AtOnce(vec![put(0, 0)]),
        Close(Kept),
        Close(Older(4)),
    ];
    assert_eq!(run(&steps, 11438415936044809097, Watch::Always, None, Story::Untold), Ok(0));
}

/// An index from before a rebuild, whose log goes on in another segment than it knows.
#[test]
fn an_index_from_before_a_rebuild_that_chose_a_segment() {
    let put = |name, kind| Operation::Put(Shard { name, kind });
    let churn = |name, kind, times| Step::Churn { shard: Shard { name, kind }, times };
    let dies = |when, index| Dies(vec![Doom { when, death: Death::Process, index }]);
    let after = |count| When::Operations { count, after: false };
    let steps = vec![
        churn(0, 9, 4),
        AtOnce(vec![put(12, 0), put(7, 7), put(11, 1)]),
        AtOnce(vec![put(9, 9), put(0, 0)]),
        dies(after(0), Kept),
        AtOnce(vec![Compact, put(0, 0)]),
        dies(after(40), Kept),
        AtOnce(vec![put(1, 7)]),
        churn(9, 8, 3),
        dies(after(0), Kept),
        AtOnce(vec![put(7, 0)]),
        dies(after(0), Kept),
        AtOnce(vec![Operation::Read { name: 0, first: 0, blocks: 0 }]),
        dies(after(0), Missing),
        AtOnce(vec![put(13, 0)]),
        AtOnce(vec![put(0, 0)]),
        dies(When::Micros(0), Older(5)),
    ];
    for seed in 9_853_764_891_194_190_140..9_853_764_891_194_190_152 {
        assert_eq!(run(&steps, seed, Watch::Always, None, Story::Untold), Ok(0), "{seed}");
    }
}
