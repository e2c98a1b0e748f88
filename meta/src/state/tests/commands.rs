//! Each command, and each refusal.

use super::*;

type Spoil<T> = fn(&mut T);

/// Before the founding nothing else is accepted; the same id founds twice, another does not.
#[test]
fn founding() {
    let mut cluster = Cluster::empty();
    let id = |byte: u8| Action::FoundCluster(wire::FoundCluster { cluster_id: Bytes::from(vec![byte; 16]) });
    cluster.apply(Action::Tick(wire::Tick {}));
    cluster.refused(Action::RegisterNode(register(1, 1)), ErrorCode::NotBootstrapped, "bootstrap");
    cluster.refused(id(0), ErrorCode::InvalidRequest, "is 0");
    let short = wire::FoundCluster { cluster_id: Bytes::from_static(b"x") };
    cluster.refused(Action::FoundCluster(short), ErrorCode::InvalidRequest, "expected 16");
    cluster.done(id(7));
    cluster.done(id(7));
    cluster.refused(id(8), ErrorCode::AlreadyBootstrapped, "meta add");
    cluster.verify();
}

/// What has no action, or a clock beyond reason, is refused and does not move time.
#[test]
fn commands_that_are_none() {
    let mut cluster = Cluster::with_racks(3);
    for command in [
        wire::Command { proposed_ms: START_MS, action: None },
        wire::Command { proposed_ms: u64::MAX, action: Some(Action::Tick(wire::Tick {})) },
    ] {
        let answer = cluster.apply_command(command);
        assert!(matches!(answer, Answer::Failure(_)), "{answer:?}");
    }
    assert_eq!(cluster.machine.cluster_time().as_millis(), START_MS);
}

/// Registering gives disks ids by uuid, once; a restart changes the incarnation alone; an older life is
/// refused; a disk that moved follows; a disk that is gone is down.
#[test]
fn registering() {
    let mut cluster = Cluster::with_racks(3);
    let disks = |answer: Answer| match answer {
        Answer::RegisterNode(reply) => reply.disks,
        answer => panic!("{answer:?}"),
    };
    let version = cluster.machine.map().version();
    assert_eq!(disks(cluster.done(Action::RegisterNode(register(2, 1)))), [3, 4]);
    assert_eq!(cluster.machine.map().version(), version, "nothing new, no new version");
    cluster.set_node(2, Health::Down);
    assert_eq!(disks(cluster.done(Action::RegisterNode(register(2, 5)))), [3, 4]);
    assert_eq!(cluster.machine.map().disk_health(proto::DiskId(3)), Health::Up);
    cluster.refused(Action::RegisterNode(register(2, 4)), ErrorCode::StaleNode, "incarnation 5");

    let mut moved = register(3, 2);
    moved.disks.push(register(2, 5).disks.remove(1));
    assert_eq!(disks(cluster.done(Action::RegisterNode(moved))), [5, 6, 4]);
    assert_eq!(cluster.machine.map().disks()[&proto::DiskId(4)].node, NodeId(3));
    cluster.verify();

    let mut fewer = register(3, 3);
    fewer.disks.truncate(1);
    fewer.disks[0].failure = "é".repeat(600);
    cluster.done(Action::RegisterNode(fewer));
    for disk in [4, 5, 6] {
        let disk = &cluster.machine.map().disks()[&proto::DiskId(disk)];
        assert_eq!(disk.health, Health::Down);
        assert!((1..=1024).contains(&disk.reason.len()));
    }
    cluster.verify();
}

/// Each rule of a registration refuses what breaks it.
#[test]
fn wrong_registrations() {
    let mut cluster = Cluster::with_racks(3);
    let cases: [(Spoil<wire::RegisterNode>, &str); 8] = [
        (|r| r.node = 0, "begin at 1"),
        (|r| r.rack = "R 1".into(), "allowed are"),
        (|r| r.site = String::new(), "empty"),
        (|r| r.address = "x".repeat(256), "address"),
        (|r| r.disks[0].uuid = Bytes::new(), "expected 16"),
        (|r| r.disks[0].uuid = Bytes::from_static(&[0; 16]), "format it again"),
        (|r| r.disks[1].uuid = r.disks[0].uuid.clone(), "one is a copy"),
        (|r| r.disks[1].name = String::new(), "empty"),
    ];
    for (spoil, part) in cases {
        let mut bad = register(9, 1);
        spoil(&mut bad);
        cluster.refused(Action::RegisterNode(bad), ErrorCode::InvalidRequest, part);
    }
}

