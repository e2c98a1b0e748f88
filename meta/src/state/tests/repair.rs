//! Work for nodes, their reports, moves and substitutes.

use proto::limits::WORK_PAGE_MAX;

use super::*;
use crate::heal::{Ailing, Healer};

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

/// What is found lost is missing until it is filled. With too few slots left the fills are given out all the
/// same: what was taken for lost may be whole, and nobody but its own node can tell.
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
    assert_eq!((cluster.take(node, 0).fills.len(), cluster.take(second, 0).fills.len()), (1, 1));
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
        Action::MoveSlot(wire::MoveSlot { group: group.0, slot, epoch, to_disk: disk.0, task: 0 })
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
        [wire::DropExtent { group: group.0, extent: Bytes::new(), slot: 0, disk: from.0, epoch: 2 }]
    );
    let old = wire::DropExtent { epoch: 1, ..work.drops[0].clone() };
    let old = wire::ReportWork { node: node(from), dropped: vec![old], ..Default::default() };
    cluster.done(Action::ReportWork(old));
    assert_eq!(cluster.machine.totals().garbage_extents, 1, "of before the move");
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
    cluster.done(Action::MoveSlot(wire::MoveSlot { group: group.id.0, slot: 0, epoch: 1, to_disk, task: 0 }));
    let over = cluster.inline("k", b"abc");
    cluster.commit(over);
    for disk in [from, to_disk] {
        let drop = wire::DropExtent { group: group.id.0, extent: extent.id.clone(), slot: 0, disk, epoch: 0 };
        assert_eq!(cluster.take(disk.div_ceil(2), 0).drops, [drop]);
    }
    cluster.verify();
}

/// A disk that was down when its slot moved off it keeps what it has until the new disk is whole, and is asked for
/// shards meanwhile.
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
    cluster.done(Action::MoveSlot(wire::MoveSlot { group: group.id.0, slot: 0, epoch: 1, to_disk, task: 0 }));
    cluster.verify();
    let kept = |cluster: &Cluster| {
        let rebuild = cluster.take(to, 0).rebuilds.remove(0);
        rebuild.placement.unwrap().places[0].kept.iter().map(|kept| kept.disk).collect::<Vec<_>>()
    };
    assert_eq!(kept(&cluster), [], "it is down");
    cluster.set_node(old, Health::Up);
    assert_eq!(kept(&cluster), [from.0], "it may have the last shards");
    assert_eq!(cluster.take(old, 0).drops, []);
    let all = wire::DropExtent { group: group.id.0, extent: Bytes::new(), slot: 0, disk: from.0, epoch: 2 };
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
    assert_eq!(
        healer.next(&cluster.machine, &cluster.pending.over(&cluster.kv), now, &Ailing::default()).unwrap(),
        []
    );
    cluster.set_node(3, Health::Up);
    let moves =
        healer.next(&cluster.machine, &cluster.pending.over(&cluster.kv), now, &Ailing::default()).unwrap();
    assert_eq!(moves.len(), 4);
    moves.into_iter().for_each(|action| drop(cluster.done(action)));
    assert_eq!(
        healer.next(&cluster.machine, &cluster.pending.over(&cluster.kv), now, &Ailing::default()).unwrap(),
        []
    );
    // Twice: what is rebuilt on one node is garbage on another.
    for node in [1, 2, 3, 1, 2, 3] {
        cluster.work(node);
    }
    assert_eq!(cluster.machine.groups_below_policy().len(), 0);
    assert_eq!(cluster.machine.totals().garbage_extents, 0);
    cluster.verify();
}

/// An object of unknown size may need substitutes of both kinds: they are asked for one after another.
#[test]
fn both_kinds_of_substitutes() {
    let mut cluster = Cluster::with_racks(3);
    let Action::CreateProfile(mut wide) = cluster.profile("rs-2-2") else { unreachable!() };
    (wide.m, wide.min_durable) = (2, 3);
    cluster.done(Action::CreateProfile(wide));
    let bucket = cluster.bucket("wide", "rs-2-2");
    cluster.done(bucket);
    cluster.set_node(3, Health::Down);
    let open =
        wire::OpenPut { tenant: "t".into(), bucket: "wide".into(), size_unknown: true, ..Default::default() };
    let (mut tried, full_disks, now) = (BTreeSet::new(), BTreeSet::new(), Timestamp::ZERO);
    let reply = loop {
        let options = OpenOptions { spread: 1, now, tried: &tried, full_disks: &full_disks };
        match open_put(&cluster.machine, &open, options).unwrap() {
            Opened::Granted(reply) => break reply,
            Opened::NeedSubstitutes { profile } => {
                assert!(tried.insert(profile), "profile {profile} was asked for twice");
                let form = wire::FormSubstitutes { profile: profile.0, groups: 1 };
                cluster.done(Action::FormSubstitutes(form));
            }
        }
    };
    assert_eq!((tried.len(), reply.small_groups.len(), reply.groups.len()), (2, 1, 1));
    let offered = reply.groups.iter().chain(&reply.small_groups);
    assert!(offered.flat_map(|group| &group.places).all(|place| place.health == Health::Up.to_wire()));
}

