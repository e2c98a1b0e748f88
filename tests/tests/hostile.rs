//! Bad input, strangers, wrong certificates and wrong directories: refused with a reason, and the
//! cluster goes on.

// A panic is how a test fails; real processes, files and clocks are what is tested here.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, clippy::disallowed_types)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use cadoled::dev::Shape;
use client::{Bucket, Error, GetError, PutError, PutOptions};
use env::rpc::CallError;
use os::ca::Authority;
use os::{Credentials, Host};
use proto::wire::request::Call;
use proto::{CommandId, ErrorCode, Identity, ObjectKey, Role, TenantTag, Timestamp, frame, wire};
use tests::peer::{self, Peer, StreamEnd};
use tests::program::{self, Said};
use tests::{Content, Random, SharedCluster, TestCluster, get, key, put, shape, shards};

/// A small cluster for what is refused at the start of a daemon.
fn small() -> Shape {
    Shape { metas: 1, racks: 3, nodes_per_rack: 2, disks: 1, ..shape() }
}

/// The cluster still does its work.
async fn still_works(cluster: &TestCluster, after: &str) {
    // Others have the cluster as well.
    let (bucket, name) = (cluster.bucket().await, format!("still works after {after}"));
    for size in [9, 40_000, 700_000] {
        let content = Content::new(size, size);
        put(&bucket, &name, content).await.expect(after);
        assert_eq!(content.difference(&get(&bucket, &name).await.expect(after)), None, "{after}");
    }
    for name in cluster.names("all") {
        assert!(cluster.runs(&name), "{after}: {name} has ended:\n{}", cluster.log_of(&name));
        let log = cluster.log_of(&name);
        assert!(!log.contains("panicked at"), "{after}: {name} panicked:\n{log}");
    }
}

fn code(error: &CallError) -> Option<ErrorCode> {
    error.code()
}

/// Names that do not exist are named in the error; keys that break the rules are refused by the library
/// and, when sent all the same, by the service.
#[tokio::test(flavor = "multi_thread")]
async fn names_and_keys_are_checked() {
    let cluster = SharedCluster::join().await;
    let operator = cluster.operator().await;
    let tenant = operator.tenant("demo".parse().expect("a name"));
    let content = Content::new(1, 100_000);
    let nowhere = tenant.bucket("nowhere".parse().expect("a name"));
    let error = put(&nowhere, "k", content).await.expect_err("no such bucket");
    assert!(error.to_string().contains("nowhere"), "{error}");
    let error = get(&nowhere, "k").await.expect_err("no such bucket");
    assert!(matches!(error, GetError::NoSuchBucket(_)), "{error}");
    let nobody: Bucket<Host> =
        operator.tenant("nobody".parse().expect("a name")).bucket("files".parse().expect("a name"));
    let error = put(&nobody, "k", content).await.expect_err("no such tenant");
    assert!(error.to_string().contains("nobody"), "{error}");
    let profile = "rs-99-9".parse().expect("a name");
    let error = tenant.create_bucket(&"b".parse().expect("a name"), &profile).await.expect_err("no profile");
    assert_eq!(error.code(), Some(ErrorCode::NoSuchProfile), "{error}");

    assert!(ObjectKey::parse("").is_err());
    assert!(ObjectKey::parse("k".repeat(1025)).is_err());
    let longest = "k".repeat(1024);
    put(&cluster.bucket().await, &longest, content).await.expect("the longest key");
    let (peer, leader) = operator_peer(&cluster).await;
    for bad in [Vec::new(), vec![b'k'; 1025], vec![0xff, 0xfe], b"a\0b".to_vec()] {
        let error = peer.call(&leader, Role::Meta, commit(&bad, 1, b"x")).await.expect_err("a bad key");
        assert_eq!(code(&error), Some(ErrorCode::InvalidRequest), "{error}");
    }
    still_works(&cluster, "bad names and keys").await;
}

/// A valid operator, and where the leader is.
async fn operator_peer(cluster: &TestCluster) -> (Peer, String) {
    let operator = cluster.operator().await;
    let leader = cluster.leader(&operator).await;
    (Peer::of(&cluster.ca(), "operator/mallory"), cluster.address(&leader))
}