/// Tenants, buckets and profiles are made once, whatever the command id; other settings are refused.
#[test]
fn names_are_idempotent() {
    let mut cluster = Cluster::with_racks(3);
    let groups = cluster.machine.map().groups().len();
    let again = cluster.profile("rs-2-1");
    cluster.done(again);
    assert_eq!(cluster.machine.map().groups().len(), groups);
    let bucket = cluster.bucket("b", "rs-2-1");
    cluster.done(bucket);
    let Action::CreateProfile(mut other) = cluster.profile("rs-2-1") else { unreachable!() };
    other.shard_bytes = 1 << 17;
    cluster.refused(Action::CreateProfile(other), ErrorCode::AlreadyExists, "other settings");
    let second = cluster.profile("other");
    cluster.done(second);
    let bucket = cluster.bucket("b", "other");
    cluster.refused(bucket, ErrorCode::AlreadyExists, "another name");
    let bucket = cluster.bucket("c", "none");
    cluster.refused(bucket, ErrorCode::NoSuchProfile, "none");
    let bucket = cluster.bucket("c", "rs-2-1.small");
    cluster.refused(bucket, ErrorCode::InvalidRequest, "small objects");
    let bucket = cluster.bucket("C", "rs-2-1");
    cluster.refused(bucket, ErrorCode::InvalidRequest, "'C'");
    let (tenant, command_id) = ("T".to_owned(), cluster.command_id());
    cluster.refused(
        Action::CreateTenant(wire::CreateTenant { tenant, command_id }),
        ErrorCode::InvalidRequest,
        "'T'",
    );
    cluster.verify();
}

/// A profile that the topology cannot carry says what is missing; each rule names itself.
#[test]
fn wrong_profiles() {
    let mut cluster = Cluster::with_racks(3);
    let cases: [(Spoil<wire::CreateProfile>, ErrorCode, &str); 7] = [
        (|p| (p.k, p.min_durable) = (3, 0), ErrorCode::NoLegalPlace, "rack"),
        (|p| p.m = 0, ErrorCode::InvalidRequest, "m is 0"),
        (|p| p.failure_domain = 9, ErrorCode::InvalidRequest, "failure domain 9"),
        (|p| p.slots_per_disk = 1001, ErrorCode::InvalidRequest, "1 to 1000"),
        (|p| p.name = "x.small".into(), ErrorCode::InvalidRequest, "companions"),
        (|p| p.name = "x".repeat(60), ErrorCode::InvalidRequest, "shorten"),
        (|p| p.small_bytes_max = 1 << 30, ErrorCode::InvalidRequest, "do not fit"),
    ];
    for (spoil, code, part) in cases {
        let Action::CreateProfile(mut bad) = cluster.profile("bad") else { unreachable!() };
        spoil(&mut bad);
        cluster.refused(Action::CreateProfile(bad), code, part);
    }
}

/// Each rule of a commit refuses what breaks it, and says what to do.
#[test]
fn wrong_commits() {
    let mut cluster = Cluster::with_racks(3);
    let inline: [(Spoil<wire::CommitObject>, ErrorCode, &str); 16] = [
        (|c| c.key = Bytes::new(), ErrorCode::InvalidRequest, "empty"),
        (|c| c.key = vec![b'k'; 1025].into(), ErrorCode::InvalidRequest, "at most 1024"),
        (|c| c.tenant = "u".into(), ErrorCode::NoSuchTenant, "operator"),
        (|c| c.tenant = "U".into(), ErrorCode::InvalidRequest, "'U'"),
        (|c| c.bucket = "c".into(), ErrorCode::NoSuchBucket, "create it"),
        (|c| c.command_id = Bytes::new(), ErrorCode::InvalidRequest, "CommandId"),
        (|c| c.command_id = vec![0; 16].into(), ErrorCode::InvalidRequest, "is 0"),
        (|c| c.command_id = vec![0xff; 16].into(), ErrorCode::InvalidRequest, "ahead"),
        (
            |c| c.command_id = CommandId::new(Timestamp::from_millis(1), 1).to_wire(),
            ErrorCode::CommandExpired,
            "look",
        ),
        (|c| c.size = 4, ErrorCode::InvalidRequest, "carries 3"),
        (|c| c.size = (5 << 40) + 1, ErrorCode::InvalidRequest, "split"),
        (|c| (c.inline, c.size) = (vec![0; 4097].into(), 4097), ErrorCode::InvalidRequest, "4096"),
        (|c| c.crc32c ^= 1, ErrorCode::ChecksumMismatch, "again"),
        (|c| c.content_type = "x".repeat(256), ErrorCode::InvalidRequest, "255"),
        (|c| drop(c.user_metadata.insert("a".into(), "x".repeat(2048))), ErrorCode::InvalidRequest, "2049"),
        (|c| c.precondition = Some(wire::Precondition::default()), ErrorCode::InvalidRequest, "says nothing"),
    ];
    for (spoil, code, part) in inline {
        let mut bad = cluster.inline("k", b"abc");
        spoil(&mut bad);
        cluster.refused(Action::CommitObject(bad), code, part);
    }
    let extents: [(Spoil<wire::CommitObject>, ErrorCode, &str); 12] = [
        (|c| c.size += 1, ErrorCode::InvalidRequest, "must be equal"),
        (|c| c.inline = Bytes::from_static(b"x"), ErrorCode::InvalidRequest, "one of them"),
        (|c| c.extents[0].length = 0, ErrorCode::InvalidRequest, "expected 1 to"),
        (|c| c.extents[1].id = c.extents[0].id.clone(), ErrorCode::InvalidRequest, "twice"),
        (|c| c.extents[0].id = vec![0; 16].into(), ErrorCode::InvalidRequest, "id 0"),
        (
            |c| c.extents[0].id = ExtentId::new(Timestamp::ZERO, 9).to_wire(),
            ErrorCode::CommandExpired,
            "put the object",
        ),
        (|c| c.extents[0].group = 999, ErrorCode::InvalidRequest, "no group 999"),
        (|c| c.extents[0].epoch = 0, ErrorCode::InvalidRequest, "never in epoch 0"),
        (|c| c.extents[0].epoch = 9, ErrorCode::InvalidRequest, "never in epoch 9"),
        (|c| c.extents[0].missing = 8, ErrorCode::InvalidRequest, "beyond 3"),
        (|c| c.extents[0].missing = 3, ErrorCode::InvalidRequest, "1 slots are durable"),
        // Group 1 is one for small objects.
        (|c| c.extents[0].group = 1, ErrorCode::InvalidRequest, "small objects"),
    ];
    for (spoil, code, part) in extents {
        let mut bad = cluster.extents("k", &[100_000, 200_000]).unwrap();
        spoil(&mut bad);
        cluster.refused(Action::CommitObject(bad), code, part);
    }
    cluster.verify();
}

