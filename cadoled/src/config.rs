//! The configuration file of a daemon.
//!
//! TOML. An unknown key is an error that names the nearest known one: a setting that silently has
//! no effect is worse than a daemon that does not start.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use os::disk::EngineChoice;
use proto::{ByteSize, Label, MetaId, NodeId};
use serde::{Deserialize, Serialize};

/// A daemon is either a metadata server or a storage node.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Certificates.
    pub tls: Tls,
    /// What to log.
    #[serde(default)]
    pub log: Log,
    /// A metadata server.
    pub meta: Option<Meta>,
    /// A storage node.
    pub node: Option<Node>,
}

/// Where the certificates are. Paths are relative to the configuration file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The cluster's CA certificate.
    pub ca: PathBuf,
    /// This daemon's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Raft's library warns at each heartbeat to a peer that is gone, which is said better elsewhere.
pub const DEFAULT_LOG: &str = "info,openraft=error";

/// What to log, and how.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, or a filter such as `info,meta=debug`.
    pub level: String,
    /// One line for people, or one JSON object for programs.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: DEFAULT_LOG.to_owned(), format: LogFormat::Text }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// A metadata server.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Its id, as in its certificate. Never given again to a server that lost its data.
    pub id: MetaId,
    /// `host:port` to listen on.
    pub listen: String,
    /// `host:port` under which others reach it, when that differs.
    pub advertise: Option<String>,
    /// Directory for its stores.
    pub data: PathBuf,
    /// A disk or node is suspect after this silence.
    #[serde(default = "defaults::suspect_after_ms")]
    pub suspect_after_ms: u64,
    /// And down after this.
    #[serde(default = "defaults::down_after_ms")]
    pub down_after_ms: u64,
    /// A disk that is down for this long is out: its slots move to other disks.
    #[serde(default = "defaults::out_after_ms")]
    pub out_after_ms: u64,
    /// While more of the disks than this are down at once, percent, none is out.
    #[serde(default = "defaults::out_share_max_percent")]
    pub out_share_max_percent: u8,
    /// How fast a node may make lost shards again, in bytes per second; 0 for no limit.
    #[serde(default)]
    pub repair_bytes_per_s: u64,
    /// How fast a node may copy slots that move; 0 for no limit.
    #[serde(default = "defaults::move_bytes_per_s")]
    pub move_bytes_per_s: u64,
    /// People are told of a disk that is filled to so many percent.
    #[serde(default = "defaults::near_full_percent")]
    pub near_full_percent: u8,
    /// No slot goes to a disk that is.
    #[serde(default = "defaults::backfill_full_percent")]
    pub backfill_full_percent: u8,
    /// No new object does.
    #[serde(default = "defaults::full_percent")]
    pub full_percent: u8,
    /// Log entries between two snapshots: what a server reads again at its start, at most.
    #[serde(default = "defaults::snapshot_every_entries")]
    pub snapshot_every_entries: u64,
}

/// A storage node.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its id, as in its certificate.
    pub id: NodeId,
    /// The site that it stands in.
    #[serde(default = "defaults::site")]
    pub site: Label,
    /// The rack that it stands in.
    pub rack: Label,
    /// `host:port` to listen on.
    pub listen: String,
    /// `host:port` under which others reach it, when that differs.
    pub advertise: Option<String>,
    /// `host:port` of the metadata servers; one that answers is enough.
    pub metas: Vec<String>,
    /// Within about this time each shard is read and verified once.
    #[serde(default = "defaults::audit_period_s")]
    pub audit_period_s: u64,
    /// Time between two searches for shards that were written and never committed.
    #[serde(default = "defaults::orphan_period_s")]
    pub orphan_period_s: u64,
    /// Directory for the indexes of its disks, on a fast drive if there is one. What is lost there is made again
    /// from the disks.
    pub data: PathBuf,
    /// What serves its disks.
    #[serde(default)]
    pub disk_engine: DiskEngine,
    /// Its disks.
    #[serde(default, rename = "disk")]
    pub disks: Vec<Disk>,
}

/// What serves the disks of a storage node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskEngine {
    /// io_uring where the kernel gives it, else threads.
    #[default]
    Best,
    /// Threads.
    Threads,
}

impl From<DiskEngine> for EngineChoice {
    fn from(engine: DiskEngine) -> Self {
        match engine {
            DiskEngine::Best => Self::Best,
            DiskEngine::Threads => Self::Threads,
        }
    }
}

/// A disk of a storage node.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The operator's name for it, as on its label.
    pub name: Label,
    /// Directory where it is mounted.
    pub path: PathBuf,
    /// How much of it may be used; all when absent.
    pub capacity: Option<ByteSize>,
}

pub(crate) mod defaults {
    use proto::Label;

    pub(super) fn suspect_after_ms() -> u64 {
        3_000
    }

    pub(super) fn down_after_ms() -> u64 {
        15_000
    }

    pub(crate) fn out_after_ms() -> u64 {
        600_000
    }

    pub(crate) fn out_share_max_percent() -> u8 {
        25
    }

