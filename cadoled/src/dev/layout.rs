//! What a development cluster consists of, and where its files are.
//!
//! ```text
//! DIR/
//!   cluster.toml       the layout: read again by the next start
//!   clusterctl.toml    for clusterctl, as operator
//!   ca/  certs/
//!   meta-1/  meta.toml  data/  log  pid
//!   node-1/  node.toml  data/  disk-0/  disk-1/  log  pid
//! ```

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use os::ca::Authority;
use proto::{Identity, Label, MetaId, NodeId};
use serde::{Deserialize, Serialize};

use crate::ca::issue_into;
use crate::config::{Config, Disk, DiskEngine, Log, Meta, Node, Tls, defaults, parse};

/// The operator whose certificate the development cluster makes.
const OPERATOR: &str = "developer";
const CERTIFICATE_DAYS: u32 = 3650;

/// How large a cluster to make.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Metadata servers.
    pub metas: u32,
    /// Racks.
    pub racks: u32,
    /// Storage nodes in each rack.
    pub nodes_per_rack: u32,
    /// Disks of each node.
    pub disks: u32,
    /// First port; 0 takes free ones.
    pub base_port: u16,
    /// Log filter of the daemons.
    pub log: String,
    /// Silence after which a node is suspect and down, in milliseconds.
    pub suspect_after_ms: u64,
    /// See `suspect_after_ms`.
    pub down_after_ms: u64,
    /// Log entries between two snapshots.
    pub snapshot_every_entries: u64,
}

/// A cluster on loopback.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Metadata servers.
    pub metas: Vec<MetaServer>,
    /// Storage nodes.
    pub nodes: Vec<StorageNode>,
}

/// One metadata server.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MetaServer {
    /// Its id.
    pub id: MetaId,
    /// Where it listens.
    pub address: String,
}

/// One storage node.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StorageNode {
    /// Its id.
    pub id: NodeId,
    /// Its rack.
    pub rack: Label,
    /// Where it listens.
    pub address: String,
}

impl Layout {
    /// Opens the cluster in `dir`, or makes one of this shape.
    ///
    /// # Errors
    ///
    /// When files cannot be read or written, or no ports are free.
    pub fn open_or_make(dir: &Path, shape: &Shape) -> anyhow::Result<Self> {
        if dir.join("cluster.toml").exists() { Self::open(dir) } else { Self::make(dir, shape) }
    }

    /// Opens the cluster in `dir`.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let file = dir.join("cluster.toml");
        let text = fs::read_to_string(&file).with_context(|| {
            format!("{} has no development cluster: start one with `cadoled dev`", dir.display())
        })?;
        match parse(&text) {
            Ok(layout) => Ok(layout),
            Err(error) => bail!("{}: {error}", file.display()),
        }
    }

    /// Addresses of the metadata servers.
    pub fn meta_addresses(&self) -> Vec<String> {
        self.metas.iter().map(|meta| meta.address.clone()).collect()
    }

    /// The daemons that a name means: `meta-1`, `node-3`, `rack-2`, `metas`, `nodes` or `all`.
    ///
    /// # Errors
    ///
    /// When it means none.
    pub fn select(&self, name: &str) -> anyhow::Result<Vec<String>> {
        let metas = self.metas.iter().map(|meta| (format!("meta-{}", meta.id), "metas"));
        let nodes = self.nodes.iter().map(|node| (format!("node-{}", node.id), node.rack.as_str()));
        let means = |daemon: &str, group: &str| {
            name == "all" || name == daemon || name == group || name == "nodes" && daemon.starts_with("node-")
        };
        let daemons: Vec<String> = metas
            .chain(nodes)
            .filter(|(daemon, group)| means(daemon, group))
            .map(|(daemon, _)| daemon)
            .collect();
        if daemons.is_empty() {
            bail!("{name:?} names no daemon: use meta-1, node-1, rack-1, metas, nodes or all");
        }
        Ok(daemons)
    }

    /// The certificate and key of the cluster's operator.
    pub fn operator(dir: &Path) -> os::CredentialPaths {
        paths(dir, &format!("operator-{OPERATOR}"))
    }

    /// `clusterctl`'s configuration.
    pub fn clusterctl_config(dir: &Path) -> PathBuf {
        dir.join("clusterctl.toml")
    }

    fn make(dir: &Path, shape: &Shape) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let count = shape.metas + shape.racks * shape.nodes_per_rack;
        let mut ports = free_ports(shape.base_port, count)?.into_iter();
        let mut address = || format!("127.0.0.1:{}", ports.next().unwrap_or_default());
        let metas =
            (1..=shape.metas).map(|id| MetaServer { id: MetaId(id.into()), address: address() }).collect();
        let nodes = (0..shape.racks * shape.nodes_per_rack)
            .map(|i| {
                let rack = format!("rack-{}", i / shape.nodes_per_rack + 1).parse()?;
                Ok(StorageNode { id: NodeId(i + 1), rack, address: address() })
            })
            .collect::<anyhow::Result<_>>()?;
        let layout = Self { metas, nodes };
        layout.write(dir, shape)?;
        Ok(layout)
    }

    fn write(&self, dir: &Path, shape: &Shape) -> anyhow::Result<()> {
        let authority = Authority::init(&dir.join("ca"))?;
        let certs = dir.join("certs");
        fs::create_dir_all(&certs)?;
        let issue =
            |identity: &Identity| issue_into(&authority, identity, CERTIFICATE_DAYS, &certs).map(|_| ());
        issue(&Identity::Operator(OPERATOR.parse()?))?;
        for meta in &self.metas {
            issue(&Identity::Meta(meta.id))?;
            let home = dir.join(format!("meta-{}", meta.id));
            fs::create_dir_all(&home)?;
            write_toml(&home.join("meta.toml"), &meta_config(meta, shape))?;
        }
        for node in &self.nodes {
            issue(&Identity::Node(node.id))?;
            let home = dir.join(format!("node-{}", node.id));
            let config = self.node_config(node, shape)?;
            for disk in config.node.iter().flat_map(|node| &node.disks) {
                fs::create_dir_all(home.join(&disk.path))?;
            }
            write_toml(&home.join("node.toml"), &config)?;
        }
        let operator = tls("..", &format!("operator-{OPERATOR}"));
        let operator = Tls {
            ca: strip(&operator.ca),
            certificate: strip(&operator.certificate),
            key: strip(&operator.key),
        };
        write_toml(
            &Self::clusterctl_config(dir),
            &Clusterctl { metas: self.meta_addresses(), tenant: super::TENANT.into(), tls: operator },
        )?;
        // Last: without it the directory is no cluster yet.
        write_toml(&dir.join("cluster.toml"), self)
    }

    fn node_config(&self, node: &StorageNode, shape: &Shape) -> anyhow::Result<Config> {
        let disk = |i: u32| {
            anyhow::Ok(Disk {
                name: format!("disk-{i}").parse()?,
                path: PathBuf::from(format!("disk-{i}")),
                capacity: None,
            })
        };
        Ok(Config {
            tls: tls("..", &format!("node-{}", node.id)),
            log: Log { level: shape.log.clone(), ..Log::default() },
            meta: None,
            node: Some(Node {
                id: node.id,
                site: "loopback".parse()?,
                rack: node.rack.clone(),
                listen: node.address.clone(),
                advertise: None,
                metas: self.meta_addresses(),
                audit_period_s: defaults::audit_period_s(),
                orphan_period_s: defaults::orphan_period_s(),
                data: PathBuf::from("data"),
                disk_engine: DiskEngine::default(),
                disks: (0..shape.disks).map(disk).collect::<anyhow::Result<_>>()?,
            }),
        })
    }
}

