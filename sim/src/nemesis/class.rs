//! The classes of faults. To add one: a line here, a function in the file of its theme, and an arm in
//! [`strike`](super::strike).

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

macro_rules! classes {
    ($($(#[$doc:meta])+ $class:ident = $name:literal,)+) => {
        /// A class of faults that a seed may switch on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FaultClass {
            $($(#[$doc])+ $class,)+
        }

        impl FaultClass {
            /// All classes.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$class),+];

            /// As people type it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$class => $name,)+
                }
            }
        }
    };
}

classes! {
    /// The process of a server is killed, and started again.
    KillProcess = "kill-process",
    /// A server loses power for a moment.
    PowerMachine = "power-machine",
    /// All of a rack loses power for a moment.
    PowerRack = "power-rack",
    /// Everything loses power at once.
    PowerAll = "power-all",
    /// A rack is without power for a while.
    RackOutage = "rack-outage",
    /// A server dies just before or after one of its next operations on disks, stores or the network.
    Doom = "doom",
    /// A process stands still for a while.
    Pause = "pause",
    /// An operator restarts a server.
    CleanRestart = "clean-restart",
    /// A client's process is killed in the middle of what it does.
    ClientVanishes = "client-vanishes",
    /// The network falls into two halves.
    Partition = "partition",
    /// One part of the network does not hear the other.
    PartitionOneWay = "partition-one-way",
    /// The leader of the metadata servers is cut off.
    IsolateLeader = "isolate-leader",
    /// A server is cut off from some of the others.
    IsolateSome = "isolate-some",
    /// All that goes to a host or comes from it takes longer.
    SlowLinks = "slow-links",
    /// Connections break.
    BreakConnections = "break-connections",
    /// Many messages everywhere take longer.
    LatencySpikes = "latency-spikes",
    /// A disk is slow.
    DiskSlow = "disk-slow",
    /// A disk does not answer for a while.
    DiskStuck = "disk-stuck",
    /// Reads, writes and flushes of a disk fail now and then.
    DiskErrors = "disk-errors",
    /// A disk is full for a while.
    DiskFull = "disk-full",
    /// A disk is gone, and comes back with all that was flushed.
    DiskAway = "disk-away",
    /// Shards at rest are damaged: rotten, lost, unreadable, overwritten, or stale for one read.
    Damage = "damage",
    /// A disk is gone for good; an operator may put a new one in its place.
    DiskLost = "disk-lost",
    /// A node is gone for good, with all its disks; an operator may put a new one in its rack.
    NodeLost = "node-lost",
    /// A store of a server flushes slowly.
    KvSlow = "kv-slow",
    /// A store of a server does not flush for a while.
    KvStuck = "kv-stuck",
    /// A store of a server is full for a while.
    KvFull = "kv-full",
    /// Writes and flushes of a store of a server fail now and then.
    KvErrors = "kv-errors",
    /// A metadata server loses its disk for good; an operator replaces it by one of a new id.
    MetaLost = "meta-lost",
    /// Clocks run too fast or too slow for a while.
    ClockDrift = "clock-drift",
    /// Wall clocks jump by up to hours.
    ClockJump = "clock-jump",
    /// An operator adds a node, in a rack that exists or in a new one.
    AddNode = "add-node",
    /// An operator replaces a metadata server that is well.
    SwapMeta = "swap-meta",
    /// An operator makes another metadata server lead.
    TransferLeader = "transfer-leader",
    /// Slots move off disks that are well, as when one is emptied.
    MoveSlots = "move-slots",
    /// An old process sends again what was sent before, and claims under old epochs to have worked.
    LateRequests = "late-requests",
    /// A client stalls before it commits, commits with too few slots, and writes to foreign disks.
    RudeClient = "rude-client",
    /// Nodes are asked to drop what they need, as by work that is out of date.
    OldWork = "old-work",
    /// A server loses power just after an operation that makes something durable, or is about to.
    Ambush = "ambush",
    /// The log of a disk is damaged elsewhere than in shards: headers of segments, deletions, seals, superblocks.
    LogDamage = "log-damage",
    /// A node comes back without what it knew of its disks.
    IndexLost = "index-lost",
    /// People empty a node or a disk.
    Drain = "drain",
    /// People bring disks back into service.
    Undrain = "undrain",
    /// People give up a disk.
    FailDisk = "fail-disk",
    /// People replace a disk, one that is gone or one that is well.
    ReplaceDisk = "replace-disk",
    /// People empty a node, stop it, and have it forgotten.
    RetireNode = "retire-node",
    /// People have the disks made equally full.
    Rebalance = "rebalance",
    /// People pause, resume and cancel tasks, and set their limits.
    SetTask = "set-task",
}

impl FaultClass {
    /// Does it neither destroy nor stop anything? Such classes come in most runs.
    pub(crate) fn is_mild(self) -> bool {
        matches!(self, Self::MoveSlots | Self::LateRequests | Self::RudeClient | Self::OldWork)
    }

    /// Is it what people do to the disks of a cluster that may be well?
    pub(crate) fn is_of_people(self) -> bool {
        matches!(
            self,
            Self::Drain
                | Self::Undrain
                | Self::FailDisk
                | Self::ReplaceDisk
                | Self::RetireNode
                | Self::Rebalance
                | Self::SetTask
        )
    }

    /// Its number in the trace.
    pub(super) fn number(self) -> u64 {
        Self::ALL.iter().position(|class| *class == self).map_or(0, |at| at as u64)
    }
}

impl fmt::Display for FaultClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for FaultClass {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// There is no class of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no class of faults is named {name:?}; there are {}", FaultClass::ALL.map(FaultClass::name).join(", "))]
pub struct UnknownClass {
    name: String,
}

impl FromStr for FaultClass {
    type Err = UnknownClass;

    fn from_str(name: &str) -> Result<Self, UnknownClass> {
        let class = Self::ALL.into_iter().find(|class| class.name() == name);
        class.ok_or_else(|| UnknownClass { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every class is found by its name, and by no other.
    #[test]
    fn names_round_trip() {
        for class in FaultClass::ALL {
            assert_eq!(class.name().parse(), Ok(class), "{class}");
        }
        let error = "kill".parse::<FaultClass>().unwrap_err().to_string();
        assert!(error.contains("\"kill\"") && error.contains("kill-process, "), "{error}");
    }
}
