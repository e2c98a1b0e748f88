//! Requests and replies over QUIC, with well-behaved peers and with others.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the real side of the seam")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use common::Trust;
use env::rpc::{Answer, CallError, Caller, Handler, Incoming, Local, Reply, Target, serve};
use env::{Connection, Env, Expect, Listener, Net, NetError, RecvStream, SendStream};
use os::Host;
use os::net::OsConnection;
use proto::identity::Service;
use proto::limits::PAYLOAD_BYTES_MAX;
use proto::prost::Message;
use proto::wire::request::Call;
use proto::wire::response::Result as Outcome;
use proto::{ClusterId, ErrorCode, Failure, Role, frame, wire};

const SECONDS: Duration = Duration::from_secs(20);
/// The disk whose requests take forever.
const STUCK: u32 = 9;
/// The disk whose requests are answered without payload.
const SINK: u32 = 8;

/// Answers writes with their payload reversed, and reads with as many blocks as asked for.
#[derive(Clone, Default)]
struct Echo {
    under_way: Arc<AtomicU32>,
}

/// Counts down when the request's future is dropped or done.
struct Guard(Arc<AtomicU32>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Handler<Host> for Echo {
    fn service(&self) -> Service {
        Service::Shard
    }

    async fn handle(&self, incoming: Incoming<Host>) -> Result<Answer, Failure> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let _guard = Guard(self.under_way.clone());
        match incoming.call {
            Call::WriteShard(call) if call.disk == STUCK => std::future::pending().await,
            Call::WriteShard(call) if call.disk == SINK => {
                let payload = incoming.payload.collect().await?;
                assert_eq!(payload.len(), 1 << 20);
                Ok(Answer::new(Outcome::WriteShard(wire::WriteShardReply::default())))
            }
            Call::WriteShard(_) => {
                let mut payload = incoming.payload.collect().await?.to_vec();
                payload.reverse();
                let result = Outcome::WriteShard(wire::WriteShardReply::default());
                Ok(Answer { result, payload: vec![payload.into()], cluster_time_ms: 7 })
            }
            Call::ReadShard(call) => {
                let bytes = usize::try_from(call.blocks).unwrap() * 65_536;
                let result = Outcome::ReadShard(wire::ReadShardReply::default());
                Ok(Answer { payload: vec![Bytes::from(vec![7; bytes])], ..Answer::new(result) })
            }
            _ => Err(Failure::new(ErrorCode::NotMine, "not in this test")),
        }
    }
}

struct Rpc {
    trust: Trust,
    server: Host,
    local: Local,
    echo: Echo,
    target: Target,
    serving: tokio::task::JoinHandle<()>,
}

impl Rpc {
    async fn start() -> Self {
        let trust = Trust::new();
        let server = trust.host("node/3");
        let listener = server.net().listen("127.0.0.1:0").await.unwrap();
        let target = Target { address: listener.address(), expect: Expect::Role(Role::Node) };
        let (local, echo) = (Local::new(), Echo::default());
        local.join(ClusterId(5)).unwrap();
        let serving = tokio::spawn(serve(server.clone(), local.clone(), listener, echo.clone()));
        Self { trust, server, local, echo, target, serving }
    }

    fn caller(&self, holder: &str) -> Caller<Host> {
        let local = Local::new();
        local.join(ClusterId(5)).unwrap();
        Caller::new(self.trust.host(holder), local)
    }

    /// A connection that has been greeted, for requests that a [`Caller`] does not make.
    async fn greeted(&self, host: &Host) -> OsConnection {
        let connection = host.net().connect(&self.target.address, &self.target.expect).await.unwrap();
        let hello = wire::Hello { version_min: 1, version_max: 1, ..Default::default() };
        let answer = exchange(&connection, frame::encode(&hello).unwrap()).await.unwrap();
        let answer = wire::Hello::decode(&answer[4..]).unwrap();
        assert_eq!(answer.cluster_id, ClusterId(5).to_wire());
        connection
    }
}

