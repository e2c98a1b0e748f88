//! Drains, failures, replacements, rebalances: what they leave behind, and how they are counted.

mod given_up;

use proto::{DiskId, TaskId};
use wire::{TaskKind, TaskState};

use super::*;
use crate::heal::{Ailing, Healer};

fn begin(cluster: &mut Cluster, kind: TaskKind, node: u32, disk: u32) -> Action {
    let command_id = cluster.command_id();
    Action::BeginTask(wire::BeginTask { kind: kind.into(), node, disk, command_id, ..Default::default() })
}

fn begun(cluster: &mut Cluster, kind: TaskKind, node: u32, disk: u32) -> wire::Task {
    let action = begin(cluster, kind, node, disk);
    answered(cluster, action)
}

fn answered(cluster: &mut Cluster, action: Action) -> wire::Task {
    match cluster.done(action) {
        Answer::Task(task) => task,
        answer => panic!("{answer:?}"),
    }
}

fn set(cluster: &mut Cluster, id: u32, state: TaskState) -> Action {
    let command_id = cluster.command_id();
    Action::SetTask(wire::SetTask { id, state: state.into(), limit_bytes_per_s: None, command_id })
}

fn undrain(cluster: &mut Cluster, node: u32, disk: u32) -> Action {
    let command_id = cluster.command_id();
    Action::Undrain(wire::Undrain { node, disk, command_id })
}

fn task(cluster: &Cluster, id: u32) -> wire::Task {
    cluster.machine.tasks().get(TaskId(id)).unwrap().clone()
}

fn duty(cluster: &Cluster, disk: u32) -> placement::Duty {
    cluster.machine.map().disk_duty(DiskId(disk))
}

fn groups_on(cluster: &Cluster, disk: u32) -> usize {
    cluster.machine.map().groups_on(DiskId(disk)).count()
}

fn ailing() -> Ailing {
    Ailing { share_max_percent: 25, ..Ailing::default() }
}

/// The healer's commands, carried out, and the nodes' work, until there is nothing more to do; how many moves.
fn heal(cluster: &mut Cluster, ailing: &Ailing, nodes: &[u32]) -> usize {
    let (mut healer, mut moves, mut quiet) = (Healer::new(), 0, 0);
    for _ in 0..500 {
        let now = Timestamp::from_millis(cluster.now_ms);
        let view = cluster.pending.over(&cluster.kv);
        let actions = healer.next(&cluster.machine, &view, now, ailing).unwrap();
        quiet = if actions.is_empty() { quiet + 1 } else { 0 };
        moves += actions.iter().filter(|action| matches!(action, Action::MoveSlot(_))).count();
        actions.into_iter().for_each(|action| drop(cluster.done(action)));
        let pieces: usize = nodes.iter().map(|node| cluster.work(*node)).sum();
        cluster.verify();
        if quiet > 1 && pieces == 0 {
            return moves;
        }
    }
    panic!("no end of it");
}

/// Puts of 100 kB each.
fn puts(cluster: &mut Cluster, count: u32) {
    for at in 0..count {
        let put = cluster.extents(&format!("k{at}"), &[100_000]).unwrap();
        cluster.commit(put);
    }
}

const ALL: [u32; 5] = [1, 2, 3, 4, 5];

/// A drain counts every slot once, is done when the disks are empty, and leaves them so; back in service they
/// get slots again.
#[test]
fn a_node_is_drained() {
    let mut cluster = Cluster::with_racks(5);
    puts(&mut cluster, 12);
    let slots = u64::try_from(groups_on(&cluster, 9) + groups_on(&cluster, 10)).unwrap();
    let begun = begun(&mut cluster, TaskKind::DrainNode, 5, 0);
    assert_eq!((begun.id, begun.disks.as_slice(), begun.slots_total), (1, &[9, 10][..], slots));
    assert!(begun.bytes_total > 0, "no group there holds anything");
    assert_eq!(duty(&cluster, 9), placement::Duty::Draining);
    cluster.flush();
    cluster.machine = Machine::load(&cluster.kv).unwrap();
    assert_eq!(heal(&mut cluster, &ailing(), &ALL), usize::try_from(slots).unwrap());
    let done = task(&cluster, 1);
    assert_eq!((done.state(), done.slots_done, done.bytes_done), (TaskState::Done, slots, begun.bytes_total));
    assert_eq!((groups_on(&cluster, 9), groups_on(&cluster, 10)), (0, 0));
    assert_eq!(cluster.machine.totals().garbage_extents, 0);
    assert_eq!(duty(&cluster, 10), placement::Duty::Draining, "it stays empty");
    for _ in 0..2 {
        let back = undrain(&mut cluster, 5, 0);
        cluster.done(back);
        assert_eq!(duty(&cluster, 10), placement::Duty::InService);
    }
    let profile = cluster.profile("next");
    cluster.done(profile);
    assert!(groups_on(&cluster, 9) > 0);
    cluster.verify();
}

