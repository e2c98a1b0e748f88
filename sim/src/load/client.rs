//! The machine of a client, and the process on it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use client::{Bucket, Cluster as Client, Options};
use env::{Clock, Env, Spawn};
use simhost::{HostId, SimEnv, Stream};

use super::Workload;
use super::choice::Choice;
use super::worker::Worker;
use crate::cluster::{BUCKET, Cluster, TENANT};
use crate::process::Process;

/// Between two beats, by which it is seen that the machine stood still.
const BEAT: Duration = Duration::from_millis(250);
/// A beat that comes later than this stood still meanwhile.
const LATE: Duration = Duration::from_millis(50);

/// A new machine with a client that works until the load ends.
pub(super) fn start(cluster: &Arc<Cluster>, workload: &Arc<Workload>, number: u32) {
    let name = format!("client-{number}");
    // The tenant's name is well-formed.
    let identity = format!("tenant/{TENANT}").parse().unwrap_or_else(|error| unreachable!("{error}"));
    let host = cluster.world.add_host(&name, identity);
    let stream = cluster.world.stream("load").fork(&name);
    let workers: Vec<Stream> =
        (0..cluster.plan.load.workers).map(|worker| stream.fork(&format!("worker {worker}"))).collect();
    // The cluster keeps the process, not the other way round.
    let (weak, workload): (Weak<Cluster>, _) = (Arc::downgrade(cluster), workload.clone());
    let process = Process::supervise(host, move |env| {
        let Some(cluster) = weak.upgrade() else { return };
        let spawn = env.spawn().clone();
        spawn.spawn("beat", beat(env.clone(), workload.clone()));
        let session =
            Arc::new(Session { cluster: cluster.clone(), env: env.clone(), made: Default::default() });
        for stream in &workers {
            let worker = Worker {
                choice: Choice::new(&cluster.plan),
                cluster: cluster.clone(),
                workload: workload.clone(),
                session: session.clone(),
                stream: stream.clone(),
                env: env.clone(),
                client: number,
            };
            spawn.spawn("worker", worker.run());
        }
    });
    cluster.add_client(process);
}

/// Notices when the machine stood still, also if the process dies before it goes on.
async fn beat(env: SimEnv, workload: Arc<Workload>) {
    let host = env.life().host().id();
    loop {
        let _beat = Beat { host, since: workload.world.now(), workload: &workload };
        env.clock().sleep(BEAT).await;
    }
}

/// The time between two beats, or from the last to the death.
struct Beat<'a> {
    host: HostId,
    since: Duration,
    workload: &'a Workload,
}

impl Drop for Beat<'_> {
    fn drop(&mut self) {
        let now = self.workload.world.now();
        if now.saturating_sub(self.since) > BEAT + LATE {
            self.workload.running.paused(self.host, self.since, now);
        }
    }
}

/// The connection that the workers of one life share.
pub(super) struct Session {
    cluster: Arc<Cluster>,
    env: SimEnv,
    made: tokio::sync::Mutex<Made>,
}

/// The connection, and which it is.
#[derive(Default)]
struct Made {
    number: u64,
    bucket: Option<Bucket<SimEnv>>,
}

impl Session {
    /// The bucket, over the connection that there is or a new one, and the connection's number; none
    /// when nobody answers.
    pub(super) async fn bucket(&self) -> Option<(u64, Bucket<SimEnv>)> {
        let mut made = self.made.lock().await;
        if made.bucket.is_none() {
            let tunables = &self.cluster.plan.tunables;
            let mut options = Options::new(self.cluster.meta_addresses());
            options.timeout = tunables.timeout;
            options.shard_timeout = tunables.shard_timeout;
            let client = Client::connect(self.env.clone(), options).await.ok()?;
            let (tenant, bucket) = (TENANT.parse().ok()?, BUCKET.parse().ok()?);
            made.number += 1;
            made.bucket = Some(client.tenant(tenant).bucket(bucket));
        }
        made.bucket.clone().map(|bucket| (made.number, bucket))
    }

    /// Connection `number` is of no use: all the servers that it knows may have been replaced. The next
    /// one asks those that there are now.
    pub(super) async fn give_up(&self, number: u64) {
        let mut made = self.made.lock().await;
        if made.number == number {
            made.bucket = None;
        }
    }
}