/// A profile that refuses to stand below its policy gets new groups as long as these are legal.
#[test]
fn legal_groups_are_formed_for_all() {
    let mut cluster = Cluster::with_racks(3);
    let Action::CreateProfile(mut strict) = cluster.profile("strict") else { unreachable!() };
    (strict.refuse_below_policy, strict.min_durable) = (true, 3);
    cluster.done(Action::CreateProfile(strict));
    let bucket = cluster.bucket("strict", "strict");
    cluster.done(bucket);
    cluster.set_node(1, Health::Suspect);
    let open = |cluster: &mut Cluster| {
        let open = wire::OpenPut {
            tenant: "t".into(),
            bucket: "strict".into(),
            bytes_hint: 1 << 20,
            ..Default::default()
        };
        cluster.open_as(&open)
    };
    assert!(open(&mut cluster).is_none(), "two racks are too few");
    cluster.done(Action::RegisterNode(register(4, 1)));
    let groups = cluster.machine.map().groups().len();
    let placement = open(&mut cluster).unwrap();
    assert!(!placement.below_policy && cluster.machine.map().groups().len() > groups);
    assert!(placement.places.iter().all(|place| place.node != 1));
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
    cluster.set_node(1, Health::Down);
    cluster.refused(form(4, 1), ErrorCode::NoLegalPlace, "at most 1 in one rack");
    cluster.set_node(2, Health::Down);
    cluster.refused(form(2, 1), ErrorCode::NoLegalPlace, "disk");
}

/// The other disk of the same node.
fn other_disk(disk: proto::DiskId) -> u32 {
    ((disk.0 - 1) ^ 1) + 1
}

/// The healer's moves with these disks out, carried out by the nodes given, until there are none.
fn replace(cluster: &mut Cluster, out: &[u32], nodes: &[u32]) -> usize {
    let (mut healer, mut moves) = (Healer::new(), 0);
    let out = Ailing { out: out.iter().copied().map(proto::DiskId).collect(), ..Ailing::default() };
    loop {
        let now = Timestamp::from_millis(cluster.now_ms);
        let view = cluster.pending.over(&cluster.kv);
        let actions = healer.next(&cluster.machine, &view, now, &out).unwrap();
        if actions.is_empty() {
            return moves;
        }
        moves += actions.len();
        assert!(moves < 1000, "moves without an end");
        actions.into_iter().for_each(|action| drop(cluster.done(action)));
        for node in nodes {
            cluster.work(*node);
        }
        cluster.verify();
    }
}

fn groups_on(cluster: &Cluster, disk: u32) -> usize {
    cluster.machine.map().groups_on(proto::DiskId(disk)).count()
}

/// A group without an extent has nothing to make again: its slots move however few of its disks are left.
#[test]
fn groups_without_extents_are_not_kept_back() {
    let mut cluster = Cluster::with_racks(5);
    cluster.set_node(4, Health::Down);
    cluster.set_node(5, Health::Down);
    let out = [7, 8, 9, 10];
    let on_both = |group: &placement::Group| group.disks().filter(|disk| out.contains(&disk.0)).count() == 2;
    assert!(cluster.machine.map().groups().values().any(on_both), "no group has less than k slots left");
    assert!(replace(&mut cluster, &out, &[1, 2, 3]) > 0);
    assert_eq!(out.map(|disk| groups_on(&cluster, disk)), [0; 4]);
}

