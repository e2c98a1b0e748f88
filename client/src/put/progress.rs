//! Which slots have which stripes of an extent: the bookkeeping of a put, without any waiting.
//!
//! A slot that fails at stripe `s` misses `s`, and what comes after it is not sent there any more.
//! Stripes before `s` are whole there: an extent cut off before `s` does not miss the slot.

use std::collections::VecDeque;
use std::time::Duration;

use codec::SlotMask;
use env::Monotonic;
use proto::limits::SLOTS_MAX;
use proto::{SlotIndex, StripeIndex};

/// "Has not failed" in [`Progress::failed_at`].
const NEVER: u32 = u32::MAX;

/// How far the stripes of one extent have come.
#[derive(Debug)]
pub(super) struct Progress {
    slots: usize,
    k: usize,
    /// The first stripe that each slot misses.
    failed_at: [u32; SLOTS_MAX],
    /// Stripes that every slot has, but for those that miss them: they are out of memory.
    done: u32,
    /// The stripes from `done` on.
    window: VecDeque<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    acknowledged: SlotMask,
    /// When `k` slots had it.
    enough_at: Option<Monotonic>,
}

impl Progress {
    /// No stripe yet; slots in `missing` are not even tried.
    pub(super) fn new(k: usize, slots: usize, missing: SlotMask) -> Self {
        let mut failed_at = [NEVER; SLOTS_MAX];
        for slot in missing.iter() {
            failed_at[usize::from(slot.0)] = 0;
        }
        Self { slots, k, failed_at, done: 0, window: VecDeque::new() }
    }

    /// A stripe enters: which it is, and the slots to send it to.
    pub(super) fn begin(&mut self) -> (StripeIndex, SlotMask) {
        let stripe = self.begun();
        self.window.push_back(Pending::default());
        (StripeIndex(stripe), self.complete(stripe + 1))
    }

    /// The slot has the stripe.
    pub(super) fn acknowledged(&mut self, stripe: StripeIndex, slot: SlotIndex, now: Monotonic) {
        let k = self.k;
        if let Some(pending) = self.pending(stripe) {
            pending.acknowledged.insert(slot);
            if pending.acknowledged.len() >= k {
                pending.enough_at.get_or_insert(now);
            }
        }
    }

    /// The slot misses the stripe. False when it was known to miss it or an earlier one.
    pub(super) fn failed(&mut self, stripe: StripeIndex, slot: SlotIndex) -> bool {
        let at = &mut self.failed_at[usize::from(slot.0)];
        let is_news = stripe.0 < *at;
        *at = stripe.0.min(*at);
        is_news
    }

    /// Is the slot still waited for with this stripe?
    pub(super) fn awaits(&self, stripe: StripeIndex, slot: SlotIndex) -> bool {
        stripe.0 < self.failed_at[usize::from(slot.0)]
    }

    /// Lets the front stripe go when all slots that are not given up have it.
    pub(super) fn pop(&mut self) -> bool {
        let stripe = self.done;
        let awaited = self.complete(stripe + 1);
        let whole =
            self.window.front().is_some_and(|front| awaited.difference(front.acknowledged).is_empty());
        if whole {
            self.window.pop_front();
            self.done += 1;
        }
        whole
    }

    /// When the next laggards are to be given up, if `patience` is given to each.
    pub(super) fn laggards_due(&self, patience: Duration) -> Option<Monotonic> {
        let waiting = (self.done..)
            .zip(&self.window)
            .filter(|(stripe, pending)| !self.laggards_of(*stripe, pending).is_empty());
        waiting.filter_map(|(_, pending)| pending.enough_at).min().map(|at| at.after(patience))
    }

    /// Who is to be given up at `now`, and from which stripe on.
    pub(super) fn laggards(&self, patience: Duration, now: Monotonic) -> Vec<(StripeIndex, SlotIndex)> {
        let mut late = Vec::new();
        for (stripe, pending) in (self.done..).zip(&self.window) {
            if pending.enough_at.is_some_and(|at| at.after(patience) <= now) {
                late.extend(self.laggards_of(stripe, pending).iter().map(|slot| (StripeIndex(stripe), slot)));
            }
        }
        late
    }

    /// Stripes that are out of memory.
    pub(super) fn done(&self) -> u32 {
        self.done
    }

    /// Stripes that have entered.
    pub(super) fn begun(&self) -> u32 {
        // The window is short.
        self.done + u32::try_from(self.window.len()).unwrap_or(u32::MAX)
    }

    /// Slots that miss something of the first `stripes` stripes.
    pub(super) fn missing(&self, stripes: u32) -> SlotMask {
        SlotMask::first(self.slots).difference(self.complete(stripes))
    }

    /// Slots that miss nothing at all until now.
    pub(super) fn durable(&self) -> usize {
        self.complete(NEVER).len()
    }