fn commit(key: &[u8], size: u64, inline: &[u8]) -> Call {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
    let now = Timestamp::from_millis(u64::try_from(now).expect("fits"));
    Call::CommitObject(wire::CommitObject {
        tenant: "demo".into(),
        bucket: "files".into(),
        key: Bytes::copy_from_slice(key),
        command_id: CommandId::new(now, u128::from(size)).to_wire(),
        size,
        inline: Bytes::copy_from_slice(inline),
        ..Default::default()
    })
}

/// Objects over the limit, commits that lie about their size or their extents, and uploads that end
/// early are refused or fail, and nothing of them is visible.
#[tokio::test(flavor = "multi_thread")]
async fn lies_about_objects_are_refused() {
    let cluster = SharedCluster::join().await;
    let bucket = cluster.bucket().await;
    let too_large = PutOptions { size_hint: Some((5 << 40) + 1), ..PutOptions::default() };
    let source = Content::new(1, 10_000_000).source();
    let error = bucket.put(&key("too-large"), source, too_large).await.expect_err("announced over the limit");
    assert!(error.to_string().contains("at most"), "{error}");

    let (peer, leader) = operator_peer(&cluster).await;
    let lies = [
        commit(b"lie", 5, b"four"),
        commit(b"lie", u64::MAX, b""),
        commit(b"lie", 5000, &[1; 5000]),
        with_extent(10, vec![0; 15], 1),
        with_extent(10, vec![0; 16], 4_000_000_000),
        with_extent(u64::MAX, vec![9; 16], 1),
    ];
    for lie in lies {
        let told = format!("{lie:?}");
        let error = peer.call(&leader, Role::Meta, lie).await.expect_err(&told);
        let refused = error.code().is_some_and(|code| code != ErrorCode::Internal);
        assert!(refused, "{told}: {error}");
    }
    let source = Content::new(1, 9_000_000).source().failing_at(5_000_000);
    let error = bucket.put(&key("lie"), source, PutOptions::default()).await.expect_err("ended early");
    assert!(matches!(error, PutError::Source(_)), "{error}");
    for name in ["too-large", "lie"] {
        assert!(matches!(get(&bucket, name).await, Err(GetError::NoSuchObject(_))), "{name} is visible");
    }
    still_works(&cluster, "lies about objects").await;
}

/// A commit with an extent that nobody wrote.
fn with_extent(length: u64, id: Vec<u8>, group: u32) -> Call {
    let Call::CommitObject(call) = commit(b"lie", length, b"") else { unreachable!() };
    let extent = wire::Extent { id: id.into(), group, epoch: 1, length, missing: 0 };
    Call::CommitObject(wire::CommitObject { extents: vec![extent], ..call })
}

