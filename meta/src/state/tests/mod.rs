//! A cluster in a box for the tests of the state machine.

mod commands;
mod model;
mod questions;
mod repair;
mod tasks;

use std::collections::BTreeSet;

use bytes::Bytes;
use placement::Health;
use proto::{CommandId, ErrorCode, ExtentId, NodeId, Timestamp, wire};
use wire::command::Action;
use wire::outcome::Outcome as Answer;

use crate::state::open::{OpenOptions, Opened, open_put};
use crate::state::testing::TestKv;
use crate::state::verify::verify;
use crate::state::{Machine, Pending, tables, take};

pub(super) const MINUTE_MS: u64 = 60_000;
pub(super) const START_MS: u64 = 1_000 * MINUTE_MS;

/// One machine over one store, with changes that are not written yet.
pub(super) struct Cluster {
    pub(super) machine: Machine,
    pub(super) kv: TestKv,
    pub(super) pending: Pending,
    pub(super) index: u64,
    pub(super) now_ms: u64,
    pub(super) log: Vec<(u64, wire::Command)>,
    random: u128,
}

impl Cluster {
    /// Not founded.
    pub(super) fn empty() -> Self {
        Self {
            machine: Machine::default(),
            kv: TestKv::default(),
            pending: Pending::new(),
            index: 0,
            now_ms: START_MS,
            log: Vec::new(),
            random: 1,
        }
    }

    /// `racks` racks of one node with two disks each, profile `rs-2-1` over racks, tenant `t`, bucket `b`.
    pub(super) fn with_racks(racks: u32) -> Self {
        let mut cluster = Self::empty();
        cluster.done(Action::FoundCluster(wire::FoundCluster { cluster_id: Bytes::from_static(&[7; 16]) }));
        for node in 1..=racks {
            cluster.done(Action::RegisterNode(register(node, 1)));
        }
        let profile = cluster.profile("rs-2-1");
        cluster.done(profile);
        let command_id = cluster.command_id();
        cluster.done(Action::CreateTenant(wire::CreateTenant { tenant: "t".into(), command_id }));
        let bucket = cluster.bucket("b", "rs-2-1");
        cluster.done(bucket);
        cluster
    }

    pub(super) fn random(&mut self) -> u128 {
        self.random += 1;
        self.random
    }

    pub(super) fn command_id(&mut self) -> Bytes {
        let random = self.random();
        CommandId::new(Timestamp::from_millis(self.now_ms), random).to_wire()
    }

    pub(super) fn extent_id(&mut self) -> Bytes {
        let random = self.random();
        ExtentId::new(Timestamp::from_millis(self.now_ms), random).to_wire()
    }

    pub(super) fn profile(&mut self, name: &str) -> Action {
        Action::CreateProfile(wire::CreateProfile {
            name: name.into(),
            k: 2,
            m: 1,
            shard_bytes: 1 << 16,
            failure_domain: wire::Domain::Rack.into(),
            min_durable: 2,
            slots_per_disk: 3,
            command_id: self.command_id(),
            ..Default::default()
        })
    }

    pub(super) fn bucket(&mut self, name: &str, profile: &str) -> Action {
        Action::CreateBucket(wire::CreateBucket {
            tenant: "t".into(),
            bucket: name.into(),
            profile: profile.into(),
            command_id: self.command_id(),
        })
    }