/// The same again is the same task; what is in the way is named; a stronger reason takes a task over; the same
/// command has the same answer.
#[test]
fn tasks_are_begun_once() {
    let mut cluster = Cluster::with_racks(5);
    let first = begin(&mut cluster, TaskKind::DrainDisk, 0, 9);
    assert_eq!(answered(&mut cluster, first.clone()).id, 1);
    assert_eq!(answered(&mut cluster, first).id, 1);
    assert_eq!(begun(&mut cluster, TaskKind::DrainDisk, 0, 9).id, 1);
    let node = begin(&mut cluster, TaskKind::DrainNode, 5, 0);
    cluster.refused(node, ErrorCode::InvalidRequest, "task 1 (drain of disk 9) is in the way");
    let failed = begun(&mut cluster, TaskKind::FailDisk, 0, 9);
    assert_eq!(
        (failed.id, failed.kind(), duty(&cluster, 9)),
        (1, TaskKind::FailDisk, placement::Duty::Failed)
    );
    let weaker = begin(&mut cluster, TaskKind::DrainDisk, 0, 9);
    cluster.refused(weaker, ErrorCode::InvalidRequest, "task 1 (disk 9 has failed)");
    assert_eq!(begun(&mut cluster, TaskKind::ReplaceDisk, 0, 9).kind(), TaskKind::ReplaceDisk);
    assert_eq!(begun(&mut cluster, TaskKind::FailDisk, 0, 9).kind(), TaskKind::ReplaceDisk);
    let node = begun(&mut cluster, TaskKind::DrainNode, 5, 0);
    assert_eq!((node.id, node.disks.as_slice()), (2, &[10][..]));
    assert_eq!(begun(&mut cluster, TaskKind::Rebalance, 0, 0).id, 3);
    assert_eq!(begun(&mut cluster, TaskKind::Rebalance, 0, 0).id, 3);
    cluster.verify();
}

/// Each rule of a beginning refuses what breaks it, and so do changes of tasks that are over.
#[test]
fn wrong_tasks() {
    let mut cluster = Cluster::with_racks(5);
    let cases = [
        (TaskKind::Unspecified, 0, 0, "unknown"),
        (TaskKind::DrainNode, 9, 0, "no node 9"),
        (TaskKind::DrainNode, 1, 1, "name one of them"),
        (TaskKind::DrainDisk, 0, 99, "no disk 99"),
        (TaskKind::DrainDisk, 1, 1, "name one of them"),
        (TaskKind::Rebalance, 1, 0, "name one of them"),
    ];
    for (kind, node, disk, part) in cases {
        let bad = begin(&mut cluster, kind, node, disk);
        cluster.refused(bad, ErrorCode::InvalidRequest, part);
    }
    let Action::BeginTask(dry) = begin(&mut cluster, TaskKind::Rebalance, 0, 0) else { unreachable!() };
    let dry = wire::BeginTask { dry_run: true, ..dry };
    cluster.refused(Action::BeginTask(dry), ErrorCode::InvalidRequest, "dry run");
    let Action::BeginTask(new) = begin(&mut cluster, TaskKind::ReplaceDisk, 0, 1) else { unreachable!() };
    let new = wire::BeginTask { to_disk: 1, ..new };
    cluster.refused(Action::BeginTask(new), ErrorCode::InvalidRequest, "cannot replace");
    let unknown = set(&mut cluster, 1, TaskState::Paused);
    cluster.refused(unknown, ErrorCode::InvalidRequest, "no task 1");
    begun(&mut cluster, TaskKind::DrainDisk, 0, 1);
    for (state, part) in [(TaskState::Unspecified, "nothing is asked"), (TaskState::Done, "nothing else")] {
        let bad = set(&mut cluster, 1, state);
        cluster.refused(bad, ErrorCode::InvalidRequest, part);
    }
    let end = |state: TaskState| {
        Action::EndTask(wire::EndTask { id: 1, state: state.into(), reason: String::new() })
    };
    cluster.refused(end(TaskState::Done), ErrorCode::InvalidRequest, "not done");
    cluster.refused(end(TaskState::Failed), ErrorCode::InvalidRequest, "cannot end so");
    for nobody in [(0, 0), (1, 1), (9, 0), (0, 99)] {
        let bad = undrain(&mut cluster, nobody.0, nobody.1);
        assert!(matches!(cluster.apply(bad), Answer::Failure(_)), "{nobody:?}");
    }
    let cancel = set(&mut cluster, 1, TaskState::Cancelled);
    cluster.done(cancel);
    let late = set(&mut cluster, 1, TaskState::Running);
    cluster.refused(late, ErrorCode::InvalidRequest, "has ended (cancelled)");
    let again = set(&mut cluster, 1, TaskState::Cancelled);
    cluster.done(again);
    // The leader saw it before it was cancelled.
    cluster.done(end(TaskState::Done));
    assert_eq!(task(&cluster, 1).state(), TaskState::Cancelled);
    cluster.verify();
}

