//! What a seed means: the cluster, its settings, the load, and the faults.
//!
//! Swarm testing: each seed draws which classes of faults are on and how often they come, how the
//! cluster is built and how its settings are, so that rare combinations come up and no class drowns
//! the others.

use std::collections::BTreeMap;
use std::time::Duration;

use node::superblock::segment_bytes;
use serde::Serialize;
use simhost::{Schedule, Stream};

use crate::nemesis::FaultClass;

/// All that a seed decides before the first event.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// May more be lost than the promises cover?
    pub beyond: bool,
    /// Order of ready tasks.
    #[serde(skip)]
    pub schedule: Schedule,
    /// Metadata servers at the beginning.
    pub metas: u32,
    /// Nodes of each rack at the beginning.
    pub racks: Vec<Vec<NodePlan>>,
    /// The erasure-code profile.
    pub profile: ProfilePlan,
    /// Settings of servers and nodes.
    pub tunables: Tunables,
    /// What clients do.
    pub load: Load,
    /// How long faults and load last.
    pub storm: Duration,
    /// Faults that are on: mean time between two of a class.
    pub faults: BTreeMap<FaultClass, Duration>,
    /// Latency and trouble of the network all along.
    pub network: NetworkPlan,
    /// Latency of disks all along, at most.
    pub disk_us_max: u64,
    /// What the smallest disks could hold.
    pub disk_bytes_min: u64,
    /// Room that each disk has until the faults end, whatever it could hold; none for all of it.
    pub room: Option<RoomPlan>,
}

/// The room of a disk: whichever is more.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RoomPlan {
    /// In segments of its log.
    pub segments: u64,
    /// In bytes.
    pub bytes: u64,
}

impl RoomPlan {
    /// Of a disk that could hold so many bytes.
    pub fn of(self, capacity_bytes: u64) -> u64 {
        self.bytes.max(self.segments.saturating_mul(segment_bytes(capacity_bytes))).min(capacity_bytes)
    }
}

/// A storage node.
#[derive(Clone, Debug, Serialize)]
pub struct NodePlan {
    /// Capacity of each disk in bytes.
    pub disks: Vec<u64>,
}

/// An erasure-code profile.
#[derive(Clone, Debug, Serialize)]
pub struct ProfilePlan {
    /// Data shards.
    pub k: u32,
    /// Parity shards.
    pub m: u32,
    /// Bytes of a full shard.
    pub shard_bytes: u32,
    /// One of `disk`, `node`, `rack`.
    pub domain: &'static str,
    /// Objects up to here are replicated.
    pub small_bytes_max: u32,
    /// Shards of a stripe that must be durable.
    pub min_durable: u32,
    /// No writes into groups that break the failure domain.
    pub refuse_below_policy: bool,
    /// Slots a disk, which decides the number of groups.
    pub slots_per_disk: u32,
}

/// Settings of servers and nodes.
#[derive(Clone, Debug, Serialize)]
pub struct Tunables {
    /// Raft's heartbeat.
    pub raft_heartbeat: Duration,
    /// Raft's shortest election timeout.
    pub election_min: Duration,
    /// Raft's longest election timeout.
    pub election_max: Duration,
    /// Entries between snapshots.
    pub snapshot_every: u64,
    /// Silence until suspect.
    pub suspect_after: Duration,
    /// Silence until down.
    pub down_after: Duration,
    /// Down until replaced.
    pub out_after: Duration,
    /// Between heartbeats of nodes.
    pub node_heartbeat: Duration,
    /// Between attempts to open a disk.
    pub disk_retry: Duration,
    /// A whole verification of a disk.
    pub audit_period: Duration,
    /// Between looks for orphans.
    pub orphan_period: Duration,
    /// Stripes made at a time.
    pub repair_stripes: usize,
    /// Limit of a client's operation.
    pub timeout: Duration,
    /// How long a put waits for its last shards.
    pub shard_timeout: Duration,
}

