//! Work for nodes, their reports, moves and substitutes.

use proto::limits::WORK_PAGE_MAX;

use super::*;
use crate::heal::Healer;

/// A commit with a missing slot is filled by its node, and only a fitting report counts.
#[test]
fn fills() {
    let mut cluster = Cluster::with_racks(3);
    let mut put = cluster.extents("k", &[100_000]).unwrap();
    put.extents[0].missing = 2;
    let reply = cluster.commit(put);
    assert_eq!(reply.tolerance.unwrap().disks, 0);
    cluster.verify();
    let node = (1..=3).find(|node| take::has_work(&cluster.machine, NodeId(*node))).unwrap();
    let work = cluster.take(node, 0);
    assert_eq!((work.fills.len(), work.fills[0].slot, work.fills[0].missing), (1, 1, 2));
    let good = report(node, work);
    let spoiled: [fn(&mut wire::ReportWork); 5] = [
        |r| r.node = r.node % 3 + 1,
        |r| r.filled[0].epoch = 2,
        |r| r.filled[0].epoch = 0,
        |r| r.filled[0].slot = 2,
        |r| r.filled[0].group += 1,
    ];
    for spoil in spoiled {
        let mut bad = good.clone();
        spoil(&mut bad);
        cluster.done(Action::ReportWork(bad));
        assert_eq!(cluster.machine.totals().slots_missing, 1);
    }
    for _ in 0..2 {
        cluster.done(Action::ReportWork(good.clone()));
        assert_eq!(cluster.machine.totals().slots_missing, 0);
        assert!(!take::has_work(&cluster.machine, NodeId(node)));
        cluster.verify();
    }
}

/// What is found lost is missing until it is filled; with too few slots left nothing is given out.
#[test]
fn losses() {
    let mut cluster = Cluster::with_racks(3);
    let put = cluster.extents("k", &[100_000]).unwrap();
    let extent = put.extents[0].clone();
    cluster.commit(put);
    let slots = cluster.machine.map().groups()[&proto::GroupId(extent.group)].slots.clone();
    let lose = |cluster: &mut Cluster, slot: usize| {
        let disk = slots[slot].disk;
        let node = cluster.machine.map().disks()[&disk].node.0;
        let lost = wire::SlotFilled {
            group: extent.group,
            extent: extent.id.clone(),
            slot: u32::try_from(slot).unwrap(),
            disk: disk.0,
            epoch: 1,
        };
        cluster.done(Action::ReportWork(wire::ReportWork { node, lost: vec![lost], ..Default::default() }));
        cluster.verify();
        node
    };
    let node = lose(&mut cluster, 0);
    assert_eq!(cluster.take(node, 0).fills.len(), 1);
    let second = lose(&mut cluster, 1);
    assert_eq!(cluster.machine.totals().slots_missing, 2);
    assert_eq!((cluster.take(node, 0).fills.len(), cluster.take(second, 0).fills.len()), (0, 0));
}

/// Garbage stays until every slot has dropped it, also when a disk is away for long.
#[test]
fn drops() {
    let mut cluster = Cluster::with_racks(3);
    let put = cluster.extents("k", &[100_000, 5_000_000]).unwrap();
    cluster.commit(put);
    cluster.set_node(2, Health::Down);
    let over = cluster.inline("k", b"abc");
    cluster.commit(over);
    assert_eq!(cluster.machine.totals().garbage_extents, 2);
    cluster.verify();
    assert_eq!((cluster.work(1), cluster.work(3)), (2, 2));
    assert_eq!(cluster.machine.totals().garbage_extents, 2);
    cluster.verify();
    assert_eq!(cluster.work(2), 2);
    assert_eq!(cluster.machine.totals().garbage_extents, 0);
    cluster.verify();
}

/// Reports with nonsense, or too much, are refused whole.
#[test]
fn wrong_reports() {
    let mut cluster = Cluster::with_racks(3);
    let filled = |extent: Bytes, slot| wire::SlotFilled { group: 1, extent, slot, disk: 1, epoch: 1 };
    let good = Bytes::from_static(&[1; 16]);
    for (filled, part) in [
        (vec![filled(Bytes::from_static(b"x"), 0)], "expected 16"),
        (vec![filled(vec![0; 16].into(), 0)], "extent 0"),
        (vec![filled(good.clone(), 24)], "out of range"),
        (vec![filled(good, 0); 4 * WORK_PAGE_MAX + 1], "send several"),
    ] {
        let report = wire::ReportWork { node: 1, filled, ..Default::default() };
        cluster.refused(Action::ReportWork(report), ErrorCode::InvalidRequest, part);
    }
}

