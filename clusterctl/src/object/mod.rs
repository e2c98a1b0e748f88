//! `clusterctl object`: what is stored.

mod explain;
mod files;
mod get;
mod list;
mod progress;
mod put;

use anyhow::bail;

use client::{Bucket, Precondition};
use os::Host;
use proto::{BucketName, InvalidInput, ObjectKey, Version};
use serde_json::json;

pub(crate) use progress::bar;

use crate::Session;

/// What to do with objects.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Store a file, or with --recursive a directory tree.
    Put(put::Arguments),
    /// Read an object into a file, or with --recursive all below a prefix into a directory.
    Get(get::Arguments),
    /// List objects.
    Ls(list::Arguments),
    /// What is known of an object.
    Stat {
        /// BUCKET/KEY.
        object: Path,
    },
    /// Delete objects. What is not there is deleted already.
    Rm {
        /// BUCKET/KEY.
        #[arg(required = true)]
        objects: Vec<Path>,
        /// Only this version.
        #[arg(long)]
        if_version: Option<u64>,
    },
    /// Where each shard of an object lies, and why there.
    Explain {
        /// BUCKET/KEY.
        object: Path,
    },
}

/// `BUCKET` or `BUCKET/KEY`, as it is typed.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    bucket: BucketName,
    key: String,
}

impl std::str::FromStr for Path {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        let (bucket, key) = text.split_once('/').unwrap_or((text, ""));
        Ok(Self { bucket: bucket.parse()?, key: key.to_owned() })
    }
}

impl Path {
    /// The bucket, and the key below it.
    ///
    /// # Errors
    ///
    /// When the key is empty or too long, or the cluster cannot be reached.
    async fn object(&self, session: &Session) -> anyhow::Result<(Bucket<Host>, ObjectKey)> {
        let key = ObjectKey::parse(self.key.clone())?;
        Ok((self.bucket(session).await?, key))
    }

    async fn bucket(&self, session: &Session) -> anyhow::Result<Bucket<Host>> {
        Ok(session.tenant().await?.bucket(self.bucket.clone()))
    }

    /// The key as a prefix that ends a level; empty for the whole bucket.
    fn directory(&self) -> String {
        if self.key.is_empty() || self.key.ends_with('/') {
            self.key.clone()
        } else {
            format!("{}/", self.key)
        }
    }
}

/// Carries out the command.
///
/// # Errors
///
/// What the cluster refused, or a file that cannot be read or written.
pub(crate) async fn run(session: &Session, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Put(arguments) => put::run(session, arguments).await,
        Command::Get(arguments) => get::run(session, arguments).await,
        Command::Ls(arguments) => list::run(session, arguments).await,
        Command::Stat { object } => stat(session, object).await,
        Command::Rm { objects, if_version } => remove(session, objects, *if_version).await,
        Command::Explain { object } => explain::run(session, object).await,
    }
}

async fn stat(session: &Session, object: &Path) -> anyhow::Result<()> {
    let (bucket, key) = object.object(session).await?;
    let stat = bucket.stat(&key).await?;
    let info = &stat.info;
    let value = json!({
        "key": info.key.as_str(), "version": info.version.0, "size": info.size,
        "crc32c": format!("{:08x}", info.crc32c), "modified_ms": info.modified.as_millis(),
        "content_type": info.content_type, "user_metadata": info.user_metadata,
        "tolerates": { "disks": stat.tolerates.disks, "nodes": stat.tolerates.nodes, "racks": stat.tolerates.racks },
        "inline": stat.is_inline, "extents": stat.extents.len(),
    });
    session.format.print(&value, || {
        let place = match (stat.is_inline, stat.extents.len()) {
            (true, _) => "in the metadata record, on every metadata server".to_owned(),
            (false, extents) => crate::output::count(extents as u64, "extent"),
        };
        let mut lines = vec![
            format!("key        {}", info.key),
            format!("version    {}", info.version),
            format!("size       {} ({})", info.size, crate::output::size(info.size)),
            format!("crc32c     {:08x}", info.crc32c),
            format!("modified   {}", info.modified),
            format!("stored     {place}"),
            format!("tolerates  {}", stat.tolerates),
        ];
        if !info.content_type.is_empty() {
            lines.push(format!("type       {}", info.content_type));
        }
        lines.extend(info.user_metadata.iter().map(|(name, value)| format!("{name}: {value}")));
        lines.join("\n")
    });
    Ok(())
}

async fn remove(session: &Session, objects: &[Path], if_version: Option<u64>) -> anyhow::Result<()> {
    if if_version.is_some() && objects.len() > 1 {
        bail!("--if-version goes with one object");
    }
    let precondition = if_version.map_or(Precondition::None, |v| Precondition::IfVersion(Version(v)));
    let tenant = session.tenant().await?;
    let mut removed = Vec::new();
    for object in objects {
        let key = ObjectKey::parse(object.key.clone())?;
        let existed = tenant.bucket(object.bucket.clone()).delete(&key, precondition).await?;
        removed.push((format!("{}/{key}", object.bucket), existed));
    }
    let value =
        removed.iter().map(|(object, existed)| json!({ "object": object, "existed": existed })).collect();
    session.format.print(&value, || {
        let line = |(object, existed): &(String, bool)| {
            if *existed { format!("deleted {object}") } else { format!("{object} was not there") }
        };
        removed.iter().map(line).collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths split at the first slash; a prefix is made to end a level.
    #[test]
    fn paths_parse() {
        let path: Path = "files/a/b".parse().expect("good");
        assert_eq!((path.bucket.as_str(), path.key.as_str()), ("files", "a/b"));
        assert_eq!(path.directory(), "a/b/");
        let bucket: Path = "files".parse().expect("good");
        assert_eq!(bucket.directory(), "");
        assert!("Files/a".parse::<Path>().is_err());
    }
}