/// What clients do.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// Client processes.
    pub clients: u32,
    /// Operations at the same time, each.
    pub workers: u32,
    /// Longest pause between operations of a worker.
    pub pause_max: Duration,
    /// Keys of the bucket.
    pub keys: u64,
    /// Bytes of an object, at most.
    pub size_max: u64,
    /// Operations of all clients together, at most.
    pub operations_max: u64,
    /// Weights, in the order put, put if, get, range, head, delete, delete if, list, batch.
    pub weights: [u32; 9],
}

/// The network all along.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct NetworkPlan {
    /// One way, least and most.
    pub latency_us: (u64, u64),
    /// Messages in a million that are lost and sent again.
    pub spike_ppm: u32,
    /// How long that takes, at most.
    pub spike_us_max: u64,
    /// Messages in a million at which the connection breaks.
    pub reset_ppm: u32,
}

fn ms(stream: &Stream, low: u64, high: u64) -> Duration {
    Duration::from_millis(stream.between(low, high))
}

impl Plan {
    /// What the seed means. `beyond`: may more be lost than the promises cover?
    pub fn draw(seed: u64, beyond: bool) -> Self {
        let root = Stream::new(seed).fork("plan");
        let profile = ProfilePlan::draw(&root.fork("profile"));
        let room = root.fork("room");
        let shards = SHARDS_A_DISK_MIN[room.index(SHARDS_A_DISK_MIN.len())];
        let disk_bytes_min = u64::from(profile.shard_bytes) * shards;
        let racks = draw_racks(&root.fork("racks"), &profile, disk_bytes_min);
        let mut load = Load::draw(&root.fork("load"));
        if room.chance(BULKY_PPM) {
            load.size_max = load.size_max.max(BULKY_BYTES);
        }
        let room_plan = draw_room(&room, &racks, &profile, &load);
        let stream = root.fork("rest");
        let schedule = match stream.below(4) {
            0 => Schedule::Fifo,
            1 => Schedule::Starving,
            _ => Schedule::Random,
        };
        Self {
            seed,
            beyond,
            schedule,
            metas: [1, 3, 3, 3, 3, 5][stream.index(6)],
            racks,
            profile,
            tunables: Tunables::draw(&root.fork("tunables")),
            load,
            storm: ms(&stream, 10_000, 40_000),
            faults: draw_faults(&root.fork("faults")),
            network: NetworkPlan::draw(&root.fork("network")),
            disk_us_max: stream.skewed(10, 20_000),
            disk_bytes_min,
            room: room_plan,
        }
    }

    /// The same cluster and load for every seed, without faults, to measure speed with: 3 metadata
    /// servers, 9 nodes of 2 disks in 3 racks, 6 clients.
    pub fn bench(seed: u64) -> Self {
        let node = || NodePlan { disks: vec![128 << 20; 2] };
        Self {
            metas: 3,
            racks: (0..3).map(|_| (0..3).map(|_| node()).collect()).collect(),
            profile: ProfilePlan {
                k: 4,
                m: 2,
                shard_bytes: 65_536,
                domain: "rack",
                small_bytes_max: 16_384,
                min_durable: 0,
                refuse_below_policy: false,
                slots_per_disk: 8,
            },
            load: Load {
                clients: 6,
                workers: 2,
                pause_max: Duration::from_millis(500),
                keys: 200,
                size_max: 1_000_000,
                operations_max: 1_000_000,
                weights: [30, 5, 40, 10, 5, 5, 2, 2, 1],
            },
            schedule: Schedule::Random,
            storm: Duration::from_secs(60),
            faults: BTreeMap::new(),
            network: NetworkPlan { latency_us: (100, 300), spike_ppm: 0, spike_us_max: 0, reset_ppm: 0 },
            disk_us_max: 1_000,
            disk_bytes_min: 128 << 20,
            room: None,
            tunables: Tunables {
                raft_heartbeat: Duration::from_millis(150),
                election_min: Duration::from_millis(600),
                election_max: Duration::from_millis(1_200),
                snapshot_every: 20_000,
                suspect_after: Duration::from_secs(3),
                down_after: Duration::from_secs(15),
                out_after: Duration::from_mins(10),
                node_heartbeat: Duration::from_secs(1),
                disk_retry: Duration::from_secs(10),
                audit_period: Duration::from_hours(14 * 24),
                orphan_period: Duration::from_hours(1),
                repair_stripes: 2,
                timeout: Duration::from_secs(10),
                shard_timeout: Duration::from_secs(4),
            },
            seed,
            beyond: false,
        }
    }