    pub(crate) fn move_bytes_per_s() -> u64 {
        64 << 20
    }

    pub(crate) fn near_full_percent() -> u8 {
        85
    }

    pub(crate) fn backfill_full_percent() -> u8 {
        90
    }

    pub(crate) fn full_percent() -> u8 {
        95
    }

    pub(crate) fn audit_period_s() -> u64 {
        14 * 24 * 3_600
    }

    pub(crate) fn orphan_period_s() -> u64 {
        3_600
    }

    pub(super) fn snapshot_every_entries() -> u64 {
        20_000
    }

    #[allow(clippy::expect_used, reason = "a constant that a test parses")]
    pub(super) fn site() -> Label {
        "site-1".parse().expect("a valid label")
    }
}

/// A configuration cannot be used.
#[derive(Debug)]
pub struct ConfigError {
    file: PathBuf,
    text: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.text.trim_end())
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and checks a file; relative paths in it become relative to its directory.
    ///
    /// # Errors
    ///
    /// When it cannot be read, has an unknown or missing key, or a value out of range.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let fail = |text: String| ConfigError { file: file.to_owned(), text };
        let text = fs::read_to_string(file).map_err(|error| fail(format!("cannot be read: {error}")))?;
        let mut config: Self = parse(&text).map_err(fail)?;
        config.resolve(file.parent().unwrap_or(Path::new(".")));
        config.check().map_err(fail)?;
        Ok(config)
    }

    fn resolve(&mut self, base: &Path) {
        for path in [&mut self.tls.ca, &mut self.tls.certificate, &mut self.tls.key] {
            *path = base.join(&*path);
        }
        if let Some(meta) = &mut self.meta {
            meta.data = base.join(&meta.data);
        }
        if let Some(node) = &mut self.node {
            node.data = base.join(&node.data);
            for disk in &mut node.disks {
                disk.path = base.join(&disk.path);
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        match (&self.meta, &self.node) {
            (None, None) => Err("neither [meta] nor [node] is there: add the one that this daemon is".into()),
            (Some(_), Some(_)) => {
                Err("both [meta] and [node] are there: run two daemons, each with its own file".into())
            }
            (Some(meta), None) => check_meta(meta),
            (None, Some(node)) => check_node(node),
        }
    }
}

fn check_meta(meta: &Meta) -> Result<(), String> {
    check_address("meta.listen", &meta.listen)?;
    meta.advertise.as_deref().map_or(Ok(()), |address| check_address("meta.advertise", address))?;
    if meta.suspect_after_ms < 500 {
        return Err("meta.suspect_after_ms is below 500: one late heartbeat would make a disk suspect".into());
    }
    if meta.down_after_ms <= meta.suspect_after_ms {
        return Err(format!(
            "meta.down_after_ms ({}) must be more than meta.suspect_after_ms ({})",
            meta.down_after_ms, meta.suspect_after_ms
        ));
    }
    if meta.out_after_ms <= meta.down_after_ms {
        return Err(format!(
            "meta.out_after_ms ({}) must be more than meta.down_after_ms ({})",
            meta.out_after_ms, meta.down_after_ms
        ));
    }
    if !(1..=100).contains(&meta.out_share_max_percent) {
        return Err(format!(
            "meta.out_share_max_percent is {}: expected 1 to 100; 100 sets no bound",
            meta.out_share_max_percent
        ));
    }
    let (near, backfill, full) = (meta.near_full_percent, meta.backfill_full_percent, meta.full_percent);
    if near == 0 || near > backfill || backfill > full || full > 100 {
        return Err(format!(
            "meta.near_full_percent, backfill_full_percent and full_percent are {near}, {backfill} and {full}: \
             expected numbers from 1 to 100 that do not fall, for example 85, 90 and 95"
        ));
    }
    if meta.snapshot_every_entries == 0 {
        return Err("meta.snapshot_every_entries is 0: the log would never become shorter".into());
    }
    Ok(())
}

fn check_node(node: &Node) -> Result<(), String> {
    check_address("node.listen", &node.listen)?;
    node.advertise.as_deref().map_or(Ok(()), |address| check_address("node.advertise", address))?;
    if node.metas.is_empty() {
        return Err("node.metas is empty: name at least one metadata server, host:port".into());
    }
    node.metas.iter().try_for_each(|address| check_address("node.metas", address))?;
    for (key, seconds) in
        [("node.audit_period_s", node.audit_period_s), ("node.orphan_period_s", node.orphan_period_s)]
    {
        if seconds == 0 {
            return Err(format!("{key} is 0: the disks would be read without a pause"));
        }
    }
    if node.disks.is_empty() {
        return Err("there is no [[node.disk]]: a storage node needs at least one disk".into());
    }
    for (i, disk) in node.disks.iter().enumerate() {
        for other in &node.disks[..i] {
            if other.name == disk.name {
                return Err(format!("two disks are called {}: give each its own name", disk.name));
            }
            if other.path == disk.path {
                return Err(format!("disks {} and {} have the same path", other.name, disk.name));
            }
        }
    }
    Ok(())
}

fn check_address(key: &str, address: &str) -> Result<(), String> {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
        _ => Err(format!("{key} is {address:?}: expected host:port, for example 10.0.0.1:7100")),
    }
}