fn write(disk: u32) -> Call {
    Call::WriteShard(wire::WriteShard { disk, ..Default::default() })
}

fn request(call: Option<Call>, payload_bytes: u64) -> Bytes {
    frame::encode(&wire::Request { timeout_ms: 20_000, trace_id: 1, payload_bytes, call }).unwrap()
}

/// Sends raw bytes on a stream of their own and reads what comes back.
async fn exchange(connection: &OsConnection, bytes: Bytes) -> Result<Bytes, NetError> {
    let (mut send, mut recv) = connection.open().await?;
    send.write(bytes).await?;
    send.finish()?;
    let mut all = BytesMut::new();
    while let Some(piece) = recv.read(usize::MAX).await? {
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}

fn failure(answer: &Bytes) -> Failure {
    match wire::Response::decode(&answer[4..]).unwrap().result {
        Some(Outcome::Failure(failure)) => Failure::from_wire(failure),
        other => panic!("{other:?}"),
    }
}

fn code(result: Result<Reply, CallError>) -> Option<ErrorCode> {
    result.unwrap_err().code()
}

/// Payloads of all sizes go there and come back, many at once on one connection.
#[tokio::test(flavor = "multi_thread")]
async fn payloads_go_both_ways() {
    let rpc = Rpc::start().await;
    let caller = rpc.caller("tenant/dijon");
    let calls = [0, 1, 65_536, 1_000_003, PAYLOAD_BYTES_MAX].into_iter().cycle().take(40).map(|length| {
        let (caller, target) = (caller.clone(), rpc.target.clone());
        tokio::spawn(async move {
            let payload: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let (first, second) = payload.split_at(length / 3);
            let pieces = vec![Bytes::copy_from_slice(first), Bytes::copy_from_slice(second)];
            let reply = caller.call(&target, write(1), pieces, SECONDS).await.unwrap();
            assert!(matches!(reply.result, Outcome::WriteShard(_)));
            assert_eq!(reply.cluster_time_ms, 7);
            assert!(reply.payload.iter().rev().eq(payload.iter()), "{length} bytes came back changed");
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

/// Who may not ask, or asks the wrong service, is told so, also in the middle of a large payload.
#[tokio::test(flavor = "multi_thread")]
async fn rights_are_checked_first() {
    let rpc = Rpc::start().await;
    let payload = vec![Bytes::from(vec![1; PAYLOAD_BYTES_MAX])];
    for _ in 0..20 {
        let refused = rpc.caller("node/4").call(&rpc.target, write(1), payload.clone(), SECONDS).await;
        assert_eq!(code(refused), Some(ErrorCode::Forbidden), "nodes do not write");
    }
    let operator = rpc.caller("operator/alice");
    let elsewhere = Call::GetStatus(wire::GetStatus::default());
    let refused = operator.call(&rpc.target, elsewhere, Vec::new(), SECONDS).await;
    assert_eq!(code(refused), Some(ErrorCode::InvalidRequest), "a node is no metadata server");
    assert!(operator.call(&rpc.target, write(1), payload, SECONDS).await.is_ok());
}

/// Headers and payloads over the limit, cut short, or of another version are refused one by one, and
/// the connection goes on.
#[tokio::test(flavor = "multi_thread")]
async fn broken_requests_are_answered() {
    let rpc = Rpc::start().await;
    let client = rpc.trust.host("tenant/dijon");
    let connection = rpc.greeted(&client).await;

    let mut huge = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
    huge.put_bytes(0, 1000);
    let over = u64::try_from(PAYLOAD_BYTES_MAX).unwrap() + 1;
    let mut torn = BytesMut::from(&request(Some(write(1)), 1000)[..]);
    torn.put_bytes(1, 999);
    let untimed = wire::Request { call: Some(write(1)), ..Default::default() };
    for (what, bytes, expected) in [
        ("a header of 4 GiB", huge.freeze(), ErrorCode::TooLarge),
        ("a payload over the limit", request(Some(write(1)), over), ErrorCode::TooLarge),
        ("a payload cut short", torn.freeze(), ErrorCode::InvalidRequest),
        ("half a header", request(Some(write(1)), 0).slice(..6), ErrorCode::InvalidRequest),
        ("no header", Bytes::new(), ErrorCode::InvalidRequest),
        ("not protobuf", Bytes::from_static(&[3, 0, 0, 0, 255, 255, 255]), ErrorCode::InvalidRequest),
        ("an unknown call", request(None, 0), ErrorCode::InvalidRequest),
        ("no time to answer", frame::encode(&untimed).unwrap(), ErrorCode::InvalidRequest),
    ] {
        let answer = exchange(&connection, bytes).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(failure(&answer).code, expected, "{what}");
        let good = exchange(&connection, request(Some(write(1)), 0)).await.unwrap();
        let good = wire::Response::decode(&good[4..]).unwrap();
        assert!(matches!(good.result, Some(Outcome::WriteShard(_))), "after {what}: {good:?}");
    }
}

/// The time that a caller gives is kept on both sides: it gets an error, and the work is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn deadlines_are_kept() {
    let rpc = Rpc::start().await;
    let caller = rpc.caller("tenant/dijon");
    let timeout = Duration::from_millis(300);
    let late = caller.call(&rpc.target, write(STUCK), Vec::new(), timeout).await.unwrap_err();
    // Whose clock is first is chance.
    assert!(
        matches!(late, CallError::TimedOut { .. }) || late.code() == Some(ErrorCode::DeadlineExceeded),
        "{late}"
    );
    wait_until(|| rpc.echo.under_way.load(Ordering::SeqCst) == 0).await;
    assert!(caller.call(&rpc.target, write(1), Vec::new(), SECONDS).await.is_ok());
}

/// Work for a peer that hung up is dropped long before its deadline, and so is that of a service that
/// has stopped, whose peers learn of it at once.
#[tokio::test(flavor = "multi_thread")]
async fn work_ends_with_its_connection() {
    let rpc = Rpc::start().await;
    let stuck = |caller: Caller<Host>| {
        let target = rpc.target.clone();
        tokio::spawn(async move { caller.call(&target, write(STUCK), Vec::new(), 30 * SECONDS).await })
    };
    let under_way = |count| {
        let under_way = rpc.echo.under_way.clone();
        wait_until(move || under_way.load(Ordering::SeqCst) == count)
    };
    let gone = stuck(rpc.caller("tenant/dijon"));
    under_way(1).await;
    gone.abort();
    let _ = gone.await;
    under_way(0).await;

    let left = stuck(rpc.caller("tenant/dijon"));
    under_way(1).await;
    rpc.serving.abort();
    let error = left.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Net { error: NetError::Lost(_), .. }), "{error}");
    under_way(0).await;
}

/// Who waits for a peer that is not there learns it together with the others, not one by one.
#[tokio::test(flavor = "multi_thread")]
async fn failure_to_connect_is_shared() {
    let trust = Trust::new();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let target = Target { address, expect: Expect::Role(Role::Node) };
    let caller = Caller::new(trust.host("tenant/dijon"), Local::new());
    let start = Instant::now();
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let (caller, target) = (caller.clone(), target.clone());
            tokio::spawn(async move { caller.call(&target, write(1), Vec::new(), 30 * SECONDS).await })
        })
        .collect();
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::Net { error: NetError::Unreachable { .. }, .. }), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(60), "one after the other would take over two minutes");
}