/// A shard that announces more than the limit, breaks off, does not match its checksums, or is of no
/// disk or epoch that the node knows leaves nothing on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn lies_about_shards_are_refused() {
    let cluster = SharedCluster::join().await;
    let bucket = cluster.bucket().await;
    put(&bucket, "honest", Content::new(1, 300_000)).await.expect("put");
    let stat = bucket.stat(&key("honest")).await.expect("stat");
    let (placement, extent) = (&stat.placements[0], &stat.extents[0]);
    let place = &placement.places[0];
    let (peer, _) = operator_peer(&cluster).await;
    let write = |stripe: u32, group: u32, disk: u32, epoch: u64, crcs: Vec<u32>| wire::WriteShard {
        shard: Some(wire::ShardName { group, extent: vec![7; 16].into(), stripe, slot: 0 }),
        disk,
        epoch,
        tenant_tag: TenantTag::of(&"demo".parse().expect("a name")).0,
        block_crc32c: crcs,
        ..Default::default()
    };
    let payload = Bytes::from(vec![5; 64]);
    let mut crc = codec::Crc32c::new();
    crc.update(&payload);
    let right = vec![crc.finish()];
    let (group, disk, epoch) = (placement.group, place.disk, placement.epoch);
    for (what, call) in [
        ("wrong checksum", write(0, group, disk, epoch, vec![1])),
        ("too many checksums", write(0, group, disk, epoch, vec![1; 3])),
        ("no checksum", write(0, group, disk, epoch, vec![])),
        ("unknown group", write(0, 4_000_000, disk, epoch, right.clone())),
        ("unknown disk", write(0, group, 4_000_000, epoch, right.clone())),
        ("epoch of the future", write(0, group, disk, epoch + 100, right.clone())),
        (
            "slot of another disk",
            wire::WriteShard {
                shard: Some(wire::ShardName { group, extent: vec![7; 16].into(), stripe: 0, slot: 3 }),
                ..write(0, group, disk, epoch, right.clone())
            },
        ),
        (
            "endless hint",
            wire::WriteShard { hint: vec![1; 2049].into(), ..write(0, group, disk, epoch, right.clone()) },
        ),
        ("no name", wire::WriteShard { shard: None, ..write(0, group, disk, epoch, right.clone()) }),
        (
            "short extent id",
            wire::WriteShard {
                shard: Some(wire::ShardName { group, extent: vec![7; 3].into(), stripe: 0, slot: 0 }),
                ..write(0, group, disk, epoch, right.clone())
            },
        ),
    ] {
        let error = peer.call_with(&place.address, Role::Node, Call::WriteShard(call), payload.clone()).await;
        let error = error.map(|_| ()).expect_err(what);
        let refused = error.code().is_some_and(|code| code != ErrorCode::Internal);
        assert!(refused, "{what}: {error}");
        eprintln!("{what}: {error}");
    }
    // Other bytes under the name of a shard that is there.
    let conflict = wire::WriteShard {
        shard: Some(wire::ShardName { group, extent: extent.id.clone(), stripe: 0, slot: 0 }),
        ..write(0, group, disk, epoch, right.clone())
    };
    let error = peer.call_with(&place.address, Role::Node, Call::WriteShard(conflict), payload.clone()).await;
    let error = error.map(|_| ()).expect_err("other bytes");
    assert_eq!(code(&error), Some(ErrorCode::ShardConflict), "{error}");

    let announced = |payload_bytes| wire::Request {
        timeout_ms: 5_000,
        trace_id: 1,
        payload_bytes,
        call: Some(Call::WriteShard(write(0, group, disk, epoch, right.clone()))),
    };
    let header = frame::encode(&announced(1 << 40)).expect("small");
    let answer = peer.send_raw(&place.address, Role::Node, &header, StreamEnd::Finish).await;
    let failure = peer::failure_in(&answer.expect("an answer")).expect("a failure");
    assert_eq!(failure.code, ErrorCode::TooLarge, "{failure}");
    for end in [StreamEnd::Finish, StreamEnd::Reset, StreamEnd::Open] {
        let mut half = frame::encode(&announced(64)).expect("small").to_vec();
        half.extend_from_slice(&payload[..30]);
        let answer = peer.send_raw(&place.address, Role::Node, &half, end).await;
        let failure = answer.ok().and_then(|answer| peer::failure_in(&answer));
        eprintln!("{end:?} in the middle of a shard: {failure:?}");
        assert!(end == StreamEnd::Reset || failure.is_some(), "{end:?}: no answer");
    }
    let left = shards::all(cluster.path())
        .into_iter()
        .filter(|shard| shard.name.extent.to_string().contains("07070707"));
    assert_eq!(left.collect::<Vec<_>>(), [], "something of it stayed on a disk");
    still_works(&cluster, "lies about shards").await;
}

/// Every port gets random datagrams; every service gets random bytes instead of a greeting and instead
/// of a request, a header that announces 4 GiB, and connections that say nothing: all go on.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_survived() {
    let cluster = SharedCluster::join().await;
    let mut random = Random::start("garbage_is_survived");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let peer = Peer::of(&cluster.ca(), "operator/mallory");
    for name in ["meta-1", "meta-2", "meta-3", "node-1", "node-6"] {
        let address = cluster.address(name);
        let role = role_of(name);
        for _ in 0..300 {
            let bytes = Content::new(random.number(), random.below(1400) + 1).bytes();
            socket.send_to(&bytes, &address).expect("sent");
            // What looks like the start of a connection costs a server the most.
            let mut initial = Content::new(random.number(), 1200).bytes().to_vec();
            initial[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
            socket.send_to(&initial, &address).expect("sent");
        }
        let garbage = Content::new(random.number(), 5000).bytes();
        let huge = u32::MAX.to_le_bytes();
        for bytes in [&garbage[..], &huge[..], &[][..], &[0, 0, 0, 0]] {
            let answer = peer.greet_raw(&address, role, bytes).await;
            assert!(answer.is_err() || !bytes.is_empty(), "{name} took {bytes:02x?} for a greeting");
        }
        for bytes in [&garbage[..], &huge[..], &[0, 0, 0, 0], &[5, 0, 0, 0, 255, 255, 255, 255, 255]] {
            let answer = peer.send_raw(&address, role, bytes, StreamEnd::Finish).await;
            let failure = answer.as_ref().ok().and_then(|answer| peer::failure_in(answer));
            let failure = failure.unwrap_or_else(|| panic!("{name} answered {bytes:02x?} with {answer:?}"));
            assert!(matches!(failure.code, ErrorCode::InvalidRequest | ErrorCode::TooLarge), "{failure}");
        }
        let answer = peer.send_raw(&address, role, &huge, StreamEnd::Open).await.expect("an answer");
        let failure = peer::failure_in(&answer).expect("refused by its length alone");
        assert_eq!(failure.code, ErrorCode::TooLarge, "{failure}");
        // A call of the other service.
        let (other, call) = match role {
            Role::Meta => ("node-info", Call::NodeInfo(wire::NodeInfo {})),
            _ => ("cluster-info", Call::ClusterInfo(wire::ClusterInfo {})),
        };
        let error = peer.call(&address, role, call).await.expect_err(other);
        assert_eq!(code(&error), Some(ErrorCode::InvalidRequest), "{error}");
    }
    still_works(&cluster, "garbage").await;
}

