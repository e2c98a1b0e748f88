//! `clusterctl object ls`.

use bytes::Bytes;
use client::{ListOptions, ObjectInfo, Page};
use serde_json::json;

use super::Path;
use crate::Session;
use crate::output::{Format, size, table};

/// What to list.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// BUCKET or BUCKET/PREFIX.
    prefix: Path,
    /// Everything below the prefix, not only the next level.
    #[arg(long, short)]
    recursive: bool,
    /// At most so many entries.
    #[arg(long)]
    limit: Option<usize>,
}

/// Lists, page by page as they come.
///
/// # Errors
///
/// When the bucket does not exist, or nobody answers.
pub(super) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let bucket = arguments.prefix.bucket(session).await?;
    let delimiter = if arguments.recursive { Bytes::new() } else { Bytes::from_static(b"/") };
    let prefix = Bytes::from(arguments.prefix.key.clone());
    let mut left = arguments.limit.unwrap_or(usize::MAX);
    let mut listing =
        bucket.list(ListOptions { prefix, delimiter, page: arguments.limit, ..ListOptions::default() });
    let (mut objects, mut prefixes) = (Vec::new(), Vec::new());
    while left > 0
        && let Some(page) = listing.next_page().await?
    {
        let Page { objects: mut more, prefixes: folded, .. } = page;
        more.truncate(left);
        left -= more.len();
        let folded: Vec<String> =
            folded.iter().take(left).map(|p| String::from_utf8_lossy(p).into_owned()).collect();
        left -= folded.len();
        if session.format == Format::Text {
            print_page(&more, &folded);
        } else {
            objects.extend(more);
            prefixes.extend(folded);
        }
    }
    if session.format == Format::Json {
        let object = |o: &ObjectInfo| {
            json!({
                "key": o.key.as_str(), "size": o.size, "version": o.version.0,
                "modified_ms": o.modified.as_millis(), "crc32c": format!("{:08x}", o.crc32c),
            })
        };
        let value =
            json!({ "objects": objects.iter().map(object).collect::<Vec<_>>(), "prefixes": prefixes });
        session.format.print(&value, String::new);
    }
    Ok(())
}

fn print_page(objects: &[ObjectInfo], prefixes: &[String]) {
    let folded = prefixes.iter().map(|prefix| vec![String::new(), String::new(), prefix.clone()]);
    let whole = objects.iter().map(|o| vec![size(o.size), o.modified.to_string(), o.key.to_string()]);
    let mut rows: Vec<Vec<String>> = folded.chain(whole).collect();
    rows.sort_by(|a, b| a[2].cmp(&b[2]));
    if !rows.is_empty() {
        println!("{}", table(&[], &[0], rows));
    }
}