/// A paused task moves nothing, a resumed one goes on, and one that is cancelled leaves its disks in service; what
/// it had moved stays counted.
#[test]
fn pause_resume_cancel() {
    let mut cluster = Cluster::with_racks(5);
    begun(&mut cluster, TaskKind::DrainNode, 5, 0);
    let paused = set(&mut cluster, 1, TaskState::Paused);
    assert_eq!(answered(&mut cluster, paused.clone()).state(), TaskState::Paused);
    assert_eq!(heal(&mut cluster, &ailing(), &ALL), 0);
    let resumed = set(&mut cluster, 1, TaskState::Running);
    cluster.done(resumed);
    // Late, and again: it has its old answer, and no effect.
    assert_eq!(answered(&mut cluster, paused).state(), TaskState::Paused);
    assert_eq!(task(&cluster, 1).state(), TaskState::Running);
    let now = Timestamp::from_millis(cluster.now_ms);
    let view = cluster.pending.over(&cluster.kv);
    let moves = Healer::new().next(&cluster.machine, &view, now, &ailing()).unwrap();
    assert!(!moves.is_empty());
    moves.into_iter().for_each(|action| drop(cluster.done(action)));
    let limit = wire::SetTask {
        id: 1,
        limit_bytes_per_s: Some(7),
        command_id: cluster.command_id(),
        ..Default::default()
    };
    assert_eq!(answered(&mut cluster, Action::SetTask(limit)).limit_bytes_per_s, 7);
    for node in ALL {
        cluster.work(node);
    }
    let moved = task(&cluster, 1).slots_done;
    assert!(moved > 0);
    let cancelled = set(&mut cluster, 1, TaskState::Cancelled);
    let cancelled = answered(&mut cluster, cancelled);
    assert_eq!((cancelled.state(), cancelled.slots_done), (TaskState::Cancelled, moved));
    assert_eq!(duty(&cluster, 9), placement::Duty::InService);
    assert_eq!(heal(&mut cluster, &ailing(), &ALL), 0);
}