/// What `clusterctl` reads.
#[derive(Serialize)]
struct Clusterctl {
    metas: Vec<String>,
    tenant: String,
    tls: Tls,
}

fn meta_config(meta: &MetaServer, shape: &Shape) -> Config {
    Config {
        tls: tls("..", &format!("meta-{}", meta.id)),
        log: Log { level: shape.log.clone(), ..Log::default() },
        meta: Some(Meta {
            id: meta.id,
            listen: meta.address.clone(),
            advertise: None,
            data: PathBuf::from("data"),
            suspect_after_ms: shape.suspect_after_ms,
            down_after_ms: shape.down_after_ms,
            out_after_ms: defaults::out_after_ms(),
            out_share_max_percent: defaults::out_share_max_percent(),
            repair_bytes_per_s: 0,
            move_bytes_per_s: defaults::move_bytes_per_s(),
            near_full_percent: defaults::near_full_percent(),
            backfill_full_percent: defaults::backfill_full_percent(),
            full_percent: defaults::full_percent(),
            snapshot_every_entries: shape.snapshot_every_entries,
        }),
        node: None,
    }
}

fn tls(base: &str, name: &str) -> Tls {
    let base = Path::new(base);
    let paths = paths(base, name);
    Tls { ca: paths.ca, certificate: paths.certificate, key: paths.key }
}

fn paths(dir: &Path, name: &str) -> os::CredentialPaths {
    os::CredentialPaths {
        ca: dir.join("ca/ca.crt"),
        certificate: dir.join(format!("certs/{name}.crt")),
        key: dir.join(format!("certs/{name}.key")),
    }
}

fn strip(path: &Path) -> PathBuf {
    path.strip_prefix("..").unwrap_or(path).to_owned()
}

fn write_toml(file: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let text = toml::to_string_pretty(value).context("cannot write TOML")?;
    let unfinished = file.with_extension("tmp");
    fs::write(&unfinished, text).with_context(|| format!("cannot write {}", unfinished.display()))?;
    fs::rename(&unfinished, file).with_context(|| format!("cannot write {}", file.display()))
}

/// Ports for `count` daemons: in a row from `base`, or any that are free. They are held while they
/// are chosen, so that none is chosen twice.
fn free_ports(base: u16, count: u32) -> anyhow::Result<Vec<u16>> {
    let mut held = Vec::new();
    for i in 0..count {
        let port = if base == 0 { 0 } else { base.saturating_add(u16::try_from(i)?) };
        let socket = UdpSocket::bind(("127.0.0.1", port)).with_context(|| {
            format!("port {port} is taken: choose another with --base-port, or 0 for any free ones")
        })?;
        held.push(socket);
    }
    held.iter().map(|socket| Ok(socket.local_addr()?.port())).collect()
}
