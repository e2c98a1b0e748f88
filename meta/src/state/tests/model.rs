//! Random commands against a model of a few lines.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::{DiskId, GroupId};
use wire::precondition::Condition;

use super::*;
use crate::heal::{Ailing, Healer};
use crate::state::query;

const RACKS: u32 = 4;

#[derive(Clone, Debug)]
enum Step {
    Put { key: u8, lengths: Vec<u64>, missing: u8, condition: Asked },
    Delete { key: u8, condition: Asked },
    Repeat { back: usize },
    Work { node: u32, limit: u32 },
    Lose { pick: usize, slot: usize },
    Move { pick: usize, slot: u32, disk: u32 },
    Heal,
    Replace,
    Begin { kind: wire::TaskKind, at: u32 },
    Set { id: u32, state: wire::TaskState },
    Undrain { disk: u32 },
    Node { node: u32, health: Health },
    Restart { node: u32 },
    Wait { minutes: u64 },
    Write,
    Reload,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Nothing,
    Absent,
    Current,
    Wrong,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let asked = prop_oneof![
        4 => Just(Asked::Nothing),
        1 => Just(Asked::Absent),
        1 => Just(Asked::Current),
        1 => Just(Asked::Wrong),
    ];
    let lengths =
        prop_oneof![Just(vec![]), Just(vec![60_000]), prop::collection::vec(70_000..1_000_000u64, 1..3),];
    let health = prop_oneof![3 => Just(Health::Up), 1 => Just(Health::Suspect), 2 => Just(Health::Down)];
    let node = 1..=RACKS;
    let kind = prop_oneof![
        Just(wire::TaskKind::DrainNode),
        Just(wire::TaskKind::DrainDisk),
        Just(wire::TaskKind::FailDisk),
        Just(wire::TaskKind::ReplaceDisk),
        Just(wire::TaskKind::Rebalance),
    ];
    let state = prop_oneof![
        Just(wire::TaskState::Paused),
        Just(wire::TaskState::Running),
        Just(wire::TaskState::Cancelled),
    ];
    let step = prop_oneof![
        8 => (0..5u8, lengths, 0..12u8, asked.clone())
            .prop_map(|(key, lengths, missing, condition)| Step::Put { key, lengths, missing, condition }),
        3 => (0..5u8, asked).prop_map(|(key, condition)| Step::Delete { key, condition }),
        2 => (0..6usize).prop_map(|back| Step::Repeat { back }),
        4 => (node.clone(), 0..5u32).prop_map(|(node, limit)| Step::Work { node, limit }),
        2 => (any::<usize>(), 0..3usize).prop_map(|(pick, slot)| Step::Lose { pick, slot }),
        3 => (any::<usize>(), 0..3u32, 1..=2 * RACKS).prop_map(|(pick, slot, disk)| Step::Move { pick, slot, disk }),
        2 => Just(Step::Heal),
        2 => Just(Step::Replace),
        2 => (kind, 1..=RACKS).prop_map(|(kind, at)| Step::Begin { kind, at }),
        1 => (1..4u32, state).prop_map(|(id, state)| Step::Set { id, state }),
        1 => (1..=2 * RACKS).prop_map(|disk| Step::Undrain { disk }),
        3 => (node.clone(), health).prop_map(|(node, health)| Step::Node { node, health }),
        1 => node.prop_map(|node| Step::Restart { node }),
        1 => (1..90u64).prop_map(|minutes| Step::Wait { minutes }),
        3 => Just(Step::Write),
        1 => Just(Step::Reload),
    ];
    prop::collection::vec(step, 1..60)
}

/// What a key should hold: version, bytes, ids of extents.
type Model = BTreeMap<u8, (u64, u64, Vec<Bytes>)>;

struct Run {
    cluster: Cluster,
    model: Model,
    sent: Vec<(Action, Answer)>,
    healer: Healer,
    /// Slots and bytes done of each task.
    progress: BTreeMap<u32, (u64, u64)>,
}

