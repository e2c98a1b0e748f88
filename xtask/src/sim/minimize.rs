//! Makes a failing case smaller: fewer operations, fewer faults, the same failure.
//!
//! Nothing here runs anything: an [`Oracle`] says whether a smaller case still fails. Smaller is not
//! always monotonic, since every change leads the run elsewhere; so a case is taken only if it was seen
//! to fail, and what comes out fails for certain.
//!
//! The order is the cheapest first: shorter runs make all later tries faster. Leaving out a class
//! numbers the faults of the others anew, so classes go before single numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::case::Case;
use super::program::Fault;

/// What a failing run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Operations of clients.
    pub(crate) operations: u64,
    /// Faults up to the failure, by their numbers.
    pub(crate) faults: BTreeMap<u64, Fault>,
}

impl Facts {
    /// Faults that struck.
    pub(crate) fn struck(&self) -> Vec<u64> {
        self.faults.iter().filter(|(_, fault)| fault.struck).map(|(number, _)| *number).collect()
    }
}

/// Says whether a case still fails.
pub(crate) trait Oracle {
    /// What the case did if it failed in the same way; none if it did not.
    fn fails(&mut self, case: &Case) -> anyhow::Result<Option<Facts>>;

    /// There is no time for more tries.
    fn is_spent(&self) -> bool;
}

/// The smallest case found so far.
struct Smallest<'a, O> {
    oracle: &'a mut O,
    case: Case,
    facts: Facts,
}

/// Makes `case`, which failed and did what `facts` say, smaller, as long as the oracle has time.
///
/// # Errors
///
/// When the oracle fails.
pub(crate) fn minimize<O: Oracle>(oracle: &mut O, case: Case, facts: Facts) -> anyhow::Result<(Case, Facts)> {
    let mut smallest = Smallest { oracle, case, facts };
    smallest.fewer_operations()?;
    smallest.fewer_faults_at_the_end()?;
    if smallest.fewer_classes()? {
        smallest.fewer_faults_at_the_end()?;
    }
    smallest.fewer_faults()?;
    smallest.fewer_operations()?;
    Ok((smallest.case, smallest.facts))
}