    /// Nodes at the beginning.
    pub fn nodes(&self) -> usize {
        self.racks.iter().map(Vec::len).sum()
    }
}

impl ProfilePlan {
    fn draw(stream: &Stream) -> Self {
        let (k, m) = [(2, 1), (2, 2), (4, 2), (1, 2), (3, 2), (4, 2)][stream.index(6)];
        let min_durable = if stream.chance(300_000) { stream.between(k + 1, k + m) } else { 0 };
        Self {
            k: u32::try_from(k).unwrap_or(2),
            m: u32::try_from(m).unwrap_or(1),
            shard_bytes: 65_536 * [1, 1, 1, 2][stream.index(4)],
            domain: ["rack", "rack", "node", "disk"][stream.index(4)],
            small_bytes_max: [0, 8_192, 16_384][stream.index(3)],
            min_durable: u32::try_from(min_durable).unwrap_or(0),
            refuse_below_policy: stream.chance(150_000),
            slots_per_disk: u32::try_from(stream.between(4, 10)).unwrap_or(4),
        }
    }
}

/// How often there are objects in any case that take whole stripes, so that logs wrap around; in a million.
const BULKY_PPM: u32 = 400_000;
/// How large some of them are at least.
const BULKY_BYTES: u64 = 500_000;
/// The mean size of an object is this part of the largest, about.
const OF_LARGEST: u64 = 10;
/// Nodes of a rack.
const NODES_MAX: u64 = 4;

/// Racks, nodes and disks in which the profile finds its places, with a little more or a lot.
fn draw_racks(stream: &Stream, profile: &ProfilePlan, disk_bytes_min: u64) -> Vec<Vec<NodePlan>> {
    let (slots, m) = (u64::from(profile.k + profile.m), u64::from(profile.m));
    let domains = slots.div_ceil(m).max(2);
    let (racks, nodes_min) = match profile.domain {
        "rack" => (domains + stream.below(2), slots.div_ceil(domains)),
        "node" => (stream.between(1, 3), 0),
        _ => (stream.between(1, 3), 1),
    };
    let node_domains = if profile.domain == "node" { domains.max(slots.min(5)) + stream.below(2) } else { 0 };
    let nodes_min = nodes_min.max(node_domains.div_ceil(racks)).clamp(1, NODES_MAX);
    let rack = |_| {
        let nodes = (nodes_min + stream.below(2)).min(NODES_MAX);
        // Enough disks for all slots even if no other rack has more nodes than it must.
        let disks_min = slots.div_ceil(racks * nodes_min) + u64::from(profile.domain == "disk");
        (0..nodes).map(|_| NodePlan::draw(stream, disks_min, disk_bytes_min)).collect()
    };
    (0..racks).map(rack).collect()
}

impl NodePlan {
    /// A node with at least `disks_min` disks of uneven sizes, small ones: what is deleted has to make room.
    pub fn draw(stream: &Stream, disks_min: u64, disk_bytes_min: u64) -> Self {
        let disks = disks_min.max(1) + stream.below(2);
        let size = |_| disk_bytes_min + stream.below(3) * (disk_bytes_min / 2);
        Self { disks: (0..disks).map(size).collect() }
    }
}

/// Full shards that the smallest disk could hold, so that one fits a segment of it, or some do.
const SHARDS_A_DISK_MIN: [u64; 3] = [128, 128, 256];
/// Segments that a disk has room for at least; three of them are never given to shards.
const SEGMENTS_MIN: (u64, u64) = (5, 9);