/// A grant ends: the extents' age counts, even under a fresh command id.
#[test]
fn grants_end() {
    let mut cluster = Cluster::with_racks(3);
    let mut late = cluster.extents("k", &[100_000]).unwrap();
    let mut just = cluster.extents("j", &[100_000]).unwrap();
    cluster.now_ms += 60 * MINUTE_MS;
    (just.command_id, late.command_id) = (cluster.command_id(), cluster.command_id());
    cluster.commit(just);
    cluster.now_ms += 1;
    cluster.apply(Action::Tick(wire::Tick {}));
    cluster.refused(Action::CommitObject(late), ErrorCode::CommandExpired, "is over");
}

/// A group of another profile is not the bucket's.
#[test]
fn groups_of_other_profiles_are_refused() {
    let mut cluster = Cluster::with_racks(3);
    let other = cluster.profile("other");
    cluster.done(other);
    let mut bad = cluster.extents("k", &[100_000]).unwrap();
    bad.extents[0].group = cluster.machine.map().groups().last_key_value().unwrap().0.0;
    cluster.refused(Action::CommitObject(bad), ErrorCode::InvalidRequest, "does not belong");
}

/// The same command twice: one effect, the same answer, marked; under the id of another command: refused.
#[test]
fn repetition_has_no_second_effect() {
    let mut cluster = Cluster::with_racks(3);
    let put = cluster.extents("k", &[100_000]).unwrap();
    let first = cluster.commit(put.clone());
    assert_eq!(first.tolerance, Some(wire::Tolerance { disks: 1, nodes: 1, racks: 1 }));
    let overwrite = cluster.inline("k", b"abc");
    cluster.commit(overwrite);
    let again = cluster.commit(put.clone());
    assert_eq!(again, wire::CommitObjectReply { repeated: true, ..first });
    assert_eq!(cluster.machine.totals().object_bytes, 3);
    let delete = wire::DeleteObject {
        tenant: "t".into(),
        bucket: "b".into(),
        key: Bytes::from_static(b"k"),
        command_id: put.command_id.clone(),
        precondition: None,
    };
    cluster.refused(Action::DeleteObject(delete.clone()), ErrorCode::InvalidRequest, "another command");
    let command_id = cluster.command_id();
    for repeated in [false, true] {
        let delete = wire::DeleteObject { command_id: command_id.clone(), ..delete.clone() };
        let answer = cluster.done(Action::DeleteObject(delete));
        assert_eq!(answer, Answer::DeleteObject(wire::DeleteObjectReply { existed: true, repeated }));
    }
    // A new command cannot take the extents of an old one.
    let stolen = wire::CommitObject { command_id: cluster.command_id(), ..put };
    cluster.refused(Action::CommitObject(stolen), ErrorCode::InvalidRequest, "committed before");
    cluster.verify();
}