/// Who has no certificate of this cluster's authority, or one that has expired, is not let in, and both
/// sides say why.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_kept_out() {
    let cluster = SharedCluster::join().await;
    let elsewhere = tempfile::tempdir().expect("a directory");
    Authority::init(&elsewhere.path().join("ca")).expect("another authority");
    let stranger = Peer::of(&elsewhere.path().join("ca"), "operator/developer");
    // The stranger knows the cluster's public certificate, and so trusts it.
    let mut disguised = peer::issue(&elsewhere.path().join("ca"), "operator/disguised");
    disguised.ca = cluster.ca().join("ca.crt");
    let error = Credentials::load(&disguised).expect_err("issued by another authority");
    assert!(error.to_string().contains("not issued by the authority"), "{error}");
    for name in ["meta-1", "node-1"] {
        let role = role_of(name);
        let error = stranger.connect(&cluster.address(name), role).await.expect_err("a stranger");
        eprintln!("a stranger at {name}: {error}");
        let call = Call::ClusterInfo(wire::ClusterInfo {});
        let error = stranger.call(&cluster.address(name), role, call).await.expect_err("a stranger");
        assert!(matches!(error, CallError::Net { .. }), "{error}");
    }

    let start = SystemTime::now() - Duration::from_secs(48 * 60 * 60);
    let old = peer::issue_from(&cluster.ca(), "operator/old", start, Duration::from_secs(60 * 60));
    let error = Credentials::load(&old).expect_err("expired");
    assert!(error.to_string().contains("expired"), "{error}");
    expires_while_in_use(&cluster).await;
    // A certificate of the right authority, and of the wrong role for a server.
    let peer = Peer::of(&cluster.ca(), "operator/mallory");
    let error = peer.connect(&cluster.address("node-1"), Role::Meta).await.expect_err("a node is no meta");
    assert!(error.to_string().contains("refused"), "{error}");
    still_works(&cluster, "strangers").await;
}

/// A peer whose certificate ends while it runs makes no new connection after that.
async fn expires_while_in_use(cluster: &TestCluster) {
    let paths = peer::issue_from(&cluster.ca(), "operator/brief", SystemTime::now(), Duration::from_secs(3));
    let brief = Peer::with(&paths);
    brief.connect(&cluster.address("meta-1"), Role::Meta).await.expect("valid for some seconds");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let error = brief.connect(&cluster.address("meta-2"), Role::Meta).await.expect_err("expired by now");
    eprintln!("with an expired certificate: {error}");
}

fn role_of(name: &str) -> Role {
    if name.starts_with("meta") { Role::Meta } else { Role::Node }
}