/// Little room, so that logs are compacted often and disks get full, and sometimes plenty of it.
fn draw_room(
    stream: &Stream,
    racks: &[Vec<NodePlan>],
    profile: &ProfilePlan,
    load: &Load,
) -> Option<RoomPlan> {
    let disks: usize = racks.iter().flatten().map(|node| node.disks.len()).sum();
    let (slots, k) = (u64::from(profile.k + profile.m), u64::from(profile.k).max(1));
    // Most objects are much smaller than the largest.
    let live_bytes = load.keys.saturating_mul(load.size_max) / OF_LARGEST * slots / k;
    let share = live_bytes / u64::try_from(disks).unwrap_or(1).max(1);
    let times = [None, Some(1), Some(1), Some(2)][stream.index(4)]?;
    let segments = stream.between(SEGMENTS_MIN.0, SEGMENTS_MIN.1);
    Some(RoomPlan { segments, bytes: share * times })
}

impl Tunables {
    fn draw(stream: &Stream) -> Self {
        let raft_heartbeat = ms(stream, 50, 200);
        let election_min = raft_heartbeat * 4;
        let suspect_after = ms(stream, 1_500, 4_000);
        let down_after = suspect_after + ms(stream, 500, 6_000);
        Self {
            raft_heartbeat,
            election_min,
            election_max: election_min * 2,
            snapshot_every: stream.skewed(20, 2_000),
            suspect_after,
            down_after,
            out_after: down_after + ms(stream, 1_000, 20_000),
            node_heartbeat: ms(stream, 200, 1_000),
            disk_retry: ms(stream, 500, 5_000),
            audit_period: ms(stream, 5_000, 30_000),
            orphan_period: ms(stream, 2_000, 20_000),
            repair_stripes: 1 + stream.index(4),
            timeout: ms(stream, 5_000, 20_000),
            shard_timeout: ms(stream, 500, 4_000),
        }
    }
}

impl Load {
    fn draw(stream: &Stream) -> Self {
        let mut weights = [30, 10, 30, 10, 5, 8, 4, 6, 1];
        for weight in &mut weights {
            // Swarm: some kinds are off, others come more often.
            *weight *= [0, 1, 1, 2, 4].map(|factor: u32| factor)[stream.index(5)];
        }
        weights[0] = weights[0].max(10);
        weights[2] = weights[2].max(10);
        Self {
            clients: u32::try_from(stream.between(1, 5)).unwrap_or(1),
            workers: u32::try_from(stream.between(1, 3)).unwrap_or(1),
            pause_max: ms(stream, 50, 2_000),
            keys: stream.skewed(2, 60),
            size_max: stream.skewed(3_000, 2_000_000),
            operations_max: 600,
            weights,
        }
    }
}

impl NetworkPlan {
    fn draw(stream: &Stream) -> Self {
        let quiet = stream.chance(300_000);
        let low = stream.between(20, 500);
        Self {
            latency_us: (low, low + stream.skewed(10, 20_000)),
            spike_ppm: if quiet { 0 } else { u32::try_from(stream.skewed(10, 20_000)).unwrap_or(0) },
            spike_us_max: stream.skewed(1_000, 1_000_000),
            reset_ppm: if quiet { 0 } else { u32::try_from(stream.skewed(1, 2_000)).unwrap_or(0) },
        }
    }
}

/// How many runs have a mild class at least, in a million.
const MILD_SHARE_PPM: u32 = 600_000;

/// How many runs have a class of what people do at least, in a million.
const PEOPLE_SHARE_PPM: u32 = 350_000;

/// Each class is on or off; those that are on come at their own pace.
fn draw_faults(stream: &Stream) -> BTreeMap<FaultClass, Duration> {
    let share = [100_000, 300_000, 500_000][stream.index(3)];
    let mut faults = BTreeMap::new();
    for class in FaultClass::ALL {
        let pace = ms(stream, 1_500, 20_000);
        let (share, pace) =
            if class.is_mild() { (share.max(MILD_SHARE_PPM), pace / 2) } else { (share, pace) };
        let share = if class.is_of_people() { share.max(PEOPLE_SHARE_PPM) } else { share };
        if stream.chance(share) {
            faults.insert(class, pace);
        }
    }
    faults
}