/// Slots of disks that stay away go elsewhere, whole; dead disks keep their garbage without being in the way,
/// and drop it when they return all the same.
#[test]
fn disks_that_stay_away_are_replaced() {
    let mut cluster = Cluster::with_racks(5);
    let put = cluster.extents("k", &[100_000]).unwrap();
    cluster.commit(put);
    cluster.set_node(5, Health::Down);
    let slots = groups_on(&cluster, 9) + groups_on(&cluster, 10);
    assert!(slots > 0);
    assert_eq!(replace(&mut cluster, &[], &[1, 2, 3, 4]), 0);
    assert_eq!(replace(&mut cluster, &[9, 10], &[1, 2, 3, 4]), slots);
    assert_eq!((groups_on(&cluster, 9), groups_on(&cluster, 10)), (0, 0));
    assert_eq!(cluster.machine.slots_rebuilding(), 0);
    assert_eq!(cluster.machine.totals().garbage_extents, slots as u64);
    // The next one goes, too: what the first keeps is in nobody's way.
    cluster.set_node(4, Health::Down);
    assert!(replace(&mut cluster, &[7, 8, 9, 10], &[1, 2, 3]) > 0);
    assert_eq!((groups_on(&cluster, 7), groups_on(&cluster, 8)), (0, 0));
    for node in [4, 5] {
        cluster.set_node(node, Health::Up);
        cluster.work(node);
    }
    assert_eq!(cluster.machine.totals().garbage_extents, 0);
    cluster.verify();
}

/// A slot that is being filled on a disk that goes out, too, moves on: not to a disk that waits to drop what it
/// kept of the slot, and back to its source if that is there.
#[test]
fn replacements_are_replaced() {
    let mut cluster = Cluster::with_racks(5);
    cluster.set_node(5, Health::Down);
    // Nobody works: all stay rebuilding.
    let moved = replace(&mut cluster, &[9, 10], &[]);
    assert_eq!(cluster.machine.slots_rebuilding(), moved);
    cluster.set_node(5, Health::Up);
    cluster.set_node(4, Health::Down);
    let stranded = cluster.machine.work().rebuilds(proto::DiskId(7)).count();
    assert!(stranded > 0, "the case has no slot to move on");
    replace(&mut cluster, &[7, 8], &[1, 2, 3, 5]);
    assert_eq!((groups_on(&cluster, 7), groups_on(&cluster, 8)), (0, 0));
    for node in [1, 2, 3, 5] {
        cluster.work(node);
    }
    assert_eq!(cluster.machine.slots_rebuilding(), 0);
    cluster.verify();

    let group = cluster.machine.map().groups().values().next().unwrap().clone();
    let slot = group.slots[0];
    let used: Vec<u32> = group.slots.iter().map(|slot| slot.disk.0.div_ceil(2)).collect();
    let to = [1, 2, 3, 5].into_iter().find(|node| !used.contains(node)).unwrap();
    let (group, epoch, to_disk) = (group.id.0, group.epoch.0, to * 2);
    cluster.done(Action::MoveSlot(wire::MoveSlot { group, slot: 0, epoch, to_disk, task: 0 }));
    cluster.set_node(to, Health::Down);
    replace(&mut cluster, &[to_disk], &[]);
    assert_eq!(cluster.machine.map().groups()[&proto::GroupId(group)].slots[0].disk, slot.disk);
    cluster.verify();
}

/// A slot stays where it is while the others are too few to make it from: its disk may have the last shards.
#[test]
fn the_last_shards_are_waited_for() {
    let mut cluster = Cluster::with_racks(4);
    let put = cluster.extents("k", &[100_000]).unwrap();
    let extent = put.extents[0].clone();
    cluster.commit(put);
    let group = proto::GroupId(extent.group);
    let slots = cluster.machine.map().groups()[&group].slots.clone();
    let node = |slot: usize| slots[slot].disk.0.div_ceil(2);
    let lost =
        wire::SlotFilled { group: group.0, extent: extent.id, slot: 1, disk: slots[1].disk.0, epoch: 1 };
    let report = wire::ReportWork { node: node(1), lost: vec![lost], ..Default::default() };
    cluster.done(Action::ReportWork(report));
    cluster.set_node(node(0), Health::Down);
    let out = [slots[0].disk.0];
    replace(&mut cluster, &out, &[]);
    assert_eq!(
        cluster.machine.map().groups()[&group].slots[0].disk,
        slots[0].disk,
        "moved off the last shards"
    );
    cluster.set_node(node(0), Health::Up);
    assert!(cluster.work(node(1)) > 0);
    cluster.set_node(node(0), Health::Down);
    replace(&mut cluster, &out, &[]);
    assert_ne!(cluster.machine.map().groups()[&group].slots[0].disk, slots[0].disk);
    cluster.verify();
}

