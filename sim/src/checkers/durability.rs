//! Every acknowledged object reads back byte for byte, when the cluster has healed, and when as much is
//! lost of it as the receipts allow.

use std::sync::Arc;
use std::time::Duration;

use client::{Bucket, Cluster as Client, GetError, GetOptions, ObjectInfo, PutOptions};
use placement::Tolerance;
use simhost::{Death, Host, SimEnv};

use crate::cluster::{BUCKET, Cluster, TENANT};
use crate::history::{Condition, Found, Key, Op, Outcome, content};
use crate::load::ledger_receipt;
use crate::load::verify::{Reading, VALUE, check_info};
use crate::oracle;
use crate::process::lock;
use crate::verdict::Kind;

/// See [`super::TABLE`].
pub(super) const NAME: &str = "durability";
/// The checker of [`new_operations`].
pub(super) const AVAILABILITY: &str = "availability";

/// The auditor's number among the clients.
const AUDITOR: u32 = 0;
/// Bytes of the objects that are put at the end: none, in the record, replicated, coded.
const SIZES: [u64; 4] = [0, 1_000, 6_000, 300_000];
/// Time for readers to notice that something is gone.
const NOTICE: Duration = Duration::from_secs(5);

/// A client of its own, on a machine of its own, that no fault has touched.
struct Auditor {
    host: Host,
    bucket: Bucket<SimEnv>,
}

impl Auditor {
    async fn start(cluster: &Cluster) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let identity = format!("tenant/{TENANT}").parse().map_err(|error| text(&error))?;
        let host = cluster.world.add_host("auditor", identity);
        let mut options = client::Options::new(cluster.meta_addresses());
        options.timeout = Duration::from_secs(30);
        let connected = Client::connect(host.boot(), options).await.map_err(|error| text(&error))?;
        let tenant = connected.tenant(TENANT.parse().map_err(|error| text(&error))?);
        Ok(Self { bucket: tenant.bucket(BUCKET.parse().map_err(|error| text(&error))?), host })
    }

    /// Puts an object.
    async fn put(&self, cluster: &Cluster, key: &Key, size: u64) -> Result<(), String> {
        let (value, index) = {
            let mut ledger = lock(&cluster.ledger);
            let value = ledger.new_value();
            let op = Op::Put { value, size, condition: Condition::Any };
            (value, ledger.begin(AUDITOR, key.clone(), op, cluster.world.now()))
        };
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        content::fill(value, 0, &mut bytes);
        let mut options = PutOptions::default();
        options.user_metadata.insert(VALUE.to_owned(), value.0.to_string());
        let receipt = self.bucket.put(&key.name, bytes::Bytes::from(bytes), options).await;
        let outcome = match &receipt {
            Ok(receipt) => Outcome::Acknowledged(ledger_receipt(receipt)),
            Err(_) => Outcome::Unknown,
        };
        lock(&cluster.ledger).end(index, outcome, cluster.world.now());
        receipt.map(drop).map_err(|error| format!("{key}: put of {size} bytes: {error}"))
    }

    /// Gets an object and compares all of it; an absent one is for the linearizability checker to judge.
    async fn get(&self, cluster: &Cluster, key: &Key) -> Result<(), String> {
        let op = Op::Get { range: None };
        let index = lock(&cluster.ledger).begin(AUDITOR, key.clone(), op, cluster.world.now());
        let read = self.read(cluster, key).await;
        let (outcome, result) = match read {
            Ok(found) => (Outcome::Read(found), Ok(())),
            Err(text) => (Outcome::Failed, Err(format!("{key}: {text}"))),
        };
        lock(&cluster.ledger).end(index, outcome, cluster.world.now());
        result
    }

    async fn read(&self, cluster: &Cluster, key: &Key) -> Result<Option<Found>, String> {
        let mut stream = match self.bucket.get(&key.name, GetOptions::default()).await {
            Ok(stream) => stream,
            Err(GetError::NoSuchObject(_)) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let info: ObjectInfo = stream.info().clone();
        let value = check_info(&lock(&cluster.ledger), key, &info)?;
        let mut reading = Reading::new(key, value, info.size, 0..info.size);
        while let Some(bytes) = stream.next().await.map_err(|error| format!("{value}: {error}"))? {
            reading.take(&lock(&cluster.ledger), &bytes)?;
        }
        reading.end()?;
        Ok(Some(Found { value: Some(value), version: info.version, size: info.size }))
    }

    fn end(self) {
        self.host.kill(Death::Process);
    }
}