impl<O: Oracle> Smallest<'_, O> {
    /// Takes the candidate if it fails.
    fn offer(&mut self, candidate: Case) -> anyhow::Result<bool> {
        if self.oracle.is_spent() {
            return Ok(false);
        }
        let Some(facts) = self.oracle.fails(&candidate)? else { return Ok(false) };
        (self.case, self.facts) = (candidate, facts);
        Ok(true)
    }

    /// Halves the way between the least number that fails and the greatest that does not, below `most`.
    fn bisect(&mut self, most: u64, with: fn(&Case, u64) -> Case) -> anyhow::Result<()> {
        let (mut passes_below, mut fails) = (0, most);
        while passes_below < fails && !self.oracle.is_spent() {
            let middle = passes_below + (fails - passes_below) / 2;
            if self.offer(with(&self.case, middle))? {
                fails = middle;
            } else {
                passes_below = middle + 1;
            }
        }
        Ok(())
    }

    fn fewer_operations(&mut self) -> anyhow::Result<()> {
        let most = self.facts.operations;
        self.bisect(most, |case, most| Case { operations: Some(most), ..case.clone() })
    }

    fn fewer_faults_at_the_end(&mut self) -> anyhow::Result<()> {
        let last = self.facts.faults.keys().next_back().copied().unwrap_or(0);
        self.bisect(last, |case, last| Case { faults: Some(last), ..case.clone() })
    }

    /// Leaves out one class after the other. True when one could go.
    fn fewer_classes(&mut self) -> anyhow::Result<bool> {
        let classes: BTreeSet<String> = self.facts.faults.values().map(|fault| fault.class.clone()).collect();
        let mut any = false;
        for class in classes {
            let mut candidate = self.case.clone();
            // The numbers of the others close up; without this, later faults would move in.
            let others = self.facts.faults.values().filter(|fault| fault.class != class).count();
            candidate.faults = candidate.faults.and(u64::try_from(others).ok());
            candidate.without.push(class);
            any |= self.offer(candidate)?;
        }
        Ok(any)
    }

    /// Leaves out faults one by one, many at a time at first (delta debugging).
    fn fewer_faults(&mut self) -> anyhow::Result<()> {
        let mut chunk = self.facts.struck().len().div_ceil(2);
        while chunk > 0 {
            let mut progress = false;
            for numbers in self.facts.struck().chunks(chunk) {
                let mut skip: BTreeSet<u64> = self.case.skip.iter().copied().collect();
                skip.extend(numbers);
                let candidate = Case { skip: skip.into_iter().collect(), ..self.case.clone() };
                progress |= self.offer(candidate)?;
            }
            // Single ones are tried again as long as one goes: the rest may have needed it.
            chunk = match chunk {
                1 if progress => 1,
                1 => 0,
                more => more.div_ceil(2),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A simulator in a few lines: the faults of a seed are a row of classes, and a run fails if all
    /// culprits strike and enough operations are made.
    struct Fake {
        row: Vec<&'static str>,
        /// Places in the row.
        culprits: Vec<usize>,
        operations_min: u64,
        tries_left: u64,
    }

    impl Fake {
        fn run(&self, case: &Case) -> (Facts, bool) {
            let on = self
                .row
                .iter()
                .enumerate()
                .filter(|(_, class)| !case.without.iter().any(|out| out == *class));
            let drawn = (1..).zip(on).filter(|(number, _)| {
                !case.skip.contains(number) && case.faults.is_none_or(|most| *number <= most)
            });
            let (mut facts, mut places) = (Facts::default(), BTreeSet::new());
            for (number, (place, class)) in drawn {
                facts.faults.insert(number, Fault { class: (*class).to_owned(), struck: place % 7 != 6 });
                places.insert(place);
            }
            facts.operations = case.operations.unwrap_or(600).min(600);
            let fails = facts.operations >= self.operations_min
                && self.culprits.iter().all(|place| places.contains(place));
            (facts, fails)
        }
    }

    impl Oracle for Fake {
        fn fails(&mut self, case: &Case) -> anyhow::Result<Option<Facts>> {
            self.tries_left -= 1;
            let (facts, fails) = self.run(case);
            Ok(fails.then_some(facts))
        }

        fn is_spent(&self) -> bool {
            self.tries_left == 0
        }
    }

    fn shrink(mut fake: Fake) -> (Case, Facts, Fake) {
        let case = Case { seed: 1, ..Case::default() };
        let facts = fake.run(&case).0;
        let (case, facts) = minimize(&mut fake, case, facts).expect("no error");
        (case, facts, fake)
    }

    fn row() -> Vec<&'static str> {
        (0..90).map(|place| ["pause", "doom", "damage", "kill-process"][place % 4]).collect()
    }

    /// What has nothing to do with the failure goes, and what it needs stays.
    #[test]
    fn only_the_culprits_stay() {
        for culprits in [vec![], vec![0], vec![8, 40], vec![3, 4, 5, 61], vec![1, 80]] {
            let fake = Fake { row: row(), culprits: culprits.clone(), operations_min: 13, tries_left: 1_000 };
            let (case, facts, fake) = shrink(fake);
            assert!(fake.run(&case).1, "{case:?} does not fail");
            assert_eq!(case.operations, Some(13), "{case:?}");
            assert_eq!(facts.struck().len(), culprits.len(), "culprits {culprits:?}: {case:?}");
            assert!(fake.tries_left > 850, "{} tries for {culprits:?}", 1_000 - fake.tries_left);
        }
    }

    /// When time is over the best so far is given, and it fails.
    #[test]
    fn ends_in_time() {
        for tries in 0..60 {
            let fake = Fake { row: row(), culprits: vec![8, 41], operations_min: 100, tries_left: tries };
            let (case, facts, fake) = shrink(fake);
            let (again, fails) = fake.run(&case);
            assert!(fails, "{tries} tries: {case:?}");
            assert_eq!(again, facts, "{tries} tries: {case:?}");
        }
    }

    /// What was left out before stays out.
    #[test]
    fn goes_on_from_a_smaller_case() {
        let mut fake = Fake { row: row(), culprits: vec![8], operations_min: 5, tries_left: 1_000 };
        let case = Case { seed: 1, skip: vec![1, 2], operations: Some(50), ..Case::default() };
        let facts = fake.run(&case).0;
        let (case, facts) = minimize(&mut fake, case, facts).expect("no error");
        assert_eq!((facts.struck().len(), case.operations), (1, Some(5)), "{case:?}");
        assert!(fake.run(&case).1, "{case:?}");
    }
}