/// A slot whose last two disks are lost goes back to the one that it came from, though that has not dropped what
/// it kept of it: it may drop it as soon as the slot can be made from the others, and not before.
#[test]
fn leftovers_do_not_wait_for_lost_disks() {
    let mut cluster = Cluster::with_racks(4);
    let put = cluster.extents("k", &[100_000]).unwrap();
    let (group, extent) = (proto::GroupId(put.extents[0].group), put.extents[0].id.clone());
    cluster.commit(put);
    let slots = cluster.machine.map().groups()[&group].slots.clone();
    let node = |disk: proto::DiskId| disk.0.div_ceil(2);
    let home = slots[0].disk;
    let away = (1..=4).find(|other| slots.iter().all(|slot| node(slot.disk) != *other)).unwrap();
    let out = [away * 2 - 1, away * 2];
    for (epoch, to_disk) in (1..).zip(out) {
        cluster.done(Action::MoveSlot(wire::MoveSlot { group: group.0, slot: 0, epoch, to_disk, task: 0 }));
        if epoch == 1 {
            assert!(cluster.work(away) > 0);
        }
    }
    cluster.set_node(away, Health::Down);
    let lost = |missing| {
        let (slot, disk) = (1, slots[1].disk);
        let item = wire::SlotFilled { group: group.0, extent: extent.clone(), slot, disk: disk.0, epoch: 3 };
        let (lost, filled) = if missing { (vec![item], vec![]) } else { (vec![], vec![item]) };
        Action::ReportWork(wire::ReportWork { node: node(disk), lost, filled, ..Default::default() })
    };
    cluster.done(lost(true));
    assert_eq!(cluster.take(node(home), 3).drops, [], "too few others: it may be the last one");
    cluster.done(lost(false));
    let beside = other_disk(home);
    let moves = |cluster: &Cluster| {
        let ids = |disks: &[u32]| disks.iter().copied().map(proto::DiskId).collect();
        let ailing = Ailing { out: ids(&out), full: ids(&[beside]), ..Ailing::default() };
        let view = cluster.pending.over(&cluster.kv);
        let moves = Healer::new().next(&cluster.machine, &view, Timestamp::ZERO, &ailing).unwrap();
        let of_group = |action: &Action| matches!(action, Action::MoveSlot(to) if to.group == group.0);
        moves.into_iter().filter(of_group).collect::<Vec<_>>()
    };
    assert_eq!(moves(&cluster), [], "it has not dropped what it kept");
    assert_eq!(cluster.work(node(home)), 1);
    let to = wire::MoveSlot { group: group.0, slot: 0, epoch: 3, to_disk: home.0, task: 0 };
    assert_eq!(moves(&cluster), [Action::MoveSlot(to)]);
    cluster.done(Action::MoveSlot(to));
    assert!(cluster.work(node(home)) > 0);
    assert_eq!(cluster.machine.slots_rebuilding(), 0);
    cluster.verify();
}

/// A replacement whose source is down for a moment waits for it; one whose source is out goes on without.
#[test]
fn sources_are_waited_for() {
    let mut cluster = Cluster::with_racks(5);
    let group = cluster.machine.map().groups().values().find(|group| group.slots.len() == 3).unwrap().clone();
    let node = |disk: proto::DiskId| disk.0.div_ceil(2);
    let from = group.slots[0].disk;
    let used: Vec<u32> = group.slots.iter().map(|slot| node(slot.disk)).collect();
    let to = (1..=5).find(|node| !used.contains(node)).unwrap();
    let to_disk = to * 2;
    cluster.done(Action::MoveSlot(wire::MoveSlot { group: group.id.0, slot: 0, epoch: 1, to_disk, task: 0 }));
    cluster.set_node(to, Health::Down);
    cluster.set_node(node(from), Health::Down);
    replace(&mut cluster, &[to_disk], &[]);
    let disk = |cluster: &Cluster| cluster.machine.map().groups()[&group.id].slots[0].disk;
    assert_eq!(disk(&cluster).0, to_disk);
    replace(&mut cluster, &[to_disk, from.0], &[]);
    assert!(![to_disk, from.0].contains(&disk(&cluster).0), "{}", disk(&cluster));
    cluster.verify();
}