/// Outcomes are kept as long as their commands are accepted, then dropped, and the ids are refused.
#[test]
fn outcomes_are_dropped_in_time() {
    let mut cluster = Cluster::with_racks(3);
    let put = cluster.inline("k", b"abc");
    cluster.commit(put.clone());
    cluster.now_ms += 60 * MINUTE_MS;
    assert!(cluster.commit(put.clone()).repeated);
    assert!(!cluster.machine.has_expired_commands(Timestamp::from_millis(cluster.now_ms)));
    cluster.now_ms += 1;
    assert!(cluster.machine.has_expired_commands(Timestamp::from_millis(cluster.now_ms)));
    cluster.done(Action::Tick(wire::Tick {}));
    cluster.flush();
    assert!(!cluster.kv.tables.contains_key(crate::state::tables::COMMANDS));
    cluster.refused(Action::CommitObject(put), ErrorCode::CommandExpired, "look at the result");
    cluster.verify();
}

/// A condition that did not hold stays so for the command, however late another attempt of it comes.
#[test]
fn refused_conditions_are_final() {
    use wire::precondition::Condition;
    let mut cluster = Cluster::with_racks(3);
    let first = cluster.inline("k", b"abc");
    cluster.commit(first);
    let if_absent = Some(wire::Precondition { condition: Some(Condition::IfAbsent(true)) });
    let put = wire::CommitObject { precondition: if_absent, ..cluster.inline("k", b"def") };
    cluster.refused(Action::CommitObject(put.clone()), ErrorCode::PreconditionFailed, "expected no object");
    let delete = wire::DeleteObject {
        tenant: "t".into(),
        bucket: "b".into(),
        key: Bytes::from_static(b"k"),
        command_id: cluster.command_id(),
        precondition: None,
    };
    cluster.done(Action::DeleteObject(delete));
    let late = cluster.apply(Action::CommitObject(put));
    let Answer::Failure(failure) = late else { panic!("{late:?}") };
    assert_eq!(failure.code, ErrorCode::PreconditionFailed.number());
    cluster.verify();
}

/// Conditions hold or are refused with both versions; deletes of nothing succeed.
#[test]
fn preconditions() {
    use wire::precondition::Condition;
    let mut cluster = Cluster::with_racks(3);
    let with = |condition| Some(wire::Precondition { condition: Some(condition) });
    let put = |cluster: &mut Cluster, condition| wire::CommitObject {
        precondition: with(condition),
        ..cluster.inline("k", b"abc")
    };
    let early = put(&mut cluster, Condition::IfVersion(1));
    cluster.refused(Action::CommitObject(early), ErrorCode::PreconditionFailed, "found no object");
    let first = put(&mut cluster, Condition::IfAbsent(true));
    let first = cluster.commit(first);
    let second = put(&mut cluster, Condition::IfAbsent(true));
    cluster.refused(Action::CommitObject(second), ErrorCode::PreconditionFailed, "expected no object");
    let third = put(&mut cluster, Condition::IfVersion(first.version));
    assert!(cluster.commit(third).version > first.version);
    let delete = |cluster: &mut Cluster, condition| {
        Action::DeleteObject(wire::DeleteObject {
            tenant: "t".into(),
            bucket: "b".into(),
            key: Bytes::from_static(b"k"),
            command_id: cluster.command_id(),
            precondition: condition,
        })
    };
    let stale = delete(&mut cluster, with(Condition::IfVersion(first.version)));
    cluster.refused(stale, ErrorCode::PreconditionFailed, "found version");
    let empty = delete(&mut cluster, with(Condition::IfAbsent(false)));
    cluster.refused(empty, ErrorCode::InvalidRequest, "says nothing");
    for existed in [true, false] {
        let delete = delete(&mut cluster, None);
        let reply = wire::DeleteObjectReply { existed, repeated: false };
        assert_eq!(cluster.done(delete), Answer::DeleteObject(reply));
    }
    cluster.verify();
}

/// Health follows what is said of the present life of a node; nonsense is refused.
#[test]
fn health() {
    let mut cluster = Cluster::with_racks(3);
    let version = cluster.machine.map().version();
    let set = |node, incarnation, health| {
        let nodes = vec![wire::NodeHealth { node, incarnation, health }];
        Action::SetHealth(wire::SetHealth { nodes, disks: vec![] })
    };
    cluster.done(set(1, 9, 3));
    cluster.done(set(99, 1, 3));
    cluster.done(set(1, 1, 1));
    assert_eq!(cluster.machine.map().version(), version);
    cluster.done(set(1, 1, 3));
    assert_eq!(cluster.machine.map().version(), version + 1);
    cluster.refused(set(1, 1, 7), ErrorCode::InvalidRequest, "health 7");
    let disks = vec![wire::DiskHealth { disk: 3, health: 3, reason: "x".repeat(1025) }];
    let long = Action::SetHealth(wire::SetHealth { nodes: vec![], disks });
    cluster.refused(long, ErrorCode::InvalidRequest, "1024");
    cluster.verify();
}