/// A valid certificate opens what its role may do and nothing else: a tenant cannot speak Raft, report
/// heartbeats, administer, or touch another tenant's catalogue or shards; a node cannot list objects.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_open_only_their_own_doors() {
    let cluster = SharedCluster::join().await;
    let operator = cluster.operator().await;
    operator.admin().create_tenant(&"beaune".parse().expect("a name")).await.expect("a tenant");
    let bucket = cluster.bucket().await;
    put(&bucket, "private", Content::new(1, 300_000)).await.expect("put");
    put(&bucket, "private-small", Content::new(1, 30_000)).await.expect("put");
    let leader = cluster.address(&cluster.leader(&operator).await);
    let tenant = Peer::of(&cluster.ca(), "tenant/beaune");
    let node = Peer::of(&cluster.ca(), "node/1");
    let list = |tenant: &str| {
        Call::ListObjects(wire::ListObjects {
            tenant: tenant.into(),
            bucket: "files".into(),
            ..Default::default()
        })
    };
    let get_object = Call::GetObject(wire::GetObject {
        tenant: "demo".into(),
        bucket: "files".into(),
        key: Bytes::from_static(b"private"),
        head: false,
    });
    let forbidden = [
        (&tenant, Call::RaftVote(wire::RaftVote::default())),
        (&tenant, Call::RaftAppend(wire::RaftAppend::default())),
        (&tenant, Call::RaftSnapshot(wire::RaftSnapshot::default())),
        (&tenant, Call::Heartbeat(wire::Heartbeat { node: 1, ..Default::default() })),
        (&tenant, Call::RegisterNode(wire::RegisterNode { node: 1, ..Default::default() })),
        (&tenant, Call::ReportWork(wire::ReportWork { node: 1, ..Default::default() })),
        (&tenant, Call::CreateTenant(wire::CreateTenant::default())),
        (&tenant, Call::GetStatus(wire::GetStatus {})),
        (&tenant, Call::GetMap(wire::GetMap {})),
        (&tenant, Call::RemoveMember(wire::RemoveMember { id: 1 })),
        (&tenant, list("demo")),
        (&tenant, get_object),
        (&tenant, commit(b"private", 1, b"x")),
        (&node, list("demo")),
        (&node, Call::Heartbeat(wire::Heartbeat { node: 2, ..Default::default() })),
        (&node, Call::RaftAppend(wire::RaftAppend::default())),
        (&node, Call::GetStatus(wire::GetStatus {})),
    ];
    for (who, call) in forbidden {
        let told = format!("{call:?}");
        let error = who.call(&leader, Role::Meta, call).await.map(|_| ()).expect_err(&told);
        assert_eq!(code(&error), Some(ErrorCode::Forbidden), "{told}: {error}");
    }
    for name in ["private", "private-small"] {
        foreign_shards(&bucket, name, &tenant).await;
    }
    own_catalogue(&cluster).await;
    still_works(&cluster, "calls without the right").await;
}

/// A tenant that knows where another's shards lie can neither read, write nor drop them.
async fn foreign_shards(bucket: &Bucket<Host>, name: &str, tenant: &Peer) {
    let stat = bucket.stat(&key(name)).await.expect("stat");
    let (placement, extent) = (&stat.placements[0], &stat.extents[0]);
    let place = &placement.places[0];
    let shard = wire::ShardName { group: placement.group, extent: extent.id.clone(), stripe: 0, slot: 0 };
    let mut other = shard.clone();
    other.extent = vec![8; 16].into();
    let payload = Bytes::from(vec![5; 64]);
    let mut crc = codec::Crc32c::new();
    crc.update(&payload);
    let read = wire::ReadShard { shard: Some(shard), disk: place.disk, first_block: 0, blocks: 0 };
    let write = wire::WriteShard {
        shard: Some(other),
        disk: place.disk,
        epoch: placement.epoch,
        tenant_tag: TenantTag::of(&"demo".parse().expect("a name")).0,
        block_crc32c: vec![crc.finish()],
        ..Default::default()
    };
    let drop =
        wire::DeleteExtent { group: placement.group, extent: extent.id.clone(), slot: 0, disk: place.disk };
    for (what, call, payload) in [
        ("read", Call::ReadShard(read), Bytes::new()),
        ("write", Call::WriteShard(write), payload),
        ("drop", Call::DeleteExtent(drop), Bytes::new()),
    ] {
        let answer = tenant.call_with(&place.address, Role::Node, call, payload).await;
        let error = answer.map(|_| ()).expect_err(what);
        assert_eq!(code(&error), Some(ErrorCode::Forbidden), "{what} {name}: {error}");
    }
}