impl Run {
    fn new() -> Self {
        let cluster = Cluster::with_racks(RACKS);
        let (model, sent, healer) = (Model::new(), Vec::new(), Healer::new());
        Self { cluster, model, sent, healer, progress: BTreeMap::new() }
    }

    fn step(&mut self, step: Step) {
        let cluster = &mut self.cluster;
        match step {
            Step::Put { key, lengths, missing, condition } => self.put(key, &lengths, missing, condition),
            Step::Delete { key, condition } => self.delete(key, condition),
            Step::Repeat { back } => self.repeat(back),
            Step::Work { node, limit } => {
                let report = report(node, cluster.take(node, limit));
                cluster.done(Action::ReportWork(report.clone()));
                cluster.done(Action::ReportWork(report));
            }
            Step::Lose { pick, slot } => self.lose(pick, slot),
            Step::Move { pick, slot, disk } => {
                let groups = cluster.machine.map().groups();
                let group = groups.values().nth(pick % groups.len()).unwrap();
                let to =
                    wire::MoveSlot { group: group.id.0, slot, epoch: group.epoch.0, to_disk: disk, task: 0 };
                cluster.apply(Action::MoveSlot(to));
            }
            Step::Heal => self.heal(&BTreeSet::new()),
            Step::Replace => self.heal(&self.down()),
            Step::Begin { kind, at } => {
                let (node, disk) = match kind {
                    wire::TaskKind::DrainNode => (at, 0),
                    wire::TaskKind::Rebalance => (0, 0),
                    // The only one that is never brought back: else too few might be left in the end.
                    wire::TaskKind::ReplaceDisk => (0, 1),
                    _ => (0, 2 * at),
                };
                let command_id = cluster.command_id();
                let begin =
                    wire::BeginTask { kind: kind.into(), node, disk, command_id, ..Default::default() };
                cluster.apply(Action::BeginTask(begin));
            }
            Step::Set { id, state } => {
                let (command_id, state) = (cluster.command_id(), state.into());
                let set = wire::SetTask { id, state, command_id, limit_bytes_per_s: Some(1) };
                cluster.apply(Action::SetTask(set));
            }
            Step::Undrain { disk } => self.undrain(disk),
            Step::Node { node, health } => cluster.set_node(node, health),
            Step::Restart { node } => {
                let incarnation = cluster.machine.map().nodes()[&NodeId(node)].incarnation.0 + 1;
                cluster.done(Action::RegisterNode(register(node, incarnation)));
            }
            Step::Wait { minutes } => cluster.now_ms += minutes * MINUTE_MS,
            Step::Write => cluster.flush(),
            Step::Reload => {
                cluster.flush();
                cluster.machine = Machine::load(&cluster.kv).unwrap();
            }
        }
    }

    fn condition(&self, key: u8, asked: Asked) -> (Option<wire::Precondition>, bool) {
        let version = self.model.get(&key).map(|object| object.0);
        let (condition, holds) = match asked {
            Asked::Nothing => return (None, true),
            Asked::Absent => (Condition::IfAbsent(true), version.is_none()),
            Asked::Current => (Condition::IfVersion(version.unwrap_or(1)), version.is_some()),
            Asked::Wrong => (Condition::IfVersion(u64::MAX), false),
        };
        (Some(wire::Precondition { condition: Some(condition) }), holds)
    }