/// Of many groups those come first that withstand least, and no round moves more than its bound.
#[test]
fn the_worst_come_first() {
    let mut cluster = Cluster::with_racks(6);
    let Action::CreateProfile(mut wide) = cluster.profile("rs-2-2") else { unreachable!() };
    (wide.m, wide.min_durable) = (2, 3);
    cluster.done(Action::CreateProfile(wide));
    cluster.set_node(6, Health::Down);
    cluster.set_node(5, Health::Down);
    let out: BTreeSet<proto::DiskId> = [9, 10, 11, 12].map(proto::DiskId).into();
    let view = cluster.pending.over(&cluster.kv);
    let mut healer = Healer::new();
    let actions = healer
        .next(&cluster.machine, &view, Timestamp::ZERO, &Ailing { out: out.clone(), ..Ailing::default() })
        .unwrap();
    assert!((1..=16).contains(&actions.len()), "{}", actions.len());
    let map = cluster.machine.map();
    let moved: BTreeSet<u32> = actions
        .iter()
        .map(|action| match action {
            Action::MoveSlot(to) => to.group,
            action => panic!("{action:?}"),
        })
        .collect();
    let tolerated = |chosen: bool| {
        let groups = out.iter().flat_map(|disk| map.groups_on(*disk));
        let groups = groups.filter(|group| moved.contains(&group.id.0) == chosen);
        let left =
            groups.map(|group| placement::tolerance(map, &map.profiles()[&group.profile], &group.slots, 0));
        left.filter(|left| left.readable).map(|left| left.disks).collect::<BTreeSet<u32>>()
    };
    let (chosen, others) = (tolerated(true), tolerated(false));
    assert!(chosen.last() <= others.first() && chosen.first() < others.last(), "{chosen:?} {others:?}");
}

/// A slot that misses what its disk has no room for goes to a disk with room, and is whole there; no slot goes to a
/// full disk, and where there is no other it stays.
#[test]
fn slots_leave_full_disks() {
    let mut cluster = Cluster::with_racks(4);
    let mut put = cluster.extents("k", &[100_000]).unwrap();
    put.extents[0].missing = 1;
    let group = proto::GroupId(put.extents[0].group);
    cluster.commit(put);
    let slots = cluster.machine.map().groups()[&group].slots.clone();
    let node = |disk: proto::DiskId| disk.0.div_ceil(2);
    let (from, used) = (slots[0].disk, [node(slots[0].disk), node(slots[1].disk), node(slots[2].disk)]);
    let free = (1..=4).find(|node| !used.contains(node)).unwrap();
    let next = |cluster: &Cluster, full: &[u32]| {
        let ailing = Ailing {
            full: full.iter().copied().chain([from.0]).map(proto::DiskId).collect(),
            without_room: slots.iter().map(|slot| (slot.disk, group)).collect(),
            ..Ailing::default()
        };
        let view = cluster.pending.over(&cluster.kv);
        Healer::new().next(&cluster.machine, &view, Timestamp::ZERO, &ailing).unwrap()
    };
    let beside = other_disk(from);
    assert_eq!(next(&cluster, &[free * 2 - 1, free * 2, beside]), []);
    let moves = next(&cluster, &[free * 2, beside]);
    let to = wire::MoveSlot { group: group.0, slot: 0, epoch: 1, to_disk: free * 2 - 1, task: 0 };
    assert_eq!(moves, [Action::MoveSlot(to)]);
    moves.into_iter().for_each(|action| drop(cluster.done(action)));
    assert_eq!(next(&cluster, &[]), [], "it is on its way");
    assert!(cluster.work(free) > 0);
    assert_eq!((cluster.machine.slots_rebuilding(), cluster.machine.totals().slots_missing), (0, 0));
    assert_eq!(cluster.work(node(from)), 1, "the full disk drops what it had");
    cluster.verify();
}

/// What a disk has of a group that it has no part in becomes garbage, whoever else is asked to believe it.
#[test]
fn strays_become_garbage() {
    let mut cluster = Cluster::with_racks(4);
    let group = cluster.machine.map().groups().values().next().unwrap().clone();
    let used: Vec<u32> = group.slots.iter().map(|slot| slot.disk.0).collect();
    let apart = (1..=8).find(|disk| !used.contains(disk)).unwrap();
    let stray = |disk: u32, slot| wire::DropExtent { group: group.id.0, disk, slot, ..Default::default() };
    let node = apart.div_ceil(2);
    let report = |node, strays| Action::ReportWork(wire::ReportWork { node, strays, ..Default::default() });
    cluster.done(report(node % 4 + 1, vec![stray(apart, 0)]));
    cluster.done(report(used[0].div_ceil(2), vec![stray(used[0], 0), stray(used[0], 1)]));
    cluster.done(report(node, vec![stray(apart, 20), wire::DropExtent { group: 9999, ..stray(apart, 0) }]));
    assert_eq!(cluster.machine.totals().garbage_extents, 0);
    for _ in 0..2 {
        cluster.done(report(node, vec![stray(apart, 0)]));
        assert_eq!(cluster.machine.totals().garbage_extents, 1);
        cluster.verify();
    }
    assert_eq!(cluster.take(node, 0).drops, [wire::DropExtent { epoch: 1, ..stray(apart, 0) }]);
    assert_eq!(cluster.work(node), 1);
    cluster.verify();
}