/// With its own certificate a tenant does its own work, and sees nothing of others'.
async fn own_catalogue(cluster: &TestCluster) {
    let own = cluster.client("tenant/beaune").await;
    let tenant = own.tenant("beaune".parse().expect("a name"));
    let name = "files".parse().expect("a name");
    tenant.create_bucket(&name, &"rs-4-2".parse().expect("a name")).await.expect("its own bucket");
    let bucket = tenant.bucket(name);
    for size in [10, 20_000, 2_000_000] {
        let content = Content::new(size, size);
        put(&bucket, "own", content).await.expect("put");
        assert_eq!(content.difference(&get(&bucket, "own").await.expect("get")), None);
    }
    assert!(matches!(get(&bucket, "private").await, Err(GetError::NoSuchObject(_))));
    let error: Error = own.admin().status().await.expect_err("no operator");
    assert_eq!(error.code(), Some(ErrorCode::Forbidden), "{error}");
}

fn cadoled(arguments: &[&str], file: &Path) -> Said {
    program::run(Command::new(program::path("cadoled")).args(arguments).arg(file))
}

/// A copy of a daemon's configuration next to the original, with some text replaced.
fn variant(cluster: &TestCluster, name: &str, replacements: &[(&str, &str)]) -> PathBuf {
    let original = cluster.config_of(name);
    let mut text = fs::read_to_string(&original).expect("a configuration");
    for (from, to) in replacements {
        assert!(text.contains(from), "{from:?} is not in {text}");
        text = text.replacen(from, to, 1);
    }
    let file = original.with_file_name("variant.toml");
    fs::write(&file, text).expect("written");
    file
}

/// `cadoled config check` names what is wrong and where; with the same file a daemon does not start.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_configurations_are_named() {
    let cluster = TestCluster::make(small()).await;
    assert!(cadoled(&["config", "check"], &cluster.config_of("node-1")).ok().out.contains("node/1"));
    assert!(cadoled(&["config", "check"], &cluster.config_of("meta-1")).ok().out.contains("meta/1"));
    let wrong: &[(&str, &str, &str, &[&str])] = &[
        ("node-1", "listen =", "lisen =", &["did you mean `listen`?", "line"]),
        ("node-1", "rack = \"rack-1\"", "rack = \"Rack 1\"", &["allowed are"]),
        ("node-1", "metas = [", "metas = [] # [", &["metas"]),
        ("node-1", "node-1.crt", "node-2.crt", &["node-2", "key"]),
        ("node-1", "node-1.key", "node-9.key", &["node-9.key", "cannot read"]),
        ("node-1", "id = 1", "id = 2", &["certificate is of node/1"]),
        ("node-1", "path = \"disk-0\"", "path = \"disk-7\"", &["disk-7", "not a directory"]),
        ("meta-1", "data = ", "dta = ", &["did you mean `data`?"]),
        ("meta-1", "down_after_ms = 5000", "down_after_ms = 50", &["down_after_ms"]),
        ("meta-1", "127.0.0.1:", "127.0.0.1;", &["host:port"]),
    ];
    for (name, from, to, parts) in wrong {
        let file = variant(&cluster, name, &[(from, to)]);
        let said = cadoled(&["config", "check"], &file);
        said.failed_with(parts);
        assert!(
            said.err.contains("variant.toml") || said.err.contains("disk-7") || said.err.contains("node-"),
            "which file? {}",
            said.err
        );
        if !to.contains("disk-7") {
            let role = name.split('-').next().unwrap_or_default();
            cadoled(&[role, "--config"], &file).failed_with(parts);
        }
    }
    cadoled(&["meta", "--config"], &cluster.config_of("node-1")).failed_with(&["cadoled node"]);
    cadoled(&["node", "--config"], &cluster.path().join("absent.toml")).failed_with(&["absent.toml"]);
}

/// Two servers on one data directory, one server on another's, two nodes on one disk, a daemon on a taken
/// port: the second is refused with the reason, and the first does not suffer.
#[tokio::test(flavor = "multi_thread")]
async fn directories_have_one_user() {
    let cluster = TestCluster::start(small()).await;
    let port = cluster.address("meta-1");
    let twin = variant(&cluster, "meta-1", &[(&port, "127.0.0.1:0")]);
    cadoled(&["meta", "--config"], &twin).failed_with(&["in use"]);
    let taken = variant(&cluster, "node-1", &[(&cluster.address("node-1"), &cluster.address("node-2"))]);
    cluster.kill("node-1");
    cadoled(&["node", "--config"], &taken).failed_with(&["cannot listen", &cluster.address("node-2")]);

    // node-1 with the disk of node-2, which runs: refused as long as node-2 has it.
    let disk = cluster.path().join("node-2/disk-0");
    let thief = variant(&cluster, "node-1", &[("path = \"disk-0\"", &format!("path = {disk:?}"))]);
    let said = runs_until_it_says(&thief, "node", "disk");
    assert!(said.contains("in use") || said.contains("another process"), "{said}");

    // meta-9 with the data of meta-1.
    let operator = cluster.operator().await;
    cluster.start_again("node-1");
    cluster.wait_whole(&operator, Duration::from_secs(60)).await;
    cluster.add_meta(9);
    cluster.kill("meta-1");
    let data = cluster.path().join("meta-1/data");
    let other = variant(&cluster, "meta-9", &[("data = \"data\"", &format!("data = {data:?}"))]);
    cadoled(&["meta", "--config"], &other).failed_with(&["belongs to meta-1", "this server is meta-9"]);
    cluster.start_again("meta-1");
    still_works(&cluster, "directories of others").await;
}

