//! What people and programs see.

use comfy_table::{CellAlignment, Table};
use proto::{ByteSize, wire};
use serde_json::Value;

/// For whom output is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Tables.
    Text,
    /// One JSON document.
    Json,
}

impl Format {
    /// Prints `value` for programs, or what `text` makes for people.
    pub(crate) fn print(self, value: &Value, text: impl FnOnce() -> String) {
        match self {
            Self::Json => println!("{value:#}"),
            Self::Text => println!("{}", text()),
        }
    }
}

/// A table without lines; columns in `right` are aligned to the right.
pub(crate) fn table(header: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// A size for people.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

/// A time span for people: `45 s`, `2 min 16 s`, `3 h 5 min`, `2 d 4 h`.
pub(crate) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// What a disk is meant for, for people and programs.
pub(crate) fn duty(duty: i32) -> &'static str {
    match wire::Duty::try_from(duty) {
        Ok(wire::Duty::Unspecified) => "in service",
        Ok(wire::Duty::Draining) => "draining",
        Ok(wire::Duty::Failed) => "failed",
        Ok(wire::Duty::Retired) => "retired",
        Err(_) => "unknown",
    }
}

/// Health for people and programs.
pub(crate) fn health(health: i32) -> &'static str {
    match wire::Health::try_from(health) {
        Ok(wire::Health::Up) => "up",
        Ok(wire::Health::Suspect) => "suspect",
        Ok(wire::Health::Down) => "down",
        Ok(wire::Health::Unspecified) | Err(_) => "unknown",
    }
}

/// A failure domain for people and programs.
pub(crate) fn domain(domain: i32) -> &'static str {
    match wire::Domain::try_from(domain) {
        Ok(wire::Domain::Disk) => "disk",
        Ok(wire::Domain::Node) => "node",
        Ok(wire::Domain::Rack) => "rack",
        Ok(wire::Domain::Site) => "site",
        Ok(wire::Domain::Unspecified) | Err(_) => "unknown",
    }
}

/// 16 bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `1 disk`, `2 disks`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two units at most, the larger first.
    #[test]
    fn durations() {
        for (seconds, text) in [(0, "0 s"), (136, "2 min 16 s"), (11_100, "3 h 5 min"), (187_200, "2 d 4 h")]
        {
            assert_eq!(duration(seconds), text);
        }
    }
}
