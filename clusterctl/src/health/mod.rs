//! `clusterctl health`: a line for each problem, with a stable code; docs/health.md has a line for each code.
//!
//! *Healthy* is said only when every group was read whole within the time of an audit. Otherwise it is said what is
//! not known.

mod known;
mod problems;

use proto::wire;
use serde_json::{Value, json};

pub(crate) use known::not_known;
pub(crate) use problems::{problems, served_disks};

use crate::Session;
use crate::output::table;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is wrong, as far as it is known.
    Good,
    /// Something is.
    Problems,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Stable; in docs/health.md.
    pub(crate) code: &'static str,
    /// What it is.
    pub(crate) text: String,
    /// What to type, or to do.
    pub(crate) next: String,
}

impl Problem {
    /// For programs.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "code": self.code, "what": self.text, "next": self.next })
    }
}

/// Prints what is wrong, and what is not known.
///
/// # Errors
///
/// When no metadata server answers.
pub(crate) async fn run(session: &Session) -> anyhow::Result<Verdict> {
    let status = session.connect().await?.admin().status().await?;
    let (problems, not_known) = (problems(&status), not_known(&status));
    let json = json!({
        "view_of": status.leader_id, "term": status.term,
        "healthy": problems.is_empty() && not_known.is_empty(),
        "problems": problems.iter().map(Problem::to_json).collect::<Value>(), "not_known": not_known,
    });
    session.format.print(&json, || text(&status, &problems, &not_known));
    Ok(if problems.is_empty() { Verdict::Good } else { Verdict::Problems })
}

fn text(status: &wire::GetStatusReply, problems: &[Problem], not_known: &[String]) -> String {
    let mut lines =
        vec![format!("as metadata server {} sees it, the leader of term {}", status.leader_id, status.term)];
    lines.push(verdict(problems, not_known));
    lines.join("\n")
}

/// The problems, or that there is none, and what is not known.
pub(crate) fn verdict(problems: &[Problem], not_known: &[String]) -> String {
    let mut lines = Vec::new();
    if !problems.is_empty() {
        let row = |p: &Problem| vec![p.code.to_owned(), p.text.clone(), p.next.clone()];
        lines.push(table(&["problem", "what", "next"], &[], problems.iter().map(row).collect()));
    } else if not_known.is_empty() {
        lines.push(
            "healthy: nothing is missing, every node and disk answers, and every group was read whole within the time of \
             an audit"
                .to_owned(),
        );
    } else {
        lines.push(
            "no problem is known: nothing is missing by the records, and every node and disk answers"
                .to_owned(),
        );
    }
    lines.extend(not_known.iter().map(|what| format!("not known: {what}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Healthy is said only when nothing is wrong and everything is known.
    #[test]
    fn healthy_is_a_large_word() {
        let problem = Problem { code: "X", text: "it is".into(), next: "mend it".into() };
        let unknown = ["whether disk 1 is whole".to_owned()];
        assert!(verdict(&[], &[]).starts_with("healthy"));
        for (problems, not_known) in [(vec![problem], &[][..]), (vec![], &unknown)] {
            let said = verdict(&problems, not_known);
            assert!(!said.contains("healthy"), "{said}");
            assert!(not_known.iter().all(|what| said.contains(what)), "{said}");
        }
    }
}