/// Parses TOML; the error says where, and for an unknown key which one was probably meant.
///
/// # Errors
///
/// A text for people, with the line.
pub fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        let hint =
            suggestion(error.message()).map(|key| format!("did you mean `{key}`?")).unwrap_or_default();
        format!("{error}{hint}")
    })
}

/// Serde says "unknown field `a`, expected one of `b`, `c`": the expected one that is nearest to `a`.
fn suggestion(message: &str) -> Option<&str> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next().filter(|_| message.starts_with("unknown"))?;
    quoted
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, known)| known)
}

impl Meta {
    /// See [`Meta::suspect_after_ms`].
    pub fn suspect_after(&self) -> Duration {
        Duration::from_millis(self.suspect_after_ms)
    }

    /// See [`Meta::down_after_ms`].
    pub fn down_after(&self) -> Duration {
        Duration::from_millis(self.down_after_ms)
    }

    /// See [`Meta::out_after_ms`].
    pub fn out_after(&self) -> Duration {
        Duration::from_millis(self.out_after_ms)
    }
}

impl Node {
    /// See [`Node::audit_period_s`].
    pub fn audit_period(&self) -> Duration {
        Duration::from_secs(self.audit_period_s)
    }

    /// See [`Node::orphan_period_s`].
    pub fn orphan_period(&self) -> Duration {
        Duration::from_secs(self.orphan_period_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = r#"
        [tls]
        ca = "ca.crt"
        certificate = "node-1.crt"
        key = "node-1.key"
        [node]
        id = 1
        rack = "r1"
        listen = "127.0.0.1:0"
        metas = ["127.0.0.1:7101"]
        data = "indexes"
        [[node.disk]]
        name = "d0"
        path = "disk-0"
        capacity = "10GB"
    "#;

    fn check(text: &str) -> Result<Config, String> {
        let config: Config = parse(text)?;
        config.check().map(|()| config)
    }

    /// A whole file parses, with its defaults.
    #[test]
    fn node_parses() {
        let node = check(NODE).expect("valid").node.expect("a node");
        assert_eq!(node.site.as_str(), "site-1");
        assert_eq!(node.disks[0].capacity, Some(ByteSize(10_000_000_000)));
    }

    /// The times to suspect, down and out rise, and the share is one.
    #[test]
    fn detection_is_checked() {
        let meta = |line: &str| {
            let tls = &NODE[..NODE.find("[node]").expect("a node")];
            check(&format!("{tls}[meta]\nid = 1\nlisten = \"a:1\"\ndata = \"d\"\n{line}\n"))
        };
        let good = meta("out_after_ms = 20000").expect("valid").meta.expect("a meta");
        assert_eq!((good.out_after(), good.out_share_max_percent), (Duration::from_secs(20), 25));
        for (line, part) in [
            ("out_after_ms = 15000", "must be more than meta.down_after_ms (15000)"),
            ("out_share_max_percent = 0", "expected 1 to 100"),
            ("out_share_max_percent = 101", "expected 1 to 100"),
            ("near_full_percent = 91", "are 91, 90 and 95"),
            ("full_percent = 101", "are 85, 90 and 101"),
        ] {
            let error = meta(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    /// A typo is refused, with its line and the right key.
    #[test]
    fn typos_are_named() {
        for (right, wrong) in [("listen =", "lisen ="), ("metas =", "meta ="), ("capacity =", "capcity =")] {
            let error = check(&NODE.replace(right, wrong)).expect_err(wrong);
            let key = right.trim_end_matches(" =");
            assert!(error.contains(&format!("did you mean `{key}`?")), "{error}");
            assert!(error.contains("line"), "{error}");
        }
    }

    /// Values that cannot work are refused by name.
    #[test]
    fn bad_values_are_refused() {
        for (right, wrong, part) in [
            ("listen = \"127.0.0.1:0\"", "listen = \"7100\"", "host:port"),
            ("metas = [\"127.0.0.1:7101\"]", "metas = []", "node.metas is empty"),
            ("capacity = \"10GB\"", "capacity = \"10 bananas\"", "is not a size"),
            ("rack = \"r1\"", "rack = \"R 1\"", "allowed are"),
            ("rack = \"r1\"", "rack = \"r1\"\naudit_period_s = 0", "node.audit_period_s is 0"),
            ("rack = \"r1\"", "rack = \"r1\"\norphan_period_s = 0", "node.orphan_period_s is 0"),
            ("rack = \"r1\"", "rack = \"r1\"\ndisk_engine = \"sync\"", "expected `best` or `threads`"),
            ("[node]", "[meta]", "unknown field"),
        ] {
            let error = check(&NODE.replace(right, wrong)).expect_err(wrong);
            assert!(error.contains(part), "{wrong}: {error}");
        }
    }
}