/// A disk that is dead is replaced with one command: its slots are made elsewhere at once, the new disk of its name
/// is noted, and the old one is retired for good with all that it kept.
#[test]
fn a_dead_disk_is_replaced() {
    let mut cluster = Cluster::with_racks(5);
    puts(&mut cluster, 12);
    let mut without = register(5, 2);
    without.disks.truncate(1);
    cluster.done(Action::RegisterNode(without));
    let slots = u64::try_from(groups_on(&cluster, 10)).unwrap();
    begun(&mut cluster, TaskKind::ReplaceDisk, 0, 10);
    let mut swapped = register(5, 3);
    swapped.disks[1].uuid = Bytes::from_static(&[9; 16]);
    cluster.done(Action::RegisterNode(swapped));
    assert_eq!(task(&cluster, 1).to_disk, 11);
    let out = ailing();
    assert_eq!(heal(&mut cluster, &out, &ALL), usize::try_from(slots).unwrap());
    let done = task(&cluster, 1);
    assert_eq!((done.state(), done.slots_done), (TaskState::Done, slots));
    let old = cluster.machine.map().disks()[&DiskId(10)].clone();
    assert_eq!((old.duty, &old.duty_reason[..]), (placement::Duty::Retired, "task 1: replaced by disk 11"));
    assert_eq!(cluster.machine.totals().garbage_extents, 0, "nobody waits for what it kept");
    // It is plugged in again: it is nobody's.
    let mut both = register(5, 4);
    both.disks.push(wire::DiskReport {
        uuid: Bytes::from_static(&[9; 16]),
        name: "d2".into(),
        capacity_bytes: 1 << 40,
        ..Default::default()
    });
    cluster.done(Action::RegisterNode(both));
    let up = wire::DiskHealth { disk: 10, health: Health::Up.to_wire(), reason: String::new() };
    cluster.done(Action::SetHealth(wire::SetHealth { nodes: vec![], disks: vec![up] }));
    let old = cluster.machine.map().disks()[&DiskId(10)].clone();
    assert_eq!((old.health, old.duty), (Health::Down, placement::Duty::Retired));
    assert!(old.reason.contains("format it again"), "{}", old.reason);
    let refused = undrain(&mut cluster, 0, 10);
    cluster.refused(refused, ErrorCode::InvalidRequest, "for good");
    let again = begin(&mut cluster, TaskKind::ReplaceDisk, 0, 10);
    cluster.refused(again, ErrorCode::InvalidRequest, "retired");
    cluster.verify();
}

/// A drained node that dies on the way loses no count: what is made elsewhere counts as moved.
#[test]
fn a_drained_node_dies() {
    let mut cluster = Cluster::with_racks(5);
    puts(&mut cluster, 12);
    let begun = begun(&mut cluster, TaskKind::DrainNode, 5, 0);
    cluster.set_node(5, Health::Down);
    assert_eq!(heal(&mut cluster, &ailing(), &[1, 2, 3, 4]), 0, "it may come back");
    let out = Ailing { out: [9, 10].map(DiskId).into(), ..ailing() };
    heal(&mut cluster, &out, &[1, 2, 3, 4]);
    let moved = task(&cluster, 1);
    assert_eq!(
        (moved.slots_done, moved.state()),
        (begun.slots_total, TaskState::Running),
        "it kept something"
    );
    let forget = |cluster: &mut Cluster, node| {
        let command_id = cluster.command_id();
        Action::ForgetNode(wire::ForgetNode { node, command_id })
    };
    let used = forget(&mut cluster, 4);
    cluster.refused(used, ErrorCode::InvalidRequest, "node drain 4");
    let unknown = forget(&mut cluster, 9);
    cluster.refused(unknown, ErrorCode::InvalidRequest, "no node 9");
    for _ in 0..2 {
        let gone = forget(&mut cluster, 5);
        cluster.done(gone);
    }
    assert_eq!(task(&cluster, 1).state(), TaskState::Done);
    heal(&mut cluster, &out, &[1, 2, 3, 4]);
    assert_eq!(cluster.machine.totals().garbage_extents, 0);
    assert_eq!(duty(&cluster, 9), placement::Duty::Retired);
}

/// A late repetition of what was carried out before has its old answer and no effect.
#[test]
fn late_commands_change_nothing() {
    let mut cluster = Cluster::with_racks(5);
    let first = begin(&mut cluster, TaskKind::DrainDisk, 0, 9);
    cluster.done(first.clone());
    let back = undrain(&mut cluster, 0, 9);
    cluster.done(back.clone());
    cluster.done(first);
    assert_eq!(duty(&cluster, 9), placement::Duty::InService);
    begun(&mut cluster, TaskKind::DrainDisk, 0, 9);
    cluster.done(back);
    assert_eq!(duty(&cluster, 9), placement::Duty::Draining);
    let forget = Action::ForgetLeftovers(wire::ForgetLeftovers { disk: 9 });
    cluster.refused(forget, ErrorCode::InvalidRequest, "may still drop");
    cluster.verify();
}

/// A node that is up is not forgotten, even when it is empty.
#[test]
fn a_node_that_answers_is_not_forgotten() {
    let mut cluster = Cluster::with_racks(3);
    cluster.done(Action::RegisterNode(register(4, 1)));
    let command_id = cluster.command_id();
    let forget = Action::ForgetNode(wire::ForgetNode { node: 4, command_id });
    cluster.refused(forget, ErrorCode::InvalidRequest, "stop its daemon");
}

