//! What one process of the simulator is asked to do.

use std::fmt::Write as _;

/// One run: a seed and what is changed of what it means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Case {
    /// The seed.
    pub(crate) seed: u64,
    /// More may be lost than the promises cover.
    pub(crate) beyond: bool,
    /// A planted bug.
    pub(crate) plant: Option<String>,
    /// Classes of faults that are left out.
    pub(crate) without: Vec<String>,
    /// Numbers of faults that are left out.
    pub(crate) skip: Vec<u64>,
    /// Faults after this number are left out.
    pub(crate) faults: Option<u64>,
    /// Operations of clients, at most.
    pub(crate) operations: Option<u64>,
}

/// In a campaign the seeds with this last digit go beyond what the promises cover.
const BEYOND_DIGIT: u64 = 9;

impl Case {
    /// A seed of a campaign. The seed alone says whether it goes beyond the promises: one in ten does.
    pub(crate) fn of_campaign(seed: u64) -> Self {
        Self { seed, beyond: seed % 10 == BEYOND_DIGIT, ..Self::default() }
    }

    /// A seed of a campaign with a planted bug.
    pub(crate) fn planted(seed: u64, plant: &str) -> Self {
        Self { plant: Some(plant.to_owned()), ..Self::of_campaign(seed) }
    }

    /// The arguments that repeat it, for `cadole-sim run` and `cargo xtask sim` alike.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--seed".to_owned(), self.seed.to_string()];
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        if let Some(plant) = &self.plant {
            add("--plant", plant.clone());
        }
        if let Some(operations) = self.operations {
            add("--operations", operations.to_string());
        }
        if let Some(faults) = self.faults {
            add("--faults", faults.to_string());
        }
        for class in &self.without {
            add("--without", class.clone());
        }
        if !self.skip.is_empty() {
            add("--skip", numbers(&self.skip));
        }
        if self.beyond {
            arguments.push("--beyond".to_owned());
        }
        arguments
    }

    /// The command that a person types to repeat it.
    pub(crate) fn command(&self) -> String {
        format!("cargo xtask sim {}", self.arguments().join(" "))
    }
}

fn numbers(numbers: &[u64]) -> String {
    let mut text = String::new();
    for number in numbers {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing into a string does not fail.
        let _ = write!(text, "{comma}{number}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command says all that differs from the plain seed, and nothing else.
    #[test]
    fn commands_repeat_the_case() {
        let plain = Case { seed: 7, ..Case::default() };
        assert_eq!(plain.command(), "cargo xtask sim --seed 7");
        let full = Case {
            seed: 7,
            beyond: true,
            plant: Some("canary".into()),
            without: vec!["pause".into(), "doom".into()],
            skip: vec![1, 4],
            faults: Some(9),
            operations: Some(0),
        };
        assert_eq!(
            full.command(),
            "cargo xtask sim --seed 7 --plant canary --operations 0 --faults 9 --without pause --without doom --skip 1,4 --beyond"
        );
    }

    /// One seed in ten goes beyond, whatever the campaign.
    #[test]
    fn one_in_ten_goes_beyond() {
        for start in [0, 1, 123_456_789] {
            let beyond = (start..start + 100).filter(|seed| Case::of_campaign(*seed).beyond).count();
            assert_eq!(beyond, 10, "from {start}");
        }
    }
}
