//! A cluster in this process that does as little as a client can tell from a real one.

pub mod host;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use client::{Bucket, Cluster, Options};
use codec::block_checksums;
use env::Net;
use env::rpc::{Answer, Handler, Incoming, Local, serve};
use host::{Host, Wires};
use proto::identity::Service;
use proto::wire::request::Call;
use proto::wire::response::Result as Outcome;
use proto::wire::{self, Health, SlotState};
use proto::{ClusterId, ErrorCode, Failure};

/// Cluster time, which stands still.
const NOW_MS: u64 = 1_700_000_000_000;
/// Nodes, each with one disk of the same number.
pub const NODES: u32 = 8;

/// What a node does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Takes requests and never answers.
    Silent,
    /// Answers with this.
    Refuses(u32),
    /// Gives wrong bytes with right checksums of the right bytes.
    Rots,
}

#[derive(Default)]
pub struct State {
    pub groups: BTreeMap<u32, wire::Placement>,
    pub objects: BTreeMap<Bytes, wire::CommitObject>,
    pub versions: BTreeMap<Bytes, u64>,
    /// By group, extent, stripe, slot and disk.
    pub shards: BTreeMap<(u32, Bytes, u32, u32, u32), Bytes>,
    pub faults: BTreeMap<u32, Fault>,
    pub writes: usize,
    pub reads: usize,
    pub opens: usize,
    /// At so many writes, slot 0 of this group moves to that disk.
    pub move_at: Option<(usize, u32, u32)>,
    pub next_version: u64,
}

#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    wires: Wires,
}

#[derive(Clone)]
struct Part {
    fake: Fake,
    /// None for the metadata server.
    node: Option<u32>,
}

impl Fake {
    /// Groups: 1 and 2 of 4 + 2 on disks 1 to 6 and 3 to 8, and 9 of 1 + 2 for small objects.
    pub async fn start() -> Self {
        let fake = Self { state: Arc::default(), wires: Wires::default() };
        for (id, first, k, m) in [(1, 1, 4, 2), (2, 3, 4, 2), (9, 1, 1, 2)] {
            fake.state().groups.insert(id, placement(id, first, k, m));
        }
        fake.serve("meta/1", "meta:1", None).await;
        for node in 1..=NODES {
            fake.serve(&format!("node/{node}"), &format!("node-{node}:1"), Some(node)).await;
        }
        fake
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub async fn bucket(&self) -> Bucket<Host> {
        let options = Options { timeout: Duration::from_secs(20), ..Options::new(vec!["meta:1".to_owned()]) };
        let host = Host::new("tenant/dijon", &self.wires);
        let cluster = Cluster::connect(host, options).await.unwrap();
        cluster.tenant("dijon".parse().unwrap()).bucket("archive".parse().unwrap())
    }

    async fn serve(&self, me: &str, address: &str, node: Option<u32>) {
        let host = Host::new(me, &self.wires);
        let listener = host.listen(address).await.unwrap();
        tokio::spawn(serve(host, Local::new(), listener, Part { fake: self.clone(), node }));
    }
}

fn placement(id: u32, first_disk: u32, k: u32, m: u32) -> wire::Placement {
    let place = |slot| wire::Place {
        disk: first_disk + slot,
        node: first_disk + slot,
        address: format!("node-{}:1", first_disk + slot),
        health: Health::Up.into(),
        state: SlotState::Whole.into(),
        since_epoch: 1,
        ..Default::default()
    };
    wire::Placement {
        group: id,
        epoch: 1,
        k,
        m,
        shard_bytes: 65_536,
        min_durable: k + 1,
        places: (0..k + m).map(place).collect(),
        ..Default::default()
    }
}

impl Handler<Host> for Part {
    fn service(&self) -> Service {
        if self.node.is_some() { Service::Shard } else { Service::Meta }
    }