/// A disk that is new on a node that is drained gets no slot either.
#[test]
fn new_disks_of_a_drained_node() {
    let mut cluster = Cluster::with_racks(5);
    begun(&mut cluster, TaskKind::DrainNode, 5, 0);
    let mut more = register(5, 2);
    more.disks.push(wire::DiskReport {
        uuid: Bytes::from_static(&[9; 16]),
        name: "d2".into(),
        capacity_bytes: 1 << 40,
        ..Default::default()
    });
    cluster.done(Action::RegisterNode(more));
    assert_eq!((duty(&cluster, 11), task(&cluster, 1).disks), (placement::Duty::Draining, vec![9, 10, 11]));
    let back = undrain(&mut cluster, 5, 0);
    cluster.done(back);
    assert_eq!(
        (duty(&cluster, 11), task(&cluster, 1).state()),
        (placement::Duty::InService, TaskState::Cancelled)
    );
    cluster.verify();
}

/// An extent that is damaged counts once until it is made again; after a day the count begins anew; a disk with
/// too many is given up, unless too many are gone already.
#[test]
fn damage_is_counted() {
    let mut cluster = Cluster::with_racks(5);
    puts(&mut cluster, 60);
    let (group, slot) = {
        let groups = cluster.machine.map().groups().values();
        let fullest = groups.max_by_key(|group| cluster.machine.group_bytes(group.id)).unwrap();
        (fullest.clone(), fullest.slots[0].disk)
    };
    let list = wire::ListGroupExtents { group: group.id.0, ..Default::default() };
    let view = cluster.pending.over(&cluster.kv);
    let extents = crate::state::query::list_group_extents(&cluster.machine, &view, &list).unwrap().extents;
    let node = cluster.machine.map().disks()[&slot].node.0;
    let damaged = |extents: &[wire::Extent], node| {
        let item = |extent: &wire::Extent| wire::SlotFilled {
            group: group.id.0,
            extent: extent.id.clone(),
            slot: 0,
            disk: slot.0,
            epoch: 1,
        };
        let damaged = extents.iter().map(item).collect();
        Action::ReportWork(wire::ReportWork { node, damaged, ..Default::default() })
    };
    let count = |cluster: &Cluster| cluster.machine.map().disks()[&slot].damaged_shards;
    cluster.done(damaged(&extents[..1], node % 5 + 1));
    assert_eq!(count(&cluster), 0, "another node's disk");
    for _ in 0..2 {
        cluster.done(damaged(&extents[..1], node));
        assert_eq!((count(&cluster), cluster.machine.totals().slots_missing), (1, 1));
    }
    cluster.work(node);
    cluster.done(damaged(&extents[..1], node));
    assert_eq!(count(&cluster), 2, "made again and damaged again");
    cluster.verify();
    cluster.now_ms += 25 * 60 * MINUTE_MS;
    cluster.work(node);
    cluster.done(damaged(&extents[..1], node));
    assert_eq!(count(&cluster), 1);
    for _ in 0..16 {
        cluster.work(node);
        cluster.done(damaged(&extents[..1], node));
    }
    assert_eq!(count(&cluster), 17);
    let verdict = |cluster: &Cluster, share_max_percent| {
        let ailing = Ailing { share_max_percent, ..Ailing::default() };
        let now = Timestamp::from_millis(cluster.now_ms);
        let view = cluster.pending.over(&cluster.kv);
        let actions = Healer::new().next(&cluster.machine, &view, now, &ailing).unwrap();
        actions.into_iter().find(|action| matches!(action, Action::FailDisk(_)))
    };
    assert_eq!(verdict(&cluster, 9), None, "one of ten is more");
    let fail = verdict(&cluster, 10).unwrap();
    for _ in 0..2 {
        assert_eq!(answered(&mut cluster, fail.clone()).id, 1);
    }
    let disk = cluster.machine.map().disks()[&slot].clone();
    assert_eq!(disk.duty, placement::Duty::Failed);
    assert!(disk.duty_reason.contains("17 extents"), "{}", disk.duty_reason);
    heal(&mut cluster, &ailing(), &ALL);
    assert_eq!((groups_on(&cluster, slot.0), task(&cluster, 1).state()), (0, TaskState::Done));
    let back = undrain(&mut cluster, 0, slot.0);
    cluster.done(back);
    assert_eq!((duty(&cluster, slot.0), count(&cluster)), (placement::Duty::InService, 0));
    cluster.verify();
}

