//! The commit that is tested, and the seeds that come from its hash.

use std::fmt;
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow};

/// The commit of the checkout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    hash: Option<String>,
    changed: bool,
}

/// Hexadecimal digits of a hash that make a base of seeds: 40 bits, so that campaigns seldom overlap.
const DIGITS: usize = 10;

impl Commit {
    /// What git says of the current directory.
    pub(crate) fn current() -> Self {
        let hash = git(&["rev-parse", "HEAD"]).map(|text| text.trim().to_owned());
        let changed =
            git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
        Self { hash, changed }
    }

    /// The first of the seeds that belong to this commit.
    ///
    /// # Errors
    ///
    /// When this is not a checkout of git.
    pub(crate) fn seeds(&self) -> anyhow::Result<u64> {
        let hash = self.hash.as_deref().context("the seeds come from the commit, and git names none")?;
        let digits = hash.get(..DIGITS).ok_or_else(|| anyhow!("{hash:?} is no hash of a commit"))?;
        u64::from_str_radix(digits, 16).with_context(|| format!("{hash:?} is no hash of a commit"))
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hash.as_deref().unwrap_or("unknown: not a checkout of git"))?;
        f.write_str(if self.changed { ", with changes that are not committed" } else { "" })
    }
}

/// What git prints; none when it fails or is not there.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same commit has the same seeds, and what is no hash has none.
    #[test]
    fn seeds_come_from_the_hash() {
        let commit = |hash: &str| Commit { hash: Some(hash.to_owned()), changed: false };
        let seeds = commit("264e8450f1aa264e8450f1aa264e8450f1aa0000").seeds().expect("seeds");
        assert_eq!(seeds, 0x26_4e84_50f1);
        for (case, none) in [("short", commit("26")), ("no hex", commit("zzzzzzzzzzzz"))] {
            assert!(none.seeds().is_err(), "{case}");
        }
        assert!(Commit { hash: None, changed: false }.seeds().is_err());
    }
}