    async fn handle(&self, incoming: Incoming<Host>) -> Result<Answer, Failure> {
        let fault = self.node.and_then(|node| self.fake.state().faults.get(&node).copied());
        match fault {
            Some(Fault::Silent) => std::future::pending().await,
            Some(Fault::Refuses(code)) => Err(Failure::new(ErrorCode::from_number(code), "as told")),
            _ => match incoming.call {
                Call::WriteShard(call) => {
                    let payload = incoming.payload.collect().await?;
                    self.fake.state().write(&call, payload)
                }
                Call::ReadShard(call) => self.fake.state().read(&call, fault == Some(Fault::Rots)),
                call => self.fake.state().answer(call),
            },
        }
    }
}

fn refuse<T>(code: ErrorCode) -> Result<T, Failure> {
    Err(Failure::new(code, "as the rules say"))
}

impl State {
    fn write(&mut self, call: &wire::WriteShard, payload: Bytes) -> Result<Answer, Failure> {
        let name = call.shard.clone().unwrap();
        self.writes += 1;
        if let Some((_, group, disk)) = self.move_at.take_if(|(at, ..)| *at == self.writes) {
            self.move_slot(group, disk);
        }
        let group = &self.groups[&name.group];
        if group.places[name.slot as usize].disk != call.disk {
            return refuse(ErrorCode::NotMine);
        }
        if group.epoch != call.epoch {
            return refuse(ErrorCode::StaleEpoch);
        }
        assert_eq!(block_checksums(&payload), call.block_crc32c);
        self.shards.insert((name.group, name.extent, name.stripe, name.slot, call.disk), payload);
        Ok(Answer::new(Outcome::WriteShard(wire::WriteShardReply {})))
    }

    /// Slot 0 of the group is on that disk from now on, with nothing there.
    pub fn move_slot(&mut self, group: u32, disk: u32) {
        let group = self.groups.get_mut(&group).unwrap();
        group.epoch += 1;
        let epoch = group.epoch;
        let place = &mut group.places[0];
        (place.disk, place.node, place.address) = (disk, disk, format!("node-{disk}:1"));
        (place.since_epoch, place.state) = (epoch, SlotState::Rebuilding.into());
    }

    fn read(&mut self, call: &wire::ReadShard, rots: bool) -> Result<Answer, Failure> {
        self.reads += 1;
        let name = call.shard.clone().unwrap();
        let Some(shard) = self.shards.get(&(name.group, name.extent, name.stripe, name.slot, call.disk))
        else {
            return refuse(ErrorCode::NoSuchShard);
        };
        let start = call.first_block as usize * 65_536;
        let end = shard.len().min(start + call.blocks as usize * 65_536);
        let mut payload = shard.slice(start..end);
        let reply = wire::ReadShardReply {
            shard_bytes: shard.len().try_into().unwrap(),
            block_crc32c: block_checksums(&payload),
            tenant_tag: proto::TenantTag::of(&"dijon".parse().unwrap()).0,
            ..Default::default()
        };
        if rots {
            let mut bytes = payload.to_vec();
            bytes[0] ^= 1;
            payload = bytes.into();
        }
        Ok(Answer { payload: vec![payload], ..Answer::new(Outcome::ReadShard(reply)) })
    }

    fn answer(&mut self, call: Call) -> Result<Answer, Failure> {
        let result = match call {
            Call::ClusterInfo(_) => Outcome::ClusterInfo(wire::ClusterInfoReply {
                cluster_id: ClusterId(5).to_wire(),
                ..Default::default()
            }),
            Call::OpenPut(call) => Outcome::OpenPut(self.open_put(&call)?),
            Call::GetPlacement(call) => Outcome::GetPlacement(wire::GetPlacementReply {
                placement: self.groups.get(&call.group).cloned(),
            }),
            Call::CommitObject(call) => Outcome::CommitObject(self.commit(call)?),
            Call::GetObject(call) => Outcome::GetObject(self.get(&call)?),
            other => panic!("{other:?}"),
        };
        Ok(Answer { cluster_time_ms: NOW_MS, ..Answer::new(result) })
    }