/// Failed disks are left before drained ones, though they come last by id.
#[test]
fn failed_disks_come_first() {
    let mut cluster = Cluster::with_racks(5);
    begun(&mut cluster, TaskKind::DrainDisk, 0, 1);
    begun(&mut cluster, TaskKind::FailDisk, 0, 9);
    let now = Timestamp::from_millis(cluster.now_ms);
    let view = cluster.pending.over(&cluster.kv);
    let moves = Healer::new().next(&cluster.machine, &view, now, &ailing()).unwrap();
    let from = |action: &Action| match action {
        Action::MoveSlot(to) => {
            let group = &cluster.machine.map().groups()[&proto::GroupId(to.group)];
            group.slots[to.slot as usize].disk.0
        }
        action => panic!("{action:?}"),
    };
    let from: Vec<u32> = moves.iter().map(from).collect();
    let first_drained = from.iter().position(|disk| *disk == 1).unwrap();
    assert!(first_drained > 0 && from[..first_drained].iter().all(|disk| *disk == 9), "{from:?}");
    assert!(from[first_drained..].iter().all(|disk| *disk == 1), "{from:?}");
}

/// A new node gets its part by a rebalance, whose slots are counted, and which then is done.
#[test]
fn a_rebalance_ends() {
    let mut cluster = Cluster::with_racks(4);
    puts(&mut cluster, 40);
    cluster.done(Action::RegisterNode(register(5, 1)));
    assert_eq!(groups_on(&cluster, 9), 0);
    begun(&mut cluster, TaskKind::Rebalance, 0, 0);
    let moves = heal(&mut cluster, &ailing(), &ALL);
    let done = task(&cluster, 1);
    assert!(moves > 0 && groups_on(&cluster, 9) > 0 && groups_on(&cluster, 10) > 0);
    assert_eq!((done.state(), done.slots_done), (TaskState::Done, u64::try_from(moves).unwrap()));
    assert!(done.bytes_done > 0 && done.bytes_total == done.bytes_done);
    begun(&mut cluster, TaskKind::Rebalance, 0, 0);
    assert_eq!(heal(&mut cluster, &ailing(), &ALL), 0, "it is even already");
    assert_eq!(task(&cluster, 2).state(), TaskState::Done);
}

/// A plan names what would move, and what is missing: a drain without room is refused, a dead disk is not, and what
/// runs already has no plan.
#[test]
fn plans() {
    use crate::plan::{Fills, Planned, plan};
    use crate::state::begin::Found;
    let asked = |cluster: &mut Cluster, kind, node, disk, fills: &Fills| -> Planned {
        let Action::BeginTask(asked) = begin(cluster, kind, node, disk) else { unreachable!() };
        plan(&cluster.machine, &asked, fills).unwrap()
    };
    let fills = Fills::default();
    let mut small = Cluster::with_racks(3);
    let drain = asked(&mut small, TaskKind::DrainNode, 3, 0, &fills);
    let refused = drain.refused.unwrap();
    assert_eq!(refused.code, ErrorCode::NoLegalPlace);
    assert!(refused.message.contains("add 1 rack"), "{}", refused.message);
    let replace = asked(&mut small, TaskKind::ReplaceDisk, 0, 5, &fills);
    assert_eq!(replace.refused, None);

    let mut cluster = Cluster::with_racks(5);
    puts(&mut cluster, 12);
    let drain = asked(&mut cluster, TaskKind::DrainNode, 5, 0, &fills);
    let (found, planned) = (drain.found, drain.plan.unwrap());
    assert_eq!((found, drain.refused), (Found::New(vec![DiskId(9), DiskId(10)]), None));
    let full =
        Fills { used: (1..=10).map(|disk| (DiskId(disk), (1 << 40) / 10 * 9)).collect(), ..fills.clone() };
    let refused = asked(&mut cluster, TaskKind::DrainNode, 5, 0, &full);
    assert!(refused.refused.unwrap().message.contains("no space"));
    assert!(refused.plan.unwrap().shortage.contains("no space"));
    let begun = begun(&mut cluster, TaskKind::DrainNode, 5, 0);
    assert_eq!((planned.slots, planned.bytes), (begun.slots_total, begun.bytes_total));
    let again = asked(&mut cluster, TaskKind::DrainNode, 5, 0, &fills);
    assert_eq!((again.found, again.plan), (Found::Runs(TaskId(1)), None));
    heal(&mut cluster, &ailing(), &ALL);
    let back = undrain(&mut cluster, 5, 0);
    cluster.done(back);
    let even = asked(&mut cluster, TaskKind::Rebalance, 0, 0, &fills).plan.unwrap();
    assert!(even.slots > 0 && even.before.unwrap().fullest_disk != 0, "{even:?}");
}