    /// A put of these bytes within the commit.
    pub(super) fn inline(&mut self, key: &str, bytes: &[u8]) -> wire::CommitObject {
        wire::CommitObject {
            tenant: "t".into(),
            bucket: "b".into(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            command_id: self.command_id(),
            size: bytes.len() as u64,
            crc32c: crc32c::crc32c(bytes),
            inline: Bytes::copy_from_slice(bytes),
            ..Default::default()
        }
    }

    /// A put of extents of these lengths, in groups that the machine offers; forms substitutes if need be.
    pub(super) fn extents(&mut self, key: &str, lengths: &[u64]) -> Option<wire::CommitObject> {
        let mut commit = wire::CommitObject { size: lengths.iter().sum(), ..self.inline(key, b"") };
        for length in lengths {
            let placement = self.open(*length)?;
            let missing = places_down(&placement);
            commit.extents.push(wire::Extent {
                id: self.extent_id(),
                group: placement.group,
                epoch: placement.epoch,
                length: *length,
                missing,
            });
        }
        Some(commit)
    }

    /// The group that an extent of an object of that size goes to.
    pub(super) fn open(&mut self, bytes_hint: u64) -> Option<wire::Placement> {
        let open = wire::OpenPut { tenant: "t".into(), bucket: "b".into(), bytes_hint, ..Default::default() };
        self.open_as(&open)
    }

    /// The first group of the answer; forms substitutes if need be.
    pub(super) fn open_as(&mut self, open: &wire::OpenPut) -> Option<wire::Placement> {
        let full_disks = BTreeSet::new();
        let mut tried = BTreeSet::new();
        loop {
            let spread = u64::try_from(self.random()).unwrap().wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let now = Timestamp::from_millis(self.now_ms);
            let options = OpenOptions { spread, now, tried: &tried, full_disks: &full_disks };
            match open_put(&self.machine, open, options) {
                Ok(Opened::Granted(reply)) => {
                    return reply.groups.into_iter().chain(reply.small_groups).next();
                }
                Ok(Opened::NeedSubstitutes { profile }) => {
                    self.apply(Action::FormSubstitutes(wire::FormSubstitutes {
                        profile: profile.0,
                        groups: 4,
                    }));
                    tried.insert(profile);
                }
                Err(_) => return None,
            }
        }
    }

    pub(super) fn apply(&mut self, action: Action) -> Answer {
        let command = wire::Command { proposed_ms: self.now_ms, action: Some(action) };
        self.apply_command(command)
    }

    pub(super) fn apply_command(&mut self, command: wire::Command) -> Answer {
        self.index += 1;
        self.log.push((self.index, command.clone()));
        let outcome = self.machine.apply(&self.kv, self.index, command, &mut self.pending).unwrap();
        outcome.outcome.unwrap()
    }

    pub(super) fn done(&mut self, action: Action) -> Answer {
        let what = format!("{action:?}");
        let answer = self.apply(action);
        assert!(!matches!(answer, Answer::Failure(_)), "{what}: {answer:?}");
        answer
    }

    /// Applies what must be refused: with this code, a sentence with this part, and without a trace.
    pub(super) fn refused(&mut self, action: Action, code: ErrorCode, part: &str) {
        self.flush();
        let (rows, before) = (self.kv.clone(), format!("{:?}", self.machine));
        match self.apply(action) {
            Answer::Failure(failure) => {
                assert_eq!(failure.code, code.number(), "{failure:?}");
                assert!(failure.message.contains(part), "{:?} lacks {part:?}", failure.message);
            }
            answer => panic!("expected {code:?} ({part}), got {answer:?}"),
        }
        assert_eq!(format!("{:?}", self.machine), before, "{part}: a refusal changed memory");
        self.flush();
        let mut found = self.kv.clone();
        if code == ErrorCode::PreconditionFailed {
            // It is remembered under the command's id, and nothing else is.
            let outcomes = |kv: &TestKv| kv.tables.get(tables::COMMANDS).cloned().unwrap_or_default();
            assert_eq!(outcomes(&found).len(), outcomes(&rows).len() + 1, "{part}");
            found.tables.insert(tables::COMMANDS, outcomes(&rows));
        }
        assert!(found == rows, "{part}: a refusal changed rows");
    }

    pub(super) fn commit(&mut self, commit: wire::CommitObject) -> wire::CommitObjectReply {
        match self.done(Action::CommitObject(commit)) {
            Answer::CommitObject(reply) => reply,
            answer => panic!("{answer:?}"),
        }
    }

    /// Writes what is pending.
    pub(super) fn flush(&mut self) {
        self.kv.write(std::mem::take(&mut self.pending).into_batch());
    }

    /// Everything adds up, in memory and in the rows.
    pub(super) fn verify(&self) {
        let wrong = verify(&self.machine, &self.pending.over(&self.kv)).unwrap();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    pub(super) fn set_node(&mut self, node: u32, health: Health) {
        let incarnation = self.machine.map().nodes()[&NodeId(node)].incarnation.0;
        let node = wire::NodeHealth { node, incarnation, health: health.to_wire() };
        self.done(Action::SetHealth(wire::SetHealth { nodes: vec![node], disks: vec![] }));
    }

    /// What the machine would have a node do.
    pub(super) fn take(&self, node: u32, limit: u32) -> wire::TakeWorkReply {
        take::take_work(&self.machine, &self.pending.over(&self.kv), NodeId(node), limit).unwrap()
    }

    /// Does all the work that a node is given, until there is none; how much there was.
    pub(super) fn work(&mut self, node: u32) -> usize {
        let mut pieces = 0;
        loop {
            let report = report(node, self.take(node, 3));
            let items = report.dropped.len() + report.filled.len() + report.rebuilt.len();
            if items == 0 {
                return pieces;
            }
            pieces += items;
            self.done(Action::ReportWork(report));
        }
    }
}

/// The report of a node that did all of it.
pub(super) fn report(node: u32, work: wire::TakeWorkReply) -> wire::ReportWork {
    let disk_of = |placement: &wire::Placement, slot: u32| placement.places[slot as usize].disk;
    let filled = work.fills.into_iter().map(|fill| {
        let placement = fill.placement.unwrap();
        let disk = disk_of(&placement, fill.slot);
        let (group, epoch) = (placement.group, placement.epoch);
        wire::SlotFilled { group, extent: fill.extent, slot: fill.slot, disk, epoch }
    });
    let rebuilt = work.rebuilds.into_iter().map(|rebuild| {
        let placement = rebuild.placement.unwrap();
        let disk = disk_of(&placement, rebuild.slot);
        wire::SlotRebuilt { group: placement.group, slot: rebuild.slot, disk, epoch: placement.epoch }
    });
    wire::ReportWork {
        node,
        filled: filled.collect(),
        rebuilt: rebuilt.collect(),
        dropped: work.drops,
        ..Default::default()
    }
}

/// Slots that a writer could not reach.
pub(super) fn places_down(placement: &wire::Placement) -> u32 {
    let down = |place: &&wire::Place| place.health != Health::Up.to_wire();
    (0u32..).zip(&placement.places).filter(|(_, place)| down(place)).map(|(slot, _)| 1 << slot).sum()
}

/// Node `n` of rack `r<n>`, with two disks of uuids `10 n` and `10 n + 1`.
pub(super) fn register(node: u32, incarnation: u64) -> wire::RegisterNode {
    let disk = |at: u32| wire::DiskReport {
        uuid: Bytes::copy_from_slice(&u128::from(node * 10 + at).to_be_bytes()),
        name: format!("d{at}"),
        capacity_bytes: 1 << 40,
        ..Default::default()
    };
    wire::RegisterNode {
        node,
        incarnation,
        site: "s".into(),
        rack: format!("r{node}"),
        address: format!("node{node}:7000"),
        disks: vec![disk(0), disk(1)],
    }
}