/// A move fences writers of the old epoch, rebuilds, and drops the source only then; the group cannot go
/// back to a disk that still has to drop it.
#[test]
fn moves() {
    let mut cluster = Cluster::with_racks(4);
    let put = cluster.extents("k", &[100_000]).unwrap();
    let group = proto::GroupId(put.extents[0].group);
    cluster.commit(put.clone());
    let before = cluster.machine.map().groups()[&group].clone();
    let to = cluster.machine.map().disks().keys().copied().find(|disk| {
        let node = |disk: proto::DiskId| cluster.machine.map().disks()[&disk].node;
        before.slots.iter().all(|slot| node(slot.disk) != node(*disk))
    });
    let (from, to) = (before.slots[0].disk, to.unwrap());
    let move_to = |epoch, disk: proto::DiskId, slot| {
        Action::MoveSlot(wire::MoveSlot { group: group.0, slot, epoch, to_disk: disk.0 })
    };
    cluster.refused(move_to(2, to, 0), ErrorCode::StaleEpoch, "epoch 1");
    cluster.refused(move_to(1, before.slots[1].disk, 0), ErrorCode::InvalidRequest, "uses disk");
    cluster.refused(move_to(1, to, 3), ErrorCode::InvalidRequest, "no slot 3");
    cluster.refused(move_to(1, to, 99), ErrorCode::InvalidRequest, "out of range");
    cluster.done(move_to(1, to, 0));
    cluster.verify();

    let mut late = cluster.extents("j", &[100_000]).unwrap();
    (late.extents[0].group, late.extents[0].epoch) = (group.0, 1);
    cluster.refused(Action::CommitObject(late.clone()), ErrorCode::StaleEpoch, "name the slot as missing");
    late.extents[0].missing = 1;
    cluster.commit(late);
    cluster.refused(move_to(2, from, 0), ErrorCode::InvalidRequest, "still being filled");

    let node = |disk: proto::DiskId| disk.0.div_ceil(2);
    let work = cluster.take(node(to), 0);
    assert_eq!((work.fills.len(), work.rebuilds.len()), (1, 1));
    let done = report(node(to), work);
    cluster.done(Action::ReportWork(done.clone()));
    cluster.done(Action::ReportWork(done));
    assert_eq!(cluster.machine.slots_rebuilding(), 0);
    assert_eq!(cluster.machine.totals().garbage_extents, 1);
    cluster.verify();
    cluster.refused(move_to(2, from, 0), ErrorCode::InvalidRequest, "still has to drop");
    let work = cluster.take(node(from), 0);
    assert_eq!(
        work.drops,
        [wire::DropExtent { group: group.0, extent: Bytes::new(), slot: 0, disk: from.0 }]
    );
    assert_eq!(cluster.work(node(from)), 1);
    cluster.done(move_to(2, from, 0));
    cluster.verify();
}

/// What is deleted during a move is dropped from both disks of the slot.
#[test]
fn deletes_reach_the_source_of_a_move() {
    let mut cluster = Cluster::with_racks(4);
    let put = cluster.extents("k", &[100_000]).unwrap();
    let extent = put.extents[0].clone();
    cluster.commit(put);
    let group = cluster.machine.map().groups()[&proto::GroupId(extent.group)].clone();
    let from = group.slots[0].disk.0;
    let used: Vec<u32> = group.slots.iter().map(|slot| slot.disk.0.div_ceil(2)).collect();
    let to_disk = (1..=4).find(|node| !used.contains(node)).unwrap() * 2;
    cluster.done(Action::MoveSlot(wire::MoveSlot { group: group.id.0, slot: 0, epoch: 1, to_disk }));
    let over = cluster.inline("k", b"abc");
    cluster.commit(over);
    for disk in [from, to_disk] {
        let drop = wire::DropExtent { group: group.id.0, extent: extent.id.clone(), slot: 0, disk };
        assert_eq!(cluster.take(disk.div_ceil(2), 0).drops, [drop]);
    }
    cluster.verify();
}

