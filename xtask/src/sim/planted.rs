//! The table of planted bugs with the seeds that find them: `sim/planted.txt`.
//!
//! A line each: the bug's name, a seed, and the checker that found it, which may have spaces. Lines that
//! begin with `#` are for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow};

/// Where it is, from the workspace's root.
pub(crate) const FILE: &str = "sim/planted.txt";

const HEAD: &str = "\
# Planted bugs, the seed that finds each, and the checker that does: what `cargo xtask sim ci` runs.
# Written by `cargo xtask sim --plants --write`.
";

/// How a planted bug is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The seed.
    pub(crate) seed: u64,
    /// The checker that reported it.
    pub(crate) checker: String,
}

/// All that are known, by the names of the bugs.
pub(crate) type Table = BTreeMap<String, Known>;

/// Reads the table; an empty one when there is no file yet.
///
/// # Errors
///
/// When the file cannot be read or understood.
pub(crate) fn read(path: &Path) -> anyhow::Result<Table> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text).with_context(|| format!("cannot understand {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Table::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes the table.
///
/// # Errors
///
/// When the file cannot be written.
pub(crate) fn write(path: &Path, table: &Table) -> anyhow::Result<()> {
    fs::write(path, print(table)).with_context(|| format!("cannot write {}", path.display()))
}

fn parse(text: &str) -> anyhow::Result<Table> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let entry = |line: &str| {
        let (name, rest) = line.trim().split_once(char::is_whitespace)?;
        let (seed, checker) = rest.trim_start().split_once(char::is_whitespace)?;
        let known = Known { seed: seed.parse().ok()?, checker: checker.trim_start().to_owned() };
        Some((name.to_owned(), known))
    };
    lines
        .map(|line| entry(line).ok_or_else(|| anyhow!("{line:?} is not a name, a seed and a checker")))
        .collect()
}

fn print(table: &Table) -> String {
    let width = table.keys().map(String::len).max().unwrap_or(0);
    let mut text = HEAD.to_owned();
    for (name, known) in table {
        // Writing into a string does not fail.
        let _ = writeln!(text, "{name:width$} {:>5} {}", known.seed, known.checker);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written is read again, names of checkers with spaces included.
    #[test]
    fn tables_come_back() {
        let known = |seed, checker: &str| Known { seed, checker: checker.to_owned() };
        let table: Table =
            [("canary", known(1, "promised shards")), ("stale-read", known(1_234_567, "raft"))]
                .map(|(name, known)| (name.to_owned(), known))
                .into();
        assert_eq!(parse(&print(&table)).expect("read"), table, "{}", print(&table));
        assert_eq!(parse("# only\n\n").expect("read"), Table::new());
    }

    /// A line that is no entry is an error that shows it.
    #[test]
    fn wrong_lines_are_refused() {
        for line in ["canary", "canary 1", "canary x raft", "canary -1 raft"] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(line), "{error}");
        }
    }

    /// No file is an empty table.
    #[test]
    fn no_file_is_an_empty_table() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("planted.txt");
        assert_eq!(read(&path).expect("read"), Table::new());
        let table: Table = [("a".to_owned(), Known { seed: 3, checker: "c".into() })].into();
        write(&path, &table).expect("written");
        assert_eq!(read(&path).expect("read"), table);
    }
}
