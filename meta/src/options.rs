//! What a metadata server is told at its start.

use std::time::Duration;

use proto::{InvalidInput, MetaId, wire};

/// What a metadata server is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// This server's id, as in its certificate. Never one that another server had before.
    pub id: MetaId,
    /// `host:port` to listen on; port 0 for any.
    pub listen: String,
    /// `host:port` at which others reach this server; none for the address it listens on.
    pub advertise: Option<String>,
    /// Raft's clocks and bounds.
    pub raft: RaftTimings,
    /// When a silent node is given up.
    pub detection: Detection,
    /// How fast a node may repair and move, unless a task says otherwise.
    pub throttle: Throttle,
    /// From when on disks count as full.
    pub fullness: Fullness,
    /// Proposals that may wait for their commit at once; more are refused as `Overloaded`.
    pub proposals_in_flight_max: usize,
}

/// Raft's clocks and bounds. All servers of a cluster should agree on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftTimings {
    /// A leader lets its followers hear of it this often.
    pub heartbeat: Duration,
    /// A follower that hears nothing stands for election after a random time from here …
    pub election_min: Duration,
    /// … to here.
    pub election_max: Duration,
    /// Entries between two snapshots.
    pub snapshot_every_entries: u64,
}

/// How fast one node may work for the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// Bytes made again where they were lost; 0 for no limit.
    pub repair_bytes_per_s: u64,
    /// Bytes copied because their slot moves; 0 for no limit.
    pub move_bytes_per_s: u64,
}

/// From when on disks count as full, each in percent of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fullness {
    /// People are told.
    pub near_full_percent: u8,
    /// No slot goes there any more.
    pub backfill_full_percent: u8,
    /// No new object goes there any more. A disk that says that it is full is so before.
    pub full_percent: u8,
}

/// When a silent node is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    /// Silence after which clients avoid a node.
    pub suspect_after: Duration,
    /// Silence after which a node's disks count as down: nothing is read from them or written to them.
    pub down_after: Duration,
    /// Time that a disk must be down without a break, under one leader, until it is out: its slots move to
    /// other disks.
    pub out_after: Duration,
    /// While more of the disks than this are down at once, percent, none is taken for out: that is an outage
    /// to be mended, not a loss to be copied away from.
    pub out_share_max_percent: u8,
}

impl Options {
    /// The defaults: heartbeats of 150 ms, elections after 600 to 1200 ms, suspect after 3 s, down
    /// after 15 s, out after 10 min unless more than a quarter of the disks is down, no limit for repair and 64 MiB/s for
    /// moves, disks near full at 85 %, full for slots at 90 % and for objects at 95 %, a snapshot every 20 000
    /// entries.
    pub fn new(id: MetaId, listen: impl Into<String>) -> Self {
        Self {
            id,
            listen: listen.into(),
            advertise: None,
            raft: RaftTimings {
                heartbeat: Duration::from_millis(150),
                election_min: Duration::from_millis(600),
                election_max: Duration::from_millis(1200),
                snapshot_every_entries: 20_000,
            },
            detection: Detection {
                suspect_after: Duration::from_secs(3),
                down_after: Duration::from_secs(15),
                out_after: Duration::from_mins(10),
                out_share_max_percent: 25,
            },
            throttle: Throttle { repair_bytes_per_s: 0, move_bytes_per_s: 64 << 20 },
            fullness: Fullness::default(),
            proposals_in_flight_max: 1024,
        }
    }

    /// Do the settings fit together?
    ///
    /// # Errors
    ///
    /// Says which setting does not fit, and what would.
    pub fn check(&self) -> Result<(), InvalidInput> {
        let refuse = |text: &str| Err(InvalidInput::new(text));
        if self.id.0 == 0 {
            return refuse("a metadata server's id cannot be 0: give it a number from 1 on");
        }
        if self.raft.heartbeat < Duration::from_millis(5) {
            return refuse("raft.heartbeat is below 5 ms");
        }
        if self.raft.election_min < self.raft.heartbeat * 2 {
            return refuse("raft.election_min must be at least twice raft.heartbeat");
        }
        if self.raft.election_max < self.raft.election_min + self.raft.heartbeat {
            return refuse("raft.election_max must exceed raft.election_min by a heartbeat or more");
        }
        if self.raft.snapshot_every_entries == 0 {
            return refuse("raft.snapshot_every_entries cannot be 0");
        }
        if self.detection.suspect_after >= self.detection.down_after {
            return refuse("detection.suspect_after must be shorter than detection.down_after");
        }
        if self.detection.down_after >= self.detection.out_after {
            return refuse("detection.down_after must be shorter than detection.out_after");
        }
        if !(1..=100).contains(&self.detection.out_share_max_percent) {
            return refuse("detection.out_share_max_percent must be 1 to 100");
        }
        let Fullness { near_full_percent, backfill_full_percent, full_percent } = self.fullness;
        let rises = near_full_percent <= backfill_full_percent && backfill_full_percent <= full_percent;
        if near_full_percent == 0 || full_percent > 100 || !rises {
            return refuse(
                "fullness must rise from near full to full for slots to full, from 1 to 100 percent",
            );
        }
        if self.proposals_in_flight_max == 0 {
            return refuse("proposals_in_flight_max cannot be 0");
        }
        Ok(())
    }
}

impl Default for Fullness {
    fn default() -> Self {
        Self { near_full_percent: 85, backfill_full_percent: 90, full_percent: 95 }
    }
}

impl From<Fullness> for wire::Fullness {
    fn from(fullness: Fullness) -> Self {
        Self {
            near_full_percent: fullness.near_full_percent.into(),
            backfill_full_percent: fullness.backfill_full_percent.into(),
            full_percent: fullness.full_percent.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults fit together; each rule refuses what breaks it.
    #[test]
    fn settings_are_checked() {
        let good = Options::new(MetaId(1), "127.0.0.1:0");
        assert_eq!(good.check(), Ok(()));
        let broken: [fn(&mut Options); 12] = [
            |o| o.id = MetaId(0),
            |o| o.raft.heartbeat = Duration::ZERO,
            |o| o.raft.election_min = o.raft.heartbeat,
            |o| o.raft.election_max = o.raft.election_min,
            |o| o.raft.snapshot_every_entries = 0,
            |o| o.detection.suspect_after = o.detection.down_after,
            |o| o.detection.out_after = o.detection.down_after,
            |o| o.detection.out_share_max_percent = 0,
            |o| o.detection.out_share_max_percent = 101,
            |o| o.fullness.near_full_percent = 0,
            |o| o.fullness.near_full_percent = 91,
            |o| o.fullness.full_percent = 101,
        ];
        for (index, breaks) in broken.iter().enumerate() {
            let mut options = good.clone();
            breaks(&mut options);
            assert!(options.check().is_err(), "rule {index} took {options:?}");
        }
    }
}
