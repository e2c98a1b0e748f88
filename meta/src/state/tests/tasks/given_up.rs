//! Disks that are given up while something else goes on, or stands still.

use super::*;
use crate::plan::{Fills, plan};

/// Node 5 starts without its second disk.
fn without_disk_10(cluster: &mut Cluster) {
    let mut without = register(5, 2);
    without.disks.truncate(1);
    cluster.done(Action::RegisterNode(without));
}

/// A disk of a node that is drained dies, and is given up: its slots are made elsewhere at once, and the drain ends
/// without what it kept. Its node brings it back into service with the others.
#[test]
fn a_disk_of_a_drained_node_fails() {
    let mut cluster = Cluster::with_racks(5);
    puts(&mut cluster, 12);
    let drain = begun(&mut cluster, TaskKind::DrainNode, 5, 0);
    without_disk_10(&mut cluster);
    for _ in 0..2 {
        let failed = begun(&mut cluster, TaskKind::FailDisk, 0, 10);
        assert_eq!((failed.id, failed.kind()), (drain.id, TaskKind::DrainNode));
        assert_eq!(
            (duty(&cluster, 9), duty(&cluster, 10)),
            (placement::Duty::Draining, placement::Duty::Failed)
        );
    }
    let replace = begin(&mut cluster, TaskKind::ReplaceDisk, 0, 10);
    cluster.refused(replace, ErrorCode::InvalidRequest, "in the way");
    heal(&mut cluster, &ailing(), &ALL);
    let done = task(&cluster, drain.id);
    assert_eq!((done.state(), done.slots_done), (TaskState::Done, drain.slots_total));
    assert_eq!((groups_on(&cluster, 9), groups_on(&cluster, 10)), (0, 0));

    let mut cluster = Cluster::with_racks(5);
    begun(&mut cluster, TaskKind::DrainNode, 5, 0);
    begun(&mut cluster, TaskKind::FailDisk, 0, 10);
    let back = undrain(&mut cluster, 5, 0);
    cluster.done(back);
    assert_eq!(
        (duty(&cluster, 9), duty(&cluster, 10)),
        (placement::Duty::InService, placement::Duty::InService)
    );
    cluster.verify();
}

/// Whoever pauses a task spares disks that work; what a dead disk had is made again all the same.
#[test]
fn a_pause_stops_no_repair() {
    let mut cluster = Cluster::with_racks(5);
    puts(&mut cluster, 12);
    let slots = groups_on(&cluster, 10);
    begun(&mut cluster, TaskKind::FailDisk, 0, 10);
    let paused = set(&mut cluster, 1, TaskState::Paused);
    cluster.done(paused);
    assert_eq!(heal(&mut cluster, &ailing(), &ALL), 0);
    without_disk_10(&mut cluster);
    assert_eq!(heal(&mut cluster, &ailing(), &ALL), slots);
    assert_eq!(groups_on(&cluster, 10), 0);
    cluster.verify();
}

/// What dead disks have kept of groups is in no rebalance's way: when it is done, nothing is left to plan.
#[test]
fn dead_disks_hinder_no_rebalance() {
    let mut cluster = Cluster::with_racks(4);
    puts(&mut cluster, 40);
    cluster.set_node(4, Health::Down);
    let out = Ailing { out: [7, 8].map(DiskId).into(), ..ailing() };
    assert!(heal(&mut cluster, &out, &[1, 2, 3]) > 0);
    assert!(cluster.machine.totals().garbage_extents > 0, "nothing is kept anywhere");
    cluster.done(Action::RegisterNode(register(5, 1)));
    begun(&mut cluster, TaskKind::Rebalance, 0, 0);
    assert!(heal(&mut cluster, &out, &[1, 2, 3, 5]) > 0);
    assert_eq!(task(&cluster, 1).state(), TaskState::Done);
    let Action::BeginTask(again) = begin(&mut cluster, TaskKind::Rebalance, 0, 0) else { unreachable!() };
    let left = plan(&cluster.machine, &again, &Fills::default()).unwrap().plan.unwrap();
    assert_eq!((left.slots, left.bytes), (0, 0), "{left:?}");
}

/// A beginning that was carried out is known as such when it would be refused by now.
#[test]
fn what_was_begun_is_remembered() {
    let mut cluster = Cluster::with_racks(5);
    let replace = begin(&mut cluster, TaskKind::ReplaceDisk, 0, 10);
    let Action::BeginTask(asked) = replace.clone() else { unreachable!() };
    let is_known = |cluster: &Cluster| {
        let view = cluster.pending.over(&cluster.kv);
        cluster.machine.is_carried_out(&view, &asked.command_id).unwrap()
    };
    assert!(!is_known(&cluster));
    let begun = answered(&mut cluster, replace.clone());
    heal(&mut cluster, &ailing(), &ALL);
    assert_eq!(duty(&cluster, 10), placement::Duty::Retired);
    assert!(plan(&cluster.machine, &asked, &Fills::default()).is_err(), "nobody would begin it now");
    assert!(is_known(&cluster));
    assert_eq!(answered(&mut cluster, replace), begun);
}
