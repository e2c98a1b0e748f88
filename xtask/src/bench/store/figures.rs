//! Figures, what each should be, and whether it is.

use super::plain;

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn is_reached(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(goal) => format!("at least {goal}"),
            Self::AtMost(goal) => format!("at most {goal}"),
        }
    }
}

/// All figures of one run that have a goal.
#[derive(Debug, Default)]
pub(super) struct Figures(Vec<(String, f64, Goal)>);

impl Figures {
    /// One that was measured.
    pub(super) fn note(&mut self, name: impl Into<String>, value: f64, goal: Goal) {
        self.0.push((name.into(), value, goal));
    }

    /// Prints them. One that could not be computed is missed.
    pub(super) fn print(&self) {
        let mut table = plain(&["", "measured", "goal", ""]);
        for (name, value, goal) in &self.0 {
            let reached = if goal.is_reached(*value) { "reached" } else { "MISSED" };
            table.add_row([name.clone(), format!("{value:.3}"), goal.text(), reached.to_owned()]);
        }
        println!("{table}");
        let reached = self.0.iter().filter(|(_, value, goal)| goal.is_reached(*value)).count();
        println!("{reached} of {} goals reached", self.0.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A goal is reached at its limit, and never by what is no number.
    #[test]
    fn goals_have_limits() {
        assert!(Goal::AtLeast(0.9).is_reached(0.9) && !Goal::AtLeast(0.9).is_reached(0.899));
        assert!(Goal::AtMost(2.0).is_reached(2.0) && !Goal::AtMost(2.0).is_reached(2.001));
        assert!(!Goal::AtLeast(0.9).is_reached(f64::NAN) && !Goal::AtMost(2.0).is_reached(f64::NAN));
    }
}