/// The greeting keeps out other clusters and versions, and both sides know why.
#[tokio::test(flavor = "multi_thread")]
async fn greetings_are_checked() {
    let rpc = Rpc::start().await;
    let local = Local::new();
    local.join(ClusterId(6)).unwrap();
    let caller = Caller::new(rpc.trust.host("tenant/dijon"), local);
    for _ in 0..20 {
        let refused = caller.call(&rpc.target, write(1), Vec::new(), SECONDS).await;
        assert_eq!(code(refused), Some(ErrorCode::WrongCluster));
    }
    assert_eq!(rpc.local.cluster(), Some(ClusterId(5)));

    let client = rpc.trust.host("tenant/dijon");
    let connection = client.net().connect(&rpc.target.address, &rpc.target.expect).await.unwrap();
    let hello = wire::Hello { version_min: 7, version_max: 9, ..Default::default() };
    let answer = exchange(&connection, frame::encode(&hello).unwrap()).await.unwrap();
    assert_eq!(wire::Hello::decode(&answer[4..]).unwrap().version_max, 1);
    let error = connection.accept().await.err().unwrap();
    assert!(error.to_string().contains("7 to 9"), "{error}");
}

/// A server that speaks only later versions is refused with the reason, by the caller.
#[tokio::test(flavor = "multi_thread")]
async fn later_servers_are_refused() {
    let trust = Trust::new();
    let server = trust.host("node/3");
    let mut listener = server.net().listen("127.0.0.1:0").await.unwrap();
    let target = Target { address: listener.address(), expect: Expect::Role(Role::Node) };
    let answering = tokio::spawn(async move {
        let connection = listener.accept().await.unwrap();
        let (mut send, _recv) = connection.accept().await.unwrap();
        let hello = wire::Hello { version_min: 8, version_max: 9, ..Default::default() };
        send.write(frame::encode(&hello).unwrap()).await.unwrap();
        send.finish().unwrap();
        connection.accept().await.err()
    });
    let caller = Caller::new(trust.host("tenant/dijon"), Local::new());
    let refused = caller.call(&target, write(1), Vec::new(), SECONDS).await;
    assert_eq!(code(refused), Some(ErrorCode::VersionMismatch));
    assert!(answering.await.unwrap().is_some(), "the caller hangs up");
}