    fn put(&mut self, key: u8, lengths: &[u64], missing: u8, asked: Asked) {
        let (precondition, holds) = self.condition(key, asked);
        let name = format!("k{key}");
        let put = match lengths {
            [] => Some(self.cluster.inline(&name, &vec![key; usize::from(missing)])),
            lengths => self.cluster.extents(&name, lengths),
        };
        // With two racks down there may be no place.
        let Some(mut put) = put else { return };
        put.precondition = precondition;
        // Both slots of a small object must be durable, all but one of the others'.
        let may_miss =
            |extent: &&mut wire::Extent| missing < 3 && extent.missing == 0 && extent.length > 65_536;
        if let Some(extent) = put.extents.first_mut().filter(may_miss) {
            extent.missing = 1 << missing;
        }
        let object = (put.size, put.extents.iter().map(|extent| extent.id.clone()).collect());
        let answer = self.cluster.apply(Action::CommitObject(put.clone()));
        match &answer {
            Answer::CommitObject(reply) => {
                assert!(holds && !reply.repeated, "{answer:?}");
                self.model.insert(key, (reply.version, object.0, object.1));
                self.sent.push((Action::CommitObject(put), answer));
            }
            Answer::Failure(failure) => {
                assert_eq!(
                    (holds, failure.code),
                    (false, ErrorCode::PreconditionFailed.number()),
                    "{failure:?}"
                );
            }
            answer => panic!("{answer:?}"),
        }
    }

    fn delete(&mut self, key: u8, asked: Asked) {
        let (precondition, holds) = self.condition(key, asked);
        let delete = Action::DeleteObject(wire::DeleteObject {
            tenant: "t".into(),
            bucket: "b".into(),
            key: format!("k{key}").into(),
            command_id: self.cluster.command_id(),
            precondition,
        });
        let answer = self.cluster.apply(delete.clone());
        match &answer {
            Answer::DeleteObject(reply) => {
                assert!(holds);
                assert_eq!(reply.existed, self.model.remove(&key).is_some());
                self.sent.push((delete, answer));
            }
            Answer::Failure(failure) => assert!(!holds, "{failure:?}"),
            answer => panic!("{answer:?}"),
        }
    }

    /// A command that was answered has the same answer again, or is too old; never a second effect.
    fn repeat(&mut self, back: usize) {
        let Some((action, first)) = self.sent.iter().rev().nth(back).cloned() else { return };
        match (self.cluster.apply(action), first) {
            (Answer::CommitObject(again), Answer::CommitObject(first)) => {
                assert_eq!(again, wire::CommitObjectReply { repeated: true, ..first });
            }
            (Answer::DeleteObject(again), Answer::DeleteObject(first)) => {
                assert_eq!(again, wire::DeleteObjectReply { repeated: true, ..first });
            }
            (Answer::Failure(failure), _) => assert_eq!(failure.code, ErrorCode::CommandExpired.number()),
            (again, _) => panic!("{again:?}"),
        }
    }

    fn undrain(&mut self, disk: u32) {
        let command_id = self.cluster.command_id();
        let undrain = wire::Undrain { node: 0, disk, command_id };
        if let Answer::Failure(_) = self.cluster.apply(Action::Undrain(undrain)) {
            let (node, command_id) = (disk.div_ceil(2), self.cluster.command_id());
            self.cluster.apply(Action::Undrain(wire::Undrain { node, disk: 0, command_id }));
        }
    }

    /// A slot of an extent is found lost, unless that were one too many to read it.
    fn lose(&mut self, pick: usize, slot: usize) {
        let keys: Vec<u8> = self.model.keys().copied().collect();
        let Some(key) = keys.get(pick % keys.len().max(1)) else { return };
        let reply = self.get(*key).unwrap();
        let Some(extent) = reply.extents.first().filter(|extent| extent.missing == 0) else { return };
        let disk =
            self.cluster.machine.map().groups()[&GroupId(extent.group)].slots.get(slot).map(|slot| slot.disk);
        let Some(disk) = disk else { return };
        let node = self.cluster.machine.map().disks()[&disk].node.0;
        let lost = wire::SlotFilled {
            group: extent.group,
            extent: extent.id.clone(),
            slot: u32::try_from(slot).unwrap(),
            disk: disk.0,
            epoch: extent.epoch,
        };
        let report = wire::ReportWork { node, lost: vec![lost], ..Default::default() };
        self.cluster.done(Action::ReportWork(report));
    }

    /// Disks that are down: given up as if they had been for long.
    fn down(&self) -> BTreeSet<DiskId> {
        let map = self.cluster.machine.map();
        map.disks().keys().copied().filter(|disk| map.disk_health(*disk) == Health::Down).collect()
    }