/// The cluster does what it is asked for, with the kinds of objects that there are.
pub(super) async fn new_operations(cluster: &Arc<Cluster>) {
    let broken = |text: String| cluster.findings.report(&cluster.world, Kind::Liveness, AVAILABILITY, text);
    let auditor = match Auditor::start(cluster).await {
        Ok(auditor) => auditor,
        Err(error) => return broken(error),
    };
    for (number, size) in SIZES.into_iter().enumerate() {
        let Ok(name) = format!("audit/{number}").parse() else { continue };
        let key = Key { bucket: crate::load::BUCKET, name };
        if let Err(error) = auditor.put(cluster, &key, size).await {
            broken(error);
        }
    }
    auditor.end();
}

/// Every key reads back.
pub(super) async fn read_all(cluster: &Arc<Cluster>, when: &str) {
    let auditor = match Auditor::start(cluster).await {
        Ok(auditor) => auditor,
        Err(error) => {
            let text = format!("{when}: {error}");
            return cluster.findings.report(&cluster.world, Kind::Liveness, AVAILABILITY, text);
        }
    };
    let keys = lock(&cluster.ledger).keys();
    for key in keys {
        if let Err(error) = auditor.get(cluster, &key).await {
            if cluster.plan.beyond && !is_decodable(cluster, &key) {
                cluster.world.probe("an object was lost beyond what was promised");
                continue;
            }
            let text = format!("{when}: {error}");
            cluster.findings.report(&cluster.world, Kind::Correctness, NAME, text);
            break;
        }
    }
    auditor.end();
}

/// Are there enough shards of each stripe of the key's object?
fn is_decodable(cluster: &Cluster, key: &Key) -> bool {
    let Some(latest) = oracle::latest(cluster) else { return false };
    let disks = oracle::disks(cluster);
    let mut of_key = latest.committed();
    of_key.retain(|extent| extent.row.key[..] == key.name.as_bytes()[..]);
    of_key.iter().all(|extent| {
        let k = latest
            .machine
            .map()
            .profiles()
            .get(&extent.group.profile)
            .map_or(usize::MAX, placement::Profile::k);
        (0..latest.stripes(extent))
            .all(|stripe| disks.intact(&latest, extent, proto::StripeIndex(stripe)).len() >= k)
    })
}

/// Takes away what the promise says may be lost, and reads everything again.
pub(super) async fn withstand(cluster: &Arc<Cluster>) {
    if cluster.plan.beyond || !cluster.findings.is_empty() {
        return;
    }
    let Some(latest) = oracle::latest(cluster) else { return };
    let least = promised_to_all(&latest);
    let stream = cluster.world.stream("withstand");
    let nodes: Vec<_> = cluster.nodes().into_iter().filter(|node| node.process.is_wanted()).collect();
    let mut racks: Vec<u32> = nodes.iter().map(|node| node.rack).collect();
    racks.sort_unstable();
    racks.dedup();
    if least.racks > 0 && least.racks < u32::MAX {
        stream.shuffle(&mut racks);
        let gone = &racks[..racks.len().min(usize::try_from(least.racks).unwrap_or(1))];
        let off: Vec<_> = nodes.iter().filter(|node| gone.contains(&node.rack)).collect();
        off.iter().for_each(|node| {
            node.process.want(false);
            node.process.kill(Death::Power, Duration::ZERO);
        });
        cluster.world.sleep(NOTICE).await;
        read_all(cluster, &format!("without racks {gone:?}")).await;
        cluster.world.probe("everything was read without a rack");
        off.iter().for_each(|node| node.process.want(true));
        cluster.world.sleep(NOTICE).await;
    }
    if least.disks > 0 && least.disks < u32::MAX {
        let mut disks: Vec<_> =
            nodes.iter().flat_map(|node| node.process.host().disks().into_values()).collect();
        stream.shuffle(&mut disks);
        disks.truncate(usize::try_from(least.disks).unwrap_or(1));
        disks.iter().for_each(|disk| disk.set_gone(true));
        read_all(cluster, "without as many disks as may be lost").await;
        cluster.world.probe("everything was read without as many disks as may be lost");
        disks.iter().for_each(|disk| disk.set_gone(false));
    }
}

/// What all extents withstand, by the places of their shards.
fn promised_to_all(latest: &oracle::Metadata) -> Tolerance {
    let map = latest.machine.map();
    latest.committed().iter().fold(Tolerance::UNLIMITED, |least, extent| {
        let Some(profile) = map.profiles().get(&extent.group.profile) else { return least };
        least.min_of(placement::tolerance(map, profile, &extent.group.slots, extent.missing))
    })
}