/// After its server came back at the same address, a caller connects anew by itself.
#[tokio::test(flavor = "multi_thread")]
async fn callers_outlive_their_server() {
    let rpc = Rpc::start().await;
    let caller = rpc.caller("tenant/dijon");
    assert!(caller.call(&rpc.target, write(1), Vec::new(), SECONDS).await.is_ok());
    rpc.serving.abort();
    rpc.server.stop().await;
    let server = rpc.trust.host("node/3");
    let listener = server.net().listen(&rpc.target.address).await.unwrap();
    tokio::spawn(serve(server.clone(), rpc.local.clone(), listener, rpc.echo.clone()));
    let mut tries = 0;
    while caller.call(&rpc.target, write(1), Vec::new(), SECONDS).await.is_err() {
        tries += 1;
        assert!(tries < 5, "the caller does not find the new server");
    }
}

/// How fast it is, for a person to read: `cargo test -p cadole-os --test rpc -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throughput() {
    const CALLS: usize = 4096;
    const IN_FLIGHT: usize = 16;
    let rpc = Rpc::start().await;
    let caller = rpc.caller("operator/alice");
    let payload = Bytes::from(vec![1; 1 << 20]);
    let read = Call::ReadShard(wire::ReadShard { blocks: 16, ..Default::default() });
    for (what, call, payload) in [("write", write(SINK), vec![payload]), ("read", read, Vec::new())] {
        let start = Instant::now();
        let workers: Vec<_> = (0..IN_FLIGHT)
            .map(|_| {
                let (caller, target) = (caller.clone(), rpc.target.clone());
                let (call, payload) = (call.clone(), payload.clone());
                tokio::spawn(async move {
                    for _ in 0..CALLS / IN_FLIGHT {
                        caller.call(&target, call.clone(), payload.clone(), SECONDS).await.unwrap();
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await.unwrap();
        }
        let bytes_per_s = 1024.0 * 1024.0 * 4096.0 / start.elapsed().as_secs_f64();
        println!("{what}: {:.0} MB/s of 1 MiB payloads, {IN_FLIGHT} in flight", bytes_per_s / 1e6);
    }
}

async fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..4000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not come to pass");
}
