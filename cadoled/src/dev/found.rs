//! Founding a development cluster: id, profile, tenant, bucket.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use client::Cluster;
use os::{Credentials, Host, HostOptions};
use proto::wire;

use super::layout::Layout;

/// Shards of a full stripe.
const SHARD_BYTES: u32 = 1 << 20;
/// How long the daemons may take to come up.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to the cluster in `dir` as its operator.
///
/// # Errors
///
/// When the certificates cannot be read.
pub async fn connect(dir: &Path, layout: &Layout) -> anyhow::Result<Cluster<Host>> {
    let credentials = Credentials::load(&Layout::operator(dir))?;
    let host = Host::start(HostOptions::new(credentials))?;
    Ok(Cluster::connect(host, client::Options::new(layout.meta_addresses())).await?)
}

/// Founds the cluster as far as that is still to do, and waits until all nodes are there.
///
/// # Errors
///
/// When it does not come up in time, or what a development cluster has cannot be made.
pub async fn found(dir: &Path, layout: &Layout) -> anyhow::Result<()> {
    let start = Instant::now();
    let cluster = connect(dir, layout).await?;
    let admin = cluster.admin();
    let members: Vec<_> = layout
        .metas
        .iter()
        .map(|meta| wire::Member { id: meta.id.0, address: meta.address.clone(), voter: true })
        .collect();
    let mut last = String::from("no answer yet");
    while start.elapsed() < START_TIMEOUT {
        match admin.status().await {
            Ok(status) if status.nodes.len() == layout.nodes.len() && all_up(&status) => {
                return provision(&cluster).await;
            }
            Ok(status) => {
                last = format!("{} of {} nodes are up", count_up(&status), layout.nodes.len());
            }
            Err(error) if error.code() == Some(proto::ErrorCode::NotBootstrapped) => {
                let id = admin.bootstrap(members.clone()).await.context("the cluster cannot be founded")?;
                eprintln!("founded cluster {id}");
            }
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bail!("the cluster did not come up within {} s: {last}", START_TIMEOUT.as_secs())
}

fn count_up(status: &wire::GetStatusReply) -> usize {
    let up = i32::from(wire::Health::Up);
    status.nodes.iter().filter(|node| node.node.as_ref().is_some_and(|node| node.health == up)).count()
}

fn all_up(status: &wire::GetStatusReply) -> bool {
    count_up(status) == status.nodes.len()
}

async fn provision(cluster: &Cluster<Host>) -> anyhow::Result<()> {
    let admin = cluster.admin();
    let profile = wire::CreateProfile {
        name: super::PROFILE.into(),
        k: 4,
        m: 2,
        shard_bytes: SHARD_BYTES,
        failure_domain: wire::Domain::Rack.into(),
        ..Default::default()
    };
    // Each of these says nothing when it was done before.
    admin.create_profile(profile).await.context("the profile cannot be made")?;
    let tenant = super::TENANT.parse()?;
    admin.create_tenant(&tenant).await.context("the tenant cannot be made")?;
    let bucket = super::BUCKET.parse()?;
    let profile = super::PROFILE.parse()?;
    cluster.tenant(tenant).create_bucket(&bucket, &profile).await.context("the bucket cannot be made")?;
    Ok(())
}