    /// Slots that miss nothing of the first `stripes` stripes, as far as is known.
    fn complete(&self, stripes: u32) -> SlotMask {
        let whole = |slot: &SlotIndex| self.failed_at[usize::from(slot.0)] >= stripes;
        SlotMask::first(self.slots).iter().filter(whole).collect()
    }

    fn laggards_of(&self, stripe: u32, pending: &Pending) -> SlotMask {
        self.complete(stripe + 1).difference(pending.acknowledged)
    }

    fn pending(&mut self, stripe: StripeIndex) -> Option<&mut Pending> {
        let at = stripe.0.checked_sub(self.done)?;
        self.window.get_mut(usize::try_from(at).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Monotonic = Monotonic::new(Duration::from_secs(1));

    fn mask(slots: &[u8]) -> SlotMask {
        slots.iter().map(|slot| SlotIndex(*slot)).collect()
    }

    /// A slot that fails late is missing from the whole extent, not from one cut off before.
    #[test]
    fn a_cut_before_the_failure_misses_nothing() {
        let mut progress = Progress::new(4, 6, SlotMask::EMPTY);
        for stripe in 0..2 {
            assert_eq!(progress.begin(), (StripeIndex(stripe), SlotMask::first(6)));
        }
        for slot in 0..6 {
            progress.acknowledged(StripeIndex(0), SlotIndex(slot), NOW);
        }
        assert!(progress.failed(StripeIndex(1), SlotIndex(2)));
        assert!(!progress.failed(StripeIndex(1), SlotIndex(2)));
        assert!(progress.pop() && !progress.pop());
        assert_eq!((progress.missing(1), progress.missing(2)), (SlotMask::EMPTY, mask(&[2])));
        assert_eq!(progress.durable(), 5);
        assert_eq!(progress.begin(), (StripeIndex(2), mask(&[0, 1, 3, 4, 5])));
    }

    /// A slot that moved misses what had been done before, too.
    #[test]
    fn a_moved_slot_misses_all() {
        let mut progress = Progress::new(1, 3, mask(&[1]));
        assert_eq!(progress.begin().1, mask(&[0, 2]));
        progress.acknowledged(StripeIndex(0), SlotIndex(0), NOW);
        progress.acknowledged(StripeIndex(0), SlotIndex(2), NOW);
        assert!(progress.pop());
        progress.failed(StripeIndex(0), SlotIndex(2));
        assert_eq!(progress.missing(1), mask(&[1, 2]));
    }

    /// Laggards are given up their time after `k` others were done, and not before.
    #[test]
    fn laggards_have_their_time() {
        let mut progress = Progress::new(2, 4, SlotMask::EMPTY);
        let patience = Duration::from_secs(4);
        progress.begin();
        progress.acknowledged(StripeIndex(0), SlotIndex(0), NOW);
        assert_eq!(progress.laggards_due(patience), None);
        progress.acknowledged(StripeIndex(0), SlotIndex(3), NOW);
        progress.acknowledged(StripeIndex(0), SlotIndex(2), NOW.after(patience));
        let due = progress.laggards_due(patience).expect("two of four are done");
        assert_eq!(due, NOW.after(patience));
        assert!(progress.laggards(patience, NOW).is_empty());
        assert_eq!(progress.laggards(patience, due), [(StripeIndex(0), SlotIndex(1))]);
        progress.failed(StripeIndex(0), SlotIndex(1));
        assert_eq!(progress.laggards_due(patience), None, "nobody is waited for any more");
    }

    proptest! {
        /// Against a table of what each slot has: a stripe leaves memory only when every slot that
        /// does not count as missing up to it has it.
        #[test]
        fn nothing_is_forgotten(
            events in prop::collection::vec((0..4_u8, 0..8_u32, 0..5_u8), 0..120),
        ) {
            let mut progress = Progress::new(3, 5, SlotMask::EMPTY);
            let mut has = std::collections::BTreeSet::new();
            for (event, stripe, slot) in events {
                let begun = progress.begun();
                match event {
                    0 if begun < 8 => drop(progress.begin()),
                    1 if stripe < begun && progress.awaits(StripeIndex(stripe), SlotIndex(slot)) => {
                        progress.acknowledged(StripeIndex(stripe), SlotIndex(slot), NOW);
                        has.insert((stripe, slot));
                    }
                    2 if stripe < begun && !has.contains(&(stripe, slot)) => {
                        progress.failed(StripeIndex(stripe), SlotIndex(slot));
                    }
                    _ => drop(progress.pop()),
                }
                let done = progress.done();
                let missing = progress.missing(done);
                for stripe in 0..done {
                    for slot in (0..5).filter(|slot| !missing.contains(SlotIndex(*slot))) {
                        prop_assert!(has.contains(&(stripe, slot)), "stripe {} slot {}", stripe, slot);
                    }
                }
            }
        }
    }
}