/// A disk that was down when its slot moved off it keeps what it has until the new disk is whole.
#[test]
fn an_abandoned_disk_drops_last() {
    let mut cluster = Cluster::with_racks(4);
    let group = cluster.machine.map().groups().values().next().unwrap().clone();
    let node = |cluster: &Cluster, disk| cluster.machine.map().disks()[&disk].node.0;
    let from = group.slots[0].disk;
    let used: Vec<u32> = group.slots.iter().map(|slot| node(&cluster, slot.disk)).collect();
    let to = (1..=4).find(|node| !used.contains(node)).unwrap();
    let old = node(&cluster, from);
    cluster.set_node(old, Health::Down);
    let to_disk = to * 2;
    cluster.done(Action::MoveSlot(wire::MoveSlot { group: group.id.0, slot: 0, epoch: 1, to_disk }));
    cluster.verify();
    cluster.set_node(old, Health::Up);
    assert_eq!(cluster.take(old, 0).drops, []);
    let all = wire::DropExtent { group: group.id.0, extent: Bytes::new(), slot: 0, disk: from.0 };
    let early = wire::ReportWork { node: old, dropped: vec![all.clone()], ..Default::default() };
    cluster.done(Action::ReportWork(early));
    assert_eq!(cluster.machine.totals().garbage_extents, 1);
    assert_eq!(cluster.work(to), 1);
    assert_eq!(cluster.take(old, 0).drops, [all]);
    assert_eq!(cluster.work(old), 1);
    cluster.verify();
}

/// A rack is gone: substitutes are formed once for all writers, and go to legal places when it is back.
#[test]
fn substitutes_come_and_go() {
    let mut cluster = Cluster::with_racks(3);
    cluster.set_node(3, Health::Down);
    let groups = cluster.machine.map().groups().len();
    for key in ["a", "b", "c"] {
        let put = cluster.extents(key, &[100_000]).unwrap();
        assert_eq!(put.extents[0].missing, 0);
        assert_eq!(cluster.commit(put).tolerance.unwrap(), wire::Tolerance { disks: 1, nodes: 0, racks: 0 });
    }
    assert_eq!(cluster.machine.map().groups().len(), groups + 4);
    assert_eq!(cluster.machine.groups_below_policy().len(), 4);
    cluster.verify();
    let mut healer = Healer::new();
    let now = Timestamp::from_millis(cluster.now_ms);
    assert_eq!(healer.next(&cluster.machine, &cluster.pending.over(&cluster.kv), now).unwrap(), []);
    cluster.set_node(3, Health::Up);
    let moves = healer.next(&cluster.machine, &cluster.pending.over(&cluster.kv), now).unwrap();
    assert_eq!(moves.len(), 4);
    moves.into_iter().for_each(|action| drop(cluster.done(action)));
    assert_eq!(healer.next(&cluster.machine, &cluster.pending.over(&cluster.kv), now).unwrap(), []);
    // Twice: what is rebuilt on one node is garbage on another.
    for node in [1, 2, 3, 1, 2, 3] {
        cluster.work(node);
    }
    assert_eq!(cluster.machine.groups_below_policy().len(), 0);
    assert_eq!(cluster.machine.totals().garbage_extents, 0);
    cluster.verify();
}

/// Substitutes of a profile that refuses them, or of none, or too many, are refused.
#[test]
fn wrong_substitutes() {
    let mut cluster = Cluster::with_racks(3);
    let form = |profile, groups| Action::FormSubstitutes(wire::FormSubstitutes { profile, groups });
    cluster.refused(form(99, 1), ErrorCode::NoSuchProfile, "99");
    cluster.refused(form(2, 0), ErrorCode::InvalidRequest, "1 to 64");
    cluster.refused(form(2, 65), ErrorCode::InvalidRequest, "1 to 64");
    let Action::CreateProfile(mut strict) = cluster.profile("strict") else { unreachable!() };
    strict.refuse_below_policy = true;
    cluster.done(Action::CreateProfile(strict));
    cluster.refused(form(4, 1), ErrorCode::NoLegalPlace, "refuses");
    cluster.set_node(1, Health::Down);
    cluster.set_node(2, Health::Down);
    cluster.refused(form(2, 1), ErrorCode::NoLegalPlace, "disk");
}