    /// Offers the kinds of groups that the size needs, as far as there are any.
    fn open_put(&mut self, call: &wire::OpenPut) -> Result<wire::OpenPutReply, Failure> {
        self.opens += 1;
        let needs_coded = call.size_unknown || call.bytes_hint > 65_536;
        let needs_small = call.size_unknown || (call.bytes_hint > 4096 && !needs_coded);
        let offered = |small: bool| {
            let groups = self.groups.values().filter(|group| (group.k == 1) == small);
            groups.filter(|group| !call.avoid_groups.contains(&group.group) || small).cloned().collect()
        };
        let (mut small_groups, mut groups): (Vec<_>, Vec<_>) = (offered(true), offered(false));
        if groups.is_empty() {
            groups = self.groups.values().filter(|group| group.k > 1).cloned().collect();
        }
        small_groups.retain(|_| needs_small);
        groups.retain(|_| needs_coded);
        if (needs_small || needs_coded) && small_groups.is_empty() && groups.is_empty() {
            return refuse(ErrorCode::NoLegalPlace);
        }
        Ok(wire::OpenPutReply {
            granted_ms: NOW_MS,
            expires_ms: NOW_MS + 1,
            inline_bytes_max: 4096,
            small_bytes_max: 65_536,
            small_groups,
            groups,
        })
    }

    fn commit(&mut self, call: wire::CommitObject) -> Result<wire::CommitObjectReply, Failure> {
        let mut extents = BTreeSet::new();
        for extent in &call.extents {
            let group = &self.groups[&extent.group];
            assert!(extents.insert(extent.id.clone()), "an extent twice");
            assert!(group.places.len() as u32 - extent.missing.count_ones() >= group.min_durable);
            for (slot, place) in group.places.iter().enumerate() {
                if place.since_epoch > extent.epoch && extent.missing & 1 << slot == 0 {
                    return refuse(ErrorCode::StaleEpoch);
                }
            }
        }
        let held = call.extents.iter().map(|extent| extent.length).sum::<u64>() + call.inline.len() as u64;
        assert_eq!(held, call.size);
        self.next_version += 1;
        self.versions.insert(call.key.clone(), self.next_version);
        self.objects.insert(call.key.clone(), call);
        Ok(wire::CommitObjectReply { version: self.next_version, modified_ms: NOW_MS, ..Default::default() })
    }

    fn get(&self, call: &wire::GetObject) -> Result<wire::GetObjectReply, Failure> {
        let Some(commit) = self.objects.get(&call.key) else { return refuse(ErrorCode::NoSuchObject) };
        Ok(wire::GetObjectReply {
            object: Some(wire::Object {
                key: call.key.clone(),
                version: self.versions[&call.key],
                size: commit.size,
                crc32c: commit.crc32c,
                ..Default::default()
            }),
            inline: commit.inline.clone(),
            extents: commit.extents.clone(),
            placements: self.groups.values().cloned().collect(),
            tolerance: None,
        })
    }

    /// Every shard that the object's record does not call missing is on its slot's disk.
    pub fn assert_durable(&self, key: &str) {
        let commit = &self.objects[key.as_bytes()];
        for extent in &commit.extents {
            let group = &self.groups[&extent.group];
            let stripes = extent.length.div_ceil(u64::from(group.k) * 65_536);
            for (slot, place) in
                (0_u32..).zip(&group.places).filter(|(slot, _)| extent.missing & 1 << slot == 0)
            {
                for stripe in 0..u32::try_from(stripes).unwrap() {
                    let name = (extent.group, extent.id.clone(), stripe, slot, place.disk);
                    assert!(self.shards.contains_key(&name), "{name:?}");
                }
            }
        }
    }
}