/// Runs a daemon until its log has a warning or error about `about`, then kills it; gives back that line.
fn runs_until_it_says(config: &Path, role: &str, about: &str) -> String {
    let log = config.with_extension("log");
    let file = fs::File::create(&log).expect("a log");
    let mut command = Command::new(program::path("cadoled"));
    let mut child = command.args([role, "--config"]).arg(config).stderr(file).spawn().expect("started");
    let start = Instant::now();
    let line = loop {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let told = text.lines().find(|line| {
            line.contains(about) && ["WARN", "ERROR", "cadoled:"].iter().any(|level| line.contains(level))
        });
        if let Some(line) = told {
            break line.to_owned();
        }
        if start.elapsed() > Duration::from_secs(20) {
            let _ = child.kill();
            panic!("it said nothing about {about:?}:\n{text}");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
    line
}

/// Disks and data of another cluster are refused by name, and not a byte of them is changed.
#[tokio::test(flavor = "multi_thread")]
async fn data_of_another_cluster_is_refused() {
    let kept = tempfile::tempdir().expect("a directory");
    {
        let other = TestCluster::start(small()).await;
        put(&other.bucket().await, "theirs", Content::new(1, 1_000_000)).await.expect("put");
        other.stop("all");
        copy(&other.path().join("node-1/disk-0"), &kept.path().join("disk"));
        copy(&other.path().join("meta-1/data"), &kept.path().join("data"));
    }
    let before = listing(&kept.path().join("disk"));
    let cluster = TestCluster::start(small()).await;
    cluster.kill("node-1");
    let disk = kept.path().join("disk");
    let foreign = variant(&cluster, "node-1", &[("path = \"disk-0\"", &format!("path = {disk:?}"))]);
    let said = runs_until_it_says(&foreign, "node", "disk");
    assert!(said.contains("belongs to cluster"), "{said}");
    assert_eq!(listing(&disk), before, "the foreign disk was changed");

    // A metadata server of the other cluster is not taken for one of this one.
    cluster.kill("meta-1");
    let data = cluster.path().join("meta-1/data");
    let aside = cluster.path().join("meta-1/aside");
    fs::rename(&data, &aside).expect("moved");
    copy(&kept.path().join("data"), &data);
    cluster.start_again("meta-1");
    let start = Instant::now();
    while !cluster.log_of("node-2").contains("wrong-cluster") {
        assert!(start.elapsed() < Duration::from_secs(30), "{}", cluster.log_of("node-2"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.kill("meta-1");
    fs::remove_dir_all(&data).expect("removed");
    fs::rename(&aside, &data).expect("moved back");
    cluster.start_again("all");
    let operator = cluster.operator().await;
    cluster.wait_whole(&operator, Duration::from_secs(60)).await;
    still_works(&cluster, "another cluster's data").await;
}

fn copy(from: &Path, to: &Path) {
    let said = program::run(Command::new("cp").arg("-a").arg(from).arg(to));
    let _ = said.ok();
}

/// Names and sizes of all files below a directory.
fn listing(dir: &Path) -> String {
    program::run(Command::new("find").arg(dir).args(["-type", "f", "-printf", "%P %s\n"])).ok().out
}

/// The identities that certificates may have are those of the four roles.
#[test]
fn odd_identities_are_no_identities() {
    for bad in ["root/1", "meta/x", "tenant/Évian", "node/-1", "operator/", "meta/1/2"] {
        assert!(bad.parse::<Identity>().is_err(), "{bad:?} was taken");
    }
}
