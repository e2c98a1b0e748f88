//! The network's tests.

mod contract;
mod faults;
mod links;
mod rpc;
mod speed;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use env::rpc::{Answer, Caller, Handler, Incoming, Local, Target, serve};
use env::{Connection, Env, Expect, Listener, Net, NetError, RecvStream, SendStream, Spawn};
use proto::identity::Service;
use proto::wire::request::Call;
use proto::wire::response::Result as Outcome;
use proto::{ClusterId, Failure, Role, wire};

use super::{NetFaults, SimConnection};
use crate::host::{Host, SimEnv};
use crate::rng::Stream;
use crate::world::{Schedule, World, WorldOptions};

const SCHEDULES: [Schedule; 3] = [Schedule::Random, Schedule::Fifo, Schedule::Starving];
const PORT: u16 = 4001;
/// The disk whose requests take forever.
const STUCK: u32 = 9;

/// Bad weather, without anything that breaks connections.
fn rough() -> NetFaults {
    NetFaults {
        latency_us: (1, 20_000),
        spike_ppm: 20_000,
        spike_us: (1_000, 300_000),
        split_ppm: 500_000,
        ..NetFaults::default()
    }
}

/// A node that can listen and a tenant that can connect.
struct Scene {
    world: World,
    node: Host,
    tenant: Host,
    echo: Echo,
    target: Target,
}

impl Scene {
    fn new(seed: u64) -> Self {
        Self::on(seed, Schedule::Random)
    }

    fn on(seed: u64, schedule: Schedule) -> Self {
        println!("seed {seed}, {schedule:?}");
        let world = World::new(WorldOptions { schedule, ..WorldOptions::new(seed) });
        let node = world.add_host("node", "node/3".parse().unwrap());
        let tenant = world.add_host("tenant", "tenant/dijon".parse().unwrap());
        let target =
            Target { address: format!("{}:{PORT}", node.address()), expect: Expect::Role(Role::Node) };
        Self { world, node, tenant, echo: Echo::default(), target }
    }

    /// Boots the node, which then answers requests.
    fn serve(&self) -> SimEnv {
        let env = self.node.boot();
        let (address, echo) = (self.target.address.clone(), self.echo.clone());
        let serving = {
            let env = env.clone();
            async move {
                let listener = env.net().listen(&address).await.unwrap();
                serve(env, local(), listener, echo).await;
            }
        };
        env.spawn().spawn("serve", serving);
        env
    }

    /// Boots the tenant.
    fn caller(&self) -> Caller<SimEnv> {
        Caller::new(self.tenant.boot(), local())
    }

    /// A connection of the two, which both must have been booted: the tenant's end first.
    async fn pair(&self, tenant: &SimEnv, node: &SimEnv) -> (SimConnection, SimConnection) {
        let address = format!("{}:0", self.node.address());
        let mut listener = node.net().listen(&address).await.unwrap();
        let (address, expect) = (listener.address(), Expect::Role(Role::Node));
        let connected = loop {
            if let Ok(connection) = tenant.net().connect(&address, &expect).await {
                break connection;
            }
        };
        // Attempts that failed may have been accepted before it.
        let mut accepted = listener.accept().await.unwrap();
        loop {
            tokio::select! {
                biased;
                later = listener.accept() => accepted = later.unwrap(),
                () = self.sleep_ms(0) => return (connected, accepted),
            }
        }
    }

    fn run<T>(&self, test: impl Future<Output = T>) -> T {
        self.world.run(Duration::from_secs(3600), test).unwrap()
    }

    async fn sleep_ms(&self, ms: u64) {
        self.world.sleep(Duration::from_millis(ms)).await;
    }

    /// How long `work` takes.
    async fn timed<T>(&self, work: impl Future<Output = T>) -> (T, Duration) {
        let began = self.world.now();
        let output = work.await;
        (output, self.world.now() - began)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.world.end_of_days();
    }
}

fn local() -> Local {
    let local = Local::new();
    local.join(ClusterId(5)).unwrap();
    local
}

fn write(disk: u32) -> Call {
    Call::WriteShard(wire::WriteShard { disk, ..Default::default() })
}

/// Answers with the payload reversed.
#[derive(Clone, Default)]
struct Echo {
    under_way: Arc<AtomicU32>,
}

impl Echo {
    fn under_way(&self) -> u32 {
        self.under_way.load(Ordering::Relaxed)
    }
}

/// Counts down when the request's future is dropped or done.
struct Guard(Arc<AtomicU32>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Handler<SimEnv> for Echo {
    fn service(&self) -> Service {
        Service::Shard
    }

    async fn handle(&self, incoming: Incoming<SimEnv>) -> Result<Answer, Failure> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let _guard = Guard(self.under_way.clone());
        if matches!(&incoming.call, Call::WriteShard(call) if call.disk == STUCK) {
            std::future::pending::<()>().await;
        }
        let mut payload = incoming.payload.collect().await?.to_vec();
        payload.reverse();
        let result = Outcome::WriteShard(wire::WriteShardReply::default());
        Ok(Answer { payload: vec![payload.into()], ..Answer::new(result) })
    }
}

fn random(seed: u64, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    Stream::new(seed).fill(&mut bytes);
    bytes.into()
}

/// Reads until the end or an error.
async fn read_all(recv: &mut impl RecvStream, max: usize) -> (Vec<u8>, Result<(), NetError>) {
    let mut all = Vec::new();
    loop {
        match recv.read(max).await {
            Ok(Some(bytes)) => all.extend_from_slice(&bytes),
            Ok(None) => return (all, Ok(())),
            Err(error) => return (all, Err(error)),
        }
    }
}

/// Writes all pieces and the end.
async fn write_all(send: &mut impl SendStream, pieces: &[Bytes]) -> Result<(), NetError> {
    for piece in pieces {
        send.write(piece.clone()).await?;
    }
    send.finish()
}

/// Sends a message on a new stream of `from`, and reads it at `to`.
async fn pass(from: &SimConnection, to: &SimConnection, message: &Bytes) {
    let there = async {
        let (mut send, _recv) = from.open().await.unwrap();
        write_all(&mut send, std::slice::from_ref(message)).await.unwrap();
    };
    let here = async {
        let (_send, mut recv) = to.accept().await.unwrap();
        assert_eq!(read_all(&mut recv, usize::MAX).await, (message.to_vec(), Ok(())));
    };
    tokio::join!(there, here);
}
