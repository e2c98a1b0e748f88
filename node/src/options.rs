//! What a node is started with.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::{ByteSize, Label, NodeId};

use env::NetError;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node, as its certificate says.
    pub id: NodeId,
    /// Where it stands.
    pub site: Label,
    /// In which rack of the site.
    pub rack: Label,
    /// `host:port` to listen on; port 0 for any.
    pub listen: String,
    /// `host:port` under which peers reach it; the one listened on unless given.
    pub advertise: Option<String>,
    /// Its disks; at least one.
    pub disks: Vec<DiskOptions>,
    /// `host:port` of metadata servers; at least one.
    pub metas: Vec<String>,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Time between attempts to open a disk that could not be opened.
    pub disk_retry: Duration,
    /// Bytes of shards that are being written or read for peers at the same time, each.
    pub payload_bytes_in_flight: ByteSize,
    /// Bytes of shards that are being made at the same time.
    pub repair_bytes_in_flight: ByteSize,
    /// Stripes of one extent that are made at the same time.
    pub repair_stripes_in_flight: usize,
    /// Within about this time each shard is read and verified once.
    pub audit_period: Duration,
    /// Time between two searches for shards that were written and never committed.
    pub orphan_period: Duration,
}

/// One disk of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// What people call it.
    pub name: Label,
    /// The directory.
    pub path: String,
    /// What it may hold at most; all that there is unless given.
    pub capacity: Option<ByteSize>,
}

impl Options {
    /// Defaults for all but who and where.
    pub fn new(
        id: NodeId,
        site: Label,
        rack: Label,
        listen: impl Into<String>,
        metas: Vec<String>,
        disks: Vec<DiskOptions>,
    ) -> Self {
        Self {
            id,
            site,
            rack,
            listen: listen.into(),
            advertise: None,
            disks,
            metas,
            heartbeat: Duration::from_secs(1),
            disk_retry: Duration::from_secs(10),
            payload_bytes_in_flight: ByteSize(64 << 20),
            repair_bytes_in_flight: ByteSize(64 << 20),
            repair_stripes_in_flight: 4,
            audit_period: Duration::from_hours(14 * 24),
            orphan_period: Duration::from_hours(1),
        }
    }

    /// Whether a node can be started with this.
    ///
    /// # Errors
    ///
    /// [`StartError::Options`] with the rule that is broken.
    pub fn validate(&self) -> Result<(), StartError> {
        let refuse = |sentence: String| Err(StartError::Options(sentence));
        if self.disks.is_empty() {
            return refuse("the node has no disks: name at least one".to_owned());
        }
        if self.metas.is_empty() {
            return refuse("no metadata server is named: name at least one".to_owned());
        }
        let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
        for disk in &self.disks {
            if !names.insert(&disk.name) {
                return refuse(format!("two disks are named {}: give each a name of its own", disk.name));
            }
            if !paths.insert(disk.path.trim_end_matches('/')) {
                return refuse(format!("two disks have the path {}: each needs its own", disk.path));
            }
            if disk.capacity == Some(ByteSize(0)) {
                return refuse(format!("disk {} may hold 0 bytes: leave its capacity out", disk.name));
            }
        }
        if self.heartbeat.is_zero() || self.disk_retry.is_zero() {
            return refuse("times between heartbeats and retries cannot be zero".to_owned());
        }
        if self.audit_period.is_zero() || self.orphan_period.is_zero() {
            return refuse("the periods of audits cannot be zero".to_owned());
        }
        if self.repair_stripes_in_flight == 0 {
            return refuse("at least one stripe must be made at a time".to_owned());
        }
        let shard = proto::limits::SHARD_BYTES_MAX as u64;
        if self.payload_bytes_in_flight.0 < shard || self.repair_bytes_in_flight.0 < shard {
            return refuse(format!("bytes in flight must hold a shard of {}", ByteSize(shard)));
        }
        Ok(())
    }
}

/// A node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option cannot take effect; the text says which, and what to change.
    #[error("{0}")]
    Options(String),
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] NetError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, path: &str) -> DiskOptions {
        DiskOptions { name: name.parse().unwrap(), path: path.to_owned(), capacity: None }
    }

    fn options(disks: Vec<DiskOptions>) -> Options {
        let (site, rack) = ("s1".parse().unwrap(), "r1".parse().unwrap());
        Options::new(NodeId(1), site, rack, "[::1]:0", vec!["[::1]:7000".to_owned()], disks)
    }

    /// Each rule refuses what breaks it, and says what to do.
    #[test]
    fn options_are_checked() {
        assert!(options(vec![disk("a", "/a"), disk("b", "/b")]).validate().is_ok());
        let mut no_meta = options(vec![disk("a", "/a")]);
        no_meta.metas.clear();
        let mut tiny = options(vec![disk("a", "/a")]);
        tiny.payload_bytes_in_flight = ByteSize(1);
        let mut no_audit = options(vec![disk("a", "/a")]);
        no_audit.orphan_period = Duration::ZERO;
        for (bad, part) in [
            (options(vec![]), "no disks"),
            (options(vec![disk("a", "/a"), disk("a", "/b")]), "named a"),
            (options(vec![disk("a", "/a"), disk("b", "/a/")]), "path /a/"),
            (no_meta, "no metadata server"),
            (tiny, "4 MiB"),
            (no_audit, "audits"),
        ] {
            let error = bad.validate().expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