/// Of the tasks that have ended the last hundred are kept; those that run all are, whatever their age.
#[test]
fn old_tasks_are_forgotten() {
    let mut cluster = Cluster::with_racks(5);
    begun(&mut cluster, TaskKind::DrainDisk, 0, 9);
    for id in 2..=120 {
        begun(&mut cluster, TaskKind::Rebalance, 0, 0);
        let cancel = set(&mut cluster, id, TaskState::Cancelled);
        cluster.done(cancel);
    }
    let ids: Vec<u32> = cluster.machine.tasks().all().map(|task| task.id).collect();
    assert_eq!((ids.len(), ids[0], ids[1], ids[100]), (101, 1, 21, 120));
    cluster.verify();
}

/// A task's limit is divided among the nodes that work for it; a node that works for several has all its parts,
/// and one that works for none, or for one without a limit, the default.
#[test]
fn limits_are_divided() {
    use crate::options::Throttle;
    use crate::pace::throttle_of;
    let mut cluster = Cluster::with_racks(5);
    let default = Throttle { repair_bytes_per_s: 5, move_bytes_per_s: 1000 };
    let of = |cluster: &Cluster, default: &Throttle| {
        ALL.map(|node| throttle_of(&cluster.machine, NodeId(node), default).move_bytes_per_s)
    };
    assert_eq!(of(&cluster, &default), [1000; 5]);
    begun(&mut cluster, TaskKind::DrainNode, 5, 0);
    let now = Timestamp::from_millis(cluster.now_ms);
    let view = cluster.pending.over(&cluster.kv);
    let moves = Healer::new().next(&cluster.machine, &view, now, &ailing()).unwrap();
    moves.into_iter().for_each(|action| drop(cluster.done(action)));
    assert_eq!(of(&cluster, &default), [1000; 5]);
    let nodes: BTreeSet<u32> = cluster
        .machine
        .work()
        .moving_to(TaskId(1))
        .map(|(disk, _)| cluster.machine.map().disks()[&disk].node.0)
        .collect();
    let set = wire::SetTask {
        id: 1,
        limit_bytes_per_s: Some(100),
        command_id: cluster.command_id(),
        ..Default::default()
    };
    cluster.done(Action::SetTask(set));
    let part = 100u64.div_ceil(u64::try_from(nodes.len()).unwrap());
    let expected = ALL.map(|node| if nodes.contains(&node) { part } else { 1000 });
    assert!(!nodes.contains(&5));
    assert_eq!(of(&cluster, &default), expected);
    let unlimited = Throttle { move_bytes_per_s: 0, ..default };
    assert_eq!(of(&cluster, &unlimited), expected.map(|part| if part == 1000 { 0 } else { part }));
    assert_eq!(throttle_of(&cluster.machine, NodeId(1), &default).repair_bytes_per_s, 5);
}

/// A state from before bytes were counted by group is counted once, and written with its first command.
#[test]
fn older_states_are_counted() {
    let mut cluster = Cluster::with_racks(3);
    puts(&mut cluster, 5);
    cluster.flush();
    let rows = cluster.kv.tables[tables::GROUP_BYTES].clone();
    let bytes: u64 = rows.values().map(|value| tables::bytes_of(value).unwrap()).sum();
    assert_eq!(bytes, 500_000);
    cluster.kv.tables.remove(tables::GROUP_BYTES);
    let totals = wire::Totals { group_bytes_kept: false, ..cluster.machine.totals().clone() };
    let row = proto::prost::Message::encode_to_vec(&totals).into();
    cluster.kv.tables.get_mut(tables::TOTALS).unwrap().insert(tables::totals_key(), row);
    cluster.machine = Machine::load(&cluster.kv).unwrap();
    cluster.verify();
    cluster.done(Action::Tick(wire::Tick {}));
    cluster.flush();
    assert_eq!(cluster.kv.tables[tables::GROUP_BYTES], rows);
    cluster.verify();
}
