//! One strike: whom it hits, how long it lasts, and what is told of it.

use std::sync::Arc;
use std::time::Duration;

use simhost::{Host, Stream};

use super::ailments::{self, Ailment};
use super::class::FaultClass;
use super::{
    clocks, damage, losses, metas, moves, network, operators, people, power, processes, storage, stores,
    strangers,
};
use crate::cluster::Cluster;

/// One strike.
pub(super) struct Strike<'a> {
    /// Who is struck.
    pub(super) cluster: &'a Arc<Cluster>,
    /// Its number in the run.
    pub(super) number: u64,
    /// Its class.
    pub(super) class: FaultClass,
    /// All that it draws.
    pub(super) draws: Stream,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was done.
    Struck,
    /// There was nobody whom it could hit.
    Nobody,
    /// The atlas, or the class itself, says that it would go too far.
    Refused(String),
}

/// Strikes.
pub(super) fn strike(strike: &Strike<'_>) {
    let world = &strike.cluster.world;
    match perform(strike) {
        Outcome::Struck => {}
        Outcome::Nobody => {
            world.tell(None, || format!("fault {} {} finds nobody", strike.number, strike.class));
        }
        Outcome::Refused(reason) => {
            strike.cluster.nemesis.count_refusal(strike.class);
            let numbers = [strike.number, strike.class.number()];
            world.event(None, "fault-refused", &numbers, || {
                format!("{} {}: {reason}", strike.number, strike.class)
            });
        }
    }
}

fn perform(strike: &Strike<'_>) -> Outcome {
    match strike.class {
        FaultClass::KillProcess => processes::kill(strike),
        FaultClass::Doom => processes::doom(strike),
        FaultClass::Pause => processes::pause(strike),
        FaultClass::CleanRestart => processes::restart(strike),
        FaultClass::ClientVanishes => processes::client_vanishes(strike),
        FaultClass::PowerMachine => power::machine(strike),
        FaultClass::PowerRack => power::rack(strike),
        FaultClass::PowerAll => power::all(strike),
        FaultClass::RackOutage => power::rack_outage(strike),
        FaultClass::Partition => network::partition(strike),
        FaultClass::PartitionOneWay => network::partition_one_way(strike),
        FaultClass::IsolateLeader => network::isolate_leader(strike),
        FaultClass::IsolateSome => network::isolate_some(strike),
        FaultClass::SlowLinks => network::slow_links(strike),
        FaultClass::BreakConnections => network::break_connections(strike),
        FaultClass::LatencySpikes => network::latency_spikes(strike),
        FaultClass::DiskSlow => storage::slow(strike),
        FaultClass::DiskStuck => storage::stuck(strike),
        FaultClass::DiskErrors => storage::errors(strike),
        FaultClass::DiskFull => storage::full(strike),
        FaultClass::DiskAway => storage::away(strike),
        FaultClass::Damage => damage::damage(strike),
        FaultClass::DiskLost => losses::disk(strike),
        FaultClass::NodeLost => losses::node(strike),
        FaultClass::KvSlow => stores::slow(strike),
        FaultClass::KvStuck => stores::stuck(strike),
        FaultClass::KvFull => stores::full(strike),
        FaultClass::KvErrors => stores::errors(strike),
        FaultClass::MetaLost => metas::lost(strike),
        FaultClass::ClockDrift => clocks::drift(strike),
        FaultClass::ClockJump => clocks::jump(strike),
        FaultClass::AddNode => operators::add_node(strike),
        FaultClass::SwapMeta => operators::swap_meta(strike),
        FaultClass::TransferLeader => operators::transfer_leader(strike),
        FaultClass::MoveSlots => moves::move_slots(strike),
        FaultClass::LateRequests => strangers::late_requests(strike),
        FaultClass::RudeClient => strangers::rude_client(strike),
        FaultClass::OldWork => strangers::old_work(strike),
        FaultClass::Ambush => power::ambush(strike),
        FaultClass::LogDamage => damage::log(strike),
        FaultClass::IndexLost => stores::index_lost(strike),
        FaultClass::Drain => people::drain(strike),
        FaultClass::Undrain => people::undrain(strike),
        FaultClass::FailDisk => people::fail_disk(strike),
        FaultClass::ReplaceDisk => people::replace_disk(strike),
        FaultClass::RetireNode => people::retire_node(strike),
        FaultClass::Rebalance => people::rebalance(strike),
        FaultClass::SetTask => people::set_task(strike),
    }
}

impl Strike<'_> {
    /// Tells that it happens, to whom. Called once, before the effect.
    pub(super) fn hits(&self, victim: Option<&Host>, story: impl FnOnce() -> String) -> Outcome {
        self.cluster.nemesis.count(self.class);
        let victim = victim.map(Host::id);
        let numbers = [self.number, self.class.number()];
        let world = &self.cluster.world;
        world.event(victim, "fault", &numbers, || format!("{} {}: {}", self.number, self.class, story()));
        Outcome::Struck
    }

    /// One of them.
    pub(super) fn pick<T: Clone>(&self, of: &[T]) -> Option<T> {
        self.draws.pick(of).cloned()
    }

    /// From `low_ms` to `high_ms`, more often short than long.
    pub(super) fn lasting(&self, low_ms: u64, high_ms: u64) -> Duration {
        Duration::from_millis(self.draws.skewed(low_ms, high_ms))
    }

    /// A share in millionths, at most `most`, more often small.
    pub(super) fn ppm(&self, low: u32, most: u32) -> u32 {
        u32::try_from(self.draws.skewed(low.into(), most.into())).unwrap_or(most)
    }

    /// What lasts begins, and ends by itself.
    pub(super) fn ail(&self, ailments: Vec<Ailment>, lasting: Duration) {
        ailments::begin(self.cluster, self.number, ailments);
        let number = self.number;
        self.later(lasting, move |cluster| ailments::end(cluster, number));
    }

    /// Does something after a while, unless all is calm by then.
    pub(super) fn later(&self, wait: Duration, what: impl FnOnce(&Arc<Cluster>) + Send + 'static) {
        let cluster = self.cluster.clone();
        let world = cluster.world.clone();
        world.clone().spawn("fault-ends", async move {
            world.sleep(wait).await;
            if !cluster.nemesis.is_calm() {
                what(&cluster);
            }
        });
    }
}