    fn heal(&mut self, out: &BTreeSet<DiskId>) {
        let cluster = &mut self.cluster;
        let now = Timestamp::from_millis(cluster.now_ms);
        let ailing = Ailing { out: out.clone(), share_max_percent: 25, ..Ailing::default() };
        let actions =
            self.healer.next(&cluster.machine, &cluster.pending.over(&cluster.kv), now, &ailing).unwrap();
        actions.into_iter().for_each(|action| drop(cluster.apply(action)));
    }

    fn get(&self, key: u8) -> Option<wire::GetObjectReply> {
        let get = wire::GetObject {
            tenant: "t".into(),
            bucket: "b".into(),
            key: format!("k{key}").into(),
            head: false,
        };
        let cluster = &self.cluster;
        query::get_object(&cluster.machine, &cluster.pending.over(&cluster.kv), &get).ok()
    }

    fn check(&mut self) {
        self.cluster.verify();
        for task in self.cluster.machine.tasks().all() {
            let now = (task.slots_done, task.bytes_done);
            let before = self.progress.insert(task.id, now).unwrap_or_default();
            assert!(before.0 <= now.0 && before.1 <= now.1, "progress fell from {before:?}: {task:?}");
            assert!(task.slots_done <= task.slots_total && task.bytes_done <= task.bytes_total, "{task:?}");
        }
        for key in 0..5u8 {
            let found = self.get(key).map(|reply| {
                let object = reply.object.unwrap();
                let extents = reply.extents.into_iter().map(|extent| extent.id).collect();
                (object.version, object.size, extents)
            });
            assert_eq!(found.as_ref(), self.model.get(&key), "key {key}");
        }
        for disk in self.cluster.machine.map().disks().keys() {
            assert_ne!(*disk, DiskId(0));
        }
    }

    fn heal_and_work(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.heal(&BTreeSet::new());
            for node in 1..=RACKS {
                self.cluster.work(node);
            }
        }
    }

    /// Faults have stopped: everything must come back by itself.
    fn settle(&mut self) {
        (1..=RACKS).for_each(|node| self.cluster.set_node(node, Health::Up));
        self.heal_and_work(30);
        self.check();
        // What cannot end, as too few disks are in service.
        (1..=2 * RACKS).for_each(|disk| self.undrain(disk));
        self.heal_and_work(60);
        let totals = self.cluster.machine.totals();
        assert_eq!((totals.slots_missing, totals.garbage_extents), (0, 0), "{totals:?}");
        assert_eq!(self.cluster.machine.slots_rebuilding(), 0);
        assert!(self.cluster.machine.groups_below_policy().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever comes, the answers are those of the model, everything adds up after each step, no task loses
    /// progress, all is
    /// healed once faults stop, and another machine with other batches has the same rows.
    #[test]
    fn like_the_model(steps in steps()) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
            run.check();
        }
        run.settle();
        run.check();
        run.cluster.flush();

        let (mut machine, mut kv) = (Machine::default(), TestKv::default());
        for (index, command) in run.cluster.log {
            let mut pending = Pending::new();
            machine.apply(&kv, index, command, &mut pending).unwrap();
            kv.write(pending.into_batch());
        }
        prop_assert_eq!(kv, run.cluster.kv);
    }

    /// Random bytes that parse as a command never panic, and never break the books.
    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), tag in 10..29u8) {
        use proto::prost::Message;
        let mut cluster = Cluster::with_racks(3);
        // The tag of an action with as many bytes as follow.
        let mut framed = vec![tag << 3 | 2];
        if tag >= 16 {
            framed = vec![(tag << 3 | 2) | 0x80, tag >> 4];
        }
        framed.push(u8::try_from(bytes.len() & 0x7f).unwrap());
        framed.extend(&bytes);
        if let Ok(command) = wire::Command::decode(&framed[..]) {
            cluster.apply_command(command);
        }
        cluster.verify();
    }
}
